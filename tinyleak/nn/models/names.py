"""Which tensor of a file is which parameter of a network, by names and shapes alone.

An ambiguous file is refused, and nothing is guessed: the error carries, as a note (PEP 678), what
the file has beside what the network expects.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]

WRAPPERS = ("module", "_orig_mod")
"""What PyTorch's parallel training and its compiler put into names."""

MOST_JOINTS = 20  # how many points and underlines of a name are looked at
ROWS, COLUMN = 40, 44  # how many rows, and letters of the left column, `mismatch` shows


def match_names(
    expected: Shapes,
    given: Shapes,
    rename: Mapping[str, str] | None = None,
    what: str = "names in the file",
) -> dict[str, str]:
    """Return which of the given tensors is each expected parameter: its name, by the model's name.

    Names that are not the model's may be wrapped, as by "module." (`unwrapped`). Otherwise they are
    matched by shape: where only one tensor has that shape; where a tensor stands beside one
    already matched, as `conv1.bias` beside `conv1.weight`; and where names differ in one number
    alone, as `conv2.weight` and `conv3.weight`, in the order of the numbers. A name that happens to
    be the model's is ignored then: the second layer of the one may be the third of the other.

    Args:
        expected: the model's shapes, by name.
        given: the shapes in a file, by name.
        rename: the model's name, by a name in the file; both may be those of a layer ("conv1") and
            then stand for all of its parameters.
        what: the tensors are called in errors.

    Raises:
        ValueError: ambiguous names, a tensor missing, one too many, or one of another shape; a
            rename of a tensor that the file lacks.
    """
    names = _renamed(given, rename or {})
    renamed = {name for name, old in names.items() if name != old}
    certain = set(names) if set(names) == set(expected) else renamed
    # From the model's names to the file's after renaming.
    found = {name: name for name in expected if name in certain}
    for rule in (_by_prefix, _by_shape):
        open_ = {name: shape for name, shape in expected.items() if name not in found}
        rest = {name: given[old] for name, old in names.items() if name not in found.values()}
        found |= rule(open_, rest, found)
    wrong = [name for name in found if given[names[found[name]]] != expected[name]]
    if wrong or len(found) != len(expected) or len(found) != len(given):
        raise mismatch(
            f"the {what}, {len(given)} tensors, cannot be told by name and shape to be the model's "
            f"{len(expected)} parameters; compare the columns, and name a tensor with "
            "--rename from=to",
            given,
            expected,
            "the model expects",
            {name: names[old] for name, old in found.items()},
        )
    return {name: names[found[name]] for name in expected}


def unwrapped(
    given: Collection[str], wanted: Collection[str], beside: Collection[str] = ()
) -> dict[str, str]:
    """Return the names in a file by what a network calls them: without what was put around all.

    PyTorch's parallel training puts "module." before names, its compiler "_orig_mod."; others put
    what they call the network, or ".grad" behind. What is wanted must all be there then, or nothing
    but that and what may stand beside it; else the names stay as they are.
    """
    known = {*wanted, *beside}
    first = next(iter(given), "")
    before = [first[: -len(name)] for name in known if first.endswith(f".{name}")]
    ways = [_without(""), _without_wrappers, *[_without(prefix) for prefix in sorted(before)]]
    for strip in [strip for strip in ways if strip(first) in known]:
        names = {strip(name): name for name in given}
        complete = names.keys() >= {*wanted} or names.keys() <= known
        if complete and len(names) == len(given):
            return names
    return {name: name for name in given}


def _without_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    return ".".join(parts[:-1] if parts[-1:] == ["grad"] else parts)


def _without(prefix: str) -> Callable[[str], str]:
    return lambda name: name.removeprefix(prefix)


def without_copies(shapes: Shapes) -> dict[str, Shape]:
    """Return the tensors that are no copies: an average of the weights, an optimiser's state.

    A copy has the shape and the name of another, with something before or after that name, as
    `ema.fc.weight` and `fc.weight_momentum` beside `fc.weight`.
    """
    kept = {}
    for name, shape in shapes.items():
        originals = {part for at in _joints(name) for part in (name[at + 1 :], name[:at])}
        if all(shapes.get(original) != shape for original in originals):
            kept[name] = shape
    return kept


def among(shapes: Shapes, names: Collection[str]) -> dict[str, Shape]:
    """Return the tensors that have one of these names, with or without something before it."""
    return {
        name: shape
        for name, shape in shapes.items()
        if name in names or any(name[at + 1 :] in names for at in _joints(name))
    }


