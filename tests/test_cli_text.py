"""`tinyleak text`: what it prints, writes and exits with, and what it turns down."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, read_result
from PIL import Image

from tinyleak import text
from tinyleak.data.tensors import write_tensors
from tinyleak.data.text import SPECIAL, load_tokenizer
from tinyleak.nn.models.bert import WORDS, Bert
from tinyleak.nn.models.checkpoint import language_model
from tinyleak.report import SentenceSnapshot, sentence_figure, sentence_table
from tinyleak.report.canvas import as_png
from tinyleak.report.sentences import choose_snapshots
from tinyleak.text import FoundText, Snapshot

COMMAND = ("text",)
TOKENIZER = load_tokenizer()
SMALL = ["--layers", "2", "--width", "24", "--heads", "2", "--attack", "span"]
MODEL = Bert(len(TOKENIZER), layers=1, width=24, heads=2, intermediate=20, positions=12)
SENTENCE = "We ate it."


@pytest.fixture
def params() -> dict[str, np.ndarray]:
    return MODEL.init(np.random.default_rng(0))


class TestAnAttack:
    def test_a_sentence_is_found_and_written_down(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "out"
        answer = run(SENTENCE, *SMALL, "--out", out)
        assert (answer.code, answer.err) == (0, "")
        assert "success: span, one word fits at each position" in answer.out
        assert "5 of 5 in place (100%)" in answer.out
        assert sorted(path.name for path in out.iterdir()) == [
            *("result.json", "sentences.png", "sentences.txt")
        ]
        said = read_result(out)
        assert said["succeeded"] is True
        assert (said["token_accuracy"], said["bag_accuracy"]) == (1.0, 1.0)
        assert said["tokens_true"] == said["tokens_recovered"]
        assert said["tokens_true"] == [TOKENIZER.words(TOKENIZER.encode(SENTENCE))]
        assert said["sentences_recovered"] == ["we ate it ."]
        assert said["settings"]["model"]["width"] == 24
        assert "iteration    0  [CLS] we at ##e it . [SEP]" in (out / "sentences.txt").read_text()
        with Image.open(out / "sentences.png") as picture:
            assert picture.size[0] > 300

    def test_built_in_sentences_as_a_batch(self, run: Run, tmp_path: Path) -> None:
        answer = run("--index", 3, "--batch", 2, "--attack", "rows", "--out", tmp_path / "out")
        assert answer.code == 1
        assert "NO success: rows" in answer.out
        said = read_result(tmp_path / "out")
        assert len(said["tokens_true"]) == len(said["tokens_recovered"]) == 2
        expected = [TOKENIZER.decode(TOKENIZER.encode(s)) for s in TOKENIZER.sentences[3:5]]
        assert said["sentences_true"] == expected

    def test_the_same_seed_gives_the_same(self, run: Run, tmp_path: Path) -> None:
        results = []
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            run(SENTENCE, *SMALL, "--seed", seed, "--out", tmp_path / name, "--quiet")
            said = read_result(tmp_path / name)
            results.append(said["history"][0]["distance"])
        assert results[0] == results[1] != results[2]

    def test_defences_apply(self, run: Run) -> None:
        answer = run(SENTENCE, *SMALL, "--defense", "gaussian:0.1")
        assert answer.code == 1
        assert "defended  gaussian:0.1" in answer.out
        assert "NO success" in answer.out

    def test_quiet(self, run: Run) -> None:
        assert run(SENTENCE, *SMALL, "--quiet") == (0, "", "")

    def test_training_changes_the_weights(self, run: Run) -> None:
        answer = run(SENTENCE, *SMALL, "--train", 2)
        assert answer.code == 0
        assert "weights at random, trained 2 steps" in answer.out

    def test_options_go_to_the_attack_and_a_bar_shows_its_readings(
        self, run: Run, monkeypatch, tmp_path: Path
    ) -> None:
        """An attack that is stopped after two readings leaves the last of them."""
        seen: dict[str, Any] = {}

        def slow(client, *, seed, on_progress, iterations) -> FoundText:
            seen["iterations"] = iterations
            wrong = np.full(client.shape, TOKENIZER.vocabulary.index("door"))
            for iteration in (0, 10):
                on_progress(Snapshot(iteration, wrong, 0.5))
            raise KeyboardInterrupt

        monkeypatch.setitem(text.METHODS, "span", slow)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        answer = run(SENTENCE, *SMALL, "--iterations", 7, "--out", tmp_path / "out")
        assert seen == {"iterations": 7}
        assert answer.code == 1
        assert "iteration 10, distance 5.0e-01: door door door door door" in answer.err
        assert answer.err.endswith(f"interrupted; the best so far is in {tmp_path / 'out'}\n")
        said = read_result(tmp_path / "out")
        assert said["reason"] == "interrupted"
        assert [reading["iteration"] for reading in said["history"]] == [0, 10]


class TestBadRequests:
    def test_an_empty_sentence(self, refused) -> None:
        assert "the sentence is empty; give one with at least one word" in refused("")

    def test_an_unknown_token(self, refused) -> None:
        message = refused("It is 5 \N{EURO SIGN}.")
        assert "cannot be written in the vocabulary's 500 tokens; use another word" in message

    def test_too_long_a_sentence(self, refused) -> None:
        message = refused("the " * 63)
        assert "has 65 tokens, with its start and end, and the model takes 64 at most" in message

    def test_more_tokens_than_the_width(self, refused, tmp_path: Path) -> None:
        out = tmp_path / "out"
        message = refused("the " * 30, *SMALL, "--out", out)
        assert "32 tokens span all 23 dimensions that layer norm leaves a vector of 24" in message
        assert not out.exists()

    def test_a_sentence_beside_an_index(self, refused) -> None:
        assert "leave one of the two out" in refused(SENTENCE, "--index", 1)

    def test_more_sentences_than_there_are(self, refused) -> None:
        count = len(TOKENIZER.sentences)
        message = refused("--index", count - 1, "--batch", 2)
        assert f"sentence {count} was asked for, but {count} of the built-in ones" in message

    def test_a_vocabulary_in_which_no_sentence_can_be_written(
        self, refused, tmp_path: Path
    ) -> None:
        vocabulary = tmp_path / "vocab.txt"
        vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
        message = refused("--vocabulary", vocabulary)
        assert "no built-in sentence can be written in this vocabulary; give one" in message

    def test_iterations_of_an_attack_that_has_none(self, refused) -> None:
        assert "span does not; leave it out" in refused(SENTENCE, *SMALL, "--iterations", 3)

    def test_an_unknown_attack_and_a_bad_defence(self, refused) -> None:
        assert "invalid choice: 'guess'" in refused(SENTENCE, "--attack", "guess")
        assert "defence 'salt' is unknown" in refused(SENTENCE, "--defense", "salt")

    def test_heads_that_do_not_share_the_width(self, refused) -> None:
        assert "a multiple of the heads" in refused(SENTENCE, "--width", 10, "--heads", 3)

    def test_a_vocabulary_that_is_not_there(self, refused, tmp_path: Path) -> None:
        message = refused(SENTENCE, "--vocabulary", tmp_path / "none.txt")
        assert "cannot be read (No such file or directory)" in message


class TestCheckpoints:
    def test_huggingfaces_own_loads_unchanged(self, run: Run, tmp_path: Path) -> None:
        from transformers import BertConfig, BertForMaskedLM

        config = BertConfig(
            vocab_size=len(TOKENIZER),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=20,
            hidden_act="gelu_new",
            layer_norm_eps=1e-6,
        )
        BertForMaskedLM(config).save_pretrained(tmp_path)
        words = tmp_path / "vocab.txt"
        words.write_text("".join(f"{token}\n" for token in TOKENIZER.vocabulary))
        checkpoint = ["--weights", tmp_path / "model.safetensors", "--vocabulary", words]
        answer = run(SENTENCE, *checkpoint, "--attack", "span", "--out", tmp_path / "out")
        assert answer.code == 0, answer.err
        made = read_result(tmp_path / "out")["settings"]["model"]
        assert made == {
            **{"vocabulary": 500, "layers": 2, "width": 24, "heads": 3, "intermediate": 40},
            **{"positions": 20, "segments": 2, "activation": "gelu_new", "epsilon": 1e-6},
        }

    def test_old_names_and_other_tasks_are_no_matter(self, params) -> None:
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): array.astype("float32")
            for name, array in params.items()
        }
        old["bert.pooler.dense.weight"] = np.zeros((24, 24))
        old["cls.predictions.decoder.weight"] = old[WORDS]
        model, loaded = language_model(old, heads=2)
        assert model == MODEL
        assert list(loaded) == list(MODEL.shapes)
        for name, array in params.items():
            np.testing.assert_allclose(loaded[name], array, rtol=1e-6)

    def test_heads_are_64_wide_if_nothing_says_otherwise(self) -> None:
        wide = Bert(7, layers=1, width=128, intermediate=8, positions=4)
        made, _ = language_model(wide.init(np.random.default_rng(0)))
        assert made.heads == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: {"fc.weight": np.zeros((2, 2))}, "have no table 'bert.embeddings.word"),
            (lambda p: {n: a for n, a in p.items() if "key.bias" not in n}, "key.bias is missing"),
            (lambda p: p | {"cls.predictions.bias": np.zeros(3)}, r"is shape \(3,\), and should"),
            (lambda p: p | {"bert.more.weight": np.zeros(3)}, "has 'bert.more.weight', which"),
        ],
    )
    def test_one_that_does_not_fit(self, refused, params, tmp_path, change, message) -> None:
        path = tmp_path / "weights.npz"
        write_tensors(path, change(params))
        said = refused(SENTENCE, "--weights", path, "--heads", 2)
        assert re.search(f"weights.npz' cannot be used: .*{message}", said), said

    def test_one_for_another_vocabulary(self, refused, params, tmp_path: Path) -> None:
        path, words = tmp_path / "weights.npz", tmp_path / "words.txt"
        write_tensors(path, params)
        words.write_text("\n".join([*SPECIAL, "we", "at", "##e", "it", "."]))
        message = refused(SENTENCE, "--weights", path, "--heads", 2, "--vocabulary", words)
        assert "is made for 500 tokens, and the vocabulary has 10" in message

    def test_sizes_beside_a_checkpoint(self, refused, tmp_path: Path) -> None:
        message = refused(SENTENCE, "--weights", tmp_path / "none.npz", "--layers", 2)
        assert "--weights was given, which has its own; leave one of the two out" in message

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[]", "is not the config.json of a BERT or a GPT-2"),
            ('{"num_attention_heads": "many"}', "is not the config.json of a BERT or a GPT-2"),
            ('{"layer_norm_eps": NaN}', "is not the config.json of a BERT or a GPT-2"),
            ('{"hidden_act": "silu"}', "says that the activation is 'silu'; gelu, .* are known"),
        ],
    )
    def test_a_config_that_is_none(self, refused, params, tmp_path, content, message) -> None:
        write_tensors(tmp_path / "weights.npz", params)
        (tmp_path / "config.json").write_text(content)
        assert re.search(message, refused(SENTENCE, "--weights", tmp_path / "weights.npz"))


class TestReport:
    TRUTH = [["the", "cat"], ["a", "$x$", "_"]]
    SNAPSHOTS = [SentenceSnapshot(10 * i, [["the", "dog"], ["a", "b", "_"]]) for i in range(30)]

    def test_the_table_marks_what_is_wrong(self) -> None:
        assert sentence_table(self.SNAPSHOTS[2:3], self.TRUTH) == (
            "         truth  the cat\niteration   20  the <dog>\n\n"
            "         truth  a $x$ _\niteration   20  a <b> _\n"
        )

    def test_the_first_and_the_last_are_always_chosen(self) -> None:
        chosen = [one.iteration for one in choose_snapshots(self.SNAPSHOTS, 5)]
        assert (chosen[0], chosen[-1], len(chosen)) == (0, 290, 5)
        assert choose_snapshots(self.SNAPSHOTS[:3], 5) == self.SNAPSHOTS[:3]
        with pytest.raises(ValueError, match="there is no snapshot to show"):
            choose_snapshots([])

    def test_the_picture_is_drawn_whatever_the_words(self) -> None:
        pictures = [as_png(sentence_figure(self.SNAPSHOTS, self.TRUTH)) for _ in range(2)]
        assert pictures[0] == pictures[1]
