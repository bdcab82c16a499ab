/**
 * The map: plotly draws the layer and the latents once; what moves is drawn on an overlay of SVG in plotly's own axes, so
 * that nothing is redrawn but a few paths while a point is dragged.
 */

import { make, plotText } from "./dom.js";
import { coloured } from "./layers.js";
import { unpackArray } from "./surface.js";

const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#b8a900", "#8a2b2b", "#5a3fb0", "#a02828"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];
const LIGHT_SCALE = ["#fdfaf3", "#e2e3e3", "#c9cdd3", "#afb7c3", "#97a1b4", "#7f8ca4", "#677894", "#516385", "#3b5075"];
const DARK_SCALE = ["#10151c", "#1a2330", "#253244", "#314259", "#3f536f", "#4f6686", "#637b9c", "#7c93b1", "#9aadc6"];
const SIGNED_SCALE = ["#8c4a00", "#c98a45", "#ead2b3", "#f4f2ee", "#bdd0e2", "#6d97bf", "#1f5a92"];
const SIGNED_DARK = ["#f0a95c", "#9a6a35", "#4d3a26", "#1a1f26", "#26405a", "#3f74a3", "#7db8ee"];
const MANY = 3000;

/** @param {string[]} colours */
function scaleOf(colours) {
  return colours.map((colour, i) => [i / (colours.length - 1), colour]);
}

/**
 * @typedef {{plotly: any, surface: import("./surface.js").Surface, payload: any, dark: boolean,
 *   onhandle: (which: string, place: number[], done: boolean) => void, onpointer: (place: number[] | null) => void,
 *   onlatent: (row: number) => void, onlasso: (rows: number[]) => void, onpin: () => void}} MapOptions
 */

export class LatentMap {
  // what is drawn on the overlay
  /** @type {any} */ paths;
  /** @type {any} */ knobs;
  /** @type {any} */ markers;
  /** @type {any} */ means;
  /** @type {any} */ ring;
  /** @type {any} */ clip;
  /** @type {any} */ watcher;

  /**
   * @param {HTMLElement} element
   * @param {MapOptions} options
   */
  constructor(element, options) {
    this.options = options;
    this.surface = options.surface;
    this.plot = make("div", { class: "pg-plot" });
    this.overlay = make("svg:svg", { class: "pg-overlay", "aria-hidden": "false" });
    element.append(this.plot, this.overlay);
    const { payload } = options;
    this.xy = unpackArray(payload.latents.xy);
    this.count = this.xy.length / 2;
    const labels = payload.latents.labels;
    this.names = labels ? labels.names : ["latents"];
    this.index = labels ? unpackArray(labels.index) : new Uint8Array(this.count);
    this.tool = "move";
    this.clipId = `pg-clip-${Math.random().toString(36).slice(2, 8)}`;
    /** @type {Record<string, number[]>} */ this.handles = {};
    this.build();
  }

  build() {
    const part = (/** @type {string} */ name) => make("svg:path", { class: `pg-${name}`, fill: "none" });
    this.clip = make("svg:rect");
    this.paths = {
      pins: make("svg:g", { class: "pg-pins" }), exact: make("svg:g", { class: "pg-exacts" }), balls: part("balls"),
      fan: part("fan"), halo: part("halo"), line: part("line"), geodesic: part("geodesic"), arrow: part("arrow"),
      lasso: part("lasso"),
    };
    const marker = (/** @type {string} */ name) => make("svg:circle", { class: `pg-marker pg-on-${name}`, r: 6 });
    this.markers = { geodesic: marker("geodesic"), line: marker("line") };
    this.means = {
      frechet: make("svg:path", { class: "pg-mean", d: "M-7,0H7M0,-7V7" }),
      euclid: make("svg:path", { class: "pg-mean pg-mean-flat", d: "M-6,-6L6,6M-6,6L6,-6" }),
    };
    this.ring = make("svg:circle", { class: "pg-ring", r: 9 });
    const inner = make("svg:g", { "clip-path": `url(#${this.clipId})` }, ...Object.values(this.paths),
      ...Object.values(this.means), this.ring, ...Object.values(this.markers));
    this.knobs = { a: this.knob("a", "A"), b: this.knob("b", "B"), v: this.knob("v", "") };
    this.overlay.append(
      make("svg:defs", {}, make("svg:clipPath", { id: this.clipId }, this.clip)), inner, ...Object.values(this.knobs));
    for (const node of [...Object.values(this.markers), ...Object.values(this.means), this.ring, this.knobs.v]) hide(node, true);
    this.listenForLasso();
  }

