/** The living map: state, what follows from it, and what is shown. */

import { openSurface, unpackArray } from "./surface.js";
import { geodesic, line, Tracker } from "./geodesic.js";
import { fan, shoot } from "./exponential.js";
import { indicatrix } from "./distance.js";
import { frechetMean } from "./mean.js";
import { openDecode } from "./decode.js";
import { make, keepFile, spoken, withError } from "./dom.js";
import { layersOf } from "./layers.js";
import { LatentMap } from "./map.js";
import { Members } from "./members.js";
import { drawOutput, largestEntries } from "./pictures.js";
import { SpeedProfile } from "./profile.js";
import { Solid } from "./solid.js";
import { hashToState, stateToHash } from "./state.js";
import { FilmStrip, placeAlong } from "./strip.js";

const REST = 150;
const PLAY_SECONDS = 4;
const RAYS = 48;
const RINGS = 4;
const RAY_STEPS = 32;

const TOOL_WORDS = {
  move: ["Geodesic", "Drag A and B. Double click keeps the pair."],
  shoot: ["Shoot", "Drag the tip of the arrow: the geodesic leaves A in its direction, as long as the arrow is in the output."],
  reach: ["Reach", "Geodesics leave A in all directions; rings join what is equally far away."],
  lasso: ["Lasso", "Draw around latents: their Fréchet mean (+) beside their Euclidean mean (×)."],
};

/**
 * @typedef {{plane?: string, signal: AbortSignal}} Asked `plane` is missing where the host knows it
 * @typedef {{exact?: (ends: {a: number[], b: number[]} & Asked) => Promise<any>,
 *   shoot?: (arrow: {a: number[], v: number[]} & Asked) => Promise<any>,
 *   members?: (ends: {a: number[], b: number[]} & Asked) => Promise<import("./members.js").MemberSpread>,
 *   mean?: (rows: {rows: number[]} & Asked) => Promise<any>, plotly?: any, address?: boolean, chooser?: HTMLElement | null, plane?: string}} Host
 */

/**
 * Put the living map of a payload into an element.
 *
 * @param {HTMLElement} element
 * @param {any} payload
 * @param {Host} [host] answers exactly, where something behind the page can
 */
export function mount(element, payload, host = {}) {
  return new Explorer(element, payload, host);
}

export class Explorer {
  // what is built, and what follows from the state
  /** @type {any} */ parts = {};
  /** @type {any} */ map = null;
  /** @type {any} */ root = null;
  /** @type {any} */ strips = null;
  /** @type {any} */ profile = null;
  /** @type {any} */ solid = null;
  /** @type {any} */ curve = null;
  /** @type {any} */ straight = null;
  /** @type {any} */ exact = null;
  /** @type {any} */ arrow = null;
  /** @type {any} */ pending = null;
  /** @type {any} */ playing = 0;
  /** @type {any} */ mean = null;
  /** @type {any} */ remembering = 0;
  /** @type {any} */ askingMean = null;
  /** @type {any} */ spread = null;
  /** @type {any} */ onkey = null;
  /** @type {any} */ lastUpdate = 0;

  /**
   * @param {HTMLElement} element
   * @param {any} payload
   * @param {Host} host
   */
  constructor(element, payload, host) {
    this.element = element;
    this.payload = payload;
    this.host = host;
    this.plotly = host.plotly ?? /** @type {any} */ (globalThis).Plotly;
    const quiet = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");
    this.still = Boolean(quiet?.matches);
    this.dark = Boolean(globalThis.matchMedia?.("(prefers-color-scheme: dark)")?.matches);
    this.surface = openSurface(payload.surface);
    this.decode = openDecode(payload.decode, this.surface);
    this.shown = payload.decode;
    this.members = payload.members ? new Members(payload.members) : null;
    this.layers = layersOf(this.surface, payload.fields ?? [], this.members);
    this.tracker = new Tracker(this.surface);
    /** @type {Map<string, Set<(value: any) => void>>} */ this.listeners = new Map();
    this.pictures = payload.latents.pictures ? unpackArray(payload.latents.pictures) : null;
    /** @type {AbortController | null} */ this.asking = null;
    /** @type {number | null} */ this.frame = null;
    this.timer = 0;
    this.state = this.beginning();
    this.build();
    this.ready = this.begin();
  }

