// @ts-check
import { metricAt } from "./metric.js";
import { CURVE_TEXTS } from "./geodesic.js";

/** @typedef {import("./surface.js").Surface} Surface */

/** @typedef {import("./geodesic.js").Curve} Curve */

/** Relative change of the speed that a geodesic may have, which ought to keep it; those of a fan may have more. */
const SPEED_DRIFT = 1e-6;
const FAN_DRIFT = 1e-4;
const MOST_SUBSTEPS = 16;

/**
 * The geodesic equation solved for the acceleration: G z̈ = -(⟨c_a, c''(ż, ż)⟩ + Γ_R(ż, ż)).
 *
 * @param {Surface} surface
 * @param {Float64Array} state x, y, ẋ, ẏ
 * @param {Float64Array} rate where ẋ, ẏ, ẍ, ÿ go
 * @param {Float64Array} jet 6 r numbers
 * @returns {number} squared speed; NaN outside the surface and where the metric is singular
 */
function geodesicRate(surface, state, rate, jet) {
  const [x, y, u, v] = state;
  if (!surface.inside(x, y)) return NaN;
  const r = surface.r;
  surface.jet2(x, y, jet);
  const R = surface.restJet(x, y, surface.scratch);
  let E = R[0], F = R[1], G = R[2];
  // Γ_R lowered: Σ ∂_b R_ca ż_b ż_c - ½ ∂_a (żᵀ R ż)
  let fx = 0.5 * R[3] * u * u + R[6] * u * v + (R[7] - 0.5 * R[5]) * v * v;
  let fy = (R[4] - 0.5 * R[6]) * u * u + R[5] * u * v + 0.5 * R[8] * v * v;
  for (let k = 0; k < r; k++) {
    const cx = jet[r + k], cy = jet[2 * r + k];
    const bend = u * u * jet[3 * r + k] + 2 * u * v * jet[4 * r + k] + v * v * jet[5 * r + k];
    E += cx * cx;
    F += cx * cy;
    G += cy * cy;
    fx += cx * bend;
    fy += cy * bend;
  }
  const det = E * G - F * F;
  if (!(det > 0)) return NaN;
  rate[0] = u;
  rate[1] = v;
  rate[2] = -(G * fx - F * fy) / det;
  rate[3] = -(E * fy - F * fx) / det;
  return E * u * u + 2 * F * u * v + G * v * v;
}

/**
 * One step of the classical Runge-Kutta method.
 *
 * @param {Surface} surface
 * @param {Float64Array} state
 * @param {number} h
 * @param {Float64Array[]} work four rates and a place
 * @param {Float64Array} jet
 * @returns {boolean} false where it leaves the surface
 */
