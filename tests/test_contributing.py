"""CONTRIBUTING.md is true: its recipes run, its picture is of this house, its path is the path."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinyleak import Tensor, attack, check_gradients, share
from tinyleak.attacks import Settings
from tinyleak.nn import LeNet

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SMALL = LeNet((1, 8, 8), classes=4, hidden=3)


def recipe(name: str) -> dict[str, Any]:
    """Run the code below the recipe's name, and return what it defines."""
    code = re.search(rf"^\*\*{name}\*\*.*?^```python\n(.*?)^```$", TEXT, re.S | re.M)
    assert code is not None, f"CONTRIBUTING.md has no recipe for {name.lower()}"
    names: dict[str, Any] = {"__name__": "recipe"}
    module = type(sys)("recipe")
    sys.modules["recipe"] = module  # where a dataclass looks for the names in its annotations
    names = module.__dict__
    exec(compile(code[1], "CONTRIBUTING.md", "exec"), names)
    return names


@pytest.fixture
def client() -> Any:
    images = np.random.default_rng(1).random((1, 1, 8, 8))
    return share(SMALL, SMALL.init(np.random.default_rng(0)), images, [2])


def test_a_primitive_made_by_the_recipe_is_right_to_third_order() -> None:
    arcsinh = recipe("A primitive")["arcsinh"]
    x = Tensor(np.linspace(-2, 2, 7))
    np.testing.assert_allclose(arcsinh(x).data, np.arcsinh(x.data))
    check_gradients(arcsinh, [x], order=3)


def test_a_network_made_by_the_recipe_leaks() -> None:
    model = recipe("A network")["OneHidden"]()
    rng = np.random.default_rng(2)
    params = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in model.shapes.items()}
    victim, truth = share(model, params, rng.random((1, 1, 4, 4)), [1])
    assert truth.judge(attack(victim)).succeeded


def test_a_defence_made_by_the_recipe_defends(client: Any) -> None:
    sign = recipe("A defence")["Sign"]()
    victim, truth = client
    protected, _ = share(
        SMALL,
        victim.params,
        truth.images,
        truth.labels,
        defenses=[sign],
        rng=np.random.default_rng(3),
    )
    assert len(np.unique(np.abs(protected.gradients["fc.0.weight"]).round(12))) == 1
    assert str(sign) == "sign"
    found = attack(protected, settings=Settings(50))
    assert not truth.judge(found).succeeded


def test_an_attack_made_by_the_recipe_comes_nearer(client: Any) -> None:
    descend = recipe("An attack")["steepest_descent"]
    victim, truth = client
    found = descend(victim, steps=30)
    assert found.distance < found.distances[0]
    assert found.reason == "out of iterations"
    assert truth.judge(found).images.shape == truth.images.shape


def test_the_picture_is_of_the_house_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import house

    imports = house.rooms()
    drawn = Image.open(house.PICTURE).info.get("Comment")
    assert drawn == house.signature(imports), "the picture is old: run python benchmarks/house.py"


def test_the_path_is_the_one_that_is_held() -> None:
    from test_house import ROOMS, STUDENT_PATH

    said = TEXT[TEXT.index("## The path") : TEXT.index("are seven hops")]
    for place in STUDENT_PATH:
        assert place.rpartition(".")[2] in re.findall(r"`[\w/]*?(\w+)/?`", said), place
    table = TEXT[TEXT.index("| room |") : TEXT.index("## The path")]
    named = re.findall(r"\[(\w+)(?:\.py|/)\]", table)
    assert sorted(named) == sorted(ROOMS)
    assert named == sorted(named, key=ROOMS.index)
    hops = re.findall(r"^\d\. `([\w/.]+)`: .*?`(?:Matching\.)?(\w+)`", TEXT, re.M | re.S)
    assert len(hops) == 7
    for file, name in hops:
        source = (ROOT / "tinyleak" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in source, (file, name)
