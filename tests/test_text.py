"""Sentences, their tokens, the client that shares a language model's gradient, and its metrics."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

import sys

import numpy as np
import pytest

from tinyleak import metrics, text
from tinyleak.data.text import SPECIAL, Tokenizer, load_tokenizer, read_corpus
from tinyleak.data.vocabulary import train_vocabulary
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import WORDS, Bert
from tinyleak.text.result import Found, Reading

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER), layers=1, width=12, heads=3, intermediate=20, positions=16)
PARAMS = MODEL.init(np.random.default_rng(0))
SENTENCES = ["The bridge is older.", "We ate it."]


def encoded(*sentences: str) -> list[np.ndarray]:
    return [TOKENIZER.encode(sentence) for sentence in sentences]


def client(*sentences: str, seed: int = 1, **options) -> text.TextClient:
    rng = np.random.default_rng(seed)
    return text.share_text(
        MODEL, PARAMS, encoded(*sentences), TOKENIZER.special, rng=rng, **options
    )


class TestTokenizer:
    def test_a_sentence_becomes_tokens_and_comes_back(self) -> None:
        tokens = TOKENIZER.encode("The BRIDGE is older.")
        assert TOKENIZER.words(tokens) == [
            *("[CLS]", "the", "bridge", "is", "old", "##er", ".", "[SEP]")
        ]
        assert TOKENIZER.decode(tokens) == "the bridge is older ."

    def test_the_shipped_vocabulary_is_what_the_command_makes(self) -> None:
        assert train_vocabulary(read_corpus()) == list(TOKENIZER.vocabulary)

    def test_there_are_enough_sentences_of_each_length(self) -> None:
        assert len(read_corpus()) == len(set(read_corpus())) == len(TOKENIZER.sentences)
        for length in (8, 16, 30):
            sentences = TOKENIZER.sentences_of_length(length)
            assert len(sentences) >= 30
            assert {len(tokens) for tokens in encoded(*sentences)} == {length}

    def test_it_splits_as_huggingface_does(self, tmp_path) -> None:
        from transformers import BertTokenizer

        file = tmp_path / "vocab.txt"
        file.write_text("".join(f"{token}\n" for token in TOKENIZER.vocabulary))
        theirs = BertTokenizer(str(file))
        for sentence in [*TOKENIZER.sentences[::20], "Déjà vu: it's 5 o'clock!"]:
            assert theirs(sentence)["input_ids"] == TOKENIZER.encode(sentence).tolist()

    @pytest.mark.parametrize(
        ("sentence", "message"),
        [
            ("", "the sentence is empty"),
            (" \n", "the sentence is empty"),
            ("pay in \N{EURO SIGN}", "'\N{EURO SIGN}' cannot be written in the vocabulary's 500"),
            ("the " * 15, "the sentence has 17 tokens, .* takes 16 at most; shorten it"),
        ],
    )
    def test_a_sentence_that_cannot_be_read(self, sentence: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TOKENIZER.encode(sentence, longest=16)

    def test_no_sentence_of_a_length(self) -> None:
        with pytest.raises(ValueError, match="no sentence of the built-in text has 3 tokens"):
            TOKENIZER.sentences_of_length(3)

    def test_a_vocabulary_of_ones_own(self, tmp_path) -> None:
        file = tmp_path / "own.txt"
        file.write_text("\n".join([*SPECIAL, "Some", "words", "##y", "\u2028"]) + "\n")
        own = load_tokenizer(file)
        assert len(own) == 9
        assert own.words(own.encode("Some wordsy")) == ["[CLS]", "Some", "words", "##y", "[SEP]"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\xff\xfe", "'.*own.txt' cannot be used: .*utf-8"),
            (b"", "lacks .*UNK"),
            (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"5 tokens lacks \[MASK\]"),
            ("\n".join([*SPECIAL, "a", "b", "a"]).encode(), "'a' is in the vocabulary twice"),
        ],
    )
    def test_a_vocabulary_that_is_none(self, tmp_path, content: bytes, message: str) -> None:
        (tmp_path / "own.txt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path / "own.txt")

    def test_a_vocabulary_that_is_not_there(self, tmp_path) -> None:
        with pytest.raises(FileNotFoundError, match="cannot be read .*; give the path of a text"):
            load_tokenizer(tmp_path / "none.txt")

    def test_without_the_library_one_sentence_names_the_extra(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(ValueError, match=r"not installed; install .*tinyleak\[text\]"):
            Tokenizer(SPECIAL)


class TestClient:
    def test_it_shares_what_huggingface_computes(self) -> None:
        import torch
        from huggingface import theirs

        made = client(*SENTENCES)
        model = theirs(MODEL, PARAMS)
        inputs = np.where(made.hidden, TOKENIZER.special.mask, made.tokens)
        model(
            torch.tensor(inputs),
            attention_mask=torch.tensor(made.shared.attention),
            labels=torch.tensor(np.where(made.hidden, made.tokens, -100)),
        ).loss.backward()
        for name, parameter in model.named_parameters():
            if name in PARAMS:
                found = made.shared.gradients[name]
                np.testing.assert_allclose(found, parameter.grad.numpy(), atol=1e-12, rtol=1e-9)

    def test_it_hides_fifteen_percent_and_one_at_least(self) -> None:
        assert [text.masked_count(length) for length in (3, 8, 16, 30)] == [1, 1, 2, 4]
        made = client(*SENTENCES)
        words = made.shared.words
        assert made.hidden.sum(axis=1).tolist() == [1, 1]
        assert made.shared.masked == 2
        assert not made.hidden[~words].any()
        assert words.sum(axis=1).tolist() == [len(tokens) - 2 for tokens in encoded(*SENTENCES)]

    def test_nothing_of_the_truth_is_in_what_is_shared(self) -> None:
        shared = client(*SENTENCES).shared
        known = {"model", "params", "gradients", "lengths", "special"}
        assert set(vars(shared)) == known
        assert shared.shape == (2, len(encoded(SENTENCES[0])[0]))
        assert shared.attention is not None
        assert client(SENTENCES[0]).shared.attention is None

    def test_float32_stays_float32(self) -> None:
        shared = client(*SENTENCES, dtype="float32").shared
        assert shared.dtype == "float32"
        assert {str(g.dtype) for g in shared.gradients.values()} == {"float32"}

    def test_defences_apply(self) -> None:
        plain = client(*SENTENCES).shared.gradients
        noise = np.random.default_rng(0)
        pruned = client(*SENTENCES, defenses=[parse("prune:0.5")], noise=noise).shared.gradients
        kept = pruned[WORDS] != 0
        assert kept.mean() == pytest.approx(0.5, abs=0.01)
        np.testing.assert_array_equal(pruned[WORDS][kept], plain[WORDS][kept])

    def test_each_sentence_is_clipped_by_itself(self) -> None:
        """With one masked word a sentence, the mean loss is the mean of the sentences' losses."""
        noise = np.random.default_rng(0)
        plain = client(*SENTENCES).shared.gradients
        clipped = client(*SENTENCES, defenses=[parse("dpsgd:1e9,1e-30")], noise=noise)
        for name, gradient in clipped.shared.gradients.items():
            np.testing.assert_allclose(gradient, plain[name], atol=1e-14)

    @pytest.mark.parametrize(
        ("sentences", "options", "message"),
        [
            ([], {}, r"sentences of \[\] tokens; give at least one"),
            ([np.arange(17)], {}, "each of 3 to 16 tokens"),
            ([np.array([2, 3])], {}, "each of 3 to 16 tokens"),
            ([np.array([2, 500, 3])], {}, "token 500 was given; with a vocabulary of 500"),
            ([np.array([2, 9, 3])], {"dtype": "float16"}, "dtype 'float16' is unknown"),
            ([np.array([2, 9, 3])], {"defenses": [parse("float16")]}, "give noise to share_text"),
        ],
    )
    def test_what_it_cannot_share(self, sentences, options, message: str) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=message):
            text.share_text(MODEL, PARAMS, sentences, TOKENIZER.special, rng=rng, **options)


