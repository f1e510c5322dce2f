"""Minimal multi-process data-parallel job on CPU.

Launch:  torchrun --standalone --nproc_per_node=2 ddp.py
"""
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def ddp_setup():
    dist.init_process_group(backend="gloo")
    return dist.get_rank(), dist.get_world_size()


def rank0_print(*args):
    if dist.get_rank() == 0:
        print(*args, flush=True)


def build_model():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 48),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def reduce_mean(value):
    t = torch.tensor(value)
    dist.all_reduce(t, op=dist.ReduceOp.SUM)
    return t.item() / dist.get_world_size()


def main(total_epochs=3, batch_size=32):
    rank, world_size = ddp_setup()
    rank0_print(f"world size {world_size}")
    torch.manual_seed(0)

    bunch = load_digits()
    images = torch.as_tensor(bunch.images / 16.0, dtype=torch.float32)
    targets = torch.as_tensor(bunch.target)
    train_set = TensorDataset(images[:1536], targets[:1536])
    sampler = DistributedSampler(train_set, shuffle=True, seed=0)
    loader = DataLoader(train_set, batch_size=batch_size, sampler=sampler)

    model = DDP(build_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    for epoch in range(total_epochs):
        sampler.set_epoch(epoch)
        model.train()
        running = 0.0
        for source, target in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(source), target)
            loss.backward()
            optimizer.step()
            running += loss.item()
        rank0_print(f"epoch {epoch} | batches/rank {len(loader)} | loss {reduce_mean(running / len(loader)):.4f}")

    if rank == 0:
        net = model.module
        net.eval()
        with torch.no_grad():
            acc = (net(images[1536:]).argmax(1) == targets[1536:]).float().mean()
        print(f"test accuracy {acc:.3f}", flush=True)
        if os.getenv("SAVE_TO"):
            torch.save(net.state_dict(), os.environ["SAVE_TO"])

    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
