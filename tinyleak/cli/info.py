"""`tinyleak info`: which versions and devices are there, and where data is kept."""

import argparse
import platform
from importlib.metadata import version

import numpy as np

from tinyleak import __version__
from tinyleak.backend import DeviceError, device_module
from tinyleak.cli.output import say
from tinyleak.data.files import cache_folder
from tinyleak.data.mnist import FILE_PREFIX, PUBLISHED

NAME = "info"
SUMMARY = "say which versions and devices are there, and where data is kept"

DEPENDENCIES = ("matplotlib", "pillow", "scipy", "pooch", "safetensors", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: there are none."""


def run(args: argparse.Namespace) -> int:
    """Print a line for each fact."""
    lines = {
        "tinyleak": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": f"{np.__version__}, BLAS {_blas()}",
        **{name: version(name) for name in DEPENDENCIES},
        "cpu": platform.processor() or platform.machine(),
        "cuda": _cuda(),
        "data cache": str(cache_folder()),
        "mnist": "in the cache" if _mnist_is_cached() else "not in the cache",
    }
    for name, text in lines.items():
        say(f"{name:<12}{text}")
    return 0


def _blas() -> str:
    config = np.show_config(mode="dicts") or {}
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _cuda() -> str:
    """Name the GPUs, or say why there is none."""
    try:
        cupy = device_module("cuda")
    except DeviceError as error:
        return f"not usable: {error}"
    runtime = cupy.cuda.runtime
    names = [
        runtime.getDeviceProperties(device)["name"].decode()
        for device in range(runtime.getDeviceCount())
    ]
    return f"CuPy {cupy.__version__}, {', '.join(names)}"


def _mnist_is_cached() -> bool:
    names = [name for name in PUBLISHED if name.startswith(FILE_PREFIX["test"])]
    return all((cache_folder() / f"{name}.gz").is_file() for name in names)
