// Surfaces with known geometry, as payloads: coefficients by a quasi-interpolant that is exact for cubics.
import { openSurface } from "../../../../pullgeo/viz/explore/front/surface.js";

export function packFloats(values) {
  const data = Float64Array.from(values);
  return { dtype: "float64", shape: [data.length], data: Buffer.from(data.buffer).toString("base64") };
}

export function packBytes(values) {
  const data = Uint8Array.from(values);
  return { dtype: "uint8", shape: [data.length], data: Buffer.from(data.buffer).toString("base64") };
}

const WEIGHTS = [-1 / 6, 8 / 6, -1 / 6];

/** Coefficients of f(x, y) -> numbers on the lattice of nx x ny nodes. */
function coefficients(f, x, y, nx, ny) {
  const hx = (x[1] - x[0]) / (nx - 1), hy = (y[1] - y[0]) / (ny - 1);
  const out = [];
  for (let i = -1; i <= nx; i++) {
    for (let j = -1; j <= ny; j++) {
      let sum = null;
      for (let a = -1; a <= 1; a++) {
        for (let b = -1; b <= 1; b++) {
          const value = f(x[0] + (i + a) * hx, y[0] + (j + b) * hy).map((v) => v * WEIGHTS[a + 1] * WEIGHTS[b + 1]);
          sum = sum === null ? value : sum.map((s, k) => s + value[k]);
        }
      }
      out.push(...sum);
    }
  }
  return out;
}

/** A surface of coordinates f, with the metric rest(x, y) -> [E, F, G] beside it, empty where known(x, y) is false. */
export function surfaceOf(f, x, y, { nx = 81, ny = 83, rest = null, log = false, known = null } = {}) {
  const r = f === null ? 0 : f(x[0], y[0]).length;
  const blocks = f === null ? [] : [{ count: r, scale: new Array(r).fill(1), data: packFloats(coefficients(f, x, y, nx, ny)) }];
  let packedRest = null;
  if (rest !== null) {
    const carried = log
      ? (u, v) => {
          const [E, F, G] = rest(u, v);
          return [Math.log(E), F / E, Math.log(G - (F * F) / E)];
        }
      : rest;
    packedRest = { kind: log ? "log" : "linear", scale: [1, 1, 1], data: packFloats(coefficients(carried, x, y, nx, ny)) };
  }
  let mask = null;
  if (known !== null) {
    const cells = [];
    const at = (i, j) => known(x[0] + ((x[1] - x[0]) * i) / (nx - 1), y[0] + ((y[1] - y[0]) * j) / (ny - 1));
    for (let i = 0; i + 1 < nx; i++) {
      for (let j = 0; j + 1 < ny; j++) cells.push(at(i, j) && at(i + 1, j) && at(i, j + 1) && at(i + 1, j + 1) ? 1 : 0);
    }
    mask = packBytes(cells);
  }
  return openSurface({ x, y, nodes: [nx, ny], r, blocks, rest: packedRest, mask });
}

export const plane = () => surfaceOf((x, y) => [2 * x + y, x - y, 0.5 * y], [-2, 2], [-1, 2]);
export const paraboloid = () => surfaceOf((x, y) => [x, y, x * x + y * y], [-3, 3], [-3, 3]);
export const cylinder = () => surfaceOf((x, y) => [Math.cos(x), Math.sin(x), y], [-2, 2], [-2, 2]);

/** The unit sphere in stereographic coordinates. */
export function stereographic(x, y) {
  const s = 1 + x * x + y * y;
  return [(2 * x) / s, (2 * y) / s, (s - 2) / s];
}
export const sphere = (options = {}) => surfaceOf(stereographic, [-1.2, 1.2], [-1.3, 1.3], options);
export function sphereDistance(a, b) {
  const p = stereographic(...a), q = stereographic(...b);
  return 2 * Math.asin(Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]) / 2);
}

/** The upper half-plane around y = 1: no coordinates, the metric alone. */
export const halfPlane = () =>
  surfaceOf(null, [-1, 1], [0.3, 2.3], { rest: (_, y) => [1 / (y * y), 0, 1 / (y * y)], log: true });
export const halfPlaneDistance = ([x0, y0], [x1, y1]) => Math.acosh(1 + ((x1 - x0) ** 2 + (y1 - y0) ** 2) / (2 * y0 * y1));

/** The sphere with its third coordinate carried as a metric. */
export function sphereWithRest() {
  const slope = (x, y) => {
    const s = (1 + x * x + y * y) ** 2;
    return [(4 * x) / s, (4 * y) / s];
  };
  const rest = (x, y) => {
    const [u, v] = slope(x, y);
    return [u * u, u * v, v * v];
  };
  return surfaceOf((x, y) => stereographic(x, y).slice(0, 2), [-1.2, 1.2], [-1.3, 1.3], { rest });
}

/** Pairs of places in a rectangle, the same at every run. */
export function somePairs(count, x, y, seed = 7) {
  let state = seed;
  const next = () => {
    state = (state * 16807) % 2147483647;
    return state / 2147483647;
  };
  const place = () => [x[0] + (x[1] - x[0]) * next(), y[0] + (y[1] - y[0]) * next()];
  return Array.from({ length: count }, () => [place(), place()]);
}

export function close(value, expected, relative, what = "") {
  const off = Math.abs(value - expected) / Math.max(Math.abs(expected), 1e-300);
  if (!(off <= relative)) throw new Error(`${what}: ${value}, expected ${expected}, off by ${off} > ${relative}`);
}
