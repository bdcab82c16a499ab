/** What is decoded along the geodesic and along the straight line. */

import { make } from "./dom.js";
import { drawOutput } from "./pictures.js";

export const FRAMES = 9;

export class FilmStrip {
  /**
   * @param {HTMLElement} element
   * @param {string} name
   * @param {any} shown
   * @param {(x: number, y: number) => Float32Array} decode
   */
  constructor(element, name, shown, decode) {
    this.shown = shown;
    this.decode = decode;
    this.frames = Array.from({ length: FRAMES }, () => make("canvas", { class: `pg-frame pg-${shown.kind}` }));
    this.length = make("span", { class: "pg-figure" });
    element.append(make("div", { class: `pg-strip pg-strip-${name}` }, ...this.frames));
  }

  /**
   * @param {ArrayLike<number>} nodes
   * @param {string} ink
   */
  show(nodes, ink) {
    for (let i = 0; i < FRAMES; i++) {
      const [x, y] = placeAlong(nodes, i / (FRAMES - 1));
      drawOutput(this.frames[i], this.decode(x, y), this.shown, ink);
    }
  }
}

/**
 * The place on a curve at a time between 0 and 1.
 *
 * @param {ArrayLike<number>} nodes
 * @param {number} t
 * @returns {number[]}
 */
export function placeAlong(nodes, t) {
  const T = nodes.length / 2 - 1;
  if (T < 1) return [nodes[0], nodes[1]];
  const i = Math.min(T - 1, Math.max(0, Math.floor(t * T)));
  const s = t * T - i;
  return [(1 - s) * nodes[2 * i] + s * nodes[2 * i + 2], (1 - s) * nodes[2 * i + 1] + s * nodes[2 * i + 3]];
}
