from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

from tinyleak import ops
from tinyleak.gradient import grad
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


def test_comparisons_are_elementwise_and_identity_never_answers() -> None:
    x, same = Tensor(ARRAY), Tensor(ARRAY.copy())
    rows = Tensor(OTHER)
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.ge, operator.gt):
        for other in (same, rows, OTHER, 1.5, 2):
            expected = compare(ARRAY, other.data if isinstance(other, Tensor) else other)
            found = compare(x, other)
            assert found.dtype == bool
            np.testing.assert_array_equal(found.data, expected)
        np.testing.assert_array_equal(compare(OTHER, x).data, compare(OTHER, ARRAY))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x == same)
    with pytest.raises(TypeError, match="a NoneType of dtype object was given"):
        _ = x == None  # noqa: E711


def test_not_a_number_compares_false() -> None:
    x = Tensor([np.nan, 1.0])
    same = x
    for compare in (operator.eq, operator.lt, operator.le, operator.ge, operator.gt):
        assert not compare(x, same).data[0]
    assert (x != same).data.tolist() == [True, False]


def test_in_looks_for_a_number() -> None:
    x = Tensor(ARRAY)
    assert 0.25 in x
    assert Tensor(0.25) in x
    assert 7.0 not in x


def test_tensors_are_keys_by_identity() -> None:
    x, same = Tensor(ARRAY), Tensor(ARRAY)
    assert len({x, same}) == 2
    assert {x: "x", same: "same"}[same] == "same"


def test_whole_numbers_and_masks_become_floating_before_arithmetic() -> None:
    whole = Tensor(np.array([4, 9]))
    assert (whole**0.5).data.tolist() == [2, 3]
    assert (whole * 0.5).data.tolist() == [2, 4.5]
    assert ops.sigmoid(whole).dtype == ops.exp(whole).dtype == np.float64
    assert (whole + 1).dtype == (whole + whole).dtype == ops.sum(whole).dtype == np.float64
    assert (whole[:1] / whole).data.tolist() == [1, 4 / 9]
    mask = Tensor(ARRAY) > 1.0
    assert (mask * 2.0).data.tolist() == np.where(ARRAY > 1, 2.0, 0.0).tolist()
    assert float(ops.sum(mask)) == (ARRAY > 1).sum()
    assert (-mask).data.tolist() == np.where(ARRAY > 1, -1.0, 0.0).tolist()
    assert as_tensor(0.5, whole).dtype == np.float64


def test_whole_numbers_take_the_dtype_beside_them() -> None:
    single = Tensor(ARRAY.astype(np.float32))
    result = single * np.array([1, 2, 3]) + (single > 1)
    assert result.dtype == np.float32
    assert result.data.tolist() == (ARRAY * [1, 2, 3] + (ARRAY > 1)).tolist()


def test_what_only_moves_or_chooses_keeps_whole_numbers() -> None:
    whole = Tensor(np.arange(6).reshape(2, 3))
    for result in (whole.T, whole[0], whole.reshape(6), ops.stack([whole, whole])):
        assert result.dtype == np.int64


def test_numpy_scalars_keep_the_dtype_of_the_other_operand() -> None:
    single = Tensor(ARRAY.astype(np.float32))
    for number in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        assert (single * number).dtype == (number * single).dtype == np.float32


def test_either_power_is_differentiated() -> None:
    x, y = Tensor([1.5, 2.0, 0.0]), Tensor([2.0, -1.0, 3.0])
    by_x, by_y = grad(ops.sum(x**y), [x, y])
    np.testing.assert_allclose(by_x.data, [3.0, -0.25, 0.0])
    np.testing.assert_allclose(by_y.data, [2.25 * np.log(1.5), 0.5 * np.log(2), 0.0])
    np.testing.assert_allclose((OTHER**x).data, OTHER**x.data)


