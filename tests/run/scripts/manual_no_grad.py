"""Lesson 3: what is an optimizer? We write gradient descent ourselves, on two moons."""
import os

import torch
from sklearn.datasets import make_moons
from torch import nn, tensor

lr, bs, epochs = 0.5, 50, 20

torch.manual_seed(1)
x_train, y_train = map(tensor, make_moons(400, noise=0.1, random_state=1))
x_train = x_train.float()


class Model(nn.Module):
    def __init__(self, n_in, nh, n_out):
        super().__init__()
        self.layers = [nn.Linear(n_in, nh), nn.Tanh(), nn.Linear(nh, nh), nn.Tanh(), nn.Linear(nh, n_out)]
        # a plain list is not seen by parameters(), so register by hand
        for i, l in enumerate(self.layers): self.add_module(f'layer_{i}', l)

    def __call__(self, x):
        for l in self.layers: x = l(x)
        return x


def accuracy(out, yb): return (out.argmax(dim=1) == yb).float().mean()


model = Model(2, 24, 2)
loss_func = nn.functional.cross_entropy


def fit():
    for epoch in range(epochs):
        for i in range(0, len(x_train), bs):
            s = slice(i, min(len(x_train), i + bs))
            xb, yb = x_train[s], y_train[s]
            preds = model(xb)
            loss = loss_func(preds, yb)
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= lr * p.grad
                    p.grad = None
        if epoch % 4 == 0: print(f'{epoch:2d} {loss.item():.3f} {accuracy(preds, yb).item():.2f}')


fit()
print(f'train accuracy {accuracy(model(x_train), y_train).item():.3f}')

if save_to := os.getenv('SAVE_TO'): torch.save({n: p.data for n, p in model.named_parameters()}, save_to)
