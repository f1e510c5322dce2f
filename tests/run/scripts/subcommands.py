#!/usr/bin/env python
"""Digit recogniser for the impatient.

usage:  python subcommands.py train --epochs 2 --checkpoint digits.pt
        python subcommands.py eval --checkpoint digits.pt
"""
import argparse
import os
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class MLP(nn.Module):
    """Sigmoid gate on a relu trunk; activations are plain functions."""

    def __init__(self, n_in=64, n_hid=64, n_out=10):
        super(MLP, self).__init__()
        self.trunk1 = nn.Linear(n_in, n_hid)
        self.trunk2 = nn.Linear(n_hid, n_hid)
        self.gate = nn.Linear(n_in, n_hid)
        self.out = nn.Linear(n_hid, n_out)

    def forward(self, x):
        h = F.relu(self.trunk1(x))
        h = F.relu(self.trunk2(h))
        g = torch.sigmoid(self.gate(x))
        h = F.dropout(h * g, p=0.1, training=self.training)
        return F.log_softmax(self.out(h), dim=-1)


def batches(x, y, size, generator=None):
    order = torch.randperm(len(x), generator=generator) if generator is not None else torch.arange(len(x))
    for idx in order.split(size):
        yield x[idx], y[idx]


def get_data(split):
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x).float().div_(16), torch.from_numpy(y).long()
    return (x[:-400], y[:-400]) if split == "train" else (x[-400:], y[-400:])


def evaluate(model, x, y):
    model.eval()
    hits, nll = 0, 0.0
    with torch.no_grad():
        for xb, yb in batches(x, y, 100):
            logp = model(xb)
            nll += F.nll_loss(logp, yb, reduction="sum").item()
            hits += logp.argmax(-1).eq(yb).sum().item()
    return nll / len(x), hits / len(x)


def cmd_train(args):
    torch.manual_seed(args.seed)
    model = MLP(n_hid=args.hidden)
    opt = torch.optim.Adam(model.parameters(), lr=args.lr)
    x, y = get_data("train")
    gen = torch.Generator().manual_seed(args.seed)
    for ep in range(args.epochs):
        model.train()
        tot = 0.0
        for xb, yb in batches(x, y, args.batch_size, gen):
            loss = F.nll_loss(model(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            tot += loss.item() * len(xb)
        nll, acc = evaluate(model, *get_data("eval"))
        print("epoch %d  train %.4f  eval %.4f  acc %.2f%%" % (ep, tot / len(x), nll, 100 * acc))
    if args.checkpoint:
        torch.save(model.state_dict(), args.checkpoint)
        print("saved to", args.checkpoint)
    return 0


def cmd_eval(args):
    if not args.checkpoint:
        print("eval needs --checkpoint", file=sys.stderr)
        return 2
    state = torch.load(args.checkpoint, weights_only=True)
    model = MLP(n_hid=state["trunk1.weight"].shape[0])
    model.load_state_dict(state)
    nll, acc = evaluate(model, *get_data("eval"))
    print("eval %.4f  acc %.2f%%" % (nll, 100 * acc))
    return 0


def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="command", required=True)

    p = sub.add_parser("train", help="fit the network")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--batch-size", type=int, default=50)
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--checkpoint", default=os.environ.get("SAVE_TO"))
    p.set_defaults(func=cmd_train)

    p = sub.add_parser("eval", help="score a checkpoint")
    p.add_argument("--checkpoint", default=os.environ.get("SAVE_TO"))
    p.set_defaults(func=cmd_eval)

    args = ap.parse_args(argv)
    return args.func(args)


if __name__ == "__main__":
    sys.exit(main())
