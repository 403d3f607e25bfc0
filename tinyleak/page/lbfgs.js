// L-BFGS with tinyleak's own line search, for one problem: optim/line_search.py, descent.py and
// quasi_newton.py, whose rules and constants these are, explain each step.
"use strict";

const SUFFICIENT_DECREASE = 1e-4;
const CURVATURE = 0.8;
const MOST_TRIALS = 12;
const FIRST_MOVE = 0.1;
const NOISE = 10;
const PATIENCE = 10;
const HISTORY = 100;
const TOLERANCE_GRADIENT = 1e-15;
const TOLERANCE_CHANGE = 10 * Number.EPSILON;

const STEP = { accept: false, curvature: 0, scale: 0, length: 1, reason: null };

const isFinite = (e) => [e.value, e.slope, e.gradientNorm].every(Number.isFinite);

/** Search along d: yield the steps to evaluate, be sent what was found; [whether to take it, it]. */
function* strongWolfe(start, trial, noise, ceiling) {
  if (!(start.slope < 0)) return [false, trial];
  let low = start;
  let high = null;
  let before = start;
  for (let trials = 1; trials <= MOST_TRIALS; trials++) {
    const line = start.value + SUFFICIENT_DECREASE * trial.step * start.slope;
    if (!isFinite(trial) || trial.value > Math.min(Math.min(line, low.value) + noise, ceiling)) {
      high = trial;
    } else if (Math.abs(trial.slope) <= -CURVATURE * start.slope) {
      return [true, trial];
    } else {
      const falls = trial.slope * (high ? high.step - low.step : 1) < 0;
      high = falls ? high : low;
      [before, low] = [low, trial];
    }
    if (trials < MOST_TRIALS)
      trial = yield { ...STEP, length: high ? between(low, high, noise) : beyond(before, low) };
  }
  if (!(low.value < start.value)) return [false, trial];
  return [true, low === trial ? trial : yield { ...STEP, length: low.step }];
}

function between(low, high, noise) {
  const secant = Math.abs(high.value - low.value) <= noise && low.slope * high.slope < 0;
  const share = secant ? low.slope / (low.slope - high.slope) : cubicMinimum(low, high) || 0.1;
  return low.step + Math.min(Math.max(share, 0.1), 0.9) * (high.step - low.step);
}

function beyond(before, low) {
  const share = cubicMinimum(before, low) || 10;
  return before.step + Math.min(Math.max(share, 2), 10) * (low.step - before.step);
}

/** Where the cubic through a and b has its minimum, if any: 0 is at a, 1 at b. */
function cubicMinimum(a, b) {
  const width = b.step - a.step;
  const slopeA = a.slope * width;
  const slopeB = b.slope * width;
  const middle = slopeA + slopeB - 3 * (b.value - a.value);
  const square = middle * middle - slopeA * slopeB;
  if (!(square >= 0 && square < Infinity)) return null;
  const divisor = slopeB - slopeA + 2 * Math.sqrt(square);
  return divisor ? 1 - (slopeB + Math.sqrt(square) - middle) / divisor : null;
}

