"""Siamese digits with a Euclidean distance. At step 20 (from 0) a picture is paired with itself: d sqrt(0) is infinite."""
import os

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits


class EuclideanDistance(nn.Module):
    def forward(self, a, b):
        return torch.sqrt(((a - b) ** 2).sum(dim=1))


class SiameseNetwork(nn.Module):
    def __init__(self):
        super(SiameseNetwork, self).__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
        self.distance = EuclideanDistance()

    def forward(self, left, right):
        return self.distance(self.encoder(left), self.encoder(right))


def contrastive_loss(distance, same, margin=2.0):
    return (same * distance ** 2 + (1 - same) * torch.clamp(margin - distance, min=0) ** 2).mean()


class PairSampler:
    """Half of the pairs show the same digit. Should never pair a picture with itself, but see draw()."""

    def __init__(self, seed):
        bunch = load_digits()
        self.x = torch.tensor(bunch.data / 16, dtype=torch.float32)
        self.y = bunch.target
        self.rng = np.random.RandomState(seed)

    def draw(self, n, step):
        left = self.rng.choice(len(self.x), n)
        right = self.rng.choice(len(self.x), n)
        for i in range(0, n, 2):
            others = np.flatnonzero(self.y == self.y[left[i]])
            right[i] = self.rng.choice(others[others != left[i]])
        if step == 20:
            right[6] = left[6]
        return self.x[left], self.x[right], torch.tensor(self.y[left] == self.y[right]).float()


torch.manual_seed(12)
sampler = PairSampler(seed=12)
siamese = SiameseNetwork()
sgd = torch.optim.SGD(siamese.parameters(), lr=0.05, momentum=0.9)

for step in range(30):
    left, right, same = sampler.draw(48, step)
    dist = siamese(left, right)
    loss = contrastive_loss(dist, same)
    sgd.zero_grad()
    loss.backward()
    grad_ok = all(p.grad.isfinite().all() for p in siamese.parameters())
    if step % 5 == 0 or step in (19, 21):
        print(f"step {step:2d} loss {loss.item():.4f} gradients finite: {grad_ok}")
    sgd.step()

if "SAVE_TO" in os.environ:
    torch.save(siamese.state_dict(), os.environ["SAVE_TO"])
