# %% [markdown]
# # 13. Token for token: text
#
# *A word cannot be moved by a little, as a pixel can. Is a sentence safer than a picture?*
#
# ← [12b. Clipping, and noise with a proof](12b_clipping_and_privacy.ipynb) · about 35 minutes ·
# needs lesson 10 · [14. A graph is a program](14_a_graph_is_a_program.ipynb) → ·
# [all lessons](README.md)
#
# So far the attacker went downhill, from noise to a picture. There is no way downhill from "cat" to
# "house". In this lesson we read a whole sentence off a gradient, every word of it and each in its
# place, and not one step is taken. It is linear algebra and a list of words.
#
# (The words are split into tokens by the library `tokenizers`: `pip install '.[text]'`.)

# %%
import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from checks import check, expect
from plots import LIGHT, ORANGE, show, tidy

from tinyleak import Tensor
from tinyleak.data.text import load_tokenizer
from tinyleak.nn.models.bert import OUTPUT_BIAS, POSITIONS, SEGMENTS, WORDS, Bert
from tinyleak.text import attack, masked_gradients, share_text

# %% [markdown]
# ## From words to vectors
#
# A network for text has a list of words, its **vocabulary**. Ours has 500 entries. A frequent word
# is one entry. A rare word is made of several pieces; `##` says that a piece continues the one
# before. An entry is called a [**token**](README.md#token). So a sentence is a row of numbers from
# 0 to 499. Two more tokens frame it: `[CLS]` stands at its beginning, `[SEP]` at its end.

# %%
tokenizer = load_tokenizer()
SENTENCE = "My sister has a small house near the lake where we go every summer."
tokens = tokenizer.encode(SENTENCE)
print(*tokenizer.words(tokens))
print(tokens)
assert len(tokenizer) == 500 and len(tokens) == 23, "500 tokens, 23 of them in the sentence"

# %% [markdown]
# Each token $v$ has a vector of 64 numbers, row $v$ of a table $E$. Each position $p$ in a sentence
# has one too, row $p$ of a table $P$. The first layer sees their sum (and one more vector $S$, the
# same everywhere), normalised to mean 0 and variance 1:
#
# $$x = \text{normalise}(E_v + P_p + S).$$
#
# The network is a BERT. What its layers do does not matter here. We need only this: the first thing
# that happens to the vectors $x$ is that each is multiplied with the same matrices, called query,
# key and value.

# %%
model = Bert(vocabulary=len(tokenizer))
params = model.init(np.random.default_rng(0))


def first_inputs(params, words, positions):
    """What the first layer sees of words at positions, whole numbers that broadcast: (…, d)."""
    x = params[WORDS][words] + params[POSITIONS][positions] + params[SEGMENTS][0]
    return (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)


tensors = {name: Tensor(array) for name, array in params.items()}
own = model.first_input(tensors, model.embed(tensors, tokens[np.newaxis]))
assert np.allclose(first_inputs(params, tokens, np.arange(23)), own.data[0]), (
    "what the package's first layer sees"
)

# %% [markdown]
# ## What the client does
#
# BERT learns by guessing. The client hides some tokens of its sentence behind a special one,
# `[MASK]`, and the network must say what they were. The loss is the cross-entropy of lesson 6, with
# 500 classes, at the hidden positions. The client shares the gradient. `share_text` simulates it:
# it returns the client, as an attacker sees it, and the truth, by which the attack is judged.

# %%
client, truth = share_text(
    model, params, [tokens], tokenizer.special, rng=np.random.default_rng(0), tokenizer=tokenizer
)
gradients = client.gradients
hidden = truth.hidden[0]
read = np.where(hidden, tokenizer.special.mask, tokens)  # what the network was given
print(*tokenizer.words(read))
expect(hidden.sum() == 3, "three are hidden")

# %% [markdown]
# ## A gradient is a mixture of its inputs
#
# Lesson 10 had a layer with one input $x$. The gradient of its weight was $δ x^T$: each row is $x$
# times a number. So we divided, and had $x$. Here the same weight $W$ meets 23 inputs, one for each
# token, and the effects add up:
#
# $$∂L/∂W = ∑_t δ_t x_t^T.$$
#
# Now each row is a *mixture* of the 23 vectors, and there is nothing to divide. But a mixture of 23
# vectors lies in the space that they span: a 23-dimensional subspace of 64 dimensions. The rows of
# the gradient span that subspace, and contain nothing else.
#
# **Predict first.** How many of the 23 tokens will come out of such a mixture, and how many in
# their position?
#
# <details><summary>Answer</summary>
#
# All that the network read, each in its position. Most people say "perhaps the rare words", since
# what is mixed seems lost, as colours are. But 64 dimensions hold 23 independent vectors without
# loss. Only when the vectors fill the space is anything lost, and the end of this lesson shows
# that.
#
# </details>
#
# The [**singular value decomposition**](README.md#svd) finds it. It writes a matrix as a sum of as
# few products of a column and a row as possible, with sizes. The rows are orthogonal to each other,
# and those with a size that is not zero span the space.

