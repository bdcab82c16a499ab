import assert from "node:assert/strict";
import test from "node:test";
import { layersOf } from "../../../../pullgeo/viz/explore/front/layers.js";
import { Members, variation } from "../../../../pullgeo/viz/explore/front/members.js";
import { close, plane, surfaceOf } from "./surfaces.mjs";

const VERDICTS = {
  verdicts: [{ name: "AGREE", limit: 0.1, text: "a" }, { name: "ROUGH", limit: 0.3, text: "r" }, { name: "DISAGREE", limit: null, text: "d" }],
  unsolved: { name: "NOT_SOLVED", text: "n" },
};

/** Members whose metrics are those of planes stretched along x and y. */
function stretched(...factors) {
  const members = new Members({ count: factors.length, surfaces: [], ...VERDICTS });
  members.surfaces = factors.map(([a, b]) => surfaceOf(null, [-2, 2], [-1, 3], { nx: 11, ny: 13, rest: () => [a * a, 0, b * b], log: true }));
  return members;
}

const pause = async () => undefined;
const { signal } = new AbortController();

test("members that differ by a factor disagree by its variation, in all directions", () => {
  const members = stretched([1, 1], [2, 2], [4, 4]);
  const { cv } = variation([1, 2, 4]);
  close(cv, Math.sqrt(7 / 3) / (7 / 3), 1e-12);
  for (const [x, y] of [[0, 0], [-1.9, 2.9], [1.5, 0.3]]) close(members.disagreement(x, y), cv, 1e-6);
  assert.ok(Number.isNaN(members.disagreement(5, 0)));
});

test("members of the same trace and other directions disagree", () => {
  const members = stretched([1, 3], [3, 1]);
  let sum = 0;
  for (let i = 0; i < 8; i++) {
    const [u, v] = [Math.cos((i * Math.PI) / 8), Math.sin((i * Math.PI) / 8)];
    sum += variation([Math.hypot(u, 3 * v), Math.hypot(3 * u, v)]).cv;
  }
  close(members.disagreement(0.5, 0.5), sum / 8, 1e-6);
  assert.ok(members.disagreement(0.5, 0.5) > 0.2);
});

test("the spread is that of the members' own geodesics", async () => {
  const members = stretched([1, 1], [1.1, 1.1], [1.3, 1.3]);
  const found = await members.spread([-1, 0], [1, 1], signal, pause);
  const lengths = [1, 1.1, 1.3].map((f) => f * Math.hypot(2, 1));
  found.lengths.forEach((length, i) => close(length, lengths[i], 1e-6));
  close(found.cv, variation(lengths).cv, 1e-5);
  assert.deepEqual([found.status, found.text, found.converged], ["ROUGH", "r", true]);
  const abort = new AbortController();
  abort.abort();
  assert.equal(await members.spread([-1, 0], [1, 1], abort.signal, pause), null);
});

test("a verdict for each size of the spread", () => {
  const members = stretched([1, 1], [1, 1]);
  assert.equal(members.spreadOf([1, 1.05]).status, "AGREE");
  assert.equal(members.spreadOf([1, 1.2, null]).status, "ROUGH");
  assert.equal(members.spreadOf([1, 1.2, null]).converged, false);
  assert.equal(members.spreadOf([1, 3]).status, "DISAGREE");
  assert.equal(members.spreadOf([0, 0]).status, "AGREE");
  for (const few of [[1, null], [null, null]]) {
    const { status, std, cv } = members.spreadOf(few);
    assert.deepEqual([status, std, cv], ["NOT_SOLVED", null, null]);
  }
});

test("there is a layer of members where there are members", () => {
  const members = stretched([1, 1], [2, 2]);
  members.count = 30;
  const layer = layersOf(plane(), [], members).find(({ id }) => id === "members");
  assert.match(layer.words, /the first 2 of 30 decoders/);
  assert.match(layer.unit, /up to 0.1 .* beyond 0.3/);
  const painted = layer.paint([0, 0]);
  assert.equal(painted.values.length, painted.nx * painted.ny);
  assert.ok(!layersOf(plane(), []).some(({ id }) => id === "members"));
});
