"""Going deep: ten sigmoid layers must be better than one... (help wanted: accuracy stays at 10 %)"""
import os

import torch
import torch.nn as nn
from sklearn.datasets import load_digits

torch.manual_seed(5)

X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16, dtype=torch.float32)
y = torch.tensor(y)


class DeepNet(nn.Module):
    def __init__(self, n_hidden_layers=10, width=30):
        super().__init__()
        sizes = [64] + [width] * n_hidden_layers
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:])])
        self.output = nn.Linear(width, 10)
        self.act = nn.Sigmoid()
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.1)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.output(x)


model = DeepNet()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for epoch in range(5):
    perm = torch.randperm(len(X))
    epoch_loss = 0.0
    for idx in perm.split(64):
        optimizer.zero_grad()
        loss = loss_fn(model(X[idx]), y[idx])
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item() * len(idx)
    with torch.no_grad():
        acc = (model(X).argmax(1) == y).float().mean().item()
    print(f"Epoch {epoch}: loss={epoch_loss / len(X):.4f} acc={acc:.3f}")

if os.environ.get("SAVE_TO"):
    torch.save(model.state_dict(), os.environ["SAVE_TO"])