# %%
SELF = "bert.encoder.layer.0.attention.self"


def spanned(by_weight):
    """The sizes, and the directions as orthogonal rows, of what these gradients span."""
    rows = np.concatenate([g / np.linalg.norm(g) for g in by_weight])
    _, sizes, directions = np.linalg.svd(rows)
    return sizes, directions


def of_first_layer(gradients):
    return [gradients[f"{SELF}.{part}.weight"] for part in ("query", "key", "value")]


by_weight = of_first_layer(gradients)
sizes, directions = spanned(by_weight)
print("the 23rd size:", f"{sizes[22]:.0e}", " the 24th:", f"{sizes[23]:.0e}")
expect(sizes[22] > 1e-5 and sizes[23] < 1e-14, "23 sizes, and then nothing")

# %% [markdown]
# ## Try every word
#
# We do not know the 23 vectors, only their space. But a vector of the sentence is not just any
# vector. It belongs to one of 500 tokens, and we know the tables. So make the vector of *every*
# token at *every* position, 11,500 in all, and ask of each how much of it sticks out of the space.


# %%
def sticking_out(x, basis):
    """How much of each vector (…, d) is outside the space with these orthogonal rows: 0 to 1."""
    outside = x - (x @ basis.T) @ basis
    return np.linalg.norm(outside, axis=-1) / np.linalg.norm(x, axis=-1)


candidates = first_inputs(params, np.arange(500), np.arange(23)[:, np.newaxis])
distances = sticking_out(candidates, directions[:23])
found = distances.argmin(axis=1)
print(candidates.shape, "→", distances.shape)
print(*tokenizer.words(found))

assert np.array_equal(found, read), "every token, in its position"
nearest, second = np.sort(distances, axis=1)[:, :2].T
expect(
    nearest.max() < 1e-12 and second.min() > 0.3,
    "one word has no part outside, all others have much",
)

# %% tags=["thumbnail"]
positions = np.arange(23)
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(positions, distances, "o", color=LIGHT, markersize=2)
ax.semilogy(positions, nearest, "o", color=ORANGE, markersize=7)
for position, word in enumerate(tokenizer.words(found)):
    ax.text(position, 1e-13, word, rotation=90, ha="center", va="bottom", fontsize=11)
ax.set(xlabel="position in the sentence", ylabel="outside of the space", ylim=(1e-16, 10))
tidy(ax)
show(
    "At each position 499 grey dots near 1, and one word at 1e-15: together they are the sentence."
)

# %% [markdown]
# At each position there are 500 dots. 499 of them have 30 % or more outside of the space. One has
# nothing outside but rounding. Nothing is left uncertain, and nothing was minimised.
#
# This is the idea of DAGER (Petrov, Dimitrov, Baader, Müller and Vechev, NeurIPS 2024).
#
# ## What was hidden
#
# Behind `[MASK]` the network saw nothing, so those vectors say nothing. But the hidden words are
# the *labels*, and lesson 10 has taught that labels are never hidden. The last layer adds a bias to
# the logits. Its gradient is the mean of $p - y$: negative only for words that were right.

# %%
negative = np.flatnonzero(gradients[OUTPUT_BIAS] < 0)
print("hidden words:", *tokenizer.words(negative))
assert set(negative) == set(tokens[hidden]), "the hidden words have negative gradients"

# %% [markdown]
# Which of the three stood where? There are six ways to order them. We try all: compute the gradient
# that the client would have shared, and compare it with the one it did share. At the truth the
# distance is zero (lesson 8).


# %%
def distance_if(guess):
    """How far the gradient would be from the shared one, were `guess` behind the masks."""
    targets = np.zeros((1, 23, 500))
    targets[0, np.flatnonzero(hidden_positions), guess] = 1
    words = model.embed(tensors, found[np.newaxis])
    theirs = masked_gradients(model, tensors, words, Tensor(targets), len(guess))
    return sum(np.square(theirs[name].data - gradients[name]).sum() for name in gradients)


hidden_positions = found == tokenizer.special.mask
orders = [list(order) for order in itertools.permutations(negative)]
off = [distance_if(order) for order in orders]
best = int(np.argmin(off))
sentence = found.copy()
sentence[hidden_positions] = orders[best]
print(tokenizer.decode(sentence))
print("distances:", *(f"{value:.0e}" for value in off))

assert np.array_equal(sentence, tokens), "token for token"
expect(off[best] < 1e-20 and np.sort(off)[1] > 1e-6, "one order fits, the others do not")

# %% [markdown]
# ## tinyleak's own
#
# The package calls this method `span`. It measures how much noise is on the gradient, finds the
# hidden words without trying all orders, and tells the sentences of a batch apart.

# %%
own = attack(client, method="span")
print(own.sentences[0])
print(own.reason)
assert np.array_equal(own.tokens[0], sentence), "the package reads the same"
assert truth.judge(own).succeeded, "and it is the sentence"

