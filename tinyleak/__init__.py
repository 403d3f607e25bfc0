"""tinyleak: Deep Leakage from Gradients, from scratch.

An autograd engine of any order on NumPy or CuPy, and on it the attack that recovers training data
from the gradients a client shares (Zhu, Liu, Han, NeurIPS 2019).
"""

import os
import signal
import sys
from pathlib import Path

if Path("".join(sys.argv[:1])).name in ("-m", "tinyleak", "tinyleak.exe"):
    # This is the command. Ctrl-C while all below is imported is answered in a line, as it is later.
    def _stop(*_: object) -> None:
        os.write(2, b"tinyleak: interrupted before it was done\n")
        os._exit(1)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)

from tinyleak import data, metrics, nn, ops
from tinyleak.attacks import Attacker, Reconstruction, Settings, attack, attack_many
from tinyleak.check import check_gradients
from tinyleak.client import Client, Truth, share, simulate
from tinyleak.data.networks import load_network
from tinyleak.gradient import grad
from tinyleak.nn import MLP, LeNet, ResNet, cross_entropy, log_softmax, one_hot, softmax
from tinyleak.optim import lbfgs
from tinyleak.program import trace
from tinyleak.tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "LeNet",
    "Reconstruction",
    "ResNet",
    "Settings",
    "Tensor",
    "Client",
    "Truth",
    "simulate",
    "Attacker",
    "attack",
    "attack_many",
    "check_gradients",
    "cross_entropy",
    "data",
    "grad",
    "lbfgs",
    "load_network",
    "log_softmax",
    "metrics",
    "nn",
    "one_hot",
    "ops",
    "share",
    "softmax",
    "trace",
]
