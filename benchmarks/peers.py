"""The same objective in PyTorch and JAX: value and both gradients of the gradient distance.

Weights, shared gradients and dummies are given as NumPy arrays with tinyleak's names and layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

STRIDES = (2, 2, 1)
Arrays = Mapping[str, np.ndarray]
Objective = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def torch_objective(
    params: Arrays, shared: Arrays, batch: int, *, device: str = "cpu", weight: float = 1.0
) -> Objective:
    """Return the objective of one attack on z: (n,), in PyTorch's eager mode."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    weights = {k: torch.tensor(v, device=device, requires_grad=True) for k, v in params.items()}
    target = [torch.tensor(v, device=device) for v in shared.values()]
    pixels = batch * 784

    def loss(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for layer, stride in enumerate(STRIDES):
            w, b = weights[f"body.{2 * layer}.weight"], weights[f"body.{2 * layer}.bias"]
            x = torch.sigmoid(F.conv2d(x, w, b, stride=stride, padding=2))
        logits = F.linear(x.flatten(1), weights["fc.0.weight"], weights["fc.0.bias"])
        return -(labels * F.log_softmax(logits, -1)).sum() / batch

    def objective(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dummy = torch.as_tensor(z, device=device).requires_grad_(True)
        x = dummy[:pixels].reshape(batch, 1, 28, 28)
        labels = torch.softmax(dummy[pixels:].reshape(batch, 10), -1)
        found = torch.autograd.grad(
            loss(x, labels), list(weights.values()), create_graph=True
        )
        distance = weight * sum(
            ((a - b) ** 2).sum() for a, b in zip(found, target, strict=True)
        )
        (gradient,) = torch.autograd.grad(distance, dummy)
        return distance.detach().cpu().numpy(), gradient.cpu().numpy()

    return objective


def jax_objective(params: Arrays, shared: Arrays, batch: int, *, many: bool = False) -> Objective:
    """Return the jitted objective on z: (n,), or on (R, n) through vmap if `many`."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    weights = {k: jnp.asarray(v) for k, v in params.items()}
    target = {k: jnp.asarray(v) for k, v in shared.items()}
    pixels = batch * 784

    def loss(w, x, labels):  # type: ignore[no-untyped-def]
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

    def distance(z):  # type: ignore[no-untyped-def]
        x = z[:pixels].reshape(batch, 1, 28, 28)
        labels = jax.nn.softmax(z[pixels:].reshape(batch, 10))
        found = jax.grad(loss)(weights, x, labels)
        return sum(((found[k] - target[k]) ** 2).sum() for k in target)

    both = jax.value_and_grad(distance)
    compiled = jax.jit(jax.vmap(both) if many else both)

    def objective(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = compiled(z)
        return np.asarray(value), np.asarray(gradient)

    return objective
