// Planes: what people write, and what the library calls it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { planeOf } from "../../../../pullgeo/viz/explore/front/atlas.js";
import { hashToState, stateToHash } from "../../../../pullgeo/viz/explore/front/state.js";

test("components are counted from one, dimensions and latents from zero", () => {
  assert.equal(planeOf("components", "1, 3"), "components:0,2");
  assert.equal(planeOf("dims", " 3 1 "), "dims:3,1");
  assert.equal(planeOf("latents", "4;0, 7"), "latents:4,0,7");
});

test("what names no plane is none", () => {
  for (const [kind, text] of [["components", "0, 1"], ["dims", "1"], ["dims", "1, 1"], ["dims", "a, b"], ["dims", "-1, 2"],
    ["dims", "1.5, 2"], ["latents", "1, 2"], ["rows", "1, 2"], ["dims", ""], ["dims", "12345678901, 2"]]) {
    assert.equal(planeOf(kind, text), null, `${kind} ${text}`);
  }
});

test("an address says of which plane it is", () => {
  const state = { z0: [0, 1], z1: [2, 3], t: 0.5, layer: "volume", tool: "move", balls: false, pins: [], selection: [], hidden: [] };
  assert.equal(hashToState(stateToHash(state, "dims:3,1 & <b>")).plane, "dims:3,1 & <b>");
  assert.equal(hashToState(stateToHash(state)).plane, undefined);
});