function rungeKuttaStep(surface, state, h, work, jet) {
  const [k1, k2, k3, k4, place] = work;
  if (!Number.isFinite(geodesicRate(surface, state, k1, jet))) return false;
  for (let i = 0; i < 4; i++) place[i] = state[i] + (h / 2) * k1[i];
  if (!Number.isFinite(geodesicRate(surface, place, k2, jet))) return false;
  for (let i = 0; i < 4; i++) place[i] = state[i] + (h / 2) * k2[i];
  if (!Number.isFinite(geodesicRate(surface, place, k3, jet))) return false;
  for (let i = 0; i < 4; i++) place[i] = state[i] + h * k3[i];
  if (!Number.isFinite(geodesicRate(surface, place, k4, jet))) return false;
  for (let i = 0; i < 4; i++) state[i] += (h / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
  return surface.inside(state[0], state[1]);
}

/**
 * The geodesic from a point with a velocity, for unit time: the exponential map with the way to it.
 *
 * Runge-Kutta steps of order 4, made finer until the speed stays the same to `drift`, or 16 times as fine.
 * At the border the curve ends (status OUTSIDE, nodes up to there). `residual` is the relative drift of the speed.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {ArrayLike<number>} velocity in the coordinates of the map
 * @param {{steps?: number, drift?: number}} [options]
 * @returns {Curve}
 */
export function shoot(surface, point, velocity, { steps = 64, drift = SPEED_DRIFT } = {}) {
  let curve = shootWith(surface, point, velocity, steps, 1);
  for (let fine = 2; fine <= MOST_SUBSTEPS && curve.residual > drift; fine *= 2) {
    curve = shootWith(surface, point, velocity, steps, fine);
  }
  if (curve.status === "CONVERGED" && curve.residual > 1e-3) {
    curve.status = "STALLED";
    curve.text = "The speed does not stay the same: the metric has kinks here, or hardly any length.";
  }
  return curve;
}

/**
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {ArrayLike<number>} velocity
 * @param {number} steps nodes of the curve
 * @param {number} fine Runge-Kutta steps from node to node
 * @returns {Curve}
 */
function shootWith(surface, point, velocity, steps, fine) {
  const jet = new Float64Array(6 * surface.r);
  const work = Array.from({ length: 5 }, () => new Float64Array(4));
  const state = Float64Array.of(point[0], point[1], velocity[0], velocity[1]);
  const nodes = [point[0], point[1]];
  const first = Math.sqrt(geodesicRate(surface, state, work[0], jet));
  let drift = 0;
  let whole = Number.isFinite(first);
  for (let i = 0; i < steps && whole; i++) {
    for (let s = 0; s < fine && whole; s++) whole = rungeKuttaStep(surface, state, 1 / (steps * fine), work, jet);
    if (!whole) break;
    nodes.push(state[0], state[1]);
    const speed = Math.sqrt(geodesicRate(surface, state, work[0], jet));
    if (first > 0) drift = Math.max(drift, Math.abs(speed / first - 1));
  }
  const T = nodes.length / 2 - 1;
  const length = (first * T) / steps;
  /** @type {import("./geodesic.js").CurveStatus} */
  const status = !Number.isFinite(first) ? "NON_FINITE" : whole ? "CONVERGED" : "OUTSIDE";
  let text = CURVE_TEXTS[status];
  if (status === "CONVERGED") text = "A geodesic with this velocity.";
  if (status === "OUTSIDE") text = "The geodesic ends where it leaves the region that the map knows.";
  if (status === "NON_FINITE") text = "No geodesic starts here: outside the map, or without a finite metric.";
  return {
    nodes: Float64Array.from(nodes),
    length,
    error: length * drift,
    residual: Number.isFinite(drift) ? drift : Infinity,
    steps: T * fine,
    status,
    text,
    speeds: new Float64Array(T).fill(first),
    arc: Float64Array.from({ length: T + 1 }, (_, i) => (first * i) / steps),
  };
}

/**
 * The velocity of a given length in a direction.
 *
 * Directions are equally spaced as angles of the metric at the point.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {number} angle
 * @param {number} radius
 * @returns {[number, number]} NaN where the metric is singular
 */
export function unitVelocity(surface, point, angle, radius) {
  const { E, F, G } = metricAt(surface, point[0], point[1]);
  // rows of the inverse of the Cholesky factor
  const root = Math.sqrt(E);
  const rest = Math.sqrt(G - (F * F) / E);
  const y = Math.sin(angle) / rest;
  return [radius * (Math.cos(angle) / root - (F / E) * y), radius * y];
}

/**
 * Geodesics of the same length from a point in all directions.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {number} count
 * @param {number} radius
 * @param {{steps?: number}} [options]
 * @returns {Curve[]}
 */
export function fan(surface, point, count, radius, { steps = 32 } = {}) {
  const curves = [];
  for (let i = 0; i < count; i++) {
    const velocity = unitVelocity(surface, point, (2 * Math.PI * i) / count, radius);
    curves.push(shoot(surface, point, velocity, { steps, drift: FAN_DRIFT }));
  }
  return curves;
}
