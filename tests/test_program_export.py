"""A program as text: what is written, and that nothing hostile is loaded.

That what was written replays bit for bit is tested on every graph of `test_program.py`.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from tinyleak import ops
from tinyleak.program import Program, load_program, trace
from tinyleak.tensor import PRIMITIVES, Tensor, primitive

IMAGES = np.random.default_rng(0).random((1, 4, 4, 2))


def function(x: Tensor) -> tuple[Tensor, ...]:
    """One of each kind: windows, products, a mask, numbers without axes, a constant, an index."""
    windows = ops.unfold(x, (3, 3), padding=(1, 1))
    rows = ops.reshape(windows, (16, 18)) @ Tensor(np.linspace(-1, 1, 54).reshape(18, 3))
    picked = ops.take(ops.sigmoid(rows) ** 3, np.array([3, 1]), axis=0)
    return ops.where(rows > 0.0, rows, 0.0), ops.sum(picked), ops.transpose(rows, (1, 0))


@pytest.fixture(scope="module")
def program() -> Program:
    return trace(function, IMAGES)


def said(program: Program) -> dict[str, Any]:
    return json.loads(program.export())


def test_the_text_is_what_the_format_says(program: Program) -> None:
    text = said(program)
    assert (text["format"], text["version"]) == ("tinyleak.program", 1)
    assert [text["arrays"][number][3] for number in text["inputs"]] == [[1, 4, 4, 2]]
    assert len(text["outputs"]) == 3
    names = [name for name, *_ in text["instructions"]]
    assert {"unfold", "matmul", "greater", "where", "take", "power"} <= set(names)
    assert set(names) <= set(PRIMITIVES)
    (params,) = [params for name, _, _, params in text["instructions"] if name == "unfold"]
    assert params == {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1]}
    assert {dtype for dtype, *_ in text["arrays"]} == {"float64", "bool", "int64"}


def test_one_graph_is_one_text_and_survives_another_trip(program: Program) -> None:
    again = trace(function, IMAGES + 1)
    assert again.export() == program.export() == load_program(program.export()).export()
    assert load_program(program.export().encode())(IMAGES)[1].shape == ()


def test_a_loaded_program_is_a_program(program: Program) -> None:
    loaded = load_program(program.export())
    with pytest.raises(ValueError, match="was traced for float64"):
        loaded(IMAGES[0])
    assert f"{len(program.instructions)} instructions remain" in str(loaded)


def test_what_cannot_be_written_is_refused() -> None:
    @primitive()
    def oddly(xp: Any, x: Any, *, how: object) -> Any:
        return x + 1

    try:
        program = trace(lambda x: oddly(x, how=print), np.ones(3))
        with pytest.raises(TypeError, match="a parameter <built-in function print> cannot be exp"):
            program.export()
        program = trace(lambda x: oddly(x, how="so"), np.ones(3))
        assert load_program(program.export())(np.ones(3))[0].tolist() == [2, 2, 2]
    finally:
        del PRIMITIVES["oddly"]
    with pytest.raises(ValueError, match="it uses 'oddly', which is no primitive here"):
        load_program(program.export())
    with pytest.raises(TypeError, match="a program with int32 in it cannot be exported"):
        trace(lambda x: x, np.ones(3, np.int32)).export()


def changed(program: Program, **parts: Any) -> str:
    return json.dumps({**said(program), **parts})


HOSTILE = {
    "not JSON": ("not whole JSON", lambda text: '{"format": "tinyleak.prog'),
    "deep": ("not whole JSON", lambda text: "[" * 10**6),
    "another thing": ('lacks "format"', lambda text: [1, 2]),
    "version 2": ("not of version 1", lambda text: {**text, "version": 2}),
    "no outputs": ("lacks one of buffers, arrays", lambda text: {**text, "outputs": None}),
    "no sizes": ("its buffers lack sizes", lambda text: {**text, "buffers": [{}]}),
    "negative": ("its buffers lack sizes", lambda text: {**text, "buffers": [{"bytes": -1}]}),
    "vast": ("asks for 1,000,000,000,000", lambda text: {**text, "buffers": [{"bytes": 10**12}]}),
    "not base64": (
        "a constant is damaged",
        lambda text: {**text, "buffers": [{"bytes": 8, "data": "<script>"}]},
    ),
    "short": (
        "a constant has 3 bytes in place of 8",
        lambda text: {**text, "buffers": [{"bytes": 8, "data": "AAAA"}]},
    ),
    "outside": (
        "its array 0 is out of bounds",
        lambda text: {**text, "arrays": [["float64", 0, 10**6, [2], [1]]]},
    ),
    "a vast view": (
        "its array 0 is out of bounds",
        lambda text: {**text, "arrays": [["float64", 0, 0, [10**5, 10**5], [0, 0]]]},
    ),
    "objects": (
        "its array 0 is out of bounds",
        lambda text: {**text, "arrays": [["object", 0, 0, [1], [1]]]},
    ),
    "no array": ("an array that it does not have", lambda text: {**text, "outputs": [-1]}),
    "not a primitive": (
        "it uses '__import__', which is no primitive here",
        lambda text: {**text, "instructions": [["__import__", 0, [0], {}]]},
    ),
    "shapes": (
        "its instruction 0 does not fit",
        lambda text: {**text, "instructions": [["concatenate", 0, [0, 0], {"axis": 9}]]},
    ),
    "padding": (
        "its instruction 0 does not fit",
        lambda text: with_params(text, "unfold", padding=[10**9, 10**9], stride=[10**9, 10**9]),
    ),
    "work": (
        "more than 34,359,738,368 multiplications",
        lambda text: {
            **text,
            "buffers": [{"bytes": 8}],
            "arrays": [["float64", 0, 0, [10**4, 10**4], [0, 0]]],
            "instructions": [["matmul", 0, [0, 0], {}]],
        },
    ),
    "a constant": (
        "it writes over a constant",
        lambda text: {
            **text,
            "buffers": [{"bytes": 8, "data": "AAAAAAAAAAA="}],
            "arrays": [["float64", 0, 0, [1], [1]]],
            "instructions": [["exp", 0, [0], {}]],
        },
    ),
}


def with_params(text: dict[str, Any], name: str, **params: Any) -> dict[str, Any]:
    steps = [[*rest, {**old, **params}] for *rest, old in text["instructions"] if rest[0] == name]
    return {**text, "instructions": steps}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_text_is_refused_in_one_sentence(program: Program, what: str) -> None:
    sentence, make = HOSTILE[what]
    made = make(said(program))
    with pytest.raises(
        ValueError, match=f"is no program that can be loaded: .*{sentence}"
    ) as found:
        load_program(made if isinstance(made, str) else json.dumps(made))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_a_long_text_is_refused_unread(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyleak.program.loading.MOST_TEXT", 1000)
    with pytest.raises(ValueError, match="characters, and 1,000 are read at most"):
        load_program(program.export())


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in nested lists and dicts, as the container and the key."""
    keys = range(len(value)) if isinstance(value, list) else [*value]
    inside = [value[key] for key in keys if isinstance(value[key], list | dict)]
    return [*((value, key) for key in keys), *(place for one in inside for place in places(one))]


def test_whatever_is_changed_it_loads_or_is_refused(program: Program) -> None:
    draw = random.Random(3)
    others = [0, 1, -1, 7, 2**40, 2**70, 0.5, True, None, "x", "matmul", "AAAA", [], [0, 0], {}]
    loaded = 0
    for _ in range(300):
        text = said(program)
        container, key = draw.choice(places(text))
        container[key] = draw.choice(others)
        try:
            program_again = load_program(json.dumps(text))
        except ValueError as error:
            assert "is no program that can be loaded: " in str(error)
            continue
        loaded += 1
        if [x.shape for x in program_again.inputs] == [IMAGES.shape]:
            with np.errstate(all="ignore"):
                program_again(IMAGES)
    assert 0 < loaded < 200
