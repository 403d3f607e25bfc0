// What a client does to its gradient before it shares it, and what an attacker who knows can use:
// tinyleak's defenses/, on lists of Float64Arrays, one for each parameter.
"use strict";

/** Normal numbers from a seed: sfc32 (Doty-Humphrey's PractRand), and Box and Muller's transform. */
class Random {
  constructor(seed) {
    this.state = new Uint32Array([seed, seed / 2 ** 32, 0x9e3779b9, 1]);
    for (let k = 0; k < 20; k++) this.uniform();
  }

  /** A number in [0, 1). */
  uniform() {
    const s = this.state;
    const sum = (s[0] + s[1] + s[3]) >>> 0;
    s[3]++;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + sum;
    return sum / 2 ** 32;
  }

  normal() {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  normals(count) {
    return Float64Array.from({ length: count }, () => this.normal());
  }
}

/** The Euclidean norm of all gradients together. */
const norm = (gradients) => Math.sqrt(gradients.reduce((sum, g) => sum + dot(g, g), 0));

/** Round to so many significant bits, to even where two are as near; below 2^least to its multiples. */
function roundBits(x, bits, least) {
  if (x === 0 || !Number.isFinite(x)) return x;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), least);
  const step = 2 ** (exponent - bits + 1);
  return toEven(x / step) * step;
}

/** The nearest whole number, the even one of two that are as near. */
function toEven(x) {
  const down = Math.floor(x);
  const rest = x - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

const ROUNDINGS = {
  float16: (g) =>
    g.map((x) => {
      const y = roundBits(x, 11, -14);
      return Math.abs(y) > 65504 ? Math.sign(y) * Infinity : y;
    }),
  bfloat16: (g) => g.map((x) => roundBits(Math.fround(x), 8, -126)),
  int8(g) {
    const step = largest(g) / 127;
    return step ? g.map((x) => toEven(x / step) * step) : g;
  },
};

/** The gradients as they are shared: clipped, with noise, pruned and rounded, in that order. */
function protect(gradients, { clip, noise, prune, round }, seed) {
  let shared = gradients;
  if (clip) {
    const factor = Math.min(1, clip / (norm(shared) || clip));
    shared = shared.map((g) => g.map((x) => factor * x));
  }
  if (noise) {
    const draw = new Random(seed);
    const deviation = Math.sqrt(noise);
    shared = shared.map((g) => g.map((x) => x + deviation * draw.normal()));
  }
  if (prune) shared = shared.map((g) => withoutSmallest(g, prune));
  return round in ROUNDINGS ? shared.map(ROUNDINGS[round]) : shared;
}

function withoutSmallest(g, fraction) {
  const order = Array.from(g.keys()).sort((i, j) => Math.abs(g[i]) - Math.abs(g[j]) || i - j);
  const kept = g.slice();
  for (const i of order.slice(0, Math.floor(fraction * g.length + 1e-9))) kept[i] = 0;
  return kept;
}

const LEAST_SHARE = 0.1; // as in defenses/aware.py

/** How far each shared entry may be from the true one: its variance. */
function variances(g, { noise, prune, round }) {
  const step = largest(g) / 127;
  const bits = { float16: 11, bfloat16: 8 }[round];
  return g.map((x) => {
    let variance = noise || 0;
    if (prune && x === 0) variance = Infinity;
    if (round === "int8") variance += step ** 2 / 12;
    if (bits && x !== 0)
      variance += (2 ** (Math.floor(Math.log2(Math.abs(x))) + 1 - bits)) ** 2 / 12;
    return variance;
  });
}

/** What an attacker who knows the defences can use: precisions, and whether the direction alone tells. */
function knowledge(shared, defence) {
  const all = shared.map((g) => variances(g, defence));
  const means = all.map((v) => {
    const finite = v.filter(Number.isFinite);
    return finite.length ? finite.reduce((a, b) => a + b, 0) / finite.length : 0;
  });
  const noisy = Math.min(...means.filter((mean) => mean > 0));
  const precision = all.map((v, k) => {
    const least = LEAST_SHARE * (means[k] || (Number.isFinite(noisy) ? noisy : 1 / LEAST_SHARE));
    return v.map((one) => 1 / Math.max(one, least));
  });
  return { precision, direction: Boolean(defence.clip) };
}
