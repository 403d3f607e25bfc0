// A loop for every primitive, prepared for the very arrays that it reads and writes.
"use strict";

// Elementwise. The four of arithmetic have loops of their own: a function called in a loop is slower.

const ARITHMETIC = {
  add(o, a, b, { rows, n, starts: [O, A, B], steps: [so, sa, sb] }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] = a[q] + b[s];
  },
  subtract(o, a, b, { rows, n, starts: [O, A, B], steps: [so, sa, sb] }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] = a[q] - b[s];
  },
  multiply(o, a, b, { rows, n, starts: [O, A, B], steps: [so, sa, sb] }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] = a[q] * b[s];
  },
  divide(o, a, b, { rows, n, starts: [O, A, B], steps: [so, sa, sb] }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] = a[q] / b[s];
  },
};

const PAIRWISE = {
  maximum: (a, b) => (a >= b || a !== a ? a : b), // NaN passes through
  greater: (a, b) => a > b,
  greater_equal: (a, b) => a >= b,
  equal: (a, b) => a === b,
  not_equal: (a, b) => a !== b,
  raise_to: Math.pow,
};

const ALONE = {
  negate: (x) => -x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(Math.min(-x, 709))), // 709: more overflows
  softplus: (x) => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0),
  erf: errorFunction,
};

/** 2/√π ∫₀ˣ e^−t² dt: by its series near 0 (all terms of one sign), by a fraction far out. */
function errorFunction(x) {
  const z = Math.abs(x), factor = Math.exp(-z * z) / Math.sqrt(Math.PI);
  if (!(z < 27)) return z !== z ? z : Math.sign(x);
  let sum = 0;
  if (z < 3) {
    for (let k = 0, term = 2 * z; k < 80; k++, term *= (2 * z * z) / (2 * k + 1)) sum += term;
    return Math.sign(x) * factor * sum;
  }
  for (let k = 80; k > 0; k--) sum = k / 2 / (z + sum);
  return Math.sign(x) * (1 - factor / (z + sum));
}

function alone(f, out, x) {
  const { rows, n, starts: [O, A], steps: [so, sa] } = walk(out, broadcast(x, out.shape)), o = out.data, a = x.data;
  return () => {
    for (let r = 0; r < rows; r++) for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = f(a[q]);
  };
}

function copy(out, x) {
  const { rows, n, starts: [O, A], steps: [so, sa] } = walk(out, broadcast(x, out.shape)), o = out.data, a = x.data;
  return () => {
    for (let r = 0; r < rows; r++) for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = a[q];
  };
}

function fill(out, value) {
  const { rows, n, starts: [O], steps: [so] } = walk(out), o = out.data;
  return () => {
    for (let r = 0; r < rows; r++) for (let i = 0, p = O[r]; i < n; i++, p += so) o[p] = value;
  };
}

/** Fill `out` with `first`, then take in x, element by element: out is broadcast along what is reduced. */
function reduce(out, x, first, combine) {
  const begin = fill(out, first), { rows, n, starts: [O, A], steps: [so, sa] } = walk(broadcast(out, x.shape), x);
  const o = out.data, a = x.data;
  return () => {
    begin();
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = combine(o[p], a[q]);
  };
}

// Products.

/** C = A B for one matrix each: 2 × 4 numbers of C at a time, which stay in the processor's registers. */
function multiplyMatrices(m, k, n, A, a, ra, ca, B, b, rb, C, c, rc, cc) {
  const tall = m & ~1, wide = n & ~3;
  for (let i = 0; i < tall; i += 2) {
    const first = a + i * ra, second = first + ra, to = c + i * rc;
    for (let j = 0; j < wide; j += 4) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
      for (let l = 0, p = first, q = second, r = b + j; l < k; l++, p += ca, q += ca, r += rb) {
        const x = A[p], y = A[q], b0 = B[r], b1 = B[r + 1], b2 = B[r + 2], b3 = B[r + 3];
        s0 += x * b0; s1 += x * b1; s2 += x * b2; s3 += x * b3;
        t0 += y * b0; t1 += y * b1; t2 += y * b2; t3 += y * b3;
      }
      const at = to + j * cc, below = at + rc;
      C[at] = s0; C[at + cc] = s1; C[at + 2 * cc] = s2; C[at + 3 * cc] = s3;
      C[below] = t0; C[below + cc] = t1; C[below + 2 * cc] = t2; C[below + 3 * cc] = t3;
    }
  }
  for (let i = 0; i < m; i++)
    for (let j = i < tall ? wide : 0; j < n; j++) {
      let sum = 0;
      for (let l = 0, p = a + i * ra, r = b + j; l < k; l++, p += ca, r += rb) sum += A[p] * B[r];
      C[c + i * rc + j * cc] = sum;
    }
}

