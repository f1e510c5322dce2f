"""My usual competition template: config class, micro-batches, clipping, cosine. Here on a toy table."""
import gc
import os
import time

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class CFG:
    seed = 2021
    n_rows = 1536
    n_num = 12           # numeric columns
    n_cat = 20           # levels of the one categorical column
    emb_dim = 6
    micro_batch = 16
    accum_steps = 4      # effective batch = 64
    max_grad_norm = 1.0
    lr = 1e-2
    min_lr = 1e-5
    n_epochs = 4
    print_freq = 48


def seed_everything(seed):
    os.environ['PYTHONHASHSEED'] = str(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_table():
    rng = np.random.RandomState(CFG.seed)
    num = rng.randn(CFG.n_rows, CFG.n_num).astype('float32')
    cat = rng.randint(0, CFG.n_cat, CFG.n_rows)
    level = rng.randn(CFG.n_cat)
    y = np.sin(num[:, 0]) + 0.5 * num[:, 1] * num[:, 2] + level[cat] + 0.1 * rng.randn(CFG.n_rows)
    return torch.from_numpy(num), torch.from_numpy(cat), torch.from_numpy(y.astype('float32'))


class TabularModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cat_emb = nn.Embedding(cfg.n_cat, cfg.emb_dim)
        self.bn_num = nn.BatchNorm1d(cfg.n_num)
        self.layers = nn.ModuleList()
        in_dim = cfg.n_num + cfg.emb_dim
        for out_dim in (64, 32):
            self.layers.append(nn.Sequential(nn.Linear(in_dim, out_dim), nn.SiLU()))
            in_dim = out_dim
        self.fc = nn.Linear(in_dim, 1)

    def forward(self, num, cat):
        x = torch.cat([self.bn_num(num), self.cat_emb(cat)], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x).view(-1)


def train_fn(train_loader, model, criterion, optimizer, scheduler, epoch):
    model.train()
    history, grad_norm, start = [], 0.0, time.time()
    optimizer.zero_grad()
    for step, (num, cat, y) in enumerate(train_loader):
        loss = criterion(model(num, cat), y)
        history.append(loss.item())
        (loss / CFG.accum_steps).backward()
        if (step + 1) % CFG.accum_steps == 0:
            grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CFG.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if (step + 1) % CFG.print_freq == 0:
            print(f'Epoch: [{epoch + 1}][{step + 1}/{len(train_loader)}] Elapsed {time.time() - start:.1f}s '
                  f'Loss: {np.mean(history[-CFG.print_freq:]):.4f} Grad: {grad_norm:.4f} '
                  f'LR: {scheduler.get_last_lr()[0]:.6f}')
    return np.mean(history)


def main_loop():
    seed_everything(CFG.seed)
    num, cat, y = make_table()
    n = 1280
    train_loader = DataLoader(TensorDataset(num[:n], cat[:n], y[:n]), batch_size=CFG.micro_batch, shuffle=True)

    model = TabularModel(CFG)
    criterion = nn.SmoothL1Loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=CFG.lr)
    total = CFG.n_epochs * len(train_loader) // CFG.accum_steps
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total, eta_min=CFG.min_lr)

    best_score = np.inf
    for epoch in range(CFG.n_epochs):
        avg_loss = train_fn(train_loader, model, criterion, optimizer, scheduler, epoch)
        model.eval()
        with torch.no_grad():
            preds = model(num[n:], cat[n:])
        score = (preds - y[n:]).pow(2).mean().sqrt().item()
        best_score = min(best_score, score)
        print(f'Epoch {epoch + 1} - avg_train_loss: {avg_loss:.4f}  RMSE: {score:.4f}  Best: {best_score:.4f}')

    if os.environ.get('SAVE_TO'):
        torch.save(model.state_dict(), os.environ['SAVE_TO'])
    del model
    gc.collect()


if __name__ == '__main__':
    main_loop()
