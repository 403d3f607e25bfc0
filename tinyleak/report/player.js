// Plays the moments of an attack: a slider, keys, curves.
"use strict";

const $ = (id) => document.getElementById(id);
const told = JSON.parse($("data").textContent);
const last = told.frames.length - 1;
const bytes = (text) => Float64Array.from(atob(text), (letter) => letter.charCodeAt(0) / 255);
const frames = told.frames.map(bytes);
const curves = told.curves.map(({ points, ...rest }) => ({
  ...rest,
  points: points.map(([at, value]) => [at, value ?? NaN]),
}));
let now = 0;
let timer = null;

function show(frame) {
  now = Math.min(last, Math.max(0, frame));
  paint($("found"), frames[now], told.shape);
  $("found").setAttribute("aria-label", `reconstruction, ${told.captions[now]}`);
  $("caption").textContent = told.captions[now];
  $("slider").value = String(now);
  $("slider").setAttribute("aria-valuetext", told.captions[now]);
  const named = curves.map((curve) => ({ ...curve, colour: colour(curve.colour) }));
  drawCurves($("curves"), named, told.most, told.iterations[now]);
}

function stop() {
  clearInterval(timer);
  timer = null;
  $("play").textContent = "►";
  $("play").setAttribute("aria-label", "play");
}

function play() {
  if (timer !== null) {
    stop();
    return;
  }
  if (now === last) show(0);
  $("play").textContent = "❚❚";
  $("play").setAttribute("aria-label", "pause");
  timer = setInterval(() => {
    show(now + 1);
    if (now === last) stop();
  }, 1000 / 6);
}

function go(frame) {
  stop();
  show(frame);
}

$("slider").max = String(last);
$("slider").addEventListener("input", () => go(Number($("slider").value)));
$("play").addEventListener("click", play);
for (const [id, step] of [
  ["first", -Infinity],
  ["back", -1],
  ["on", 1],
  ["end", Infinity],
])
  $(id).addEventListener("click", () => go(now + step));
addEventListener("keydown", (event) => {
  const own = event.target.closest?.("button, input"); // which has keys of its own
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (step && own?.id !== "slider") go(now + step);
  else if (event.key === " " && own?.tagName !== "BUTTON") play();
  else return;
  event.preventDefault();
});
whenSeenAnew(() => show(now));
if (told.truth) paint($("truth"), bytes(told.truth), told.shape);
show(0);
