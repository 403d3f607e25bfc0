"""Functions of functions: products with Jacobians, and gradients of many examples kept apart.

They are all made of `grad`, so what they return can be differentiated again. A Hessian-vector
product of a scalar function f, for example, is one line:

    hessian_times_v = jvp(lambda x: grad(f(x), [x])[0], [x], [v])[1]

Here J = ∂f/∂x is the Jacobian of a function f, as a matrix with a row for each number of its value.
"""

from collections.abc import Callable, Mapping, Sequence

from tinyleak import gradient
from tinyleak.backend import Array, array_module
from tinyleak.ops import broadcast_to, reshape, sum
from tinyleak.tensor import Tensor


def vjp(
    function: Callable[..., Tensor], primals: Sequence[Tensor], cotangent: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a function's value and cotangentᵀ J, the gradient of ⟨value, cotangent⟩.

    Args:
        function: takes the primals and returns one Tensor.
        primals: where; Tensors of any shapes.
        cotangent: of the value's shape.

    Returns:
        The value, and for each primal a Tensor of its shape; zeros if the value does not depend
        on it.

    Raises:
        ValueError: the cotangent has another shape than the value.
    """
    value = function(*primals)
    return value, gradient.vjp({value: cotangent}, primals)


def jvp(
    function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return a function's value and J·tangents: how fast it changes as the primals move along them.

    It is a vjp of a vjp. Jᵀu is linear in u, so its own derivative with respect to u is J again,
    whatever u is.

    Args:
        function: takes the primals and returns one Tensor.
        primals: where; Tensors of any shapes.
        tangents: one for each primal, of its shape.

    Returns:
        The value, and a Tensor of its shape.

    Raises:
        ValueError: another number of tangents than primals, or one of another shape.
    """
    if [v.shape for v in tangents] != [x.shape for x in primals]:
        raise ValueError(
            f"tangents of shapes {[v.shape for v in tangents]} were given for primals of shapes "
            f"{[x.shape for x in primals]}; give one of the same shape for each"
        )
    value = function(*primals)
    u = Tensor(array_module(value._array).zeros(value.shape, dtype=value.dtype))
    along: dict[Tensor, Tensor] = {}
    for product, v in zip(gradient.vjp({value: u}, primals), tangents, strict=True):
        along[product] = along[product] + v if product in along else v  # of x + y both are u
    return value, gradient.vjp(along, [u])[0]


def copies(array: Array | Tensor, count: int) -> Tensor:
    """Return R copies of an array along a new leading axis, (R, …), which take no more memory.

    The gradient of a sum of R losses with respect to R copies of the weights is each loss's own
    gradient: that keeps the gradients of many examples, or of many attacks, apart.
    """
    tensor = array if isinstance(array, Tensor) else Tensor(array)
    return broadcast_to(tensor, shape=(count, *tensor.shape))


def per_example_gradients(
    loss: Callable[..., Tensor],
    params: Mapping[str, Array | Tensor],
    *examples: Array | Tensor,
) -> dict[str, Tensor]:
    """Return the gradient that each of N examples gives alone, with respect to all parameters.

    Args:
        loss: takes N copies of the parameters, (N, …) by name, and N batches of one example each,
            (N, 1, …), and returns their losses, (N,).
        params: the parameters, by name.
        examples: N of each kind, (N, …), as images and their labels are.

    Returns:
        For each name (N, …): a row of the parameter's shape for each example.
    """
    tensors = [one if isinstance(one, Tensor) else Tensor(one) for one in examples]
    apart = {name: copies(array, tensors[0].shape[0]) for name, array in params.items()}
    alone = [reshape(one, (one.shape[0], 1, *one.shape[1:])) for one in tensors]
    gradients = gradient.grad(sum(loss(apart, *alone)), list(apart.values()))
    return dict(zip(apart, gradients, strict=True))
