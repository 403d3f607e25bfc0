"""A client as an attacker knows it: its network, what it shared, and how that is known.

Commands, sweeps, audits and notebooks all pass a `Client`; what is true of it, its images and
labels, is a `Truth` that no attack sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.analytic.activation import infer_activation
from tinyleak.analytic.labels import LabelInference, infer_labels
from tinyleak.analytic.layer_gradient import LastLayerGradient, LayerGradient
from tinyleak.backend import Array
from tinyleak.client.explanation import explain
from tinyleak.client.facts import Fact
from tinyleak.client.files import read_files
from tinyleak.client.local import LocalSteps
from tinyleak.client.loss import Loss, read_loss, said_loss
from tinyleak.client.notes import Notes
from tinyleak.client.outcome import Found, Outcome, require_found
from tinyleak.interop import require_fields, whole
from tinyleak.nn.fitting import own_parameters
from tinyleak.nn.model import Model

DTYPES = ("float64", "float32", "float16")
"""What a client may have computed or saved in; bfloat16 is read as float32, which holds it."""


@dataclass(frozen=True, eq=False, repr=False)
class Client:
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
        facts: what else is known, by topic, each said, read off or assumed.

    Raises:
        ValueError: weights or gradients that do not fit the network or are not finite; a batch
            below 1; an unknown dtype.
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
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        batch = whole(self.batch, 1, "a batch of {} was given; give 1 or more")
        object.__setattr__(self, "batch", batch)
        for what, name in (("weights", "params"), ("gradients", "gradients")):
            object.__setattr__(self, name, own_parameters(self.model, getattr(self, name), what))
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose from {', '.join(DTYPES)}")
        if not isinstance(self.local, LocalSteps | None):
            raise TypeError(f"local steps {self.local!r} were given; give tinyleak.LocalSteps")

    @classmethod
    def of(
        cls,
        model: Model,
        params: Mapping[str, Any],
        gradients: Mapping[str, Any],
        *,
        batch: int = 1,
        reduction: str | None = None,
        **known: Any,
    ) -> Client:
        """Return the client with these weights and this gradient, the loss's factor removed.

        Args:
            model: its network.
            params: the weights, by name: arrays of NumPy, PyTorch or JAX, or lists.
            gradients: the gradient of any multiple of the mean loss, by name, likewise.
            batch: N, how many images it was computed from.
            reduction: "mean" or "sum", if that is known; else it is read off the last layer.
            known: other attributes of a client; `local` and `dtype` matter here.

        Raises:
            ValueError: weights or gradients that do not fit the network, are not finite, or are
                all zero; a number out of range.
            TypeError: as a client; an unknown keyword.
        """
        require_fields(known, cls, "a client")
        client = cls(model, params, gradients, batch, **known)
        shared = {name: g.astype(float) for name, g in client.gradients.items()}
        largest = max(float(np.abs(gradient).max(initial=0.0)) for gradient in shared.values())
        if largest == 0.0:
            raise ValueError(
                "every shared gradient is zero, so nothing can be read from it; check that the "
                "client's backward pass was run"
            )
        if reduction is not None:
            loss = said_loss(reduction, batch)
        else:
            # Of order 1 while it is looked at: it may be too small or large to be squared.
            even = replace(client, gradients={k: g / largest for k, g in shared.items()})
            loss = read_loss(even.last_layer, batch, client._steps, largest)
        return replace(client, gradients={k: g / loss.factor for k, g in shared.items()}, loss=loss)

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
        known, steps = files.said, files.steps
        params = {name: array.astype(float) for name, array in files.params.items()}
        shared = {name: array.astype(float) for name, array in files.given.items()}
        if steps is not None:
            rate = steps.learning_rate
            shared = {name: (params[name] - after) / rate for name, after in shared.items()}
            if not any(array.any() for array in shared.values()):
                raise ValueError(
                    f"the weights in {str(weights_after)!r} are those from before, so nothing can "
                    "be read from them; check that the client has trained before they were saved"
                )
        model, facts = files.model, {}
        local = None if steps is None or steps.count == 1 else steps
        if known.activation is None:
            told = infer_activation(LayerGradient.last(model, params, shared))
            model = model if told is None else replace(model, activation=told)
            facts["activation"] = (
                Fact(model.activation, "assumed")
                if told is None
                else Fact(told, "read off", "the features that the last layer shows")
            )
        if local is not None:
            plain = "of plain SGD, each with the same whole batch, without momentum or decay"
            facts["steps"] = Fact(f"{local.count} {plain}", "assumed")
        if str(files.noted):
            facts["notes"] = Fact(files.noted, "said", "by the notes about the files")
        client = cls.of(
            model,
            params,
            shared,
            batch=known.batch or 1,
            reduction=known.reduction,
            local=local,
            dtype=files.dtype,
            facts=facts,
        )
        if steps is None:
            return client
        # Each step with c times the loss is one with c times the rate.
        rate *= client.loss.factor
        local = None if local is None else LocalSteps(steps.count, rate)
        # A step rounds each weight to a multiple of its spacing s, which errs by s² / 12.
        rounding = {
            name: steps.count * np.spacing(np.abs(after)).astype(float) ** 2 / (12.0 * rate**2)
            for name, after in files.given.items()
        }
        return replace(client, local=local, rounding=rounding)

    @property
    def _steps(self) -> int:
        return 1 if self.local is None else self.local.count

    @cached_property
    def last_layer(self) -> LastLayerGradient | None:
        """The gradient of the last layer, made once; None if that layer is not linear.

        Of several local steps it is their mean, about one step's: the gradient hardly turns.
        """
        mean = {name: gradient / self._steps for name, gradient in self.gradients.items()}
        try:
            roundoff = float(np.finfo(self.dtype).eps)
            return LayerGradient.last(self.model, self.params, mean, self.batch, roundoff)
        except ValueError:
            return None

    @cached_property
    def noise(self) -> float | None:
        """The variance of the noise on each number, as the last layer shows it, or None."""
        if self.last_layer is None or self.last_layer.noise is None:
            return None
        return self._steps**2 * self.last_layer.noise

    @cached_property
    def labels(self) -> LabelInference:
        """The labels that follow from the last layer's gradient.

        Raises:
            ValueError: the last layer is not linear.
        """
        if self.last_layer is None:
            # Says which layer it is, and what to do.
            LayerGradient.last(self.model, self.params, self.gradients, self.batch)
        assert self.last_layer is not None, "that raised"
        return infer_labels(self.last_layer)

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
        return explain(self, found, precision, dtype or found.soft_labels.dtype.name)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.model.image_shape))
        many = "1 image" if self.batch == 1 else f"{self.batch} images"
        steps = "" if self.local is None else f", {self.local.count} local steps"
        return (
            f"<Client: {type(self.model).__name__}, gradient of {many} of {shape} in "
            f"{self.dtype}{steps}; loss {self.loss.fact}>"
        )
