"""The search where a ReLU is above the layer: δ after δ is locked, then all are solved for.

See `lock` for how δ is told by the signs of the layer's answers.
"""

import math

import numpy as np

from tinyleak.analytic.known import CLEAR, GUESSED, HALF
from tinyleak.analytic.lock import GAP, LOOSE, MOST_ALIKE, NEW, blur, lock
from tinyleak.analytic.points import Points
from tinyleak.analytic.search import OUTSIDE, Search
from tinyleak.analytic.subspace import without
from tinyleak.backend import Array
from tinyleak.nn.losses import cross_entropy

SOFTNESS, SHARPER, SOFT_STEPS = (0.5, 0.2, 0.08), (0.03, 0.01, 0.003), 12
"""How soft the slopes are one after the other, in units of the spread of a layer's answers, and the
steps with each; from the second on it is tried to lock. The others are for leaky ReLUs above leaky
ones: there all must be right but for a few of the lowest, and every search for a record may end
where one of the upper is not."""

POWERS = 1.0, 50.0, -50.0
"""Of random numbers from 1 to 2: answers that are all positive, and as different as can be."""

NEAR_BY = -3.0, -0.5
"""Powers of ten, of its length, between which it is searched away from a known record."""

LEAST_NOISE = 1e-11
"""Of δ, relative to its length: what float64 leaves in a product of many factors."""

MISSES = 100
"""Attempts in a row that may lock nothing new, before what is known as a span is made use of. Of 96
records under two layers of ReLUs with 256 and 128 units all come back, and with 30 none."""


UNEVEN = 2.0
"""How many times as much of the missing δ a share may have as it has of the known ones: then it was
off by at most a third of what is allowed for (122 shares of 128, U(−0.5, 0.5))."""


