// @ts-check
import { ChordEnergy } from "./energy.js";
import { latticeGraph } from "./lattice.js";

/** @typedef {import("./surface.js").Surface} Surface */

/**
 * Curves on the surface. `length` is extrapolated from the chords of all and of every second node, L = (4 L_T - L_{T/2}) / 3,
 * and `error` is a third of what the same from every second and every fourth node is off it: about five times the error
 * where the curve is smooth, and about as much where it has kinks. How far the surface itself is off says the page's
 * accuracy statement.
 *
 * @typedef {"CONVERGED" | "MAX_STEPS" | "STALLED" | "OUTSIDE" | "NON_FINITE"} CurveStatus
 * @typedef {{nodes: Float64Array, length: number, error: number, residual: number, steps: number, status: CurveStatus,
 *   text: string, speeds: Float64Array, arc: Float64Array}} Curve
 */

/** @type {Record<CurveStatus, string>} */
export const CURVE_TEXTS = {
  CONVERGED: "A shortest curve, to the tolerance of the solver.",
  MAX_STEPS: "Not finished: the curve is an upper bound. Move an end a little, or ask again.",
  STALLED: "No further progress: the curve is an upper bound. The metric may have kinks here.",
  OUTSIDE: "The curve is held by the border of what the map knows: it is an upper bound.",
  NON_FINITE: "The decoder returns no finite numbers here.",
};

const TOLERANCE = 1e-8;
const DRAG_TOLERANCE = 1e-6;
/** Where rounding ends a descent, it has converged as well if the residual is below this. */
const ROUNDED = 1e-6;
/** Paths on the lattice are up to so much longer than the curves that they lead to. */
const LATTICE_EXCESS = 1.03;

/**
 * @param {Surface} surface
 * @param {number[] | Float64Array} nodes
 * @param {number} i
 */
function nodeUsable(surface, nodes, i) {
  return surface.inside(nodes[2 * i], nodes[2 * i + 1]);
}

/**
 * Whether all nodes lie on the surface, and all midpoints where there are empty places.
 *
 * @param {Surface} surface
 * @param {Float64Array} nodes
 * @returns {boolean}
 */
function curveUsable(surface, nodes) {
  const n = nodes.length / 2;
  for (let i = 0; i < n; i++) {
    if (!nodeUsable(surface, nodes, i)) return false;
    if (surface.mask !== null && i > 0 && !midpointUsable(surface, nodes, i)) return false;
  }
  return true;
}

/**
 * @param {Surface} surface
 * @param {Float64Array} nodes
 * @param {number} i
 */
function midpointUsable(surface, nodes, i) {
  return surface.inside((nodes[2 * i] + nodes[2 * i - 2]) / 2, (nodes[2 * i + 1] + nodes[2 * i - 1]) / 2);
}

/**
 * Moves nodes by their steps, those that would leave the surface by less or not at all.
 *
 * @param {Surface} surface
 * @param {Float64Array} nodes
 * @param {Float64Array} step
 * @param {Float64Array} out
 * @returns {boolean} whether a node was held
 */
function moveNodes(surface, nodes, step, out) {
  const last = nodes.length / 2 - 1;
  let held = false;
  out.set(nodes);
  for (let i = 1; i < last; i++) {
    for (let share = 1; ; share /= 2) {
      if (share < 0.1) share = 0;
      out[2 * i] = nodes[2 * i] + share * step[2 * i];
      out[2 * i + 1] = nodes[2 * i + 1] + share * step[2 * i + 1];
      if (share < 1) held = true;
      if (share === 0 || nodeUsable(surface, out, i)) break;
    }
  }
  if (surface.mask !== null) {
    for (let i = 1; i <= last; i++) {
      if (midpointUsable(surface, out, i)) continue;
      held = true;
      for (const n of [i - 1, i]) {
        out[2 * n] = nodes[2 * n];
        out[2 * n + 1] = nodes[2 * n + 1];
      }
    }
    // putting nodes back may have cut another corner
    if (held && !curveUsable(surface, out)) out.set(nodes);
  }
  return held;
}

