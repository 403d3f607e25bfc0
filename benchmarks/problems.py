"""The problem that the benchmarks time, as each library wants it: LeNet on MNIST's shapes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from peers import jax_objective, torch_objective

from tinyleak.attacks import Matching, starting_point
from tinyleak.attacks.dlg import objective
from tinyleak.attacks.stacked import Evaluator
from tinyleak.backend import device_module, to_device
from tinyleak.client import simulate
from tinyleak.data import load_glyphs
from tinyleak.nn import LeNet

MODEL = LeNet()
Call = Callable[[], object]


def installed(library: str) -> bool:
    """Return whether a peer can be imported."""
    return importlib.util.find_spec(library) is not None


@dataclass(frozen=True)
class Problem:
    """One client's gradient, and dummies that many attacks on it stand at.

    Attributes:
        batch: N, images in the client's batch.
        attacks: R, how many attacks are evaluated at once.
        dtype: "float32" or "float64".
        params: weights by name.
        shared: the client's gradient by name.
        z: (R, n), the dummies.
    """

    batch: int
    attacks: int
    dtype: str
    params: Mapping[str, np.ndarray]
    shared: Mapping[str, np.ndarray]
    z: np.ndarray

    @classmethod
    def draw(cls, batch: int, attacks: int, dtype: str) -> Problem:
        """Return the problem of this size: built-in digits, U(−0.5, 0.5) weights, noise."""
        digits = load_glyphs(batch)
        client, _ = simulate(MODEL, digits.images, digits.labels, dtype=dtype)
        z = starting_point(MODEL, batch, 0, attacks).astype(dtype)
        return cls(batch, attacks, dtype, client.params, client.gradients, z)

    def ours(self, device: str = "cpu") -> Call:
        """Return the call that evaluates all attacks, as L-BFGS makes it."""
        matching = self.matching(device)
        if device == "cpu" and self.attacks == 1:
            evaluate, one = objective(matching), self.z[0]
            return lambda: evaluate(one)
        evaluator = Evaluator(matching)
        z, rows = to_device(self.z, device_module(device)), np.arange(self.attacks)
        return lambda: evaluator(z, rows)

    def matching(self, device: str = "cpu") -> Matching:
        """Return the objective, the raw distance, on a device."""
        module = device_module(device)
        return Matching(
            MODEL,
            {name: to_device(weight, module) for name, weight in self.params.items()},
            {name: to_device(gradient, module) for name, gradient in self.shared.items()},
            self.batch,
            to_device(np.ones((), dtype=self.dtype), module),
        )

    def torch(self) -> Call:
        """Return the call that evaluates all attacks in PyTorch, one after the other."""
        objective = torch_objective(self.params, self.shared, self.batch)
        if self.attacks == 1:
            return lambda: objective(self.z[0])
        return lambda: [objective(z) for z in self.z]

    def jax(self) -> Call:
        """Return the call that evaluates all attacks in JAX, through vmap if there are several."""
        objective = jax_objective(self.params, self.shared, self.batch, many=self.attacks > 1)
        z = self.z if self.attacks > 1 else self.z[0]
        return lambda: objective(z)
