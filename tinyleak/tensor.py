"""A tensor that remembers how it was made.

A `Tensor` is an array together with the primitive that produced it and that primitive's inputs.
Following `inputs` from a result leads back to every number it depends on: that is the graph which
`tinyleak.gradient` walks. A `Primitive` is a forward function on raw arrays and a rule which says,
in Tensors again, what its gradient is. Because the rule's answer is itself made of primitives, it
can be differentiated too, as often as one likes.

Lesson: lessons/01_a_tensor_that_remembers.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinyleak.backend import Array, array_module, to_numpy

TensorLike: TypeAlias = "Tensor | Array | float | int"
Later: TypeAlias = "Callable[[], Tensor]"
"""A gradient to be computed only if somebody asks for it."""
Gradients: TypeAlias = "tuple[Tensor | Later | None, ...]"
Rule: TypeAlias = "Callable[..., Gradients]"
Operator: TypeAlias = "Callable[[Tensor, TensorLike], Tensor]"

NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
FLOATING = {np.dtype("float64"), np.dtype("float32")}

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""What `tinyleak.ops` offers, by name; operators and methods look theirs up when they are used."""


def _operator(name: str) -> tuple[Operator, Operator]:
    """Return the methods for `tensor ∘ other` and `other ∘ tensor`."""

    def forwards(self: Tensor, other: TensorLike) -> Tensor:
        return OPERATIONS[name](self, other)

    def reflected(self: Tensor, other: TensorLike) -> Tensor:
        return OPERATIONS[name](other, self)

    return forwards, reflected


def _method(name: str) -> Callable[..., Any]:
    def method(self: Tensor, *others: Any, **settings: Any) -> Any:
        return OPERATIONS[name](self, *others, **settings)

    method.__doc__ = f"See `tinyleak.ops.{name}`."
    return method


class Tensor:
    """An array that remembers how it was made.

    Operators, and comparisons too, work elementwise and broadcast as NumPy's do; whether two names
    stand for one Tensor is asked with `is`. `data` is taken as `tinyleak.interop.as_array` takes
    it, without a copy; whole numbers written in Python become float64.

    Attributes:
        data: the array itself, of any shape, on NumPy or CuPy.
        primitive: the operation that made it, or None for a leaf (an input or a constant).
        inputs: the Tensors that operation read.
        params: that operation's static parameters (axes, shapes, strides), by name.

    Raises:
        TypeError: `data` is something other than real numbers, or is or holds Tensors.
    """

    __slots__ = ("__weakref__", "_array", "inputs", "params", "primitive")

    def __init__(
        self,
        data: Any,
        primitive: Primitive | None = None,
        inputs: tuple[Tensor, ...] = (),
        params: dict[str, Any] | None = None,
    ) -> None:
        if primitive is None and not (type(data) is np.ndarray and data.dtype in FLOATING):
            from tinyleak.interop import as_leaf

            data = as_leaf(data, Tensor)
        self._array: Array = data
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

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("subtract")
    __mul__, __rmul__ = _operator("multiply")
    __truediv__, __rtruediv__ = _operator("divide")
    __matmul__, __rmatmul__ = _operator("matmul")
    __pow__, __rpow__ = _operator("power")
    __gt__, __lt__ = _operator("greater")
    __ge__, __le__ = _operator("greater_equal")
    __eq__ = _operator("equal")[0]  # type: ignore[assignment]
    __ne__ = _operator("not_equal")[0]  # type: ignore[assignment]
    __hash__ = object.__hash__
    __neg__, __getitem__ = _method("negate"), _method("index")
    sum, mean = _method("sum"), _method("mean")

    # What else an array can do, and what NumPy itself asks: ops/methods.py.
    T, reshape = property(_method("reverse_axes")), _method("reshape_to")
    __len__, __float__, __bool__ = _method("length"), _method("as_float"), _method("as_bool")
    __contains__, __array__ = _method("contains"), _method("numbers")
    __array_ufunc__, __array_function__ = _method("answer_ufunc"), _method("refuse_function")


