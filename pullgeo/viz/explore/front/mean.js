// @ts-check
import { metricAt } from "./metric.js";
import { CURVE_TEXTS, chordEnergy, geodesic } from "./geodesic.js";

/** @typedef {import("./surface.js").Surface} Surface */

/** @typedef {import("./geodesic.js").CurveStatus} CurveStatus */

/**
 * The Fréchet mean of places: where the sum of squared geodesic distances is least.
 *
 * Steps p ← p + s G(p)⁻¹ Σ log_p(z_i) / n with the logarithms from the gradient of the chord energies, which is that of
 * the discrete sum itself; s is halved until the sum falls. Starts from the Euclidean mean, or from the nearest place to
 * it where the map knows nothing there. A local minimum; places that no curve leads to are left out and counted.
 *
 * @param {Surface} surface
 * @param {number[][] | ArrayLike<number>[]} points
 * @param {{segments?: number, steps?: number, tolerance?: number}} [options]
 * @returns {{point: [number, number], status: CurveStatus, text: string, steps: number, variance: number, left: number}}
 */
export function frechetMean(surface, points, { segments = 16, steps = 40, tolerance = 1e-5 } = {}) {
  const usable = Array.from(points, (p) => [p[0], p[1]]).filter((p) => surface.inside(p[0], p[1]));
  const outside = points.length - usable.length;
  if (usable.length === 0) {
    return { point: [NaN, NaN], status: "OUTSIDE", text: "No place of these lies on the map.", steps: 0, variance: NaN, left: outside };
  }
  let point = startOfMean(surface, usable);
  /** @type {Array<Float64Array | null>} */
  let curves = usable.map(() => null);
  let state = sumOfSquares(surface, point, usable, curves, segments);
  let size = 1;
  for (let taken = 0; taken < steps; taken++) {
    const { E, F, G } = metricAt(surface, point[0], point[1]);
    const det = E * G - F * F;
    const [gx, gy] = state.gradient;
    const n = Math.max(1, state.reached);
    // gradient of the sum is -2 G Σ log
    const sx = -(G * gx - F * gy) / (2 * n * det), sy = -(E * gy - F * gx) / (2 * n * det);
    const move = Math.sqrt(Math.max(0, E * sx * sx + 2 * F * sx * sy + G * sy * sy));
    const spread = Math.sqrt(state.sum / n);
    if (!Number.isFinite(move)) return meanResult(point, "NON_FINITE", CURVE_TEXTS.NON_FINITE, taken, state, outside, usable);
    if (move <= tolerance * spread || spread === 0) {
      return meanResult(point, "CONVERGED", "The mean along geodesics.", taken, state, outside, usable);
    }
    let next = null;
    for (size = Math.min(1, 2 * size); size > 1e-3; size /= 2) {
      /** @type {[number, number]} */
      const place = [point[0] + size * sx, point[1] + size * sy];
      if (!surface.inside(place[0], place[1])) continue;
      const tried = sumOfSquares(surface, place, usable, state.curves, segments);
      if (tried.reached >= state.reached && tried.sum < state.sum) {
        next = tried;
        point = place;
        break;
      }
    }
    if (next === null) {
      const fine = move <= 100 * tolerance * spread;
      const text = fine ? "The mean along geodesics." : "No further progress: near the mean, not at it.";
      return meanResult(point, fine ? "CONVERGED" : "STALLED", text, taken, state, outside, usable);
    }
    state = next;
  }
  return meanResult(point, "MAX_STEPS", "Not finished: near the mean, not at it.", steps, state, outside, usable);
}

/**
 * @param {[number, number]} point
 * @param {CurveStatus} status
 * @param {string} text
 * @param {number} steps
 * @param {{sum: number, reached: number}} state
 * @param {number} outside
 * @param {number[][]} usable
 */
function meanResult(point, status, text, steps, state, outside, usable) {
  const left = outside + usable.length - state.reached;
  const words = left > 0 ? `${text} ${left} of ${outside + usable.length} places are left out: no curve leads there.` : text;
  return { point, status, text: words, steps, variance: state.sum / Math.max(1, state.reached), left };
}

/**
 * @param {Surface} surface
 * @param {number[][]} points
 * @returns {[number, number]}
 */
function startOfMean(surface, points) {
  let x = 0, y = 0;
  for (const p of points) {
    x += p[0] / points.length;
    y += p[1] / points.length;
  }
  if (surface.inside(x, y)) return [x, y];
  let best = points[0];
  for (const p of points) if (Math.hypot(p[0] - x, p[1] - y) < Math.hypot(best[0] - x, best[1] - y)) best = p;
  return [best[0], best[1]];
}

/**
 * Sum of squared distances with its gradient; curves start from those of a place nearby.
 *
 * @param {Surface} surface
 * @param {[number, number]} place
 * @param {number[][]} points
 * @param {Array<Float64Array | null>} curves
 * @param {number} segments
 */
function sumOfSquares(surface, place, points, curves, segments) {
  const energy = chordEnergy(surface, segments);
  let sum = 0, gx = 0, gy = 0, reached = 0;
  /** @type {Array<Float64Array | null>} */
  const found = [];
  for (let i = 0; i < points.length; i++) {
    let curve = null;
    const old = curves[i];
    if (old !== null) {
      const start = Float64Array.from(old);
      const dx = place[0] - start[0], dy = place[1] - start[1];
      const T = start.length / 2 - 1;
      let fits = true;
      for (let n = 0; n <= T; n++) {
        start[2 * n] += (1 - n / T) * dx;
        start[2 * n + 1] += (1 - n / T) * dy;
        fits = fits && surface.inside(start[2 * n], start[2 * n + 1]);
      }
      if (fits) curve = geodesic(surface, place, points[i], { start, steps: 20 });
    }
    if (curve === null || !Number.isFinite(curve.length)) curve = geodesic(surface, place, points[i], { segments, steps: 40 });
    if (!Number.isFinite(curve.length)) {
      found.push(null);
      continue;
    }
    found.push(curve.nodes);
    reached++;
    sum += 2 * segments * energy.evaluate(curve.nodes);
    const slope = energy.slopeAtStart(curve.nodes);
    gx += 2 * segments * slope[0];
    gy += 2 * segments * slope[1];
  }
  return { sum, gradient: [gx, gy], curves: found, reached };
}
