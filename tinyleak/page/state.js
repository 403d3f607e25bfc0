// What the page knows: its data, what is set and drawn, and the link that holds both.
"use strict";

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent);
const digits = Array.from({ length: page.digits.length }, (_, k) =>
  Float64Array.from(new Uint8Array(decoded(page.digits[k])), (x) => x / 255),
);
const GREY = [1, SIZE, SIZE];
const READY = 4; // ready digits stand for themselves; the first shown is READY
const OFF = { noise: -8.5, clip: 2.5 }; // where a slider of powers of ten means "not at all"

const state = {
  batch: 1,
  labels: [],
  weights: "untrained",
  seed: 1,
  noise: OFF.noise,
  prune: 0,
  clip: OFF.clip,
  round: "none",
  aware: 0,
};
let slots = [];
let active = 0;
let job = 0;
let shared = null;
let begun = false;
let frame = null;
let trail = [];
let setting = "";
let timer = null;
let painting = false;

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
  const parts = new URLSearchParams(KEPT.map((name) => [name, state[name]]));
  const { noise, clip } = defence();
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
  const pick = (name, all) => {
    if (all.includes(parts.get(name))) state[name] = parts.get(name);
  };
  const ranges = {
    seed: [0, 2 ** 32 - 1],
    noise: [-8, 0],
    prune: [0, 99],
    clip: [-3, 2],
    aware: [0, 1],
  };
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const given = Number(parts.get(name) ?? NaN);
    const power = Math.round(2 * Math.log10(given)) / 2; // as sliders have it
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
  const { noise, prune, clip, round } = defence();
  const parts = [];
  if (clip) parts.push(`clipped to ${brief(clip)}`);
  if (noise) parts.push(`noise ${brief(noise)}`);
  if (prune) parts.push(`${state.prune} % pruned`);
  if (round !== "none") parts.push(round);
  return parts.length
    ? `${parts.join(", ")}; attacker ${state.aware ? "knows" : "does not know"}`
    : "no defence";
}
