import assert from "node:assert/strict";
import test from "node:test";
import { CURVE_TEXTS, Tracker, chordEnergy, geodesic, line } from "../../../../pullgeo/viz/explore/front/geodesic.js";
import {
  close, cylinder, halfPlane, halfPlaneDistance, plane, somePairs, sphere, sphereDistance, sphereWithRest, surfaceOf,
} from "./surfaces.mjs";

test("geodesics of a plane are lines, and their error estimate says so", () => {
  const surface = plane();
  for (const [a, b] of somePairs(10, surface.x, surface.y)) {
    const curve = geodesic(surface, a, b);
    const dx = b[0] - a[0], dy = b[1] - a[1];
    assert.equal(curve.status, "CONVERGED");
    close(curve.length, Math.sqrt(5 * dx * dx + 2 * dx * dy + 2.25 * dy * dy), 1e-6);
    assert.ok(curve.error < 1e-6 * curve.length);
    close(line(surface, a, b).length, curve.length, 1e-9);
    const T = curve.speeds.length;
    close(curve.arc[T], curve.length, 1e-12);
    close(Math.max(...curve.speeds), Math.min(...curve.speeds), 1e-5);
  }
});

test("distances on the sphere, the half-plane and the cylinder", () => {
  const cases = [
    [sphere(), sphereDistance, [-0.9, 0.9], [-0.9, 0.9]],
    [sphereWithRest(), sphereDistance, [-0.9, 0.9], [-0.9, 0.9]],
    [halfPlane(), halfPlaneDistance, [-0.8, 0.8], [0.4, 1.9]],
    [cylinder(), (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]), [-1.9, 1.9], [-1.9, 1.9]],
  ];
  for (const [surface, distance, x, y] of cases) {
    for (const [a, b] of somePairs(25, x, y)) {
      const curve = geodesic(surface, a, b);
      assert.equal(curve.status, "CONVERGED");
      assert.ok(curve.residual < 1e-6);
      close(curve.length, distance(a, b), 2e-5);
      assert.ok(line(surface, a, b).length >= curve.length * (1 - 1e-6));
    }
  }
});

test("the error estimate covers the error of coarse curves", () => {
  const surface = sphere();
  let covered = 0;
  const pairs = somePairs(30, [-0.9, 0.9], [-0.9, 0.9]);
  for (const [a, b] of pairs) {
    const curve = geodesic(surface, a, b, { segments: 8 });
    const fine = geodesic(surface, a, b, { segments: 128 });
    if (Math.abs(curve.length - fine.length) <= curve.error + 1e-9) covered++;
  }
  assert.ok(covered >= 0.9 * pairs.length, `${covered} of ${pairs.length}`);
});

test("gradient and Hessian are those of the energy", () => {
  for (const surface of [sphere(), sphereWithRest(), halfPlane()]) {
    const T = 4;
    const energy = chordEnergy(surface, T);
    const nodes = Float64Array.of(-0.7, 0.5, -0.3, 0.9, 0.05, 0.7, 0.2, 1.2, 0.8, 0.8);
    energy.expand(nodes);
    const gradient = energy.gradient.slice();
    const diagonal = energy.diagonal.slice(), off = energy.off.slice();
    const h = 1e-5;
    const shifted = (n, by) => Float64Array.from(nodes, (v, m) => (m === n ? v + by : v));
    for (let n = 2; n < 2 * T; n++) {
      const slope = (energy.evaluate(shifted(n, h)) - energy.evaluate(shifted(n, -h))) / (2 * h);
      assert.ok(Math.abs(slope - gradient[n]) < 1e-7, `gradient ${n}: ${slope} ${gradient[n]}`);
      energy.expand(shifted(n, h));
      const up = energy.gradient.slice();
      energy.expand(shifted(n, -h));
      const i = n >> 1, c = n & 1;
      for (let m = 2; m < 2 * T; m++) {
        const j = m >> 1, e = m & 1;
        const bend = (up[m] - energy.gradient[m]) / (2 * h);
        let own = 0;
        if (i === j) own = diagonal[3 * i + c + e];
        else if (j === i + 1) own = off[4 * i + 2 * c + e];
        else if (j === i - 1) own = off[4 * j + 2 * e + c];
        assert.ok(Math.abs(bend - own) < 2e-5, `Hessian ${n} ${m}: ${bend} ${own}`);
      }
    }
  }
});