def test_shapes_and_sums_as_numpy_has_them() -> None:
    x = Tensor(ARRAY)
    np.testing.assert_array_equal(x.T.data, ARRAY.T)
    np.testing.assert_array_equal(x.reshape(3, -1).data, ARRAY.reshape(3, -1))
    np.testing.assert_array_equal(x.reshape((6,)).data, ARRAY.reshape(6))
    assert float(x.sum()) == ARRAY.sum()
    np.testing.assert_array_equal(x.mean(0, keepdims=True).data, ARRAY.mean(0, keepdims=True))
    for key in (
        None,
        ...,
        (..., None, 0),
        (1, None),
        (slice(None), None, slice(1, 3)),
        np.int64(1),
    ):
        np.testing.assert_array_equal(x[key].data, ARRAY[key])
    y = (1 + x).T.reshape(6)[None].sum() * x[...].mean()
    by_x = grad(y, x)
    np.testing.assert_allclose(by_x.data, np.full((2, 3), ARRAY.mean() + (ARRAY + 1).sum() / 6))


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (np.exp, "np.exp was given a Tensor.* use tinyleak.ops.exp"),
        (np.sum, "tinyleak.ops.sum"),
        (lambda x: np.mean(x, axis=0), "tinyleak.ops.mean"),
        (np.max, "tinyleak.ops.max"),
        (np.negative, "tinyleak.ops.negate"),
        (lambda x: np.stack([x, x]), "tinyleak.ops.stack"),
        (lambda x: np.where(x > 1, x, 0), "tinyleak.ops.where"),
        (np.arctan, "np.arctan .* use tinyleak.ops, or its .data"),
        (lambda x: np.add(OTHER, x, out=OTHER), "np.add was given a Tensor"),
        (np.add.reduce, "np.add was given a Tensor"),
    ],
)
def test_numpy_s_functions_name_ours(call: Callable, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        call(Tensor(ARRAY))


def test_numpy_may_look_at_the_numbers() -> None:
    np.testing.assert_array_equal(np.asarray(Tensor(ARRAY)), ARRAY)
    assert np.array(Tensor(ARRAY), dtype=np.float32).dtype == np.float32


# What is not numbers.


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "a NoneType of dtype object was given; pass floating or whole numbers"),
        ("cat", "a str of dtype .* was given"),
        (1j, "a complex of dtype complex128 was given"),
        ([1, None], "a list of dtype object was given"),
        (np.array([1, "a"], dtype=object), "an? ndarray of dtype object was given"),
        ([[1, 2], [3]], "a list could not be read as numbers: .*inhomogeneous"),
        ([Tensor(1.0), 2.0], "join them with ops.stack"),
        ([[Tensor(1.0)]], "join them with ops.stack"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "without a mask"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype datetime64"),
    ],
    ids=repr,
)
def test_what_is_not_numbers_is_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Tensor(value)


@pytest.mark.parametrize("axis", [np.int64(0), np.int32(-1), [np.int64(0), 1]], ids=repr)
def test_numpy_s_integers_name_axes(axis: object) -> None:
    plain = tuple(map(int, axis)) if isinstance(axis, list) else int(axis)
    for ours, theirs in [(ops.sum, np.sum), (ops.mean, np.mean), (ops.max, np.max)]:
        np.testing.assert_allclose(ours(Tensor(ARRAY), axis).data, theirs(ARRAY, axis=plain))
    three = np.int64(3)
    assert ops.reshape(Tensor(ARRAY), (three, -1)).shape == (3, 2)
    assert ops.concatenate([Tensor(ARRAY)] * 2, np.int64(1)).shape == (2, 6)
    assert [x.shape for x in ops.split(Tensor(ARRAY), np.array([1, 2]), np.int64(1))] == [
        (2, 1),
        (2, 2),
    ]


# Errors of apply.


def test_mixed_dtypes_name_primitive_shapes_and_dtypes() -> None:
    single = Tensor(ARRAY.astype(np.float32))
    message = (
        r"multiply was given float32 \(2, 3\) and float64 \(3,\); all inputs must have one "
        r"floating dtype"
    )
    with pytest.raises(TypeError, match=message):
        single * OTHER
    with pytest.raises(TypeError, match=r"concatenate was given float32 \(2, 3\) and float64"):
        ops.concatenate([single, Tensor(ARRAY)])
    with pytest.raises(TypeError, match=r"where was given bool \(2, 3\) and float32"):
        ops.where(single > 1, single, Tensor(OTHER))


def test_whole_numbers_that_are_joined_do_not_widen_float32() -> None:
    message = r"concatenate was given float32 \(2, 3\) and int64 \(2, 3\); all inputs must have one"
    with pytest.raises(TypeError, match=message):
        ops.concatenate([Tensor(ARRAY.astype(np.float32)), Tensor(np.zeros((2, 3), int))])


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
