"""What is worked out of a client's gradient once, and kept: its labels, and what pruning took."""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tinyleak.analytic.completion import completed
from tinyleak.analytic.label_search import factor_by_records, labels_by_records, search_labels
from tinyleak.analytic.labels import LabelInference, infer_labels
from tinyleak.analytic.layer_gradient import LayerGradient
from tinyleak.backend import Array
from tinyleak.client.certificates import layers_of
from tinyleak.nn.criteria import one_hot

WHOLE = 1e-4
"""How far from whole numbers the counts of labels may be: float32 leaves 1e-6 of a label."""


class Unmixed(NamedTuple):
    """A factor of the loss, and labels, (N,), with which some images make a client's gradient."""

    factor: float
    labels: Array


class WorkedOut:
    """What a `tinyleak.Client` works out when it is first asked."""

    @cached_property
    def targets(self: Any) -> Array | None:
        """The labels as rows of probabilities, (N, K), where the gradient tells them; else None.

        It may be that of one image with a soft label. Images that are equal to the network, with
        one label each, have the mean of their labels; else each has that soft label.
        """
        told, batch = self.premises.targets, self.batch
        if told is not None:
            counts = np.rint(batch * told)
            if np.abs(batch * told - counts).max() < WHOLE and counts.sum() == batch:
                return np.repeat(np.eye(told.shape[1]), counts[0].astype(int), axis=0)
            return np.repeat(told, batch // len(told), axis=0)
        if self.last_layer is None or not self.labels.trusted:
            return None
        return one_hot(self.labels.labels, self.model.classes)

    @cached_property
    def labels(self: Any) -> LabelInference:
        """The labels that follow from the last layer's gradient, the likeliest of soft ones.

        Raises:
            ValueError: the last layer is not linear.
        """
        if self.premises.targets is not None:
            likeliest = np.argmax(self.targets, axis=1)
            counts = np.bincount(likeliest, minlength=self.targets.shape[1])
            return LabelInference(likeliest, counts, "bias", None)
        if self.last_layer is None:
            # Says which layer it is, and what to do.
            LayerGradient.last(self.model, self.params, self.gradients, self.batch)
            other = self.loss.kind != "cross-entropy"
            why = f"is that of {self.loss.kind} of a batch" if other else "was not sent"
            raise ValueError(
                f"labels are inferred from the last layer's gradient, which {why}; give "
                "them, or find them with the images (--labels optimise)"
            )
        inferred = infer_labels(self.last_layer)
        if inferred.trusted or self.batch == 1 or not self.loss.exact or self.local is not None:
            return inferred
        return labels_by_records(self.last_layer) or inferred

    @cached_property
    def filled_in(self: Any) -> LayerGradient | None:
        """The first linear layer's gradient, with what pruning took of it filled in, once.

        None if that layer sent none, or there is none.
        """
        layer, cut = next(layers_of(self), (None, None))
        return None if layer is None or cut is None else completed(layer, cut.params[cut.weight])

    @cached_property
    def unmixed(self: Any) -> Unmixed | None:
        """With what labels, and factor of the loss, some features make the last layer's gradient.

        They are searched for, once, for up to two minutes; None if none were found. So is a factor
        that is not known exactly: a wrong one leaves a misfit as wrong labels do.
        """
        factors = [self.loss.factor] if self.loss.exact else [1.0, float(self.batch)]
        plain = None if self.loss.exact else self.with_factor(1.0).last_layer
        if plain is not None:
            told = factor_by_records(plain)
            factors = factors if told is None else [told]
        for factor in factors:
            if (layer := self.with_factor(factor).last_layer) is None:
                continue
            # Labels that are not trusted were searched for by records, in vain.
            records = not self.loss.exact or self.labels.trusted
            if (found := search_labels(layer, records=records)) is not None:
                return Unmixed(factor, found.labels)
        return None
