"""A tensor that remembers how it was made.

A `Tensor` is an array together with the primitive that produced it and that primitive's inputs.
Following `inputs` from a result leads back to every number it depends on: that is the graph which
`tinyleak.gradient` walks. A `Primitive` is a forward function on raw arrays and a rule which says,
in Tensors again, what its gradient is. Because the rule's answer is itself made of primitives, it
can be differentiated too, as often as one likes.

Lesson: lessons/01_a_tensor_that_remembers.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array, array_module, call_into, to_numpy

TensorLike: TypeAlias = "Tensor | Array | float | int"
Step: TypeAlias = "Callable[[], object]"
Later: TypeAlias = "Callable[[], Tensor]"
"""A gradient to be computed only if somebody asks for it."""
Gradients: TypeAlias = "tuple[Tensor | Later | None, ...]"
Rule: TypeAlias = "Callable[..., Gradients]"

NUMBERS = (bool, int, float)


class Tensor:
    """An array that remembers how it was made.

    Attributes:
        data: the array itself, of any shape, on NumPy or CuPy.
        primitive: the operation that made it, or None for a leaf (an input or a constant).
        inputs: the Tensors that operation read.
        params: that operation's static parameters (axes, shapes, strides), by name.
    """

    __slots__ = ("__weakref__", "_array", "inputs", "params", "primitive")

    # Makes `array * tensor` ask the Tensor, not NumPy, what multiplication means.
    __array_ufunc__ = None

    def __init__(
        self,
        data: Array | float | int | list[Any],
        primitive: Primitive | None = None,
        inputs: tuple[Tensor, ...] = (),
        params: dict[str, Any] | None = None,
    ) -> None:
        self._array: Array = data if type(data) is np.ndarray else _as_array(data)
        self.primitive = primitive
        self.inputs = inputs
        self.params = params or {}

    def _result(
        self, data: Array, operation: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any]
    ) -> Tensor:
        """Make the Tensor that holds what an operation on this one computed."""
        return Tensor(data, operation, inputs, params)

    @property
    def data(self) -> Array:
        """The array itself."""
        return self._array

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self._array.dtype

    def numpy(self) -> Array:
        """Return the numbers as a NumPy array, copied from the GPU if they live there."""
        return to_numpy(self.data)

    def __repr__(self) -> str:
        made_by = f", made by {self.primitive.name}" if self.primitive else ""
        return f"Tensor({self._array!r}{made_by})"

    def __len__(self) -> int:
        return len(self._array)

    def __float__(self) -> float:
        return float(to_numpy(self.data))

    def __bool__(self) -> bool:
        return bool(to_numpy(self.data))

    def __add__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["add"](self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["add"](other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["subtract"](self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["subtract"](other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["multiply"](self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["multiply"](other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["divide"](self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["divide"](other, self)

    def __neg__(self) -> Tensor:
        return PRIMITIVES["negate"](self)

    def __pow__(self, exponent: float) -> Tensor:
        return PRIMITIVES["power"](self, exponent=exponent)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["matmul"](self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["matmul"](other, self)

    def __gt__(self, other: TensorLike) -> Tensor:
        return PRIMITIVES["greater"](self, other)

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Tensor:
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            whole = (slice(None),) * (self.ndim - len(parts) + 1)
            parts = (*parts[:at], *whole, *parts[at + 1 :])
        if len(parts) > self.ndim or not all(_is_plain(part) for part in parts):
            raise ValueError(
                f"a Tensor of shape {self.shape} was indexed with {key!r}; give at most "
                f"{self.ndim} whole numbers and slices with positive steps (arrays of indices go "
                "to ops.take)"
            )
        # Kept as plain numbers, so that equal keys are equal parameters.
        window = tuple(
            part.indices(length) if isinstance(part, slice) else part
            for part, length in zip(parts, self.shape, strict=False)
        )
        return PRIMITIVES["index"](self, key=window)


def apply(operation: Primitive, *inputs: TensorLike, **params: Any) -> Tensor:
    """Compute a primitive on Tensors and remember that it was done.

    Numbers and arrays among the inputs become constants; a Python number takes the dtype of the
    other operand, so that float32 stays float32.

    Raises:
        TypeError: inputs of different floating dtypes, or on different devices.
        ValueError: shapes that the primitive cannot combine.
    """
    try:
        arrays = [tensor._array for tensor in inputs]  # type: ignore[union-attr]
        tensors: tuple[Tensor, ...] = inputs  # type: ignore[assignment]
    except AttributeError:
        tensors = _as_tensors(inputs)
        arrays = [tensor._array for tensor in tensors]
    try:
        data = operation.forward(array_module(*arrays), *arrays, **params)
    except ValueError as error:
        settings = "".join(f", {name}={value}" for name, value in params.items())
        raise ValueError(
            f"{operation.name} cannot combine {_describe(tensors)}{settings}: {error}"
        ) from error
    maker, dtype = tensors[0], data.dtype
    for tensor in tensors:
        if tensor._array.dtype is not dtype:
            _check_dtypes(operation, tensors, data)
        if type(tensor) is not Tensor:
            # A subclass (a Tensor that is being traced) makes results of its own kind.
            maker = tensor
    return maker._result(data, operation, tensors, params)


class Primitive:
    """An operation: how to compute it, and how to differentiate it.

    `forward(xp, *arrays, out=None, **params)` computes on raw arrays of the module `xp`, into
    `out` if one is given. The rule `(g, out, *inputs, **params)` takes Tensors (g is the gradient
    of some scalar by `out`) and returns the gradient by each input, built from primitives, or
    None for an input that has none, such as an index. Instead of a gradient it may return a
    function that computes it, which is called only if that gradient is asked for. Where an
    operation broadcasts, its rule may answer in the broadcast shape: `grad` sums it back.

    Args:
        forward: the computation; its name is the primitive's name, its docstring the help.
        function: the name of the array library's function, where the forward only calls that.
        view: whether the result is, where possible, only another view of the first input.
        in_place: whether `out` may be the memory of one of the inputs.
    """

    def __init__(
        self,
        forward: Callable[..., Array],
        *,
        view: bool = False,
        in_place: bool = False,
        function: str | None = None,
    ) -> None:
        self.name = forward.__name__.strip("_")
        self.__doc__ = forward.__doc__
        self.forward = forward
        self.function = function
        self.view = view
        self.in_place = in_place
        self._rule: Rule | None = None
        self._steps: Callable[..., list[Step]] | None = None

    def rule(self, function: Rule) -> Rule:
        """Take `function` as this primitive's rule (a decorator)."""
        self._rule = function
        return function

    def steps(self, function: Callable[..., list[Step]]) -> Callable[..., list[Step]]:
        """Take `function(xp, *arrays, out, **params)` as this primitive's steps (a decorator).

        It returns the library calls that fill `out`, which is row-major unless the primitive is
        `in_place`, with all that depends only on shapes done beforehand. Only a primitive of
        several calls, or one with scratch memory, needs it.
        """
        self._steps = function
        return function

    def prepare(
        self, xp: Any, arrays: tuple[Array, ...], out: Array, params: dict[str, Any]
    ) -> list[Step]:
        """Return the calls that compute the primitive from these very arrays into `out`."""
        if self._steps is not None and (self.in_place or out.flags.c_contiguous):
            return self._steps(xp, *arrays, out=out, **params)
        if self.function is not None:
            return [call_into(xp, self.function, *arrays, out=out)]
        return [partial(self.forward, xp, *arrays, out=out, **params)]

    def gradients(self, g: Tensor, out: Tensor) -> Gradients:
        """Return the gradients by the inputs of `out`, given the gradient `g` by `out`.

        Raises:
            NotImplementedError: the primitive has no rule.
            TypeError: the rule answered with another number of gradients than there are inputs.
        """
        if self._rule is None:
            raise NotImplementedError(
                f"{self.name} has no gradient rule; give it one with @{self.name}.rule"
            )
        gradients = self._rule(g, out, *out.inputs, **out.params)
        if not isinstance(gradients, tuple) or len(gradients) != len(out.inputs):
            count = len(gradients) if isinstance(gradients, tuple) else "no tuple of"
            raise TypeError(
                f"the rule of {self.name} returned {count} gradients for {len(out.inputs)} "
                "inputs; it must return a tuple with one entry for each"
            )
        return gradients

    __call__ = apply

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


