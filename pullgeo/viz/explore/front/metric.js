// @ts-check

/** @typedef {import("./surface.js").Surface} Surface */

/**
 * The metric tensor at a place, [[E, F], [F, G]], and what follows from it. All is NaN outside the surface.
 *
 * @typedef {{E: number, F: number, G: number}} MetricTensor
 */

/**
 * @param {Surface} surface
 * @param {number} x
 * @param {number} y
 * @returns {MetricTensor}
 */
export function metricAt(surface, x, y) {
  if (!surface.inside(x, y)) return { E: NaN, F: NaN, G: NaN };
  const r = surface.r;
  const jet = metricScratch(3 * r);
  surface.jet1(x, y, jet);
  surface.restAt(x, y, surface.scratch);
  let [E, F, G] = surface.scratch;
  for (let k = 0; k < r; k++) {
    const u = jet[r + k], v = jet[2 * r + k];
    E += u * u;
    F += u * v;
    G += v * v;
  }
  return { E, F, G };
}

let metricBuffer = new Float64Array(0);

/**
 * @param {number} size
 * @returns {Float64Array}
 */
function metricScratch(size) {
  if (metricBuffer.length < size) metricBuffer = new Float64Array(size);
  return metricBuffer;
}

/**
 * log √det G. Where the metric is singular, NaN.
 *
 * @param {Surface} surface
 * @param {number} x
 * @param {number} y
 * @returns {number}
 */
export function logVolume(surface, x, y) {
  const { E, F, G } = metricAt(surface, x, y);
  const det = E * G - F * F;
  return det > 0 ? 0.5 * Math.log(det) : NaN;
}

/**
 * Eigenvalues of the metric, the larger first.
 *
 * @param {MetricTensor} metric
 * @returns {[number, number]}
 */
export function metricEigenvalues({ E, F, G }) {
  const large = (E + G) / 2 + Math.hypot((E - G) / 2, F);
  // the smaller one from the determinant: the difference would cancel
  return [large, large > 0 ? (E * G - F * F) / large : 0];
}

/**
 * √(λ_max / λ_min): how many times longer the unit ball is than it is wide.
 *
 * @param {Surface} surface
 * @param {number} x
 * @param {number} y
 * @returns {number}
 */
export function conditionNumber(surface, x, y) {
  const [large, small] = metricEigenvalues(metricAt(surface, x, y));
  return small > 0 ? Math.sqrt(large / small) : NaN;
}

/**
 * Gaussian curvature, by Brioschi's formula; +1/ρ² on a sphere of radius ρ.
 *
 * Third derivatives of the coordinates cancel: -½E_yy + F_xy - ½G_xx = ⟨c_xx, c_yy⟩ - |c_xy|².
 *
 * @param {Surface} surface
 * @param {number} x
 * @param {number} y
 * @returns {number}
 */
export function gaussCurvature(surface, x, y) {
  if (!surface.inside(x, y)) return NaN;
  const r = surface.r;
  const jet = metricScratch(6 * r);
  surface.jet2(x, y, jet);
  const rest = surface.restJet(x, y, surface.scratch);
  let E = rest[0], F = rest[1], G = rest[2];
  let Ex = rest[3], Fx = rest[4], Gx = rest[5], Ey = rest[6], Fy = rest[7], Gy = rest[8];
  let bend = -0.5 * rest[15] + rest[13] - 0.5 * rest[11];
  for (let k = 0; k < r; k++) {
    const u = jet[r + k], v = jet[2 * r + k], uu = jet[3 * r + k], uv = jet[4 * r + k], vv = jet[5 * r + k];
    E += u * u;
    F += u * v;
    G += v * v;
    Ex += 2 * u * uu;
    Ey += 2 * u * uv;
    Fx += uu * v + u * uv;
    Fy += uv * v + u * vv;
    Gx += 2 * v * uv;
    Gy += 2 * v * vv;
    bend += uu * vv - uv * uv;
  }
  const det = E * G - F * F;
  if (!(det > 0)) return NaN;
  const a = Fx - 0.5 * Ey, b = Fy - 0.5 * Gx;
  const first = bend * det - 0.5 * Ex * (b * G - 0.5 * F * Gy) + a * (b * F - 0.5 * E * Gy);
  const other = -0.25 * Ey * Ey * G + 0.5 * Ey * Gx * F - 0.25 * Gx * Gx * E;
  return (first - other) / (det * det);
}

/**
 * A function of places at the nodes of a grid over the whole surface: row j holds y_j, as plotly's heatmaps take it.
 *
 * @param {Surface} surface
 * @param {(surface: Surface, x: number, y: number) => number} f
 * @param {number} nx
 * @param {number} ny
 * @returns {Float32Array} ny rows of nx numbers; NaN outside
 */
export function grid(surface, f, nx, ny) {
  const out = new Float32Array(nx * ny);
  for (let j = 0; j < ny; j++) {
    const y = gridPlace(surface.y, j, ny);
    for (let i = 0; i < nx; i++) {
      const value = f(surface, gridPlace(surface.x, i, nx), y);
      out[j * nx + i] = Number.isFinite(value) ? value : NaN;
    }
  }
  return out;
}

/**
 * The i-th of n places from one end of an interval to the other.
 *
 * @param {number[]} interval
 * @param {number} i
 * @param {number} n
 * @returns {number}
 */
export function gridPlace(interval, i, n) {
  return i === n - 1 ? interval[1] : interval[0] + ((interval[1] - interval[0]) * i) / (n - 1);
}
