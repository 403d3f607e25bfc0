"""Whether the tool's verdicts can be trusted: clients of every kind, made by PyTorch, with a truth.

    python benchmarks/verdicts.py                        every situation, five clients of each
    python benchmarks/verdicts.py --random 200 --seed 7  clients drawn at random from the same space
    python benchmarks/verdicts.py --only "LeNet, Adam"   situations whose names begin so

Each client's files go through `tinyleak attack` and `tinyleak audit` in this process, and what they
say is held against the truth. Counted are

- false successes: the verdict is "exact", or the exit code 0, and the images are others (a mean
  squared error of 1e-3 or more in the order that fits best, of pixels in [0, 1]); an image that is
  certified and is another counts likewise;
- false all-clears: the audit says that the gradient hides the image or does not determine it, and
  the attack, or the first layer's gradient divided by its bias's, has it;
- true successes lost: those of another version (--before), which this one does not call success;
- causes named: of the clients that are not what is assumed, and whose images did not come back,
  the share of which the first two causes have a right one: what is different, or what brings the
  images back once its advice is followed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from situations import (
    PIXELS,
    SITUATIONS,
    Made,
    Setting,
    accounted_for,
    make,
    random_setting,
    right_causes,
)

from tinyleak.cli import attack_result
from tinyleak.cli import main as tinyleak
from tinyleak.metrics import matched_mse

RECOVERED = 1e-3
NAMED = 2
"""How many of the causes a person reads."""

SEEDS = 5
"""Clients of each situation."""

NOTHING = "nothing can be read from"
"""How a client is refused whose gradient is zero: there is no cause to name."""

ITERATIONS = 600
PICTURES = ("emergence", "curves", "save", "player")
CLEAR = ("hides", "does not determine")


@dataclass(frozen=True)
class Row:
    """What was said of one client, and what is true.

    Attributes:
        name: of its situation.
        seed: its number there.
        code: the exit code of the attack.
        verdict: its verdict, or "refused".
        mse: of the images found, the largest.
        expected_mse: what the attack expects of it, or None.
        certified: how many images that are others are certified.
        causes: the names of the causes given.
        right: the names of causes that are right; none if all is as assumed, or accounted for.
        mended: whether the advice on one of the first causes brought the images back; only tried
            where none of them is among the right ones.
        clear: whether the audit gave an all-clear.
        shown: the error of what the first layer shows, or None.
        said: the audit's first sentence, or what a refusal said.
        seconds: processor time.
    """

    name: str
    seed: int
    code: int
    verdict: str
    mse: float
    expected_mse: float | None
    certified: int
    causes: list[str]
    right: list[str]
    clear: bool
    shown: float | None
    said: str
    seconds: float
    mended: bool = False

    @property
    def there(self) -> bool:
        """Whether the images came back."""
        return self.mse < RECOVERED

    @property
    def called_success(self) -> bool:
        return self.code == 0 or self.verdict == "exact"

    @property
    def false_success(self) -> bool:
        return (self.called_success and not self.there) or self.certified > 0

    @property
    def false_clear(self) -> bool:
        return self.clear and (self.there or (self.shown is not None and self.shown < RECOVERED))

    @property
    def named(self) -> bool | None:
        """Whether a right cause was named; None if there is nothing to name."""
        if not self.right or (self.there and self.called_success) or NOTHING in self.said:
            return None
        if self.verdict == "refused":
            return any(name in self.said for name in self.right)
        return self.mended or any(name in self.right for name in self.causes[:NAMED])


def ask(*arguments: str) -> tuple[int, str, str]:
    """Return the exit code of a command, what it prints, and what it complains of."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = tinyleak(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def look(name: str, setting: Setting, seed: int, iterations: int, *, audit: bool = True) -> Row:
    """Make one client, attack it and audit it."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make(setting, seed, folder)
        out = folder / "attack"
        asked = ["--iterations", str(iterations), "--out", str(out), "--quiet"]
        code, _, complaint = ask("attack", *made.arguments, *asked)
        result, mse, wrong, known = {}, np.inf, 0, set[str]()
        if code != 2:
            result = json.loads((out / "result.json").read_text())
            found = np.load(out / "reconstruction.npz")["images"]
            mse, wrong = judged(found, result.get("certified"), made, setting)
            known = accounted_for(setting, result)
        said, clear = complaint.strip(), False
        if made.gradient and audit:
            audited, text, complaint = ask("audit", *made.arguments, "--examples", "2")
            sentence = first_sentence(text) if audited == 0 else complaint.strip()
            said, clear = said or sentence, any(word in sentence.split(";")[0] for word in CLEAR)
        causes = result.get("causes", [])
        right = sorted(right_causes(setting) - known)
        mended = bool(right) and mse >= RECOVERED
        mended = mended and not any(cause["name"] in right for cause in causes[:NAMED])
        mended = mended and any(
            _mends(cause["advice"], [*made.arguments, *asked], out, made, setting)
            for cause in causes[:NAMED]
        )
    truth = made.images
    shown = None
    if made.shown is not None and truth is not None:
        shown = float(np.mean((made.shown - truth) ** 2))
    return Row(
        name=name,
        seed=seed,
        code=code,
        verdict=verdict_of(result),
        mse=mse,
        expected_mse=result.get("expected_mse"),
        certified=wrong,
        causes=[cause["name"] for cause in causes],
        right=right,
        clear=clear,
        shown=shown,
        said=said,
        seconds=time.process_time() - began,
        mended=mended,
    )


def _mends(advice: str, asked: list[str], out: Path, made: Made, setting: Setting) -> bool:
    """Whether an attack brings the images back once the advice is followed."""
    if not advice or ask("attack", *asked, *advice.split(), "--force")[0] == 2:
        return False
    found = np.load(out / "reconstruction.npz")["images"]
    return judged(found, None, made, setting)[0] < RECOVERED


def judged(
    found: np.ndarray, certified: list[bool | None] | None, made: Made, setting: Setting
) -> tuple[float, int]:
    """Return the largest error, and how many certified images are none of the client's.

    The images found may have their pixels in [0, 1], or as the network saw them.
    """
    if made.images is None or len(found) == 0:
        return np.inf, sum(one is True for one in certified or [])
    mean, deviation = PIXELS[setting.pixels]
    largest, far = np.inf, np.full(len(found), np.inf)
    for reading in (found, mean + deviation * found):
        with np.errstate(all="ignore"):
            apart = np.square(reading[:, None] - made.images).mean(axis=(2, 3, 4))
            far = np.fmin(far, apart.min(axis=1))
            if len(found) == len(made.images):
                largest = np.fmin(largest, matched_mse(reading, made.images).max())
            else:  # one image said to be two may come back as two of it
                largest = np.fmin(largest, max(apart.min(axis=1).max(), apart.min(axis=0).max()))
    is_other = [
        one is True and f >= RECOVERED for one, f in zip(certified or (), far, strict=False)
    ]
    return float(largest), int(sum(is_other))


def verdict_of(result: dict[str, Any]) -> str:
    """Return the verdict; that of a version without verdicts is success or not."""
    if not result:
        return "refused"
    return result.get("verdict") or ("exact" if result["succeeded"] else "not explained")


def first_sentence(text: str) -> str:
    """Return what stands beside "expect" in an audit's lines."""
    _, _, after = text.partition("\nexpect")
    lines = after.splitlines()
    following = itertools.takewhile(lambda line: line.startswith("  "), lines[1:])
    return " ".join(" ".join([*lines[:1], *following]).split())