  beginning() {
    const { x, y } = this.surface;
    const inside = (/** @type {number[]} */ z) => this.surface.inside(z[0], z[1]);
    /** @type {ReturnType<typeof hashToState>} */
    let named = this.host.address === false ? { pins: [] } : hashToState(globalThis.location?.hash ?? "");
    // places on another plane mean nothing on this one
    if ((named.plane ?? "") !== (this.host.plane ?? "")) named = { pins: [] };
    const given = this.payload.start ?? {};
    const middle = (/** @type {number} */ s) => [x[0] + s * (x[1] - x[0]), y[0] + s * (y[1] - y[0])];
    const pick = (/** @type {any} */ fromAddress, /** @type {any} */ fromPayload, /** @type {number} */ s) =>
      [fromAddress, fromPayload].find((z) => z && inside(z)) ?? middle(s);
    /** @type {import("./state.js").State} */
    const state = {
      z0: pick(named.z0, given.z0, 0.3), z1: pick(named.z1, given.z1, 0.7), t: named.t ?? 0.5,
      layer: this.layers.some((l) => l.id === named.layer) ? /** @type {string} */ (named.layer) : "volume",
      tool: named.tool ?? "move", balls: named.balls ?? false, pins: [], selection: [], hidden: named.hidden ?? [],
    };
    for (const pin of named.pins) {
      if (inside(pin.z0) && inside(pin.z1)) state.pins.push(this.solvedPin(pin.z0, pin.z1, pin.name));
    }
    return state;
  }

  // what stands where -------------------------------------------------------------------------------------------------

  build() {
    const { payload } = this;
    const pictured = this.shown.kind !== "none";
    /** @type {Record<string, any>} */ const parts = (this.parts = {});
    const button = (/** @type {string} */ text, /** @type {() => void} */ act, /** @type {any} */ more = {}) =>
      make("button", { type: "button", onclick: act, ...more }, text);
    parts.tools = make("div", { class: "pg-tools", role: "group", "aria-label": "What the pointer does" },
      ...Object.entries(TOOL_WORDS).map(([tool, [name]]) => button(name, () => this.set({ tool }), { "data-tool": tool })));
    parts.hint = make("p", { class: "pg-hint" });
    parts.layer = make("select", { "aria-label": "Layer", onchange: () => this.set({ layer: parts.layer.value }) },
      ...this.layers.map((l) => make("option", { value: l.id }, l.name)));
    parts.balls = make("input", { type: "checkbox", onchange: () => this.set({ balls: parts.balls.checked }) });
    parts.map = make("div", { class: "pg-map" });
    parts.legend = make("p", { class: "pg-legend" });
    parts.classes = make("div", { class: "pg-classes", role: "group", "aria-label": "Classes" });
    parts.length = make("output", { class: "pg-length" });
    parts.straight = make("output", { class: "pg-length" });
    parts.saving = make("output", { class: "pg-saving" });
    parts.status = make("p", { class: "pg-status", role: "status" });
    parts.spread = make("p", { class: "pg-spread", role: "status", hidden: true });
    const strips = make("div", { class: "pg-strips" });
    const now = make("div", { class: "pg-nows" });
    if (pictured) {
      const row = (/** @type {string} */ title, /** @type {string} */ name) => {
        const holder = make("div", { class: "pg-row" }, make("span", { class: "pg-row-name" }, title));
        strips.append(holder);
        return new FilmStrip(holder, name, this.shown, this.decode);
      };
      this.strips = { geodesic: row("Geodesic", "geodesic"), line: row("Straight line", "line") };
      for (const [name, title] of [["geodesic", "on the geodesic"], ["line", "on the line"], ["pointer", "under the pointer"]]) {
        parts[`now-${name}`] = make("canvas", { class: `pg-picture pg-${this.shown.kind}`, "data-now": name });
        parts[`largest-${name}`] = make("small", {});
        now.append(make("figure", {}, parts[`now-${name}`], make("figcaption", {}, title), parts[`largest-${name}`]));
      }
    }
    parts.slider = make("input", { type: "range", min: 0, max: 1, step: 0.002, "aria-label": "Place along both paths",
      oninput: () => { this.stop(); this.set({ t: Number(parts.slider.value) }); } });
    parts.play = button("Play", () => this.play(), { "aria-label": "Play or pause", title: "Space bar" });
    parts.profile = make("div", { class: "pg-speed" });
    parts.pins = make("ol", { class: "pg-pin-list" });
    parts.latent = make("div", { class: "pg-latent", hidden: true });
    parts.mean = make("div", { class: "pg-mean-panel", hidden: true });
    parts.search = make("input", { type: "search", placeholder: "Number or name", "aria-label": "Find a latent",
      onchange: () => this.find(parts.search.value) });
    parts.solid = make("div", { class: "pg-solid", hidden: true });
    parts.toSolid = button("3-D", () => this.toggleSolid(), { "aria-pressed": "false", disabled: this.surface.r < 1 });
    const bar = make("div", { class: "pg-bar" }, parts.tools, this.host.chooser ?? "",
      make("label", {}, "Layer ", parts.layer), make("label", {}, parts.balls, " unit balls"), parts.toSolid);
    const panel = make("aside", { class: "pg-panel", "aria-label": "The chosen pair" },
      make("dl", { class: "pg-numbers" },
        make("div", {}, make("dt", {}, "Geodesic"), make("dd", {}, parts.length)),
        make("div", {}, make("dt", {}, "Straight line"), make("dd", {}, parts.straight)),
        make("div", {}, make("dt", {}, "Saving"), make("dd", {}, parts.saving))),
      parts.status, parts.spread, strips, now,
      make("div", { class: "pg-player" }, parts.play, parts.slider),
      make("div", { class: "pg-block" }, make("h3", {}, "Speed"), parts.profile,
        make("p", { class: "pg-fine" }, "Output length for each step of time: level on the geodesic (solid), uneven on the line (dotted).")),
      parts.mean, parts.latent,
      make("div", { class: "pg-block" }, make("h3", {}, "Kept pairs"), parts.pins,
        make("div", { class: "pg-buttons" }, button("Keep this pair", () => this.pin(), { "data-act": "pin" }),
          button("Pairs (JSON)", () => this.keepPins(), { "data-act": "json" }), button("Curve (CSV)", () => this.keepCurve(), { "data-act": "csv" }),
          button("PNG", () => this.map.picture("png"), { "data-act": "png" }), button("SVG", () => this.map.picture("svg"), { "data-act": "svg" }),
          button("Copy address", () => this.copyAddress(), { "data-act": "copy" }))),
      make("div", { class: "pg-block" }, make("label", {}, "Find a latent ", parts.search)));
    const notes = make("div", { class: "pg-notes" }, parts.legend);
    if (payload.plane.words) notes.append(make("p", { class: "pg-fine" }, payload.plane.words));
    if (payload.accuracy) notes.append(make("p", { class: payload.accuracy.fine ? "pg-fine" : "pg-fine pg-coarse" }, payload.accuracy.sentence));
    this.root = make("div", { class: this.dark ? "pg pg-dark" : "pg" },
      make("div", { class: "pg-main" }, bar, parts.hint, make("div", { class: "pg-stage" }, parts.map, parts.solid), parts.classes, notes), panel);
    this.element.replaceChildren(this.root);
    this.profile = new SpeedProfile(parts.profile);
    this.buildClasses();
    this.onkey = (/** @type {KeyboardEvent} */ event) => {
      const typing = /** @type {HTMLElement} */ (event.target)?.closest?.("input, select, textarea, button");
      if (event.key === " " && !typing) {
        event.preventDefault();
        this.play();
      }
    };
    this.root.ownerDocument.addEventListener("keydown", this.onkey);
    this.map = new LatentMap(parts.map, {
      plotly: this.plotly, surface: this.surface, payload, dark: this.dark,
      onhandle: (which, place, done) => this.moved(which, place, done), onpointer: (place) => this.pointed(place),
      onlatent: (row) => this.showLatent(row), onlasso: (rows) => this.select(rows), onpin: () => this.pin(),
    });
  }

