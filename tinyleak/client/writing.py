"""A client written as the files that a user of PyTorch would save, for `Client.from_files`."""

from pathlib import Path
from typing import Any

from tinyleak.client.client import Client
from tinyleak.client.local import LocalSteps
from tinyleak.client.loss import said_loss
from tinyleak.client.outcome import Truth
from tinyleak.data.tensors import write_tensors
from tinyleak.nn.models.as_trained import network_of
from tinyleak.nn.models.shapes import MODELS, kind_of
from tinyleak.report import write_arrays, write_json


def write_client(
    folder: Path,
    client: Client,
    truth: Truth | None = None,
    *,
    ending: str = "safetensors",
    reduction: str = "mean",
    steps: LocalSteps | None = None,
) -> tuple[Path, Path]:
    """Write a client's weights and what it shares, notes beside each, and its truth if given.

    Args:
        folder: where to.
        client: of a network that files tell, a LeNet or an MLP, or one that was exported.
        truth: what the client keeps to itself: truth.npz.
        ending: "safetensors" or "npz".
        reduction: "mean" or "sum": how the shared gradient's loss combines the images' losses.
        steps: the steps whose sum `client.gradients` is; then the weights after them are shared.

    Returns:
        The files of the weights, and of the gradient or the weights after.

    Raises:
        ValueError: an unknown ending or reduction.
        OSError: a file cannot be written.
    """
    model: Any = network_of(client.model)
    factor = said_loss(reduction, client.batch).factor
    shared = {name: array * factor for name, array in client.gradients.items()}
    what, said = "gradients", {"batch": client.batch, "reduction": reduction}
    if steps is not None:
        what, rate = "weights_after", steps.learning_rate
        said |= {"learning_rate": rate, "local_steps": steps.count}
        said |= {"momentum": steps.momentum} if steps.momentum else {}
        said |= {} if steps.batch is None else {"local_batch": steps.batch}
        shared = {name: client.params[name] - rate * shared[name] for name in shared}
    network = {"shape": model.image_shape, "classes": model.classes}
    if kind_of(model) in MODELS:  # any other is named by whoever reads the files
        network |= {"model": kind_of(model), "activation": model.activation}
    rounded = {name: array.astype(client.dtype) for name, array in shared.items()}
    files = [folder / f"{name}.{ending}" for name in ("weights", what)]
    buffers = getattr(model, "constants", {})
    weights = {**client.params, **buffers}  # as in a state_dict
    for path, tensors, notes in zip(files, (weights, rounded), (network, said), strict=True):
        write_tensors(path, tensors)
        write_json(path.with_suffix(".json"), notes)
    if truth is not None:
        write_arrays(folder / "truth.npz", images=truth.images, labels=truth.labels)
    return files[0], files[1]
