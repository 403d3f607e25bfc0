"""Which network a file belongs to, and which of its tensors is which parameter."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tinyleak.nn import MLP, LeNet
from tinyleak.nn.models import match_names, model_from_shapes
from tinyleak.tensor import Tensor

Shapes = dict[str, tuple[int, ...]]
LENET = LeNet().shapes


def called(shapes: Shapes, **layers: str) -> Shapes:
    """The shapes with other names for the layers; "__" stands for the point in a keyword."""
    names = {old.replace("__", "."): new for old, new in layers.items()}
    renamed = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}"] = shape
    return renamed


CONVS = called(LENET, body__0="conv1", body__2="conv2", body__4="conv3", fc__0="fc")
WORDS = called(LENET, body__0="first", body__2="mid", body__4="last", fc__0="out")


def notes(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return "\n".join(error.value.__notes__)


# The size of a network

NETWORKS = [
    *(LeNet(), LeNet((3, 32, 32), 100), LeNet((1, 28, 28), 10, "tanh", 20)),
    LeNet((1, 28, 28), 7, "sigmoid", (6, 16, 32)),
    LeNet((3, 20, 24), 10, "sigmoid", 8, 3),
    LeNet((1, 28, 28), 10, "sigmoid", (6, 16), 5, (2, 2)),
    LeNet((1, 28, 28), 10, "sigmoid", 4, 5, (2,)),
    LeNet((1, 28, 28), 10, "sigmoid", 4, 7, (2, 2, 1, 1)),
    LeNet((1, 28, 28), 10, "sigmoid", 4, 5, (1, 1, 1)),
    *(MLP(), MLP((3, 8, 8), 5, "tanh", (30,)), MLP((1, 4, 4), 3, "softplus", (8, 8, 8))),
]


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_a_network_is_read_off_its_shapes(model: LeNet | MLP) -> None:
    kind = type(model).__name__.lower()
    shapes = model.shapes
    assert model_from_shapes(kind, shapes, model.image_shape, None, model.activation) == model
    backwards = {f"net.{name}": shapes[name] for name in reversed(shapes)}
    found = model_from_shapes(kind, backwards, model.image_shape, model.classes, model.activation)
    assert found == model


@pytest.mark.parametrize("model", NETWORKS[3:8], ids=str)
def test_a_lenet_of_another_size_is_pytorchs(model: LeNet, rng: np.random.Generator) -> None:
    layers: list[torch.nn.Module] = []
    channels = model.image_shape[0]
    for out, stride in zip(model.channels, model.strides, strict=True):
        padding = model.kernel // 2
        layers += [torch.nn.Conv2d(channels, out, model.kernel, stride, padding)]
        layers += [torch.nn.Sigmoid()]
        channels = out
    features = model.shapes["fc.0.weight"][1]
    body, fc = torch.nn.Sequential(*layers), torch.nn.Linear(features, model.classes)
    reference = torch.nn.ModuleDict({"body": body, "fc": torch.nn.Sequential(fc)}).double()
    params = model.init(rng)
    reference.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    images = rng.uniform(size=(2, *model.image_shape))
    expected = fc(body(torch.tensor(images)).flatten(1)).detach().numpy()
    found = model({name: Tensor(array) for name, array in params.items()}, Tensor(images))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_strides_that_are_open_are_asked_for() -> None:
    model = LeNet(strides=(1, 2, 1))
    with pytest.raises(ValueError, match=r"\(1, 1, 2\) and \(1, 2, 1\) and \(2, 1, 1\) all lead"):
        model_from_shapes("lenet", model.shapes, (1, 28, 28))
    assert model_from_shapes("lenet", model.shapes, (1, 28, 28), strides=(1, 2, 1)) == model
    with pytest.raises(ValueError, match=r"strides \(2, 2, 2\) do not lead its 3 convolutions"):
        model_from_shapes("lenet", model.shapes, (1, 28, 28), strides=(2, 2, 2))


MISFITS: list[tuple[str, Callable[[], object], str]] = [
    ("kind", lambda: model_from_shapes("vgg", LENET, (1, 28, 28)), "'vgg' is unknown; choose from"),
    (
        "activation",
        lambda: model_from_shapes("lenet", LENET, (1, 28, 28), activation="swish"),
        "'swish' is unknown",
    ),
    (
        "channels of the image",
        lambda: model_from_shapes("lenet", LENET, (3, 28, 28)),
        r"not a LeNet's for images of \(3, 28, 28\): after 0 layers 3 numbers go on",
    ),
    (
        "size of the image",
        lambda: model_from_shapes("lenet", LENET, (1, 90, 90)),
        "no strides of 1 and 2 lead to the 588 features",
    ),
    (
        "classes",
        lambda: model_from_shapes("lenet", LENET, (1, 28, 28), 100),
        "tells 10 classes apart, not 100",
    ),
    (
        "two linear layers",
        lambda: model_from_shapes("lenet", {**LENET, "fc.2.weight": (5, 10)}, (1, 28, 28)),
        "2 linear layers follow its convolutions",
    ),
    (
        "no convolution",
        lambda: model_from_shapes("lenet", MLP().shapes, (1, 28, 28)),
        "0 weights of 4 axes",
    ),
    (
        "no matrix",
        lambda: model_from_shapes("mlp", {"a": (3,)}, (1, 28, 28)),
        "0 weights of 2 axes",
    ),
    (
        "one matrix",
        lambda: model_from_shapes("mlp", {"a": (10, 784)}, (1, 28, 28)),
        "no hidden layer",
    ),
    (
        "a window that is even",
        lambda: model_from_shapes("lenet", {"a": (3, 1, 4, 4), "b": (10, 9)}, (1, 28, 28)),
        r"windows measure \[4\]",
    ),
    (
        "a layer without outputs",
        lambda: model_from_shapes("lenet", {"a": (0, 1, 5, 5), "b": (10, 0)}, (1, 28, 28)),
        "has no outputs",
    ),
    (
        "thousands of layers",
        lambda: model_from_shapes("mlp", {str(i): (9, 9) for i in range(4000)}, (1, 3, 3)),
        "4000 weights of 2 axes, and not 1 to 100",
    ),
]


@pytest.mark.parametrize(("call", "message"), [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS])
def test_shapes_of_no_such_network_are_refused(call: Callable[[], object], message: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert time.process_time() - began < 1
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_stands_beside_what_does() -> None:
    with pytest.raises(ValueError, match="compare the columns") as caught:
        model_from_shapes("lenet", {**LENET, "fc.2.weight": (5, 10)}, (1, 28, 28))
    heading, first, *_, last = notes(caught).splitlines()
    assert heading.split("  ")[1:] == ["the file has", *[""] * 16, "the usual LeNet has"]
    assert first.split() == ["body.0.weight", "(12,", "1,", "5,", "5)"] * 2
    assert last.split() == ["fc.2.weight", "(5,", "10)"]


# Names


@pytest.mark.parametrize(
    "given",
    [
        LENET,
        {f"module.{name}": shape for name, shape in LENET.items()},
        CONVS,
        dict(sorted(CONVS.items(), reverse=True)),
        called(LENET, body__0="0", body__2="2", body__4="4", fc__0="7"),
        called(LENET, body__0="net.9", body__2="net.10", body__4="net.11", fc__0="head"),
    ],
    ids=["its own", "a prefix", "words and numbers", "backwards", "numbers", "ten after nine"],
)
def test_names_are_told_where_they_can_be(given: Shapes) -> None:
    matched = match_names(LENET, given)
    assert list(matched) == list(LENET)
    in_order = list(CONVS) if given.keys() == CONVS.keys() else list(given)
    assert list(matched.values()) == in_order


def test_a_name_that_happens_to_be_the_models_says_nothing() -> None:
    """A file whose first layer is called 2 has its second one where the model has its third."""
    expected = MLP((1, 8, 8), 10, widths=(64, 64, 64)).shapes
    given = {f"{int(name[0]) + 2}{name[1:]}": shape for name, shape in expected.items()}
    matched = match_names(expected, given)
    assert matched["2.weight"] == "4.weight"
    assert matched["6.bias"] == "8.bias"


def test_names_that_cannot_be_told_are_listed_and_settled_by_a_rename() -> None:
    with pytest.raises(ValueError, match="8 tensors, cannot be told by name and shape") as caught:
        match_names(LENET, WORDS)
    lines = [line.split() for line in notes(caught).splitlines()]
    assert ["first.weight", "(12,", "1,", "5,", "5)", *LENET_FIRST] in lines
    assert any(line[0] == "mid.weight" for line in lines)
    for rename in (
        {"mid": "body.2"},
        {"mid.weight": "body.2.weight", "mid.bias": "body.2.bias"},
        {"first": "body.0", "mid": "body.2", "last": "body.4", "out": "fc.0"},
    ):
        matched = match_names(LENET, WORDS, rename)
        assert list(matched.values()) == list(WORDS)
    other = match_names(LENET, WORDS, {"last": "body.2"})
    assert other["body.2.weight"] == "last.weight"
    assert other["body.4.bias"] == "mid.bias"


LENET_FIRST = ["body.0.weight", "(12,", "1,", "5,", "5)"]


@pytest.mark.parametrize(
    "given",
    [
        {name: shape for name, shape in LENET.items() if name != "fc.0.bias"},
        {name: shape for name, shape in CONVS.items() if name != "fc.bias"},
        {**LENET, "extra": (3,)},
        {**CONVS, "extra": (3,)},
        {**LENET, "fc.0.bias": (11,)},
        {**CONVS, "fc.bias": (11,)},
        {**LENET, "fc.0.bias": (10, 1)},
        {"a": (1,)},
        {},
        {f"\x1b[2J{i}" + "x" * 10_000: (10,) for i in range(4000)},
    ],
    ids=[
        "short",
        "conv short",
        "long",
        "conv long",
        "shape",
        "conv shape",
        "axes",
        "a",
        "0",
        "4000",
    ],
)
def test_what_is_not_the_models_is_refused(given: Shapes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=f"{len(given)} tensors, cannot be told") as caught:
        match_names(LENET, given)
    assert time.process_time() - began < 1
    table = notes(caught)
    assert len(table) < 8000
    assert table.replace("\n", "").isprintable()


def test_a_rename_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="'conv9' was to be renamed, but the file has no such"):
        match_names(LENET, CONVS, {"conv9": "body.0"})
    with pytest.raises(ValueError, match="'conv1.weight' and 'conv2.weight' would both be 'body"):
        match_names(LENET, CONVS, {"conv1": "body.0", "conv2": "body.0"})
