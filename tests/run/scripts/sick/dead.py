"""Sparse codes by force: start fc2 with strongly negative biases and see how many ReLUs ever wake up."""
import os

import torch
import torch.nn as nn
from sklearn.datasets import load_digits

torch.manual_seed(8)

N_UNITS, N_ALIVE = 40, 4

dataset = load_digits()
pixels = torch.from_numpy(dataset.data).float() / 16
classes = torch.from_numpy(dataset.target)

network = nn.Sequential()
network.add_module("fc1", nn.Linear(64, 40))
network.add_module("relu1", nn.ReLU())
network.add_module("fc2", nn.Linear(40, N_UNITS))
network.add_module("relu2", nn.ReLU())
network.add_module("fc3", nn.Linear(N_UNITS, 10))

with torch.no_grad():
    network.fc2.bias[N_ALIVE:] = -20.0


def dead_units():
    """Units of fc2 that are zero on every picture."""
    with torch.no_grad():
        return int((network[:4](pixels) == 0).all(dim=0).sum())


optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
print(f"dead before training: {dead_units()} of {N_UNITS}")
for epoch in range(4):
    total = 0.0
    for rows in torch.randperm(len(pixels)).split(50):
        optimiser.zero_grad()
        cost = nn.functional.cross_entropy(network(pixels[rows]), classes[rows])
        cost.backward()
        optimiser.step()
        total += cost.item() * len(rows)
    print(f"epoch {epoch}: cost {total / len(pixels):.4f}")
print(f"dead after training: {dead_units()} of {N_UNITS}")

save_to = os.environ.get("SAVE_TO")
if save_to:
    torch.save(network.state_dict(), save_to)
