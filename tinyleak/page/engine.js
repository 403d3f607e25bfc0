// The client and the attack: what runs in a worker, so that the page never waits.
"use strict";

const SLICE = 25; // milliseconds of work between two pictures: forty a second

/** Every order of the numbers below n. */
function orders(n) {
  if (n === 0) return [[]];
  return orders(n - 1).flatMap((order) =>
    Array.from({ length: n }, (_, k) => [...order.slice(0, k), n - 1, ...order.slice(k)]),
  );
}

class Laboratory {
  /** `page` is what tinyleak/page/build.py writes: programs, weights, the shapes of the parameters. */
  constructor(page) {
    Object.assign(this, page);
    this.sizes = this.layers.map(([, shape]) => shape.reduce((a, b) => a * b, 1));
    this.opened = {};
    this.parameters = {};
    for (const [kind, text] of Object.entries(this.weights)) {
      const numbers = Float64Array.from(new Float32Array(decoded(text)));
      let stop = 0;
      this.parameters[kind] = this.sizes.map((size) => numbers.slice(stop, (stop += size)));
    }
  }

  /** A program of a batch size, opened when it is first needed. */
  program(batch, kind) {
    const key = `${batch} ${kind}`;
    this.opened[key] ??= program(this.programs[batch][kind]);
    return this.opened[key];
  }

  /** What a client computes: a gradient for each parameter. */
  gradients(images, labels, weights) {
    const targets = labels.flatMap((label) =>
      Array.from({ length: this.classes }, (_, k) => Number(k === label)),
    );
    return this.program(labels.length, "client").call(images, targets, ...this.parameters[weights]);
  }

  /** What it shares, and the digit that the network, the trained one, takes each image for. */
  share({ images, labels, weights, defence, seed }) {
    const gradients = this.gradients(images, labels, weights);
    const guesses = labels.map((label, k) => {
      const one = images.slice(k * this.pixels, (k + 1) * this.pixels);
      const bias = this.gradients(one, [label], Object.keys(this.parameters).at(-1)).at(-1); // p − y
      return bias.reduce(
        (best, x, j) => (x + (j === label) > bias[best] + (best === label) ? j : best),
        0,
      );
    });
    return { shared: protect(gradients, defence, seed), norm: norm(gradients), guesses };
  }

  /** The attack on what was shared: yields iterates with what the page shows of them. */
  *attack({ shared, images, labels, weights, defence, aware, seed }) {
    const batch = labels.length;
    const plain = { precision: shared.map((g) => g.map(() => 1)), direction: false };
    const { precision, direction } = aware ? knowledge(shared, defence) : plain;
    const squares = shared.reduce(
      (sum, g, k) => sum + g.reduce((all, x, i) => all + precision[k][i] * x * x, 0),
      0,
    );
    const scale = 1 / Math.sqrt(squares);
    const objective = this.program(batch, direction ? "direction" : "objective");
    const scaled = shared.map((g) => g.map((x) => scale * x));
    [[scale], ...this.parameters[weights], ...scaled, ...precision].forEach((x, k) =>
      objective.set(k + 1, x),
    );
    const evaluate = (z) => {
      objective.set(0, z);
      objective.run();
      return [objective.get(0)[0], objective.get(1)];
    };
    const start = new Random(seed).normals(batch * (this.pixels + this.classes));
    for (const { x, value, iterations, evaluations, reason } of lbfgs(evaluate, start)) {
      const found = x.slice(0, batch * this.pixels);
      const order = this.match(found, images, batch);
      const parts = order.map((k) => found.slice(k * this.pixels, (k + 1) * this.pixels));
      const errors = parts.map((part, k) => this.error(part, images, k));
      const probabilities = order.map((k) =>
        this.softmax(x, batch * this.pixels + k * this.classes),
      );
      yield {
        iterations,
        evaluations,
        distance: value,
        images: parts,
        errors,
        probabilities,
        reason,
      };
    }
  }

  error(part, images, k) {
    return (
      part.reduce((sum, x, i) => sum + (x - images[k * this.pixels + i]) ** 2, 0) / this.pixels
    );
  }

  /** The order in which the images found are nearest to the true ones: an attack finds them in any. */
  match(found, images, batch) {
    const cost = (order) =>
      order.reduce(
        (sum, k, to) =>
          sum + this.error(found.subarray(k * this.pixels, (k + 1) * this.pixels), images, to),
        0,
      );
    return orders(batch)
      .map((order) => [cost(order), order])
      .sort(([a], [b]) => a - b)[0][1];
  }

  softmax(x, start) {
    const z = Array.from(x.subarray(start, start + this.classes));
    const top = Math.max(...z);
    const powers = z.map((one) => Math.exp(one - top));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((one) => one / total);
  }
}

/** Answer messages: `post` sends one back, `later` does something once others could come in. */
function serve(post, later) {
  let laboratory;
  let steps = null;
  let job = 0;
  let running = false;
  let latest = null;

  function advance(milliseconds) {
    const until = performance.now() + milliseconds;
    const history = [];
    do {
      const { value, done } = steps.next();
      if (done) break;
      latest = value;
      history.push([value.iterations, value.distance, ...value.errors]);
    } while (performance.now() < until && !latest.reason);
    if (latest.reason) [running, steps] = [false, null];
    show(history);
  }

  function show(history) {
    post({ said: "frame", job, ...latest, history, running });
  }

  function pump(mine) {
    if (!running || mine !== job) return;
    advance(SLICE);
    later(() => pump(mine));
  }

  const answers = {
    open: ({ page }) => {
      laboratory = new Laboratory(page);
      post({ said: "ready" });
    },
    share: (request) => post({ said: "shared", job: request.job, ...laboratory.share(request) }),
    attack(request) {
      ({ job } = request);
      steps = laboratory.attack(request);
      running = true;
      pump(job);
    },
    pause() {
      if (!running) return;
      running = false;
      show([]);
    },
    resume() {
      if (steps && !running) {
        running = true;
        pump(job);
      }
    },
    step() {
      running = false;
      if (steps) advance(0);
    },
  };
  return (message) => answers[message.do](message);
}

/** In a worker there is no document: answer whoever made it. */
if (typeof document === "undefined" && typeof postMessage === "function") {
  const { port1, port2 } = new MessageChannel();
  const waiting = [];
  port1.onmessage = () => waiting.shift()();
  // A timer would wait four milliseconds each time; a message does not.
  const answer = serve(postMessage, (job) => {
    waiting.push(job);
    port2.postMessage(0);
  });
  onmessage = ({ data }) => answer(data);
}
