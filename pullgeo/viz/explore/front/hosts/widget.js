// The host of a widget in a notebook: answers come through the kernel, and the state is shared with Python.
import { mountAtlas } from "../atlas.js";

/**
 * What the kernel answers. One question is on its way at a time, since a kernel answers one after the other; while it
 * is, the newest of the others waits and the older ones are given up.
 *
 * @param {any} model
 */
export function kernelHost(model) {
  const view = Math.random().toString(36).slice(2);
  let count = 0;
  /** @typedef {{id: string, question: object, resolve: (answer: any) => void, reject: (error: Error) => void}} Asked */
  let asked = /** @type {Asked | null} */ (null);
  let next = /** @type {Asked | null} */ (null);

  /** @param {any} message */
  function receive(message) {
    if (asked === null || message.id !== asked.id) return;
    const { resolve, reject } = asked;
    asked = null;
    if (["full", "payload", "lengths"].some((name) => name in message.answer)) resolve(message.answer);
    else reject(new Error(message.answer.text));
    if (next !== null) {
      asked = next;
      next = null;
      model.send({ id: asked.id, question: asked.question });
    }
  }

  /**
   * @param {object} question
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  function ask(question, signal) {
    return new Promise((resolve, reject) => {
      const entry = { id: `${view}-${count++}`, question, resolve, reject };
      signal?.addEventListener("abort", () => {
        if (next === entry) next = null;
        reject(new DOMException("given up", "AbortError"));
      });
      if (asked === null) {
        asked = entry;
        model.send({ id: entry.id, question });
      } else {
        next?.reject(new DOMException("a newer question took its place", "AbortError"));
        next = entry;
      }
    });
  }

  model.on("msg:custom", receive);
  return {
    /** @param {{a: number[], b: number[], plane?: string, signal?: AbortSignal}} ends */
    exact: ({ a, b, plane, signal }) => ask({ kind: "geodesic", a: [...a], b: [...b], plane }, signal),
    /** @param {{a: number[], b: number[], plane?: string, signal?: AbortSignal}} ends the spread of the members' distances */
    members: ({ a, b, plane, signal }) => ask({ kind: "members", a: [...a], b: [...b], plane }, signal),
    /** @param {{a: number[], v: number[], plane?: string, signal?: AbortSignal}} arrow */
    shoot: ({ a, v, plane, signal }) => ask({ kind: "exponential", a: [...a], v: [...v], plane }, signal),
    /** @param {{rows: number[], plane?: string, signal?: AbortSignal}} lasso */
    mean: ({ rows, plane, signal }) => ask({ kind: "mean", rows: [...rows], plane }, signal),
    /** @param {{plane: string, signal?: AbortSignal}} which the kernel shares its map with all views, this one too */
    map: ({ plane, signal }) => ask({ kind: "map", plane }, signal),
    close: () => model.off("msg:custom", receive),
  };
}

/** What Python and the map share: names in the map's state, and the model's. */
const SHARED_STATE = { z0: "_a", z1: "_b", selection: "selection", pins: "pins", layer: "layer" };

/**
 * @param {{model: any, el: HTMLElement}} view
 * @returns {() => void}
 */
export function render({ model, el }) {
  const host = kernelHost(model);
  let listening = true;

  /** @param {string[]} names those of the model that are set */
  function take(names) {
    /** @type {Record<string, any>} */
    const change = {};
    for (const [own, theirs] of Object.entries(SHARED_STATE)) {
      const value = model.get(theirs);
      const known = JSON.stringify(value) === JSON.stringify(/** @type {any} */ (explorer.state)[own]);
      if (names.includes(theirs) && value !== null && !known) change[own] = value;
    }
    if (Object.keys(change).length) explorer.setState(change);
  }

  /** @param {import("../scene.js").Explorer} shown */
  function listen(shown) {
    explorer = shown;
    explorer.on("change", changed);
    explorer.on("geodesic", solved);
  }

  /** @param {any} state */
  function changed(state) {
    if (!listening) return;
    let news = false;
    for (const [own, theirs] of Object.entries(SHARED_STATE)) {
      const value = JSON.parse(JSON.stringify(state[own] ?? null));
      if (value === null || JSON.stringify(value) === JSON.stringify(model.get(theirs))) continue;
      model.set(theirs, value);
      news = true;
    }
    if (news) model.save_changes();
  }

  /** @param {any} curve */
  function solved(curve) {
    const { nodes, full = null, length = null, error = null, status, text } = curve;
    /** @param {any} list nodes, one by one or as flat numbers */
    const plain = (list) => {
      if (list === null) return null;
      const flat = typeof list[0] === "number";
      return Array.from({ length: flat ? list.length / 2 : list.length }, (_, i) => (flat ? [list[2 * i], list[2 * i + 1]] : [...list[i]]));
    };
    const finite = (/** @type {any} */ x) => (Number.isFinite(x) ? x : null);
    model.set("_curve", { nodes: plain(nodes), full: plain(full), length: finite(length), error: finite(error), status, text });
    model.save_changes();
  }

  function draw() {
    return mountAtlas(el, [model.get("_payload")], { ...host, address: false });
  }

  /** Another plane: what is shared of the old one means nothing on it. */
  function redraw() {
    explorer.destroy();
    listen(draw());
    const { z0, z1 } = explorer.state;
    explorer.setState({ z0, z1, pins: [], selection: [] });
  }

  let explorer = draw();
  listen(explorer);
  model.on("change:_payload", redraw);
  const names = Object.values(SHARED_STATE);
  const handlers = names.map((name) => [`change:${name}`, () => take([name])]);
  for (const [event, handler] of handlers) model.on(event, handler);
  take(names.filter((name) => name !== "layer" || model.get("layer")));
  const { z0, z1 } = explorer.state;
  explorer.setState({ z0, z1 });
  return () => {
    listening = false;
    model.off("change:_payload", redraw);
    for (const [event, handler] of handlers) model.off(event, handler);
    host.close();
    explorer.destroy();
  };
}