# The table


def table(rows: list[Row], before: dict[tuple[str, int], bool]) -> str:
    """Return a line for each situation: how many of its clients got which verdict."""
    heading = (
        f"{'situation':<34}{'exact':>6}{'cons.':>6}{'not':>5}{'ref.':>5}{'there':>6}"
        f"{'before':>7}{'lost':>5}{'false':>6}{'clear':>6}{'named':>7}  causes named"
    )
    lines = [heading]
    for name in dict.fromkeys(row.name for row in rows):
        some = [row for row in rows if row.name == name]
        count = {kind: sum(row.verdict == kind for row in some) for kind in KINDS}
        named = [row.named for row in some if row.named is not None]
        was = [before[row.name, row.seed] for row in some if (row.name, row.seed) in before]
        first = [" + ".join(row.causes[:NAMED]) or "none" for row in some]
        lines.append(
            f"{name:<34}{count['exact']:>6}{count['consistent']:>6}{count['not explained']:>5}"
            f"{count['refused']:>5}{sum(row.there for row in some):>6}"
            f"{sum(was) if was else '':>7}{sum(lost(row, before) for row in some):>5}"
            f"{sum(row.false_success for row in some):>6}{sum(row.false_clear for row in some):>6}"
            f"{f'{sum(named)}/{len(named)}' if named else '':>7}  "
            f"{max(first, key=first.count)}"
        )
    return "\n".join(lines)