test("a hill is walked around: the line is a bad start", () => {
  const hill = surfaceOf((x, y) => [x, y, 4 * Math.exp(-4 * (x * x + y * y))], [-2, 2], [-2, 2]);
  const straight = geodesic(hill, [-1.5, 0], [1.5, 0.0], { start: line(hill, [-1.5, 0], [1.5, 0]).nodes });
  const curve = geodesic(hill, [-1.5, 0], [1.5, 0]);
  assert.equal(curve.status, "CONVERGED");
  assert.ok(curve.length < straight.length - 0.1, `${curve.length} ${straight.length}`);
});

test("a given start is taken, whatever number of nodes it has", () => {
  const surface = sphere();
  const [a, b] = [[-0.7, -0.4], [0.8, 0.5]];
  for (const T of [1, 3, 10, 16, 33]) {
    const start = Float64Array.from({ length: 2 * (T + 1) }, (_, k) => a[k % 2] + ((b[k % 2] - a[k % 2]) * (k >> 1)) / T);
    const curve = geodesic(surface, a, b, { start });
    assert.equal(curve.speeds.length % 4, 0);
    close(curve.length, sphereDistance(a, b), T < 8 ? 1e-2 : 1e-3);
    assert.deepEqual([...curve.nodes.slice(0, 2), ...curve.nodes.slice(-2)], [...a, ...b]);
  }
});

test("dragging gives what solving anew gives", () => {
  const hill = surfaceOf((x, y) => [x, y, 2 * Math.exp(-4 * (x * x + y * y))], [-2, 2], [-2, 2]);
  const tracker = new Tracker(hill, { segments: 64 });
  for (let i = 0; i <= 60; i++) {
    const b = [1.4, -1.2 + (2.4 * i) / 60];
    const curve = tracker.move([-1.5, 0.1], b);
    assert.equal(curve.status, "CONVERGED");
    close(curve.length, geodesic(hill, [-1.5, 0.1], b).length, 5e-3, `at ${b}`);
  }
  // the other end, and a jump
  close(tracker.move([0.3, 1.5], [1.4, 1.2]).length, geodesic(hill, [0.3, 1.5], [1.4, 1.2]).length, 1e-4);
});

test("curves go around empty places, or say that the border holds them", () => {
  const holed = surfaceOf((x, y) => [x, y], [-2, 2], [-2, 2], { known: (x, y) => Math.hypot(x, y) > 0.7 });
  const curve = geodesic(holed, [-1.5, 0], [1.5, 0.2]);
  assert.equal(curve.status, "OUTSIDE");
  assert.equal(curve.text, CURVE_TEXTS.OUTSIDE);
  // two tangents and an arc around the disc
  const shortest = 2 * Math.sqrt(1.5 ** 2 - 0.49) + 0.7 * (Math.PI - 2 * Math.acos(0.7 / 1.5));
  assert.ok(curve.length > shortest - 0.1 && curve.length < 1.06 * shortest, `${curve.length} ${shortest}`);
  for (let i = 0; 2 * i < curve.nodes.length; i++) assert.ok(holed.inside(curve.nodes[2 * i], curve.nodes[2 * i + 1]));
  const clear = geodesic(holed, [-1.5, 1.5], [1.5, 1.5]);
  assert.equal(clear.status, "CONVERGED");
  assert.match(geodesic(holed, [0, 0], [1, 1]).text, /no finite numbers/);
  assert.match(geodesic(holed, [-1, 1], [5, 1]).text, /outside the map/);
  assert.match(line(holed, [-1.5, 0], [1.5, 0]).text, /leaves the region/);
  const split = surfaceOf((x, y) => [x, y], [-2, 2], [-2, 2], { known: (x) => Math.abs(x) > 0.5 });
  assert.match(geodesic(split, [-1, 0], [1, 0]).text, /no way/);
  const tracker = new Tracker(holed);
  for (let i = 0; i <= 20; i++) assert.ok(Number.isFinite(tracker.move([-1.5, 0], [1.5, -1 + i / 10]).length));
});

test("equal ends have length zero, and scales of 1e-6 and 1e6 change nothing but the unit", () => {
  const point = geodesic(sphere(), [0.2, 0.3], [0.2, 0.3]);
  assert.equal(point.length, 0);
  assert.equal(point.status, "CONVERGED");
  for (const scale of [1e-6, 1e6]) {
    const surface = surfaceOf((x, y) => [scale * Math.cos(x), scale * Math.sin(x), scale * y], [-2, 2], [-2, 2]);
    const curve = geodesic(surface, [-1.5, -1], [1.5, 1]);
    assert.equal(curve.status, "CONVERGED");
    close(curve.length, scale * Math.hypot(3, 2), 1e-5);
  }
});