# %% [markdown]
# ## Where one gets stuck
#
# A BERT of the usual size has vectors of 768 numbers. Ours have 64. Let us save some more, and take
# 16:

# %%
small = Bert(vocabulary=len(tokenizer), width=16)
small_params = small.init(np.random.default_rng(0))


def narrow_share(tokens):
    rng = np.random.default_rng(0)
    return share_text(small, small_params, [tokens], tokenizer.special, rng=rng)


def outside(client, count):
    """How far outside each word at each of `count` positions is: (count, 500)."""
    _, directions = spanned(of_first_layer(client.gradients))
    words = first_inputs(small_params, np.arange(500), np.arange(count)[:, np.newaxis])
    return sticking_out(words, directions[:count])


narrow_client, _ = narrow_share(tokens)
narrow = outside(narrow_client, 23)
print(*tokenizer.words(narrow.argmin(axis=1)))
print(f"right: {(narrow.argmin(axis=1) == read).sum()} of 23")
expect((narrow.argmin(axis=1) == read).sum() < 5, "hardly any word is right")

# %% [markdown]
# Nonsense. And the nearest words are *very* near, so one might believe it. The symptom shows when
# one looks at all words and not only at the best:

# %%
print(f"nearest {narrow.min():.0e}, farthest {narrow.max():.0e}")
assert narrow.max() < 1e-13, "every word fits"

# %% [markdown]
# *Every* word fits. Twenty-three vectors of 16 numbers span whatever there is, and nothing can be
# outside of that. A test that everybody passes says nothing. So look at the second best, always.
#
# And count. How many tokens are too many? One would say 16, one for each number. But the vectors
# were normalised: the mean of each is 0, so all of them lie in a space of 15 dimensions, and 15 of
# them fill it. Here are sentences of 14 and of 15 tokens:

# %%
whole = {}
for count in (14, 15):
    encoded = map(tokenizer.encode, tokenizer.sentences)
    of_this_length = next(tokens for tokens in encoded if len(tokens) == count)
    someone, its_truth = narrow_share(of_this_length)
    distances_here = outside(someone, count)
    seen = np.where(its_truth.hidden[0], tokenizer.special.mask, of_this_length)
    whole[count] = (distances_here.argmin(axis=1) == seen).mean()
    second_best = np.sort(distances_here)[:, 1].min()
    print(f"{count} tokens: {whole[count]:.0%} read, second best {second_best:.0e}")
expect(whole[14] == 1 and whole[15] < 0.5, "14 tokens are read whole, 15 are not")

# %% [markdown]
# So $d - 2$ tokens are the most that vectors of $d$ numbers give away, and a BERT of the usual size
# gives away 766. That is a long sentence. (Its own limit is 512.)
#
# tinyleak counts:

# %%
try:
    attack(narrow_client, method="span")
except ValueError as error:
    print(textwrap.fill(f"ValueError: {error}", 80))
else:
    raise AssertionError("it should have refused")

# %% [markdown]
# ## What to remember
#
# - The gradient of a weight spans the space of the layer's inputs.
# - Where the inputs are from a list, try the list. No minimiser is needed.
# - A test is worth as much as its second best answer is far away.
#
# Noise on the gradient blurs the space, and with enough of it the test fails. Then one goes back to
# minimising the distance between gradients, over vectors in place of pixels, as the paper did.
#
# The real things are [`tinyleak/text/row_space.py`](../tinyleak/text/row_space.py) and
# [`tinyleak/analytic/layer_gradient.py`](../tinyleak/analytic/layer_gradient.py); the network is
# [`tinyleak/nn/models/bert.py`](../tinyleak/nn/models/bert.py).
#
# ## Exercise
#
# How much noise does it take? Write `noisy(gradients, share, rng)`, which adds normal noise to each
# array of a list, of a standard deviation that is a share of that array's typical entry (the root
# of the mean of its squares). Add such noise to `by_weight`, with shares of $10^{-6}$, $10^{-4}$
# and $10^{-2}$, and count the tokens that are still found in their positions.
#
# <details><summary>Solution to the exercise of lesson 12b</summary>
#
# Only rows 2 and 7 have a gradient. The attacker knows which words were in the sentence, though not
# in which order. Pruning half of the entries prunes zeros, since most are zero already.
#
# ```python
# from tinyleak import Tensor, grad, ops
#
#
# def words_read(gradient):
#     return np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist()
#
#
# rng = np.random.default_rng(12)
# table = Tensor(rng.standard_normal((10, 4)))
# looked_up = ops.take(table, np.array([2, 7, 7]), axis=-2)
# by_table = grad(ops.sum(looked_up * looked_up * looked_up), table).data
# assert words_read(by_table) == [2, 7]
# assert np.array_equal(parse("prune:0.5")({"table": by_table}, rng)["table"], by_table)
# ```
#
# In a BERT it is less plain. Its table is used once more, as the last layer, and through that every
# row gets a gradient.
#
# </details>


# %%
def noisy(gradients, share, rng):
    pass  # yours


check(13, noisy)
