// @ts-check
import { gridPlace, metricAt } from "./metric.js";
import { BinaryHeap } from "./lattice.js";
import { unitVelocity } from "./exponential.js";

/** @typedef {import("./surface.js").Surface} Surface */

/** The eight neighbours of a node in turn; two successive ones span a triangle with it. */
const RING = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]];
/** Up to so many cells from the point distances are lengths of straight segments. */
const NEAR_CELLS = 4;
const NEAR_PIECES = 8;

/**
 * Distances from a point to the nodes of a grid over the surface.
 *
 * Solves the eikonal equation |∇u|_G = 1 in the order of the distances: a node's value is the least over the triangles
 * around it, each unfolded with a point source behind its edge; nodes are taken again when a neighbour improves, as an
 * anisotropic metric may ask. Near the point, straight segments are measured. The error falls with the cells: on 97 x 97
 * nodes it is at most 0.3 % on the sphere and the half-plane, and within 1 % (MNIST) and 1.7 % (digits) for nine of ten
 * places of a decoder's map, whose metric changes within a few cells.
 *
 * Source: Novotni, Klein, *Computing geodesic distances on triangular meshes*, WSCG 2002.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {number} nx
 * @param {number} ny
 * @returns {Float32Array} ny rows of nx distances; NaN where no way leads
 */
export function distanceField(surface, point, nx, ny) {
  const count = nx * ny;
  const E = new Float64Array(count), F = new Float64Array(count), G = new Float64Array(count);
  for (let j = 0; j < ny; j++) {
    const y = gridPlace(surface.y, j, ny);
    for (let i = 0; i < nx; i++) {
      const metric = metricAt(surface, gridPlace(surface.x, i, nx), y);
      E[j * nx + i] = metric.E;
      F[j * nx + i] = metric.F;
      G[j * nx + i] = metric.G;
    }
  }
  const hx = (surface.x[1] - surface.x[0]) / (nx - 1), hy = (surface.y[1] - surface.y[0]) / (ny - 1);
  const u = new Float64Array(count).fill(Infinity);
  const heap = new BinaryHeap(count);
  const start = nearField(surface, point, nx, ny, hx, hy, E);
  for (const [n, distance] of start) {
    u[n] = distance;
    heap.push(n, distance);
  }
  while (heap.size > 0) {
    const n = heap.pop();
    const i = n % nx, j = (n - i) / nx;
    for (let s = 0; s < 8; s++) {
      // m sees n as its neighbour in the opposite direction
      const mi = i + RING[s][0], mj = j + RING[s][1];
      if (mi < 0 || mi >= nx || mj < 0 || mj >= ny) continue;
      const m = mj * nx + mi;
      if (start.has(m) || !Number.isFinite(E[m])) continue;
      const back = (s + 4) % 8;
      const value = Math.min(
        triangleUpdate(m, mi, mj, n, back, (back + 1) % 8, nx, ny, hx, hy, u, E, F, G),
        triangleUpdate(m, mi, mj, n, back, (back + 7) % 8, nx, ny, hx, hy, u, E, F, G),
      );
      if (value < u[m] * (1 - 1e-6)) {
        u[m] = value;
        heap.push(m, value);
      }
    }
  }
  const out = new Float32Array(count);
  for (let n = 0; n < count; n++) out[n] = u[n] < Infinity ? u[n] : NaN;
  return out;
}

/**
 * Lengths of the straight segments from the point to the nodes near it.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} point
 * @param {number} nx
 * @param {number} ny
 * @param {number} hx
 * @param {number} hy
 * @param {Float64Array} E NaN where nothing is known
 * @returns {Map<number, number>}
 */
