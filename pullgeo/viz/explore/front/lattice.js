// @ts-check
import { gridPlace } from "./metric.js";

/** @typedef {import("./surface.js").Surface} Surface */

/** Steps of a path on the lattice, one of each pair of opposite ones: to 16 neighbours. */
const HALF_STENCIL = [[1, 0], [0, 1], [1, 1], [1, -1], [2, 1], [1, 2], [2, -1], [1, -2]];

/**
 * @typedef {{source: number[], distance: Float64Array, previous: Int32Array}} ShortestTree
 */

/**
 * A coarse lattice over the surface on which shortest paths are found, as start curves of the search for geodesics:
 * the straight line may lie on the wrong side of a hill. Its lengths are up to some 3 % too long.
 */
export class LatticeGraph {
  /**
   * @param {Surface} surface
   * @param {number} [side] nodes along the longer side
   */
  constructor(surface, side = 41) {
    this.surface = surface;
    const wide = surface.x[1] - surface.x[0], high = surface.y[1] - surface.y[0];
    this.nx = Math.max(7, Math.round((side * wide) / Math.max(wide, high)));
    this.ny = Math.max(7, Math.round((side * high) / Math.max(wide, high)));
    // a plane may have units that differ much; then the lattice is square in nodes
    if (Math.max(this.nx, this.ny) > 4 * Math.min(this.nx, this.ny)) this.nx = this.ny = side;
    const count = this.nx * this.ny;
    this.places = new Float64Array(2 * count);
    this.values = new Float64Array(count * surface.r);
    this.usable = new Uint8Array(count);
    for (let i = 0; i < this.nx; i++) {
      for (let j = 0; j < this.ny; j++) {
        const n = i * this.ny + j;
        const x = gridPlace(surface.x, i, this.nx), y = gridPlace(surface.y, j, this.ny);
        this.places[2 * n] = x;
        this.places[2 * n + 1] = y;
        this.usable[n] = surface.inside(x, y) ? 1 : 0;
        surface.value(x, y, this.values, n * surface.r);
      }
    }
    this.lengths = new Float64Array(count * HALF_STENCIL.length).fill(Infinity);
    for (let n = 0; n < count; n++) {
      for (let s = 0; s < HALF_STENCIL.length; s++) {
        const other = this.neighbour(n, HALF_STENCIL[s][0], HALF_STENCIL[s][1]);
        if (other >= 0) this.lengths[n * HALF_STENCIL.length + s] = this.chord(n, other);
      }
    }
    this.point = new Float64Array(surface.r);
    this.rest = new Float64Array(3);
  }

  /**
   * @param {number} n
   * @param {number} di
   * @param {number} dj
   * @returns {number} -1 outside the lattice
   */
  neighbour(n, di, dj) {
    const i = Math.floor(n / this.ny) + di, j = (n % this.ny) + dj;
    return i >= 0 && i < this.nx && j >= 0 && j < this.ny ? i * this.ny + j : -1;
  }

  /**
   * Length of the straight segment between two nodes; infinite where it leaves the surface.
   *
   * @param {number} a
   * @param {number} b
   * @returns {number}
   */
  chord(a, b) {
    if (!this.usable[a] || !this.usable[b]) return Infinity;
    const x0 = this.places[2 * a], y0 = this.places[2 * a + 1], x1 = this.places[2 * b], y1 = this.places[2 * b + 1];
    return this.segment(x0, y0, a * this.surface.r, this.values, x1, y1, b * this.surface.r);
  }

  /**
   * @param {number} x0
   * @param {number} y0
   * @param {number} at
   * @param {Float64Array} values coordinates at the first place, from `at`
   * @param {number} x1
   * @param {number} y1
   * @param {number} to where the coordinates at the second place stand in those of the lattice
   * @returns {number}
   */
  segment(x0, y0, at, values, x1, y1, to) {
    const { surface } = this;
    if (surface.mask !== null) {
      for (const t of [0.25, 0.5, 0.75]) if (!surface.inside(x0 + t * (x1 - x0), y0 + t * (y1 - y0))) return Infinity;
    }
    let square = 0;
    for (let k = 0; k < surface.r; k++) {
      const step = this.values[to + k] - values[at + k];
      square += step * step;
    }
    if (surface.rest !== null) {
      const dx = x1 - x0, dy = y1 - y0;
      const rest = surface.restAt(x0 + dx / 2, y0 + dy / 2, surface.scratch);
      square += Math.max(0, rest[0] * dx * dx + 2 * rest[1] * dx * dy + rest[2] * dy * dy);
    }
    return Math.sqrt(square);
  }

