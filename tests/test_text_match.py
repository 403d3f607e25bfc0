"""Sentences out of a gradient by matching it: distance, relaxation, polishing, and the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak import text
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import WORDS, Bert
from tinyleak.tensor import Tensor
from tinyleak.text.distance import Distance, Guess, named_answers, noise_variance, stacked
from tinyleak.text.local_search import polish
from tinyleak.text.relaxed import Relaxation, any_word
from tinyleak.text.result import Reading
from tinyleak.text.within_span import _members

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER), layers=1, width=24, heads=2, intermediate=48, positions=16)
# One layer gives each token too few directions: membership needs a second one.
DEEPER = replace(MODEL, layers=2)
SENTENCE = "The bridge is old."
BATCH = ["The bridge is old.", "We ate it."]


def client(*sentences: str, seed: int = 1, model: Bert = MODEL, **options) -> text.TextClient:
    encoded = [TOKENIZER.encode(sentence) for sentence in sentences or [SENTENCE]]
    params = model.init(np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(seed)
    special = TOKENIZER.special
    return text.share_text(model, params, encoded, special, rng=rng, noise=noise, **options)


def truth(client: text.TextClient) -> Guess:
    mask = client.shared.special.mask
    return Guess(
        np.where(client.hidden, mask, client.tokens), np.where(client.hidden, client.tokens, -1)
    )


class TestDistance:
    @pytest.mark.parametrize("sentences", [[SENTENCE], BATCH])
    @pytest.mark.parametrize("evenness", [0.0, 0.25, 1.0])
    def test_it_is_zero_at_the_truth_and_only_there(self, sentences, evenness: float) -> None:
        known = client(*sentences)
        right = truth(known)
        wrong = Guess(right.inputs.copy(), right.answers)
        place = np.flatnonzero(known.shared.words & ~known.hidden)[0]
        wrong.inputs.flat[place] += 1
        near, far = Distance(known.shared, evenness).of_guesses(stacked([right, wrong]))
        assert near < 1e-20
        assert far > 1e-8

    def test_a_model_that_makes_no_gradient_is_at_distance_one(self) -> None:
        known = client()
        distance = Distance(known.shared)
        words = Tensor(distance.params[WORDS][known.tokens][np.newaxis])
        nothing = Tensor(np.zeros((1, *known.tokens.shape, MODEL.vocabulary)))
        assert distance.of(words, nothing).data == pytest.approx(1.0)

    def test_the_embedding_tables_gradient_is_not_looked_at(self) -> None:
        known = client()
        blinded = {
            **known.shared.gradients,
            WORDS: np.full_like(known.shared.params[WORDS], np.nan),
        }
        shared = replace(known.shared, gradients=blinded)
        found = text.METHODS["match"](shared, seed=0)
        np.testing.assert_array_equal(found.tokens, known.tokens)

    def test_pruned_entries_count_for_nothing(self) -> None:
        known = client(defenses=[parse("prune:0.5")])
        assert Distance(known.shared).of_guesses(stacked([truth(known)]))[0] < 1e-20

    def test_many_guesses_are_evaluated_as_each_alone(self) -> None:
        known = client()
        rng = np.random.default_rng(0)
        right = truth(known)
        guesses = [Guess(rng.permutation(right.inputs.T).T, right.answers) for _ in range(19)]
        distance = Distance(known.shared)
        alone = [distance.of_guesses(stacked([guess]))[0] for guess in guesses]
        np.testing.assert_allclose(distance.of_guesses(stacked(guesses)), alone, rtol=1e-9)
        assert distance.evaluations == 38

    def test_a_gradient_of_zeros(self) -> None:
        shared = client().shared
        zeros = {name: np.zeros_like(array) for name, array in shared.gradients.items()}
        with pytest.raises(ValueError, match="beside the embedding table's is zero or not finite"):
            Distance(replace(shared, gradients=zeros))

    @pytest.mark.parametrize("variance", [0.0, 1e-6])
    def test_the_noise_is_read_where_there_is_nothing_else(self, variance: float) -> None:
        defenses = [parse(f"gaussian:{variance}")] if variance else []
        assert noise_variance(client(defenses=defenses).shared) == pytest.approx(variance, rel=0.2)

    def test_the_hidden_words_are_named_as_often_as_they_are_hidden(self) -> None:
        known = client("The old man closed the door.", "The man and the dog and the cat.", seed=5)
        twice = client(*[SENTENCE] * 6)  # it has five words
        for one in (known, twice):
            assert named_answers(one.shared) == sorted(one.tokens[one.hidden].tolist())
        assert len(set(named_answers(twice.shared))) < 6


class TestRelaxation:
    @pytest.mark.parametrize("mixed", [False, True])
    def test_its_gradient_is_that_of_its_value(self, mixed: bool) -> None:
        shared = client(*BATCH).shared
        function = Relaxation(Distance(shared), named_answers(shared), any_word(shared), mixed)
        rng = np.random.default_rng(0)
        z = function.start(rng, 2)
        direction = rng.standard_normal(z.shape)
        step = 1e-6 * (1.0 if mixed else shared.params[WORDS].std())
        _, gradient = function(z, np.arange(2))
        ahead, _ = function(z + step * direction, np.arange(2))
        behind, _ = function(z - step * direction, np.arange(2))
        slopes = (gradient * direction).sum(axis=1)
        np.testing.assert_allclose((ahead - behind) / (2 * step), slopes, rtol=1e-5)

    @pytest.mark.parametrize("mixed", [False, True])
    @pytest.mark.parametrize("sentences", [[SENTENCE], BATCH])
    def test_what_starts_near_a_guess_reads_as_it(self, mixed: bool, sentences) -> None:
        known = client(*sentences)
        guess, shared = truth(known), known.shared
        function = Relaxation(Distance(shared), named_answers(shared), any_word(shared), mixed)
        z = function.start(np.random.default_rng(0), 1, guess)
        if mixed:  # noise beside a logit of 3 may win: it is a start, not the guess itself
            z = function.start(_Quiet(), 1, guess)
        read, nearness = function.read(z[0])
        np.testing.assert_array_equal(read.tokens, known.tokens)
        np.testing.assert_array_equal(read.answers, guess.answers)
        assert nearness.shape == (int(shared.words.sum()), MODEL.vocabulary)

    def test_only_what_is_allowed_is_read(self) -> None:
        known = client()
        allowed = np.zeros((*known.shared.shape, MODEL.vocabulary), bool)
        np.put_along_axis(allowed, truth(known).inputs[..., np.newaxis], True, axis=-1)
        function = Relaxation(Distance(known.shared), named_answers(known.shared), allowed)
        guess, _ = function.read(function.start(np.random.default_rng(0), 1)[0])
        np.testing.assert_array_equal(guess.tokens, known.tokens)


class _Quiet:
    """A generator that draws zeros."""

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


class TestPolish:
    def test_it_mends_words_an_exchange_and_a_hidden_place(self) -> None:
        known = client("The old man closed the door.")
        guess = truth(known)
        inputs, answers = guess.inputs.copy(), guess.answers.copy()
        hidden = int(np.flatnonzero(known.hidden)[0])
        open_places = np.flatnonzero(known.shared.words)
        others = [place for place in open_places if place != hidden]
        inputs.flat[others[0]] = 77
        inputs.flat[others[1]], inputs.flat[others[2]] = (
            inputs.flat[others[2]],
            inputs.flat[others[1]],
        )
        nearness = np.zeros((len(open_places), MODEL.vocabulary))
        nearness[:, ~np.isin(np.arange(MODEL.vocabulary), guess.tokens)] = -np.inf
        distance = Distance(known.shared)
        found, value, _ = polish(distance, Guess(inputs, answers), open_places, [nearness], 1e-10)
        np.testing.assert_array_equal(found.tokens, known.tokens)
        assert value < 1e-10

    def test_it_leaves_what_is_right(self) -> None:
        known = client()
        open_places = np.flatnonzero(known.shared.words)
        nearness = np.zeros((len(open_places), MODEL.vocabulary))
        distance = Distance(known.shared)
        found, _, _ = polish(distance, truth(known), open_places, [nearness], 1e-10)
        np.testing.assert_array_equal(found.tokens, known.tokens)
        assert distance.evaluations == 1

    def test_what_noise_alone_prefers_is_left(self) -> None:
        known = client(defenses=[parse("gaussian:1e-4")])
        shared = known.shared
        open_places = np.flatnonzero(shared.words)
        nearness = np.zeros((len(open_places), MODEL.vocabulary))
        distance, variance = Distance(shared, 0.0), noise_variance(shared)
        found = polish(distance, truth(known), open_places, [nearness], 0.0, variance).guess
        np.testing.assert_array_equal(found.tokens, known.tokens)
        # Without being told of the noise it takes what comes nearer by chance.
        found = polish(distance, truth(known), open_places, [nearness], 0.0).guess
        assert (found.tokens != known.tokens).any()


class TestMatch:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_it_finds_a_sentence(self, dtype: str) -> None:
        known = client(dtype=dtype)
        seen: list[Reading] = []
        result = text.attack(known, "match", seed=0, on_reading=seen.append)
        assert result.succeeded
        assert result.reason == "the gradient is matched"
        assert [reading.iteration for reading in seen][:2] == [0, 10]
        assert len(result.history) == len(seen)
        assert seen[0].distance > 1e-3
        assert seen[-1].distance < 1e-7
        assert result.evaluations > 10

    def test_one_seed_is_one_attack(self) -> None:
        known = client()
        runs = [
            text.attack(known, "match", seed=3, iterations=10, rounds=1, starts=2) for _ in range(2)
        ]
        np.testing.assert_array_equal(runs[0].tokens_recovered, runs[1].tokens_recovered)
        distances = [[reading.distance for reading in run.history] for run in runs]
        assert distances[0] == distances[1]

    def test_it_weighs_words_by_the_noise(self) -> None:
        known = client(defenses=[parse("gaussian:1e-8")])
        assert text.attack(known, "match", seed=0).succeeded

    def test_much_noise_is_not_mistaken_for_a_match(self) -> None:
        known = client(defenses=[parse("gaussian:1")])
        result = text.attack(known, "match", iterations=3, rounds=1, starts=1)
        assert not result.succeeded
        assert result.reason == "as near as the noise allows"

    def test_a_rounded_gradient_is_read_where_no_other_word_comes_near(self) -> None:
        result = text.attack(client(defenses=[parse("int8")]), "match", iterations=2, rounds=1)
        assert result.succeeded
        assert result.reason == "no other word comes near"

    def test_it_says_that_it_ran_out_of_rounds(self) -> None:
        known = client(seed=2, defenses=[parse("prune:0.99")])
        result = text.attack(known, "match", iterations=2, rounds=1)
        assert result.reason == "out of rounds"


class TestSpanMatch:
    @pytest.mark.parametrize(("seed", "optimised"), [(1, False), (2, True)])
    def test_it_reads_behind_noise_that_membership_does_not(self, seed, optimised) -> None:
        sentence, noise = "The old man closed the door.", parse("gaussian:1e-12")
        known = client(sentence, seed=seed, model=DEEPER, defenses=[noise])
        assert text.attack(known, "span", seed=0).token_accuracy < 0.8
        result = text.attack(known, "span+match", seed=0)
        assert result.succeeded
        assert result.reason == "as near as the noise allows"
        assert (result.evaluations > 1000) == optimised

    def test_it_tells_the_sentences_of_a_batch_apart(self) -> None:
        assert text.attack(client(*BATCH, model=DEEPER), "span+match", seed=0).succeeded

    def test_where_membership_is_enough_nothing_is_optimised(self) -> None:
        result = text.attack(client(model=DEEPER), "span+match", seed=0)
        assert result.succeeded
        assert result.reason == "one word fits at each place"
        assert result.evaluations == 0

    def test_a_full_space_excludes_no_word(self) -> None:
        known = client(*[SENTENCE] * 4)  # 28 tokens, of width 24
        members = _members(known.shared, np.random.default_rng(0))
        np.testing.assert_array_equal(members.allowed, any_word(known.shared))
        assert members.distances == members.guesses == []
        assert not members.sure

    @pytest.mark.parametrize("defense", ["float16", "bfloat16", "int8", "prune:0.2", "clip:0.1"])
    def test_a_changed_gradient_is_read_all_the_same(self, defense: str) -> None:
        known = client(model=DEEPER, defenses=[parse(defense)])
        assert text.attack(known, "span+match", seed=0).succeeded

    def test_a_gradient_of_zeros(self) -> None:
        shared = client().shared
        zeros = {name: np.zeros_like(array) for name, array in shared.gradients.items()}
        with pytest.raises(ValueError, match="there is nothing to match"):
            text.METHODS["span+match"](replace(shared, gradients=zeros))
