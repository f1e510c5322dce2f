"""torch.func with an Adam of one's own over nested dicts, in the style of JAX."""
import os
import torch
from torch.func import grad_and_value

torch.manual_seed(0)


def init(sizes):
    return {f'layer{i}': {'w': torch.randn(a, b) / a ** 0.5, 'b': torch.zeros(b)} for i, (a, b) in enumerate(zip(sizes, sizes[1:]))}


def forward(params, x):
    for i, layer in enumerate(params.values()):
        x = x @ layer['w'] + layer['b']
        if i < len(params) - 1:
            x = torch.tanh(x)
    return x


def loss_fn(params, x, y):
    return ((forward(params, x) - y) ** 2).mean()


def adam(params, grads, m, v, t, lr=3e-3, b1=0.9, b2=0.999):
    new = [{}, {}, {}]
    for name in params:
        for tree in new:
            tree[name] = {}
        for k in params[name]:
            g = grads[name][k]
            new[1][name][k] = b1 * m[name][k] + (1 - b1) * g
            new[2][name][k] = b2 * v[name][k] + (1 - b2) * g * g
            mhat, vhat = new[1][name][k] / (1 - b1 ** t), new[2][name][k] / (1 - b2 ** t)
            new[0][name][k] = params[name][k] - lr * mhat / (vhat.sqrt() + 1e-8)
    return new


params = init([1, 32, 32, 1])
m = {n: {k: torch.zeros_like(p) for k, p in l.items()} for n, l in params.items()}
v = {n: {k: torch.zeros_like(p) for k, p in l.items()} for n, l in params.items()}
x = torch.linspace(-2, 2, 128)[:, None]
y = torch.sin(3 * x)
step_fn = grad_and_value(loss_fn)
for t in range(1, 201):
    grads, loss = step_fn(params, x, y)
    params, m, v = adam(params, grads, m, v, t)
print(f'step {t} loss {loss.item():.4f}')
if 'SAVE_TO' in os.environ:
    torch.save({f'{n}.{k}': p for n, l in params.items() for k, p in l.items()}, os.environ['SAVE_TO'])