  /**
   * @param {string} which
   * @param {string} letter
   */
  knob(which, letter) {
    const label = which === "v" ? "Tip of the arrow" : `Point ${letter}`;
    const knob = make("svg:g", { class: `pg-knob pg-knob-${which}`, tabindex: 0, role: "slider", "aria-label": `${label}: arrow keys move it` },
      make("svg:circle", { class: "pg-touch", r: 20 }), make("svg:circle", { class: "pg-dot", r: which === "v" ? 7 : 11 }),
      make("svg:text", { "text-anchor": "middle", dy: "0.35em" }, letter));
    let held = false;
    knob.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      held = true;
      knob.setPointerCapture(event.pointerId);
      knob.focus({ preventScroll: true });
      event.preventDefault();
      event.stopPropagation();
    });
    knob.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (held) this.options.onhandle(which, this.within(this.placeOf(event)), false);
    });
    const end = (/** @type {PointerEvent} */ event) => {
      if (!held) return;
      held = false;
      this.options.onhandle(which, event.type === "pointerup" ? this.within(this.placeOf(event)) : this.handles[which], true);
    };
    knob.addEventListener("pointerup", end);
    knob.addEventListener("pointercancel", end);
    knob.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      const size = event.shiftKey ? 0.05 : 0.01;
      const [x, y] = this.handles[which];
      const step = [way[0] * size * (this.surface.x[1] - this.surface.x[0]), way[1] * size * (this.surface.y[1] - this.surface.y[0])];
      this.options.onhandle(which, this.within([x + step[0], y + step[1]]), true);
    });
    return knob;
  }

  listenForLasso() {
    /** @type {number[][] | null} */
    let way = null;
    this.overlay.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (this.tool !== "lasso") return;
      way = [this.placeOf(event)];
      this.overlay.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.overlay.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (way === null) return;
      way.push(this.placeOf(event));
      this.paths.lasso.setAttribute("d", this.pathOf(way.flat(), true));
    });
    this.overlay.addEventListener("pointerup", () => {
      if (way === null) return;
      const loop = way;
      way = null;
      if (loop.length < 3) return;
      const rows = [];
      for (let i = 0; i < this.count; i++) {
        if (!this.hidden.has(this.index[i]) && within(loop, this.xy[2 * i], this.xy[2 * i + 1])) rows.push(i);
      }
      this.options.onlasso(rows);
    });
    this.overlay.addEventListener("pointercancel", () => { way = null; });
  }

  /** @type {Set<number>} */ hidden = new Set();

  /** Draw for the first time. @returns {Promise<void>} */
  async draw() {
    const { plotly } = this.options;
    await plotly.newPlot(this.plot, this.traces(), this.layout(), {
      responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: true, doubleClick: false,
    });
    this.plot.on("plotly_relayout", () => this.place());
    this.plot.on("plotly_relayouting", () => this.place());
    this.plot.on("plotly_afterplot", () => this.place());
    this.plot.on("plotly_click", (/** @type {any} */ event) => {
      const point = event.points.find((/** @type {any} */ p) => p.data.meta === "latents");
      if (point) this.options.onlatent(point.customdata);
    });
    this.plot.on("plotly_doubleclick", () => this.options.onpin());
    this.plot.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.options.onpointer(this.placeOf(event)));
    this.plot.addEventListener("pointerleave", () => this.options.onpointer(null));
    // words around the map change its size; plotly listens to the window alone
    this.watcher = new ResizeObserver(() => plotly.Plots.resize(this.plot));
    this.watcher.observe(this.plot);
    this.place();
  }

  traces() {
    const { dark } = this.options;
    const traces = [{
      type: "heatmap", x: this.surface.x, y: this.surface.y, z: [[0, 0], [0, 0]], visible: false, hoverinfo: "skip", zsmooth: "best",
      colorbar: { thickness: 10, len: 0.6, x: 1.01, xpad: 0, outlinewidth: 0, tickfont: { size: 11 } },
    }];
    const small = this.count > MANY ? 3 : this.count > 800 ? 5 : 7;
    const rows = Array.from(this.names, () => /** @type {number[]} */ ([]));
    for (let i = 0; i < this.count; i++) rows[this.index[i]].push(i);
    const grey = this.names.length === 1;
    for (const [k, own] of rows.entries()) {
      const marker = {
        size: small, opacity: this.count > MANY ? 0.7 : 0.9, color: grey ? (dark ? "#b9c2cd" : "#5b6673") : COLOURS[k % COLOURS.length],
        symbol: grey ? "circle" : SYMBOLS[Math.floor(k / COLOURS.length + (k % COLOURS.length)) % SYMBOLS.length],
        line: { width: this.count > MANY ? 0 : 0.6, color: dark ? "#10151c" : "#ffffff" },
      };
      traces.push(/** @type {any} */ ({
        type: this.count > MANY ? "scattergl" : "scatter", mode: "markers", name: plotText(this.names[k]), meta: "latents",
        x: own.map((i) => this.xy[2 * i]), y: own.map((i) => this.xy[2 * i + 1]), customdata: own, marker,
        hovertemplate: `latent %{customdata}${grey ? "" : `, ${plotText(this.names[k])}`}<extra></extra>`,
      }));
    }
    return traces;
  }

  layout() {
    const { payload, dark } = this.options;
    const ink = dark ? "#e6eaf0" : "#1b2129", faint = dark ? "#2b3441" : "#d9dee4";
    const axis = (/** @type {number} */ i, /** @type {number[]} */ range) => ({
      title: { text: plotText(payload.plane.names[i], 40), standoff: 6 }, range, gridcolor: faint, zeroline: false, linecolor: faint,
      showgrid: false, ticks: "outside", tickcolor: faint, constrain: "domain",
    });
    return {
      margin: { l: 52, r: 62, t: 8, b: 42 }, dragmode: "pan", hovermode: "closest", showlegend: false, autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: dark ? "#10151c" : "#ffffff",
      font: { family: 'system-ui, "Segoe UI", Roboto, sans-serif', size: 12, color: ink },
      hoverlabel: { bgcolor: dark ? "#1b232e" : "#ffffff", bordercolor: faint, font: { color: ink } },
      xaxis: axis(0, [...this.surface.x]), yaxis: { ...axis(1, [...this.surface.y]), scaleanchor: "x" },
    };
  }

  /**
   * @param {import("./layers.js").Layer} layer
   * @param {number[]} from
   */
  paint(layer, from) {
    const { plotly } = this.options;
    const painted = layer.paint(from);
    if (painted === null) {
      plotly.restyle(this.plot, { visible: false }, [0]);
      return;
    }
    const { rows, low, high, colours } = this.scale(layer, painted);
    const along = (/** @type {number[]} */ range, /** @type {number} */ n) =>
      Array.from({ length: n }, (_, i) => range[0] + ((range[1] - range[0]) * i) / (n - 1));
    plotly.restyle(this.plot, {
      visible: true, x: [along(painted.x, painted.nx)], y: [along(painted.y, painted.ny)], z: [rows], zmin: low, zmax: high,
      colorscale: [colours], "colorbar.title.text": plotText(layer.formula), "colorbar.title.side": "right",
    }, [0]);
  }

  /**
   * Rows of a layer, and its colours.
   *
   * @param {import("./layers.js").Layer} layer
   * @param {import("./layers.js").Painted} painted
   */
  scale(layer, painted) {
    const { dark } = this.options;
    const colours = layer.signed ? (dark ? SIGNED_DARK : SIGNED_SCALE) : dark ? DARK_SCALE : LIGHT_SCALE;
    return { ...coloured(painted, layer.signed), colours: scaleOf(colours) };
  }

  /** @param {number[]} hidden classes */
  hide(hidden) {
    this.hidden = new Set(hidden);
    const visible = this.names.map((/** @type {string} */ _, /** @type {number} */ k) => !this.hidden.has(k));
    this.options.plotly.restyle(this.plot, { visible }, visible.map((/** @type {boolean} */ _, /** @type {number} */ k) => k + 1));
  }

  /** @param {string} tool */
  use(tool) {
    this.tool = tool;
    this.overlay.classList.toggle("pg-catches", tool === "lasso");
    hide(this.knobs.b, tool !== "move");
    hide(this.knobs.v, tool !== "shoot");
    for (const name of ["line", "geodesic", "halo"]) hide(this.paths[name], tool === "reach" || tool === "lasso");
    hide(this.knobs.a, tool === "lasso");
    if (tool !== "lasso") this.paths.lasso.setAttribute("d", "");
    if (tool !== "reach") this.paths.fan.setAttribute("d", "");
    if (tool !== "shoot") this.paths.arrow.setAttribute("d", "");
  }

  /** What is drawn now, in coordinates of the map; kept to be placed again after a zoom. @type {any} */
  drawn = { geodesic: [], line: [], fan: [], balls: [], pins: [], exact: [], arrow: [], handles: {}, markers: null, means: null, ring: null };

  /** @param {any} changed */
  show(changed) {
    Object.assign(this.drawn, changed);
    if (changed.handles) this.handles = { ...this.handles, ...changed.handles };
    this.place();
  }

  place() {
    const full = this.plot._fullLayout;
    if (!full || !full.xaxis) return;
    const { xaxis, yaxis } = full;
    const set = (/** @type {any} */ node, /** @type {Record<string, any>} */ values) => {
      for (const [name, value] of Object.entries(values)) node.setAttribute(name, value);
    };
    set(this.clip, { x: xaxis._offset, y: yaxis._offset, width: xaxis._length, height: yaxis._length });
    const { drawn, paths } = this;
    for (const name of ["geodesic", "line"]) paths[name].setAttribute("d", this.pathOf(drawn[name]));
    paths.halo.setAttribute("d", this.pathOf(drawn.geodesic));
    paths.arrow.setAttribute("d", this.pathOf(drawn.arrow));
    for (const name of ["fan", "balls"]) {
      paths[name].setAttribute("d", drawn[name].map((/** @type {number[]} */ nodes) => this.pathOf(nodes)).join(""));
    }
    this.many(paths.pins, drawn.pins, "pg-pin");
    this.many(paths.exact, drawn.exact, "pg-exact");
    const at = (/** @type {any} */ node, /** @type {number[] | null | undefined} */ place) => {
      hide(node, !place);
      if (place) node.setAttribute("transform", `translate(${this.pixels(place[0], place[1]).join(",")})`);
    };
    at(this.markers.geodesic, drawn.markers?.geodesic);
    at(this.markers.line, drawn.markers?.line);
    at(this.means.frechet, drawn.means?.frechet);
    at(this.means.euclid, drawn.means?.euclid);
    at(this.ring, drawn.ring);
    for (const [which, place] of Object.entries(this.handles)) {
      this.knobs[which].setAttribute("transform", `translate(${this.pixels(place[0], place[1]).join(",")})`);
      this.knobs[which].setAttribute("aria-valuetext", place.map((v) => v.toPrecision(3)).join(", "));
    }
  }

  /**
   * @param {any} group
   * @param {number[][]} curves
   * @param {string} name
   */
  many(group, curves, name) {
    while (group.childNodes.length > curves.length) group.lastChild.remove();
    while (group.childNodes.length < curves.length) group.append(make("svg:path", { class: name, fill: "none" }));
    for (const [i, nodes] of curves.entries()) group.childNodes[i].setAttribute("d", this.pathOf(nodes));
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pixels(x, y) {
    const { xaxis, yaxis } = this.plot._fullLayout;
    return [xaxis._offset + xaxis.l2p(x), yaxis._offset + yaxis.l2p(y)];
  }

  /** @param {PointerEvent} event @returns {number[]} */
  placeOf(event) {
    const { xaxis, yaxis } = this.plot._fullLayout;
    const box = this.plot.getBoundingClientRect();
    return [xaxis.p2l(event.clientX - box.left - xaxis._offset), yaxis.p2l(event.clientY - box.top - yaxis._offset)];
  }

  /** @param {number[]} place */
  within(place) {
    const { x, y } = this.surface;
    return [Math.min(x[1], Math.max(x[0], place[0])), Math.min(y[1], Math.max(y[0], place[1]))];
  }

  /**
   * @param {ArrayLike<number>} nodes
   * @param {boolean} [closed]
   */
  pathOf(nodes, closed = false) {
    let path = "";
    for (let i = 0; i + 1 < nodes.length; i += 2) {
      const [px, py] = this.pixels(nodes[i], nodes[i + 1]);
      path += `${i ? "L" : "M"}${px.toFixed(1)},${py.toFixed(1)}`;
    }
    return closed && path ? `${path}Z` : path;
  }

  /** A picture of the map as it is, curves included. @param {string} format */
  async picture(format) {
    const { plotly } = this.options;
    const { drawn } = this;
    const ink = this.options.dark ? "#e6eaf0" : "#1b2129";
    const trace = (/** @type {ArrayLike<number>} */ nodes, /** @type {any} */ line) => ({
      type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: ink, ...line },
      x: Array.from(nodes).filter((_, i) => i % 2 === 0), y: Array.from(nodes).filter((_, i) => i % 2 === 1),
    });
    const data = [
      ...this.plot.data, ...drawn.balls.map((/** @type {number[]} */ n) => trace(n, { width: 1 })),
      ...drawn.fan.map((/** @type {number[]} */ n) => trace(n, { width: 1 })), ...drawn.pins.map((/** @type {number[]} */ n) => trace(n, { width: 1.5 })),
      trace(drawn.line, { width: 2, dash: "dot" }), trace(drawn.geodesic, { width: 3 }),
    ];
    const layout = { ...this.plot.layout, paper_bgcolor: this.options.dark ? "#0d1117" : "#ffffff" };
    const { width, height } = this.plot.getBoundingClientRect();
    await plotly.downloadImage({ data, layout }, { format, width, height, scale: format === "png" ? 2 : 1, filename: "latent-map" });
  }

  destroy() {
    this.watcher?.disconnect();
    this.options.plotly.purge(this.plot);
  }
}

/**
 * @param {any} node
 * @param {boolean} hidden
 */
function hide(node, hidden) {
  if (hidden) node.setAttribute("hidden", "");
  else node.removeAttribute("hidden");
}

/**
 * Whether a point lies in a polygon: an odd number of its edges cross the ray to the right.
 *
 * @param {number[][]} loop
 * @param {number} x
 * @param {number} y
 */
function within(loop, x, y) {
  let inside = false;
  for (let i = 0, j = loop.length - 1; i < loop.length; j = i++) {
    const [xi, yi] = loop[i], [xj, yj] = loop[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
