/** What can be painted on the map: each layer is a grid of numbers with one sentence, a formula and a unit. */

import { unpackArray } from "./surface.js";
import { conditionNumber, gaussCurvature, grid, logVolume } from "./metric.js";
import { distanceField } from "./distance.js";

/**
 * @typedef {{x: number[], y: number[], nx: number, ny: number, values: Float32Array}} Painted
 * @typedef {{id: string, name: string, words: string, formula: string, unit: string, signed: boolean, moves: boolean,
 *   paint: (from: number[]) => Painted | null}} Layer
 */

const FINE = 96;
const MOVING = 97;

/**
 * The layers of a surface, that of an ensemble's members, and those that a page brings along as fields.
 *
 * @param {import("./surface.js").Surface} surface
 * @param {any[]} fields
 * @param {import("./members.js").Members | null} [members]
 * @returns {Layer[]}
 */
export function layersOf(surface, fields, members = null) {
  /** @type {Map<string, Painted>} */
  const painted = new Map();
  const wide = surface.x[1] - surface.x[0], high = surface.y[1] - surface.y[0];
  const shape = (/** @type {number} */ side) => {
    const longest = Math.max(wide, high);
    return [Math.max(24, Math.round((side * wide) / longest)), Math.max(24, Math.round((side * high) / longest))];
  };
  const once = (/** @type {string} */ id, /** @type {(s: any, x: number, y: number) => number} */ f) => () => {
    let found = painted.get(id);
    if (found === undefined) {
      const [nx, ny] = shape(FINE);
      found = { x: surface.x, y: surface.y, nx, ny, values: grid(surface, f, nx, ny) };
      painted.set(id, found);
    }
    return found;
  };
  /** @type {Layer[]} */
  const layers = [
    {
      id: "volume", name: "Volume", signed: false, moves: false, unit: "natural logarithm",
      words: "How much output volume a unit of latent area becomes: where it is dark, a small step changes a lot.",
      formula: "log √det G", paint: once("volume", logVolume),
    },
    {
      id: "condition", name: "Anisotropy", signed: false, moves: false, unit: "natural logarithm",
      words: "How much more the decoder stretches one direction than the other.",
      formula: "log √(λmax / λmin)",
      paint: once("condition", (s, x, y) => Math.log(conditionNumber(s, x, y))),
    },
    {
      id: "curvature", name: "Curvature", signed: true, moves: false, unit: "1 / length², cut at the 2 % and 98 % quantiles",
      words: "Gaussian curvature of the decoded surface: where it is positive geodesics meet again, where negative they part.",
      formula: "K = (R₁₂₁₂) / det G", paint: once("curvature", gaussCurvature),
    },
    {
      id: "distance", name: "Distance", signed: false, moves: true, unit: "length in the output",
      words: "The geodesic distance from point A: what is near it for the decoder.",
      formula: "dist(A, z)",
      paint: (from) => {
        const [nx, ny] = shape(MOVING);
        return { x: surface.x, y: surface.y, nx, ny, values: distanceField(surface, from, nx, ny) };
      },
    },
  ];
  if (members !== null) {
    const some = members.surfaces.length < members.count ? `the first ${members.surfaces.length} of ${members.count}` : `the ${members.count}`;
    const [agree, rough] = members.packed.verdicts.map(({ limit }) => limit);
    layers.push({
      id: "members", name: "Disagreement of members", signed: false, moves: false,
      unit: `over the members s, averaged over v; up to ${agree} distances agree, beyond ${rough} they depend on the decoder`,
      words: `How much ${some} decoders of the ensemble differ on how long a short step is in the output, on average over its directions.`,
      formula: "std ‖Jₛv‖ / mean ‖Jₛv‖", paint: once("members", (_, x, y) => members.disagreement(x, y)),
    });
  }
  for (const [i, field] of fields.entries()) {
    const [ny, nx] = field.values.shape;
    const values = /** @type {Float32Array} */ (unpackArray(field.values));
    layers.push({
      id: `field${i}`, name: field.name, words: field.words, formula: field.formula, unit: field.unit, signed: false,
      moves: false, paint: () => ({ x: field.x, y: field.y, nx, ny, values }),
    });
  }
  layers.push({
    id: "none", name: "Nothing", words: "The latents alone.", formula: "", unit: "", signed: false, moves: false,
    paint: () => null,
  });
  return layers;
}

/**
 * Rows of a grid, and the range of colours: signed layers are symmetric about zero, without their outliers.
 *
 * @param {Painted} painted
 * @param {boolean} signed
 * @returns {{rows: Float32Array[], low: number, high: number}}
 */
export function coloured(painted, signed) {
  const { nx, ny, values } = painted;
  const rows = Array.from({ length: ny }, (_, j) => values.subarray(j * nx, (j + 1) * nx));
  const finite = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  if (finite.length === 0) return { rows, low: 0, high: 1 };
  const at = (/** @type {number} */ q) => finite[Math.min(finite.length - 1, Math.floor(q * finite.length))];
  let low = at(0.005), high = at(0.995);
  if (signed) {
    high = Math.max(Math.abs(at(0.02)), Math.abs(at(0.98)));
    low = -high;
  }
  return high > low ? { rows, low, high } : { rows, low: low - 0.5, high: low + 0.5 };
}
