// The attack as one sees it, and who answers whom.
"use strict";

// What runs elsewhere: a worker, or this page in slices where there can be none.

let ask = (message) => sent.push(message);
const sent = [];

function connect() {
  const alone = () => {
    const later = (work) => setTimeout(work, 0),
      answer = serve(hear, later);
    ask = (message) => later(() => answer(message));
    sent.forEach((message) => ask(message));
  };
  try {
    const source = new Blob([$("engine").textContent], { type: "text/javascript" });
    const worker = new Worker(URL.createObjectURL(source));
    let works = false;
    worker.onmessage = ({ data }) => {
      works = true;
      hear(data);
    };
    worker.onerror = () => {
      if (!works) alone();
    };
    ask = (message) => {
      if (!works) sent.push(message);
      worker.postMessage(message);
    };
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

/** What is drawn or set has changed: the client shares anew; an attack that was begun starts anew. */
function changed() {
  keepOutcome();
  job++;
  ask({ do: "pause" });
  clearTimeout(timer);
  timer = setTimeout(() => {
    writeLink();
    const images = Float64Array.from(
      slots.flatMap(({ field }) => Array.from(pixelsOf(field.drawing, digits))),
    );
    state.labels = slots.map(({ label }) => Number(label.value));
    shared = { images };
    begin("share", { seed: state.seed + 1 }); // the noise is not the attacker's start
  }, 60);
}

/** Have the client share, or the attacker begin, with all that is set. */
function begin(what, more) {
  const { labels, weights } = state;
  ask({ do: what, job, ...shared, labels, weights, defence: defence(), ...more });
}

// 3. Attack.

function attack() {
  begun = true;
  [trail, frame, setting] = [[], null, described()];
  const { images } = shared;
  $("found").replaceChildren(
    ...slots.map((_, k) => {
      const found = element(
        "figure",
        {},
        picture(`Reconstruction ${k + 1}`),
        bars(),
        element("figcaption", {}, "found"),
      );
      const truth = element(
        "figure",
        { className: "truth" },
        picture(`Drawing ${k + 1}`, images.subarray(k * 784, (k + 1) * 784)),
        element("figcaption", {}, "drawn"),
      );
      return element("div", { className: "row" }, found, truth);
    }),
  );
  for (const id of ["pause", "step"]) $(id).disabled = false;
  $("start").textContent = "Attack again";
  begin("attack", { aware: Boolean(state.aware), seed: state.seed });
}

function bars() {
  const box = element("div", { className: "bars", ariaLabel: "Label probabilities" });
  box.setAttribute("role", "img");
  box.append(
    ...Array.from({ length: page.classes }, (_, d) => element("div", {}, element("i"), String(d))),
  );
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
  const { images, probabilities, errors, distance, iterations, running, reason } = frame;
  const worst = Math.max(...errors);
  [...$("found").children].forEach((row, k) => {
    const [canvas, chart] = row.firstChild.children;
    const best = probabilities[k].indexOf(Math.max(...probabilities[k]));
    paint(canvas, images[k], GREY);
    canvas.setAttribute(
      "aria-label",
      `Reconstruction ${k + 1} after ${iterations} iterations, MSE ${brief(errors[k])}`,
    );
    chart.setAttribute(
      "aria-label",
      `Most probable label: ${best}, ${Math.round(100 * probabilities[k][best])} %`,
    );
    [...chart.children].forEach((bar, d) => {
      bar.firstChild.style.height = `${Math.round(38 * probabilities[k][d])}px`;
    });
  });
  $("numbers").textContent =
    `iteration ${iterations} · ${state.batch > 1 ? "worst error" : "error"} (MSE) ${brief(worst)} · distance ${brief(distance)}`;
  const now = sentence(worst, reason); // a screen reader says it whenever it is put there
  if ($("sentence").textContent !== now) $("sentence").textContent = now;
  const every = Math.ceil(trail.length / 400);
  const points = trail.filter((_, k) => k % every === 0 || k === trail.length - 1);
  drawCurves(
    $("curves"),
    [
      {
        name: "distance of gradients",
        colour: colour("distance"),
        points: points.map(([at, value]) => [at, value]),
      },
      {
        name: "error, MSE",
        colour: colour("error"),
        points: points.map(([at, , ...all]) => [at, Math.max(...all)]),
      },
    ],
    iterations,
  );
  $("pause").textContent = running ? "Pause" : "Go on";
  $("pause").disabled = $("step").disabled = Boolean(reason);
  const shown = $("attack").dataset;
  Object.assign(shown, {
    iteration: iterations,
    mse: worst,
    distance,
    reason: reason ?? "",
    running,
    frames: Number(shown.frames ?? 0) + 1,
  });
  if (reason) keepOutcome();
}

function sentence(error, reason) {
  if (error < 1e-6 && reason)
    return "Done: the gradients agree to the last digits, and so do the pictures.";
  if (reason && setting === NONE)
    return error < 1e-3
      ? "It stops here, and the picture is out."
      : "A dead end, as some starts lead to: try another start. Lesson 9.";
  if (reason)
    return error < 1e-3
      ? "It stops here, and the picture is out: what was done to the gradient only blurs it."
      : "It stops far from the picture: from this start, the defence holds.";
  if (error > 0.3)
    return "Still noise. The attacker sees only how far two gradients are apart, and walks downhill.";
  if (error > 0.03) return "Something takes shape: as the distance falls, the error falls with it.";
  if (error > 1e-3)
    return "It can be read. The attacker does not see the error, only the distance.";
  return "What changes now are digits behind the decimal point.";
}

/** Put what the last attack found among the outcomes. */
function keepOutcome() {
  if (!frame || frame.kept || frame.iterations < 20) return;
  frame.kept = true;
  const worst = frame.errors.indexOf(Math.max(...frame.errors));
  const text = `${setting}: MSE ${brief(frame.errors[worst])}`;
  $("outcomes").prepend(element("li", {}, picture(text, frame.images[worst]), text));
  while ($("outcomes").children.length > 12) $("outcomes").lastChild.remove();
}

$("start").addEventListener("click", () => {
  begun = true;
  changed();
});
$("pause").addEventListener("click", () =>
  ask({ do: $("attack").dataset.running === "true" ? "pause" : "resume" }),
);
$("step").addEventListener("click", () => ask({ do: "step" }));
$("seed").addEventListener("click", () => {
  state.seed++;
  begun = true;
  changed();
});
addEventListener("hashchange", () => location.reload());

whenSeenAnew(() => {
  if (shared?.shared) showStrips();
  if (frame) showLatest();
});

readLink();
buildControls();
repaint();
showStrengths();
connect();
ask({ do: "open", page });
changed();
