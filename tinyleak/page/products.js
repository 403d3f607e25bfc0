// Matrix and inner products.
"use strict";

/** C = A B for one matrix each: 2 × 4 numbers of C at a time, which stay in the processor's registers. */
function multiplyMatrices(m, k, n, A, a, ra, ca, B, b, rb, C, c, rc, cc) {
  const tall = m & ~1;
  const wide = n & ~3;
  for (let i = 0; i < tall; i += 2) {
    const first = a + i * ra;
    const second = first + ra;
    const to = c + i * rc;
    for (let j = 0; j < wide; j += 4) {
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let t0 = 0;
      let t1 = 0;
      let t2 = 0;
      let t3 = 0;
      for (let l = 0, p = first, q = second, r = b + j; l < k; l++, p += ca, q += ca, r += rb) {
        const x = A[p];
        const y = A[q];
        const b0 = B[r];
        const b1 = B[r + 1];
        const b2 = B[r + 2];
        const b3 = B[r + 3];
        s0 += x * b0;
        s1 += x * b1;
        s2 += x * b2;
        s3 += x * b3;
        t0 += y * b0;
        t1 += y * b1;
        t2 += y * b2;
        t3 += y * b3;
      }
      const at = to + j * cc;
      const below = at + rc;
      C[at] = s0;
      C[at + cc] = s1;
      C[at + 2 * cc] = s2;
      C[at + 3 * cc] = s3;
      C[below] = t0;
      C[below + cc] = t1;
      C[below + 2 * cc] = t2;
      C[below + 3 * cc] = t3;
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
  const [m, n] = out.shape.slice(-2);
  const k = left.shape.at(-1);
  const lead = out.shape.slice(0, -2);
  const stack = (x) =>
    places(broadcast({ ...x, shape: x.shape.slice(0, -2), strides: x.strides.slice(0, -2) }, lead));
  const [O, A, B] = [out, left, right].map(stack);
  const [rc, cc] = out.strides.slice(-2);
  const [ra, ca] = left.strides.slice(-2);
  const [rb, cb] = right.strides.slice(-2);
  // The rows of the right matrix are read along: one that lies otherwise is copied first.
  const rows = { data: new Float64Array(k * n), start: 0, shape: [k, n], strides: [n, 1] };
  const direct = cb === 1;
  const copies = direct
    ? []
    : Array.from(B, (start) => copy(rows, { ...right, start, shape: [k, n], strides: [rb, cb] }));
  const [data, starts, step] = direct ? [right.data, B, rb] : [rows.data, new Int32Array(B.length), n];
  return () => {
    for (let s = 0; s < O.length; s++) {
      copies[s]?.();
      const [a, b, c] = [A[s], starts[s], O[s]];
      multiplyMatrices(m, k, n, left.data, a, ra, ca, data, b, step, out.data, c, rc, cc);
    }
  };
}

function inner(out, x, y) {
  const begin = fill(out, 0);
  const o = out.data;
  const a = x.data;
  const b = y.data;
  const spread = { ...out, shape: x.shape, strides: x.shape.map((_, k) => out.strides[k] ?? 0) };
  const { rows, n, O, A, B, so, sa, sb } = walk(spread, x, y);
  return () => {
    begin();
    for (let r = 0; r < rows; r++)
      if (so)
        for (let i = 0, p = O[r], q = A[r], s = B[r]; i < n; i++, p += so, q += sa, s += sb)
          o[p] += a[q] * b[s];
      else {
        let sum = 0;
        for (let i = 0, q = A[r], s = B[r]; i < n; i++, q += sa, s += sb) sum += a[q] * b[s];
        o[O[r]] += sum;
      }
  };
}