KINDS = ("exact", "consistent", "not explained", "refused")


def lost(row: Row, before: dict[tuple[str, int], bool]) -> bool:
    """Whether a true success of another version is none now."""
    return before.get((row.name, row.seed), False) and not (row.there and row.called_success)


def summary(rows: list[Row], before: dict[tuple[str, int], bool]) -> str:
    """Return the line that matters."""
    named = [row.named for row in rows if row.named is not None]
    share = f"{sum(named)} of {len(named)}" + (f" ({np.mean(named):.0%})" if named else "")
    many = len({row.name for row in rows})
    successes = sum(row.there and row.called_success for row in rows)
    against = f"{sum(lost(row, before) for row in rows)} true successes lost, " if before else ""
    return (
        f"{len(rows)} clients in {many} situations: {sum(row.false_success for row in rows)} false "
        f"successes, {sum(row.false_clear for row in rows)} false all-clears, {against}"
        f"{successes} true successes; a right cause named for {share} of the clients that are not "
        f"what is assumed and were not recovered; {sum(row.seconds for row in rows):.0f} s"
    )


def main() -> int:
    """Do what the command line asks for: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one client of each situation")
    parser.add_argument("--random", type=int, metavar="N", help="N clients at random instead")
    parser.add_argument("--seed", type=int, default=1000, help="of those (default: 1000)")
    parser.add_argument("--no-audit", action="store_true", help="attack only")
    parser.add_argument("--from", dest="start", default="", help="the situation to start with")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="clients of each (default: 5)")
    parser.add_argument("--only", default="", help="situations whose names begin so")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--rows", type=Path, help="where to write a line of JSON for each client")
    parser.add_argument("--before", type=Path, help="such lines of another version")
    parser.add_argument("--out", type=Path, help="where to write the table (default: printed only)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clients = [
        (name, setting, seed)
        for name, setting in SITUATIONS.items()
        for seed in range(1 if args.quick else args.seeds)
    ]
    if args.random is not None:
        rng = np.random.default_rng(args.seed)
        settings = [random_setting(rng) for _ in range(args.random)]
        clients = [(f"random {args.seed}.{i}", one, 0) for i, one in enumerate(settings)]
    names = [name for name, _, _ in clients]
    clients = clients[names.index(args.start) if args.start else 0 :]
    clients = [one for one in clients if one[0].startswith(args.only)]
    before = {}
    if args.before is not None:
        for line in args.before.read_text().splitlines():
            old = Row(**json.loads(line))
            before[old.name, old.seed] = old.there and old.called_success
    rows = []
    with contextlib.ExitStack() as stack:
        # Drawing takes seconds, and nothing here is about it.
        for name in PICTURES:
            stack.enter_context(mock.patch.object(attack_result, name, lambda *a, **k: None))
        for name, setting, seed in clients:
            row = look(name, setting, seed, args.iterations, audit=not args.no_audit)
            rows.append(row)
            _report(row, setting, before)
            if args.rows is not None:
                with args.rows.open("a") as file:
                    file.write(json.dumps(vars(row)) + "\n")
    text = f"{table(rows, before)}\n\n{summary(rows, before)}\n"
    print(text if args.random is None else summary(rows, before))
    if args.out is not None:
        args.out.write_text(text)
    return int(any(row.false_success or row.false_clear or lost(row, before) for row in rows))


def unusual(setting: Setting) -> str:
    """Return what a client has that is not usual."""
    usual = vars(Setting())
    return ", ".join(f"{k}={v!r}" for k, v in vars(setting).items() if v != usual[k])


def _report(row: Row, setting: Setting, before: dict[tuple[str, int], bool]) -> None:
    """Print what is wrong with one client, so that it can be run again."""
    faults = {
        "FALSE SUCCESS": row.false_success,
        "FALSE ALL-CLEAR": row.false_clear,
        "LOST": lost(row, before),
        "not named": row.named is False,
    }
    for fault in (fault for fault, is_there in faults.items() if is_there):
        print(
            f"{fault}: {row.name}, seed {row.seed}: {row.verdict}, code {row.code}, MSE "
            f"{row.mse:.1e}, causes {row.causes}, right {row.right}; {row.said[:150]}\n"
            f"    {unusual(setting)}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(main())
