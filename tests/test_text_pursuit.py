"""Subspace pursuit: a sentence out of a row space that noise has blurred."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import text
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.data.text import load_tokenizer
from tinyleak.defenses import parse
from tinyleak.nn.models.bert import Bert
from tinyleak.text import pursuit
from tinyleak.text.pursuit import blurred_distances, noisy_distances, subspace_pursuit
from tinyleak.text.relaxed import any_word

TOKENIZER = load_tokenizer()
MODEL = Bert(len(TOKENIZER))
LENGTH = 30


@pytest.fixture(scope="module")
def noisy() -> tuple[text.TextClient, text.TextTruth]:
    encoded = map(TOKENIZER.encode, TOKENIZER.sentences)
    sentence = [tokens for tokens in encoded if len(tokens) == LENGTH][1]
    return text.share_text(
        MODEL,
        MODEL.init(np.random.default_rng(0)),
        [sentence],
        TOKENIZER.special,
        rng=np.random.default_rng(1),
        noise=np.random.default_rng(2),
        defenses=[parse("gaussian:1e-12")],
    )


def what_the_model_read(truth: text.TextTruth) -> np.ndarray:
    return np.where(truth.hidden, TOKENIZER.special.mask, truth.tokens)[0]


class TestSubspacePursuit:
    def test_it_reads_what_is_not_nearest_at_first(self, noisy) -> None:
        client, truth = noisy
        read, allowed = what_the_model_read(truth), any_word(client)[0]
        at_first = np.where(allowed, noisy_distances(client), np.inf).argmin(axis=1)
        assert (at_first == read)[1:-1].sum() < LENGTH - 2
        inputs, distances = subspace_pursuit(client, allowed)
        np.testing.assert_array_equal(inputs, read)
        assert distances.shape == (LENGTH, MODEL.vocabulary)
        nearest = np.where(allowed, distances, np.inf).argmin(axis=1)
        np.testing.assert_array_equal(nearest[1:-1], read[1:-1])

    def test_of_a_large_vocabulary_only_the_likeliest_are_tried(self, noisy, monkeypatch) -> None:
        monkeypatch.setattr(pursuit, "LIKELIEST", 100)
        client, truth = noisy
        inputs, distances = subspace_pursuit(client, any_word(client)[0])
        np.testing.assert_array_equal(inputs, what_the_model_read(truth))
        assert ((distances <= 1.0).sum(axis=1) == 100).all()

    def test_only_what_is_allowed_is_read(self, noisy) -> None:
        client, truth = noisy
        read = what_the_model_read(truth)
        allowed = any_word(client)[0]
        allowed[5, read[5]] = False
        inputs, _ = subspace_pursuit(client, allowed)
        assert inputs[5] != read[5]

    def test_the_whole_attack_then_optimises_nothing(self, noisy) -> None:
        client, truth = noisy
        assert not truth.judge(text.attack(client, "span")).succeeded
        found = text.attack(client, "span+match", seed=0)
        assert truth.judge(found).succeeded
        assert found.explained
        assert found.reason == "as near as the noise allows"
        assert {snapshot.iteration for snapshot in found.history} == {0}


class TestBlurredDistances:
    RNG = np.random.default_rng(0)
    INPUTS = RNG.standard_normal((5, 20))
    GRADIENT = RNG.standard_normal((60, 5)) @ INPUTS
    OTHERS = RNG.standard_normal((200, 20))
    NONE = np.empty((0, 20))

    def test_without_noise_they_are_distances_from_the_space(self) -> None:
        distances = blurred_distances(self.GRADIENT, 1e-30, self.OTHERS, self.NONE)
        space = LayerGradient(self.GRADIENT, None, 5).row_space
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
