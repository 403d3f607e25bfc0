"""What leaks from a real federated run: a Flower server that keeps what it is sent.

    python benchmarks/flower.py          three rounds of each kind of local training
    python benchmarks/flower.py --quick  three rounds of one kind

A SuperLink, its server, and two SuperNodes, each with a client that trains in PyTorch, are
processes of their own, and speak over the loopback interface. `flower_app.py` is what they run.
The attacker has the weights that were sent and received, in float32, and knows how clients train
(the learning rate, how many images, mini-batches and epochs), as a server does that configures
them; not the images, their labels, or their order. Where there are mini-batches, the labels that
the change of the last layer's bias tells are tried in every one of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from timing import environment, table

# isort: split
# What follows imports NumPy, which `timing` has told to keep to one thread.
import numpy as np
import numpy.typing as npt

from tinyleak.attacks import Reconstruction, Settings, attack
from tinyleak.client import RECOVERED_MSE, Client
from tinyleak.metrics import matched_mse

APP = Path(__file__).with_name("flower_app.py")
RATE, ITERATIONS, SECONDS = 0.1, 1000, 300
TRAINING: dict[str, dict[str, Any]] = {
    "one step with one image": {"images": 1, "batch": 1, "epochs": 1, "momentum": 0.0},
    "five steps with one image": {"images": 1, "batch": 1, "epochs": 5, "momentum": 0.0},
    "five steps with momentum": {"images": 1, "batch": 1, "epochs": 5, "momentum": 0.9},
    "one step with four images": {"images": 4, "batch": 4, "epochs": 1, "momentum": 0.0},
    "two mini-batches of two": {"images": 4, "batch": 2, "epochs": 1, "momentum": 0.0},
    "the same, three epochs": {"images": 4, "batch": 2, "epochs": 3, "momentum": 0.0},
}
KINDS = {"mlp": list(TRAINING), "lenet": list(TRAINING)[:4]}
PROJECT = """
[project]
name = "listening"
version = "1.0.0"
description = "Federated averaging whose server keeps what it is sent"
license = "MIT"
[tool.flwr.app]
publisher = "tinyleak"
[tool.flwr.app.components]
serverapp = "flower_app:server"
clientapp = "flower_app:client"
[tool.flwr.app.config]
network = "mlp"
folder = "."
images = 1
batch = 1
epochs = 1
momentum = 0.0
rate = 0.1
"""
CONNECTION = """
[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
"""


@contextmanager
def federation(home: Path) -> Iterator[dict[str, str]]:
    """Run a SuperLink and two SuperNodes; hand over the environment in which they are found."""
    binaries = Path(sys.executable).parent
    path = os.pathsep.join([str(binaries), os.environ.get("PATH", "")])
    known = {"PATH": path, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}
    own = {**os.environ, **known}
    ports = free_ports(3)
    (home / "config.toml").write_text(CONNECTION.format(port=ports[0]))
    link = ["flower-superlink", "--disable-runtime-dependency-installation"]
    commands = [[*link, "--port", str(ports[0])]]
    for number, port in enumerate(ports[1:]):
        node = ["flower-supernode", "--superlink", f"127.0.0.1:{ports[0]}", "--port", str(port)]
        commands.append([*node, "--node-config", f"partition-id={number}"])
    with ExitStack() as stack:
        for command, port in zip(commands, ports, strict=True):
            log = stack.enter_context((home / f"{port}.log").open("w"))
            words = [str(binaries / command[0]), "--insecure", *command[1:]]
            process = subprocess.Popen(words, env=own, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            until_open(port)
        yield own


def free_ports(many: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(many)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until_open(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(10 * SECONDS):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on port {port}")


def run_rounds(app: Path, folder: Path, known: dict[str, str], **said: Any) -> None:
    """Have Flower run three rounds of an app, and its server keep what it is sent in a folder."""
    said |= {"folder": str(folder), "rate": RATE}
    config = " ".join(f"{k}={v!r}".replace("'", '"') for k, v in said.items())
    command = ["flwr", "run", str(app), "here", "--stream", "--run-config", config]
    command[0] = str(Path(sys.executable).parent / "flwr")
    done = subprocess.run(
        command, env=known, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if len(list(folder.glob("*.npz"))) < 2:
        sys.exit(f"Flower ended without clients' answers:\n{done.stdout}{done.stderr}")


class Leak(NamedTuple):
    """What one client's answer gave away: the error of each image, the verdict, and seconds."""

    errors: npt.NDArray[np.float64]
    verdict: str
    seconds: float


def attacked(sent: Path, received: Path, network: str, said: dict[str, Any]) -> Leak:
    """Attack one client's answer."""
    told = {"epochs": said["epochs"], "local_batch": said["batch"], "momentum": said["momentum"]}
    client = Client.from_files(
        sent,
        weights_after=received,
        model=network,
        activation="sigmoid",
        batch=said["images"],
        learning_rate=RATE,
        **told,
    )
    began = time.process_time()
    settings = Settings(iterations=ITERATIONS)
    found: list[Reconstruction] = []
    if said["batch"] == said["images"]:
        found.append(attack(client, labels="trusted", method="auto", settings=settings))
    else:
        for labels in orders(client.labels.labels.tolist(), said["batch"]):
            found.append(attack(client, labels=labels, method="lbfgs", settings=settings))
            if client.explain(found[-1]).succeeded:
                break
    best = min(found, key=lambda one: one.distance)
    truth = np.load(received.with_suffix(".npz"))
    errors = matched_mse(best.images, truth["images"])
    return Leak(errors, client.explain(best).verdict, time.process_time() - began)


def row_of(leaks: list[Leak]) -> list[str]:
    """Return how the attacks on several answers went, as the cells of a row."""
    errors = np.concatenate([leak.errors for leak in leaks])
    verdicts = Counter(leak.verdict for leak in leaks)
    said = ", ".join(f"{many} {verdict}" for verdict, many in verdicts.items())
    back = f"{int((errors < RECOVERED_MSE).sum())} of {len(errors)}"
    seconds = median(leak.seconds for leak in leaks)
    return [back, f"{np.median(errors):.0e}", f"{errors.max():.0e}", said, f"{seconds:.0f} s"]


def orders(labels: list[int], batch: int) -> list[list[int]]:
    """Return every way to put labels into mini-batches; within one their order does not matter."""
    found = set()
    for order in permutations(labels):
        parts = [tuple(sorted(order[at : at + batch])) for at in range(0, len(order), batch)]
        found.add(tuple(parts))
    return [[label for part in parts for label in part] for parts in sorted(found)]


def main() -> None:
    """Run Flower, attack what its server has, and print a row for each client and round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one kind of training")
    quick = parser.parse_args().quick
    kinds = [(network, kind) for network, some in KINDS.items() for kind in some]
    kinds = kinds[:1] if quick else kinds
    print(environment(), end="\n\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        app, home = Path(place, "app"), Path(place, "home")
        app.mkdir()
        home.mkdir()
        (app / "pyproject.toml").write_text(PROJECT)
        shutil.copy(APP, app)
        with federation(home) as known:
            for number, (network, kind) in enumerate(kinds):
                folder = Path(place, str(number))
                folder.mkdir()
                run_rounds(app, folder, known, network=network, **TRAINING[kind])
                answers = [one.with_suffix(".safetensors") for one in sorted(folder.glob("*.npz"))]
                leaks = [
                    attacked(folder / f"{turn}-sent.safetensors", answer, network, TRAINING[kind])
                    for answer in answers
                    for turn in [answer.name.partition("-")[0]]
                ]
                rows.append([network, kind, str(len(answers)), *row_of(leaks)])
                print(*rows[-1], sep=" | ", flush=True)
    header = ["network", "local training", "answers", "images back", "median MSE", "largest"]
    print(f"\n{table([*header, 'verdicts', 'attack'], rows)}")


if __name__ == "__main__":
    main()
