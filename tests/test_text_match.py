"""Sentences out of a gradient by matching it: distance, relaxation, local search, and the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyleak import text
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import WORDS, Bert
from tinyleak.tensor import Tensor
from tinyleak.text.distance import Distance, Guess, stacked
from tinyleak.text.hidden import named_answers
from tinyleak.text.improvement import local_search
from tinyleak.text.relaxed import Relaxation, any_word
from tinyleak.text.within_span import _members

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER), layers=1, width=24, heads=2, intermediate=48, positions=16)
# One layer gives each token too few directions: membership needs a second one.
DEEPER = replace(MODEL, layers=2)
SENTENCE = "The bridge is old."
BATCH = ["The bridge is old.", "We ate it."]


def share(
    *sentences: str, seed: int = 1, model: Bert = MODEL, **options
) -> tuple[text.TextClient, text.TextTruth]:
    encoded = [TOKENIZER.encode(sentence) for sentence in sentences or [SENTENCE]]
    params = model.init(np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(seed)
    special = TOKENIZER.special
    return text.share_text(model, params, encoded, special, rng=rng, noise=noise, **options)


def right(truth: text.TextTruth) -> Guess:
    mask = TOKENIZER.special.mask
    return Guess(
        np.where(truth.hidden, mask, truth.tokens), np.where(truth.hidden, truth.tokens, -1)
    )


class TestDistance:
    @pytest.mark.parametrize("sentences", [[SENTENCE], BATCH])
    @pytest.mark.parametrize("evenness", [0.0, 0.25, 1.0])
    def test_it_is_zero_at_the_truth_and_only_there(self, sentences, evenness: float) -> None:
        client, truth = share(*sentences)
        guess = right(truth)
        wrong = Guess(guess.inputs.copy(), guess.answers)
        position = np.flatnonzero(client.words & ~truth.hidden)[0]
        wrong.inputs.flat[position] += 1
        near, far = Distance(client, evenness).of_guesses(stacked([guess, wrong]))
        assert near < 1e-20
        assert far > 1e-8

    def test_a_model_that_makes_no_gradient_is_at_distance_one(self) -> None:
        client, truth = share()
        distance = Distance(client)
        words = Tensor(distance.params[WORDS][truth.tokens][np.newaxis])
        nothing = Tensor(np.zeros((1, *truth.tokens.shape, MODEL.vocabulary)))
        assert distance.of(words, nothing).data == pytest.approx(1.0)

    def test_the_embedding_tables_gradient_is_not_looked_at(self) -> None:
        client, truth = share()
        blinded = {
            **client.gradients,
            WORDS: np.full_like(client.params[WORDS], np.nan),
        }
        found = text.attack(replace(client, gradients=blinded), "match", seed=0)
        np.testing.assert_array_equal(found.tokens, truth.tokens)

    def test_pruned_entries_count_for_nothing(self) -> None:
        client, truth = share(defenses=[parse("prune:0.5")])
        assert Distance(client).of_guesses(stacked([right(truth)]))[0] < 1e-20

    def test_many_guesses_are_evaluated_as_each_alone(self) -> None:
        client, truth = share()
        rng = np.random.default_rng(0)
        guess = right(truth)
        guesses = [Guess(rng.permutation(guess.inputs.T).T, guess.answers) for _ in range(19)]
        distance = Distance(client)
        alone = [distance.of_guesses(stacked([guess]))[0] for guess in guesses]
        np.testing.assert_allclose(distance.of_guesses(stacked(guesses)), alone, rtol=1e-9)
        assert distance.evaluations == 38

    def test_a_gradient_of_zeros(self) -> None:
        client, _ = share()
        zeros = {name: np.zeros_like(array) for name, array in client.gradients.items()}
        with pytest.raises(ValueError, match="beside the embedding table's is zero or not finite"):
            Distance(replace(client, gradients=zeros))

    @pytest.mark.parametrize("variance", [0.0, 1e-6])
    def test_the_noise_is_read_where_there_is_nothing_else(self, variance: float) -> None:
        defenses = [parse(f"gaussian:{variance}")] if variance else []
        client, _ = share(defenses=defenses)
        assert client.noise == pytest.approx(variance, rel=0.2)

    def test_the_hidden_words_are_named_as_often_as_they_are_hidden(self) -> None:
        batch = ["The old man closed the door.", "The man and the dog and the cat."]
        for client, truth in (share(*batch, seed=5), share(*[SENTENCE] * 6)):
            assert named_answers(client) == sorted(truth.tokens[truth.hidden].tolist())
        assert len(set(named_answers(client))) < 6  # the sentence has five words


class TestRelaxation:
    @pytest.mark.parametrize("mixed", [False, True])
    def test_its_gradient_is_that_of_its_value(self, mixed: bool) -> None:
        client, _ = share(*BATCH)
        function = Relaxation(Distance(client), named_answers(client), any_word(client), mixed)
        rng = np.random.default_rng(0)
        z = function.start(rng, 2)
        direction = rng.standard_normal(z.shape)
        step = 1e-6 * (1.0 if mixed else client.params[WORDS].std())
        _, gradient = function(z, np.arange(2))
        ahead, _ = function(z + step * direction, np.arange(2))
        behind, _ = function(z - step * direction, np.arange(2))
        slopes = (gradient * direction).sum(axis=1)
        np.testing.assert_allclose((ahead - behind) / (2 * step), slopes, rtol=1e-5)

    @pytest.mark.parametrize("mixed", [False, True])
    @pytest.mark.parametrize("sentences", [[SENTENCE], BATCH])
    def test_what_starts_near_a_guess_reads_as_it(self, mixed: bool, sentences) -> None:
        client, truth = share(*sentences)
        guess = right(truth)
        function = Relaxation(Distance(client), named_answers(client), any_word(client), mixed)
        z = function.start(np.random.default_rng(0), 1, guess)
        if mixed:  # noise beside a logit of 3 may win: it is a start, not the guess itself
            z = function.start(_Quiet(), 1, guess)
        read, nearness = function.read(z[0])
        np.testing.assert_array_equal(read.tokens, truth.tokens)
        np.testing.assert_array_equal(read.answers, guess.answers)
        assert nearness.shape == (int(client.words.sum()), MODEL.vocabulary)

    def test_a_guess_may_answer_what_is_named_nowhere(self) -> None:
        client, truth = share()
        guess = right(truth)
        named = set(named_answers(client))
        other = next(word for word in range(10, MODEL.vocabulary) if word not in named)
        wrong = guess._replace(answers=np.where(guess.answers >= 0, other, -1))
        function = Relaxation(Distance(client), named_answers(client), any_word(client))
        read, _ = function.read(function.start(np.random.default_rng(0), 1, wrong)[0])
        assert set(read.answers[read.answers >= 0]) == named

    def test_only_what_is_allowed_is_read(self) -> None:
        client, truth = share()
        allowed = np.zeros((*client.shape, MODEL.vocabulary), bool)
        np.put_along_axis(allowed, right(truth).inputs[..., np.newaxis], True, axis=-1)
        function = Relaxation(Distance(client), named_answers(client), allowed)
        guess, _ = function.read(function.start(np.random.default_rng(0), 1)[0])
        np.testing.assert_array_equal(guess.tokens, truth.tokens)


class _Quiet:
    """A generator that draws zeros."""

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


class TestLocalSearch:
    def test_it_mends_words_an_exchange_and_a_hidden_place(self) -> None:
        client, truth = share("The old man closed the door.")
        guess = right(truth)
        inputs, answers = guess.inputs.copy(), guess.answers.copy()
        hidden = int(np.flatnonzero(truth.hidden)[0])
        open_positions = np.flatnonzero(client.words)
        others = [position for position in open_positions if position != hidden]
        inputs.flat[others[0]] = 77
        inputs.flat[others[1]], inputs.flat[others[2]] = (
            inputs.flat[others[2]],
            inputs.flat[others[1]],
        )
        nearness = np.zeros((len(open_positions), MODEL.vocabulary))
        nearness[:, ~np.isin(np.arange(MODEL.vocabulary), guess.tokens)] = -np.inf
        distance = Distance(client)
        found, value, *_ = local_search(
            distance, Guess(inputs, answers), open_positions, [nearness], 1e-10
        )
        np.testing.assert_array_equal(found.tokens, truth.tokens)
        assert value < 1e-10

    def test_it_leaves_what_is_right(self) -> None:
        client, truth = share()
        open_positions = np.flatnonzero(client.words)
        nearness = np.zeros((len(open_positions), MODEL.vocabulary))
        distance = Distance(client)
        found, *_ = local_search(distance, right(truth), open_positions, [nearness], 1e-10)
        np.testing.assert_array_equal(found.tokens, truth.tokens)
        assert distance.evaluations == 1

    def test_what_noise_alone_prefers_is_left(self) -> None:
        client, truth = share(defenses=[parse("gaussian:1e-4")])
        open_positions = np.flatnonzero(client.words)
        nearness = np.zeros((len(open_positions), MODEL.vocabulary))
        distance, variance = Distance(client, 0.0), client.noise
        found = local_search(
            distance, right(truth), open_positions, [nearness], 0.0, variance
        ).guess
        np.testing.assert_array_equal(found.tokens, truth.tokens)
        # Without being told of the noise it takes what comes nearer by chance.
        found = local_search(distance, right(truth), open_positions, [nearness], 0.0).guess
        assert (found.tokens != truth.tokens).any()


class TestMatch:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_it_finds_a_sentence(self, dtype: str) -> None:
        client, truth = share(dtype=dtype)
        seen: list[text.Snapshot] = []
        found = text.attack(client, "match", seed=0, on_progress=seen.append)
        assert truth.judge(found).succeeded
        assert found.reason == "the gradient is matched"
        assert found.explained
        assert [snapshot.iteration for snapshot in seen][:2] == [0, 10]
        assert len(found.history) == len(seen)
        assert seen[0].distance > 1e-3
        assert seen[-1].distance < 1e-7
        assert found.evaluations > 10

    def test_one_seed_is_one_attack(self) -> None:
        client, truth = share()
        runs = [
            text.attack(client, "match", seed=3, iterations=10, rounds=1, restarts=2)
            for _ in range(2)
        ]
        np.testing.assert_array_equal(runs[0].tokens, runs[1].tokens)
        distances = [[snapshot.distance for snapshot in run.history] for run in runs]
        assert distances[0] == distances[1]

    def test_it_weighs_words_by_the_noise(self) -> None:
        client, truth = share(defenses=[parse("gaussian:1e-8")])
        assert truth.judge(text.attack(client, "match", seed=0)).succeeded

    def test_much_noise_is_not_mistaken_for_a_match(self) -> None:
        client, truth = share(defenses=[parse("gaussian:1")])
        found = text.attack(client, "match", iterations=3, rounds=1, restarts=1)
        assert not truth.judge(found).succeeded
        assert found.reason == "as near as the noise allows"
        assert not found.explained

    def test_it_starts_near_a_given_sentence(self) -> None:
        client, truth = share()
        options = {"iterations": 1, "rounds": 1, "restarts": 1, "seed": 0}
        near = text.attack(client, "match", start=truth.tokens, **options)
        far = text.attack(client, "match", **options)
        assert near.history[0].distance < far.history[0].distance

    @pytest.mark.parametrize("start", [np.zeros((1, 3), int), np.full((1, 7), 500)])
    def test_a_start_that_does_not_fit(self, start: np.ndarray) -> None:
        with pytest.raises(ValueError, match="give tokens of shape .1, 7., whole numbers in"):
            text.attack(share()[0], "match", start=start)

    def test_a_rounded_gradient_is_read_where_no_other_word_comes_near(self) -> None:
        client, truth = share(defenses=[parse("int8")])
        found = text.attack(client, "match", iterations=2, rounds=1)
        assert truth.judge(found).succeeded
        assert found.reason == "no other word comes near"

    def test_it_says_that_it_ran_out_of_rounds(self) -> None:
        client, truth = share(seed=2, defenses=[parse("prune:0.99")])
        found = text.attack(client, "match", iterations=2, rounds=1)
        assert found.reason == "out of rounds"


class TestSpanMatch:
    @pytest.mark.parametrize(("seed", "optimised"), [(1, False), (2, True)])
    def test_it_reads_behind_noise_that_membership_does_not(self, seed, optimised) -> None:
        sentence, noise = "The old man closed the door.", parse("gaussian:1e-12")
        client, truth = share(sentence, seed=seed, model=DEEPER, defenses=[noise])
        assert truth.judge(text.attack(client, "span", seed=0)).token_accuracy < 0.8
        found = text.attack(client, "span+match", seed=0)
        assert truth.judge(found).succeeded
        assert found.reason == "as near as the noise allows"
        assert (found.evaluations > 1000) == optimised

    def test_it_tells_the_sentences_of_a_batch_apart(self) -> None:
        client, truth = share(*BATCH, model=DEEPER)
        assert truth.judge(text.attack(client, "span+match", seed=0)).succeeded

    def test_where_membership_is_enough_nothing_is_optimised(self) -> None:
        client, truth = share(model=DEEPER)
        found = text.attack(client, "span+match", seed=0)
        assert truth.judge(found).succeeded
        assert found.reason == "one word fits at each position"
        assert found.evaluations == 0

    def test_a_full_space_excludes_no_word(self) -> None:
        client, truth = share(*[SENTENCE] * 4)  # 28 tokens, of width 24
        members = _members(client)
        np.testing.assert_array_equal(members.allowed, any_word(client))
        assert members.distances == members.guesses == []
        assert not members.sure

    @pytest.mark.parametrize("defense", ["float16", "bfloat16", "int8", "prune:0.2", "clip:0.1"])
    def test_a_changed_gradient_is_read_all_the_same(self, defense: str) -> None:
        client, truth = share(model=DEEPER, defenses=[parse(defense)])
        assert truth.judge(text.attack(client, "span+match", seed=0)).succeeded

    def test_a_gradient_of_zeros(self) -> None:
        client, _ = share()
        zeros = {name: np.zeros_like(array) for name, array in client.gradients.items()}
        with pytest.raises(ValueError, match="there is nothing to match"):
            text.METHODS["span+match"](replace(client, gradients=zeros))
