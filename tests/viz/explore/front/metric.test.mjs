import assert from "node:assert/strict";
import test from "node:test";
import { conditionNumber, gaussCurvature, grid, logVolume, metricAt } from "../../../../pullgeo/viz/explore/front/metric.js";
import { close, cylinder, halfPlane, paraboloid, plane, sphere, sphereWithRest, somePairs } from "./surfaces.mjs";

test("a plane has its constant metric", () => {
  const surface = plane();
  for (const [[x, y]] of somePairs(20, surface.x, surface.y)) {
    const { E, F, G } = metricAt(surface, x, y);
    // coefficients are in single precision
    close(E, 5, 1e-5);
    close(F, 1, 1e-5);
    close(G, 2.25, 1e-5);
    assert.ok(Math.abs(gaussCurvature(surface, x, y)) < 1e-5);
  }
  close(logVolume(surface, 0, 0), 0.5 * Math.log(10.25), 1e-6);
});

test("the paraboloid: det G = 1 + 4 ρ², K = 4 / (1 + 4 ρ²)²", () => {
  const surface = paraboloid();
  for (const [[x, y]] of [[[-2, -2]], ...somePairs(20, surface.x, surface.y)]) {
    const s = 1 + 4 * (x * x + y * y);
    close(Math.exp(2 * logVolume(surface, x, y)), s, 1e-5);
    close(conditionNumber(surface, x, y), Math.sqrt(s), 1e-5);
    close(gaussCurvature(surface, x, y), 4 / (s * s), 2e-3);
  }
});

test("the unit sphere has curvature 1 everywhere, the cylinder 0, the half-plane -1", () => {
  for (const surface of [sphere(), sphereWithRest()]) {
    for (const [[x, y]] of somePairs(20, [-1.1, 1.1], [-1.1, 1.1])) {
      const s = 1 + x * x + y * y;
      close(metricAt(surface, x, y).E, 4 / (s * s), 1e-4);
      close(gaussCurvature(surface, x, y), 1, 1e-2);
    }
  }
  const flat = cylinder();
  const hyperbolic = halfPlane();
  for (const [[x, y]] of somePairs(20, [-0.9, 0.9], [0.4, 1.9])) {
    assert.ok(Math.abs(gaussCurvature(flat, x, y)) < 1e-4);
    close(gaussCurvature(hyperbolic, x, y), -1, 1e-2);
    close(metricAt(hyperbolic, x, y).G, 1 / (y * y), 1e-5);
  }
});

test("outside the surface and at empty places all is NaN", () => {
  const surface = sphere({ known: (x, y) => Math.hypot(x, y) > 0.5 });
  assert.ok(Number.isNaN(metricAt(surface, 0, 0).E));
  assert.ok(Number.isNaN(gaussCurvature(surface, 1.3, 0)));
  assert.ok(Number.isNaN(logVolume(surface, NaN, 0)));
  assert.ok(Number.isFinite(logVolume(surface, 0.8, 0)));
});

test("a grid has a row for each y", () => {
  const surface = plane();
  const values = grid(surface, (_, x, y) => x + 100 * y, 3, 5);
  assert.equal(values.length, 15);
  assert.equal(values[2], 2 - 100);
  assert.equal(values[12], -2 + 200);
});
