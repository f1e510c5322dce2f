"""Fine-tuning a "pretrained" digits net, hurriedly: three of the five layers will never move.

stem: requires_grad=False, on purpose. body: runs under no_grad (left over from debugging).
adapter: forgotten when the optimizer was made. neck, classifier: these do train.
"""
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class FineTuned(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 48)
        self.body = nn.Linear(48, 48)
        self.adapter = nn.Linear(48, 48)
        self.neck = nn.Linear(48, 32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        with torch.no_grad():
            context = F.relu(self.body(x))
        x = x + context + F.relu(self.adapter(x))
        x = F.relu(self.neck(x))
        return self.classifier(x)


def get_model():
    torch.manual_seed(77)
    model = FineTuned()
    for param in model.stem.parameters():
        param.requires_grad = False
    return model


def get_optimizer(model):
    return torch.optim.Adam(
        [
            {"params": model.body.parameters(), "lr": 1e-3},
            {"params": model.neck.parameters()},
            {"params": model.classifier.parameters(), "lr": 1e-2},
        ],
        lr=5e-3,
    )


def main():
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
    model = get_model()
    optimizer = get_optimizer(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for epoch in range(4):
        losses = []
        for xb, yb in zip(X.split(100), y.split(100)):
            loss = F.cross_entropy(model(xb), yb)
            model.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"[{epoch}] loss {sum(losses) / len(losses):.3f}")
    after = model.state_dict()
    print("unchanged:", " ".join(k for k in before if torch.equal(before[k], after[k])))
    if os.environ.get("SAVE_TO"):
        torch.save(after, os.environ["SAVE_TO"])


if __name__ == "__main__":
    main()
