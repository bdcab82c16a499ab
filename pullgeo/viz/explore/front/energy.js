// @ts-check

/** @typedef {import("./surface.js").Surface} Surface */

/**
 * The chord energy of a curve of T segments between fixed ends, with exact gradient and block-tridiagonal Hessian.
 *
 * E = T Σ_i |c(z_{i+1}) - c(z_i)|² + Δᵀ R((z_i + z_{i+1})/2) Δ with Δ = z_{i+1} - z_i. Everything here is of E / (2T):
 * gradient J_iᵀ(2c_i - c_{i-1} - c_{i+1}), blocks 2 J_iᵀJ_i + ⟨2c_i - c_{i-1} - c_{i+1}, c''_i⟩ and -J_iᵀJ_{i+1}, and the
 * part of the rest R by the chain rule.
 */
export class ChordEnergy {
  /**
   * @param {Surface} surface
   * @param {number} segments
   */
  constructor(surface, segments) {
    this.surface = surface;
    this.segments = segments;
    const r = surface.r;
    this.jets = new Float64Array((segments + 1) * 6 * r);
    this.values = new Float64Array((segments + 1) * r);
    this.rest = new Float64Array(18);
    /** Squared length of each segment at the last `evaluate` or `expand`. */
    this.squares = new Float64Array(segments);
    /** Gradient, 2 numbers a node; ends are zero. */
    this.gradient = new Float64Array(2 * (segments + 1));
    /** Diagonal blocks, xx, xy, yy a node. */
    this.diagonal = new Float64Array(3 * (segments + 1));
    /** Blocks between node i and node i+1: rows of i. */
    this.off = new Float64Array(4 * (segments + 1));
    /** Twice the metric at the nodes, xx and yy, the scale of the damping. */
    this.scale = new Float64Array(2 * (segments + 1));
    /** ‖gradient‖ / (max ‖J‖ ‖Δ‖) at the last `expand`. */
    this.residual = Infinity;
    this.pivots = new Float64Array(3 * (segments + 1));
    this.moved = new Float64Array(2 * (segments + 1));
  }

  /**
   * Half the sum of squared segments, E / (2T); infinite where it is not finite.
   *
   * @param {Float64Array} nodes
   * @returns {number}
   */
  evaluate(nodes) {
    const { surface, segments, values, squares, rest } = this;
    const r = surface.r;
    let sum = 0;
    for (let i = 0; i <= segments; i++) surface.value(nodes[2 * i], nodes[2 * i + 1], values, i * r);
    for (let i = 0; i < segments; i++) {
      let square = 0;
      for (let k = i * r, end = k + r; k < end; k++) {
        const step = values[k + r] - values[k];
        square += step * step;
      }
      if (surface.rest !== null) {
        const dx = nodes[2 * i + 2] - nodes[2 * i], dy = nodes[2 * i + 3] - nodes[2 * i + 1];
        surface.restAt(nodes[2 * i] + dx / 2, nodes[2 * i + 1] + dy / 2, rest);
        square += rest[0] * dx * dx + 2 * rest[1] * dx * dy + rest[2] * dy * dy;
      }
      squares[i] = square;
      sum += square;
    }
    return Number.isFinite(sum) ? sum / 2 : Infinity;
  }

