"""The graph of a network as `torch.export` writes it down: checked, and of a sensible size.

It is JSON: values with names and shapes, and nodes, each an operation on values before it. What is
said here of a file's schema is that of PyTorch's `torch/_export/serde/schema.py`, version 8.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinyleak.interop import quoted

SCHEMA = 8  # the major version of the schema that is read: PyTorch 2.6 to 2.13 write it

ARRAYS = ("as_none", "as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors")
"""The kinds of arguments that are arrays, or where one may be missing."""

MOST_NODES, MOST_AXES = 10_000, 8  # more than any network has on which an attack could succeed

MOST_NUMBERS = 2**27
"""How many numbers all values together may have for one input: a gigabyte in float64."""


@dataclass(frozen=True)
class Ref:
    """A value by its name."""

    name: str


Argument: TypeAlias = "Ref | tuple[Any, ...] | str | float | None"
"""A value, or what was written down: a number, a text, nothing, or several of them."""

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operation."""

    name: str  # the node's own
    operation: str  # as PyTorch calls it, such as "conv2d"; the library's name if it is not ATen
    in_place: bool  # whether it changes its first input
    arguments: dict[str, Argument]  # by name; those left out have PyTorch's defaults
    outputs: tuple[str, ...]  # the names of the values that it computes


@dataclass(frozen=True)
class Graph:
    """A network for one input, (1, …), as nodes in order."""

    nodes: tuple[Node, ...]  # each after those whose values it reads
    parameters: dict[str, str]  # the values that are parameters, and what the network calls these
    constants: dict[str, str]  # likewise of buffers, and of other arrays that were written down
    input: str  # the value that is the input
    outputs: tuple[str, ...]  # the values that the network returns
    shapes: dict[str, Shape]  # of all values


def parse_graph(program: Any) -> Graph:
    """Return the graph that is written down as `torch.export` does, as JSON has it.

    Another schema is a ValueError, and so is a graph that is none, too large, or has loops or
    branches.
    """
    try:
        version = program["schema_version"]["major"]
        if version != SCHEMA:
            raise ValueError(
                f"its schema is version {quoted(version)}, and {SCHEMA} is read; export it with "
                "PyTorch 2.9 to 2.13"
            )
        return _graph(program["graph_module"]["graph"], program["graph_module"]["signature"])
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"its graph is not what torch.export writes ({type(error).__name__}: "
            f"{quoted(error)}); export it again"
        ) from error


def _graph(graph: Mapping[str, Any], signature: Mapping[str, Any]) -> Graph:
    parameters, constants, inputs = _inputs(signature)
    if len(inputs) != 1:
        raise ValueError(f"it takes {len(inputs)} inputs; export a network that takes one")
    arrays, batch = graph["tensor_values"], ""
    for first in arrays.get(inputs[0], {"sizes": ()})["sizes"][:1]:
        batch = str(first.get("as_expr", {}).get("expr_str", ""))
    shapes = {str(name): sizes_of(meta, batch) for name, meta in arrays.items()}
    sizes = {str(name): size_of(one, batch) for name, one in graph["sym_int_values"].items()}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    if len(graph["nodes"]) > MOST_NODES or numbers > MOST_NUMBERS:
        raise ValueError(
            f"its graph has {len(graph['nodes']):,} operations on {numbers:,} numbers; "
            f"{MOST_NODES:,} on {MOST_NUMBERS:,} are worked with at most"
        )
    known = {*parameters, *constants, *inputs}
    nodes = []
    for said in graph["nodes"]:
        if _is_about_sizes(said):
            continue
        node = _node(said, sizes)
        missing = [ref for ref in refs(tuple(node.arguments.values())) if ref not in known]
        if missing or not known.isdisjoint(node.outputs):
            about = f"reads {quoted(missing[0])}" if missing else "computes a value a second time"
            raise ValueError(f"its node {quoted(node.name)} {about}, out of order")
        known.update(node.outputs)
        nodes.append(node)
    outputs = [
        spec["user_output"]["arg"]["as_tensor"]["name"]
        for spec in signature["output_specs"]
        if "user_output" in spec
    ]
    for name in (*known, *outputs):
        if name not in shapes or name not in known:
            raise ValueError(f"its value {quoted(name)} is nowhere described")
    if not outputs:
        raise ValueError("it returns nothing")
    return Graph(tuple(nodes), parameters, constants, inputs[0], tuple(outputs), shapes)