function nearField(surface, point, nx, ny, hx, hy, E) {
  /** @type {Map<number, number>} */
  const near = new Map();
  const ci = (point[0] - surface.x[0]) / hx, cj = (point[1] - surface.y[0]) / hy;
  if (!surface.inside(point[0], point[1])) return near;
  for (let j = Math.max(0, Math.ceil(cj - NEAR_CELLS)); j <= Math.min(ny - 1, cj + NEAR_CELLS); j++) {
    for (let i = Math.max(0, Math.ceil(ci - NEAR_CELLS)); i <= Math.min(nx - 1, ci + NEAR_CELLS); i++) {
      if (!Number.isFinite(E[j * nx + i])) continue;
      const dx = surface.x[0] + i * hx - point[0], dy = surface.y[0] + j * hy - point[1];
      let length = 0;
      for (let k = 0; k < NEAR_PIECES; k++) {
        const t = (k + 0.5) / NEAR_PIECES;
        const metric = metricAt(surface, point[0] + t * dx, point[1] + t * dy);
        length += Math.sqrt(metric.E * dx * dx + 2 * metric.F * dx * dy + metric.G * dy * dy) / NEAR_PIECES;
      }
      if (Number.isFinite(length)) near.set(j * nx + i, length);
    }
  }
  return near;
}

/**
 * The distance of a node m behind the edge between two of its neighbours n and o.
 *
 * In the metric's own plane, the two distances and the edge's length give the place of a point source behind the edge, and
 * the distance from there to m: exact for a flat metric, where linear interpolation along the edge would lose the front's
 * curvature. Where the ray misses the edge, or there is no such place, the way along the side from n to m remains.
 *
 * @param {number} m
 * @param {number} mi
 * @param {number} mj
 * @param {number} n
 * @param {number} sn direction from m to n
 * @param {number} so direction from m to the other neighbour
 * @param {number} nx
 * @param {number} ny
 * @param {number} hx
 * @param {number} hy
 * @param {Float64Array} u
 * @param {Float64Array} E
 * @param {Float64Array} F
 * @param {Float64Array} G
 * @returns {number}
 */
function triangleUpdate(m, mi, mj, n, sn, so, nx, ny, hx, hy, u, E, F, G) {
  const px = RING[sn][0] * hx, py = RING[sn][1] * hy;
  const oi = mi + RING[so][0], oj = mj + RING[so][1];
  const o = oi >= 0 && oi < nx && oj >= 0 && oj < ny ? oj * nx + oi : -1;
  const side = Math.sqrt(((E[m] + E[n]) * px * px + 2 * (F[m] + F[n]) * px * py + (G[m] + G[n]) * py * py) / 2);
  const alone = u[n] + side;
  if (o < 0 || !(u[o] < Infinity) || !Number.isFinite(E[o])) return alone;
  const qx = RING[so][0] * hx - px, qy = RING[so][1] * hy - py;
  const e = (2 * E[m] + E[n] + E[o]) / 4, f = (2 * F[m] + F[n] + F[o]) / 4, g = (2 * G[m] + G[n] + G[o]) / 4;
  const pp = e * px * px + 2 * f * px * py + g * py * py;
  const pq = e * px * qx + f * (px * qy + py * qx) + g * py * qy;
  const qq = e * qx * qx + 2 * f * qx * qy + g * qy * qy;
  const area = pp * qq - pq * pq;
  if (!(area > 0)) return alone;
  // n at the origin, o at (edge, 0), m above and the source below
  const edge = Math.sqrt(qq);
  const mx = -pq / edge, my = Math.sqrt(area) / edge;
  const sx = (u[n] * u[n] - u[o] * u[o] + qq) / (2 * edge);
  const depth = u[n] * u[n] - sx * sx;
  if (!(depth >= 0)) return alone;
  const sy = Math.sqrt(depth);
  const crossing = sx + ((mx - sx) * sy) / (sy + my);
  if (!(crossing >= 0 && crossing <= edge)) return alone;
  return Math.hypot(mx - sx, my + sy);
}

/**
 * The unit ball of the metric at a place, drawn with a radius: all v with vᵀ G v = radius².
 *
 * @param {Surface} surface
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 * @param {number} [n]
 * @returns {Float64Array} n + 1 places, the first and the last the same
 */
export function indicatrix(surface, x, y, radius, n = 48) {
  const out = new Float64Array(2 * (n + 1));
  for (let i = 0; i <= n; i++) {
    const [u, v] = unitVelocity(surface, [x, y], (2 * Math.PI * (i % n)) / n, radius);
    out[2 * i] = x + u;
    out[2 * i + 1] = y + v;
  }
  return out;
}
