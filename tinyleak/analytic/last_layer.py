"""Which of a network's parameters are its last layer's."""

from __future__ import annotations

from tinyleak.nn.model import Model


def last_layer_names(model: Model) -> tuple[str, str | None]:
    """Return the names of the last layer's weight (K, F) and bias (K,), or None for the bias.

    Raises:
        ValueError: the model does not end in a linear layer of that shape.
    """
    names = list(model.shapes)
    bias = names.pop() if model.shapes[names[-1]] == (model.classes,) else None
    shape = model.shapes[names[-1]] if names else ()
    if len(shape) != 2 or shape[0] != model.classes:
        raise ValueError(
            f"labels can be inferred where the last layer is linear, with a weight "
            f"({model.classes}, F); the last of {model} is {shape}: give the labels instead"
        )
    return names[-1], bias


def ends_linear(model: Model) -> bool:
    """Return whether a network's last layer is linear, as `LayerGradient.last` needs it."""
    try:
        last_layer_names(model)
    except ValueError:
        return False
    return True
