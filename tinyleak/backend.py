"""Which array library owns the data: NumPy on the CPU, CuPy on a GPU.

This is the only file that imports CuPy. The rest of the package asks an array for its module
and calls that module, so one line of code runs on either device.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""An array of the module in use. CuPy's arrays have the same interface, so NumPy's type serves."""


class DeviceError(ValueError):
    """A device that was asked for is unknown, or is missing."""


def array_module(*arrays: object) -> Any:
    """Return the module that owns the arrays: `numpy`, or `cupy` if they live on a GPU.

    Raises:
        TypeError: the arrays live on different devices.
    """
    for array in arrays:
        if type(array) is not np.ndarray:
            break
    else:
        return np  # nearly always, and at once
    modules = {owner(array) for array in arrays}
    if len(modules) == 1:
        return modules.pop()
    names = ", ".join(sorted(module.__name__ for module in modules))
    raise TypeError(
        f"arrays of {names} were mixed in one operation; move them to one device first "
        "(tinyleak.backend.to_device)"
    )


def owner(array: object) -> ModuleType:
    """Return the module that a value comes from; of a number or a list it is `builtins`."""
    if isinstance(array, np.ndarray | np.generic):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def device_module(device: str) -> Any:
    """Return the array module of a device: `"cpu"` is NumPy, `"cuda"` is CuPy.

    Raises:
        DeviceError: an unknown name; `"cuda"` without CuPy; CuPy without a GPU that answers.
    """
    if device == "cpu":
        return np
    if device != "cuda":
        raise DeviceError(f'device {device!r} is unknown; choose "cpu" or "cuda"')
    try:
        import cupy
    except ImportError:
        cure = "install tinyleak[cuda], or use --device cpu"
        raise DeviceError(f'device "cuda" needs CuPy, which is not installed; {cure}') from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count == 0:
        found = f"CuPy {cupy.__version__} finds none; check the driver, or use --device cpu"
        raise DeviceError(f'device "cuda" needs an NVIDIA GPU, and {found}')
    return cupy


def to_device(array: Any, module: Any) -> Array:
    """Return the array as one of `module`, copying only if it lives elsewhere."""
    if owner(array) is module:
        return module.asarray(array)
    return module.asarray(to_numpy(array))


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """Return the array in the computer's main memory, copying only from a GPU."""
    if isinstance(array, np.ndarray | np.generic):
        return np.asarray(array)
    return array.get()


def error_function(module: Any) -> Callable[..., Array]:
    """Return `erf(array)`, which SciPy has for NumPy and CuPy keeps beside its module."""
    home = "scipy" if module is np else f"{module.__name__}x.scipy"
    return import_module(f"{home}.special").erf