def _joints(name: str) -> list[int]:
    return [found.start() for found in re.finditer(r"[._]", name)][:MOST_JOINTS]


def mismatch(
    why: str,
    given: Shapes,
    expected: Shapes,
    heading: str,
    matched: Mapping[str, str] | None = None,
) -> ValueError:
    """Return the error, with a table as a note: what a file has, and what a model expects."""
    # What is called the same, or has been matched, stands in one line.
    matched = {**{name: name for name in expected if name in given}, **(matched or {})}
    pairs: list[tuple[str | None, str | None]] = [(old, name) for name, old in matched.items()]
    left = [name for name in given if name not in matched.values()]
    right = [name for name in expected if name not in matched]
    pairs += itertools.zip_longest(left, right)
    lines = [f"  {'the file has':<{COLUMN}}  {heading}"]
    for old, name in pairs[:ROWS]:
        entry = "" if old is None else f"{_printable(old)} {given[old]}"
        wanted = "" if name is None else f"{name} {expected[name]}"
        lines.append(f"  {entry:<{COLUMN}}  {wanted}".rstrip())
    if len(pairs) > ROWS:
        lines.append(f"  … and {len(pairs) - ROWS} more")
    error = ValueError(why)
    error.add_note("\n".join(lines))
    return error


def _printable(name: str) -> str:
    return ascii(name)[1:-1] if len(name) <= COLUMN else ascii(name[: COLUMN - 1])[1:-1] + "…"


def _renamed(given: Shapes, rename: Mapping[str, str]) -> dict[str, str]:
    """Return the names in the file by what they are called from now on."""
    names: dict[str, str] = {}
    used = set()
    for old in given:
        new = old
        layer = old.rpartition(".")[0]
        if old in rename:
            new = rename[old]
            used.add(old)
        elif layer in rename:
            new = rename[layer] + old[len(layer) :]
            used.add(layer)
        if new in names:
            raise ValueError(f"{names[new]!r} and {old!r} would both be {new!r}; rename one only")
        names[new] = old
    missing = sorted(set(rename) - used)
    if missing:
        raise ValueError(f"{missing[0]!r} was to be renamed, but the file has no such tensor")
    return names


def _by_prefix(open_: Shapes, rest: Shapes, found: Mapping[str, str]) -> dict[str, str]:
    """Match names that are all wrapped alike."""
    names = unwrapped(rest, open_)
    return names if names.keys() == open_.keys() else {}


def _by_shape(open_: Shapes, rest: Shapes, found: Mapping[str, str]) -> dict[str, str]:
    """Match by shape where that leaves no choice, until nothing more is found."""
    result: dict[str, str] = {}
    while True:
        wanted = {name: shape for name, shape in open_.items() if name not in result}
        left = {name: shape for name, shape in rest.items() if name not in result.values()}
        step = _beside(wanted, left, {**found, **result}) or _of_one_shape(wanted, left)
        if not step:
            return result
        result |= step


def _beside(wanted: Shapes, left: Shapes, found: Mapping[str, str]) -> dict[str, str]:
    """Match one tensor whose layer has been matched already."""
    for name, old in found.items():
        layer, old_layer = name.rpartition(".")[0], old.rpartition(".")[0]
        for kind in ("weight", "bias"):
            one, other = f"{layer}.{kind}", f"{old_layer}.{kind}"
            if one in wanted and other in left and wanted[one] == left[other]:
                return {one: other}
    return {}


def _of_one_shape(wanted: Shapes, left: Shapes) -> dict[str, str]:
    """Match the tensors of one shape that are alone, or differ in one number of their names."""
    # The weights first: a bias then stands beside its weight.
    for shape in sorted(set(wanted.values()), key=len, reverse=True):
        names = [name for name in wanted if wanted[name] == shape]
        old = sorted((name for name in left if left[name] == shape), key=natural)
        if len(names) == len(old) and (len(old) == 1 or _differ_in_one_number(old)):
            return dict(zip(names, old, strict=True))
    return {}


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names as people do: conv2 before conv10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _parts(name)]


def _differ_in_one_number(names: Sequence[str]) -> bool:
    columns: Iterable[tuple[str | None, ...]] = itertools.zip_longest(*map(_parts, names))
    differing = [column for column in columns if len(set(column)) > 1]
    return len(differing) == 1 and all(part and part.isdigit() for part in differing[0])


def _parts(name: str) -> list[str]:
    # No layer's number has more than 9 digits, and int() would refuse thousands of them.
    return re.findall(r"[0-9]{1,9}|[^0-9]+", name)
