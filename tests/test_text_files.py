"""Clients known by their files, as Hugging Face's networks write them: BERT and GPT-2."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here is downloaded, and nothing is asked for

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Refused, Run, read_result
from huggingface import bert_files, gpt2_files

from tinyleak import text
from tinyleak.data.tensors import read_tensors, write_tensors
from tinyleak.data.text import BytePairs, load_tokenizer
from tinyleak.nn.models.checkpoint import language_model
from tinyleak.nn.models.gpt2 import Gpt2
from tinyleak.tensor import Tensor

COMMAND = ("text",)
TOKENIZER = load_tokenizer()
SENTENCE = "The old man closed the door."
SMALL_BERT = {
    **{"vocab_size": 500, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 96, "max_position_embeddings": 20},
}
SMALL_GPT2 = {"vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 3, "n_positions": 20}
GPT2_TOKENS = [7, 250, 31, 7, 99, 120, 280, 31]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    bert_files(tmp_path, TOKENIZER.encode(SENTENCE).tolist(), [2, 5], **SMALL_BERT)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in TOKENIZER.vocabulary))
    return tmp_path


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    gpt2_files(tmp_path, GPT2_TOKENS, **SMALL_GPT2)
    words = {f"\u0120w{number}": number for number in range(300)}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    return tmp_path


def files(directory: Path, vocabulary: str | None = "vocab.txt", **options: Any) -> text.TextClient:
    return text.TextClient.from_files(
        directory / "weights.safetensors",
        directory / "gradients.safetensors",
        None if vocabulary is None else directory / vocabulary,
        **options,
    )


def command(directory: Path, vocabulary: str = "vocab.txt") -> list[Any]:
    names = ("weights.safetensors", "gradients.safetensors", vocabulary)
    options = ("--weights", "--gradients", "--vocabulary")
    return [part for o, n in zip(options, names, strict=True) for part in (o, directory / n)]


class TestBert:
    @pytest.mark.parametrize("method", ["span", "rows", "span+match"])
    def test_the_sentence_is_read(self, bert: Path, method: str) -> None:
        client = files(bert)
        known = {topic: (fact.value, fact.source) for topic, fact in client.facts.items()}
        assert known == {
            **{"sentences": (1, "assumed"), "lengths": (9, "read off")},
            **{"hidden": (2, "read off"), "heads": (3, "said")},
        }
        assert (client.lengths, client.dtype, client.model.heads) == ((9,), "float32", 3)
        found = text.attack(client, method)
        assert found.explained
        np.testing.assert_array_equal(found.tokens[0], TOKENIZER.encode(SENTENCE))
        assert found.sentences == ["the old man closed the door ."]

    @pytest.mark.parametrize("shown", [5, 4])
    def test_a_word_to_be_predicted_may_be_shown_or_another(self, tmp_path, shown: int) -> None:
        """As in BERT's training: of ten hidden words one is shown as it is, and one is replaced."""
        tokens = TOKENIZER.encode(SENTENCE).tolist()
        read = [*tokens]
        read[2] = TOKENIZER.special.mask
        read[5] = tokens[shown]
        bert_files(tmp_path, tokens, [2, 5], read, **SMALL_BERT)
        client = text.TextClient.from_files(
            tmp_path / "weights.safetensors", tmp_path / "gradients.safetensors", TOKENIZER
        )
        assert client.masked == 2
        np.testing.assert_array_equal(text.attack(client, "span").tokens[0], tokens)

    @pytest.mark.parametrize("method", ["span", "match", "span+match"])
    @pytest.mark.parametrize("table", ["word", "position"])
    def test_embeddings_may_be_frozen(self, bert: Path, table: str, method: str) -> None:
        path = bert / "gradients.safetensors"
        left = {n: a for n, a in read_tensors(path).items() if f"{table}_embeddings" not in n}
        write_tensors(path, left)
        client = files(bert, lengths=[9])
        assert f"bert.embeddings.{table}_embeddings.weight" in str(client.facts["not shared"])
        found = text.attack(client, method)
        assert found.explained
        assert found.sentences == ["the old man closed the door ."]

    @pytest.mark.parametrize("deviation", [1e-6, 1e-3])
    def test_under_noise_the_hidden_positions_are_still_counted(
        self, bert: Path, deviation: float
    ) -> None:
        path, rng = bert / "gradients.safetensors", np.random.default_rng(0)
        noisy = {
            name: array + deviation * rng.standard_normal(array.shape)
            for name, array in read_tensors(path).items()
        }
        write_tensors(path, noisy)
        client = files(bert, lengths=[9])
        assert client.noise == pytest.approx(deviation**2, rel=0.2)
        assert (client.masked, client.facts["hidden"].source) == (2, "read off")

    def test_a_sentence_that_hides_no_word_is_not_explained(self, bert: Path) -> None:
        """It adds nothing to the gradient, and so any words would do."""
        found = text.attack(files(bert, lengths=[9, 9]), "span+match")
        assert not found.explained
        assert found.reason == "any words would do where a sentence hides none"

    def test_lengths_that_are_said(self, bert: Path) -> None:
        client = files(bert, lengths=[9])
        assert client.facts["lengths"].source == client.facts["sentences"].source == "said"
        assert text.attack(client, "span").explained
        # A wrong one is noticed: the space of nine tokens is not one of eight.
        assert not text.attack(files(bert, lengths=[8]), "span").explained

    def test_arrays_do_as_well_as_files_and_are_copied(self, bert: Path) -> None:
        weights, gradients = (
            read_tensors(bert / f"{name}.safetensors") for name in ("weights", "gradients")
        )
        client = text.TextClient.from_files(weights, gradients, TOKENIZER, heads=3)
        for array in (*weights.values(), *gradients.values()):
            array[...] = 0.0
        np.testing.assert_array_equal(
            text.attack(client, "span").tokens[0], TOKENIZER.encode(SENTENCE)
        )

    def test_on_the_command_line(self, run: Run, bert: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        answer = run(*command(bert), "--out", out)
        assert (answer.code, answer.err) == (0, "")
        assert "sentences  1, assumed" in answer.out
        assert "lengths    9, read off (the gradient of the table of positions)" in answer.out
        assert "success: span+match, one word fits at each position" in answer.out
        assert "the old man closed the door ." in answer.out
        said = read_result(out)
        assert said["succeeded"] is said["explained"] is True
        assert said["token_accuracy"] is said["tokens_true"] is None
        assert said["sentences_recovered"] == ["the old man closed the door ."]
        assert said["lengths"] == [9]
        assert said["known"]["heads"] == "3, said"
        assert (out / "sentences.txt").read_text().startswith("iteration    0  [CLS] the old")
        assert (out / "sentences.png").stat().st_size > 1000

    def test_what_is_not_explained_is_no_success(self, run: Run, bert: Path) -> None:
        answer = run(*command(bert), "--lengths", "8", "--attack", "span")
        assert answer.code == 1
        assert "NO success: span, the space leaves a choice" in answer.out

    def test_a_batch_of_said_lengths(self, tmp_path: Path) -> None:
        sentences = ["The old man closed the door.", "We ate it."]
        client, truth = text.simulate_text(sentences)
        write_tensors(tmp_path / "weights.safetensors", client.params)
        write_tensors(tmp_path / "gradients.safetensors", client.gradients)
        known = text.TextClient.from_files(
            *(tmp_path / f"{name}.safetensors" for name in ("weights", "gradients")),
            TOKENIZER,
            lengths=client.lengths,
            heads=4,
        )
        assert truth.judge(text.attack(known, "span")).succeeded


class TestGpt2:
    def test_it_computes_what_huggingface_does(self) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        model = GPT2LMHeadModel(GPT2Config(**SMALL_GPT2, bos_token_id=0, eos_token_id=0))
        model = model.double().eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([GPT2_TOKENS])).logits.numpy()
        state = {name: array.numpy() for name, array in model.state_dict().items()}
        ours, params = language_model(state, heads=3)
        assert ours == Gpt2(300, layers=2, width=48, heads=3, intermediate=192, positions=20)
        tensors = {name: Tensor(array) for name, array in params.items()}
        found = ours(tensors, ours.embed(tensors, np.array([GPT2_TOKENS])))
        np.testing.assert_allclose(found.data, expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("method", ["span", "rows", "span+match"])
    def test_every_token_is_read_in_its_position(self, gpt2: Path, method: str) -> None:
        client = files(gpt2, "vocab.json")
        assert client.lengths == (8,)
        found = text.attack(client, method)
        assert found.explained
        assert found.tokens.tolist() == [GPT2_TOKENS]
        assert found.sentences == [" " + " ".join(f"w{token}" for token in GPT2_TOKENS)]

    @pytest.mark.parametrize("method", ["span", "rows"])
    def test_a_sentence_of_two_tokens(self, tmp_path: Path, method: str) -> None:
        torch.manual_seed(0)
        gpt2_files(tmp_path, [7, 250], **SMALL_GPT2)
        found = text.attack(files(tmp_path, None), method)
        assert found.explained
        assert found.tokens.tolist() == [[7, 250]]

    def test_rows_of_two_sentences_taken_for_one_are_not_explained(self, gpt2: Path) -> None:
        torch.manual_seed(0)
        gpt2_files(gpt2, GPT2_TOKENS, GPT2_TOKENS[::-1], **SMALL_GPT2)
        assert not text.attack(files(gpt2, None), "rows").explained

    def test_without_a_vocabulary_tokens_are_numbers(self, gpt2: Path) -> None:
        found = text.attack(files(gpt2, None), "span")
        assert found.sentences == [" ".join(map(str, GPT2_TOKENS))]

    def test_the_published_names_are_understood(self, gpt2: Path) -> None:
        """Those of a GPT2Model, without the output layer, and with its causal masks."""
        for name in ("weights", "gradients"):
            path = gpt2 / f"{name}.safetensors"
            arrays = {
                key.removeprefix("transformer."): array
                for key, array in read_tensors(path).items()
                if key != "lm_head.weight"
            }
            write_tensors(path, arrays | {"h.0.attn.bias": np.ones((1, 1, 20, 20))})
        assert text.attack(files(gpt2, None), "span").tokens.tolist() == [GPT2_TOKENS]

    def test_on_the_command_line(self, run: Run, gpt2: Path) -> None:
        answer = run(*command(gpt2, "vocab.json"), "--attack", "span")
        assert answer.code == 0
        assert "a GPT-2 of 2 layers" in answer.out
        assert "w7 w250 w31 w7 w99 w120 w280 w31" in answer.out

    def test_what_is_not_done_is_refused(self, gpt2: Path, refused: Refused) -> None:
        with pytest.raises(ValueError, match="only a BERT's gradient is matched"):
            text.attack(files(gpt2, None), "match")
        with pytest.raises(ValueError, match="of a GPT-2 only the gradient of one sentence"):
            files(gpt2, None, lengths=[8, 5])
        weights = ["--weights", gpt2 / "weights.safetensors"]
        message = refused(SENTENCE, *weights, "--vocabulary", gpt2 / "vocab.json")
        assert "does not say how to split a text" in message or "only clients with" in message

    @pytest.mark.parametrize(
        "content", ["[1]", '{"a": 1}', '{"a": 0, "b": 0}', '{"a": "b"}', "[" * 10**5, "{"]
    )
    def test_a_vocabulary_that_cannot_be_used(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "vocab.json").write_text(content)
        with pytest.raises(ValueError, match=r"vocab.json' cannot be used: "):
            load_tokenizer(tmp_path / "vocab.json")

    def test_bytes_become_text(self) -> None:
        tokenizer = BytePairs({"caf": 0, "\u00c3\u00a9": 1, "\u0120bar": 2})
        assert tokenizer.decode(np.array([0, 1, 2])) == "café bar"


class TestBadRequests:
    def test_options_of_a_simulated_client(self, bert: Path, refused: Refused) -> None:
        assert "but a sentence was given" in refused(*command(bert), SENTENCE)
        assert "but --defense was given" in refused(*command(bert), "--defense", "int8")

    def test_gradients_without_weights(self, bert: Path, refused: Refused) -> None:
        message = refused("--gradients", bert / "gradients.safetensors")
        assert "give its --weights too" in message

    def test_lengths_without_gradients(self, refused: Refused) -> None:
        assert "give its --gradients" in refused(SENTENCE, "--lengths", "9")
        assert "not a list of lengths such as 22,16" in refused("--lengths", "long")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda g: {n: a + 1 for n, a in g.items()}, "cannot be read off: every row"),
            (lambda g: {n: 0 * a for n, a in g.items()}, "cannot be read off: no row"),
            (lambda g: {n: a for n, a in g.items() if "query" not in n}, "gradients do not fit"),
        ],
    )
    def test_gradients_that_do_not_do(
        self, bert: Path, change: Callable[..., Any], message: str
    ) -> None:
        path = bert / "gradients.safetensors"
        write_tensors(path, change(read_tensors(path)))
        with pytest.raises(ValueError, match=message):
            files(bert)

    @pytest.mark.parametrize("lengths", [9, "9", [9.0]])
    def test_lengths_that_are_no_whole_numbers(self, bert: Path, lengths: Any) -> None:
        with pytest.raises(TypeError, match="give a list of whole numbers, one for each"):
            files(bert, lengths=lengths)

    def test_lengths_that_the_model_does_not_have(self, bert: Path) -> None:
        with pytest.raises(ValueError, match=r"sentences of \[21\] tokens; .* 3 to 20 tokens"):
            files(bert, lengths=[21])

    def test_a_vocabulary_that_nobody_knows(self, bert: Path) -> None:
        with pytest.raises(ValueError, match=r"nothing says which of them is \[MASK\]; give"):
            files(bert, None)

    def test_an_output_layer_of_its_own(self, bert: Path) -> None:
        path = bert / "weights.safetensors"
        weights = read_tensors(path)
        weights["cls.predictions.decoder.weight"] = weights["cls.predictions.decoder.weight"] + 1
        write_tensors(path, weights)
        with pytest.raises(ValueError, match="give a network that ties the two"):
            files(bert)


BASE = """
import sys
from tinyleak import text
found = text.attack(text.TextClient.from_files(sys.argv[1], sys.argv[2]), "span")
print(*found.tokens[0])
"""


@pytest.mark.slow
def test_at_bert_base_s_size_it_takes_20_seconds_and_4_gigabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sentence = [101, *rng.choice(np.arange(1000, 30522), 20).tolist(), 102]
    bert_files(tmp_path, sentence, [5, 14, 16], mask=103)
    paths = [tmp_path / f"{name}.safetensors" for name in ("weights", "gradients")]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", BASE, *paths], capture_output=True, check=True, env=alone
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of one processor, so that what else runs on the machine does not count.
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 20
    assert used.ru_maxrss < 4e6  # in kilobytes
    assert done.stdout.split() == [str(token).encode() for token in sentence]
