"""A stand-in for CuPy, for tests on machines without a GPU: NumPy underneath, CuPy's rules above.

Import the module and use it as the array module: `strict_cupy.asarray(host_array)` gives an array
that `tinyleak.backend.array_module` traces back to this module. The arithmetic is NumPy's, but:

- only what the installed CuPy offers is offered, and only with the arguments CuPy takes (checked
  against CuPy itself where it is installed; it imports without a GPU);
- nothing converts to NumPy by itself, and a NumPy array is refused wherever CuPy's own is needed;
  Python and NumPy scalars are welcome, as they are in CuPy;
- every result is an array, also the 0-dimensional ones of which NumPy makes scalars;
- `empty` is filled with NaN, since what lies in fresh memory is nobody's business;
- `traffic` counts what costs time on a GPU: "to_device" and "to_host" (copies between the
  memories; `float(x)` and `bool(x)` are such copies), "synchronize" (other waiting), and what
  helps, "launch" (of a captured graph);
- streams, graphs, memory pools and kernels are those of `strict_cuda`, with CUDA's rules.

In places it is stricter than CuPy, where CuPy's leniency is slow or only documented by accident:
arrays are not iterated, not indexed with lists, ufuncs take no `where`, and there is no `random`.
"""

from __future__ import annotations

import functools as _functools
import inspect as _inspect
import sys as _sys
from types import ModuleType as _ModuleType
from types import SimpleNamespace as _SimpleNamespace

import numpy as _np
import strict_cuda as _strict_cuda

try:
    import cupy as _cupy
except ImportError:
    _cupy = None

# `array_module` looks the module up by the name of the array's class.
_sys.modules["strict_cupy"] = _sys.modules[__name__]

_run = _strict_cuda.run
RawKernel = _strict_cuda.RawKernel
cuda = _strict_cuda.cuda
traffic = _strict_cuda.traffic

knows_cupy = _cupy is not None
"""Whether names and arguments are checked against the real CuPy."""

_FROM_DATA = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}
_FROM_NOTHING = {
    *("arange", "empty", "eye", "full", "identity", "indices", "linspace", "logspace"),
    *("ones", "tri", "zeros"),
}
_ABOUT_TYPES = {"broadcast_shapes", "can_cast", "isscalar", "issubdtype", "promote_types"}
_ABOUT_TYPES |= {"result_type"}
# Their result's shape depends on the data, so the host waits for it.
_WAITING = {"argwhere", "extract", "flatnonzero", "nonzero", "unique"}
_JOINING = {"concatenate", "hstack", "stack", "vstack"}
_PYTHON_IN_NUMPY_ONLY = {"allclose", "array_equal", "array_equiv"}
_UFUNC_KEYWORDS = {"casting", "dtype", "out"}
_GUFUNC_KEYWORDS = {"axes", "axis", "casting", "dtype", "keepdims", "order", "out", "signature"}
_UFUNCS_WITH_AT = {"add", "subtract", "maximum", "minimum"}
_DTYPES_WITH_AT = {"float16", "float32", "float64", "int32", "uint32", "uint64"}


class ndarray:  # noqa: N801
    """An array on the pretended device; `_host` is where it really is."""

    __slots__ = ("__weakref__", "_host")
    __module__ = "strict_cupy"
    __hash__ = None
    __array_ufunc__ = None  # NumPy's functions of one such array raise a TypeError
    __array_priority__ = 100

    def __init__(self, shape, dtype=float):
        self._host = _poisoned(_np.empty(shape, dtype=dtype))

    # What needs no look at the data.

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: _new(self._host.T))
    mT = property(lambda self: _new(self._host.mT))  # noqa: N815
    real = property(lambda self: _new(self._host.real))
    imag = property(lambda self: _new(self._host.imag))

    def __len__(self):
        return len(self._host)

    # What moves data to the host.

    def get(self, stream=None, order="C", out=None, blocking=True):
        _strict_cuda.crossing("to_host", self.nbytes)
        if out is not None:
            _np.copyto(out, self._host)
            return out
        return self._host.copy(order)

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    # What CuPy, or this stand-in, refuses.

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} was called on an array of the device")

    def __iter__(self):
        raise TypeError("iterating over an array of the device waits for each element; index it")

    # Indexing.

    def __getitem__(self, key):
        return _new(_run("getitem", _np.ndarray.__getitem__, self._host, _host_key(key)))

    def __setitem__(self, key, value):
        host = self._host
        args = (host, _host_key(key), _to_numpy(value))
        _run("setitem", _np.ndarray.__setitem__, *args, writes=(host,))

    def __copy__(self):
        return _new(_run("copy", _np.ndarray.copy, self._host))

    def __deepcopy__(self, memo):
        return self.__copy__()


