"""A two-layer transformer encoder reads a digit row by row, in bfloat16 mixed precision."""
import math
import os

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED, D_MODEL, N_HEAD, N_LAYERS = 2023, 32, 4, 2
BATCH, STEPS, WARMUP, PEAK_LR = 64, 120, 12, 4e-3


class RowTransformer(nn.Module):
    def __init__(self, n_classes=10):
        super().__init__()
        self.embed = nn.Linear(8, D_MODEL)
        self.cls = nn.Parameter(torch.zeros(1, 1, D_MODEL))
        self.pos = nn.Parameter(torch.randn(1, 9, D_MODEL) * 0.02)
        layer = nn.TransformerEncoderLayer(
            D_MODEL, N_HEAD, dim_feedforward=2 * D_MODEL, dropout=0.1, activation="gelu",
            batch_first=True, norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, N_LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(D_MODEL)
        self.classifier = nn.Linear(D_MODEL, n_classes)

    def forward(self, rows):  # rows: (batch, 8, 8)
        tokens = torch.cat([self.cls.expand(len(rows), -1, -1), self.embed(rows)], dim=1)
        encoded = self.encoder(tokens + self.pos)
        return self.classifier(self.norm(encoded[:, 0]))


def lr_at(step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def param_groups(model, weight_decay=0.05):
    decay = [p for p in model.parameters() if p.ndim == 2]
    no_decay = [p for p in model.parameters() if p.ndim != 2]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]


def run():
    torch.manual_seed(SEED)
    X, y = load_digits(return_X_y=True)
    X_tr, X_te, y_tr, y_te = train_test_split(X.reshape(-1, 8, 8) / 16, y, test_size=360, random_state=SEED)
    X_tr, X_te = (torch.tensor(a, dtype=torch.float32) for a in (X_tr, X_te))
    y_tr, y_te = torch.tensor(y_tr), torch.tensor(y_te)

    model = RowTransformer()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    optim = torch.optim.AdamW(param_groups(model), lr=PEAK_LR, betas=(0.9, 0.98))
    sched = torch.optim.lr_scheduler.LambdaLR(optim, lr_at)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)

    model.train()
    for step in range(STEPS):
        idx = torch.randint(len(X_tr), (BATCH,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(X_tr[idx])
            loss = loss_fn(logits, y_tr[idx])
        loss.backward()
        optim.step()
        sched.step()
        optim.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}  lr {sched.get_last_lr()[0]:.2e}  logits {logits.dtype}")

    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        acc = (model(X_te).argmax(-1) == y_te).float().mean().item()
    print(f"test acc {acc:.3f}")
    return model


if __name__ == "__main__":
    trained = run()
    if out := os.environ.get("SAVE_TO"):
        torch.save({n: p.detach().clone() for n, p in trained.named_parameters()}, out)
