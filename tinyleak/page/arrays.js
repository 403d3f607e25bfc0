// Strided arrays, { data, start, shape, strides }, counted in elements: no array is ever moved to be
// seen in another shape, order or part.
"use strict";

/** The strides of an array of this shape that lies in row-major order. */
function rowMajor(shape) {
  const strides = [];
  for (let k = shape.length - 1, step = 1; k >= 0; step *= shape[k--]) strides[k] = step;
  return strides;
}

/** The array repeated along new axes in front, and along axes of length 1, up to a shape. */
function broadcast(array, shape) {
  const lead = shape.length - array.shape.length;
  const strides = shape.map((length, k) =>
    k < lead || (array.shape[k - lead] === 1 && length !== 1) ? 0 : array.strides[k - lead],
  );
  return { ...array, shape, strides };
}

/** The part of an array in a window of [start, stop, step] along each axis. */
function cropped(array, window) {
  const start = array.start + window.reduce((sum, [from], k) => sum + from * array.strides[k], 0);
  const shape = window.map(([from, to, step]) => Math.max(0, Math.ceil((to - from) / step)));
  return {
    ...array,
    start,
    shape,
    strides: window.map(([, , step], k) => step * array.strides[k]),
  };
}

/** Where each element of an array lies, in row-major order. */
function places({ start, shape, strides }) {
  let all = Int32Array.of(start);
  shape.forEach((length, k) => {
    const next = new Int32Array(all.length * length);
    for (let i = 0, at = 0; i < all.length; i++)
      for (let j = 0; j < length; j++) next[at++] = all[i] + j * strides[k];
    all = next;
  });
  return all;
}

/**
 * How to walk through up to three arrays of one shape side by side: `rows` times n steps, of so, sa
 * and sb elements, from where the rows start, O[r], A[r] and B[r].
 */
function walk(...arrays) {
  const axes = [];
  arrays[0].shape.forEach((length, k) => {
    if (length === 1) return;
    const steps = arrays.map((array) => array.strides[k]);
    const before = axes.at(-1);
    // Two axes along which all arrays go on where they were are one.
    if (before && before.steps.every((step, a) => step === steps[a] * length)) {
      before.length *= length;
      before.steps = steps;
    } else axes.push({ length, steps });
  });
  const inner = axes.reduce((a, b) => (b.length >= a.length ? b : a), {
    length: 1,
    steps: arrays.map(() => 0),
  });
  const outer = axes.filter((axis) => axis !== inner);
  const shape = outer.map((axis) => axis.length);
  const starts = arrays.map(({ start }, a) =>
    places({ start, shape, strides: outer.map((axis) => axis.steps[a]) }),
  );
  const [O, A, B] = starts;
  const [so, sa, sb] = inner.steps;
  return { rows: O.length, n: inner.length, O, A, B, so, sa, sb };
}
