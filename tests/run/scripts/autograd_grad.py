"""Gradient descent with momentum out of torch.autograd.grad, as for a lecture; no optimizer, no .grad."""
import os

import torch
from torch import nn

torch.manual_seed(3)
x = torch.rand(300, 2) * 4 - 2
y = (x[:, 0] * x[:, 1] > 0).long()

net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
params = list(net.parameters())
velocity = [torch.zeros_like(p) for p in params]

for epoch in range(60):
    order = torch.randperm(len(x))
    for i in range(0, len(x), 50):
        batch = order[i:i + 50]
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, v, g in zip(params, velocity, grads):
                v.mul_(0.9).add_(g)
                p.sub_(0.05 * v)

acc = (net(x).argmax(1) == y).float().mean().item()
print(f"loss {loss.item():.3f}  accuracy {acc:.2f}")

if save_to := os.getenv("SAVE_TO"): torch.save(net.state_dict(), save_to)
