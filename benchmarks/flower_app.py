"""The Flower app that `flower.py` runs: federated averaging, and a server that listens.

A client trains in PyTorch as Flower's tutorials do. `Listening` is all that a server needs to keep
what it is sent; nothing that a client does tells it apart from any other strategy.
"""

from __future__ import annotations

from contextlib import chdir

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import save_file
from torch import nn

from tinyleak import data

ROUNDS = 3


class Listening(FedAvg):
    """Federated averaging whose server keeps what it is sent."""

    def configure_train(self, server_round, arrays, config, grid):
        save_file(arrays.to_torch_state_dict(), f"{server_round}-sent.safetensors")
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for reply in replies:
            weights = reply.content["arrays"].to_torch_state_dict()
            save_file(weights, f"{server_round}-{reply.metadata.src_node_id}.safetensors")
        return super().aggregate_train(server_round, replies)


server = ServerApp()
client = ClientApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """Run the rounds, in the folder that is to have the files."""
    torch.manual_seed(0)
    first = ArrayRecord(network(context.run_config["network"]).state_dict())
    with chdir(context.run_config["folder"]):
        Listening(fraction_evaluate=0.0).start(grid, first, num_rounds=ROUNDS)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train on images of its own, other ones each round, and send the weights back."""
    said = context.run_config
    net = network(said["network"])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    turn = message.content["config"]["server-round"]
    rng = np.random.default_rng([turn, context.node_config["partition-id"]])
    digits = data.load("glyphs")
    images, labels = digits.batch(rng.permutation(len(digits))[: said["images"]])
    held = torch.utils.data.TensorDataset(torch.tensor(images).float(), torch.tensor(labels))
    loader = torch.utils.data.DataLoader(held, said["batch"], shuffle=True)
    optimiser = torch.optim.SGD(net.parameters(), said["rate"], said["momentum"])
    for _ in range(said["epochs"]):
        for some, theirs in loader:
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(some), theirs).backward()
            optimiser.step()
    # What a client would keep to itself: how the attack is judged.
    np.savez(f"{said['folder']}/{turn}-{context.node_id}.npz", images=images, labels=labels)
    counted = MetricRecord({"num-examples": len(images)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": counted})
    return Message(content=content, reply_to=message)


def network(name: str) -> nn.Module:
    """Return a perceptron, or the paper's LeNet, with PyTorch's default weights."""
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Sigmoid(), nn.Linear(64, 10))
    layers: list[nn.Module] = []
    for channels, stride in ((1, 2), (12, 2), (12, 1)):
        layers += [nn.Conv2d(channels, 12, 5, stride, padding=2), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(588, 10))
