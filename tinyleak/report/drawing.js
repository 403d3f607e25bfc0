// What the player and the live page draw with: images made of numbers, and curves on a log scale.
"use strict";

/** A number to two figures, as a person would write it: 0.053, 3.2×10⁻⁵, 10⁻³. */
function brief(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  if (value === 0 || (Math.abs(value) >= 0.01 && Math.abs(value) < 99.5))
    return String(Number(value.toPrecision(2)));
  const [mantissa, exponent] = value.toExponential(1).split("e");
  const power =
    "10" + String(Number(exponent)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  return mantissa === "1.0" ? power : `${mantissa}×${power}`;
}

/** Paint numbers (C, H, W), C = 1 or 3, on a canvas, a pixel each: black at 0, white at 1, NaN grey. */
function paint(canvas, numbers, [channels, height, width], left = 0, top = 0) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      const x = numbers[channels === 3 ? c * size + i : i];
      image.data[4 * i + c] = x !== x ? 128 : 255 * Math.min(Math.max(x, 0), 1) + 0.5;
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, left, top);
}

/** What a colour of the style is called there, in this moment: dark and light have their own. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Call `redraw` when a canvas is to look otherwise: another width, dark or light, a sheet of paper. */
function whenSeenAnew(redraw) {
  addEventListener("resize", redraw);
  for (const media of ["print", "(prefers-color-scheme: dark)"])
    matchMedia(media).addEventListener("change", redraw);
}

/**
 * Draw curves against the iteration, on a log scale.
 *
 * @param canvas where; it is made as fine as the screen is.
 * @param curves [{ name, colour, points: [[iteration, value], …] }, …]
 * @param most the last iteration of the axis.
 * @param now the iteration that is shown, marked by a line, or null.
 */
function drawCurves(canvas, curves, most, now = null) {
  const ratio = window.devicePixelRatio || 1;
  const wide = canvas.clientWidth;
  const high = canvas.clientHeight;
  canvas.width = wide * ratio;
  canvas.height = high * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  const all = curves
    .flatMap(({ points }) => points.map(([, value]) => value))
    .filter((v) => v > 0 && v < Infinity);
  if (!all.length) return;
  const low = Math.floor(Math.log10(Math.min(...all)));
  const top = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all))));
  const left = 44;
  const bottom = high - 34;
  const across = (wide - left - 12) / Math.max(1, most);
  const down = (bottom - 10) / (top - low);
  const x = (iteration) => left + iteration * across;
  const y = (value) => 10 + (top - Math.max(low, Math.log10(value))) * down; // zero at the bottom
  const line = (from, to, style) => {
    context.strokeStyle = style;
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  };
  const write = (text, at, height, style, align) => {
    context.fillStyle = style;
    context.textAlign = align;
    context.fillText(text, at, height);
  };
  const every = Math.ceil((top - low) / 6);
  for (let power = low; power <= top; power += every) {
    line([left, y(10 ** power)], [wide - 12, y(10 ** power)], colour("rule"));
    write(brief(10 ** power), left - 6, y(10 ** power) + 4, colour("quiet"), "right");
  }
  write("0", left, bottom + 15, colour("quiet"), "center");
  if (most > 0) write(String(most), wide - 12, bottom + 15, colour("quiet"), "right");
  write("iteration", (left + wide) / 2, bottom + 15, colour("quiet"), "center");
  if (now !== null) line([x(now), 10], [x(now), bottom], colour("quiet"));
  let at = left;
  context.lineWidth = 2;
  for (const { name, colour: style, points } of curves) {
    context.strokeStyle = context.fillStyle = style;
    context.beginPath();
    let pen = false;
    for (const [iteration, value] of points) {
      const seen = value >= 0 && value < Infinity; // NaN and infinity are gaps
      if (seen) context[pen ? "lineTo" : "moveTo"](x(iteration), y(value));
      pen = seen;
    }
    context.stroke();
    if (points.length === 1) context.fillRect(x(points[0][0]) - 3, y(points[0][1]) - 3, 6, 6);
    write(name, at, high - 4, style, "left");
    at += context.measureText(name).width + 16;
  }
}