PRIMITIVES: dict[str, Primitive] = {}
"""Every primitive by name. The operators look theirs up here when they are used."""


def primitive(
    *, view: bool = False, in_place: bool = False
) -> Callable[[Callable[..., Array]], Primitive]:
    """Make a forward function a `Primitive` and register it under its name (a decorator)."""

    def register(forward: Callable[..., Array]) -> Primitive:
        return _register(Primitive(forward, view=view, in_place=in_place))

    return register


def library_primitive(function: str, doc: str) -> Primitive:
    """Make a `Primitive` of an elementwise function that every array library has."""

    def forward(xp: Any, *arrays: Array, out: Array | None = None) -> Array:
        compute = getattr(xp, function)
        return compute(*arrays) if out is None else compute(*arrays, out=out)

    forward.__name__ = {"negative": "negate"}.get(function, function)
    forward.__doc__ = doc
    return _register(Primitive(forward, in_place=True, function=function))


def _register(made: Primitive) -> Primitive:
    PRIMITIVES[made.name] = made
    return made


def _check_dtypes(operation: Primitive, tensors: tuple[Tensor, ...], data: Array) -> None:
    """Raise if floating dtypes were mixed, or if an integer silently widened a floating one."""
    floats = {tensor.dtype for tensor in tensors if tensor.dtype.kind == "f"}
    if len(floats) > 1:
        raise TypeError(
            f"{operation.name} was given {_describe(tensors)}; all floating inputs must have one "
            "dtype: convert them with .astype before making Tensors"
        )
    if floats and data.dtype.kind == "f" and data.dtype not in floats:
        raise TypeError(
            f"{operation.name} of {_describe(tensors)} would turn into {data.dtype}; "
            "make the integer input a floating one first"
        )