function matmul(out, left, right) {
  const [m, n] = out.shape.slice(-2), k = left.shape.at(-1), lead = out.shape.slice(0, -2);
  const stack = (x) => places({ ...broadcast({ ...x, shape: x.shape.slice(0, -2), strides: x.strides.slice(0, -2) }, lead) });
  const [O, A, B] = [out, left, right].map(stack), [rc, cc] = out.strides.slice(-2);
  const [ra, ca] = left.strides.slice(-2), [rb, cb] = right.strides.slice(-2);
  // The rows of the right matrix are read along: one that lies otherwise is copied first.
  const rows = { data: new Float64Array(k * n), start: 0, shape: [k, n], strides: [n, 1] }, direct = cb === 1;
  const copies = direct ? [] : Array.from(B, (start) => copy(rows, { ...right, start, shape: [k, n], strides: [rb, cb] }));
  return () => {
    for (let s = 0; s < O.length; s++) {
      if (direct) multiplyMatrices(m, k, n, left.data, A[s], ra, ca, right.data, B[s], rb, out.data, O[s], rc, cc);
      else {
        copies[s]();
        multiplyMatrices(m, k, n, left.data, A[s], ra, ca, rows.data, 0, n, out.data, O[s], rc, cc);
      }
    }
  };
}

function inner(out, x, y) {
  const begin = fill(out, 0), o = out.data, a = x.data, b = y.data;
  const spread = { ...out, shape: x.shape, strides: x.shape.map((_, k) => out.strides[k] ?? 0) };
  const { rows, n, starts: [O, A, B], steps: [so, sa, sb] } = walk(spread, x, y);
  return () => {
    begin();
    for (let r = 0; r < rows; r++)
      if (so) for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] += a[q] * b[s];
      else {
        let sum = 0;
        for (let i = 0, q = A[r], s = B[r]; i < n; i++, q += sa, s += sb) sum += a[q] * b[s];
        o[O[r]] += sum;
      }
  };
}

// Windows: an image (…, H, W, C) and its windows (…, oH, oW, kH, kW, C).

/** The lines that windows and image have in common: where each begins in both. */
function lines(windows, image, stride, padding) {
  const lead = image.shape.slice(0, -3), [height, width] = image.shape.slice(-3);
  const [down, across, high, wide, channels] = windows.shape.slice(-5);
  const [row, column, channel] = image.strides.slice(-3), [wy, wx, wi, wj, wc] = windows.strides.slice(-5);
  const stack = (x) => places({ start: x.start, shape: lead, strides: x.strides.slice(0, lead.length) });
  const images = stack(image), laid = stack(windows), found = [];
  // Where a window's line is as dense as the image's, all its channels are one run.
  const dense = column === channels * channel && wj === channels * wc;
  for (let s = 0; s < images.length; s++)
    for (let y = 0; y < down; y++) for (let x = 0; x < across; x++) for (let i = 0; i < high; i++) {
      const at = y * stride[0] + i - padding[0], left = x * stride[1] - padding[1];
      if (at < 0 || at >= height) continue;
      const from = Math.max(0, -left), to = Math.min(wide, width - left), each = dense ? Math.max(1, to - from) : 1;
      for (let j = from; j < to; j += each)
        found.push(images[s] + at * row + (left + j) * column, laid[s] + y * wy + x * wx + i * wi + j * wj, each * channels);
    }
  return { found: Int32Array.from(found), channel, wc };
}

function unfold(out, x, { stride, padding }) {
  const { found, channel, wc } = lines(out, x, stride, padding), begin = fill(out, 0), o = out.data, a = x.data;
  const padded = padding.some((width) => width > 0);
  return () => {
    if (padded) begin();
    for (let t = 0; t < found.length; t += 3)
      for (let i = found[t + 2], q = found[t], p = found[t + 1]; i > 0; i--, q += channel, p += wc) o[p] = a[q];
  };
}

function fold(out, x, { stride, padding }) {
  const { found, channel, wc } = lines(x, out, stride, padding), begin = fill(out, 0), o = out.data, a = x.data;
  return () => {
    begin();
    for (let t = 0; t < found.length; t += 3)
      for (let i = found[t + 2], p = found[t], q = found[t + 1]; i > 0; i--, p += channel, q += wc) o[p] += a[q];
  };
}

// Moves and choices.

function reshape(out, x) {
  const strides = rowMajor(out.shape), plain = out.shape.every((length, k) => length === 1 || out.strides[k] === strides[k]);
  if (plain) return copy({ ...out, shape: x.shape, strides: rowMajor(x.shape) }, x);
  const O = places(out), A = places(x);
  return () => { for (let i = 0; i < O.length; i++) out.data[O[i]] = x.data[A[i]]; };
}

