"""The audit of language models: words and lengths named by rows, and what it turns down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Refused, Run

from tinyleak.audit import audit_text
from tinyleak.data.text import Special
from tinyleak.defenses import Gaussian
from tinyleak.nn.models.bert import POSITIONS, WORDS, Bert
from tinyleak.text import share_text, simulate_text

TABLE = "embedding.weight"
Call = Callable[..., Any]


def looked_up(rows: int, touched: list[int]) -> dict[str, np.ndarray]:
    gradient = np.zeros((rows, 4))
    gradient[touched] = 0.1
    return {TABLE: gradient, "out.bias": np.array([0.5, -0.5])}


@pytest.fixture
def bert() -> tuple[Bert, dict[str, np.ndarray]]:
    model = Bert(30, layers=1, width=8, heads=2, intermediate=12, positions=10)
    return model, model.init(np.random.default_rng(0), 0.2)


def test_only_rows_that_were_looked_up_are_named() -> None:
    params = {TABLE: np.ones((9, 4)), "out.bias": np.ones(2)}
    found = audit_text(params, looked_up(9, [2, 5]), list("abcdefghi"))
    assert found.parameters == 38
    assert found.named == [2, 5]
    assert found.guessed is None
    assert "2 of 9 words" in found.lines()["expect"]
    assert "c f" in found.lines()["words"]


def test_a_table_that_is_the_output_layer_too_names_what_was_to_be_guessed(
    bert: Any, rng: np.random.Generator
) -> None:
    model, params = bert
    client, truth = share_text(model, params, [np.arange(2, 9)], Special(0, 1, 2, 8, 4), rng=rng)
    found = audit_text(params, client.gradients)
    words, places = (next(t for t in found.tables if t.name == n) for n in (WORDS, POSITIONS))
    assert found.tables[0] is words
    assert words.dense
    assert places.touched == list(range(7))
    assert found.named == found.guessed == sorted(truth.tokens[truth.hidden].tolist())
    assert "7 are touched, as many as" in found.lines()["places"]


def test_the_last_token_of_a_gpt2_leaves_its_position_untouched() -> None:
    table = {"transformer.wte.weight": np.ones((9, 4)), "transformer.wpe.weight": np.zeros((5, 4))}
    table["transformer.wpe.weight"][:3] = 1.0
    said = audit_text({name: np.ones(x.shape) for name, x in table.items()}, table).lines()
    assert "3 are touched, one less than the longest sentence has tokens" in said["places"]


def test_noise_hides_what_was_to_be_guessed(bert: Any, rng: np.random.Generator) -> None:
    model, params = bert
    defenses = [Gaussian(1e-6)]
    client, _ = share_text(
        *(model, params, [np.arange(2, 9)], Special(0, 1, 2, 8, 4)),
        rng=rng,
        noise=rng,
        defenses=defenses,
    )
    found = audit_text(params, client.gradients)
    assert found.guessed is None
    assert found.named == []
    assert "names no word" in found.lines()["expect"]


@pytest.mark.parametrize("whole", [True, False])
def test_of_a_bert_the_sentence_is_read(whole: bool) -> None:
    sentence = "The old man closed the door."
    client, truth = simulate_text(sentence)
    found = audit_text(
        *((client,) if whole else (client.params, client.gradients, client.tokenizer))
    )
    assert found.found is not None
    np.testing.assert_array_equal(found.found.tokens, truth.tokens)
    assert found.named == sorted({*truth.tokens[client.words].tolist()})
    said = found.lines()
    assert "determines the sentence, all 9 tokens" in said["expect"]
    assert said["sentence"].startswith("the old man closed the door . (read off")
    assert found.as_dict()["sentences"] == ["the old man closed the door ."]
    assert len(repr(found)) < 300
    assert "the old man closed the door ." in found._repr_html_()


def test_it_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    client, _ = simulate_text("The old man closed the door.")
    found = audit_text(client)
    assert re.fullmatch(r"<TextAudit: the gradient determines.{20,250}>", repr(found))
    assert len({found, audit_text(client), found}) == 2
    shown = found._repr_html_()
    assert "the old man closed the door ." in shown
    found.save(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert shown.partition("<dl>")[2] in page.replace("\n</body>\n</html>\n", "")


def test_a_batch_or_noise_leave_a_choice_and_no_sentence_is_told() -> None:
    batch, _ = simulate_text(["The old man closed the door.", "We ate it."])
    blurred, _ = simulate_text("We ate it.", defenses=[Gaussian(1e-3)])
    for client in (batch, blurred):
        assert audit_text(client.params, client.gradients, client.tokenizer).found is None


@pytest.mark.parametrize(
    ("params", "gradients", "vocabulary", "message"),
    [
        ({"0.weight": np.ones((3, 4))}, None, None, "no table of embeddings"),
        ({TABLE: np.ones((3, 4))}, None, ["a"], "1 words, but embedding.weight has 3 rows"),
        ({TABLE: np.ones((3, 4))}, {"other": np.ones(3)}, None, "hold no embedding.weight"),
        ({TABLE: np.ones((3, 4))}, {TABLE: np.ones((2, 4))}, None, "hold no embedding.weight"),
        ({TABLE: np.ones((3, 4))}, {TABLE: np.zeros((3, 4))}, None, "zero everywhere"),
    ],
)
def test_what_cannot_be_audited(params: Any, gradients: Any, vocabulary: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit_text(params, gradients, vocabulary)


def test_on_the_command_line(tmp_path: Path, run: Run) -> None:
    weights, gradients, words, out = (tmp_path / n for n in ("w.npz", "g.npz", "words", "out"))
    np.savez(weights, **{TABLE: np.ones((9, 4)), "out.bias": np.ones(2)})
    np.savez(gradients, **looked_up(9, [5, 6]))
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n<b>\nriver\nwinter\ncold\n")
    command = ["audit", "--model", "text", "--weights", weights, "--gradients", gradients]
    code, said, _ = run(*command, "--vocabulary", words, "--out", out)
    assert code == 0
    assert re.search(r"^words +embedding.weight, 9 rows: 2 are touched: <b> river;", said, re.M)
    result = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert result["named"] == [5, 6]
    assert result["words"] == ["<b>", "river"]
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "&lt;b&gt; river" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "text"], "give them"),
        (["--model", "text", "--classes", "3", "--image", "a.png"], "--classes and --image"),
        (["--vocabulary", "words"], "only --model text has"),
    ],
)
def test_what_the_command_line_turns_down(
    arguments: list[str], message: str, refused: Refused
) -> None:
    assert message in refused("audit", *arguments)
