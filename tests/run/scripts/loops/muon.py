"""Muon for the matrices, AdamW for the rest: two optimizers that step together."""
import os
import torch
from torch import nn

torch.manual_seed(0)


def zeropower(G, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G / (G.norm() + 1e-7)
    transposed = G.size(0) > G.size(1)
    if transposed:
        X = X.T
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if transposed else X


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group['params']:
                state = self.state[p]
                if 'momentum_buffer' not in state:
                    state['momentum_buffer'] = torch.zeros_like(p.grad)
                buf = state['momentum_buffer']
                buf.mul_(group['momentum']).add_(p.grad)
                update = zeropower(p.grad.add(buf, alpha=group['momentum']))
                p.add_(update, alpha=-group['lr'] * max(1, p.size(0) / p.size(1)) ** 0.5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(32, 24)
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48, bias=False), nn.GELU(), nn.Linear(48, 24, bias=False)) for _ in range(3)])
        self.head = nn.Linear(24, 32)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


net = Net()
hidden = [p for p in net.blocks.parameters() if p.ndim == 2]
ids = {id(p) for p in hidden}
optimizers = [Muon(hidden, lr=0.002), torch.optim.AdamW([p for p in net.parameters() if id(p) not in ids], lr=1e-3)]
for step in range(200):
    x = torch.randint(32, (64,))
    loss = nn.functional.cross_entropy(net(x), (x * 7 + 3) % 32)
    loss.backward()
    for opt in optimizers:
        opt.step()
    for opt in optimizers:
        opt.zero_grad()
print(f'step:{step + 1} train_loss:{loss.item():.4f}')
if 'SAVE_TO' in os.environ:
    torch.save(net.state_dict(), os.environ['SAVE_TO'])