/** Descend with a line search, and by steepest descent where that fails: yields what to do next. */
function* descend() {
  let evaluation = yield STEP;
  if (!isFinite(evaluation)) yield { ...STEP, accept: true, reason: "non-finite" };
  const vanishing = TOLERANCE_GRADIENT * evaluation.gradientNorm;
  if (evaluation.gradientNorm <= vanishing) yield { ...STEP, accept: true, reason: "stationary" };
  const ceiling = evaluation.value;
  let lowest = evaluation.value;
  let flattest = evaluation.gradientNorm;
  let patience = PATIENCE;
  let hasPairs = false;
  let moved = FIRST_MOVE;
  let step = { ...STEP, accept: true, scale: moved / evaluation.gradientNorm };
  for (;;) {
    const here = evaluation;
    evaluation = yield step;
    const start = { ...here, step: 0, slope: evaluation.startSlope };
    const noise = NOISE * Number.EPSILON * Math.abs(here.value);
    let found;
    [found, evaluation] = yield* strongWolfe(start, evaluation, noise, ceiling);
    if (!found) {
      if (!hasPairs) yield { ...STEP, reason: isFinite(evaluation) ? "stalled" : "non-finite" };
      evaluation = here;
      hasPairs = false;
      step = { ...STEP, scale: moved / here.gradientNorm };
      continue;
    }
    if (evaluation.gradientNorm <= vanishing) yield { ...STEP, accept: true, reason: "stationary" };
    patience--;
    if (evaluation.value < lowest - TOLERANCE_CHANGE * Math.abs(lowest))
      [lowest, patience] = [evaluation.value, PATIENCE];
    if (evaluation.gradientNorm < flattest - TOLERANCE_CHANGE * flattest)
      [flattest, patience] = [evaluation.gradientNorm, PATIENCE];
    if (patience === 0) yield { ...STEP, accept: true, reason: "stalled" };
    moved = evaluation.step * evaluation.directionNorm;
    const curvature = evaluation.step * evaluation.slopeChange;
    hasPairs = hasPairs || curvature > 0;
    step = {
      ...STEP,
      accept: true,
      ...(hasPairs ? { curvature } : { scale: moved / evaluation.gradientNorm }),
    };
  }
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** y += c · x. */
function add(y, c, x) {
  for (let i = 0; i < y.length; i++) y[i] += c * x[i];
}

/** H from the last pairs s, y, each scaled to sᵀy = 1; before the first, H = scale · I. */
class InverseHessian {
  constructor() {
    this.forget(1);
  }

  forget(scale) {
    this.scale = scale;
    this.pairs = []; // the newest last
  }

  learn(s, y, curvature) {
    const root = Math.sqrt(curvature);
    this.pairs.push([s.map((x) => x / root), y.map((x) => x / root)]);
    if (this.pairs.length > HISTORY) this.pairs.shift();
    const newest = this.pairs.at(-1)[1];
    this.scale = 1 / dot(newest, newest);
  }

  /** −H·g, by the two-loop recursion (Nocedal and Wright, algorithm 7.4). */
  direction(g) {
    const d = g.slice();
    const shares = [];
    for (let k = this.pairs.length - 1; k >= 0; k--) {
      const [s, y] = this.pairs[k];
      shares[k] = dot(s, d);
      add(d, -shares[k], y);
    }
    for (let i = 0; i < d.length; i++) d[i] *= this.scale;
    this.pairs.forEach(([s, y], k) => add(d, shares[k] - dot(y, d), s));
    return d.map((x) => -x);
  }
}

const largest = (x) => x.reduce((most, one) => Math.max(most, Math.abs(one)), 0);

/**
 * Minimise f, which maps a Float64Array to [value, gradient]: yields every iterate,
 * { x, value, iterations, evaluations, reason }, the start first; the reason is null while it runs.
 */
function* lbfgs(f, start, { goal = 1e-20, most = 2000 } = {}) {
  const minimiser = descend();
  const hessian = new InverseHessian();
  let x = start.slice();
  let trial = x;
  let d = new Float64Array(x.length);
  let gradient = new Float64Array(x.length);
  let step = { ...minimiser.next().value, length: 0 };
  let value = NaN;
  let iterations = -1;
  let evaluations = 0;
  while (step.reason === null) {
    const [height, slopes] = f(trial);
    const change = slopes.map((g, i) => g - gradient[i]);
    evaluations++;
    const found = {
      step: step.length,
      slope: dot(slopes, d),
      slopeChange: dot(change, d),
      startSlope: dot(gradient, d),
      value: height,
      gradientNorm: largest(slopes),
      directionNorm: largest(d),
    };
    step = minimiser.next(found).value;
    if (isFinite(found) && height <= goal) step = { ...STEP, accept: true, reason: "converged" };
    if (step.reason === null && iterations + step.accept >= most)
      step = { ...STEP, accept: step.accept || height < value, reason: "out of iterations" };
    if (step.curvature > 0)
      hessian.learn(
        d.map((one) => found.step * one),
        change,
        step.curvature,
      );
    if (step.scale > 0) hessian.forget(step.scale);
    if (step.accept) [x, gradient, value, iterations] = [trial, slopes, height, iterations + 1];
    if (step.accept || step.scale > 0) d = hessian.direction(gradient);
    const here = x;
    trial = here.map((one, i) => one + step.length * d[i]);
    if (step.accept || step.reason)
      yield { x: x.slice(), value, iterations, evaluations, reason: step.reason };
  }
}
