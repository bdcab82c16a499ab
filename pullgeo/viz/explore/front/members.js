// @ts-check
/** The members of an ensemble: where they disagree on short steps, and how much on a distance. */

import { geodesic } from "./geodesic.js";
import { metricAt } from "./metric.js";
import { openSurface } from "./surface.js";

/** Directions over which the disagreement on short steps is averaged: half a turn, for v and -v are as long. */
const DIRECTIONS = Array.from({ length: 8 }, (_, i) => [Math.cos((i * Math.PI) / 8), Math.sin((i * Math.PI) / 8)]);

/**
 * @typedef {import("./surface.js").Surface} Surface
 * @typedef {{count: number, surfaces: any[], verdicts: {name: string, limit: number | null, text: string}[],
 *   unsolved: {name: string, text: string}}} PackedMembers
 * @typedef {{lengths: (number | null)[], mean: number | null, std: number | null, cv: number | null, status: string,
 *   text: string, converged: boolean}} MemberSpread as a server answers it
 */

export class Members {
  /** @param {PackedMembers} packed */
  constructor(packed) {
    this.packed = packed;
    /** How many there are; the page may carry fewer. */
    this.count = packed.count;
    /** @type {Surface[]} */
    this.surfaces = packed.surfaces.map(openSurface);
  }

  /**
   * Standard deviation over mean, over the members, of the output length of a short step; averaged over its directions.
   * It is the coefficient of variation of the distance to a place nearby.
   *
   * @param {number} x
   * @param {number} y
   * @returns {number}
   */
  disagreement(x, y) {
    const metrics = this.surfaces.map((surface) => metricAt(surface, x, y));
    let sum = 0;
    for (const [u, v] of DIRECTIONS) {
      const speeds = metrics.map(({ E, F, G }) => Math.sqrt(Math.max(0, E * u * u + 2 * F * u * v + G * v * v)));
      sum += variation(speeds).cv;
    }
    return sum / DIRECTIONS.length;
  }

  /**
   * Each member's own shortest curve on its surface, one after another; pauses between them let a pointer move.
   *
   * @param {number[]} a
   * @param {number[]} b
   * @param {AbortSignal} signal
   * @param {() => Promise<void>} pause
   * @returns {Promise<MemberSpread | null>} nothing where it was given up
   */
  async spread(a, b, signal, pause) {
    /** @type {(number | null)[]} */
    const lengths = [];
    for (const surface of this.surfaces) {
      await pause();
      if (signal.aborted) return null;
      const curve = geodesic(surface, a, b);
      lengths.push(curve.status === "CONVERGED" ? curve.length : null);
    }
    return this.spreadOf(lengths);
  }

  /**
   * @param {(number | null)[]} lengths nothing where a member's curve did not converge
   * @returns {MemberSpread}
   */
  spreadOf(lengths) {
    const solved = /** @type {number[]} */ (lengths.filter((length) => length !== null));
    const { mean, std, cv } = variation(solved);
    const known = solved.length > 1 && Number.isFinite(cv);
    const { verdicts, unsolved } = this.packed;
    const { name, text } = known ? (verdicts.find(({ limit }) => limit === null || cv <= limit) ?? unsolved) : unsolved;
    return {
      lengths, mean: solved.length ? mean : null, std: known ? std : null, cv: known ? cv : null, status: name, text,
      converged: solved.length === lengths.length,
    };
  }
}

/**
 * Mean, standard deviation with n - 1, and their ratio; of nothing but zeros all are zero.
 *
 * @param {number[]} values
 */
export function variation(values) {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const std = n > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1)) : NaN;
  return { mean, std, cv: mean === 0 ? std : std / mean };
}
