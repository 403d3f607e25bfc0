"""The problem that the benchmarks time, as each library wants it: LeNet on MNIST's shapes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from peers import jax_objective, torch_objective

from tinyleak.attacks import starting_point
from tinyleak.attacks.evaluate import Evaluator
from tinyleak.backend import device_module, to_device
from tinyleak.client.simulated import simulate
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
    params: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    z: np.ndarray

    @classmethod
    def draw(cls, batch: int, attacks: int, dtype: str) -> Problem:
        """Return the problem of this size: built-in digits, U(−0.5, 0.5) weights, noise."""
        digits = load_glyphs(batch)
        client = simulate(MODEL, digits.images, digits.labels, dtype=dtype)
        z = starting_point(MODEL, batch, 0, attacks).astype(dtype)
        return cls(batch, attacks, dtype, client.params, client.gradients, z)

    def ours(self, device: str = "cpu") -> Call:
        """Return the call that evaluates all attacks, as L-BFGS makes it."""
        module = device_module(device)
        evaluator = Evaluator(
            MODEL,
            {k: to_device(v, module) for k, v in self.params.items()},
            {k: to_device(v, module) for k, v in self.shared.items()},
            self.batch,
            to_device(np.asarray(1.0, dtype=self.dtype), module),
        )
        z, rows = to_device(self.z, module), np.arange(self.attacks)
        return lambda: evaluator(z, rows)

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
