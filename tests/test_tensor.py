from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

from tinyleak import ops
from tinyleak.tensor import PRIMITIVES, Primitive, Tensor, apply, as_tensor, primitive

ARRAY = np.array([[0.5, 2.0, 1.5], [3.0, 0.25, 1.0]])
OTHER = np.array([1.5, 0.75, 2.0])

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]
each_operator = pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# What a Tensor is.


def test_a_leaf_holds_its_array_and_nothing_else() -> None:
    x = Tensor(ARRAY)
    assert x.data is ARRAY
    assert (x.shape, x.ndim, x.dtype, len(x)) == ((2, 3), 2, np.float64, 2)
    assert (x.primitive, x.inputs, x.params) == (None, (), {})
    assert x.numpy() is ARRAY


def test_a_result_remembers_how_it_was_made() -> None:
    x = Tensor(ARRAY)
    y = ops.sum_to(x, shape=(3,))
    assert y.primitive is PRIMITIVES["sum_to"]
    assert y.inputs == (x,)
    assert y.params == {"shape": (3,)}
    assert "made by sum_to" in repr(y)
    assert "made by" not in repr(x)


@pytest.mark.parametrize("value", [3, 3.0, [1, 2], (1, 2), [[1], [2]], [0.5, 1]])
def test_numbers_and_lists_become_float64(value: object) -> None:
    x = Tensor(value)
    assert x.dtype == np.float64
    assert x.data.tolist() == np.array(value, dtype=float).tolist()


def test_booleans_stay_booleans_and_arrays_what_they_are() -> None:
    assert Tensor([True, False]).dtype == bool
    assert Tensor(np.array([1, 2])).dtype == np.int64
    assert Tensor(np.zeros(2, dtype=np.float32)).dtype == np.float32


def test_a_tensor_of_a_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pass its \.data for a fresh leaf"):
        Tensor(Tensor(1.0))


def test_a_single_number_converts() -> None:
    assert float(Tensor(ARRAY)[1, 0]) == 3.0
    assert bool(ops.sum(Tensor(ARRAY)) > 8)
    assert not bool(ops.sum(Tensor(ARRAY)) > 9)


def test_rows_can_be_iterated() -> None:
    assert [row.data.tolist() for row in Tensor(ARRAY)] == ARRAY.tolist()


# Operators.


@each_operator
@each_dtype
def test_tensors_and_arrays_on_either_side(op: Callable, dtype: type) -> None:
    a, b = ARRAY.astype(dtype), OTHER.astype(dtype)
    for result in (op(Tensor(a), Tensor(b)), op(Tensor(a), b), op(a, Tensor(b))):
        assert isinstance(result, Tensor)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.data, op(a, b))


@each_operator
@each_dtype
@pytest.mark.parametrize("number", [2, 0.3, True, np.float64(0.3)], ids=repr)
def test_numbers_on_either_side_keep_the_dtype(op: Callable, dtype: type, number: float) -> None:
    a = ARRAY.astype(dtype)
    for result, expected in [
        (op(Tensor(a), number), op(a, dtype(number))),
        (op(number, Tensor(a)), op(dtype(number), a)),
    ]:
        assert isinstance(result, Tensor)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.data, expected)


@each_dtype
def test_numbers_keep_the_dtype_of_a_scalar_tensor(dtype: type) -> None:
    x = ops.sum(Tensor(ARRAY.astype(dtype)))
    for result in (x * 2.0, 1.0 - x, x / 3, 2 / x, x**2, x**0.5, -x, 1.0 + x):
        assert result.dtype == dtype
        assert result.shape == ()


@each_dtype
def test_the_other_operators(dtype: type) -> None:
    a = ARRAY.astype(dtype)
    x = Tensor(a)
    np.testing.assert_array_equal((-x).data, -a)
    np.testing.assert_array_equal((x**2).data, a * a)
    np.testing.assert_array_equal((x**3).data, a ** dtype(3))
    np.testing.assert_allclose((x**-0.5).data, 1 / np.sqrt(a), rtol=1e-6)
    np.testing.assert_array_equal((x @ a.T).data, a @ a.T)
    np.testing.assert_array_equal((a @ Tensor(a.T)).data, a @ a.T)
    assert (x**2).dtype == (x**-0.5).dtype == (x @ a.T).dtype == dtype


def test_comparisons_make_masks() -> None:
    x = Tensor(ARRAY)
    np.testing.assert_array_equal((x > 1.0).data, ARRAY > 1)
    np.testing.assert_array_equal((x > OTHER).data, ARRAY > OTHER)
    np.testing.assert_array_equal((x < Tensor(OTHER)).data, ARRAY < OTHER)
    assert (x > 1.0).dtype == bool


def test_a_number_beside_whole_numbers_or_a_mask_is_not_cut_to_their_type() -> None:
    whole = Tensor(np.array([1, 2, 3]))
    assert (whole * 0.5).data.tolist() == [0.5, 1, 1.5]
    assert (whole + 1).dtype == np.int64
    mask = Tensor(ARRAY) > 1.0
    assert (mask * 2.0).data.tolist() == np.where(ARRAY > 1, 2.0, 0.0).tolist()
    assert as_tensor(0.5, whole).dtype == np.float64


def test_numpy_functions_refuse_a_tensor() -> None:
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(Tensor(ARRAY))


# Errors of apply.


def test_mixed_dtypes_name_primitive_shapes_and_dtypes() -> None:
    single = Tensor(ARRAY.astype(np.float32))
    message = (
        r"multiply was given float32 \(2, 3\) and float64 \(3,\); all floating inputs must have "
        r"one dtype"
    )
    with pytest.raises(TypeError, match=message):
        single * OTHER
    with pytest.raises(TypeError, match=r"concatenate was given float32 \(2, 3\) and float64"):
        ops.concatenate([single, Tensor(ARRAY)])
    with pytest.raises(TypeError, match=r"where was given bool \(2, 3\) and float32"):
        ops.where(single > 1, single, Tensor(OTHER))


def test_whole_numbers_do_not_widen_float32() -> None:
    message = r"add of float32 \(2, 3\) and int64 \(3,\) would turn into float64; make the integer"
    with pytest.raises(TypeError, match=message):
        Tensor(ARRAY.astype(np.float32)) + np.array([1, 2, 3])


def test_shapes_that_do_not_fit_name_primitive_shapes_and_dtypes() -> None:
    message = r"divide cannot combine float64 \(2, 3\) and float64 \(2,\): .*broadcast"
    with pytest.raises(ValueError, match=message):
        Tensor(ARRAY) / np.ones(2)


# Primitives.


def test_the_decorator_registers_under_the_function_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyleak.tensor.PRIMITIVES", registry := {})

    @primitive(arithmetic=False)
    def _twice(xp: object, x: np.ndarray) -> np.ndarray:
        """Two times x."""
        return 2 * x

    assert registry == {"twice": _twice}
    assert (_twice.name, _twice.arithmetic) == ("twice", False)
    assert _twice.__doc__ == "Two times x."
    assert repr(_twice) == "<primitive twice>"
    assert _twice(Tensor([1.0])).data.tolist() == [2]


def test_apply_hands_on_arrays_and_parameters() -> None:
    seen = []

    def forward(xp: object, *arrays: np.ndarray, **params: int) -> np.ndarray:
        seen.append((xp, arrays, params))
        return arrays[0]

    x = Tensor(ARRAY)
    result = apply(Primitive(forward), x, 2.0, axis=1)
    ((module, arrays, params),) = seen
    assert module is np
    assert arrays[0] is ARRAY
    assert arrays[1] == 2.0
    assert params == result.params == {"axis": 1}
