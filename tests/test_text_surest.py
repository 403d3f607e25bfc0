"""A sentence out of a row space that noise has blurred, the surest word first."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import text
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import Bert
from tinyleak.text import surest
from tinyleak.text.distance import noise_variance
from tinyleak.text.relaxed import any_word
from tinyleak.text.subspace_pursuit import blurred_distances, noisy_distances, surest_first

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER))
LENGTH = 30


@pytest.fixture(scope="module")
def noisy() -> text.TextClient:
    sentence = TOKENIZER.encode(TOKENIZER.sentences_of_length(LENGTH)[1])
    return text.share_text(
        MODEL,
        MODEL.init(np.random.default_rng(0)),
        [sentence],
        TOKENIZER.special,
        rng=np.random.default_rng(1),
        noise=np.random.default_rng(2),
        defenses=[parse("gaussian:1e-12")],
    )


def what_the_model_read(client: text.TextClient) -> np.ndarray:
    return np.where(client.hidden, TOKENIZER.special.mask, client.tokens)[0]


class TestSurestFirst:
    def test_it_reads_what_is_not_nearest_at_first(self, noisy) -> None:
        shared, read = noisy.shared, what_the_model_read(noisy)
        variance, allowed = noise_variance(shared), any_word(shared)[0]
        at_first = np.where(allowed, noisy_distances(shared, variance), np.inf).argmin(axis=1)
        assert (at_first == read)[1:-1].sum() < LENGTH - 2
        inputs, distances = surest_first(shared, allowed)
        np.testing.assert_array_equal(inputs, read)
        assert distances.shape == (LENGTH, MODEL.vocabulary)
        nearest = np.where(allowed, distances, np.inf).argmin(axis=1)
        np.testing.assert_array_equal(nearest[1:-1], read[1:-1])

    def test_of_a_large_vocabulary_only_the_likeliest_are_tried(self, noisy, monkeypatch) -> None:
        monkeypatch.setattr(surest, "LIKELIEST", 100)
        shared = noisy.shared
        inputs, distances = surest_first(shared, any_word(shared)[0])
        np.testing.assert_array_equal(inputs, what_the_model_read(noisy))
        assert ((distances <= 1.0).sum(axis=1) == 100).all()

    def test_only_what_is_allowed_is_read(self, noisy) -> None:
        shared, read = noisy.shared, what_the_model_read(noisy)
        allowed = any_word(shared)[0]
        allowed[5, read[5]] = False
        inputs, _ = surest_first(shared, allowed)
        assert inputs[5] != read[5]

    def test_the_whole_attack_then_optimises_nothing(self, noisy) -> None:
        assert not text.attack(noisy, "span").succeeded
        result = text.attack(noisy, "span+match", seed=0)
        assert result.succeeded
        assert result.reason == "as near as the noise allows"
        assert {reading.iteration for reading in result.history} == {0}


class TestBlurredDistances:
    RNG = np.random.default_rng(0)
    INPUTS = RNG.standard_normal((5, 20))
    GRADIENT = RNG.standard_normal((60, 5)) @ INPUTS
    OTHERS = RNG.standard_normal((200, 20))
    NONE = np.empty((0, 20))

    def test_without_noise_they_are_distances_from_the_space(self) -> None:
        distances = blurred_distances(self.GRADIENT, 1e-30, self.OTHERS, self.NONE)
        space = text.RowSpace.of([self.GRADIENT], 5)
        np.testing.assert_allclose(distances, space.distances(self.OTHERS), rtol=1e-6)

    def test_a_gradient_of_noise_says_nothing(self) -> None:
        noise = self.RNG.standard_normal((60, 20))
        assert blurred_distances(noise, 1.0, self.OTHERS, self.NONE).min() > 0.5

    def test_what_is_known_is_taken_out_of_gradient_and_vectors(self) -> None:
        noisy = self.GRADIENT + 1e-3 * self.RNG.standard_normal(self.GRADIENT.shape)
        known = self.INPUTS[:3]
        distances = blurred_distances(noisy, 1e-6, self.OTHERS, known)
        moved = self.OTHERS + self.RNG.standard_normal((200, 3)) @ known
        more = np.concatenate([noisy, self.RNG.standard_normal((60, 3)) @ known])
        np.testing.assert_allclose(blurred_distances(noisy, 1e-6, moved, known), distances)
        # With twice the rows, half the variance has the same share in each direction.
        np.testing.assert_allclose(blurred_distances(more, 5e-7, self.OTHERS, known), distances)
