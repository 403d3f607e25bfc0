// The field to draw in: strokes of a pen, as pixels and as the letters of a link.
"use strict";

const SIZE = 28;
const LEVELS = 64; // pixels, and steps across them at which a pen may stand: one letter each
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PEN = 1.15; // half a stroke's width in pixels, as in MNIST, whose edge is a pixel of greys

/** A drawing is a ready digit's number or null, and strokes drawn over it: lists of [x, y] in 0 … 63. */
const blank = () => ({ digit: null, strokes: [] });

/** The pixels of a drawing, (784,): each is as bright as the pen comes near. */
function pixelsOf({ digit, strokes }, digits) {
  const pixels = digit === null ? new Float64Array(SIZE * SIZE) : digits[digit].slice();
  const place = (level) => ((level + 0.5) * SIZE) / LEVELS - 0.5;
  for (const stroke of strokes) {
    stroke.forEach(([x, y], k) =>
      inkLine(pixels, ...(stroke[k - 1] ?? stroke[k]).map(place), place(x), place(y)),
    );
  }
  return pixels;
}

function inkLine(pixels, x0, y0, x1, y1) {
  const reach = PEN + 1;
  const length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  const range = (a, b) => [
    Math.max(0, Math.ceil(Math.min(a, b) - reach)),
    Math.min(SIZE - 1, Math.max(a, b) + reach),
  ];
  const [top, bottom] = range(y0, y1);
  const [left, right] = range(x0, x1);
  for (let y = top; y <= bottom; y++)
    for (let x = left; x <= right; x++) {
      const along = length
        ? Math.min(1, Math.max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length))
        : 0;
      const distance = Math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0));
      const ink = Math.min(1, Math.max(0, PEN + 0.5 - distance));
      pixels[y * SIZE + x] = Math.max(pixels[y * SIZE + x], ink);
    }
}

/** A drawing as letters: the digit's number, then a dot and two letters a point for each stroke. */
function written({ digit, strokes }) {
  const lines = strokes.map((stroke) => stroke.map(([x, y]) => LETTERS[x] + LETTERS[y]).join(""));
  return [digit ?? "", ...lines].join(".");
}

/** The drawing that the letters stand for; what is none of ours is left out. */
function read(text, digits) {
  const [digit, ...lines] = String(text).slice(0, 20000).split(".");
  const strokes = lines.map((line) =>
    (line.match(/../g) ?? []).map((pair) => [...pair].map((one) => LETTERS.indexOf(one))),
  );
  return {
    digit: /^\d+$/.test(digit) && digit < digits.length ? Number(digit) : null,
    strokes: strokes
      .map((stroke) => stroke.filter(([x, y]) => x >= 0 && y >= 0))
      .filter((stroke) => stroke.length),
  };
}

/** Let a canvas be drawn on; `changed(done)` is called with each change, done when a stroke is. */
class Field {
  constructor(canvas, pen, changed) {
    Object.assign(this, {
      canvas,
      pen,
      changed,
      drawing: blank(),
      at: [32, 32],
      down: false,
      stroke: null,
    });
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, () => this.lift());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => {
      this.down = false;
      this.lift();
      pen.hidden = true;
    });
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const level = (at, start, length) =>
      Math.min(LEVELS - 1, Math.max(0, Math.floor(((at - start) / length) * LEVELS)));
    return [level(event.clientX, box.left, box.width), level(event.clientY, box.top, box.height)];
  }

  begin(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.add(this.point(event));
  }

  move(event) {
    if (!this.stroke || this.down) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) this.add(this.point(one));
  }

  /** Go on with the stroke, or begin one. */
  add(point) {
    if (!this.stroke) this.drawing.strokes.push((this.stroke = []));
    const last = this.stroke.at(-1);
    if (last && last[0] === point[0] && last[1] === point[1]) return;
    this.stroke.push(point);
    this.changed(false);
  }

  lift() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed(true);
  }

  undo() {
    this.stroke = null;
    if (this.drawing.strokes.length) this.drawing.strokes.pop();
    else this.drawing.digit = null;
    this.changed(true);
  }

  take(drawing) {
    this.stroke = null;
    this.drawing = drawing;
    this.changed(true);
  }

  key(event) {
    const move = { ArrowLeft: [-2, 0], ArrowRight: [2, 0], ArrowUp: [0, -2], ArrowDown: [0, 2] }[
      event.key
    ];
    if (move) {
      this.at = this.at.map((x, k) => Math.min(LEVELS - 1, Math.max(0, x + move[k])));
      if (this.down) this.add(this.at);
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) this.add(this.at);
      else this.lift();
    } else if (event.key === "Backspace") this.undo();
    else return;
    event.preventDefault();
    this.show();
  }

  /** Show where the keys' pen is. */
  show() {
    this.pen.hidden = !this.canvas.matches(":focus-visible");
    this.pen.classList.toggle("down", this.down);
    [this.pen.style.left, this.pen.style.top] = this.at.map(
      (x) => `${((x + 0.5) / LEVELS) * 100}%`,
    );
    const [column, row] = this.at.map((x) => Math.floor((x * SIZE) / LEVELS) + 1);
    this.canvas.setAttribute(
      "aria-description",
      `pen ${this.down ? "down" : "up"}, row ${row}, column ${column}`,
    );
  }
}