  /**
   * `evaluate` with gradient, Hessian and residual.
   *
   * @param {Float64Array} nodes
   * @returns {number}
   */
  expand(nodes) {
    const { surface, segments, jets, squares, gradient, diagonal, off, scale } = this;
    const r = surface.r;
    const size = 6 * r;
    gradient.fill(0);
    diagonal.fill(0);
    off.fill(0);
    scale.fill(0);
    squares.fill(0);
    for (let i = 0; i <= segments; i++) surface.jet2(nodes[2 * i], nodes[2 * i + 1], jets, i * size);
    for (let i = 0; i <= segments; i++) {
      const at = i * size;
      let g0 = 0, g1 = 0, xx = 0, xy = 0, yy = 0, h0 = 0, h1 = 0, h2 = 0, o0 = 0, o1 = 0, o2 = 0, o3 = 0, square = 0;
      const before = i > 0 ? at - size : at;
      const after = i < segments ? at + size : at;
      const inner = i > 0 && i < segments;
      for (let k = 0; k < r; k++) {
        const c = jets[at + k], u = jets[at + r + k], v = jets[at + 2 * r + k];
        const next = jets[after + k];
        square += (next - c) * (next - c);
        xx += u * u;
        xy += u * v;
        yy += v * v;
        if (inner) {
          const bend = 2 * c - jets[before + k] - next;
          g0 += u * bend;
          g1 += v * bend;
          h0 += jets[at + 3 * r + k] * bend;
          h1 += jets[at + 4 * r + k] * bend;
          h2 += jets[at + 5 * r + k] * bend;
          const nu = jets[after + r + k], nv = jets[after + 2 * r + k];
          o0 -= u * nu;
          o1 -= u * nv;
          o2 -= v * nu;
          o3 -= v * nv;
        }
      }
      scale[2 * i] = 2 * xx;
      scale[2 * i + 1] = 2 * yy;
      if (i < segments) squares[i] = square;
      if (inner) {
        gradient[2 * i] = g0;
        gradient[2 * i + 1] = g1;
        diagonal[3 * i] = 2 * xx + h0;
        diagonal[3 * i + 1] = 2 * xy + h1;
        diagonal[3 * i + 2] = 2 * yy + h2;
        off[4 * i] = o0;
        off[4 * i + 1] = o1;
        off[4 * i + 2] = o2;
        off[4 * i + 3] = o3;
      }
    }
    if (surface.rest !== null) this.addRest(nodes);
    let sum = 0, norm = 0, steepest = 0;
    for (let i = 0; i < segments; i++) sum += squares[i];
    for (let i = 0; i <= segments; i++) steepest = Math.max(steepest, (scale[2 * i] + scale[2 * i + 1]) / 2);
    for (let i = 2; i < 2 * segments; i++) norm += gradient[i] * gradient[i];
    this.residual = norm === 0 ? 0 : Math.sqrt(norm / (steepest * sum));
    return Number.isFinite(sum) ? sum / 2 : Infinity;
  }

  /**
   * Adds half of Δᵀ R(m) Δ over the segments, m their midpoints.
   *
   * @param {Float64Array} nodes
   */
  addRest(nodes) {
    const { surface, segments, squares, gradient, diagonal, off, scale, rest: R } = this;
    for (let i = 0; i < segments; i++) {
      const dx = nodes[2 * i + 2] - nodes[2 * i], dy = nodes[2 * i + 3] - nodes[2 * i + 1];
      surface.restJet(nodes[2 * i] + dx / 2, nodes[2 * i + 1] + dy / 2, R);
      const lx = R[0] * dx + R[1] * dy, ly = R[1] * dx + R[2] * dy;
      squares[i] += lx * dx + ly * dy;
      // ∇_m of Δᵀ R Δ and of R Δ
      const qx = R[3] * dx * dx + 2 * R[4] * dx * dy + R[5] * dy * dy;
      const qy = R[6] * dx * dx + 2 * R[7] * dx * dy + R[8] * dy * dy;
      const pxx = R[3] * dx + R[4] * dy, pyx = R[4] * dx + R[5] * dy;
      const pxy = R[6] * dx + R[7] * dy, pyy = R[7] * dx + R[8] * dy;
      const cxx = (R[9] * dx * dx + 2 * R[10] * dx * dy + R[11] * dy * dy) / 8;
      const cxy = (R[12] * dx * dx + 2 * R[13] * dx * dy + R[14] * dy * dy) / 8;
      const cyy = (R[15] * dx * dx + 2 * R[16] * dx * dy + R[17] * dy * dy) / 8;
      const a = i, b = i + 1;
      // the damping of a node takes the mean of the two segments that meet there
      scale[2 * a] += R[0];
      scale[2 * a + 1] += R[2];
      scale[2 * b] += R[0];
      scale[2 * b + 1] += R[2];
      if (a > 0) {
        gradient[2 * a] += -lx + qx / 4;
        gradient[2 * a + 1] += -ly + qy / 4;
        diagonal[3 * a] += R[0] - pxx + cxx;
        diagonal[3 * a + 1] += R[1] - (pxy + pyx) / 2 + cxy;
        diagonal[3 * a + 2] += R[2] - pyy + cyy;
      }
      if (b < segments) {
        gradient[2 * b] += lx + qx / 4;
        gradient[2 * b + 1] += ly + qy / 4;
        diagonal[3 * b] += R[0] + pxx + cxx;
        diagonal[3 * b + 1] += R[1] + (pxy + pyx) / 2 + cxy;
        diagonal[3 * b + 2] += R[2] + pyy + cyy;
      }
      if (a > 0 && b < segments) {
        off[4 * a] += -R[0] + cxx;
        off[4 * a + 1] += -R[1] - (pxy - pyx) / 2 + cxy;
        off[4 * a + 2] += -R[1] + (pxy - pyx) / 2 + cxy;
        off[4 * a + 3] += -R[2] + cyy;
      }
    }
  }

