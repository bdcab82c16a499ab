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
    for (let k = 0; k < r; k++) {
      const w = c[k];
      for (let j = 0, p = k * D; j < D; j++, p++) out[j] += w * basis[p];
    }
    return out;
  };
}
