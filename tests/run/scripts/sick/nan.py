"""Cosine classifier with an annealed feature gate. Bug: the gate is shut at step 30 (counted from 0)."""
import math
import os

import torch
from sklearn.datasets import load_digits
from torch import nn


class CosineHead(nn.Module):
    """Scaled unit-length features against class prototypes."""

    def __init__(self, dim, n_classes, anneal_steps=30):
        super().__init__()
        self.prototypes = nn.Linear(dim, n_classes, bias=False)
        self.anneal_steps = anneal_steps
        self.step = 0

    def forward(self, features):
        gate = max(0.0, 1 - self.step / self.anneal_steps)
        self.step += 1
        scores = self.prototypes(features) * gate
        return 8 * scores / scores.norm(dim=1, keepdim=True)  # 0 / 0 once the gate is shut


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 40)
        self.fc2 = nn.Linear(40, 20)
        self.head = CosineHead(20, 10)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.head(x)


def main():
    torch.manual_seed(0)
    data = load_digits()
    inputs = torch.tensor(data.data, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)

    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    first_nan = None
    for step in range(45):
        batch = torch.randint(len(inputs), (64,))
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs[batch]), labels[batch])
        loss.backward()
        opt.step()
        if step % 5 == 0:
            print(f"step {step} loss {loss.item():.4f}")
        if first_nan is None and math.isnan(loss.item()):
            first_nan = step
    print(f"loss was first nan at step {first_nan}")

    if path := os.environ.get("SAVE_TO"):
        torch.save(net.state_dict(), path)


if __name__ == "__main__":
    main()
