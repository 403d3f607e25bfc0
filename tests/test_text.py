"""Sentences, their tokens, the client that shares a language model's gradient, and its metrics."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

import string
import sys
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer as Tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from tinyleak import metrics, text
from tinyleak.data.text import SPECIAL, Tokenizer, load_tokenizer, read_corpus
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import WORDS, Bert
from tinyleak.text import FoundText, Snapshot

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER), layers=1, width=12, heads=3, intermediate=20, positions=16)
PARAMS = MODEL.init(np.random.default_rng(0))
SENTENCES = ["The bridge is older.", "We ate it."]


def encoded(*sentences: str) -> list[np.ndarray]:
    return [TOKENIZER.encode(sentence) for sentence in sentences]


def client(*sentences: str, seed: int = 1, **options) -> tuple[text.TextClient, text.TextTruth]:
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

    def test_the_shipped_vocabulary_is_what_wordpiece_makes_of_the_text(self) -> None:
        """It merges the pair that is most frequent, again and again, until there are 500 tokens."""
        tokenizer = Tokenizers(WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        # Letters are named beforehand: those that the library finds it numbers in a random order,
        # and equally frequent pairs are merged in the order of their numbers.
        letters = string.ascii_lowercase + string.digits
        first = [*SPECIAL, *"!\"'(),-.:;?", *letters, *(f"##{letter}" for letter in letters)]
        trainer = WordPieceTrainer(
            vocab_size=500, min_frequency=1, special_tokens=first, show_progress=False
        )
        tokenizer.train_from_iterator(read_corpus(), trainer)
        numbers = tokenizer.get_vocab()
        assert sorted(numbers, key=numbers.__getitem__) == list(TOKENIZER.vocabulary)

    def test_there_are_enough_sentences_of_each_length(self) -> None:
        assert len(read_corpus()) == len(set(read_corpus())) == len(TOKENIZER.sentences)
        for length in (8, 16, 30):
            assert [len(tokens) for tokens in encoded(*TOKENIZER.sentences)].count(length) >= 30

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

        made, truth = client(*SENTENCES)
        model = theirs(MODEL, PARAMS)
        inputs = np.where(truth.hidden, TOKENIZER.special.mask, truth.tokens)
        model(
            torch.tensor(inputs),
            attention_mask=torch.tensor(made.attention),
            labels=torch.tensor(np.where(truth.hidden, truth.tokens, -100)),
        ).loss.backward()
        for name, parameter in model.named_parameters():
            if name in PARAMS:
                found = made.gradients[name]
                np.testing.assert_allclose(found, parameter.grad.numpy(), atol=1e-12, rtol=1e-9)

    def test_it_hides_fifteen_percent_and_one_at_least(self) -> None:
        assert [text.masked_count(length) for length in (3, 8, 16, 30)] == [1, 1, 2, 4]
        made, truth = client(*SENTENCES)
        words = made.words
        assert truth.hidden.sum(axis=1).tolist() == [1, 1]
        assert made.masked == 2
        assert not truth.hidden[~words].any()
        assert words.sum(axis=1).tolist() == [len(tokens) - 2 for tokens in encoded(*SENTENCES)]

    def test_nothing_of_the_truth_is_in_what_is_shared(self) -> None:
        made, _ = client(*SENTENCES)
        known = {"model", "params", "gradients", "lengths", "special", "tokenizer"}
        known |= {"facts", "hidden"}
        assert set(vars(made)) == known
        assert made.shape == (2, len(encoded(SENTENCES[0])[0]))
        assert made.attention is not None
        assert client(SENTENCES[0])[0].attention is None

    def test_float32_stays_float32(self) -> None:
        made, _ = client(*SENTENCES, dtype="float32")
        assert made.dtype == "float32"
        assert {str(g.dtype) for g in made.gradients.values()} == {"float32"}

    def test_the_caller_s_weights_are_copied(self) -> None:
        params = {name: array.copy() for name, array in PARAMS.items()}
        made, _ = text.simulate_text(SENTENCES, MODEL, params=params)
        params[WORDS][:] = 0.0
        np.testing.assert_array_equal(made.params[WORDS], PARAMS[WORDS])

    def test_defences_apply(self) -> None:
        plain = client(*SENTENCES)[0].gradients
        noise = np.random.default_rng(0)
        pruned = client(*SENTENCES, defenses=[parse("prune:0.5")], noise=noise)[0].gradients
        kept = pruned[WORDS] != 0
        assert kept.mean() == pytest.approx(0.5, abs=0.01)
        np.testing.assert_array_equal(pruned[WORDS][kept], plain[WORDS][kept])

    def test_each_sentence_is_clipped_by_itself(self) -> None:
        """With one masked word a sentence, the mean loss is the mean of the sentences' losses."""
        noise = np.random.default_rng(0)
        plain = client(*SENTENCES)[0].gradients
        clipped, _ = client(*SENTENCES, defenses=[parse("dpsgd:1e9,1e-30")], noise=noise)
        for name, gradient in clipped.gradients.items():
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
        made, truth = client(*SENTENCES)
        swapped = truth.tokens[::-1]
        history = [Snapshot(0, np.zeros_like(swapped), 1.0), Snapshot(7, swapped, 0.0)]

        def told(client: text.TextClient, *, seed: int, on_progress) -> FoundText:
            return FoundText(client, swapped, history, "told", True, 3)

        monkeypatch.setitem(text.METHODS, "told", told)
        found = text.attack(made, "told")
        outcome = truth.judge(found)
        np.testing.assert_array_equal(outcome.tokens_recovered, truth.tokens)
        np.testing.assert_array_equal(outcome.history[-1].tokens, truth.tokens)
        assert outcome.succeeded
        assert (outcome.token_accuracy, outcome.bag_accuracy) == (1.0, 1.0)
        assert (found.iterations, found.evaluations, found.reason) == (7, 3, "told")

    def test_an_unknown_attack(self) -> None:
        with pytest.raises(ValueError, match="attack 'guess' is unknown; choose from"):
            text.attack(client(SENTENCES[0])[0], "guess")

    def test_what_is_no_client(self) -> None:
        with pytest.raises(TypeError, match="was given a tuple; give a TextClient"):
            text.attack(client(SENTENCES[0]))

    @pytest.mark.parametrize("seed", [-1, 0.5, "x"])
    def test_what_is_no_seed(self, seed: object) -> None:
        with pytest.raises((ValueError, TypeError), match="seeds are whole numbers from 0 on"):
            text.attack(client(SENTENCES[0])[0], "span", seed=seed)

    @pytest.mark.parametrize("method", ["match", "span+match"])
    @pytest.mark.parametrize("count", ["iterations", "rounds", "restarts"])
    @pytest.mark.parametrize("value", [0, 1.5])
    def test_what_is_no_count(self, method: str, count: str, value: float) -> None:
        with pytest.raises((ValueError, TypeError), match=f"{value} {count} were asked for; give"):
            text.attack(client(SENTENCES[0])[0], method, **{count: value})

    @pytest.mark.parametrize("method", text.METHODS)
    def test_a_keyword_that_is_unknown(self, method: str) -> None:
        with pytest.raises(TypeError, match="does not take iteration; it takes seed, "):
            text.attack(client(SENTENCES[0])[0], method, iteration=3)

    def test_results_are_short_compare_by_identity_and_show_themselves(self) -> None:
        made, truth = text.simulate_text("We ate it. " * 8)
        found = text.attack(made, "span")
        outcome = truth.judge(found)
        for one in (made, truth, found, outcome):
            assert len(repr(one)) < 300
            assert one != replace(one)
            assert len({one, one}) == 1
        assert "we ate it" in repr(found)
        assert "<td>we ate it . we ate" in found._repr_html_()
        assert outcome._repr_html_().count("<td>we ate it .") == 2

    def test_what_a_vocabulary_holds_is_escaped(self) -> None:
        words = [*SPECIAL, "a", "<b>", *(f"w{i}" for i in range(20))]
        made, truth = text.simulate_text("a a a", Bert(27), tokenizer=Tokenizer(words))
        wrong = np.where(truth.tokens == 5, 6, truth.tokens)
        html = FoundText(made, wrong, [], "told", False)._repr_html_()
        assert "&lt;b&gt;" in html and "<b>" not in html
