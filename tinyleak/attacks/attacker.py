"""What an attacker brings to a client: what it knows, where it starts, how it goes about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from tinyleak.attacks.settings import Settings
from tinyleak.backend import Array
from tinyleak.defenses import Defense, as_defenses
from tinyleak.interop import as_array, called, require_fields, whole
from tinyleak.nn.fitting import copied

Method: TypeAlias = Literal[
    "lbfgs", "levenberg-marquardt", "lbfgs+levenberg-marquardt", "records", "auto"
]
"""How the distance is minimised: the third is L-BFGS, and Levenberg–Marquardt to finish. "records"
takes a batch apart without matching anything, and "auto" is what suits the client."""

Start: TypeAlias = Literal["auto", "noise", "features", "recursion"]
"""What the first start of an attack may be."""

SEED = "seed {} was given; seeds are whole numbers from 0 on"

Labels: TypeAlias = "Sequence[int] | Array | Literal['infer', 'trusted'] | None"


@dataclass(frozen=True, eq=False)
class Attacker:
    """What an attacker brings to a client: what it knows, where it starts, how it goes about it.

    Arrays are copied, so that an attacker does not change when the caller's arrays do.

    Attributes:
        labels: the N labels if they are known; "infer" to read them off the last layer's gradient
            first, "trusted" to do so where nothing speaks against them; None to find them with the
            images.
        defenses: those that it knows the client applied: it then matches only what survived
            pruning, weighs entries by how exactly they are known, and matches the direction alone
            after clipping.
        precision: what the squared difference of each entry is multiplied with, by name: 0 where
            the shared gradient carries no information, 1 / variance where noise was added. It
            follows from `defenses`, unless it is given.
        seed: decides the noise that the attack starts from; 0 or more.
        start: what the first start is: "noise", as in the paper; "features", for one image, what
            has the features that a linear layer shows (see `tinyleak.attacks.features_first`);
            "recursion", images recovered from the gradient layer by layer (see
            `tinyleak.attacks.recursion`), for which labels must be known; or images, (N, C, H, W).
            By default "auto": features where a layer shows as many as the image has pixels, or
            fewer where the network of an image has kinks, and no defence is known; else noise.
        restarts: how many starts to run; the one that ends nearest is returned.
        method: "lbfgs"; "levenberg-marquardt", which solves for all pixels at once, takes memory
            for their Jacobian with respect to the weights, and batches to the rounding error
            (restarts run one after the other, until one converges); or
            "lbfgs+levenberg-marquardt", the one to finish after the other; "records", where the
            first linear layer shows each image of a batch, or its features, with its label; or
            "auto", the one of these that suits the client.
        settings: how the search is run; by default what succeeds most.
        device: "cpu" or "cuda".

    Raises:
        ValueError: a number out of range, an unknown method or start, or what cannot be combined.
        TypeError: a value of the wrong type.
    """

    labels: Labels = None
    defenses: Sequence[Defense] = ()
    precision: Mapping[str, Array] | None = None
    seed: int = 0
    start: Start | Array = "auto"
    restarts: int = 1
    method: Method = "lbfgs"
    settings: Settings = Settings()
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.settings is None:
            object.__setattr__(self, "settings", Settings())
        if not isinstance(self.settings, Settings):
            raise TypeError(f"settings {self.settings!r} were given; give tinyleak.Settings(…)")
        if isinstance(self.labels, str) and self.labels not in ("infer", "trusted"):
            raise ValueError(
                f'labels {self.labels!r} were given; give N whole numbers, "infer" or "trusted"'
            )
        if isinstance(self.start, str) and self.start not in get_args(Start):
            known = ", ".join(get_args(Start))
            raise ValueError(f"start {self.start!r} is unknown; choose {known}, or give images")
        if self.method not in get_args(Method):
            raise ValueError(
                f"method {self.method!r} is unknown; choose one of {', '.join(get_args(Method))}"
            )
        if self.method not in ("lbfgs", "auto") and self.device != "cpu":
            raise ValueError(f"method {self.method} runs on the cpu alone, not on {self.device!r}")
        own: dict[str, Any] = {
            "seed": whole(self.seed, 0, SEED),
            "restarts": whole(self.restarts, 1, "{} restarts were asked for; give 1 or more"),
            "defenses": as_defenses(self.defenses),
        }
        if self.labels is not None and not isinstance(self.labels, str):
            own["labels"] = as_array(self.labels, copy=True)
        if self.precision is not None:
            own["precision"] = copied(self.precision, "precisions")
        if not isinstance(self.start, str):
            own["start"] = as_array(self.start, copy=True)
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={_short(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) is not field.default
        ]
        return f"Attacker({', '.join(changed)})"


def make_attacker(attacker: Attacker | None, keywords: Mapping[str, Any]) -> Attacker:
    """Return the attacker, or the one that keywords describe.

    Raises:
        TypeError: an unknown keyword, both, or something else as the attacker.
    """
    require_fields(keywords, Attacker, "an attack")
    if attacker is not None and keywords:
        raise TypeError(
            f"an attacker was given, and {', '.join(keywords)} besides; say all of it in one place"
        )
    if not isinstance(attacker, Attacker | None):
        raise TypeError(f"{called(attacker)} was given as attacker; give a tinyleak.Attacker")
    return Attacker(**keywords) if attacker is None else attacker


def _short(value: Any) -> str:
    if isinstance(value, Settings):
        usual = asdict(Settings())
        said = {k: v for k, v in asdict(value).items() if v != usual[k]}
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in said.items())})"
    text = repr(value)
    return text if len(text) <= 40 else f"<{type(value).__name__}>"
