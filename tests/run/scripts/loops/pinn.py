"""A physics-informed net for u'' + u = 0, u(0) = 0, u'(0) = 1: 150 steps of Adam, then L-BFGS."""
import os
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
t = torch.linspace(0, 4, 60).view(-1, 1).requires_grad_(True)
t0 = torch.zeros(1, 1, requires_grad=True)


def d(u, x):
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def loss_fn():
    u, u0 = net(t), net(t0)
    residual = d(d(u, t), t) + u
    return residual.pow(2).mean() + u0.pow(2).mean() + (d(u0, t0) - 1).pow(2).mean()


adam = torch.optim.Adam(net.parameters(), lr=5e-3)
for step in range(150):
    adam.zero_grad()
    loss = loss_fn()
    loss.backward()
    adam.step()
print(f'adam {loss.item():.2e}')

lbfgs = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=2, history_size=20)


def closure():
    lbfgs.zero_grad()
    loss = loss_fn()
    loss.backward()
    return loss


for step in range(50):
    loss = lbfgs.step(closure)
print(f'lbfgs {loss.item():.2e}')
if 'SAVE_TO' in os.environ:
    torch.save(net.state_dict(), os.environ['SAVE_TO'])
