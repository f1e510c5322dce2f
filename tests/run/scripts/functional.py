"""A functional training loop: torch.func all the way, parameters are a dict that is made anew at each step."""
import os

import torch
from torch import nn
from torch.func import functional_call, grad_and_value

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(1, 32)
        self.mid = nn.Linear(32, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, t):
        return self.out(torch.tanh(self.mid(torch.tanh(self.inp(t)))))


net = Net()
t = torch.linspace(-3, 3, 120)[:, None]
target = torch.sin(2 * t)


def compute_loss(params, t, target):
    return nn.functional.mse_loss(functional_call(net, params, (t,)), target)


params = {k: v.detach() for k, v in net.named_parameters()}
step_fn = grad_and_value(compute_loss)
for step in range(400):
    grads, loss = step_fn(params, t, target)
    params = {k: params[k] - 0.05 * grads[k] for k in params}
    if step % 100 == 0: print(f"step {step} loss {loss.item():.4f}")

print(f"final loss {compute_loss(params, t, target).item():.3f}")

if save_to := os.getenv("SAVE_TO"): torch.save(params, save_to)
