// A loop for every primitive, prepared for the very arrays that it reads and writes.
"use strict";

// Elementwise. The four of arithmetic have loops of their own: a function called in a loop is slower.

const ARITHMETIC = {
  add(o, a, b, { rows, n, O, A, B, so, sa, sb }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
        o[p] = a[q] + b[s];
  },
  subtract(o, a, b, { rows, n, O, A, B, so, sa, sb }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
        o[p] = a[q] - b[s];
  },
  multiply(o, a, b, { rows, n, O, A, B, so, sa, sb }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
        o[p] = a[q] * b[s];
  },
  divide(o, a, b, { rows, n, O, A, B, so, sa, sb }) {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
        o[p] = a[q] / b[s];
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
  sin: Math.sin,
  cos: Math.cos,
  sigmoid: (x) => 1 / (1 + Math.exp(Math.min(-x, 709))), // 709: more overflows
  softplus: (x) => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0),
  erf: errorFunction,
};

/** 2/√π ∫₀ˣ e^−t² dt: by its series near 0 (all terms of one sign), by a fraction far out. */
function errorFunction(x) {
  const z = Math.abs(x);
  const factor = Math.exp(-z * z) / Math.sqrt(Math.PI);
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
  const { rows, n, O, A, so, sa } = walk(out, broadcast(x, out.shape));
  const o = out.data;
  const a = x.data;
  return () => {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = f(a[q]);
  };
}

function copy(out, x) {
  const { rows, n, O, A, so, sa } = walk(out, broadcast(x, out.shape));
  const o = out.data;
  const a = x.data;
  return () => {
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = a[q];
  };
}

function fill(out, value) {
  const { rows, n, O, so } = walk(out);
  const o = out.data;
  return () => {
    for (let r = 0; r < rows; r++) for (let i = 0, p = O[r]; i < n; i++, p += so) o[p] = value;
  };
}

/** Fill `out` with `first`, then take in x, element by element: out is broadcast along what is reduced. */
function reduce(out, x, first, combine) {
  const begin = fill(out, first);
  const { rows, n, O, A, so, sa } = walk(broadcast(out, x.shape), x);
  const o = out.data;
  const a = x.data;
  return () => {
    begin();
    for (let r = 0; r < rows; r++)
      for (let i = 0, p = O[r], q = A[r]; i < n; i++, p += so, q += sa) o[p] = combine(o[p], a[q]);
  };
}

// Moves and choices.

function reshape(out, x) {
  const strides = rowMajor(out.shape);
  const plain = out.shape.every((length, k) => length === 1 || out.strides[k] === strides[k]);
  if (plain) return copy({ ...out, shape: x.shape, strides: rowMajor(x.shape) }, x);
  const O = places(out);
  const A = places(x);
  return () => {
    for (let i = 0; i < O.length; i++) out.data[O[i]] = x.data[A[i]];
  };
}

function concatenate(out, pieces, axis) {
  const along = axis < 0 ? axis + out.shape.length : axis;
  let stop = 0;
  const jobs = pieces.map((piece) => {
    const start = stop;
    stop += piece.shape[along];
    return copy(
      cropped(
        out,
        out.shape.map((length, k) => (k === along ? [start, stop, 1] : [0, length, 1])),
      ),
      piece,
    );
  });
  return () => jobs.forEach((job) => job());
}

function where(out, mask, x, y) {
  const [M, A, B] = [mask, x, y].map((one) => places(broadcast(one, out.shape)));
  const O = places(out);
  return () => {
    for (let i = 0; i < O.length; i++)
      out.data[O[i]] = mask.data[M[i]] ? x.data[A[i]] : y.data[B[i]];
  };
}

/** Go through x, or the whole that x was taken from, by numbers: visit(place in part, place in whole). */
function gather(part, whole, indices, axis, visit) {
  const cut = (x, from, to, start) =>
    places({ start, shape: x.shape.slice(from, to), strides: x.strides.slice(from, to) });
  const end = axis + indices.shape.length;
  const I = places(indices);
  const step = whole.strides[axis];
  const most = whole.shape[axis] - 1;
  const before = [cut(part, 0, axis, part.start), cut(whole, 0, axis, whole.start)];
  const middle = cut(part, axis, end, 0);
  const after = [cut(part, end, undefined, 0), cut(whole, axis + 1, undefined, 0)];
  return () => {
    for (let i = 0; i < before[0].length; i++)
      for (let j = 0; j < middle.length; j++) {
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
    const begin = fill(out, 0),
      lay = copy(cropped(out, window), x);
    return () => {
      begin();
      lay();
    };
  },
  concatenate: (out, pieces, { axis }) => concatenate(out, pieces, axis),
  power: (out, [x], { exponent }) =>
    alone(exponent === 2 ? (a) => a * a : (a) => Math.pow(a, exponent), out, x),
  where: (out, [mask, x, y]) => where(out, mask, x, y),
  sum_to: (out, [x]) => reduce(out, x, 0, sum),
  amax: (out, [x]) => reduce(out, x, -Infinity, max),
  matmul: (out, [x, y]) => matmul(out, x, y),
  inner: (out, [x, y]) => inner(out, x, y),
  unfold: (out, [x], params) => unfold(out, x, params),
  fold: (out, [x], params) => fold(out, x, params),
  winners: (out, [x], params) => winners(out, x, params),
  take(out, [x, indices], { axis }) {
    return gather(out, x, indices, axis, (part, whole) => {
      out.data[part] = x.data[whole];
    });
  },
  scatter_add(out, [x, indices], { axis }) {
    const begin = fill(out, 0);
    const add = gather(x, out, indices, axis, (part, whole) => {
      out.data[whole] += x.data[part];
    });
    return () => {
      begin();
      add();
    };
  },
};
for (const [name, f] of Object.entries(ALONE)) PRIMITIVES[name] = (out, [x]) => alone(f, out, x);
for (const [name, f] of Object.entries(PAIRWISE))
  PRIMITIVES[name] = (out, [x, y]) => {
    const { rows, n, O, A, B, so, sa, sb } = walk(
      out,
      broadcast(x, out.shape),
      broadcast(y, out.shape),
    );
    const o = out.data;
    const a = x.data;
    const b = y.data;
    return () => {
      for (let r = 0; r < rows; r++)
        for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
          o[p] = f(a[q], b[s]);
    };
  };
for (const [name, loop] of Object.entries(ARITHMETIC))
  PRIMITIVES[name] = (out, [x, y]) => {
    const path = walk(out, broadcast(x, out.shape), broadcast(y, out.shape));
    return () => loop(out.data, x.data, y.data, path);
  };