function concatenate(out, pieces, axis) {
  const along = axis < 0 ? axis + out.shape.length : axis;
  let stop = 0;
  const jobs = pieces.map((piece) => {
    const start = stop;
    stop += piece.shape[along];
    return copy(cropped(out, out.shape.map((length, k) => (k === along ? [start, stop, 1] : [0, length, 1]))), piece);
  });
  return () => jobs.forEach((job) => job());
}

function where(out, mask, x, y) {
  const [M, A, B] = [mask, x, y].map((one) => places(broadcast(one, out.shape))), O = places(out);
  return () => {
    for (let i = 0; i < O.length; i++) out.data[O[i]] = mask.data[M[i]] ? x.data[A[i]] : y.data[B[i]];
  };
}

/** Go through x, or the whole that x was taken from, by numbers: visit(place in part, place in whole). */
function gather(part, whole, indices, axis, visit) {
  const cut = (x, from, to, start) => places({ start, shape: x.shape.slice(from, to), strides: x.strides.slice(from, to) });
  const end = axis + indices.shape.length, I = places(indices), step = whole.strides[axis], most = whole.shape[axis] - 1;
  const before = [cut(part, 0, axis, part.start), cut(whole, 0, axis, whole.start)];
  const middle = cut(part, axis, end, 0), after = [cut(part, end, undefined, 0), cut(whole, axis + 1, undefined, 0)];
  return () => {
    for (let i = 0; i < before[0].length; i++) for (let j = 0; j < middle.length; j++) {
      const number = Math.min(Math.max(indices.data[I[j]], 0), most);
      for (let k = 0; k < after[0].length; k++)
        visit(before[0][i] + middle[j] + after[0][k], before[1][i] + number * step + after[1][k]);
    }
  };
}

const max = (a, b) => (b > a || b !== b ? b : a); // NaN passes through
const sum = (a, b) => a + b;

const PRIMITIVES = {
  broadcast_to: (out, [x]) => copy(out, x),
  transpose: (out, [x], { axes }) =>
    copy(out, { ...x, shape: axes.map((k) => x.shape[k]), strides: axes.map((k) => x.strides[k]) }),
  stop_gradient: (out, [x]) => copy(out, x),
  floating: (out, [x]) => copy(out, x),
  crop_to: (out, [x], { window }) => copy(out, cropped(x, window)),
  reshape: (out, [x]) => reshape(out, x),
  pad_to(out, [x], { window }) {
    const begin = fill(out, 0), lay = copy(cropped(out, window), x);
    return () => { begin(); lay(); };
  },
  concatenate: (out, pieces, { axis }) => concatenate(out, pieces, axis),
  power: (out, [x], { exponent }) => alone(exponent === 2 ? (a) => a * a : (a) => Math.pow(a, exponent), out, x),
  where: (out, [mask, x, y]) => where(out, mask, x, y),
  sum_to: (out, [x]) => reduce(out, x, 0, sum),
  amax: (out, [x]) => reduce(out, x, -Infinity, max),
  matmul: (out, [x, y]) => matmul(out, x, y),
  inner: (out, [x, y]) => inner(out, x, y),
  unfold: (out, [x], params) => unfold(out, x, params),
  fold: (out, [x], params) => fold(out, x, params),
  take(out, [x, indices], { axis }) {
    return gather(out, x, indices, axis, (part, whole) => { out.data[part] = x.data[whole]; });
  },
  scatter_add(out, [x, indices], { axis }) {
    const begin = fill(out, 0);
    const add = gather(x, out, indices, axis, (part, whole) => { out.data[whole] += x.data[part]; });
    return () => { begin(); add(); };
  },
};
for (const [name, f] of Object.entries(ALONE)) PRIMITIVES[name] = (out, [x]) => alone(f, out, x);
for (const [name, f] of Object.entries(PAIRWISE))
  PRIMITIVES[name] = (out, [x, y]) => {
    const { rows, n, starts: [O, A, B], steps: [so, sa, sb] } = walk(out, broadcast(x, out.shape), broadcast(y, out.shape));
    const o = out.data, a = x.data, b = y.data;
    return () => {
      for (let r = 0; r < rows; r++)
        for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb) o[p] = f(a[q], b[s]);
    };
  };
for (const [name, loop] of Object.entries(ARITHMETIC))
  PRIMITIVES[name] = (out, [x, y]) => {
    const path = walk(out, broadcast(x, out.shape), broadcast(y, out.shape));
    return () => loop(out.data, x.data, y.data, path);
  };