  /**
   * Lattice nodes around a place with the lengths of the segments to them.
   *
   * @param {number[]} place
   * @returns {Array<[number, number]>}
   */
  around(place) {
    const { surface, nx, ny } = this;
    const [x, y] = place;
    const i0 = Math.floor(((x - surface.x[0]) / (surface.x[1] - surface.x[0])) * (nx - 1));
    const j0 = Math.floor(((y - surface.y[0]) / (surface.y[1] - surface.y[0])) * (ny - 1));
    surface.value(x, y, this.point);
    /** @type {Array<[number, number]>} */
    const near = [];
    for (let i = Math.max(0, i0 - 1); i <= Math.min(nx - 1, i0 + 2); i++) {
      for (let j = Math.max(0, j0 - 1); j <= Math.min(ny - 1, j0 + 2); j++) {
        const n = i * ny + j;
        if (!this.usable[n]) continue;
        const length = this.segment(x, y, 0, this.point, this.places[2 * n], this.places[2 * n + 1], n * surface.r);
        if (length < Infinity) near.push([n, length]);
      }
    }
    return near;
  }

  /**
   * Shortest paths from a place to all nodes, by Dijkstra's algorithm.
   *
   * @param {number[]} source
   * @returns {ShortestTree}
   */
  treeFrom(source) {
    const count = this.nx * this.ny;
    const distance = new Float64Array(count).fill(Infinity);
    const previous = new Int32Array(count).fill(-1);
    const heap = new BinaryHeap(count);
    for (const [n, length] of this.around(source)) {
      distance[n] = length;
      heap.push(n, length);
    }
    const S = HALF_STENCIL.length;
    while (heap.size > 0) {
      const n = heap.pop();
      for (let s = 0; s < S; s++) {
        const [di, dj] = HALF_STENCIL[s];
        for (let sign = 1; sign >= -1; sign -= 2) {
          const other = this.neighbour(n, sign * di, sign * dj);
          if (other < 0) continue;
          const length = distance[n] + this.lengths[(sign > 0 ? n : other) * S + s];
          if (length < distance[other]) {
            distance[other] = length;
            previous[other] = n;
            heap.push(other, length);
          }
        }
      }
    }
    return { source, distance, previous };
  }

  /**
   * The path from a tree's source to a place.
   *
   * @param {ShortestTree} tree
   * @param {number[]} target
   * @returns {{length: number, places: number[][]} | null} null where there is no way
   */
  pathTo(tree, target) {
    let best = -1, length = Infinity;
    for (const [n, own] of this.around(target)) {
      if (tree.distance[n] + own < length) {
        length = tree.distance[n] + own;
        best = n;
      }
    }
    if (best < 0) return null;
    const places = [target];
    for (let n = best; n >= 0; n = tree.previous[n]) places.push([this.places[2 * n], this.places[2 * n + 1]]);
    places.push(tree.source);
    return { length, places: places.reverse() };
  }
}

/** A heap of node numbers by priority; a node whose priority falls is pushed again, and its old entry is passed over. */
export class BinaryHeap {
  /** @param {number} count */
  constructor(count) {
    /** @type {number[]} */ this.items = [];
    this.priority = new Float64Array(count).fill(Infinity);
    this.place = new Int32Array(count).fill(-1);
  }

  get size() {
    return this.items.length;
  }

  /**
   * @param {number} item
   * @param {number} priority not more than before
   */
  push(item, priority) {
    this.priority[item] = priority;
    let i = this.place[item];
    if (i < 0) {
      i = this.items.length;
      this.items.push(item);
    }
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (this.priority[this.items[parent]] <= priority) break;
      this.put(i, this.items[parent]);
      i = parent;
    }
    this.put(i, item);
  }

  /** @returns {number} */
  pop() {
    const first = this.items[0];
    this.place[first] = -1;
    const last = /** @type {number} */ (this.items.pop());
    const n = this.items.length;
    if (n > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && this.priority[this.items[child + 1]] < this.priority[this.items[child]]) child++;
        if (this.priority[this.items[child]] >= this.priority[last]) break;
        this.put(i, this.items[child]);
        i = child;
      }
      this.put(i, last);
    }
    return first;
  }

  /**
   * @param {number} i
   * @param {number} item
   */
  put(i, item) {
    this.items[i] = item;
    this.place[item] = i;
  }
}

/** @type {WeakMap<Surface, LatticeGraph>} */
const latticeGraphs = new WeakMap();

/**
 * The surface's lattice graph, built at its first use.
 *
 * @param {Surface} surface
 * @returns {LatticeGraph}
 */
export function latticeGraph(surface) {
  let graph = latticeGraphs.get(surface);
  if (graph === undefined) {
    graph = new LatticeGraph(surface);
    latticeGraphs.set(surface, graph);
  }
  return graph;
}