def _as_array(data: Any) -> Array:
    """Return numbers, or lists of them, as an array; whole ones become floating."""
    if isinstance(data, Tensor):
        raise TypeError("Tensor(Tensor) is ambiguous; pass its .data for a fresh leaf")
    if isinstance(data, (*NUMBERS, list, tuple)):
        numbers = np.asarray(data)
        return numbers.astype(float) if numbers.dtype.kind == "i" else numbers
    return data


def as_tensor(value: TensorLike, like: Tensor | None = None) -> Tensor:
    """Return `value` as a Tensor; a Python number takes the dtype and device of `like`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, NUMBERS) and like is not None:
        # Next to whole numbers or a mask it keeps its own: there 0.5 would become 0.
        dtype = like.dtype if like.dtype.kind == "f" else None
        return Tensor(array_module(like._array).asarray(value, dtype=dtype))
    return Tensor(value)


def _as_tensors(inputs: tuple[TensorLike, ...]) -> tuple[Tensor, ...]:
    like = None
    mixed = False
    for value in inputs:
        if isinstance(value, Tensor):
            like = value
        else:
            mixed = True
    return tuple(as_tensor(value, like) for value in inputs) if mixed else inputs  # type: ignore[return-value]


def _is_plain(part: object) -> bool:
    """Whether this part of an index is a whole number or a slice with a positive step."""
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return isinstance(part, int | np.integer) and not isinstance(part, bool)


def _describe(tensors: tuple[Tensor, ...]) -> str:
    return " and ".join(f"{tensor.dtype} {tensor.shape}" for tensor in tensors)
