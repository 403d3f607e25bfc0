"""A client as an attacker knows it: its network, what it shared, and how that is known.

Commands, sweeps, audits and notebooks all pass a `Client`; what is true of it, its images and
labels, is a `Truth` that no attack sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.analytic.last_layer import last_layer_names
from tinyleak.analytic.layer_gradient import LastLayerGradient, LayerGradient
from tinyleak.analytic.number_format import UNITS, relative_roundoff
from tinyleak.analytic.premises import Premises
from tinyleak.backend import Array
from tinyleak.client.explanation import explain
from tinyleak.client.facts import Fact
from tinyleak.client.files import read_files
from tinyleak.client.from_files import arguments_of
from tinyleak.client.local import LocalSteps
from tinyleak.client.loss import Loss, said_loss
from tinyleak.client.notes import Notes
from tinyleak.client.outcome import Found, Outcome, require_found
from tinyleak.client.reading import as_it_tells, as_sent, premises_of
from tinyleak.client.worked_out import WorkedOut
from tinyleak.interop import require_fields, whole
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.model import Model
from tinyleak.nn.models.as_trained import network_of
from tinyleak.nn.models.exported import refuse_mixing

DTYPES = ("float64", "float32", "float16")
"""What a client may have computed or saved in; bfloat16 is read as float32, which holds it."""


@dataclass(frozen=True, eq=False, repr=False)
class Client(WorkedOut):
    """A client: all that an attacker is given of it, and nothing that it keeps to itself.

    Arrays are copied, so that a client does not change when the caller's arrays do. Two clients
    are equal only if they are one and the same object.

    Attributes:
        model: its network.
        params: the weights, by name.
        gradients: what it shared, by name: the gradient of the mean loss, or the sum of those of
            its local steps. (What it really shared is `loss.factor` times that.)
        batch: N, how many images it is of.
        loss: how its loss relates to the mean cross-entropy over its batch.
        dtype: the coarsest dtype in which what it shared was written: "float64", "float32", ….
        local: the local steps of SGD, if there was more than one.
        rounding: the variance, by name, that rounding the weights after them leaves on what they
            changed; None where a gradient was shared.
        frozen: the parameters that sent no gradient, which are left out of all comparisons; their
            gradients here are zeros.
        facts: what else is known, by topic, each said, read off or assumed.
        read: what the gradient itself says of all that is taken for granted; None if it has not
            been asked yet: `premises` asks.

    Raises:
        ValueError: weights or gradients that do not fit the network or are not finite; a batch
            below 1, of images that its local steps never see, or that the network takes together;
            an unknown dtype.
        TypeError: weights or gradients that are not arrays by name; a batch that is not a whole
            number; local steps of another type.
    """

    model: Model
    params: Mapping[str, Array]
    gradients: Mapping[str, Array]
    batch: int = 1
    loss: Loss = field(default_factory=lambda: said_loss("mean", 1))
    dtype: str = "float64"
    local: LocalSteps | None = None
    rounding: Mapping[str, Array] | None = None
    frozen: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    read: Premises | None = None

    def __post_init__(self) -> None:
        batch = whole(self.batch, 1, "a batch of {} was given; give 1 or more")
        object.__setattr__(self, "batch", batch)
        for what, name in (("weights", "params"), ("gradients", "gradients")):
            object.__setattr__(self, name, own_parameters(self.model, getattr(self, name), what))
        refuse_mixing(self.network, batch)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose from {', '.join(DTYPES)}")
        if not isinstance(self.local, LocalSteps | None):
            raise TypeError(f"local steps {self.local!r} were given; give a client.LocalSteps")
        if self.local is not None:
            self.local.parts(batch)

    @classmethod
    def of(
        cls,
        model: Model,
        params: Mapping[str, Any],
        gradients: Mapping[str, Any],
        *,
        batch: int = 1,
        reduction: str | None = None,
        loss: str | None = None,
        normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        update: bool = False,
        **known: Any,
    ) -> Client:
        """Return the client with these weights and this gradient, as the gradient itself tells.

        The loss's factor is removed from it, and so is weight decay. The network becomes one with
        that loss, for pixels in [0, 1], where the gradient says so (see `nn.models.as_trained`).

        Args:
            model: its network.
            params: the weights, by name: arrays of NumPy, PyTorch or JAX, or lists.
            gradients: the gradient of any multiple of the mean loss, by name, likewise; None for a
                parameter that is frozen, as PyTorch has it.
            batch: N, how many images it was computed from.
            reduction: "mean" or "sum", if that is known; else it is read off the last layer.
            loss: one of `tinyleak.nn.criteria.LOSSES`, if it is known; likewise.
            normalize: means and standard deviations by which the client normalised its images, if
                that is known; else what the first layer shows, if it is linear.
            update: whether the gradient is the change of the weights over the learning rate.
            known: other attributes of a client; `local` and `dtype` matter here. The dtype is that
                of the gradient where all of it is float32 or float16, the coarser if both.

        Raises:
            ValueError: weights or gradients that do not fit the network, are not finite, or are
                all zero; a number out of range.
            TypeError: as a client; an unknown keyword.
        """
        require_fields(known, cls, "a client")
        if isinstance(gradients, Mapping):
            gradients, known = as_sent(model, gradients, known)
        client = cls(model, params, gradients, batch, **known)
        return as_it_tells(
            client, reduction=reduction, loss=loss, normalize=normalize, update=update
        )

    @classmethod
    def from_files(
        cls,
        weights: str | Path,
        gradients: str | Path | None = None,
        *,
        weights_after: str | Path | None = None,
        rename: Mapping[str, str] | None = None,
        **said: Any,
    ) -> Client:
        """Return the client whose files these are, `.safetensors` or `.npz` by parameter name.

        Notes about the files, in a JSON beside each or in safetensors' metadata, say what the
        numbers do not; what is said here takes precedence. What neither says is inferred from the
        gradient where that is possible, and otherwise assumed: see `facts` and `loss`.

        Args:
            weights: a `state_dict`.
            gradients: `{name: p.grad}`.
            weights_after: instead of a gradient, the `state_dict` after training with
                `learning_rate`.
            rename: the model's name for a tensor or layer, by its name in the files.
            said: the fields of `tinyleak.client.Notes`: model, shape, classes, activation,
                strides, batch, reduction, learning_rate, local_steps.

        Raises:
            ValueError: files that cannot be used, or that do not fit each other or what is said.
            OSError: a file is not there.
            TypeError: something is said that is not one of these fields.
        """
        require_fields(said, Notes, "a client's files")
        files = read_files(
            Path(weights),
            None if gradients is None else Path(gradients),
            None if weights_after is None else Path(weights_after),
            rename or {},
            Notes(**said),
        )
        client = cls.of(**arguments_of(files))
        if files.said.batch is not None:
            return client
        alone = client.premises.rank == 1
        how = ("read off", "the gradient's rank") if alone else ("assumed",)
        return client.with_fact("batch", Fact("1 image", *how))

    def with_fact(self, topic: str, fact: Fact) -> Client:
        """Return the client with one more fact, and with all that was worked out before."""
        again = copy(self)
        object.__setattr__(again, "facts", {**self.facts, topic: fact})
        return again

    @property
    def network(self) -> Any:
        """The network itself, without its loss and normalisation."""
        return network_of(self.model)

    @property
    def steps(self) -> int:
        """How many steps of SGD the client took."""
        return 1 if self.local is None else self.local.count

    @property
    def multiple(self) -> float:
        """How many times one gradient it shared, if that hardly turns from step to step."""
        return 1.0 if self.local is None else self.local.gradients

    @cached_property
    def last_layer(self) -> LastLayerGradient | None:
        """The gradient of the last layer, made once; None if not linear, frozen, or another loss's.

        Of several local steps it is their mean, about one step's: the gradient hardly turns.
        """
        return None if self.loss.kind != "cross-entropy" else self._last_layer

    @cached_property
    def _last_layer(self) -> LastLayerGradient | None:
        mean = {name: gradient / self.multiple for name, gradient in self.gradients.items()}
        try:
            weight, bias = last_layer_names(self.model)
            roundoff = float(np.finfo(self.dtype).eps)
            layer = LayerGradient.last(self.model, self.params, mean, self.batch, roundoff)
        except ValueError:
            return None
        if weight in self.frozen:
            return None
        return replace(layer, bias_gradient=None) if bias in self.frozen else layer

    @property
    def sent(self) -> dict[str, Array]:
        """The gradients that were sent, by name: `gradients` has zeros for the others."""
        return {name: g for name, g in self.gradients.items() if name not in self.frozen}

    def weigh(self, precision: Mapping[str, Array] | None = None) -> Mapping[str, Array] | None:
        """Return by name what each squared difference counts: 0 where no gradient was sent.

        Args:
            precision: what the others count, by name; 1, by default.

        Returns:
            None if all count alike.
        """
        if not self.frozen:
            return precision
        own = {k: np.ones(g.shape) for k, g in self.gradients.items()} | dict(precision or {})
        return {name: 0.0 * one if name in self.frozen else one for name, one in own.items()}

    @cached_property
    def premises(self) -> Premises:
        """What the gradient itself says of all that is taken for granted of it."""
        known = getattr(self.network, "activation", None)
        return self.read or premises_of(self, self.network, self.loss.kind, activation=known)

    @property
    def noise(self) -> float | None:
        """The variance of the noise on each number of `gradients`, if it can be measured."""
        if self.steps > 1:  # each step has weights of its own; only sums over classes stay zero
            layer = self.last_layer
            return None if layer is None or layer.noise is None else self.multiple**2 * layer.noise
        noise = self.premises.noise
        # Read off the gradient as it was shared, its factor included.
        return None if noise is None else noise / (self.loss.factor if self.read else 1.0) ** 2

    @cached_property
    def roundoff(self) -> float:
        """How far rounding is expected to take the gradient, relative to its length."""
        written = self.premises.written
        return relative_roundoff(self._last_layer, written if written in UNITS else self.dtype)

    def with_factor(self, factor: float) -> Client:
        """Return the client whose loss has this factor, where it was not known exactly."""
        if self.loss.exact:
            return self
        scaled = {n: g * (self.loss.factor / factor) for n, g in self.gradients.items()}
        again = replace(self, gradients=scaled, loss=self.loss.exactly(factor, self.batch))
        if (found := vars(self).get("unmixed")) is not None and found.factor == factor:
            vars(again)["unmixed"] = found  # which is not searched for again
        return again

    def explain(
        self,
        found: Found,
        *,
        precision: Mapping[str, Array] | None = None,
        dtype: str | None = None,
    ) -> Outcome:
        """Judge what was found by the shared gradient: all that can be done without a truth.

        Args:
            found: what an attack found.
            precision: what each entry's squared difference was multiplied with, by name, or None.
            dtype: in which the attack computed; by default that of the soft labels it found.

        Raises:
            TypeError: something else than what an attack found.
        """
        require_found(found)
        return explain(self, found, self.weigh(precision), dtype or found.soft_labels.dtype.name)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.model.image_shape))
        network = type(self.network).__name__
        many = "1 image" if self.batch == 1 else f"{self.batch} images"
        steps = "" if self.local is None else f", {self.local.count} local steps"
        return (
            f"<Client: {network}, gradient of {many} of {shape} in "
            f"{self.dtype}{steps}; loss {self.loss.fact}>"
        )
