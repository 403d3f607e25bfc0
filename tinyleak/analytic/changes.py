"""What was done to a gradient before it was shared, as its numbers alone show."""

from collections.abc import Mapping

import numpy as np

from tinyleak.analytic.cause import Cause
from tinyleak.analytic.number_format import COMPUTED
from tinyleak.backend import Array

ENOUGH = 100  # a tensor of fewer entries does not show by its zeros whether it was pruned

CUT = 0.1
"""Entries go down to zero evenly, so as many lie between a cut and twice that as were cut off. A
ReLU's zeros are far more than the smallest entries beside them: a tenth tells them apart."""

DIFFERENT, FIFTY = 0.75, 50
"""What share of those are different to four digits, or of fifty, since bfloat16 has but 128 such
numbers. Beside a ReLU's zeros, of a constant or a striped image, most were the same."""

UNDERFLOW = 10.0  # an entry that vanishes below so many times its own rounding did so by itself

TINY = 1e-6
"""Relative to the largest. Where probabilities are so small that float32 makes them zero, others
are nearly zero as well, and pruning leaves none of those."""

BOUND = 10  # so many entries are no accident

NEAR = 1e-5
"""How near a norm is to a round number that it was clipped to: PyTorch adds 10⁻⁶ to the norm that
it divides by, and float32 adds squares to five digits or more."""

FAR = 1e-3
"""How far from zero a row of a weight's gradient is to be, relative to the largest, and how far
above rounding, where its bias's is exactly zero."""


def pruning(
    gradients: Mapping[str, Array],
    deviation: Mapping[str, Array],
    written: str,
    layers: list[tuple[str, str | None]],
) -> tuple[float, Cause | None]:
    """Return the share of all entries that are zeros as pruning leaves them, and the cause.

    A ReLU's dead units, black pixels and tokens that do not occur make whole rows or columns zero;
    pruning makes scattered zeros, and nothing is left that is nearly zero.

    Args:
        gradients: by name.
        deviation: the standard deviation of the rounding of each entry, by name.
        written: in which numbers, as `number_format` says.
        layers: the names of each layer's weight and bias, in order.
    """
    if written == "int8":
        return 0.0, None
    zeros = 0
    shares: list[float] = []
    for name, array in gradients.items():
        if array.size < ENOUGH or not array.any():
            continue
        table = array.reshape(len(array), -1) != 0
        inner = table[table.any(axis=1)][:, table.any(axis=0)]
        sizes = np.abs(array[array != 0])
        least = float(sizes.min())
        scattered = int(inner.size - inner.sum())
        near = sizes[sizes < 2 * least]
        different = len(np.unique(np.round(near / least, 4)))
        # Of the last layer an entry is zero only with its whole row or column, unless float32 makes
        # probabilities zero, as then it does of all images for some class.
        last = name == layers[-1][0] and written in COMPUTED and table.any(axis=1).all()
        enough = max(BOUND, CUT * scattered)
        rounded = UNDERFLOW * float(deviation[name][array == 0].mean()) if scattered else 0.0
        rounded = max(rounded, TINY * float(sizes.max()))
        even = different >= DIFFERENT * min(len(near), FIFTY) and len(near) >= enough
        if scattered < BOUND or not (last or even) or least <= rounded:
            continue
        zeros += int(array.size - len(sizes))
        shares.append(1.0 - len(sizes) / array.size)
    if not shares and written in COMPUTED:
        shares = _without_bias(gradients, deviation, layers)
    if not shares:
        return 0.0, None
    alike = max(shares) - min(shares) < 0.01
    share = float(np.mean(shares)) if alike else zeros / sum(g.size for g in gradients.values())
    option = f"prune:{share:.2g}" if alike else f"prune-global:{share:.2g}"
    text = f"{share:.0%} of the entries are zeros scattered among others that are far from zero"
    return share, Cause("pruning", text, f"--defense {option} --aware", sure=True)


def _without_bias(
    gradients: Mapping[str, Array],
    deviation: Mapping[str, Array],
    layers: list[tuple[str, str | None]],
) -> list[float]:
    """Return what share of biases is zero in layers of which some weight's row is not.

    A unit whose bias has no gradient has none at all. The last layer is not asked: where images are
    judged wrongly with certainty its δ are 1 or −1, whose sum may be zero. Where they all are, the
    layers below have zeros as well.
    """
    found: list[float] = []
    if layers[-1][1] is not None and layers[-1][1] not in gradients:
        return found  # it may be such a sum, of nothing but zeros
    for weight, bias in reversed(layers):
        if weight not in gradients or bias is None or bias not in gradients:
            continue
        sizes = np.abs(gradients[weight]).reshape(len(gradients[weight]), -1).max(axis=1)
        least = max(FAR * float(sizes.max()), float(deviation[bias].max()) / FAR)
        # A bias that all logits of an attention have alike has none but for rounding.
        shown = float(np.abs(gradients[bias]).max()) > NEAR * float(sizes.max())
        if weight == layers[-1][0]:
            if not shown:
                break
        elif shown and (sizes[gradients[bias] == 0] > least).any():
            found.append(float(np.mean(gradients[bias] == 0)))
    return found


def clipping(gradients: Mapping[str, Array], *, update: bool) -> Cause | None:
    """Return the cause if all entries are bounded by one value, or their norm is a round number."""
    row = np.abs(np.concatenate([array.ravel() for array in gradients.values()]))
    largest = float(row.max())
    bound = int((row >= largest * (1.0 - 1e-6)).sum())
    # Saturated features make entries of one row alike, or of two classes, but not of more.
    wide = [array.reshape(len(array), -1) for array in gradients.values() if array.ndim > 1]
    reached = sum(
        int((np.abs(table).max(axis=1) >= largest * (1.0 - 1e-6)).sum()) for table in wide
    )
    if not update and reached > 2 and BOUND <= bound < 0.5 * len(row):
        return Cause(
            "clipping", f"{bound} entries are as large as the largest, {largest:.3g}", sure=True
        )
    norm = largest * float(np.linalg.norm(row / largest))
    digit = float(f"{norm:.0e}")
    for round_number in (digit, 1.5 * digit, 2.5 * digit):
        if abs(norm / round_number - 1.0) < NEAR:
            text = f"its norm is {norm:.6g}, as of a gradient clipped to {round_number:g}"
            return Cause("clipping", text, f"--defense clip:{round_number:g}")
    return None


def written_coarsely(written: str, gradients: Mapping[str, Array]) -> Cause | None:
    """Return the cause if the numbers were rounded to fewer digits than they were computed with."""
    if written == "int8":
        levels = max(len(np.unique(array)) for array in gradients.values())
        what = "its sign" if levels <= 3 else f"one of {levels} evenly spaced levels"
        advice = "" if levels <= 3 else "--defense int8 --aware"
        return Cause("rounding", f"each entry is {what}", advice, sure=True)
    if written in ("float16", "bfloat16"):
        text = f"each entry is a number of {written}"
        return Cause("rounding", text, f"--defense {written} --aware", sure=True)
    return None
