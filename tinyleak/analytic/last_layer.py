"""Which of a network's parameters are its layers', and its last one's."""

from tinyleak.nn.model import HasShapes, Model


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


def layer_names(model: HasShapes) -> list[tuple[str, str | None]]:
    """Return the names of each layer's weight, of two axes or more, and of its bias, in order.

    A bias is the vector that follows a weight and is as long as that has outputs, but no weight
    itself, as a normalisation's.
    """
    names = list(model.shapes)
    layers: list[tuple[str, str | None]] = []
    for name, following in zip(names, [*names[1:], ""], strict=True):
        if len(shape := model.shapes[name]) >= 2:
            fits = model.shapes.get(following) == shape[:1] and not following.endswith("weight")
            layers.append((name, following if fits else None))
    return layers