  buildClasses() {
    const labels = this.payload.latents.labels;
    if (!labels) return;
    for (const [k, name] of labels.names.entries()) {
      const box = make("input", { type: "checkbox", checked: !this.state.hidden.includes(k), onchange: () => {
        const hidden = new Set(this.state.hidden);
        if (box.checked) hidden.delete(k);
        else hidden.add(k);
        this.set({ hidden: [...hidden].sort((a, b) => a - b) });
      } });
      box.checked = !this.state.hidden.includes(k);
      this.parts.classes.append(make("label", { title: name }, box, make("span", { class: "pg-swatch", "data-class": k % 10 }), name.length > 24 ? `${name.slice(0, 23)}…` : name));
    }
  }

  async begin() {
    await this.map.draw();
    this.apply(this.state, true);
    this.root.dataset.ready = "true";
    return this;
  }

  // state -------------------------------------------------------------------------------------------------------------

  /**
   * Change the state, and show it.
   *
   * @param {Partial<import("./state.js").State>} changed
   */
  set(changed) {
    const before = this.state;
    this.state = { ...before, ...changed };
    if (!this.layers.some((l) => l.id === this.state.layer)) this.state.layer = before.layer;
    // pairs may come by their ends alone
    this.state.pins = this.state.pins.map((pin, i) => (pin.nodes ? pin : this.solvedPin(pin.z0, pin.z1, pin.name ?? `Pair ${i + 1}`)));
    this.apply(before);
  }

  /** @param {Partial<import("./state.js").State>} state */
  setState(state) {
    this.set(state);
  }