/**
 * Newton's method on the chord energy, with Levenberg-Marquardt damping; `nodes` are moved in place.
 *
 * @param {ChordEnergy} energy
 * @param {Float64Array} nodes
 * @param {number} steps at the most
 * @param {number} tolerance of the scale-free residual
 * @returns {{status: CurveStatus, steps: number, residual: number, half: number}}
 */
export function descend(energy, nodes, steps, tolerance) {
  const { surface } = energy;
  const step = new Float64Array(nodes.length);
  const trial = new Float64Array(nodes.length);
  let half = energy.expand(nodes);
  if (half === Infinity) return { status: "NON_FINITE", steps: 0, residual: NaN, half };
  let damping = 1e-3;
  let held = false;
  let taken = 0;
  for (; ; taken++) {
    const { residual } = energy;
    if (residual <= tolerance) return { status: "CONVERGED", steps: taken, residual, half };
    if (taken >= steps) return { status: held ? "OUTSIDE" : "MAX_STEPS", steps: taken, residual, half };
    let accepted = false;
    let value = half;
    for (let attempt = 0; attempt < 16 && !accepted; attempt++) {
      if (energy.newtonStep(damping, step)) {
        held = moveNodes(surface, nodes, step, trial);
        value = energy.evaluate(trial);
        accepted = value <= half * (1 + 1e-14);
      }
      if (!accepted) damping = Math.max(8 * damping, 1e-6);
    }
    const gain = (half - value) / half;
    if (!accepted || (held && gain < 1e-9)) {
      const rounded = !held && residual < ROUNDED;
      return { status: rounded ? "CONVERGED" : held ? "OUTSIDE" : "STALLED", steps: taken, residual, half };
    }
    nodes.set(trial);
    half = energy.expand(nodes);
    if (gain < 1e-14 && energy.residual > residual / 2) {
      // rounding: energies cannot tell any more
      const status = energy.residual < ROUNDED ? "CONVERGED" : "STALLED";
      return { status, steps: taken + 1, residual: energy.residual, half };
    }
    damping = Math.max(damping / 10, 1e-12);
  }
}

/**
 * A curve with its lengths from the nodes alone.
 *
 * @param {ChordEnergy} energy
 * @param {Float64Array} nodes
 * @param {{status: CurveStatus, steps: number, residual: number}} found
 * @returns {Curve}
 */
function curveOf(energy, nodes, found) {
  const T = energy.segments;
  const half = energy.evaluate(nodes);
  const speeds = new Float64Array(T);
  const arc = new Float64Array(T + 1);
  for (let i = 0; i < T; i++) {
    const chord = Math.sqrt(Math.max(0, energy.squares[i]));
    speeds[i] = chord * T;
    arc[i + 1] = arc[i] + chord;
  }
  const fine = arc[T];
  const coarse = chordSum(energy, nodes, 2);
  const length = (4 * fine - coarse) / 3;
  const rough = (4 * coarse - chordSum(energy, nodes, 4)) / 3;
  const scale = fine > 0 ? length / fine : 1;
  for (let i = 0; i <= T; i++) {
    arc[i] *= scale;
    if (i < T) speeds[i] *= scale;
  }
  const finite = half < Infinity && Number.isFinite(length);
  const status = finite ? found.status : "NON_FINITE";
  return {
    nodes,
    length: finite ? length : NaN,
    error: finite ? Math.abs(length - rough) / 3 : NaN,
    residual: found.residual,
    steps: found.steps,
    status,
    text: CURVE_TEXTS[status],
    speeds,
    arc,
  };
}

/**
 * Sum of the chords between every so many nodes.
 *
 * @param {ChordEnergy} energy evaluated at the nodes
 * @param {Float64Array} nodes
 * @param {number} every
 * @returns {number}
 */
