// Two panels: what is drawn and set, and what is shared.
"use strict";

// 1. Draw.

function buildSlots() {
  const before = slots;
  slots = Array.from({ length: state.batch }, (_, k) => {
    const canvas = picture(`Drawing ${k + 1}: a field of 28 by 28 pixels`);
    const pen = element("div", { className: "pen", hidden: true });
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-describedby", "keys");
    const label = element(
      "select",
      { id: `label${k}` },
      ...Array.from({ length: page.classes }, (_, d) => element("option", {}, String(d))),
    );
    const slot = { canvas, label, chosen: false };
    slot.field = new Field(canvas, pen, (done) => {
      paint(canvas, pixelsOf(slot.field.drawing, digits), GREY);
      const { digit, strokes } = slot.field.drawing;
      if (!strokes.length) [label.value, slot.chosen] = [String((digit ?? 0) % 10), false];
      if (done) changed();
    });
    slot.field.drawing = before[k]?.field.drawing ?? { digit: (READY + 3 * k) % 10, strokes: [] };
    label.value = before[k]?.label.value ?? String(slot.field.drawing.digit % 10);
    slot.chosen = before[k]?.chosen ?? false;
    label.addEventListener("change", () => {
      slot.chosen = true;
      changed();
    });
    const undo = element("button", { type: "button", onclick: () => slot.field.undo() }, "Undo");
    const clear = element(
      "button",
      { type: "button", onclick: () => slot.field.take(blank()) },
      "Clear",
    );
    slot.box = element(
      "figure",
      { className: "slot", ariaLabel: `Drawing ${k + 1}` },
      element("div", { className: "board" }, canvas, pen),
      element("div", { className: "row" }, undo, clear, element("label", {}, "It is a ", label)),
    );
    slot.box.addEventListener("pointerdown", () => activate(k));
    slot.box.addEventListener("focusin", () => activate(k));
    return slot;
  });
  $("slots").replaceChildren(...slots.map(({ box }) => box));
  for (const id of ["slots", "found"]) $(id).classList.toggle("several", state.batch > 1);
  activate(Math.min(active, state.batch - 1));
}

function activate(k) {
  active = k;
  slots.forEach(({ box }, j) => box.classList.toggle("active", j === k));
}

function buildControls() {
  $("ready").replaceChildren(
    ...digits.map((numbers, k) => {
      const button = element("button", {
        type: "button",
        onclick: () => slots[active].field.take({ digit: k, strokes: [] }),
      });
      button.append(picture(`Take a ready ${k % 10}`, numbers));
      return button;
    }),
  );
  const called = { untrained: "untrained", trained: "trained on digits", given: "as given" };
  choice("batches", "batch", page.batches, page.batches);
  choice(
    "weights",
    "weights",
    SETS,
    SETS.map((name) => called[name]),
  );
  for (const name of ["batch", "weights", "aware"])
    for (const input of document.getElementsByName(name)) {
      input.checked = input.value === String(state[name]);
      input.addEventListener("change", () => {
        state[name] = name === "weights" ? input.value : Number(input.value);
        if (name === "batch") {
          buildSlots();
          repaint();
        }
        changed();
      });
    }
  for (const name of ["noise", "prune", "clip", "round"]) {
    $(name).value = String(state[name]);
    $(name).addEventListener("input", () => {
      state[name] = name === "round" ? $(name).value : Number($(name).value);
      showStrengths();
      changed();
    });
  }
}

/** Offer several values, of which one is chosen; a single one is only said. */
function choice(id, name, values, texts) {
  values.forEach((value, k) => {
    const input = element("input", { type: "radio", name, value: String(value) });
    input.hidden = values.length < 2;
    $(id).append(element("label", {}, input, ` ${texts[k]}`));
  });
}

function showStrengths() {
  const { noise, clip } = defence();
  const texts = {
    noise: noise ? brief(noise) : "none",
    prune: `${state.prune} %`,
    clip: clip ? brief(clip) : "not",
  };
  for (const [name, text] of Object.entries(texts)) {
    document.querySelector(`output[for=${name}]`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
}

function repaint() {
  for (const { canvas, field } of slots) paint(canvas, pixelsOf(field.drawing, digits), GREY);
}

// 2. Share.

function showShared(answer) {
  // A drawing is what the trained network takes it for, unless a person said otherwise.
  const doubted = slots.filter(
    ({ chosen, field, label }, k) =>
      !chosen && field.drawing.strokes.length && Number(label.value) !== answer.guesses[k],
  );
  for (const slot of doubted) slot.label.value = String(answer.guesses[slots.indexOf(slot)]);
  if (doubted.length) {
    changed();
    return;
  }
  Object.assign(shared, answer);
  showStrips();
  const bias = Array.from(answer.shared.at(-1));
  const negative = bias.flatMap((x, d) => (x < 0 ? [d] : []));
  const told = state.batch === 1 && negative.length === 1;
  $("label-sentence").textContent = told
    ? `The last layer's bias has one negative entry, the ${negative[0]}: this alone names the digit.`
    : `Negative in the last layer's bias: ${negative.join(", ") || "nothing"}. ` +
      (state.batch > 1 ? "In a batch the labels are mixed." : "Here the defence hides the label.");
  $("share").dataset.norm = String(answer.norm);
  if (begun) attack();
}

function showStrips() {
  $("strips").replaceChildren(
    ...page.layers.map(([name, shape], k) => strip(name, shape, shared.shared[k])),
  );
}

/** A layer's gradient as a strip of colour: it is no picture of anything. */
function strip(name, shape, values) {
  const wide = Math.min(values.length, 294);
  const rows = Math.min(20, Math.ceil(values.length / wide));
  const shown = values.subarray(0, wide * rows);
  const canvas = element("canvas", { width: wide, height: rows });
  const most = largest(shown) || 1;
  const context = canvas.getContext("2d");
  const image = context.createImageData(wide, rows);
  const signs = {
    1: colour("plus").split(",").map(Number),
    [-1]: colour("minus").split(",").map(Number),
  };
  shown.forEach((x, i) => {
    if (x)
      image.data.set(
        [...signs[Math.sign(x)], 255 * Math.sqrt(Math.min(1, Math.abs(x) / most))],
        4 * i,
      );
  });
  context.putImageData(image, 0, 0);
  canvas.style.height = `${Math.max(rows * 3, 14)}px`;
  const size = `${shape.join("×")}: ${values.length.toLocaleString("en")} numbers`;
  const zeros = Math.round((100 * values.filter((x) => x === 0).length) / values.length);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}, up to ${brief(most)}, ${zeros} % are zero`);
  const box = element(
    "div",
    { className: "strip" },
    element("b", {}, name),
    element("span", {}, ` ${size}`),
    canvas,
  );
  if (name === page.layers.at(-1)[0])
    box.append(
      element(
        "div",
        { className: "classes" },
        ...Array.from(values, (x, d) =>
          element(x < 0 ? "b" : "span", {}, `${x < 0 ? "−" : ""}${d}`),
        ),
      ),
    );
  return box;
}
