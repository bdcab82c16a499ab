// @ts-check
/**
 * The decoder as a surface: tensor-product cubic B-splines over a rectangle of the plane.
 *
 * A surface carries r coordinates c(x, y), whose Euclidean pullback is (most of) the metric, and where the payload says
 * so a metric beside them, R(x, y): the metric is G = JᵀJ + R. R is what the components that were left out contribute;
 * with r = 0 it is the whole metric, of a manifold that has no flat embedding.
 */

/**
 * @typedef {{dtype: string, shape: number[], data: string}} PackedArray
 * @typedef {{count: number, scale: number[], data: PackedArray}} PackedBlock
 * @typedef {{x: number[], y: number[], nodes: number[], r: number, blocks: PackedBlock[],
 *   rest: {kind: "linear" | "log", scale: number[], data: PackedArray} | null, mask: PackedArray | null}} PackedSurface
 */

const HALF_BYTES = 2;

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
function bytesOfBase64(text) {
  const plain = atob(text);
  const bytes = new Uint8Array(plain.length);
  for (let i = 0; i < plain.length; i++) bytes[i] = plain.charCodeAt(i);
  return bytes;
}

/**
 * @param {Uint8Array} bytes little-endian halves
 * @returns {Float32Array}
 */
function halvesToFloats(bytes) {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / HALF_BYTES);
  const out = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i];
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    let value = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
    if (exponent === 31) value = fraction ? NaN : Infinity;
    out[i] = h & 32768 ? -value : value;
  }
  return out;
}

/**
 * The numbers of an array of the payload.
 *
 * @param {PackedArray} packed
 * @returns {Float32Array | Float64Array | Int16Array | Int8Array | Uint8Array | Int32Array}
 */
export function unpackArray(packed) {
  const bytes = bytesOfBase64(packed.data);
  const buffer = /** @type {ArrayBuffer} */ (bytes.buffer);
  switch (packed.dtype) {
    case "uint8":
      return bytes;
    case "int8":
      return new Int8Array(buffer);
    case "int16":
      return new Int16Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "float16":
      return halvesToFloats(bytes);
    case "float32":
      return new Float32Array(buffer);
    case "float64":
      return new Float64Array(buffer);
    default:
      throw new Error(`unpackArray: unknown dtype ${packed.dtype}`);
  }
}

/**
 * Coefficients of all blocks side by side, `[places, r]` with components innermost, in single precision.
 *
 * @param {PackedBlock[]} blocks
 * @param {number} places
 * @param {number} r
 * @returns {Float32Array}
 */
export function unpackBlocks(blocks, places, r) {
  const out = new Float32Array(places * r);
  let first = 0;
  for (const block of blocks) {
    const raw = unpackArray(block.data);
    const n = block.count;
    for (let p = 0; p < places; p++) {
      for (let k = 0; k < n; k++) out[p * r + first + k] = raw[p * n + k] * block.scale[k];
    }
    first += n;
  }
  return out;
}

/**
 * Weights of the four coefficients of a cell and their derivatives: `w[0..3]` values, `[4..7]` first, `[8..11]` second.
 *
 * @param {number} t place in the cell, 0 to 1
 * @param {number} scale cells a unit of the coordinate
 * @param {Float64Array} w
 */
