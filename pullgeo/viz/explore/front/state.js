/** What a map shows, and the address of it. */

/**
 * @typedef {{z0: number[], z1: number[]}} Ends
 * @typedef {{name: string, z0: number[], z1: number[], length: number, line: number, error: number, status: string,
 *   nodes: number[][], exact: boolean}} Pin
 * @typedef {{z0: number[], z1: number[], t: number, layer: string, tool: string, balls: boolean, pins: Pin[],
 *   selection: number[], hidden: number[]}} State
 */

export const TOOLS = ["move", "shoot", "reach", "lasso"];

/**
 * The state in the fragment of an address. Pins are named by their ends alone: their curves are solved again.
 *
 * @param {State} state
 * @param {string} [plane] of which it is, where there are several
 * @returns {string}
 */
export function stateToHash(state, plane = "") {
  const pair = (/** @type {number[]} */ z) => z.map((v) => Number(v.toPrecision(7))).join(",");
  const parts = [`z0=${pair(state.z0)}`, `z1=${pair(state.z1)}`, `t=${Number(state.t.toFixed(3))}`];
  parts.push(`layer=${encodeURIComponent(state.layer)}`);
  if (plane) parts.unshift(`plane=${encodeURIComponent(plane)}`);
  if (state.tool !== "move") parts.push(`tool=${state.tool}`);
  if (state.balls) parts.push("balls=1");
  if (state.hidden.length) parts.push(`hidden=${state.hidden.join(",")}`);
  for (const pin of state.pins) parts.push(`pin=${pair(pin.z0)},${pair(pin.z1)},${encodeURIComponent(pin.name)}`);
  return `#${parts.join("&")}`;
}

/**
 * What an address says; nothing of what it says wrongly.
 *
 * @param {string} hash
 * @returns {{plane?: string, z0?: number[], z1?: number[], t?: number, layer?: string, tool?: string, balls?: boolean, hidden?: number[],
 *   pins: {name: string, z0: number[], z1: number[]}[]}}
 */
export function hashToState(hash) {
  /** @type {any} */
  const found = { pins: [] };
  const numbers = (/** @type {string} */ text) => text.split(",").map(Number);
  const finite = (/** @type {number[]} */ values, /** @type {number} */ n) =>
    values.length === n && values.every((v) => Number.isFinite(v) && Math.abs(v) < 1e12);
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at), text = part.slice(at + 1);
    if (at < 1 || text === "") continue;
    const values = numbers(text);
    if ((name === "z0" || name === "z1") && finite(values, 2)) found[name] = values;
    else if (name === "t" && finite(values, 1)) found.t = Math.min(1, Math.max(0, values[0]));
    else if (name === "plane") found.plane = decoded(text);
    else if (name === "layer") found.layer = decoded(text);
    else if (name === "tool" && TOOLS.includes(text)) found.tool = text;
    else if (name === "balls") found.balls = text === "1";
    else if (name === "hidden") found.hidden = values.filter((v) => Number.isInteger(v) && v >= 0);
    else if (name === "pin") {
      const entries = text.split(",");
      const ends = entries.slice(0, 4).map(Number);
      if (finite(ends, 4) && found.pins.length < 100) {
        found.pins.push({ z0: ends.slice(0, 2), z1: ends.slice(2), name: decoded(entries.slice(4).join(",")) });
      }
    }
  }
  return found;
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
