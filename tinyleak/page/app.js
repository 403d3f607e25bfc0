// The page: its state, which the link holds, and the four panels.
"use strict";

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent);
const digits = Array.from({ length: page.digits.length }, (_, k) =>
  Float64Array.from(new Uint8Array(decoded(page.digits[k])), (x) => x / 255));
const GREY = [1, SIZE, SIZE], READY = 4; // ready digits stand for themselves; the first shown is READY
const OFF = { noise: -8.5, clip: 2.5 }; // where a slider of powers of ten means "not at all"

const state = { batch: 1, labels: [], weights: "untrained", seed: 1, noise: OFF.noise, prune: 0, clip: OFF.clip, round: "none", aware: 0 };
let slots = [], active = 0, job = 0, shared = null, begun = false, frame = null, trail = [], setting = "", timer = null, painting = false;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function picture(label, numbers = null) {
  const canvas = element("canvas", { width: SIZE, height: SIZE, className: "image" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  if (numbers) paint(canvas, numbers, GREY);
  return canvas;
}

// The link.

const KEPT = ["batch", "weights", "seed", "prune", "round", "aware"];

function writeLink() {
  const parts = new URLSearchParams(KEPT.map((name) => [name, state[name]])), { noise, clip } = defence();
  for (const [name, strength] of Object.entries({ noise, clip }))
    parts.set(name, strength ? String(Number(strength.toPrecision(2))) : "none");
  slots.forEach(({ field, label }, k) => {
    parts.set(`draw${k}`, written(field.drawing));
    parts.set(`label${k}`, label.value);
  });
  history.replaceState(null, "", `#${parts}`);
}

function readLink() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const pick = (name, all) => { if (all.includes(parts.get(name))) state[name] = parts.get(name); };
  const ranges = { seed: [0, 2 ** 32 - 1], noise: [-8, 0], prune: [0, 99], clip: [-3, 2], aware: [0, 1] };
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const given = Number(parts.get(name) ?? NaN), power = Math.round(2 * Math.log10(given)) / 2; // as sliders have it
    const number = name in OFF ? power : Math.round(given);
    if (Number.isFinite(number)) state[name] = Math.min(high, Math.max(low, number));
  }
  if (page.batches.includes(Number(parts.get("batch")))) state.batch = Number(parts.get("batch"));
  pick("weights", ["untrained", "trained"]);
  pick("round", ["none", "float16", "bfloat16", "int8"]);
  buildSlots();
  slots.forEach((slot, k) => {
    if (parts.has(`draw${k}`)) slot.field.drawing = read(parts.get(`draw${k}`), digits);
    const label = parts.get(`label${k}`) ?? "";
    if (/^\d$/.test(label)) [slot.label.value, slot.chosen] = [label, true];
    else slot.label.value = String((slot.field.drawing.digit ?? 0) % 10);
  });
}

const defence = () => ({
  noise: state.noise > OFF.noise ? 10 ** state.noise : 0,
  prune: state.prune / 100,
  clip: state.clip < OFF.clip ? 10 ** state.clip : 0,
  round: state.round,
});

function described() {
  const { noise, prune, clip, round } = defence(), parts = [];
  if (clip) parts.push(`clipped to ${brief(clip)}`);
  if (noise) parts.push(`noise ${brief(noise)}`);
  if (prune) parts.push(`${state.prune} % pruned`);
  if (round !== "none") parts.push(round);
  return parts.length ? `${parts.join(", ")}; attacker ${state.aware ? "knows" : "does not know"}` : "no defence";
}

// 1. Draw.