function splineWeights(t, scale, w) {
  const s = 1 - t;
  w[0] = (s * s * s) / 6;
  w[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
  w[2] = (3 * s * s * s - 6 * s * s + 4) / 6;
  w[3] = (t * t * t) / 6;
  w[4] = (-s * s * scale) / 2;
  w[5] = ((3 * t * t - 4 * t) * scale) / 2;
  w[6] = (-(3 * s * s - 4 * s) * scale) / 2;
  w[7] = (t * t * scale) / 2;
  const second = scale * scale;
  w[8] = s * second;
  w[9] = (3 * t - 2) * second;
  w[10] = (3 * s - 2) * second;
  w[11] = t * second;
}

/**
 * Coordinates and the rest of the metric as functions of a place. Places beyond the border are evaluated by the
 * polynomials of the nearest cell; `inside` says what may be trusted.
 */
export class Surface {
  /** @param {PackedSurface} packed */
  constructor(packed) {
    /** @type {number[]} */ this.x = packed.x;
    /** @type {number[]} */ this.y = packed.y;
    /** Number of coordinates. @type {number} */ this.r = packed.r;
    /** Lattice nodes along x and y. @type {number[]} */ this.nodes = packed.nodes;
    const [nx, ny] = packed.nodes;
    this.perX = (nx - 1) / (packed.x[1] - packed.x[0]);
    this.perY = (ny - 1) / (packed.y[1] - packed.y[0]);
    /** Rows of coefficients along y. */ this.stride = ny + 2;
    const places = (nx + 2) * (ny + 2);
    this.coefficients = unpackBlocks(packed.blocks, places, packed.r);
    /** @type {Float32Array | null} */ this.rest = null;
    this.logarithmic = false;
    if (packed.rest) {
      this.rest = unpackBlocks([{ count: 3, scale: packed.rest.scale, data: packed.rest.data }], places, 3);
      this.logarithmic = packed.rest.kind === "log";
    }
    /** @type {Uint8Array | null} */
    this.mask = packed.mask ? /** @type {Uint8Array} */ (unpackArray(packed.mask)) : null;
    this.wx = new Float64Array(12);
    this.wy = new Float64Array(12);
    this.scratch = new Float64Array(18);
  }

  /**
   * Whether the decoder is known around a place: in the rectangle, and in a cell all of whose corners are finite.
   *
   * @param {number} x
   * @param {number} y
   * @returns {boolean}
   */
  inside(x, y) {
    if (!(x >= this.x[0] && x <= this.x[1] && y >= this.y[0] && y <= this.y[1])) return false;
    if (this.mask === null) return true;
    const i = Math.min(Math.floor((x - this.x[0]) * this.perX), this.nodes[0] - 2);
    const j = Math.min(Math.floor((y - this.y[0]) * this.perY), this.nodes[1] - 2);
    return this.mask[i * (this.nodes[1] - 1) + j] === 1;
  }

  /**
   * Prepares the weights of a place and returns the index of its first coefficient row.
   *
   * @param {number} x
   * @param {number} y
   * @returns {number}
   */
  locate(x, y) {
    const u = (x - this.x[0]) * this.perX;
    const v = (y - this.y[0]) * this.perY;
    const i = Math.max(0, Math.min(Math.floor(u), this.nodes[0] - 2)) || 0;
    const j = Math.max(0, Math.min(Math.floor(v), this.nodes[1] - 2)) || 0;
    splineWeights(u - i, this.perX, this.wx);
    splineWeights(v - j, this.perY, this.wy);
    return i * this.stride + j;
  }

  /**
   * The coordinates at a place.
   *
   * @param {number} x
   * @param {number} y
   * @param {Float64Array} out r numbers from `at`
   * @param {number} [at]
   * @returns {Float64Array}
   */
  value(x, y, out, at = 0) {
    const first = this.locate(x, y);
    sumOverCell(this.coefficients, this.r, first, this.stride, this.wx, this.wy, out, at);
    return out;
  }

  /**
   * The coordinates with first derivatives: c, c_x, c_y, each r numbers.
   *
   * @param {number} x
   * @param {number} y
   * @param {Float64Array} out 3 r numbers from `at`
   * @param {number} [at]
   * @returns {Float64Array}
   */
  jet1(x, y, out, at = 0) {
    const first = this.locate(x, y);
    jetOverCell(this.coefficients, this.r, first, this.stride, this.wx, this.wy, out, at, false);
    return out;
  }

  /**
   * The coordinates with first and second derivatives: c, c_x, c_y, c_xx, c_xy, c_yy, each r numbers.
   *
   * @param {number} x
   * @param {number} y
   * @param {Float64Array} out 6 r numbers from `at`
   * @param {number} [at]
   * @returns {Float64Array}
   */
  jet2(x, y, out, at = 0) {
    const first = this.locate(x, y);
    jetOverCell(this.coefficients, this.r, first, this.stride, this.wx, this.wy, out, at, true);
    return out;
  }

  /**
   * The rest R of the metric, its entries E, F, G with derivatives: `[E, F, G, E_x, F_x, G_x, E_y, F_y, G_y, E_xx, F_xx,
   * G_xx, E_xy, F_xy, G_xy, E_yy, F_yy, G_yy]`; zeros where there is no rest.
   *
   * With `logarithmic` splines p, m, s stand for E = eᵖ, F = eᵖ m, G = eᵖ m² + eˢ, which is positive everywhere.
   *
   * @param {number} x
   * @param {number} y
   * @param {Float64Array} out 18 numbers
   * @param {boolean} [second] whether second derivatives are wanted
   * @returns {Float64Array}
   */
  restJet(x, y, out, second = true) {
    if (this.rest === null) return out.fill(0);
    const first = this.locate(x, y);
    jetOverCell(this.rest, 3, first, this.stride, this.wx, this.wy, out, 0, second);
    if (this.logarithmic) exponentialOfJet(out);
    return out;
  }

  /**
   * E, F, G of the rest alone, into `out`.
   *
   * @param {number} x
   * @param {number} y
   * @param {Float64Array} out 3 numbers
   * @returns {Float64Array}
   */
  restAt(x, y, out) {
    if (this.rest === null) return out.fill(0, 0, 3);
    const first = this.locate(x, y);
    sumOverCell(this.rest, 3, first, this.stride, this.wx, this.wy, out, 0);
    if (this.logarithmic) {
      const p = Math.exp(out[0]);
      const m = out[1];
      out[2] = p * m * m + Math.exp(out[2]);
      out[1] = p * m;
      out[0] = p;
    }
    return out;
  }
}

/**
 * @param {Float32Array} c
 * @param {number} r
 * @param {number} first
 * @param {number} stride
 * @param {Float64Array} wx
 * @param {Float64Array} wy
 * @param {Float64Array} out
 * @param {number} at
 */
function sumOverCell(c, r, first, stride, wx, wy, out, at) {
  const y0 = wy[0], y1 = wy[1], y2 = wy[2], y3 = wy[3];
  const row = stride * r;
  out.fill(0, at, at + r);
  for (let i = 0; i < 4; i++) {
    const w = wx[i];
    const a = first * r + i * row;
    const w0 = w * y0, w1 = w * y1, w2 = w * y2, w3 = w * y3;
    for (let k = 0, p = a; k < r; k++, p++) {
      out[at + k] += w0 * c[p] + w1 * c[p + r] + w2 * c[p + 2 * r] + w3 * c[p + 3 * r];
    }
  }
}

/**
 * @param {Float32Array} c
 * @param {number} r
 * @param {number} first
 * @param {number} stride
 * @param {Float64Array} wx
 * @param {Float64Array} wy
 * @param {Float64Array} out
 * @param {number} at
 * @param {boolean} second
 */
function jetOverCell(c, r, first, stride, wx, wy, out, at, second) {
  const y0 = wy[0], y1 = wy[1], y2 = wy[2], y3 = wy[3];
  const d0 = wy[4], d1 = wy[5], d2 = wy[6], d3 = wy[7];
  const s0 = wy[8], s1 = wy[9], s2 = wy[10], s3 = wy[11];
  const row = stride * r;
  const end = at + (second ? 6 : 3) * r;
  out.fill(0, at, end);
  const ox = at + r, oy = at + 2 * r, oxx = at + 3 * r, oxy = at + 4 * r, oyy = at + 5 * r;
  for (let i = 0; i < 4; i++) {
    const a = first * r + i * row;
    const w = wx[i], dw = wx[4 + i], sw = wx[8 + i];
    for (let k = 0, p = a; k < r; k++, p++) {
      const c0 = c[p], c1 = c[p + r], c2 = c[p + 2 * r], c3 = c[p + 3 * r];
      const v = y0 * c0 + y1 * c1 + y2 * c2 + y3 * c3;
      const d = d0 * c0 + d1 * c1 + d2 * c2 + d3 * c3;
      out[at + k] += w * v;
      out[ox + k] += dw * v;
      out[oy + k] += w * d;
      if (second) {
        out[oxx + k] += sw * v;
        out[oxy + k] += dw * d;
        out[oyy + k] += w * (s0 * c0 + s1 * c1 + s2 * c2 + s3 * c3);
      }
    }
  }
}

/**
 * Turns the jet of p, m, s into that of E = eᵖ, F = eᵖ m, G = eᵖ m² + eˢ, in place.
 *
 * @param {Float64Array} jet
 */
function exponentialOfJet(jet) {
  const m = jet[1];
  const E = Math.exp(jet[0]);
  const S = Math.exp(jet[2]);
  for (let order = 5; order >= 0; order--) {
    const o = 3 * order;
    const dm = jet[o + 1];
    let e = E, f = E * m, g = E * m * m + S;
    if (order === 1 || order === 2) {
      e = E * jet[o];
      f = e * m + E * dm;
      g = e * m * m + 2 * E * m * dm + S * jet[o + 2];
    } else if (order > 2) {
      const a = order === 5 ? 6 : 3; // the two first derivatives that this second one belongs to
      const b = order === 3 ? 3 : 6;
      const pa = jet[a], pb = jet[b], ma = jet[a + 1], mb = jet[b + 1];
      e = E * (jet[o] + pa * pb);
      f = e * m + E * (pa * mb + pb * ma + dm);
      g = e * m * m + 2 * E * m * (pa * mb + pb * ma + dm) + 2 * E * ma * mb + S * (jet[o + 2] + jet[a + 2] * jet[b + 2]);
    }
    jet[o] = e;
    jet[o + 1] = f;
    jet[o + 2] = g;
  }
}

/**
 * Opens the surface of a payload.
 *
 * @param {PackedSurface} packed
 * @returns {Surface}
 */
export function openSurface(packed) {
  return new Surface(packed);
}
