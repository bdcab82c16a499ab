// The map: latents, two ends that are dragged, and the geodesic between them.
import { openDecode } from "./decode.js";
import { openSurface, unpackArray } from "./surface.js";
import { Tracker } from "./geodesic.js";

const SVG_SPACE = "http://www.w3.org/2000/svg";
const MARK_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442", "#640000", "#3a1d8a", "#a02828"];
const REST = 150;
const STRIP = 9;

/**
 * @typedef {{z0: number[], z1: number[], layer: string, pins: object[], selection: number[]}} SceneState
 */

/**
 * Draws a map and follows the pointer.
 *
 * @param {HTMLElement} element
 * @param {any} payload
 * @param {any} [host] answers exactly, where there is somebody to ask
 */
export function mount(element, payload, host = {}) {
  const surface = openSurface(payload.surface);
  const tracker = new Tracker(surface);
  const [x0, x1] = surface.x, [y0, y1] = surface.y;
  const width = x1 - x0, height = y1 - y0, unit = Math.max(width, height);
  const places = unpackArray(payload.latents.xy), labels = payload.latents.labels;
  const classOf = labels ? unpackArray(labels.index) : null;
  /** @type {Record<string, Array<(value: any) => void>>} */
  const listeners = {};
  /** @type {SceneState} */
  let state = { z0: startAt(0.3), z1: startAt(0.7), layer: "none", pins: [], selection: [] };
  /** @type {AbortController | null} */
  let asking = null;
  let resting = 0;

  element.classList.add("pullgeo-map");
  const heading = document.createElement("h1");
  heading.textContent = payload.title;
  const svg = made("svg", { viewBox: `0 0 ${width} ${height}`, role: "application", "aria-label": "map of the latent space" });
  const dots = made("g", {}), casing = made("polyline", {}), path = made("polyline", {});
  casing.setAttribute("class", "casing");
  path.setAttribute("class", "geodesic");
  const strip = document.createElement("div");
  strip.className = "strip";
  const decoded = payload.decode?.kind === "image" ? openDecode(payload.decode, surface) : null;
  const ends = ["z0", "z1"].map((name) => made("circle", { r: unit * 0.014, class: "end", tabindex: 0, "aria-label": `end ${name}` }));
  const status = document.createElement("output");
  const pin = document.createElement("button");
  pin.type = "button";
  pin.textContent = "Pin this pair";
  svg.append(dots, casing, path, ...ends);
  element.append(heading, svg, status, strip, pin);
  const pictures = Array.from({ length: decoded ? STRIP : 0 }, () => {
    const canvas = document.createElement("canvas");
    [canvas.height, canvas.width] = payload.decode.shape;
    return canvas;
  });
  strip.append(...pictures);
  if (payload.plane.words) {
    const words = document.createElement("p");
    words.textContent = payload.plane.words;
    element.append(words);
  }
  const circles = [];
  for (let i = 0; i < places.length / 2; i++) {
    const k = classOf ? classOf[i] : 0;
    const dot = made("circle", { cx: places[2 * i] - x0, cy: y1 - places[2 * i + 1], r: unit * 0.005, class: "latent" });
    dot.style.fill = labels ? MARK_COLOURS[k % MARK_COLOURS.length] : "";
    const title = made("title", {});
    title.textContent = labels ? `latent ${i}, class ${labels.names[k]}` : `latent ${i}`;
    dot.append(title);
    dot.addEventListener("click", () => choose(i));
    circles.push(dot);
  }
  dots.append(...circles);
  pin.addEventListener("click", () => setState({ pins: [...state.pins, { z0: state.z0, z1: state.z1 }] }));

  ends.forEach((end, k) => {
    const name = k ? "z1" : "z0";
    end.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      end.setPointerCapture(event.pointerId);
      end.focus();
    });
    end.addEventListener("pointermove", (event) => {
      if (end.hasPointerCapture(event.pointerId)) setState({ [name]: placeOf(event) });
    });
    end.addEventListener("keydown", (event) => {
      const step = unit / (event.shiftKey ? 20 : 200);
      const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!move) return;
      event.preventDefault();
      setState({ [name]: within(state[name][0] + move[0], state[name][1] + move[1]) });
    });
  });

  /** @param {string} name @param {Record<string, any>} attributes @returns {any} */
  function made(name, attributes) {
    const node = document.createElementNS(SVG_SPACE, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
    return node;
  }

  /** @param {number} share @returns {number[]} */
  function startAt(share) {
    const i = Math.floor(share * (unpackArray(payload.latents.xy).length / 2));
    const xy = unpackArray(payload.latents.xy);
    return [xy[2 * i], xy[2 * i + 1]];
  }

  /** @param {number} x @param {number} y @returns {number[]} */
  function within(x, y) {
    return [Math.min(x1, Math.max(x0, x)), Math.min(y1, Math.max(y0, y))];
  }

  /** @param {PointerEvent} event @returns {number[]} */
  function placeOf(event) {
    const matrix = svg.getScreenCTM().inverse();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    return within(at.x + x0, y1 - at.y);
  }

  /** @param {number} row */
  function choose(row) {
    const has = state.selection.includes(row);
    setState({ selection: has ? state.selection.filter((i) => i !== row) : [...state.selection, row] });
  }

  /** @param {Partial<SceneState>} change */
  function setState(change) {
    const moved = "z0" in change || "z1" in change;
    state = { ...state, ...change };
    if (moved) follow();
    circles.forEach((dot, i) => dot.classList.toggle("chosen", state.selection.includes(i)));
    emit("change", state);
  }

  function follow() {
    [state.z0, state.z1].forEach((z, k) => {
      ends[k].setAttribute("cx", String(z[0] - x0));
      ends[k].setAttribute("cy", String(y1 - z[1]));
    });
    asking?.abort();
    clearTimeout(resting);
    const curve = tracker.move(state.z0, state.z1);
    const nodes = Array.from({ length: curve.nodes.length / 2 }, (_, i) => [curve.nodes[2 * i], curve.nodes[2 * i + 1]]);
    show({ nodes, length: curve.length, error: curve.error, status: curve.status, text: curve.text }, "on the map");
    if (host.exact) resting = setTimeout(askExactly, REST);
  }

  /** @param {any} curve @param {string} kind */
  function show(curve, kind) {
    const points = curve.nodes.map(([x, y]) => `${x - x0},${y1 - y}`).join(" ");
    casing.setAttribute("points", points);
    path.setAttribute("points", points);
    path.classList.toggle("doubtful", curve.status !== "CONVERGED");
    const error = curve.error === null ? "" : ` ± ${Number(curve.error).toPrecision(2)}`;
    const length = curve.length === null ? "" : `length ${Number(curve.length).toPrecision(6)}${error}, `;
    status.textContent = `${length}${kind}: ${curve.text || curve.status}`;
    status.dataset.kind = kind;
    pictures.forEach((canvas, k) => draw(canvas, curve.nodes[Math.round((k * (curve.nodes.length - 1)) / (STRIP - 1))]));
    emit("geodesic", curve);
  }

  /** @param {HTMLCanvasElement} canvas @param {number[]} place */
  function draw(canvas, [x, y]) {
    const values = decoded(x, y), { shape, range } = payload.decode;
    const size = shape[0] * shape[1], colours = shape[2] ?? 1;
    const image = new ImageData(shape[1], shape[0]);
    for (let i = 0; i < size; i++) {
      for (let c = 0; c < 3; c++) {
        image.data[4 * i + c] = (255 * (values[(colours === 3 ? c * size : 0) + i] - range[0])) / (range[1] - range[0]);
      }
      image.data[4 * i + 3] = Number.isFinite(values[i]) ? 255 : 0;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  async function askExactly() {
    const abort = new AbortController();
    asking = abort;
    try {
      const curve = await host.exact({ a: state.z0, b: state.z1, signal: abort.signal });
      if (!abort.signal.aborted) show(curve, "exact");
    } catch (error) {
      if (!abort.signal.aborted) status.textContent = /** @type {Error} */ (error).message;
    }
  }

  /** @param {string} event @param {any} value */
  function emit(event, value) {
    for (const listener of listeners[event] ?? []) listener(value);
  }

  follow();
  return {
    get state() {
      return state;
    },
    setState,
    /** @param {string} event @param {(value: any) => void} listener */
    on(event, listener) {
      (listeners[event] ??= []).push(listener);
    },
    destroy() {
      asking?.abort();
      clearTimeout(resting);
      element.replaceChildren();
    },
  };
}