function buildSlots() {
  const before = slots;
  slots = Array.from({ length: state.batch }, (_, k) => {
    const canvas = picture(`Drawing ${k + 1}: a field of 28 by 28 pixels`), pen = element("div", { className: "pen", hidden: true });
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-describedby", "keys");
    const label = element("select", { id: `label${k}` }, ...Array.from({ length: page.classes }, (_, d) => element("option", {}, String(d))));
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
    label.addEventListener("change", () => { slot.chosen = true; changed(); });
    const undo = element("button", { type: "button", onclick: () => slot.field.undo() }, "Undo");
    const clear = element("button", { type: "button", onclick: () => slot.field.take(blank()) }, "Clear");
    slot.box = element("figure", { className: "slot" }, element("div", { className: "board" }, canvas, pen),
      element("div", { className: "row" }, undo, clear, element("label", {}, "It is a ", label)));
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
  $("ready").replaceChildren(...digits.map((numbers, k) => {
    const button = element("button", { type: "button", onclick: () => slots[active].field.take({ digit: k, strokes: [] }) });
    button.append(picture(`Take a ready ${k % 10}`, numbers));
    return button;
  }));
  for (const count of page.batches) {
    const input = element("input", { type: "radio", name: "batch", value: String(count) });
    $("batches").append(element("label", {}, input, ` ${count}`));
  }
  $("batches").hidden = page.batches.length < 2;
  for (const name of ["batch", "weights", "aware"])
    for (const input of document.getElementsByName(name)) {
      input.checked = input.value === String(state[name]);
      input.addEventListener("change", () => {
        state[name] = name === "weights" ? input.value : Number(input.value);
        if (name === "batch") { buildSlots(); repaint(); }
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

function showStrengths() {
  const { noise, clip } = defence(), texts = { noise: noise ? brief(noise) : "none", prune: `${state.prune} %`, clip: clip ? brief(clip) : "not" };
  for (const [name, text] of Object.entries(texts)) {
    document.querySelector(`output[for=${name}]`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
}

function repaint() {
  for (const { canvas, field } of slots) paint(canvas, pixelsOf(field.drawing, digits), GREY);
}

// What runs elsewhere: a worker, or this page in slices where there can be none.

let ask = (message) => sent.push(message);
const sent = [];

function connect() {
  const alone = () => {
    const later = (work) => setTimeout(work, 0), answer = serve(hear, later);
    ask = (message) => later(() => answer(message));
    sent.forEach((message) => ask(message));
  };
  try {
    const source = new Blob([$("engine").textContent], { type: "text/javascript" });
    const worker = new Worker(URL.createObjectURL(source));
    let works = false;
    worker.onmessage = ({ data }) => { works = true; hear(data); };
    worker.onerror = () => { if (!works) alone(); };
    ask = (message) => { if (!works) sent.push(message); worker.postMessage(message); };
  } catch {
    alone();
  }
}

function hear(answer) {
  if (answer.said === "ready") document.body.dataset.ready = String(Math.round(performance.now()));
  else if (answer.job !== job) return;
  else if (answer.said === "shared") showShared(answer);
  else showFrame(answer);
}

/** What is drawn or set has changed: the client shares anew, and an attack that was begun starts anew. */
function changed() {
  keepOutcome();
  job++;
  ask({ do: "pause" });
  clearTimeout(timer);
  timer = setTimeout(() => {
    writeLink();
    const images = Float64Array.from(slots.flatMap(({ field }) => Array.from(pixelsOf(field.drawing, digits))));
    state.labels = slots.map(({ label }) => Number(label.value));
    shared = { images };
    ask({ do: "share", job, images, labels: state.labels, weights: state.weights, defence: defence(), seed: state.seed + 1 });
  }, 60);
}

// 2. Share.

function showShared(answer) {
  // A drawing is what the trained network takes it for, unless a person said otherwise.
  const doubted = slots.filter(({ chosen, field, label }, k) =>
    !chosen && field.drawing.strokes.length && Number(label.value) !== answer.guesses[k]);
  for (const slot of doubted) slot.label.value = String(answer.guesses[slots.indexOf(slot)]);
  if (doubted.length) {
    changed();
    return;
  }
  Object.assign(shared, answer);
  $("strips").replaceChildren(...page.layers.map(([name, shape], k) => strip(name, shape, answer.shared[k])));
  const bias = Array.from(answer.shared.at(-1)), negative = bias.flatMap((x, d) => (x < 0 ? [d] : []));
  const told = state.batch === 1 && negative.length === 1;
  $("label-sentence").textContent = told
    ? `The last layer's bias has one negative entry, the ${negative[0]}: this alone names the digit.`
    : `Negative in the last layer's bias: ${negative.join(", ") || "nothing"}. ${state.batch > 1 ? "In a batch the labels are mixed." : "Here the defence hides the label."}`;
  $("share").dataset.norm = String(answer.norm);
  if (begun) attack();
}

/** A layer's gradient as a strip of colour: it is no picture of anything. */
function strip(name, shape, values) {
  const wide = Math.min(values.length, 294), rows = Math.min(20, Math.ceil(values.length / wide)), shown = values.subarray(0, wide * rows);
  const canvas = element("canvas", { width: wide, height: rows }), most = largest(shown) || 1;
  const context = canvas.getContext("2d"), image = context.createImageData(wide, rows);
  const signs = { 1: colour("plus").split(",").map(Number), [-1]: colour("minus").split(",").map(Number) };
  shown.forEach((x, i) => {
    if (x) image.data.set([...signs[Math.sign(x)], 255 * Math.sqrt(Math.min(1, Math.abs(x) / most))], 4 * i);
  });
  context.putImageData(image, 0, 0);
  canvas.style.height = `${Math.max(rows * 3, 14)}px`;
  const size = `${shape.join("×")}: ${values.length.toLocaleString("en")} numbers`, zeros = values.filter((x) => x === 0).length;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Gradient of ${name}, ${size}, up to ${brief(most)}`);
  const rest = `${size}${zeros > values.length / 100 ? `, ${Math.round((100 * zeros) / values.length)} % are zero` : ""}`;
  const box = element("div", { className: "strip" }, element("b", {}, name), element("span", {}, ` ${rest}`), canvas);
  if (name === page.layers.at(-1)[0])
    box.append(element("div", { className: "classes" }, ...Array.from(values, (x, d) => element(x < 0 ? "b" : "span", {}, `${x < 0 ? "−" : ""}${d}`))));
  return box;
}

// 3. Attack.

function attack() {
  begun = true;
  [trail, frame, setting] = [[], null, described()];
  const { images, shared: gradients } = shared;
  $("found").replaceChildren(...slots.map((_, k) => {
    const found = element("figure", {}, picture(`Reconstruction ${k + 1}`), bars(), element("figcaption", {}, "found"));
    const truth = element("figure", { className: "truth" }, picture(`Drawing ${k + 1}`, images.subarray(k * 784, (k + 1) * 784)), element("figcaption", {}, "drawn"));
    return element("div", { className: "row" }, found, truth);
  }));
  for (const id of ["pause", "step"]) $(id).disabled = false;
  $("start").textContent = "Attack again";
  ask({ do: "attack", job, shared: gradients, images, labels: state.labels, weights: state.weights, defence: defence(), aware: Boolean(state.aware), seed: state.seed });
}

function bars() {
  const box = element("div", { className: "bars", ariaLabel: "Label probabilities" });
  box.setAttribute("role", "img");
  box.append(...Array.from({ length: page.classes }, (_, d) => element("div", {}, element("i"), String(d))));
  return box;
}

function showFrame(answer) {
  trail.push(...answer.history);
  frame = answer;
  if (!painting) requestAnimationFrame(showLatest);
  painting = true;
}

function showLatest() {
  painting = false;
  if (frame === null) return;
  const { images, probabilities, errors, distance, iterations, running, reason } = frame, worst = Math.max(...errors);
  [...$("found").children].forEach((row, k) => {
    const [canvas, chart] = row.firstChild.children, best = probabilities[k].indexOf(Math.max(...probabilities[k]));
    paint(canvas, images[k], GREY);
    canvas.setAttribute("aria-label", `Reconstruction ${k + 1} after ${iterations} iterations, MSE ${brief(errors[k])}`);
    chart.setAttribute("aria-label", `Most probable label: ${best}, ${Math.round(100 * probabilities[k][best])} %`);
    [...chart.children].forEach((bar, d) => { bar.firstChild.style.height = `${Math.round(38 * probabilities[k][d])}px`; });
  });
  $("numbers").textContent = `iteration ${iterations} · error (MSE) ${brief(worst)} · distance ${brief(distance)}`;
  say(sentence(worst, reason));
  const every = Math.ceil(trail.length / 400), points = trail.filter((_, k) => k % every === 0 || k === trail.length - 1);
  drawCurves($("curves"), [
    { name: "distance of gradients", colour: colour("distance"), points: points.map(([at, value]) => [at, value]) },
    { name: "error, MSE", colour: colour("error"), points: points.map(([at, , ...all]) => [at, Math.max(...all)]) },
  ], iterations);
  $("pause").textContent = running ? "Pause" : "Go on";
  $("pause").disabled = $("step").disabled = Boolean(reason);
  const shown = $("attack").dataset;
  Object.assign(shown, { iteration: iterations, mse: worst, distance, reason: reason ?? "", running, frames: Number(shown.frames ?? 0) + 1 });
  if (reason) keepOutcome();
}

let spoken = 0;

/** Say what happens, not more often than a screen reader can. */
function say(text) {
  if ($("sentence").textContent === text || performance.now() - spoken < 700 && frame?.running) return;
  spoken = performance.now();
  $("sentence").textContent = text;
}

function sentence(error, reason) {
  if (error < 1e-6 && reason) return "Done: the gradients agree to the last digits, and so do the pictures.";
  if (error < 1e-3 && reason) return "It stops here, and the picture is out: what was done to the gradient only blurs it.";
  if (reason) return "It stops far from the picture: against this attacker, from this start, the defence holds.";
  if (error > 0.3) return "Still noise. The attacker sees only how far two gradients are apart, and walks downhill.";
  if (error > 0.03) return "Something takes shape: as the distance falls, the error falls with it.";
  if (error > 1e-3) return "It can be read. The attacker does not see the error, only the distance.";
  return "What changes now are digits behind the decimal point.";
}

/** Put what the last attack found among the outcomes. */
function keepOutcome() {
  if (!frame || frame.kept || frame.iterations < 20) return;
  frame.kept = true;
  const worst = frame.errors.indexOf(Math.max(...frame.errors)), text = `${setting}: MSE ${brief(frame.errors[worst])}`;
  $("outcomes").prepend(element("li", {}, picture(text, frame.images[worst]), text));
  while ($("outcomes").children.length > 12) $("outcomes").lastChild.remove();
}

$("start").addEventListener("click", () => { begun = true; changed(); });
$("pause").addEventListener("click", () => ask({ do: $("attack").dataset.running === "true" ? "pause" : "resume" }));
$("step").addEventListener("click", () => ask({ do: "step" }));
$("seed").addEventListener("click", () => { state.seed++; begun = true; changed(); });
addEventListener("hashchange", () => location.reload());

readLink();
buildControls();
repaint();
showStrengths();
connect();
ask({ do: "open", page });
changed();
