/** Speed along the geodesic and along the straight line, and the mark of the moment. */

import { make } from "./dom.js";

const WIDE = 320;
const HIGH = 84;

export class SpeedProfile {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.curve = make("svg:path", { class: "pg-geodesic", fill: "none" });
    this.straight = make("svg:path", { class: "pg-line", fill: "none" });
    this.mark = make("svg:line", { class: "pg-now", y1: 0, y2: HIGH });
    element.append(make("svg:svg", { class: "pg-profile", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
      "aria-label": "Speed along both paths" }, make("svg:line", { class: "pg-axis", x1: 0, x2: WIDE, y1: HIGH - 0.5, y2: HIGH - 0.5 }),
    this.straight, this.curve, this.mark));
  }

  /**
   * @param {ArrayLike<number>} geodesic speeds
   * @param {ArrayLike<number>} line speeds
   */
  show(geodesic, line) {
    let most = 0;
    for (const speeds of [geodesic, line]) {
      for (let i = 0; i < speeds.length; i++) if (Number.isFinite(speeds[i])) most = Math.max(most, speeds[i]);
    }
    const path = (/** @type {ArrayLike<number>} */ speeds) => {
      let d = "";
      for (let i = 0; i < speeds.length; i++) {
        if (!Number.isFinite(speeds[i])) continue;
        const x = (WIDE * (i + 0.5)) / speeds.length, y = HIGH - 2 - (HIGH - 6) * (most > 0 ? speeds[i] / most : 0);
        d += `${d ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`;
      }
      return d;
    };
    this.curve.setAttribute("d", path(geodesic));
    this.straight.setAttribute("d", path(line));
  }

  /** @param {number} t */
  at(t) {
    this.mark.setAttribute("x1", String(WIDE * t));
    this.mark.setAttribute("x2", String(WIDE * t));
  }
}