def apply(operation: Primitive, *inputs: TensorLike, **params: Any) -> Tensor:
    """Compute a primitive on Tensors and remember that it was done.

    Numbers and arrays among the inputs become constants; a single number takes the dtype of the
    other operand, so that float32 stays float32. Before arithmetic, whole numbers and masks become
    floating, in the dtype of the other inputs or else float64.

    Raises:
        TypeError: inputs of different floating dtypes, or on different devices.
        ValueError: shapes that the primitive cannot combine.
    """
    try:
        arrays = [tensor._array for tensor in inputs]  # type: ignore[union-attr]
        tensors: tuple[Tensor, ...] = inputs  # type: ignore[assignment]
    except AttributeError:
        like = [value for value in inputs if isinstance(value, Tensor)]
        tensors = tuple([as_tensor(value, like[-1] if like else None) for value in inputs])
        arrays = [tensor._array for tensor in tensors]
    if operation.arithmetic:
        for array in arrays:
            if array.dtype.kind != "f":
                return apply(operation, *OPERATIONS["as_floating"](tensors), **params)
    module = array_module(*arrays)
    try:
        data = operation.forward(module, *arrays, **params)
    except ValueError as error:
        settings = "".join(f", {name}={value}" for name, value in params.items())
        raise ValueError(
            f"{operation.name} cannot combine {describe(tensors)}{settings}: {error}"
        ) from error
    if type(data) is not np.ndarray:
        data = module.asarray(data)  # NumPy returns a number where there is no axis
    maker, dtype = tensors[0], data.dtype
    for tensor in tensors:
        if tensor._array.dtype is not dtype:
            OPERATIONS["require_one_dtype"](operation, tensors, data)
        if type(tensor) is not Tensor:
            # A subclass (a Tensor that is being traced) makes results of its own kind.
            maker = tensor
    return maker._result(data, operation, tensors, params)


class Primitive:
    """An operation: how to compute it, and how to differentiate it.

    `forward(xp, *arrays, **params)` computes on raw arrays of the module `xp`. The rule
    `(g, out, *inputs, **params)` takes Tensors (g is the gradient of some scalar with respect to
    `out`) and returns the gradient with respect to each input, built from primitives; None for an
    input without one, such as an index; or a function that computes it, called only if it is asked
    for. It may answer in the shape that its inputs broadcast to: `grad` sums it back.

    Args:
        forward: the computation; its name is the primitive's name, its docstring the help.
        arithmetic: whether it computes with its inputs, which must then be floating; others move,
            choose or compare elements of any dtype.
    """

    def __init__(self, forward: Callable[..., Array], *, arithmetic: bool = True) -> None:
        self.name = forward.__name__.strip("_")
        self.__doc__ = forward.__doc__
        self.forward = forward
        self.arithmetic = arithmetic
        self._rule: Rule | None = None

    def rule(self, function: Rule) -> Rule:
        """Take `function` as this primitive's rule (a decorator)."""
        self._rule = function
        return function

    def gradients(self, g: Tensor, out: Tensor) -> Gradients:
        """Return the gradients with respect to the inputs of `out`, given that with respect to it.

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


PRIMITIVES: dict[str, Primitive] = {}  # every primitive by name


def primitive(*, arithmetic: bool = True) -> Callable[[Callable[..., Array]], Primitive]:
    """Make a forward function a `Primitive` and register it under its name (a decorator)."""

    def register(forward: Callable[..., Array]) -> Primitive:
        made = Primitive(forward, arithmetic=arithmetic)
        PRIMITIVES[made.name] = made
        return made

    return register


def as_tensor(value: TensorLike, like: Tensor | None = None) -> Tensor:
    """Return `value` as a Tensor; a single number takes the dtype and device of `like`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, NUMBERS) and like is not None:
        # Next to whole numbers or a mask it keeps its own: there 0.5 would become 0.
        dtype = like.dtype if like.dtype.kind == "f" else None
        return Tensor(array_module(like._array).asarray(value, dtype=dtype))
    return Tensor(value)


def describe(tensors: Sequence[Tensor]) -> str:
    """Return the dtypes and shapes, for a message."""
    return " and ".join(f"{tensor.dtype} {tensor.shape}" for tensor in tensors)