class _Function:
    """A function of NumPy that accepts what CuPy's function of that name accepts."""

    def __init__(self, function, twin, name):
        self.function = function
        self.twin = twin
        self.name = name

    def __repr__(self):
        return f"<strict cupy.{self.name}>"

    def __call__(self, *args, **kwargs):
        self._check(args, kwargs)
        if self.name in _WAITING or (self.name == "where" and len(args) == 1):
            _strict_cuda.waiting()
        if self.name in _JOINING and len(args[0]) > 8:
            _strict_cuda.crossing("to_device", 8 * len(args[0]))  # where they all lie
        if self.name in _FROM_DATA:
            return _from_data(self.name, self.function, *args, **kwargs)
        known = {}
        given = [_to_numpy(value, known) for value in args]
        named = {key: _to_numpy(value, known) for key, value in kwargs.items()}
        if not known and self.name not in _FROM_NOTHING | _ABOUT_TYPES:
            self._refuse_without_arrays()
        result = _run(self.name, self.function, *given, writes=self._written(given), **named)
        if self.name.startswith("empty"):
            result = _poisoned(result)
        if self.name in _PYTHON_IN_NUMPY_ONLY:
            result = _np.asarray(result)
        return _to_device(result, known)

    def _check(self, args, kwargs):
        if self.twin is not None:
            try:
                _inspect.signature(self.twin).bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"cupy.{self.name}: {error}") from None
            except ValueError:
                pass  # written in C, without a signature

    def _written(self, given):
        return given[:1] if self.name == "copyto" else ()

    def _refuse_without_arrays(self):
        raise TypeError(f"cupy.{self.name} needs an array of the device")


class _Ufunc(_Function):
    """An elementwise function, or (a generalised one) `matmul` and its like."""

    def _check(self, args, kwargs):
        allowed = _GUFUNC_KEYWORDS if self.function.signature else _UFUNC_KEYWORDS
        unknown = sorted(set(kwargs) - allowed)
        if unknown:
            raise TypeError(f"cupy.{self.name} takes no {', '.join(unknown)}")
        if len(args) not in (self.function.nin, self.function.nargs):
            raise TypeError(f"cupy.{self.name} was given {len(args)} positional arguments")
        if any(isinstance(value, list | tuple) for value in args):
            raise TypeError(f"cupy.{self.name} takes no lists")
        if self.function.signature and len(args) > self.function.nin:
            raise ValueError(f"cupy.{self.name} takes out by name alone")

    def _written(self, given):
        return given[self.function.nin :]

    def _refuse_without_arrays(self):
        pass  # a ufunc of scalars alone is right in CuPy

    def at(self, array, indices, values=None):
        if self.name not in _UFUNCS_WITH_AT or array.dtype.name not in _DTYPES_WITH_AT:
            raise TypeError(f"cupy.{self.name}.at does not work on {array.dtype}")
        operands = () if values is None else (_to_numpy(values),)
        host = _to_numpy(array)
        _run("at", self.function.at, host, _host_key(indices), *operands, writes=(host,))

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        known = {}
        target = _to_numpy(out, known)
        settings = {"axis": axis, "dtype": dtype, "out": target, "keepdims": keepdims}
        result = _run(self.name, self.function.reduce, _to_numpy(array), **settings)
        return _to_device(result, known)

    def outer(self, a, b):
        return _to_device(_run(self.name, self.function.outer, _to_numpy(a), _to_numpy(b)), {})