function chordSum(energy, nodes, every) {
  const { surface, segments, values, rest } = energy;
  const r = surface.r;
  let sum = 0;
  for (let i = 0; i + every <= segments; i += every) {
    const j = i + every;
    let square = 0;
    for (let k = 0; k < r; k++) {
      const step = values[j * r + k] - values[i * r + k];
      square += step * step;
    }
    if (surface.rest !== null) {
      const dx = nodes[2 * j] - nodes[2 * i], dy = nodes[2 * j + 1] - nodes[2 * i + 1];
      surface.restAt(nodes[2 * i] + dx / 2, nodes[2 * i + 1] + dy / 2, rest);
      square += rest[0] * dx * dx + 2 * rest[1] * dx * dy + rest[2] * dy * dy;
    }
    sum += Math.sqrt(Math.max(0, square));
  }
  return sum;
}

/**
 * @param {number[]} a
 * @param {number[]} b
 * @param {number} segments
 * @returns {Float64Array}
 */
function lineNodes(a, b, segments) {
  const nodes = new Float64Array(2 * (segments + 1));
  for (let i = 0; i <= segments; i++) {
    const t = i / segments;
    nodes[2 * i] = a[0] + t * (b[0] - a[0]);
    nodes[2 * i + 1] = a[1] + t * (b[1] - a[1]);
  }
  nodes[2 * segments] = b[0];
  nodes[2 * segments + 1] = b[1];
  return nodes;
}

/**
 * Nodes at equal distances along a polyline, by the length of its pieces on the surface.
 *
 * @param {Surface} surface
 * @param {number[][]} places
 * @param {number} segments
 * @returns {Float64Array}
 */
function resampledPath(surface, places, segments) {
  const pieces = new ChordEnergy(surface, places.length - 1);
  pieces.evaluate(Float64Array.from(places.flat()));
  const ends = [0];
  for (let i = 0; i + 1 < places.length; i++) ends.push(ends[i] + Math.sqrt(Math.max(0, pieces.squares[i])));
  const total = ends[ends.length - 1];
  const nodes = lineNodes(places[0], places[places.length - 1], segments);
  let piece = 0;
  for (let i = 1; i < segments; i++) {
    const at = (total * i) / segments;
    while (piece + 2 < places.length && ends[piece + 1] < at) piece++;
    const width = ends[piece + 1] - ends[piece];
    const t = width > 0 ? Math.min(1, Math.max(0, (at - ends[piece]) / width)) : 0;
    nodes[2 * i] = places[piece][0] + t * (places[piece + 1][0] - places[piece][0]);
    nodes[2 * i + 1] = places[piece][1] + t * (places[piece + 1][1] - places[piece][1]);
  }
  return nodes;
}

/** @type {WeakMap<Surface, Map<number, ChordEnergy>>} */
const chordEnergies = new WeakMap();

/**
 * The energy of curves of so many segments, with its buffers.
 *
 * @param {Surface} surface
 * @param {number} segments
 * @returns {ChordEnergy}
 */
export function chordEnergy(surface, segments) {
  let own = chordEnergies.get(surface);
  if (own === undefined) chordEnergies.set(surface, (own = new Map()));
  let energy = own.get(segments);
  if (energy === undefined) own.set(segments, (energy = new ChordEnergy(surface, segments)));
  return energy;
}

/**
 * The straight line between two places, as a curve with its length; not a geodesic, its residual says how far.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 * @param {{segments?: number}} [options]
 * @returns {Curve}
 */
export function line(surface, a, b, { segments = 64 } = {}) {
  const T = quarteredSegments(segments);
  const nodes = lineNodes([a[0], a[1]], [b[0], b[1]], T);
  if (!curveUsable(surface, nodes)) return outsideCurve(nodes, "The line leaves the region that the map knows.");
  const energy = chordEnergy(surface, T);
  energy.expand(nodes);
  const curve = curveOf(energy, nodes, { status: "CONVERGED", steps: 0, residual: energy.residual });
  if (curve.status === "CONVERGED") curve.text = "The straight line in the latent space.";
  return curve;
}

/**
 * The multiple of four nearest to a number of segments: lengths compare all, every second and every fourth node.
 *
 * @param {number} segments
 * @returns {number}
 */
