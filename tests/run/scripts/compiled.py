"""
Residual MLP, compiled. The backend comes from the environment:
$ COMPILE_BACKEND=inductor python compiled.py
the default, aot_eager, needs no C++ compiler.
"""
import os
import time

import torch
from torch import nn
from torch.nn import functional as F

# -----------------------------------------------------------------------------
n_blocks = 3
n_embd = 32
batch_size = 128
max_iters = 60
eval_interval = 20
learning_rate = 3e-3
compile = True
backend = os.environ.get('COMPILE_BACKEND', 'aot_eager')
# -----------------------------------------------------------------------------
torch.manual_seed(1337)


class Block(nn.Module):

    def __init__(self, n):
        super().__init__()
        self.ln = nn.LayerNorm(n)
        self.c_fc = nn.Linear(n, 2 * n)
        self.c_proj = nn.Linear(2 * n, n)

    def forward(self, x):
        return x + self.c_proj(F.gelu(self.c_fc(self.ln(x))))


class ResMLP(nn.Module):

    def __init__(self, n_in, n_out):
        super().__init__()
        self.stem = nn.Linear(n_in, n_embd)
        self.blocks = nn.ModuleList([Block(n_embd) for _ in range(n_blocks)])
        self.head = nn.Linear(n_embd, n_out)

    def forward(self, x, targets=None):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits = self.head(x)
        loss = None if targets is None else F.mse_loss(logits, targets)
        return logits, loss


# a random teacher to imitate
teacher = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)


def get_batch():
    x = torch.randn(batch_size, 8)
    return x, 3 * teacher(x)


model = ResMLP(8, 2)
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95))

if compile:
    print(f"compiling the model with {backend}... (takes a moment)")
    unoptimized_model = model
    model = torch.compile(model, backend=backend)

t0 = time.time()
for iter_num in range(max_iters + 1):
    X, Y = get_batch()
    logits, loss = model(X, Y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if iter_num % eval_interval == 0:
        t1 = time.time()
        print(f"iter {iter_num}: loss {loss.item():.4f}, time {(t1 - t0) * 1000:.0f}ms")
        t0 = t1

if os.environ.get('SAVE_TO'):
    torch.save(unoptimized_model.state_dict(), os.environ['SAVE_TO'])
