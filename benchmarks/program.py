"""Print the program of the attack: what tracing found, what was simplified, and every instruction.

Usage: python benchmarks/program.py [--batch N] [--attacks R] [--dtype float64|float32]
"""

from __future__ import annotations

import argparse

from tinyleak import Attacker, LeNet, Settings, data, simulate, trace
from tinyleak.attacks import problem_of


def main() -> None:
    """Trace the gradient-matching objective of a LeNet on digits and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1, help="images in the client's batch")
    parser.add_argument("--attacks", type=int, default=1, help="attacks at once")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    args = parser.parse_args()

    model = LeNet()
    images, labels = data.load("glyphs").batch(range(args.batch))
    client, _ = simulate(model, images, labels, dtype=args.dtype)
    settings = Settings(dtype=args.dtype)
    problem = problem_of(client, Attacker(restarts=args.attacks, settings=settings))
    starts = problem.starts.astype(args.dtype)
    z = starts[0] if args.attacks == 1 else starts
    print(trace(problem.matching.value_and_gradient, z))


if __name__ == "__main__":
    main()
