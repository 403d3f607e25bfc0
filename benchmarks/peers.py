"""The same objective in PyTorch and JAX: value and both gradients of the gradient distance.

Weights, shared gradients and dummies are given as NumPy arrays with tinyleak's names and layouts.
The distance is the raw one, not divided by anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

STRIDES = (2, 2, 1)
CLASSES = 10
PIXELS = 28 * 28

Arrays: TypeAlias = Mapping[str, np.ndarray]
Objective: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
TorchObjective: TypeAlias = "Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]"


def torch_objective(params: Arrays, shared: Arrays, batch: int) -> Objective:
    """Return the objective of one attack on z: (n,), in PyTorch's eager mode."""
    import torch

    evaluate = torch_matching(params, shared, batch)

    def objective(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = evaluate(torch.as_tensor(z))
        return value.numpy(), gradient.numpy()

    return objective


def torch_matching(
    params: Arrays, shared: Arrays, batch: int, device: str = "cpu"
) -> TorchObjective:
    """Return the objective of one attack on a tensor z: (n,), which lives on the device."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    torch.set_num_threads(1)
    weights = {k: torch.tensor(v, device=device, requires_grad=True) for k, v in params.items()}
    target = [torch.tensor(shared[name], device=device) for name in params]

    def loss(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for layer, stride in enumerate(STRIDES):
            w, b = weights[f"body.{2 * layer}.weight"], weights[f"body.{2 * layer}.bias"]
            x = torch.sigmoid(F.conv2d(x, w, b, stride=stride, padding=2))
        logits = F.linear(x.flatten(1), weights["fc.0.weight"], weights["fc.0.bias"])
        return -(labels * F.log_softmax(logits, -1)).sum() / batch

    def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dummy = z.detach().requires_grad_(True)
        x = dummy[: batch * PIXELS].reshape(batch, 1, 28, 28)
        labels = torch.softmax(dummy[batch * PIXELS :].reshape(batch, CLASSES), -1)
        found = torch.autograd.grad(loss(x, labels), list(weights.values()), create_graph=True)
        parts = [((a - b) ** 2).sum() for a, b in zip(found, target, strict=True)]
        distance = sum(parts[1:], start=parts[0])
        (gradient,) = torch.autograd.grad(distance, dummy)
        return distance.detach(), gradient

    return evaluate


def jax_objective(params: Arrays, shared: Arrays, batch: int, *, many: bool = False) -> Objective:
    """Return the jitted objective on z: (n,), or on (R, n) through vmap if `many`."""
    import jax
    import jax.numpy as jnp

    # Without this JAX computes float64 in float32; float32 stays float32 either way.
    jax.config.update("jax_enable_x64", True)
    weights = {k: jnp.asarray(v) for k, v in params.items()}
    target = {k: jnp.asarray(v) for k, v in shared.items()}

    def loss(w: dict[str, Any], x: Any, labels: Any) -> Any:
        for layer, stride in enumerate(STRIDES):
            x = jax.lax.conv_general_dilated(
                x,
                w[f"body.{2 * layer}.weight"],
                (stride, stride),
                [(2, 2), (2, 2)],
                dimension_numbers=("NCHW", "OIHW", "NCHW"),
            )
            x = jax.nn.sigmoid(x + w[f"body.{2 * layer}.bias"][None, :, None, None])
        logits = x.reshape(batch, -1) @ w["fc.0.weight"].T + w["fc.0.bias"]
        return -(labels * jax.nn.log_softmax(logits)).sum() / batch

    def distance(z: Any) -> Any:
        x = z[: batch * PIXELS].reshape(batch, 1, 28, 28)
        labels = jax.nn.softmax(z[batch * PIXELS :].reshape(batch, CLASSES))
        found = jax.grad(loss)(weights, x, labels)
        return sum(((found[k] - target[k]) ** 2).sum() for k in target)

    both = jax.value_and_grad(distance)
    compiled = jax.jit(jax.vmap(both) if many else both)

    def objective(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = compiled(z)
        return np.asarray(value), np.asarray(gradient)

    return objective
