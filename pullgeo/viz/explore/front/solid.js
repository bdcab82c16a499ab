/** The decoded surface in three dimensions, along its three leading components, with the geodesic on it. */

import { gridPlace } from "./metric.js";
import { plotText } from "./dom.js";

const SIDE = 72;

export class Solid {
  /**
   * @param {HTMLElement} element
   * @param {import("./surface.js").Surface} surface
   * @param {any} plotly
   * @param {boolean} dark
   */
  constructor(element, surface, plotly, dark) {
    /** @type {HTMLElement} */ this.element = element;
    this.surface = surface;
    this.plotly = plotly;
    this.dark = dark;
    this.scratch = new Float64Array(Math.max(1, surface.r));
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  at(x, y) {
    if (!this.surface.inside(x, y)) return [NaN, NaN, NaN];
    this.surface.value(x, y, this.scratch);
    return [this.scratch[0], this.surface.r > 1 ? this.scratch[1] : 0, this.surface.r > 2 ? this.scratch[2] : 0];
  }

  /**
   * @param {(x: number, y: number) => number} colour
   * @param {string} title
   * @param {{low: number, high: number, colours: any} | null} scale
   */
  async draw(colour, title, scale) {
    const rows = [0, 1, 2, 3].map(() => /** @type {number[][]} */ ([]));
    for (let j = 0; j < SIDE; j++) {
      const row = [0, 1, 2, 3].map(() => /** @type {number[]} */ ([]));
      for (let i = 0; i < SIDE; i++) {
        const x = gridPlace(this.surface.x, i, SIDE), y = gridPlace(this.surface.y, j, SIDE);
        const place = this.at(x, y);
        for (let k = 0; k < 3; k++) row[k].push(place[k]);
        row[3].push(colour(x, y));
      }
      for (let k = 0; k < 4; k++) rows[k].push(row[k]);
    }
    const ink = this.dark ? "#e6eaf0" : "#1b2129";
    const axis = { showticklabels: false, title: { text: "" }, showbackground: false, gridcolor: this.dark ? "#2b3441" : "#d9dee4", zeroline: false };
    const lines = (/** @type {string} */ dash, /** @type {number} */ width) => ({
      type: "scatter3d", mode: "lines", x: [], y: [], z: [], hoverinfo: "skip", line: { color: ink, width, dash },
    });
    await this.plotly.newPlot(this.element, [
      { type: "surface", x: rows[0], y: rows[1], z: rows[2], surfacecolor: rows[3], opacity: 0.95, hoverinfo: "skip",
        ...(scale === null ? { showscale: false } : { colorscale: scale.colours, cmin: scale.low, cmax: scale.high }),
        colorbar: { title: { text: plotText(title), side: "right" }, thickness: 10, len: 0.6 } },
      lines("dot", 4), lines("solid", 7),
    ], {
      margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", font: { color: ink },
      scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data" },
    }, { responsive: true, displaylogo: false, displayModeBar: false });
  }

  /**
   * @param {ArrayLike<number>} geodesic
   * @param {ArrayLike<number>} line
   */
  curves(geodesic, line) {
    const coordinates = [line, geodesic].map((nodes) => {
      const places = [];
      const n = nodes.length / 2 - 1;
      // finer than the nodes, so that the curve lies on the surface
      for (let i = 0; i < n; i++) {
        for (let s = 0; s < 4; s++) {
          const w = s / 4;
          places.push(this.at((1 - w) * nodes[2 * i] + w * nodes[2 * i + 2], (1 - w) * nodes[2 * i + 1] + w * nodes[2 * i + 3]));
        }
      }
      if (n >= 0) places.push(this.at(nodes[2 * n], nodes[2 * n + 1]));
      return places;
    });
    const part = (/** @type {number} */ k) => coordinates.map((places) => places.map((p) => p[k]));
    this.plotly.restyle(this.element, { x: part(0), y: part(1), z: part(2) }, [1, 2]);
  }

  destroy() {
    this.plotly.purge(this.element);
  }
}