function quarteredSegments(segments) {
  return Math.max(4, 4 * Math.round(segments / 4));
}

/**
 * A curve that could not be measured.
 *
 * @param {Float64Array} nodes
 * @param {string} text
 * @returns {Curve}
 */
export function outsideCurve(nodes, text) {
  const T = Math.max(0, nodes.length / 2 - 1);
  return {
    nodes,
    length: NaN,
    error: NaN,
    residual: NaN,
    steps: 0,
    status: "OUTSIDE",
    text,
    speeds: new Float64Array(T).fill(NaN),
    arc: new Float64Array(T + 1).fill(NaN),
  };
}

/**
 * A shortest curve between two places.
 *
 * Newton's method on the chord energy starts from the line and from a shortest path on a coarse lattice (or from
 * `start` alone), and the shorter curve is kept. A curve that the border holds has the status OUTSIDE.
 *
 * @param {Surface} surface
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 * @param {{segments?: number, start?: Float64Array | null, steps?: number, tolerance?: number}} [options]
 * @returns {Curve}
 */
export function geodesic(surface, a, b, { segments = 64, start = null, steps = 100, tolerance = TOLERANCE } = {}) {
  const T = quarteredSegments(start === null ? segments : start.length / 2 - 1);
  const from = [a[0], a[1]], to = [b[0], b[1]];
  const straight = lineNodes(from, to, T);
  const bad = unusableEnd(surface, from, to);
  if (bad !== null) return outsideCurve(straight, bad);
  const energy = chordEnergy(surface, T);
  /** @type {Float64Array[]} */
  const starts = [];
  if (start !== null) {
    const places = Array.from({ length: start.length / 2 }, (_, i) => [start[2 * i], start[2 * i + 1]]);
    places[0] = from;
    places[places.length - 1] = to;
    // lengths need a multiple of four segments
    starts.push(places.length === T + 1 ? Float64Array.from(places.flat()) : resampledPath(surface, places, T));
  } else {
    if (curveUsable(surface, straight)) starts.push(straight);
    const graph = latticeGraph(surface);
    const path = graph.pathTo(graph.treeFrom(from), to);
    // a path hardly longer than a cell of the lattice knows nothing that the line does not know
    if (path !== null && (path.places.length > 4 || starts.length === 0)) {
      starts.push(resampledPath(surface, path.places, T));
    }
  }
  const curve = bestOf(energy, starts, steps, tolerance);
  return curve ?? outsideCurve(straight, "There is no way between these places on which the decoder is finite.");
}

/**
 * @param {Surface} surface
 * @param {number[]} a
 * @param {number[]} b
 * @returns {string | null} why there is no curve between them
 */
function unusableEnd(surface, a, b) {
  for (const [name, [x, y]] of /** @type {Array<[string, number[]]>} */ ([["start", a], ["end", b]])) {
    if (surface.inside(x, y)) continue;
    const within = x >= surface.x[0] && x <= surface.x[1] && y >= surface.y[0] && y <= surface.y[1];
    return within ? `At the ${name} the decoder returns no finite numbers.` : `The ${name} lies outside the map.`;
  }
  return null;
}

/**
 * The shortest of the curves found from several starts; those that converged go before those that did not.
 *
 * @param {ChordEnergy} energy
 * @param {Float64Array[]} starts moved in place
 * @param {number} steps
 * @param {number} tolerance
 * @returns {Curve | null}
 */
function bestOf(energy, starts, steps, tolerance) {
  /** @type {Curve | null} */
  let best = null;
  for (const nodes of starts) {
    const curve = curveOf(energy, nodes, descend(energy, nodes, steps, tolerance));
    if (best === null || better(curve, best)) best = curve;
  }
  return best;
}

/**
 * @param {Curve} one
 * @param {Curve} other
 * @returns {boolean}
 */
function better(one, other) {
  if (!Number.isFinite(one.length)) return false;
  if (!Number.isFinite(other.length)) return true;
  // what the border holds may well be shorter than a detour that converged; equal lengths go by the status
  const slack = 1e-6 * other.length;
  if (Math.abs(one.length - other.length) <= slack) return one.status === "CONVERGED" && other.status !== "CONVERGED";
  return one.length < other.length;
}