class TestTraining:
    def test_the_loss_falls_and_the_weights_given_stay(self) -> None:
        before = {name: array.copy() for name, array in PARAMS.items()}
        short = [tokens for tokens in encoded(*TOKENIZER.sentences[:60]) if len(tokens) < 12]
        trained = text.train(MODEL, PARAMS, short, TOKENIZER.special, steps=40)
        assert trained.losses.shape == (40,)
        assert np.mean(trained.losses[-5:]) < trained.losses[0] - 0.5
        for name, array in PARAMS.items():
            np.testing.assert_array_equal(array, before[name])
            assert trained.params[name].dtype == array.dtype


class TestMetrics:
    TRUTH = np.array([[2, 10, 11, 12, 3], [2, 20, 10, 3, 0]])
    COUNTED = np.array([[0, 1, 1, 1, 0], [0, 1, 1, 0, 0]], bool)

    def test_only_words_count(self) -> None:
        found = np.array([[9, 10, 11, 13, 9], [9, 10, 20, 9, 9]])
        assert metrics.token_accuracy(found, self.TRUTH, self.COUNTED) == 2 / 5
        assert metrics.bag_accuracy(found, self.TRUTH, self.COUNTED) == 4 / 5

    def test_a_word_that_is_there_twice_is_to_be_found_twice(self) -> None:
        truth = np.array([[2, 7, 7, 8, 3]])
        found = np.array([[2, 7, 8, 8, 3]])
        assert metrics.bag_accuracy(found, truth, self.COUNTED[:1]) == pytest.approx(2 / 3)

    def test_sentences_in_another_order(self) -> None:
        found = self.TRUTH[::-1].copy()
        found[0, 1] = 99
        order = metrics.match_sentences(found, self.TRUTH, self.COUNTED)
        assert order.tolist() == [1, 0]

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match="tokens are compared in arrays of one shape"):
            metrics.token_accuracy(self.TRUTH[:1], self.TRUTH, self.COUNTED)


class TestAttack:
    def test_it_judges_in_the_order_that_fits(self, monkeypatch) -> None:
        made = client(*SENTENCES)
        swapped = made.tokens[::-1]
        history = [Reading(0, np.zeros_like(swapped), 1.0), Reading(7, swapped, 0.0)]
        monkeypatch.setitem(
            text.METHODS, "told", lambda shared, **options: Found(swapped, history, "told", 3)
        )
        result = text.attack(made, "told")
        np.testing.assert_array_equal(result.tokens_recovered, made.tokens)
        np.testing.assert_array_equal(result.history[-1].tokens, made.tokens)
        assert result.succeeded
        assert (result.token_accuracy, result.bag_accuracy) == (1.0, 1.0)
        assert (result.iterations, result.evaluations, result.reason) == (7, 3, "told")

    def test_an_unknown_attack(self) -> None:
        with pytest.raises(ValueError, match="attack 'guess' is unknown; choose from"):
            text.attack(client(SENTENCES[0]), "guess")
