"""A network from a `.pt2` file that anybody may have written, without PyTorch.

`torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 28, 28),)), "net.pt2")` writes a
zip archive: the graph as JSON, and every weight as raw numbers. It also writes the example that the
network was exported with, as a pickle. That is never opened, but it is there: whoever exports with
a photograph hands that photograph out together with the network, so export with zeros.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyleak.backend import Array
from tinyleak.data.bounds import MAX_BYTES, bounded, damaged, require_few
from tinyleak.data.files import PathLike, read_bounded
from tinyleak.data.npz import ShortReads, require_bounded
from tinyleak.interop import quoted
from tinyleak.nn.models.exported import Exported, parse_graph
from tinyleak.nn.models.exported.graph import sizes_of

SUFFIX = ".pt2"

MAX_JSON = 2**26
"""How long the graph may be, in bytes: a hundred times that of a ViT with two layers."""

DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8", 12: "?"}
"""What PyTorch's schema calls the types of numbers. NumPy has no bfloat16, …"""

BFLOAT16 = 13  # … which is the upper half of a float32

OLD_LAYOUT = "serialized_exported_program.json"
"""What an archive of PyTorch 2.6 and before has; its weights are pickles."""


def load_network(path: PathLike) -> Exported:
    """Return the network in a `.pt2` file, as `torch.export.save` writes it, with its weights.

    A ValueError if the file is of another kind or schema, damaged or too large, or if its graph has
    an operation that is not known, loops or branches, or does not fit its weights; an OSError if it
    is not there, or cannot be read.
    """
    path = Path(path)
    with bounded(path):
        try:
            return _read(path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise damaged(".pt2", error) from error


def _read(path: Path) -> Exported:
    with ShortReads(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        require_bounded(members, path.stat().st_size, "PyTorch", "torch.export.save")
        # Every name is below one folder, which is called as the file was when it was saved.
        found = {member.filename.partition("/")[2]: member for member in members}
        if "models/model.json" not in found:
            old = any(member.filename.endswith(OLD_LAYOUT) for member in members)
            raise ValueError(
                "it is an archive of PyTorch 2.6 or before, whose weights are pickles; export the "
                "network with PyTorch 2.9 or later"
                if old
                else "it has no graph; save the network with torch.export.save"
            )

        def read(name: str, limit: int, folder: str = "") -> bytes:
            name = folder + name
            if name not in found:
                raise ValueError(f"it lacks {quoted(name)}; save it again")
            with archive.open(found[name]) as stream:
                return read_bounded(stream, limit)

        graph = parse_graph(_json(read("models/model.json", MAX_JSON)))
        if read("byteorder", 16).strip() != b"little":
            raise ValueError("its numbers begin with the large end; export it on another machine")
        weights: dict[str, Array] = {}
        for kind in ("weights", "constants"):
            listed = _json(read(f"data/{kind}/model_{kind}_config.json", MAX_JSON))
            for name, about in _entries(listed):
                wanted = name in graph.parameters.values() or name in graph.constants.values()
                if wanted and name not in weights:
                    weights[name] = _array(name, about, partial(read, folder=f"data/{kind}/"))
    params = {name: weights[name] for name in graph.parameters.values() if name in weights}
    constants = {name: weights[name] for name in graph.constants.values() if name in weights}
    return Exported(graph, params, constants, path.stem)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON is damaged ({quoted(error)[1:-1]}); save it again") from error


def _entries(listed: Any) -> list[tuple[str, dict[str, Any]]]:
    try:
        entries = [(str(name), dict(about)) for name, about in listed["config"].items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("its list of weights is not one; save it again") from error
    require_few(len(entries))
    return entries


def _array(name: str, about: Mapping[str, Any], read: Any) -> Array:
    """Return an array: the numbers of a file in the archive, as they are said to lie there."""
    try:
        if about["use_pickle"]:
            raise ValueError(
                f"{quoted(name)} is a pickle, and tinyleak never loads one; save plain arrays"
            )
        meta = about["tensor_meta"]
        shape, dtype = sizes_of(meta), meta["dtype"]
        strides = [int(stride["as_int"]) for stride in meta["strides"]]
        offset, place = int(meta["storage_offset"]["as_int"]), str(about["path_name"])
        kind = np.dtype("<u2" if dtype == BFLOAT16 else DTYPES[dtype])
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{quoted(name)} is not described as an array of numbers ({type(error).__name__}); "
            "save it again"
        ) from error
    content = read(place, MAX_BYTES)
    numbers = np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=False))
    if 0 in shape or len(strides) != len(shape) or min(offset, *strides, 0) < 0:
        raise ValueError(f"{quoted(name)} is said to have shape {shape}; save it again")
    if last >= numbers.size or math.prod(shape) > numbers.size:
        raise ValueError(
            f"{quoted(name)} is said to have shape {shape}, and {len(content):,} bytes are there"
        )
    steps = [step * kind.itemsize for step in strides]
    array = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()
    if dtype == BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{quoted(name)} holds NaN or infinity; save it before it overflows")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
