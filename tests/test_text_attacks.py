"""The exact attacks on text, `rows` and `span`, and the row space that `span` reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak import text
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import POSITIONS, WORDS, Bert
from tinyleak.text import assignment, meet_in_the_middle
from tinyleak.text.hidden import fill_in
from tinyleak.text.row_space import membership, row_space

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER))
UNTRAINED = MODEL.init(np.random.default_rng(0))


def moved() -> dict[str, Array]:
    """Weights of which none is zero or one, as after training, and larger."""
    rng = np.random.default_rng(1)
    drawn = MODEL.init(rng, std=0.1)
    return {name: a + 0.05 * rng.standard_normal(a.shape) for name, a in drawn.items()}


WEIGHTS = {"untrained": UNTRAINED, "moved": moved()}


def client(
    sentences: list[str], weights: str = "untrained", **options
) -> tuple[text.TextClient, text.TextTruth]:
    return text.share_text(
        MODEL,
        WEIGHTS[weights],
        [TOKENIZER.encode(sentence) for sentence in sentences],
        TOKENIZER.special,
        rng=np.random.default_rng(3),
        **options,
    )


def sentences(length: int, *which: int) -> list[str]:
    found = [one for one in TOKENIZER.sentences if len(TOKENIZER.encode(one)) == length]
    return [found[i] for i in which]


class TestOneSentence:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("weights", WEIGHTS)
    @pytest.mark.parametrize("length", [8, 16, 30])
    @pytest.mark.parametrize("method", ["rows", "span"])
    def test_every_word_is_found(self, method, length, weights, dtype) -> None:
        made, truth = client(sentences(length, 5), weights, dtype=dtype)
        seen = []
        outcome = truth.judge(text.attack(made, method, on_progress=seen.append))
        np.testing.assert_array_equal(outcome.tokens_recovered, truth.tokens)
        assert outcome.succeeded
        assert outcome.found.reason in (
            "every position names its word",
            "one word fits at each position",
        )
        assert outcome.found.explained
        assert [snapshot.iteration for snapshot in seen] == [0]
        np.testing.assert_array_equal(seen[0].tokens, truth.tokens)

    def test_rows_looks_at_the_embedding_tables_alone_for_what_was_read(self) -> None:
        made, truth = client(sentences(16, 0))
        others = {name: g for name, g in made.gradients.items() if "attention" not in name}
        gradients = {**{n: 0 * g for n, g in made.gradients.items()}, **others}
        assert truth.judge(text.attack(with_gradients(made, gradients), "rows")).succeeded

    def test_span_does_not_look_at_the_embedding_tables(self) -> None:
        made, truth = client(sentences(16, 0))
        gradients = dict(made.gradients)
        gradients[WORDS], gradients[POSITIONS] = 0 * gradients[WORDS], 0 * gradients[POSITIONS]
        assert truth.judge(text.attack(with_gradients(made, gradients), "span")).succeeded

    @pytest.mark.parametrize("method", ["rows", "span"])
    def test_clipping_is_no_matter(self, method: str) -> None:
        noise = np.random.default_rng(0)
        made, truth = client(sentences(16, 0), defenses=[parse("clip:0.01")], noise=noise)
        assert truth.judge(text.attack(made, method)).succeeded

    @pytest.mark.parametrize("method", ["rows", "span"])
    def test_noise_stops_them_and_they_say_so(self, method: str) -> None:
        noise = np.random.default_rng(0)
        made, truth = client(sentences(16, 0), defenses=[parse("gaussian:1e-2")], noise=noise)
        outcome = truth.judge(text.attack(made, method))
        assert not outcome.succeeded
        assert outcome.found.reason in ("the rows leave a choice", "the space leaves a choice")

    @pytest.mark.parametrize("defense", ["bfloat16", "prune:0.2"])
    def test_rows_read_a_gradient_that_was_rounded_or_pruned(self, defense: str) -> None:
        """As many positions are hidden as the client hides, and no more."""
        for index in range(5):
            noise = np.random.default_rng(index)
            made, truth = client(sentences(8, index), defenses=[parse(defense)], noise=noise)
            assert truth.judge(text.attack(made, "rows")).succeeded

    @pytest.mark.parametrize(
        ("method", "message"),
        [
            ("span", "30 tokens span all 23 dimensions that layer norm leaves a vector of 24"),
            ("rows", "30 tokens and 4 hidden ones span all 24 numbers"),
        ],
    )
    def test_too_many_tokens_for_the_width(self, method: str, message: str) -> None:
        narrow = Bert(len(TOKENIZER), layers=1, width=24, intermediate=8)
        rng = np.random.default_rng(0)
        tokens = [TOKENIZER.encode(sentences(30, 0)[0])]
        made, truth = text.share_text(narrow, narrow.init(rng), tokens, TOKENIZER.special, rng=rng)
        with pytest.raises(ValueError, match=message):
            text.attack(made, method)

    @pytest.mark.parametrize("length", [14, 15])
    def test_layer_norm_leaves_span_one_dimension_less_than_the_width(self, length: int) -> None:
        narrow = Bert(len(TOKENIZER), width=16)
        rng = np.random.default_rng(0)
        tokens = [TOKENIZER.encode(sentences(length, 0)[0])]
        made, truth = text.share_text(narrow, narrow.init(rng), tokens, TOKENIZER.special, rng=rng)
        if length == 14:
            assert truth.judge(text.attack(made, "span")).succeeded
        else:
            with pytest.raises(ValueError, match="15 tokens span all 15 dimensions"):
                text.attack(made, "span")

    @pytest.mark.parametrize(
        ("method", "message"),
        [("span", "gradient is zero, so it has no row space"), ("rows", "no row names a word")],
    )
    def test_a_gradient_of_zeros(self, method: str, message: str) -> None:
        made, truth = client(sentences(8, 0))
        zeros = {name: 0 * gradient for name, gradient in made.gradients.items()}
        with pytest.raises(ValueError, match=message):
            text.attack(with_gradients(made, zeros), method)


def with_gradients(made: text.TextClient, gradients: dict[str, Array]) -> text.TextClient:
    return replace(made, gradients=gradients)


class TestBatch:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_span_tells_sentences_apart(self, dtype: str) -> None:
        made, truth = client(sentences(8, 2, 9, 14), "moved", dtype=dtype)
        outcome = truth.judge(text.attack(made, "span"))
        np.testing.assert_array_equal(outcome.tokens_recovered, truth.tokens)

    def test_rounding_that_stands_out_from_itself_is_no_token(self) -> None:
        """The rank is 22, and rounding is uneven: 1.6 times as far out as even noise would be."""
        batch = ["The old man closed the door.", "We ate it.", "She has my old coat."]
        made, truth = text.simulate_text(batch, seed=3, dtype="float32")
        assert made.first_layer.rank == 22
        assert truth.judge(text.attack(made, "span")).succeeded

    def test_of_different_lengths_too(self) -> None:
        made, truth = client([*sentences(8, 2, 9), *sentences(10, 1)], "moved")
        outcome = truth.judge(text.attack(made, "span"))
        np.testing.assert_array_equal(outcome.tokens_recovered, truth.tokens)

    def test_where_more_words_than_there_were_lie_in_the_space(self) -> None:
        """Before training, a word that is at one place may seem to be at another as well."""
        made, truth = client(sentences(8, 4, 5, 6, 7))
        _, allowed = membership(made, row_space(made))
        assert np.prod(allowed[1:-1].sum(axis=1)) > assignment.MOST_TRIED
        outcome = truth.judge(text.attack(made, "span"))
        np.testing.assert_array_equal(outcome.tokens_recovered, truth.tokens)

    def test_rows_names_the_words(self) -> None:
        made, truth = client(sentences(8, 2, 9, 14))
        outcome = truth.judge(text.attack(made, "rows"))
        words = made.words
        assert set(truth.tokens[words]) <= set(outcome.tokens_recovered[words])

    @pytest.mark.parametrize("meets", [True, False])
    def test_where_there_are_too_many_to_try(self, meets: bool, monkeypatch) -> None:
        """They are found by halves; if these have too many sums, the nearest words are all."""
        monkeypatch.setattr(assignment, "MOST_TRIED", 4)
        if not meets:
            monkeypatch.setattr(assignment, "can_meet", lambda options: False)
        made, truth = client(sentences(8, 2, 9), "moved")
        inputs, sure = assignment.assign_sentences(made, *membership(made, row_space(made)))
        assert sure is meets
        read = np.where(truth.hidden, TOKENIZER.special.mask, truth.tokens)
        if meets:
            assert {tuple(row) for row in inputs} == {tuple(row) for row in read}
        else:
            assert all(np.isin(inputs[:, position], read[:, position]).all() for position in (0, 7))

    def test_where_noise_hides_every_hidden_position(self) -> None:
        """No word is [MASK] then, and there are more to try than can be."""
        noise = {"defenses": [parse("gaussian:1e-8")], "noise": np.random.default_rng(2)}
        made, truth = client(sentences(8, 2, 9, 14, 5), **noise)
        assert truth.judge(text.attack(made, "span")).tokens_recovered.shape == truth.tokens.shape


class TestHalves:
    def test_of_a_million_sums_the_one_that_cancels_is_found(self) -> None:
        rng = np.random.default_rng(0)
        options = [[7], *[list(range(10 * i, 10 * i + 10)) for i in range(1, 7)]]
        effects = rng.standard_normal((70, 12))
        truth = np.array([7, *[rng.choice(words) for words in options[1:]]])
        base = np.array([words[0] for words in options])

        def outside(found: Array) -> Array:
            return effects[found].sum(axis=1) - effects[truth].sum(axis=0)

        assert meet_in_the_middle.can_meet(options)
        found = meet_in_the_middle.likeliest(options, base, outside)
        best = np.argmin(np.square(outside(found)).sum(axis=1))
        np.testing.assert_array_equal(found[best], truth)

    def test_halves_that_are_too_large(self) -> None:
        assert not meet_in_the_middle.can_meet([list(range(17))] * 6)


class TestHidden:
    def test_without_a_hidden_place_nothing_is_filled_in(self) -> None:
        made, truth = client(sentences(8, 0))
        assert fill_in(made, truth.tokens) is truth.tokens


class TestRowSpace:
    RNG = np.random.default_rng(0)
    INPUTS = RNG.standard_normal((5, 20))
    GRADIENT = RNG.standard_normal((30, 5)) @ INPUTS

    def test_inputs_lie_in_it_and_nothing_else(self) -> None:
        space = LayerGradient.stacked([self.GRADIENT], 5).row_space
        assert space.holds(self.INPUTS).all()
        assert not space.holds(self.RNG.standard_normal((50, 20))).any()

    def test_inputs_that_are_there_twice_take_one_direction(self) -> None:
        space = LayerGradient.stacked([self.GRADIENT], 9).row_space
        assert len(space.basis) == 5
        assert space.holds(self.INPUTS).all()

    @pytest.mark.parametrize("deviation", [1e-6, 1e-3])
    def test_it_measures_the_noise(self, deviation: float) -> None:
        noisy = self.GRADIENT + deviation * self.RNG.standard_normal(self.GRADIENT.shape)
        space = LayerGradient.stacked([noisy], 5).row_space
        scaled = deviation / np.linalg.norm(noisy)
        assert space.noise == pytest.approx(scaled**2, rel=0.3)
        ratios = space.distances(self.INPUTS) / space.expected(self.INPUTS)
        assert np.all((ratios > 0.4) & (ratios < 2.5))
