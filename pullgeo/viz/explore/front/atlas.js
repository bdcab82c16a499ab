/** Several planes of one latent space, of which one is shown at a time. */

import { make } from "./dom.js";
import { mount } from "./scene.js";
import { hashToState } from "./state.js";

/** What people read, what is in the field at first, and how many numbers it takes. @type {Record<string, {words: string, first: string, count: number}>} */
const KINDS = {
  components: { words: "principal components", first: "1, 2", count: 2 },
  dims: { words: "dimensions", first: "0, 1", count: 2 },
  latents: { words: "through three latents", first: "0, 1, 2", count: 3 },
};
const DRAWING = "Drawing the map of this plane …";

/**
 * @typedef {import("./scene.js").Explorer} Explorer
 * @typedef {import("./scene.js").Host & {map?: (question: {plane: string, signal: AbortSignal}) => Promise<any>}} AtlasHost
 */

/**
 * Put a map into an element, with what chooses its plane where there is more than one.
 *
 * @param {HTMLElement} element
 * @param {any[]} payloads of the planes that the page carries, each with its `name`
 * @param {AtlasHost} host can draw other planes if it has `map`
 * @param {(explorer: Explorer) => void} [onmount] is told of every map that takes the place of another
 * @returns {Explorer}
 */
export function mountAtlas(element, payloads, host = {}, onmount = () => undefined) {
  /** @type {Explorer | null} */
  let explorer = null;
  /** @type {number[]} */
  const seen = [];

  /** @param {any} payload */
  function show(payload) {
    explorer?.destroy();
    const choice = chooser(payload);
    explorer = mount(element, payload, { ...host, chooser: choice, plane: choice ? nameOf(payload) : "" });
    explorer.on("latent", (row) => { seen.unshift(row); });
    onmount(explorer);
    return explorer;
  }

  /** @param {any} payload that is shown */
  function chooser(payload) {
    if (host.map && payload.plane.dimensions > 2) return askFor(host.map, payload, seen, show);
    if (payloads.length < 2) return null;
    const select = make("select", { "aria-label": "Plane", onchange: () => show(payloads[Number(select.value)]) },
      ...payloads.map((one, i) => make("option", { value: i, selected: one === payload }, one.name)));
    return make("label", { class: "pg-planes" }, "Plane ", select);
  }

  const wanted = host.address === false ? "" : hashToState(globalThis.location?.hash ?? "").plane;
  const carried = payloads.find((one) => nameOf(one) === wanted);
  const first = show(carried ?? payloads[0]);
  if (wanted && !carried && host.map && payloads[0].plane.dimensions > 2) {
    // what an address names and the host cannot draw is passed over
    host.map({ plane: wanted, signal: new AbortController().signal }).then((answer) => answer.payload && show(answer.payload), () => undefined);
  }
  return first;
}

/** @param {any} payload @returns {string} what an address calls its plane */
function nameOf(payload) {
  return payload.name || payload.plane.name || "";
}

/**
 * A form that names any plane, for hosts that can draw it.
 *
 * @param {NonNullable<AtlasHost["map"]>} map
 * @param {any} payload
 * @param {number[]} seen rows of latents that were looked at, the last one first
 * @param {(payload: any) => void} show
 */
function askFor(map, payload, seen, show) {
  const [kind, numbers] = named(payload.plane.name);
  const select = make("select", { "aria-label": "Plane" }, ...Object.entries(KINDS).map(([k, { words: text }]) =>
    make("option", { value: k, selected: k === kind }, text)));
  const input = make("input", { type: "text", size: 7, value: numbers, "aria-label": "Which of them" });
  const words = make("span", { class: "pg-fine", role: "status" });
  /** @type {AbortController | null} */
  let asking = null;
  select.addEventListener("change", () => {
    const recent = [...new Set(seen)].slice(0, 3);
    input.value = select.value === "latents" && recent.length === 3 ? recent.join(", ") : KINDS[select.value].first;
  });
  const form = make("form", { class: "pg-planes", onsubmit: async (/** @type {Event} */ event) => {
    event.preventDefault();
    asking?.abort();
    const own = (asking = new AbortController());
    const plane = planeOf(select.value, input.value);
    if (plane === null) {
      words.textContent = `${KINDS[select.value].words}: ${KINDS[select.value].count} different numbers`;
      return;
    }
    words.textContent = DRAWING;
    try {
      const answer = await map({ plane, signal: own.signal });
      if (!own.signal.aborted && answer.payload) show(answer.payload);
    } catch (error) {
      if (!own.signal.aborted) words.textContent = /** @type {Error} */ (error).message;
    }
  } }, make("label", {}, "Plane ", select), input, make("button", { type: "submit" }, "Draw"), words);
  return form;
}

/**
 * What the library calls a plane; people count components from one.
 *
 * @param {string} kind
 * @param {string} text numbers
 * @returns {string | null} nothing where these are not as many different whole numbers as the plane needs
 */
export function planeOf(kind, text) {
  const known = KINDS[kind];
  const first = kind === "components" ? 1 : 0;
  const parts = text.trim().split(/[\s,;]+/);
  if (!known || parts.length !== known.count || !parts.every((part) => /^\d{1,9}$/.test(part))) return null;
  const numbers = parts.map((part) => Number(part) - first);
  return Math.min(...numbers) < 0 || new Set(numbers).size < numbers.length ? null : `${kind}:${numbers.join(",")}`;
}

/** @param {string | null} name @returns {[string, string]} the kind and the numbers that people read */
function named(name) {
  const [kind, numbers] = (name ?? "components:0,1").split(":");
  const first = kind === "components" ? 1 : 0;
  return [kind, numbers.split(",").map((n) => Number(n) + first).join(", ")];
}
