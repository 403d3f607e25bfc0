"""Records whose inputs are never negative, as extreme rays of a cone.

With H of the rows (hᵢ, 1) and V of the row space's basis, H = A V for an invertible A, so that each
column of V is A⁻¹ times a column of H. Where no input is negative, as after a ReLU, the columns of
V lie in the cone that the columns of A⁻¹ span. An entry that one record alone has, the others
having exact zeros there, is a multiple of one of these: an extreme ray. They are found by
successive projection (Araújo et al. 2001): the farthest column is one, and what lies along it is
then taken off all columns. That needs no labels, and nothing of the network above.
"""

import numpy as np

from tinyleak.backend import Array

LEAST = 1e-3  # columns shorter than this, relative to the longest, are left out: noise turns them
ALIKE = 3.0  # columns that differ by less, in units of their noise, are taken to be of one ray


def extreme_rays(V: Array, noise: Array) -> tuple[Array, Array] | None:
    """Return what the extreme rays say of the records.

    Args:
        V: (r, F + 1), orthonormal rows that span all (hᵢ, 1).
        noise: (r, m), what m independent numbers of variance 1 add to each column of V.

    Returns:
        (r, r), a row for each record, in any order, in coordinates of V: where each record has an
        entry of its own they are the records, and otherwise others. And (r,), how far noise may
        have moved each. None if the columns do not lie in one half-space, so that some input must
        be negative.
    """
    from scipy.optimize import linprog

    lengths, rank = np.linalg.norm(V, axis=0), len(V)
    columns = V[:, lengths > LEAST * lengths.max()]
    lengths = np.linalg.norm(columns, axis=0)
    columns = columns / lengths
    # Of all ℓ the one whose least product with a column is largest; that leads all to one plane.
    count = columns.shape[1]
    inside = linprog(
        np.append(np.zeros(rank), -1.0),
        A_ub=np.column_stack([-columns.T, np.ones(count)]),
        b_ub=np.zeros(count),
        bounds=[(-1.0, 1.0)] * rank + [(None, None)],
        method="highs",
    )
    if inside.status != 0 or inside.x[-1] <= 0.0:
        return None
    heights = inside.x[:rank] @ columns
    in_noise = np.linalg.pinv(noise) @ columns / np.sqrt(rank)
    columns, chosen = columns / heights, []
    rest = columns.copy()
    for _ in range(rank):
        farthest = int(np.argmax(np.square(rest).sum(axis=0)))
        # Noise makes short columns the farthest; of all that may lie along the ray the longest.
        apart = np.linalg.norm(in_noise - in_noise[:, [farthest]], axis=0)
        alike = apart < ALIKE * (1.0 / lengths + 1.0 / lengths[farthest])
        chosen.append(int(np.argmax(np.where(alike, lengths, 0.0))))
        along = rest[:, farthest] / np.linalg.norm(rest[:, farthest])
        rest -= np.outer(along, along @ rest)
    rays = columns[:, chosen]
    if not np.linalg.cond(rays) < 1.0 / np.finfo(float).eps:
        return None
    A = np.linalg.inv(rays)
    ends = A @ V[:, -1]
    # Noise E in the rays changes A by −A E A, to first order.
    moved = np.linalg.norm(A, axis=1) / (lengths * heights)[chosen]
    spread = np.linalg.norm(A @ noise, axis=1) * np.linalg.norm(moved)
    some = ends != 0.0
    return A[some] / ends[some, np.newaxis], spread[some] / np.abs(ends[some])
