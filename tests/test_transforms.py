"""Products with Jacobians, and gradients by copies of the weights: against matrices and loops."""

from __future__ import annotations

import numpy as np
import pytest

from tinyleak import grad
from tinyleak.nn import MLP, cross_entropy, one_hot
from tinyleak.nn.model import parameter_gradients
from tinyleak.ops import exp, sum
from tinyleak.tensor import Tensor
from tinyleak.transforms import copies, jvp, per_example_gradients, vjp

A = np.random.default_rng(0).standard_normal((3, 4))


def bent(x: Tensor) -> Tensor:
    """A (3,) function of (4, 1) whose Jacobian is diag(exp(A x)) A."""
    return exp(Tensor(A) @ x)[:, 0]


def test_both_products_are_those_with_the_jacobian(rng: np.random.Generator) -> None:
    x, v, u = rng.standard_normal((4, 1)), rng.standard_normal((4, 1)), rng.standard_normal(3)
    jacobian = np.exp(A @ x) * A
    value, along = jvp(bent, [Tensor(x)], [Tensor(v)])
    np.testing.assert_allclose(value.data, np.exp(A @ x)[:, 0])
    np.testing.assert_allclose(along.data, (jacobian @ v)[:, 0])
    value, (back,) = vjp(bent, [Tensor(x)], Tensor(u))
    np.testing.assert_allclose(value.data, np.exp(A @ x)[:, 0])
    np.testing.assert_allclose(back.data[:, 0], u @ jacobian)


def test_a_hessian_times_a_vector_is_one_line(rng: np.random.Generator) -> None:
    x, v = rng.standard_normal((4, 1)), rng.standard_normal((4, 1))

    def f(x: Tensor) -> Tensor:
        return sum(bent(x))

    product = jvp(lambda x: grad(f(x), [x])[0], [Tensor(x)], [Tensor(v)])[1]
    hessian = A.T @ (np.exp(A @ x) * A)
    np.testing.assert_allclose(product.data, hessian @ v)


def test_they_can_be_differentiated_again(rng: np.random.Generator) -> None:
    x, v = Tensor(rng.standard_normal((4, 1))), Tensor(rng.standard_normal((4, 1)))
    (slope,) = grad(sum(jvp(bent, [x], [v])[1]), [x])
    np.testing.assert_allclose(slope.data, A.T @ (np.exp(A @ x.data) * A) @ v.data)


def test_several_inputs_count_together_and_unused_ones_for_nothing() -> None:
    x, y, z = (Tensor(np.array([number])) for number in (2.0, 3.0, 5.0))
    one = Tensor(np.ones(1))
    # The derivatives with respect to x and y are one and the same Tensor here.
    assert jvp(lambda x, y, z: x + y, [x, y, z], [one, one, one])[1].data == [2.0]
    assert jvp(lambda x, y, z: x * y, [x, y, z], [one, one, one])[1].data == [5.0]
    assert [g.data.item() for g in vjp(lambda x, y, z: x * y, [x, y, z], one)[1]] == [3, 2, 0]
    assert jvp(lambda x: Tensor(np.ones(2)), [x], [one])[1].data.tolist() == [0.0, 0.0]


def test_directions_that_do_not_fit_are_refused() -> None:
    x = Tensor(np.ones(2))
    with pytest.raises(ValueError, match=r"tangents of shapes \[\(3,\)\] were given for primals"):
        jvp(exp, [x], [Tensor(np.ones(3))])
    with pytest.raises(ValueError, match="give one of the same shape for each"):
        jvp(exp, [x], [])
    with pytest.raises(ValueError, match="shape"):
        vjp(exp, [x], Tensor(np.ones(3)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_examples_gradient_is_the_one_it_has_alone(
    dtype: str, rng: np.random.Generator
) -> None:
    model = MLP((1, 2, 3), 4, widths=(5,))
    params = {name: weight.astype(dtype) for name, weight in model.init(rng).items()}
    images = rng.random((3, 1, 2, 3)).astype(dtype)
    targets = one_hot(np.array([0, 3, 3]), 4, dtype)
    found = per_example_gradients(
        lambda weights, x, y: cross_entropy(model(weights, x), y), params, images, targets
    )
    weights = {name: Tensor(weight) for name, weight in params.items()}
    for n in range(3):
        one = slice(n, n + 1)
        alone = parameter_gradients(model, weights, Tensor(images[one]), Tensor(targets[one]))
        for name, gradient in alone.items():
            assert found[name].dtype == dtype
            np.testing.assert_allclose(found[name].data[n], gradient.data, rtol=1e-5, atol=1e-7)


def test_copies_keep_gradients_apart() -> None:
    w = copies(np.array([1.0, 2.0]), 3)
    assert w.shape == (3, 2)
    (apart,) = grad(sum(w * Tensor(np.arange(6.0).reshape(3, 2))), [w])
    np.testing.assert_array_equal(apart.data, np.arange(6.0).reshape(3, 2))
