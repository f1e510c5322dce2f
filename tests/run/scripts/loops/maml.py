"""MAML on sine waves with torch.func: an inner step for each task under vmap, an optimizer outside."""
import math, os
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)


class Sine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(1, 40)
        self.fc2 = nn.Linear(40, 40)
        self.fc3 = nn.Linear(40, 1)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


model = Sine()
params = dict(model.named_parameters())
opt = torch.optim.Adam(params.values(), lr=1e-3)


def inner_loss(params, x, y):
    return ((functional_call(model, params, (x,)) - y) ** 2).mean()


def task_loss(x1, y1, x2, y2):
    grads = grad(inner_loss)(params, x1, y1)
    fast = {k: params[k] - 0.05 * g for k, g in grads.items()}
    return inner_loss(fast, x2, y2)


for it in range(200):
    amp, phase = 0.1 + 4.9 * torch.rand(10, 1, 1), math.pi * torch.rand(10, 1, 1)
    x1, x2 = torch.rand(2, 10, 10, 1) * 10 - 5
    losses = vmap(task_loss)(x1, amp * torch.sin(x1 + phase), x2, amp * torch.sin(x2 + phase))
    loss = losses.mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print(f'{it + 1} meta-steps, loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ: torch.save(model.state_dict(), os.environ['SAVE_TO'])