class _Submodule:
    """`linalg`, `lib.stride_tricks` and so on."""

    def __init__(self, home, twin, path):
        self._home = home
        self._twin = twin
        self._path = path

    def __getattr__(self, name):
        return _offer(self._home, self._twin, name, self._path)


def __getattr__(name):
    """Answer for every name that CuPy and NumPy share."""
    return _offer(_np, _cupy, name, "")


@_functools.cache
def _offer(home, twin, name, path):
    full = f"{path}{name}"
    if name.startswith("_") or full == "random":
        raise AttributeError(f"the stand-in for cupy offers no {full}")
    if twin is not None and not hasattr(twin, name):
        raise AttributeError(f"cupy {_cupy.__version__} has no {full}")
    if not hasattr(home, name):
        raise AttributeError(f"the stand-in for cupy offers no {full}")
    found = getattr(home, name)
    mate = getattr(twin, name, None)
    if isinstance(found, _ModuleType):
        return _Submodule(found, mate, f"{full}.")
    if isinstance(found, type) or not callable(found):
        return found  # a dtype or a constant, which the two libraries share
    if isinstance(found, _np.ufunc):
        return _Ufunc(found, mate, full)
    return _Function(found, mate, full)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """Copy an array to the host."""
    return a.get(order=order, out=out)


def _special():
    """`cupyx.scipy.special`, of which only `erf` is offered."""
    from scipy.special import erf  # noqa: PLC0415

    return _SimpleNamespace(erf=_Ufunc(erf, None, "erf"))


_sys.modules["strict_cupyx.scipy.special"] = _special()


def _new(host):
    """Wrap a host array, or a NumPy scalar, without copying."""
    made = ndarray.__new__(ndarray)
    made._host = host if isinstance(host, _np.ndarray) else _np.asarray(host)
    return made


def _from_data(name, function, data, *args, **kwargs):
    kwargs.pop("blocking", None)
    if isinstance(data, ndarray):
        result = _run(name, function, data._host, *args, **kwargs)
        return data if result is data._host else _new(result)
    _refuse_lists_of_arrays(data)
    # The device has a memory of its own: what the host then does to its array is not seen there.
    host = _np.array(function(data, *args, **kwargs))
    _strict_cuda.crossing("to_device", host.nbytes)
    return _new(host)


def _refuse_lists_of_arrays(data):
    if isinstance(data, list | tuple):
        for entry in data:
            _refuse_lists_of_arrays(entry)
    elif isinstance(data, ndarray):
        raise TypeError("a list of arrays was to be made an array; use stack or concatenate")


def _to_numpy(value, known=None):
    """Replace arrays of the device by their hosts, and refuse arrays of NumPy.

    `known` is filled with the arrays by the identity of their hosts, so that a function which
    returns one of its arguments (`out`) returns that very object.
    """
    if isinstance(value, ndarray):
        if known is not None:
            known[id(value._host)] = value
        return value._host
    if isinstance(value, _np.ndarray):
        raise TypeError(
            f"a NumPy array of shape {value.shape} was given to a function of the device; "
            "move it there first"
        )
    if isinstance(value, list | tuple):
        return type(value)([_to_numpy(entry, known) for entry in value])
    return value


def _to_device(result, known):
    """The reverse of `_to_numpy`, for what a function of NumPy returned."""
    if isinstance(result, _np.ndarray):
        return known[id(result)] if id(result) in known else _new(result)
    if isinstance(result, _np.generic):
        return _new(result)
    if isinstance(result, tuple):
        entries = [_to_device(entry, known) for entry in result]
        return type(result)(*entries) if hasattr(result, "_fields") else tuple(entries)
    if isinstance(result, list):
        return [_to_device(entry, known) for entry in result]
    return result


