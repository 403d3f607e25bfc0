// Windows: an image (…, H, W, C) and its windows (…, oH, oW, kH, kW, C), as convolutions read them.
"use strict";

/** The lines that windows and image have in common: where each begins in both. */
function lines(windows, image, stride, padding) {
  const lead = image.shape.slice(0, -3);
  const [height, width] = image.shape.slice(-3);
  const [down, across, high, wide, channels] = windows.shape.slice(-5);
  const [row, column, channel] = image.strides.slice(-3);
  const [wy, wx, wi, wj, wc] = windows.strides.slice(-5);
  const stack = (x) =>
    places({ start: x.start, shape: lead, strides: x.strides.slice(0, lead.length) });
  const images = stack(image);
  const laid = stack(windows);
  const found = [];
  // Where a window's line is as dense as the image's, all its channels are one run.
  const dense = column === channels * channel && wj === channels * wc;
  for (let s = 0; s < images.length; s++)
    for (let y = 0; y < down; y++)
      for (let x = 0; x < across; x++)
        for (let i = 0; i < high; i++) {
          const at = y * stride[0] + i - padding[0];
          const left = x * stride[1] - padding[1];
          if (at < 0 || at >= height) continue;
          const from = Math.max(0, -left);
          const to = Math.min(wide, width - left);
          const each = dense ? Math.max(1, to - from) : 1;
          for (let j = from; j < to; j += each)
            found.push(
              images[s] + at * row + (left + j) * column,
              laid[s] + y * wy + x * wx + i * wi + j * wj,
              each * channels,
            );
        }
  return { found: Int32Array.from(found), channel, wc };
}

function unfold(out, x, { stride, padding }) {
  const { found, channel, wc } = lines(out, x, stride, padding);
  const begin = fill(out, 0);
  const o = out.data;
  const a = x.data;
  const padded = padding.some((width) => width > 0);
  return () => {
    if (padded) begin();
    for (let t = 0; t < found.length; t += 3)
      for (let i = found[t + 2], q = found[t], p = found[t + 1]; i > 0; i--, q += channel, p += wc)
        o[p] = a[q];
  };
}

function fold(out, x, { stride, padding }) {
  const { found, channel, wc } = lines(x, out, stride, padding);
  const begin = fill(out, 0);
  const o = out.data;
  const a = x.data;
  return () => {
    begin();
    for (let t = 0; t < found.length; t += 3)
      for (let i = found[t + 2], p = found[t], q = found[t + 1]; i > 0; i--, p += channel, q += wc)
        o[p] += a[q];
  };
}
