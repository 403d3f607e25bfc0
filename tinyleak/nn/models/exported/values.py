"""The values of a graph while it runs: an exported graph is for one input, this is for any number.

A graph may fold the axis of one input into others, as attention does. So each input has a leading
axis of its own, in front of the shape that the graph knows: (…, N, 1, C, H, W) for (1, C, H, W).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from tinyleak.ops import reshape
from tinyleak.tensor import Tensor

Ints = tuple[int, ...]

MOST_NUMBERS = 2**28
"""How many numbers the windows of one layer, or the scores of attention, may be."""


class Value(NamedTuple):
    """A Tensor, of whose axes the last ones are those that the graph knows.

    What does not depend on the input may be without the leading axes.
    """

    tensor: Tensor
    rank: int

    @property
    def lead(self) -> Ints:
        """The leading axes: (*R, N), or none."""
        return self.tensor.shape[: self.tensor.ndim - self.rank]

    @property
    def shape(self) -> Ints:
        """The axes that the graph knows."""
        return self.tensor.shape[self.tensor.ndim - self.rank :]

    def reshaped(self, shape: Ints) -> Tensor:
        """Return it in another shape, the leading axes left alone."""
        return reshape(self.tensor, (*self.lead, *shape))

    def lifted(self, rank: int) -> Tensor:
        """Return it with so many axes that the graph knows: those in front have length 1."""
        return self.reshaped((*(1,) * (rank - self.rank), *self.shape))

    def axis(self, number: int, *, new: int = 0) -> int:
        """Return an axis that the graph knows, counted from the last of them: below 0."""
        rank = self.rank + new
        if not -rank <= number < rank:
            raise ValueError(f"axis {number} was given for {rank} axes")
        return number % rank - rank

    def each(self, keep: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a layer that takes and returns (*R, N, …), with `keep` axes after its batch N.

        Every axis before those, that of the inputs and the graph's own, is one batch meanwhile.
        """
        batch, inner = self.shape[: self.rank - keep], self.shape[self.rank - keep :]
        networks, inputs = self.lead[:-1], self.lead[-1:]
        found = function(reshape(self.tensor, (*networks, math.prod((*inputs, *batch)), *inner)))
        before, after = found.shape[: found.ndim - keep - 1], found.shape[found.ndim - keep :]
        inputs = inputs or (1,) * bool(before)  # a constant meets the weights of several networks
        return reshape(found, (*before, *inputs, *batch, *after))

    @property
    def weight(self) -> Tensor:
        """What belongs to a network, as layers take it: (*R, …), without the axis of the inputs.

        A weight that depends on the input is a ValueError.
        """
        if self.lead and self.lead[-1] != 1:
            raise ValueError("its weight depends on the input, which is not known here")
        return reshape(self.tensor, (*self.lead[:-1], *self.shape))


def require_room(*lengths: int) -> None:
    """Refuse, with ValueError, a layer that would make more numbers, the product of the lengths."""
    total = math.prod(max(1, length) for length in lengths)
    if total > MOST_NUMBERS:
        raise ValueError(f"it would make {total:,} numbers; {MOST_NUMBERS:,} are worked with")