  /**
   * @param {import("./state.js").State} before
   * @param {boolean} [all]
   */
  apply(before, all = false) {
    const { state, parts } = this;
    /** @param {...(keyof import("./state.js").State)} names */
    const changed = (...names) => all || names.some((n) => before[n] !== state[n]);
    if (changed("tool")) {
      for (const node of parts.tools.children) node.setAttribute("aria-pressed", String(node.dataset.tool === state.tool));
      parts.hint.textContent = TOOL_WORDS[/** @type {keyof typeof TOOL_WORDS} */ (state.tool)][1];
      this.map.use(state.tool);
      if (state.tool === "shoot" && !this.map.handles.v) this.arrow = null;
    }
    if (changed("hidden")) {
      this.map.hide(state.hidden);
    }
    if (changed("layer")) {
      parts.layer.value = state.layer;
      const layer = this.layer();
      parts.legend.replaceChildren(make("strong", {}, layer.name), ` ${layer.words} `, make("span", { class: "pg-formula" }, layer.formula),
        layer.unit ? ` (${layer.unit})` : "");
      this.map.paint(layer, state.z0);
      if (!all) this.colourSolid();
    }
    if (changed("balls", "layer")) {
      parts.balls.checked = state.balls;
      this.map.show({ balls: state.balls ? this.unitBalls() : [] });
    }
    if (changed("z0", "z1", "tool")) this.solve();
    if (changed("t", "z0", "z1", "tool")) this.showTime();
    if (changed("pins")) this.showPins();
    if (changed("selection")) this.showMean();
    this.remember();
    this.emit("change", state);
  }

  layer() {
    return this.layers.find((l) => l.id === this.state.layer) ?? this.layers[0];
  }

