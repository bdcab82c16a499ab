import assert from "node:assert/strict";
import test from "node:test";
import { geodesic } from "../../../../pullgeo/viz/explore/front/geodesic.js";
import { fan, shoot, unitVelocity } from "../../../../pullgeo/viz/explore/front/exponential.js";
import { distanceField, indicatrix } from "../../../../pullgeo/viz/explore/front/distance.js";
import { gridPlace, metricAt } from "../../../../pullgeo/viz/explore/front/metric.js";
import { frechetMean } from "../../../../pullgeo/viz/explore/front/mean.js";
import { close, cylinder, halfPlane, halfPlaneDistance, plane, sphere, sphereDistance, sphereWithRest, surfaceOf } from "./surfaces.mjs";

test("shot geodesics have the length of their velocity and are shortest", () => {
  for (const [surface, distance, at] of [
    [sphere(), sphereDistance, [0.1, -0.2]],
    [sphereWithRest(), sphereDistance, [0.1, -0.2]],
    [halfPlane(), halfPlaneDistance, [0, 1]],
  ]) {
    for (const angle of [0.3, 2, 4.4]) {
      const curve = shoot(surface, at, unitVelocity(surface, at, angle, 0.5));
      assert.equal(curve.status, "CONVERGED");
      close(curve.length, 0.5, 1e-9);
      const end = curve.nodes.slice(-2);
      close(distance(at, end), 0.5, 2e-5);
      close(geodesic(surface, at, end).length, 0.5, 2e-5);
    }
  }
});

test("a geodesic that leaves the map ends at the border", () => {
  const curve = shoot(plane(), [0, 0], [10, 0]);
  assert.equal(curve.status, "OUTSIDE");
  const x = curve.nodes[curve.nodes.length - 2];
  assert.ok(x > 1.7 && x <= 2);
  close(curve.length, x * Math.sqrt(5), 1e-6);
  assert.equal(shoot(plane(), [9, 9], [1, 0]).status, "NON_FINITE");
});

test("a fan has equal lengths and equal angles", () => {
  const surface = sphere();
  const curves = fan(surface, [0, 0], 12, 0.8);
  assert.equal(curves.length, 12);
  for (const curve of curves) close(sphereDistance([0, 0], curve.nodes.slice(-2)), 0.8, 1e-4);
});

test("indicatrices are the unit balls of the metric", () => {
  const surface = cylinder();
  const places = indicatrix(surface, 0.5, 0.5, 0.2, 16);
  assert.equal(places.length, 34);
  const { E, F, G } = metricAt(surface, 0.5, 0.5);
  for (let i = 0; i <= 16; i++) {
    const u = places[2 * i] - 0.5, v = places[2 * i + 1] - 0.5;
    close(E * u * u + 2 * F * u * v + G * v * v, 0.04, 1e-9);
  }
});

test("the distance field is right to a per cent", () => {
  for (const [surface, distance, at] of [
    [plane(), (a, b) => {
      const dx = b[0] - a[0], dy = b[1] - a[1];
      return Math.sqrt(5 * dx * dx + 2 * dx * dy + 2.25 * dy * dy);
    }, [0.31, 0.2]],
    [sphere(), sphereDistance, [0.31, -0.2]],
    [halfPlane(), halfPlaneDistance, [0.1, 1.1]],
  ]) {
    const n = 97;
    const field = distanceField(surface, at, n, n);
    let worst = 0, sum = 0;
    for (let j = 0; j < n; j++) {
      for (let i = 0; i < n; i++) {
        const exact = distance(at, [gridPlace(surface.x, i, n), gridPlace(surface.y, j, n)]);
        if (exact < 0.05) continue;
        const off = Math.abs(field[j * n + i] / exact - 1);
        worst = Math.max(worst, off);
        sum += off / (n * n);
      }
    }
    assert.ok(sum < 5e-3 && worst < 2e-2, `mean ${sum}, worst ${worst}`);
  }
});

test("the distance field leads around empty places and ends at them", () => {
  const split = surfaceOf((x, y) => [x, y], [-2, 2], [-2, 2], { known: (x, y) => Math.abs(x) > 0.3 || y > 1 });
  const n = 81;
  const field = distanceField(split, [-1, -1], n, n);
  const at = (x, y) => field[Math.round(((y + 2) / 4) * (n - 1)) * n + Math.round(((x + 2) / 4) * (n - 1))];
  assert.ok(Number.isNaN(at(0, 0)));
  const around = Math.hypot(0.7, 2) + 0.6 + Math.hypot(0.7, 2);
  close(at(1, -1), around, 3e-2);
});

test("the Fréchet mean of a plane is the Euclidean one; on the sphere it is where the gradient vanishes", () => {
  const points = [[-1, -0.5], [1, 0], [0.5, 1.5], [-1.5, 1.5]];
  const flat = frechetMean(plane(), points);
  assert.equal(flat.status, "CONVERGED");
  close(flat.point[0], -0.25, 1e-4);
  close(flat.point[1], 0.625, 1e-4);
  const surface = sphere();
  const round = frechetMean(surface, [[-0.5, -0.5], [0.8, 0], [0.5, 0.9]]);
  assert.equal(round.status, "CONVERGED");
  const sum = (p) => [[-0.5, -0.5], [0.8, 0], [0.5, 0.9]].reduce((s, q) => s + sphereDistance(p, q) ** 2, 0);
  const h = 1e-3;
  const [x, y] = round.point;
  for (const [dx, dy] of [[h, 0], [-h, 0], [0, h], [0, -h]]) assert.ok(sum([x + dx, y + dy]) > sum([x, y]));
  assert.equal(frechetMean(surface, [[5, 5]]).status, "OUTSIDE");
  assert.equal(frechetMean(surface, [[5, 5], [0.1, 0.1], [0.2, 0.2]]).left, 1);
});
