// @ts-check
import { Surface, unpackArray, unpackBlocks } from "./surface.js";

/**
 * @typedef {import("./surface.js").PackedArray} PackedArray
 * @typedef {{kind: string, D?: number, mean?: PackedArray, basis?: {scale: number[], data: PackedArray},
 *   own?: import("./surface.js").PackedSurface | null}} PackedDecode
 */

/**
 * The decoder's output at any place: mean + Σ_k c_k(x, y) basis_k.
 *
 * @param {PackedDecode} packed
 * @param {Surface} surface the page's surface, unless outputs have one of their own
 * @returns {(x: number, y: number) => Float32Array} NaN outside the surface; one array a call
 */
export function openDecode(packed, surface) {
  if (packed.kind === "none" || !packed.basis || !packed.mean) return () => new Float32Array(0);
  const carrier = packed.own ? new Surface(packed.own) : surface;
  const mean = /** @type {Float32Array} */ (unpackArray(packed.mean));
  const D = mean.length;
  const { scale, data } = packed.basis;
  const r = scale.length;
  const basis = unpackBlocks([{ count: D, scale: new Array(D).fill(1), data }], r, D);
  for (let k = 0; k < r; k++) for (let j = 0; j < D; j++) basis[k * D + j] *= scale[k];
  const c = new Float64Array(carrier.r);
  return (x, y) => {
    const out = new Float32Array(D);
    if (!carrier.inside(x, y)) return out.fill(NaN);
    carrier.value(x, y, c);
    out.set(mean);
    // four components at a time: most of the cost is in reading and writing
    for (let k = 0; k < r; k += 4) {
      const p = k * D;
      const w0 = c[k], w1 = k + 1 < r ? c[k + 1] : 0, w2 = k + 2 < r ? c[k + 2] : 0, w3 = k + 3 < r ? c[k + 3] : 0;
      const p1 = k + 1 < r ? p + D : p, p2 = k + 2 < r ? p + 2 * D : p, p3 = k + 3 < r ? p + 3 * D : p;
      for (let j = 0; j < D; j++) {
        out[j] += w0 * basis[p + j] + w1 * basis[p1 + j] + w2 * basis[p2 + j] + w3 * basis[p3 + j];
      }
    }
    return out;
  };
}