  remember() {
    if (this.host.address === false) return;
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      try {
        globalThis.history?.replaceState(null, "", stateToHash(this.state, this.host.plane));
      } catch {
        // some hosts forbid it; the address can still be copied
      }
    }, 250);
  }

  // the pair ----------------------------------------------------------------------------------------------------------

  /**
   * @param {string} which
   * @param {number[]} place
   * @param {boolean} done
   */
  moved(which, place, done) {
    this.pending = { ...(this.pending ?? {}), ...(which === "a" ? { z0: place } : which === "b" ? { z1: place } : { tip: place }) };
    if (done) return this.settle();
    if (this.frame === null) {
      this.frame = requestAnimationFrame(() => {
        this.frame = null;
        this.settle();
      });
    }
  }

  settle() {
    const pending = this.pending;
    this.pending = null;
    if (!pending) return;
    const { tip, ...ends } = pending;
    if (tip) {
      const { z0 } = this.state;
      this.arrow = [tip[0] - z0[0], tip[1] - z0[1]];
      this.solve();
      this.showTime();
    }
    if (Object.keys(ends).length) this.set(ends);
  }

  /** Curves of the state as it is. */
  solve() {
    const begun = performance.now();
    const { z0, z1, tool } = this.state;
    const ink = this.ink();
    if (tool === "shoot") this.solveShot();
    else {
      this.curve = this.tracker.move(z0, z1);
      this.straight = line(this.surface, z0, z1, { segments: 48 });
    }
    const { curve, straight } = this;
    this.exact = null;
    this.showNumbers();
    const shots = tool === "reach" ? this.reach() : { fan: [], rings: [] };
    this.map.show({
      geodesic: curve.nodes, line: tool === "shoot" ? [] : straight.nodes, exact: [], ring: null,
      fan: [...shots.fan, ...shots.rings], arrow: tool === "shoot" && this.arrow ? [...z0, z0[0] + this.arrow[0], z0[1] + this.arrow[1]] : [],
      handles: { a: z0, b: z1, ...(tool === "shoot" && this.arrow ? { v: [z0[0] + this.arrow[0], z0[1] + this.arrow[1]] } : {}) },
    });
    if (this.strips) {
      this.strips.geodesic.show(curve.nodes, ink);
      this.strips.line.show(tool === "shoot" ? [] : straight.nodes, ink);
    }
    this.profile.show(curve.speeds, tool === "shoot" ? [] : straight.speeds);
    if (this.solid) this.solid.curves(curve.nodes, straight.nodes);
    this.lastUpdate = performance.now() - begun;
    this.emit("geodesic", curve);
    this.rest();
  }

  solveShot() {
    const { z0 } = this.state;
    if (!this.arrow) {
      const [x, y] = [this.surface.x[1] - this.surface.x[0], this.surface.y[1] - this.surface.y[0]];
      this.arrow = [0.15 * x, 0.1 * y];
    }
    this.curve = shoot(this.surface, z0, this.arrow);
    this.straight = line(this.surface, z0, [z0[0] + this.arrow[0], z0[1] + this.arrow[1]], { segments: 48 });
  }

  /** Geodesics from A in all directions, and rings of equal distance. */
  reach() {
    const { z0 } = this.state;
    const radius = this.reachOf();
    const curves = fan(this.surface, z0, RAYS, radius, { steps: RAY_STEPS });
    const rings = [];
    for (let k = 1; k <= RINGS; k++) {
      // a ring has gaps where geodesics left the map before they were as long
      let arc = /** @type {number[]} */ ([]);
      for (let i = 0; i <= RAYS; i++) {
        const curve = curves[i % RAYS];
        const whole = (curve.nodes.length / 2 - 1) / RAY_STEPS;
        if (k / RINGS <= whole + 1e-9) arc.push(...placeAlong(curve.nodes, whole > 0 ? k / RINGS / whole : 0));
        else if (arc.length) {
          rings.push(arc);
          arc = [];
        }
      }
      rings.push(arc);
    }
    return { fan: curves.filter((_, i) => i % 2 === 0).map((curve) => curve.nodes), rings };
  }

  /** A radius in the output that covers a good part of the map. */
  reachOf() {
    const { z0, z1 } = this.state;
    const whole = this.tracker.move(z0, z1).length;
    return Number.isFinite(whole) && whole > 0 ? whole : 1;
  }

  /** Unit balls of the metric on a lattice, all of one radius in the output. */
  unitBalls() {
    const { x, y } = this.surface;
    const n = 11;
    const cell = Math.min(x[1] - x[0], y[1] - y[0]) / n;
    const places = [];
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) places.push([x[0] + ((i + 0.5) * (x[1] - x[0])) / n, y[0] + ((j + 0.5) * (y[1] - y[0])) / n]);
    }
    const widths = places.map(([px, py]) => {
      const ball = indicatrix(this.surface, px, py, 1, 24);
      let widest = 0;
      for (let i = 0; i < ball.length; i += 2) widest = Math.max(widest, Math.hypot(ball[i] - px, ball[i + 1] - py));
      return widest;
    });
    const usable = widths.filter((w) => Number.isFinite(w) && w > 0).sort((a, b) => a - b);
    if (usable.length === 0) return [];
    const radius = (0.48 * cell) / usable[Math.floor(0.9 * (usable.length - 1))];
    return places.filter((_, i) => Number.isFinite(widths[i]) && widths[i] * radius < 2 * cell)
      .map(([px, py]) => indicatrix(this.surface, px, py, radius, 24));
  }

  showNumbers() {
    const { parts, curve, straight, exact, state } = this;
    const length = exact ? exact.length : curve.length;
    const error = exact ? exact.error : curve.error;
    const status = exact ? exact.status : curve.status;
    parts.length.textContent = withError(length, error);
    parts.straight.textContent = state.tool === "shoot" ? "–" : spoken(straight.length);
    const saving = state.tool === "shoot" ? NaN : 100 * (1 - length / straight.length);
    parts.saving.textContent = Number.isFinite(saving) ? `${saving.toFixed(1).replace("-", "−")} %` : "–";
    const source = exact ? "Exact" : this.host.exact ? "On the map's surface" : "";
    parts.status.textContent = [source, status, exact ? exact.text : curve.text].filter(Boolean).join(": ").replace(/:\s*CONVERGED:/, ":");
    parts.status.dataset.status = status;
    parts.status.dataset.exact = String(Boolean(exact));
    parts.status.classList.toggle("pg-bad", status !== "CONVERGED");
  }

  /** When the pointer rests: ask for the exact curve, and paint what moves with A. */
  rest() {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.asking = null;
    this.spread = null;
    this.showSpread("");
    this.timer = setTimeout(async () => {
      if (this.layer().moves) this.map.paint(this.layer(), this.state.z0);
      const asking = (this.asking = new AbortController());
      await this.ask(asking);
      await this.askMembers(asking.signal);
    }, REST);
  }

  /** @param {AbortController} asking */
  async ask(asking) {
    const { z0, z1, tool } = this.state;
    const question = tool === "move" ? this.host.exact : tool === "shoot" && this.arrow ? this.host.shoot : undefined;
    if (!question) return;
    this.parts.status.dataset.asking = "true";
    try {
      const answer = await question(/** @type {any} */ ({ a: z0, b: z1, v: this.arrow, plane: this.plane(), signal: asking.signal }));
      if (asking.signal.aborted) return;
      this.exact = answer;
      this.showNumbers();
      if (answer.nodes?.length > 1) this.map.show({ exact: [answer.nodes.flat()], geodesic: answer.nodes.flat() });
      this.emit("geodesic", answer);
    } catch (error) {
      if (asking.signal.aborted || /** @type {Error} */ (error).name === "AbortError") return;
      this.parts.status.textContent = `No exact answer: ${/** @type {Error} */ (error).message}`;
      this.parts.status.classList.add("pg-bad");
    } finally {
      delete this.parts.status.dataset.asking;
    }
  }

  /**
   * How much the members differ on the shown distance: by the page, then exactly where something answers.
   *
   * @param {AbortSignal} signal
   */
  async askMembers(signal) {
    const { z0, z1, tool } = this.state;
    if (this.members === null || tool !== "move" || signal.aborted) return;
    const pause = () => new Promise((/** @type {(value: void) => void} */ go) => { setTimeout(go, 0); });
    const own = await this.members.spread(z0, z1, signal, pause);
    if (own === null || signal.aborted) return;
    this.spread = own;
    this.showSpread(this.host.members ? "On the map's surfaces: " : "");
    if (!this.host.members) return;
    try {
      const answer = await this.host.members({ a: z0, b: z1, plane: this.plane(), signal });
      if (signal.aborted) return;
      this.spread = answer;
      this.showSpread("Exact: ");
    } catch (error) {
      if (!signal.aborted) this.parts.spread.append(` (no exact answer: ${/** @type {Error} */ (error).message})`);
    }
  }

  /** @param {string} source */
  showSpread(source) {
    const { spread: found, parts } = this;
    parts.spread.toggleAttribute("hidden", found === null);
    if (found === null) return;
    const solved = found.lengths.filter((/** @type {number | null} */ length) => length !== null).length;
    const share = found.cv === null ? "–" : `${(100 * found.cv).toFixed(1)} %`;
    parts.spread.replaceChildren(make("strong", {}, `${solved} of ${found.lengths.length} members`),
      ` ${source}mean ${spoken(found.mean)}, std ${spoken(found.std, 2)}, std / mean ${share}. `,
      make("span", {}, found.text.charAt(0).toUpperCase() + found.text.slice(1)), ".");
    parts.spread.dataset.verdict = found.status;
    parts.spread.dataset.exact = String(source.startsWith("Exact"));
    this.emit("members", found);
  }

  // time along the paths ----------------------------------------------------------------------------------------------

  showTime() {
    const { t, tool } = this.state;
    this.parts.slider.value = String(t);
    this.profile.at(t);
    const pair = tool === "move" || tool === "shoot";
    const places = { geodesic: placeAlong(this.curve.nodes, t), line: tool === "move" ? placeAlong(this.straight.nodes, t) : null };
    this.map.show({ markers: pair ? places : null });
    for (const [name, place] of Object.entries(places)) if (place) this.showPicture(name, place);
  }

  /**
   * @param {string} name
   * @param {number[]} place
   */
  showPicture(name, place) {
    const canvas = this.parts[`now-${name}`];
    if (!canvas) return;
    const values = this.surface.inside(place[0], place[1]) ? this.decode(place[0], place[1]) : new Float32Array(0);
    drawOutput(canvas, values, this.shown, this.ink());
    this.parts[`largest-${name}`].textContent = largestEntries(values, this.shown);
  }

  /** @param {number[] | null} place */
  pointed(place) {
    if (place && this.surface.inside(place[0], place[1])) this.showPicture("pointer", place);
  }

  play() {
    if (this.playing) return this.stop();
    this.parts.play.textContent = "Pause";
    if (this.still) {
      // no motion: one step for each press
      this.set({ t: this.state.t >= 1 ? 0 : Math.min(1, this.state.t + 0.1) });
      this.parts.play.textContent = "Play";
      return;
    }
    const from = this.state.t >= 1 ? 0 : this.state.t;
    const begun = performance.now();
    const step = () => {
      const t = from + (performance.now() - begun) / (1000 * PLAY_SECONDS);
      this.set({ t: Math.min(1, t) });
      this.playing = t < 1 ? requestAnimationFrame(step) : 0;
      if (!this.playing) this.parts.play.textContent = "Play";
    };
    this.playing = requestAnimationFrame(step);
  }

  stop() {
    if (this.playing) cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.parts.play.textContent = "Play";
  }

  // pairs that are kept -----------------------------------------------------------------------------------------------

  /**
   * @param {number[]} z0
   * @param {number[]} z1
   * @param {string} name
   */
  solvedPin(z0, z1, name) {
    const curve = geodesic(this.surface, z0, z1);
    const straight = line(this.surface, z0, z1);
    return { name, z0, z1, length: curve.length, line: straight.length, error: curve.error, status: curve.status, exact: false,
      nodes: pairsOf(curve.nodes) };
  }

  pin() {
    const { z0, z1, pins } = this.state;
    const pin = this.solvedPin(z0, z1, `Pair ${pins.length + 1}`);
    if (this.exact && this.exact.nodes?.length > 1) {
      Object.assign(pin, { length: this.exact.length, error: this.exact.error, status: this.exact.status, nodes: this.exact.nodes, exact: true });
    }
    this.set({ pins: [...pins, pin] });
  }

  showPins() {
    const { pins } = this.state;
    const shared = (this.payload.curves ?? []).map((/** @type {any} */ curve) => this.givenPin(curve));
    this.parts.pins.replaceChildren(...[...shared, ...pins].map((pin) => {
      const own = pins.indexOf(pin);
      const name = make("input", { type: "text", value: pin.name, "aria-label": "Name of the pair", readonly: own < 0,
        onchange: () => this.set({ pins: pins.map((p, i) => (i === own ? { ...p, name: name.value } : p)) }) });
      return make("li", { "data-status": pin.status }, name,
        make("span", { class: "pg-figure" }, withError(pin.length, pin.error)),
        make("span", { class: "pg-fine" }, `${pin.status}${pin.exact ? ", exact" : ""}`),
        make("button", { type: "button", onclick: () => this.set({ z0: pin.z0, z1: pin.z1, tool: "move" }) }, "Show"),
        own < 0 ? "" : make("button", { type: "button", "aria-label": `Remove ${pin.name}`, onclick: () => this.set({ pins: pins.filter((p) => p !== pin) }) }, "×"));
    }));
    this.map.show({ pins: [...shared, ...pins].map((pin) => pin.nodes.flat()) });
  }

  /** @param {any} curve solved in all dimensions when the page was written */
  givenPin(curve) {
    return { name: curve.name, z0: curve.start, z1: curve.end, length: curve.length, line: curve.line, error: curve.error ?? NaN,
      status: curve.status, exact: true, nodes: pairsOf(unpackArray(curve.nodes)) };
  }

  keepPins() {
    const pairs = this.state.pins.length ? this.state.pins : [this.solvedPin(this.state.z0, this.state.z1, "Pair")];
    keepFile("pairs.json", "application/json", JSON.stringify({ plane: this.payload.plane, pairs: pairs.map((p) => ({ ...p, nodes: p.nodes })) }, null, 1));
  }

  keepCurve() {
    const rows = ["t,x,y,speed"];
    const { nodes, speeds } = this.curve;
    const T = nodes.length / 2 - 1;
    for (let i = 0; i <= T; i++) rows.push([i / T, nodes[2 * i], nodes[2 * i + 1], speeds[Math.min(i, T - 1)]].join(","));
    keepFile("geodesic.csv", "text/csv", `${rows.join("\n")}\n`);
  }

  async copyAddress() {
    const { location } = globalThis;
    const text = `${location.href.split("#")[0]}${stateToHash(this.state, this.host.plane)}`;
    try {
      await navigator.clipboard.writeText(text);
      this.parts.status.textContent = "The address is copied.";
    } catch {
      globalThis.history?.replaceState(null, "", stateToHash(this.state, this.host.plane));
      this.parts.status.textContent = "The address bar has the state; copy it from there.";
    }
  }

  // latents -----------------------------------------------------------------------------------------------------------

  /** @param {string} text */
  find(text) {
    const wanted = text.trim();
    if (wanted === "") return;
    const names = this.payload.latents.names;
    let row = /^\d+$/.test(wanted) ? Number(wanted) : -1;
    if (names) {
      const named = names.findIndex((/** @type {string} */ n) => n.toLowerCase().includes(wanted.toLowerCase()));
      if (named >= 0) row = named;
    }
    if (row >= 0 && row < this.map.count) this.showLatent(row);
    else this.parts.status.textContent = `No latent is called ${wanted.slice(0, 40)}.`;
  }

  /** @param {number} row */
  showLatent(row) {
    const place = [this.map.xy[2 * row], this.map.xy[2 * row + 1]];
    const { latents } = this.payload;
    const words = [`Latent ${row}`];
    if (latents.names) words.push(latents.names[row]);
    if (latents.labels) words.push(latents.labels.names[this.map.index[row]]);
    /** @type {HTMLElement[]} */
    const figures = [];
    const figure = (/** @type {Float32Array} */ values, /** @type {string} */ title) => {
      const canvas = make("canvas", { class: `pg-picture pg-${this.shown.kind}` });
      drawOutput(canvas, values, this.shown, this.ink());
      figures.push(make("figure", {}, canvas, make("figcaption", {}, title)));
    };
    if (this.shown.kind !== "none") {
      if (this.pictures) {
        const size = this.pictures.length / this.map.count;
        const [low, high] = this.shown.range;
        figure(Float32Array.from(this.pictures.subarray(row * size, (row + 1) * size), (v) => low + (v / 255) * (high - low)), "given");
      }
      figure(this.decode(place[0], place[1]), "decoded");
    }
    const act = (/** @type {string} */ text, /** @type {any} */ change) => make("button", { type: "button", onclick: () => this.set(change) }, text);
    this.parts.latent.replaceChildren(make("h3", {}, words.join(" · ").slice(0, 120)), make("div", { class: "pg-nows" }, ...figures),
      make("div", { class: "pg-buttons" }, act("Start here", { z0: place }), act("End here", { z1: place })));
    this.parts.latent.removeAttribute("hidden");
    this.map.show({ ring: place });
    this.emit("latent", row);
  }

  /** @param {number[]} rows */
  select(rows) {
    this.set({ selection: rows });
    this.emit("selection", rows);
  }

  showMean() {
    const rows = this.state.selection;
    const panel = this.parts.mean;
    if (rows.length === 0) {
      panel.setAttribute("hidden", "");
      this.map.show({ means: null });
      return;
    }
    const places = rows.map((row) => [this.map.xy[2 * row], this.map.xy[2 * row + 1]]);
    const flat = [0, 1].map((k) => places.reduce((sum, p) => sum + p[k], 0) / places.length);
    const mean = frechetMean(this.surface, places.length > 200 ? spread(places, 200) : places);
    this.map.show({ means: { frechet: mean.point, euclid: flat } });
    const figures = this.shown.kind === "none" ? [] : [[mean.point, "Fréchet mean"], [flat, "Euclidean mean"]].map(([place, title]) => {
      const canvas = make("canvas", { class: `pg-picture pg-${this.shown.kind}` });
      const [x, y] = /** @type {number[]} */ (place ?? [NaN, NaN]);
      drawOutput(canvas, this.surface.inside(x, y) ? this.decode(x, y) : new Float32Array(0), this.shown, this.ink());
      return make("figure", {}, canvas, make("figcaption", {}, /** @type {string} */ (title)));
    });
    const some = places.length > 200 ? " (the mean is of 200 of them)" : "";
    panel.replaceChildren(make("h3", {}, `${rows.length} latents${some}`), make("p", { class: "pg-fine" }, `${mean.status}: ${mean.text}`),
      make("div", { class: "pg-nows" }, ...figures));
    panel.removeAttribute("hidden");
    this.mean = mean;
    this.emit("mean", mean);
    if (this.host.mean) this.askForMean(rows, panel);
  }

  /**
   * @param {number[]} rows
   * @param {HTMLElement} panel
   */
  async askForMean(rows, panel) {
    this.askingMean?.abort();
    const asking = (this.askingMean = new AbortController());
    const words = panel.querySelector("p");
    try {
      const answer = await /** @type {any} */ (this.host.mean)({ rows, plane: this.plane(), signal: asking.signal });
      if (asking.signal.aborted) return;
      this.mean = answer;
      this.map.show({ means: { frechet: answer.point, euclid: answer.euclidean } });
      if (words) words.textContent = `Exact: ${answer.text}`;
      this.emit("mean", answer);
    } catch (error) {
      if (!asking.signal.aborted && words) words.textContent = `No exact mean: ${/** @type {Error} */ (error).message}`;
    }
  }

  // three dimensions --------------------------------------------------------------------------------------------------

  async toggleSolid() {
    const open = this.parts.solid.hasAttribute("hidden");
    this.parts.toSolid.setAttribute("aria-pressed", String(open));
    if (!open) {
      this.parts.solid.setAttribute("hidden", "");
      this.solid?.destroy();
      this.solid = null;
      return;
    }
    this.parts.solid.removeAttribute("hidden");
    this.solid = new Solid(this.parts.solid, this.surface, this.plotly, this.dark);
    await this.colourSolid();
  }

  async colourSolid() {
    if (!this.solid) return;
    const layer = this.layer();
    const painted = layer.paint(this.state.z0);
    const colour = painted === null ? () => 0 : (/** @type {number} */ x, /** @type {number} */ y) => {
      const i = Math.round(((x - painted.x[0]) / (painted.x[1] - painted.x[0])) * (painted.nx - 1));
      const j = Math.round(((y - painted.y[0]) / (painted.y[1] - painted.y[0])) * (painted.ny - 1));
      return painted.values[Math.min(painted.ny - 1, Math.max(0, j)) * painted.nx + Math.min(painted.nx - 1, Math.max(0, i))];
    };
    await this.solid.draw(colour, layer.formula, painted === null ? null : this.map.scale(layer, painted));
    this.solid.curves(this.curve.nodes, this.straight.nodes);
  }

  // listeners ---------------------------------------------------------------------------------------------------------

  /** What a host calls the plane that is shown, unless it is the one it knows. */
  plane() {
    return this.payload.plane.name ?? undefined;
  }

  ink() {
    return this.dark ? "#e6eaf0" : "#1b2129";
  }

  /**
   * @param {string} event change, geodesic, members, latent, selection or mean
   * @param {(value: any) => void} listener
   */
  on(event, listener) {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event)?.add(listener);
  }

  /**
   * @param {string} event
   * @param {any} value
   */
  emit(event, value) {
    for (const listener of this.listeners.get(event) ?? []) listener(value);
  }

  destroy() {
    this.stop();
    clearTimeout(this.timer);
    clearTimeout(this.remembering);
    this.asking?.abort();
    this.askingMean?.abort();
    this.solid?.destroy();
    this.map.destroy();
    this.root.ownerDocument.removeEventListener("keydown", this.onkey);
    this.element.replaceChildren();
  }
}

/** @param {ArrayLike<number>} nodes */
function pairsOf(nodes) {
  return Array.from({ length: nodes.length / 2 }, (_, i) => [nodes[2 * i], nodes[2 * i + 1]]);
}

/**
 * Evenly chosen entries.
 *
 * @template T
 * @param {T[]} entries
 * @param {number} count
 * @returns {T[]}
 */
function spread(entries, count) {
  return Array.from({ length: count }, (_, i) => entries[Math.floor((i * entries.length) / count)]);
}