class ReluSearch(Search):
    """The search where a ReLU is above the layer: all δ first, then the records that go with them.

    δ of a record does not determine it under a ReLU, but all δ together do: with the rows of A in
    the place of vᵢ, G = Σᵢ δᵢ (hᵢ, 1)ᵀ / N gives all (hᵢ, 1) up to their length. Of records that
    are alike it is enough to know what their δ span for all others to be found; without those,
    fewer dimensions are left, in which they come apart.
    """

    def run(self) -> None:
        """Take what extreme rays show; lock δ after δ, then solve for the records."""
        self.take_rays()
        space = self.space
        self.deviation = math.sqrt(self.layer.variance)
        self.noise = np.maximum(
            3.0 * self.deviation * math.sqrt(len(space.U)) / space.S, LEAST_NOISE
        )
        self.steepest = self.deltas.jacobian(np.ones(len(space.U)))
        apart = self.rng.uniform(1.0, 2.0, len(space.U)) ** np.array(POWERS)[:, np.newaxis]
        again = [self.deltas.jacobian(z) for z in apart]
        self.is_last_but_one = all(np.allclose(self.steepest, one) for one in again)
        leaks = bool(self.deltas.jacobian(-np.ones(len(space.U))).any(axis=0).all())
        sharper = leaks and not self.is_last_but_one
        self.softness: tuple[float, ...] = (*SOFTNESS, *SHARPER) if sharper else SOFTNESS
        self._forget_uncertified()
        told_by_rays = len(self.inputs) > 0 and np.sqrt(np.mean(self.noise**2)) > LOOSE
        at_once = True
        while not told_by_rays and not self._complete and self._time_left:
            before = self._missing
            self.guesses = []
            self._lock_all(at_once)
            self._solve()
            fit = len(self.inputs) < len(self.inputs) + len(self.guesses) <= len(space.S)
            if fit and self._missing and self._refine():
                self._forget_uncertified()
            if self._missing == before and not at_once:
                break
            at_once = at_once and self._missing < before / 2

    def _lock_all(self, at_once: bool) -> None:
        """Lock δ after δ, until there are as many as the space has dimensions.

        Args:
            at_once: whether a span of records that are alike is taken as soon as it is known, so
                that others are looked for; else only when no further δ comes.
        """
        hidden = np.eye(len(self.space.S))[self.noise >= 1.0 / GAP]
        self.known, misses = np.linalg.qr(np.vstack([hidden, self._vs]).T)[0].T, 0
        self.spans: list[Array] = []
        waiting: list[Array] = []
        while len(self.known) < len(self.space.S) and misses < MISSES and self._time_left:
            label = self._draw_label()
            found = False
            answers, span = self._attempt(label, self.space.U @ self.known.T)
            for answer in answers:
                if self._adds(answer[0][None]):
                    found = True
                    self.locked.append(answer)
                    if len(self.basis) > 1:
                        left = self.basis @ (answer[0] / self.space.S)
                        self.basis = without(self.basis, left)
            if not at_once:
                waiting.append(span)
            elif self._adds(span):
                found = True
                self.spans.append(span)
            misses = 0 if found else misses + 1
            self._note(label, found)
        self.spans += [span for span in sorted(waiting, key=len) if self._adds(span)]

    def _adds(self, vs: Array) -> bool:
        """Whether some of vs, (k, r), are outside of all that is known, to which they are added."""
        before, self.known = len(self.known), self._extended(self.known, vs)
        return len(self.known) > before

    def _extended(self, basis: Array, vs: Array) -> Array:
        """Return a basis of vectors, (k, r), and of those of vs that are more than blurred ones."""
        for v in vs:
            rest = v - basis.T @ (basis @ v)
            size = float(np.linalg.norm(rest))
            if size > max(NEW, GAP * blur(v, self.noise)):
                basis = np.vstack([basis, rest / size])
        return basis

    @property
    def _vs(self) -> Array:
        """All v that are locked: (M, r)."""
        return np.reshape([v for v, _, _ in self.locked], (-1, len(self.space.S)))

    def _attempt(
        self, label: int, known: Array
    ) -> tuple[list[tuple[Array, Array, int | None]], Array]:
        """Search from a random point with ever sharper slopes, and lock where that ends.

        Returns:
            What was locked; and the span of records that could not be told apart, (k, r).
        """
        points = self.space.points(self.basis)
        t, span = self._start(points), np.zeros((0, len(self.space.S)))
        outside, Q = 0.0 if self.bounds is None else OUTSIDE, self.columns
        noise = np.sqrt(np.square(Q) @ np.square(self.noise))
        for softness in self.softness:
            how = outside, softness, None, known
            t = self.descend(points, label, t, 1e-10, SOFT_STEPS, *how)
            c, _, z = points.at(t)
            if softness < SOFTNESS[0]:
                slopes, above = self._slopes(z)
                trust = 1.0 - np.exp(-np.abs(z) / (softness * z.std()))
                columns, zero_sum = self.space.U @ Q.T, self.deltas.loss is cross_entropy
                answers, alike = lock(columns, slopes, above, trust, noise, zero_sum=zero_sum)
                span = alike @ Q if len(alike) > MOST_ALIKE else span
                if answers:
                    # Of p − y the label's entry is what all others add up to.
                    return [
                        (v @ Q, c, None if e is None or not zero_sum else int(np.argmax(np.abs(e))))
                        for v, e in answers
                    ], span
        return [], span

    def _start(self, points: Points) -> Array:
        """Return t of a random point, or every other time of one near a record whose δ is known.

        Images may be alike, as parts of one photograph are, and a random mixture of such as differ
        little has a length, and signs, that none of them has.
        """
        if not self.locked or self.rng.random() < 0.5:
            return points.random(self.rng)
        t = points.nearest(self.locked[self.rng.integers(len(self.locked))][1])
        away = self.rng.standard_normal(len(t))
        size = float(np.linalg.norm(points.at(t)[1])) * 10.0 ** self.rng.uniform(*NEAR_BY)
        return t + away * (size / (np.linalg.norm(away @ points.h) + 1e-300))

    def _slopes(self, z: Array) -> tuple[Array, Array | None]:
        """Return the slopes of the ReLUs that the answers come to, (O,), and what is above them.

        With further ReLUs above, that is as it is at z, where those are leaky; else it is not
        needed, since where slopes are 0 δ is, whatever is above.
        """
        now = self.deltas.jacobian(z)
        if self.is_last_but_one:
            most = np.argmax(np.abs(self.steepest), axis=0), np.arange(len(z))
            return np.asarray(now[most] / self.steepest[most]), self.steepest.T
        slopes = (now != 0.0).any(axis=0).astype(float)
        return slopes, now.T if slopes.all() else None

    def _solve(self) -> None:
        """Find each record by what all δ say: it is at right angles to the others' duals."""
        S, vs = self.space.S, self._vs
        # Of records that are known as a span alone none has a share of its own.
        known, count, used = np.linalg.qr(vs.T)[0].T, 0, np.zeros((0, len(S)))
        for span in sorted(self.spans, key=len, reverse=True):
            if len(more := self._extended(known, span)) > len(known):
                known, used = more, np.vstack([used, span])
                count = len(self._extended(np.zeros((0, len(S))), used))
        span = np.linalg.svd(used)[2][:count]
        apart = np.linalg.norm(vs - vs @ span.T @ span, axis=1) > NEW
        alone = [one for one, far in zip(self.locked, apart, strict=True) if far]
        certified = int(apart[: len(self.inputs)].sum())
        vs = np.vstack([vs[apart], span])
        shares = np.linalg.pinv(vs).T[: len(alone)]
        missing = np.linalg.svd(vs)[2][len(vs) :]
        # What a share lacks is as long in each missing dimension as it is in a known one, about.
        lacks = min(1.0, UNEVEN * math.sqrt(len(missing) / len(vs)))
        rest = np.linalg.qr((missing * S).T)[0].T
        unknown = lacks * float(np.linalg.norm(missing * S))
        left: list[tuple[Array, int | None]] = []
        for share, (v, c, told) in list(zip(shares, alone, strict=True))[certified:]:
            if self._take_share(share, unknown, told):
                continue
            end = 0.0 if self.space.bias is None else float(share * S @ self.space.V[:, -1])
            row = share * S - (share * S) @ rest.T @ rest
            points = self.space.points(np.vstack([rest, row / np.linalg.norm(row)]))
            start = share * S / end if end else c
            if not self._settle(points, start, told, self.space.U @ v[:, None]):
                left.append((c, told))
        self._forget_uncertified()
        # A wrong δ, or a blurred one, as those of near twins are, spoils others: f itself decides.
        for c, told in left if len(self.basis) < len(self.targets) else []:
            if len(self.basis) and self._settle(self.space.points(self.basis), c, told):
                self._forget_uncertified()

    def _take_share(self, share: Array, unknown: float, told: int | None) -> bool:
        """Take the record that is a share of the gradient, as far as the gradient is explained.

        So δ may be missing of records that the gradient hardly shows.

        Args:
            share: (r,), what a record's δ has of each column of U and no other δ that is known.
            unknown: how much of the gradient a share of length 1 lacks, as δ are not known.
            told: its label.
        """
        c = share * self.space.S
        row = c @ self.space.V
        if self.space.bias is None or not row[-1]:
            return False
        noise = self.deviation * math.sqrt(len(c)) + unknown
        spread = float(np.linalg.norm(share)) * noise / abs(row[-1])
        far = spread > CLEAR * float(np.linalg.norm(row / row[-1]))
        return not far and self.take(row[:-1] / row[-1], told or 0, spread)

    def _settle(self, points: Points, c: Array, told: int | None, U: Array | None = None) -> bool:
        """Take a record near c, with the label told, or else another."""
        labels = sorted(range(len(self.targets)), key=lambda label: label != told)
        for label in labels[: 1 if told is not None and len(points.c) else None]:
            t = self.descend(points, label, points.nearest(c), U=U)
            at, h, _ = points.at(t)
            # With all δ known, h is a combination of the gradient's rows: so long is that.
            spread = self.deviation * math.sqrt(len(at)) * float(np.linalg.norm(at / self.space.S))
            spread = max(spread, self._spread(points, label, t, U))
            if spread < CLEAR * float(np.linalg.norm(h)):
                if self.take(h, label, spread):
                    return True
                told_of = self._certificates(h, [label], spread)
                near = told_of.delta_distances[0] < GUESSED and told_of.count_errors[0] < HALF
                if near and self._is_new(h, label):
                    self.guesses.append((h, label))
        return False

    def _forget_uncertified(self) -> None:
        """Keep of all δ only those of certified records, as these make them."""
        self.locked: list[tuple[Array, Array, int | None]] = []  # v, c near it, and the label
        self.basis = np.eye(len(self.space.S))
        self.columns = self.basis[self.noise < 1.0 / GAP]
        for h, label in zip(self.inputs, self.labels, strict=True):
            c = self._coordinates(h[None])[0]
            v = self._dual(label, c) * self.space.S
            self.locked.append((v / np.linalg.norm(v), c, label))
            if len(self.basis):
                self.basis = without(self.basis, self.basis @ (v / self.space.S))
                if len(self.columns):
                    self.columns = without(self.columns, self.columns @ (c / self.space.S))