def _host_key(key):
    """An index for the host array that, unlike NumPy's, always leads to an array."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, list) for part in parts):
        raise TypeError("index with a slice, a number or an array of the device, not with a list")
    if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
        _strict_cuda.waiting()
    has_ellipsis = any(part is ... for part in parts)
    return tuple(_to_numpy(part) for part in parts) + (() if has_ellipsis else (...,))


def _poisoned(array):
    if array.dtype.kind == "f":
        array.fill(_np.nan)
    return array


_METHODS = {
    "all": {"axis", "keepdims", "out"},
    "any": {"axis", "keepdims", "out"},
    "argmax": {"axis", "dtype", "keepdims", "out"},
    "argmin": {"axis", "dtype", "keepdims", "out"},
    "argsort": {"axis"},
    "astype": {"casting", "copy", "dtype", "order"},
    "clip": {"max", "min", "out"},
    "conj": set(),
    "copy": {"order"},
    "cumsum": {"axis", "dtype", "out"},
    "diagonal": {"axis1", "axis2", "offset"},
    "dot": {"out"},
    "fill": set(),
    "flatten": {"order"},
    "max": {"axis", "keepdims", "out"},
    "mean": {"axis", "dtype", "keepdims", "out"},
    "min": {"axis", "keepdims", "out"},
    "prod": {"axis", "dtype", "keepdims", "out"},
    "ravel": {"order"},
    "repeat": {"axis"},
    "reshape": {"order"},
    "round": {"decimals", "out"},
    "squeeze": {"axis"},
    "std": {"axis", "ddof", "dtype", "keepdims", "out"},
    "sum": {"axis", "dtype", "keepdims", "out"},
    "swapaxes": set(),
    "take": {"axis", "out"},
    "trace": {"axis1", "axis2", "dtype", "offset", "out"},
    "transpose": set(),
    "var": {"axis", "ddof", "dtype", "keepdims", "out"},
    "view": {"dtype"},
}

_BINARY = {
    "add": "add",
    "and": "bitwise_and",
    "floordiv": "floor_divide",
    "matmul": "matmul",
    "mod": "remainder",
    "mul": "multiply",
    "or": "bitwise_or",
    "pow": "power",
    "sub": "subtract",
    "truediv": "true_divide",
    "xor": "bitwise_xor",
}
_COMPARISONS = {
    "eq": "equal",
    "ge": "greater_equal",
    "gt": "greater",
    "le": "less_equal",
    "lt": "less",
    "ne": "not_equal",
}
_UNARY = {"abs": "absolute", "invert": "invert", "neg": "negative", "pos": "positive"}


def _method(name, keywords):
    def method(self, *args, **kwargs):
        unknown = sorted(set(kwargs) - keywords)
        if unknown:
            raise TypeError(f"cupy.ndarray.{name} takes no {', '.join(unknown)}")
        known = {id(self._host): self}
        given = [_to_numpy(value, known) for value in args]
        named = {key: _to_numpy(value, known) for key, value in kwargs.items()}
        call = getattr(_np.ndarray, name)
        writes = (self._host,) if name == "fill" else ()
        return _to_device(_run(name, call, self._host, *given, writes=writes, **named), known)

    method.__name__ = name
    return method


def _operator(name, *, reflected=False, in_place=False):
    ufunc = _Ufunc(getattr(_np, name), None, name)

    def operator(self, other):
        operands = (other, self) if reflected else (self, other)
        if not isinstance(other, ndarray | _np.ndarray | _np.generic):
            # A class of its own, a Tensor for one, is asked through NumPy's protocol.
            asked = getattr(other, "__array_ufunc__", None)
            if asked is not None:
                return asked(getattr(_np, name), "__call__", *operands)
        return ufunc(*operands, out=self) if in_place else ufunc(*operands)

    return operator


def _unary(name):
    ufunc = _Ufunc(getattr(_np, name), None, name)

    def operator(self):
        return ufunc(self)

    return operator


for _name, _keywords in _METHODS.items():
    setattr(ndarray, _name, _method(_name, _keywords))
for _name, _function in (_BINARY | _COMPARISONS).items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
for _name, _function in _BINARY.items():
    setattr(ndarray, f"__r{_name}__", _operator(_function, reflected=True))
    setattr(ndarray, f"__i{_name}__", _operator(_function, in_place=True))
for _name, _function in _UNARY.items():
    setattr(ndarray, f"__{_name}__", _unary(_function))