/**
 * The geodesic between two places that are being dragged, from frame to frame.
 *
 * A move starts Newton's method from the last curve. Shortest paths on the lattice from the end that stays show where
 * another way has become shorter; then that is tried as well.
 */
export class Tracker {
  /**
   * @param {Surface} surface
   * @param {{segments?: number, steps?: number}} [options]
   */
  constructor(surface, { segments = 48, steps = 12 } = {}) {
    this.surface = surface;
    this.segments = quarteredSegments(segments);
    this.steps = steps;
    /** @type {Curve | null} */
    this.last = null;
    /** @type {import("./lattice.js").ShortestTree | null} */
    this.tree = null;
    /** Path over curve when the lattice was last tried in vain. */
    this.tried = Infinity;
  }

  /**
   * @param {ArrayLike<number>} a
   * @param {ArrayLike<number>} b
   * @returns {Curve}
   */
  move(a, b) {
    const { surface, segments: T, last } = this;
    const from = [a[0], a[1]], to = [b[0], b[1]];
    const bad = unusableEnd(surface, from, to);
    if (bad !== null) {
      this.last = null;
      return outsideCurve(lineNodes(from, to, T), bad);
    }
    if (last === null) return this.begin(from, to);
    const nodes = Float64Array.from(last.nodes);
    const ax = from[0] - nodes[0], ay = from[1] - nodes[1];
    const bx = to[0] - nodes[2 * T], by = to[1] - nodes[2 * T + 1];
    for (let i = 0; i <= T; i++) {
      const t = i / T;
      nodes[2 * i] += (1 - t) * ax + t * bx;
      nodes[2 * i + 1] += (1 - t) * ay + t * by;
    }
    nodes[2 * T] = to[0];
    nodes[2 * T + 1] = to[1];
    if (!curveUsable(surface, nodes)) return this.begin(from, to);
    const energy = chordEnergy(surface, T);
    let curve = curveOf(energy, nodes, descend(energy, nodes, this.steps, DRAG_TOLERANCE));
    if (!Number.isFinite(curve.length)) return this.begin(from, to);
    curve = this.challenge(curve, from, to, Math.hypot(ax, ay) <= Math.hypot(bx, by));
    this.last = curve;
    return curve;
  }

  /**
   * @param {number[]} from
   * @param {number[]} to
   * @returns {Curve}
   */
  begin(from, to) {
    const curve = geodesic(this.surface, from, to, { segments: this.segments, tolerance: DRAG_TOLERANCE });
    this.last = Number.isFinite(curve.length) ? curve : null;
    this.tree = null;
    this.tried = Infinity;
    return curve;
  }

  /**
   * Another curve if the lattice knows a shorter way.
   *
   * @param {Curve} curve
   * @param {number[]} from
   * @param {number[]} to
   * @param {boolean} stays whether the first end moved less
   * @returns {Curve}
   */
  challenge(curve, from, to, stays) {
    const graph = latticeGraph(this.surface);
    const [root, leaf] = stays ? [from, to] : [to, from];
    if (this.tree === null || this.tree.source[0] !== root[0] || this.tree.source[1] !== root[1]) {
      this.tree = graph.treeFrom(root);
    }
    const path = graph.pathTo(this.tree, leaf);
    if (path === null || path.places.length <= 4) return curve;
    const ratio = path.length / curve.length;
    if (curve.status === "CONVERGED" && !(ratio < LATTICE_EXCESS && ratio < this.tried - 1e-3)) return curve;
    const places = stays ? path.places : path.places.reverse();
    const nodes = resampledPath(this.surface, places, this.segments);
    const energy = chordEnergy(this.surface, this.segments);
    const other = curveOf(energy, nodes, descend(energy, nodes, this.steps, DRAG_TOLERANCE));
    const change = better(other, curve);
    this.tried = change ? Infinity : ratio;
    return change ? other : curve;
  }
}
