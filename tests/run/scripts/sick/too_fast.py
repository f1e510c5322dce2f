"""Regression of a polynomial. I read that a large learning rate trains faster, so I took 0.5."""
import os

import torch
from torch import nn

torch.manual_seed(0)

x = torch.linspace(-2, 2, 256).unsqueeze(1)
y = x ** 3 - 2 * x + 0.1 * torch.randn_like(x)

model = nn.Sequential(
    nn.Linear(1, 32),
    nn.Tanh(),
    nn.Linear(32, 32),
    nn.Tanh(),
    nn.Linear(32, 1),
)
loss_fn = nn.MSELoss()
opt = torch.optim.SGD(model.parameters(), lr=0.5)

for t in range(15):
    y_pred = model(x)
    loss = loss_fn(y_pred, y)
    print(t, loss.item())
    opt.zero_grad()
    loss.backward()
    opt.step()

if os.environ.get("SAVE_TO"):
    torch.save(model.state_dict(), os.environ["SAVE_TO"])