def _inputs(signature: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return which values are parameters, which other arrays, by their names, and which inputs."""
    parameters, constants, inputs = {}, {}, []
    for spec in signature["input_specs"]:
        ((kind, said),) = spec.items()
        if kind == "parameter":
            parameters[said["arg"]["name"]] = str(said["parameter_name"])
        elif kind in ("buffer", "tensor_constant"):
            constants[said["arg"]["name"]] = str(said[f"{kind}_name"])
        elif kind == "user_input":
            inputs.append(said["arg"]["as_tensor"]["name"])
        else:
            raise ValueError(f"it takes an input of kind {quoted(kind)}, which is not known")
    return parameters, constants, inputs


def sizes_of(meta: Mapping[str, Any], batch: str = "") -> Shape:
    """Return the shape that is written down of an array: few whole numbers, or ValueError."""
    sizes = [size_of(size, batch) for size in meta["sizes"]]
    if len(sizes) > MOST_AXES or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError(f"it has an array of shape {quoted(sizes)}")
    return tuple(sizes)


def size_of(said: Mapping[str, Any], batch: str) -> Any:
    """Return a size, for one input: `batch` is how that of the first axis is written, if open."""
    if "as_expr" not in said:
        return said["as_int"]
    text = str(said["as_expr"]["expr_str"])
    one = re.escape(batch)
    found = re.fullmatch(rf"{one}|Mul\(Integer\(([0-9]{{1,9}})\), {one}\)", text)
    if batch and found:
        return int(found[1] or 1)
    raise ValueError(
        "a shape in it is not fixed; export it without dynamic shapes but that of the batch, for "
        "an input (1, …)"
    )


def _is_about_sizes(said: Mapping[str, Any]) -> bool:
    """Return whether a node computes sizes, which are known, or asserts something of them."""
    kinds = {kind for out in said["outputs"] for kind in out}
    ours = str(said["target"]).startswith(("torch.ops.aten.", "_operator."))
    return ours and all(kind.startswith("as_sym") for kind in kinds)


def _node(said: Mapping[str, Any], sizes: Mapping[str, int]) -> Node:
    name, target = str(said["name"]), str(said["target"])
    operation = target.removeprefix("torch.ops.aten.")
    if operation != target:
        operation = operation.partition(".")[0]
    arguments = {str(each["name"]): _argument(name, each["arg"], sizes) for each in said["inputs"]}
    outputs: list[str] = []
    for out in said["outputs"]:
        ((kind, about),) = out.items()
        if kind == "as_tensor":
            outputs.append(str(about["name"]))
        elif kind == "as_tensors":
            outputs += [str(one["name"]) for one in about]
        else:
            raise ValueError(f"its node {quoted(name)} computes something other than an array")
    in_place = operation.endswith("_") and not operation.endswith("__")
    return Node(
        name, operation[:-1] if in_place else operation, in_place, arguments, tuple(outputs)
    )


def _argument(node: str, said: Mapping[str, Any], sizes: Mapping[str, int]) -> Argument:
    ((kind, value),) = said.items()
    if kind in ARRAYS:
        return _arrays(value)
    if kind in ("as_sym_int", "as_sym_ints"):
        each = value if isinstance(value, list) else [value]
        fixed = tuple(sizes[one["as_name"]] if "as_name" in one else one["as_int"] for one in each)
        return fixed if isinstance(value, list) else fixed[0]
    if kind == "as_graph":
        raise ValueError(
            f"its node {quoted(node)} has a graph of its own, a loop or a branch that depends on "
            "numbers; export a network that always does the same"
        )
    if kind.startswith("as_sym"):
        raise ValueError(
            f"its node {quoted(node)} depends on a size or a number that is not fixed; export it "
            "without dynamic shapes, and a network that always does the same"
        )
    if isinstance(value, list):
        return tuple(_plain(node, one) for one in value)
    if value in ("Infinity", "-Infinity"):
        value = float(value)
    return None if isinstance(value, dict) else _plain(node, value)


def _arrays(value: Any) -> Argument:
    """Return a value that is read, several of them, or None where one may be missing."""
    if isinstance(value, list):
        return tuple(_arrays(one) for one in value)
    if not isinstance(value, dict) or "as_none" in value:
        return None
    return Ref(str(value["name"])) if "name" in value else _arrays(value["as_tensor"])


def _plain(node: str, value: Any) -> str | float:
    if not isinstance(value, str | int | float) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError(f"its node {quoted(node)} has an argument that is not known")
    return value


def refs(arguments: Sequence[Argument]) -> list[str]:
    """Return the names of the values among arguments."""
    found = []
    for argument in arguments:
        if isinstance(argument, Ref):
            found.append(argument.name)
        elif isinstance(argument, tuple):
            found += refs(argument)
    return found
