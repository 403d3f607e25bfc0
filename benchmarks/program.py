"""Print the program of the attack: what tracing found, what was simplified, and every instruction.

Usage: python benchmarks/program.py [--batch N] [--attacks R] [--dtype float64|float32]
"""

from __future__ import annotations

import argparse

import numpy as np

from tinyleak import LeNet, data, trace
from tinyleak.attacks import Matching, starting_point
from tinyleak.client.simulated import simulate


def main() -> None:
    """Trace the gradient-matching objective of a LeNet on digits and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1, help="images in the client's batch")
    parser.add_argument("--attacks", type=int, default=1, help="attacks at once")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    args = parser.parse_args()

    model = LeNet()
    images, labels = data.load("glyphs").batch(range(args.batch))
    client = simulate(model, images, labels, dtype=args.dtype)
    matching = Matching(
        model, client.params, client.gradients, args.batch, np.ones((), dtype=args.dtype)
    )
    start = starting_point(model, args.batch, 0, args.attacks).astype(args.dtype)
    print(trace(matching.value_and_gradient, start))


if __name__ == "__main__":
    main()