  /**
   * Gradient of E / (2T) with respect to the first node, at the nodes last evaluated.
   *
   * @param {Float64Array} nodes
   * @returns {[number, number]}
   */
  slopeAtStart(nodes) {
    const { surface, values, rest: R } = this;
    const r = surface.r;
    const jet = new Float64Array(3 * r);
    surface.jet1(nodes[0], nodes[1], jet);
    let gx = 0, gy = 0;
    for (let k = 0; k < r; k++) {
      const step = values[r + k] - values[k];
      gx -= jet[r + k] * step;
      gy -= jet[2 * r + k] * step;
    }
    if (surface.rest !== null) {
      const dx = nodes[2] - nodes[0], dy = nodes[3] - nodes[1];
      surface.restJet(nodes[0] + dx / 2, nodes[1] + dy / 2, R, false);
      gx += -(R[0] * dx + R[1] * dy) + (R[3] * dx * dx + 2 * R[4] * dx * dy + R[5] * dy * dy) / 4;
      gy += -(R[1] * dx + R[2] * dy) + (R[6] * dx * dx + 2 * R[7] * dx * dy + R[8] * dy * dy) / 4;
    }
    return [gx, gy];
  }

  /**
   * Solves (H + damping · diag(scale)) step = -gradient by block elimination.
   *
   * @param {number} damping
   * @param {Float64Array} step 2 numbers a node; ends stay zero
   * @returns {boolean} false where the matrix is not positive definite
   */
  newtonStep(damping, step) {
    const { segments, gradient, diagonal, off, scale, pivots, moved } = this;
    step.fill(0);
    for (let i = 1; i < segments; i++) {
      let a = diagonal[3 * i] + damping * scale[2 * i];
      let b = diagonal[3 * i + 1];
      let c = diagonal[3 * i + 2] + damping * scale[2 * i + 1];
      let x = -gradient[2 * i], y = -gradient[2 * i + 1];
      if (i > 1) {
        const p = 3 * (i - 1), o = 4 * (i - 1);
        const det = pivots[p] * pivots[p + 2] - pivots[p + 1] * pivots[p + 1];
        const i0 = pivots[p + 2] / det, i1 = -pivots[p + 1] / det, i2 = pivots[p] / det;
        const w0 = i0 * off[o] + i1 * off[o + 2], w1 = i0 * off[o + 1] + i1 * off[o + 3];
        const w2 = i1 * off[o] + i2 * off[o + 2], w3 = i1 * off[o + 1] + i2 * off[o + 3];
        a -= off[o] * w0 + off[o + 2] * w2;
        b -= off[o] * w1 + off[o + 2] * w3;
        c -= off[o + 1] * w1 + off[o + 3] * w3;
        const mx = moved[2 * i - 2], my = moved[2 * i - 1];
        x -= w0 * mx + w2 * my;
        y -= w1 * mx + w3 * my;
      }
      if (!(a > 0 && a * c - b * b > 1e-14 * a * Math.abs(c))) return false;
      pivots[3 * i] = a;
      pivots[3 * i + 1] = b;
      pivots[3 * i + 2] = c;
      moved[2 * i] = x;
      moved[2 * i + 1] = y;
    }
    for (let i = segments - 1; i > 0; i--) {
      let x = moved[2 * i], y = moved[2 * i + 1];
      if (i < segments - 1) {
        const o = 4 * i, sx = step[2 * i + 2], sy = step[2 * i + 3];
        x -= off[o] * sx + off[o + 1] * sy;
        y -= off[o + 2] * sx + off[o + 3] * sy;
      }
      const p = 3 * i;
      const det = pivots[p] * pivots[p + 2] - pivots[p + 1] * pivots[p + 1];
      step[2 * i] = (pivots[p + 2] * x - pivots[p + 1] * y) / det;
      step[2 * i + 1] = (pivots[p] * y - pivots[p + 1] * x) / det;
    }
    return true;
  }
}
