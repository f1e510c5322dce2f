"""DistributedDataParallel in as many ranks as the environment says, over gloo."""
import os
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

dist.init_process_group('gloo')
rank = dist.get_rank()
torch.manual_seed(0)
torch.set_num_threads(1)
model = DDP(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
w = torch.randn(10, 1)
gen = torch.Generator().manual_seed(rank)
for step in range(200):
    x = torch.randn(16, 10, generator=gen)
    loss = nn.functional.mse_loss(model(x), (x @ w).tanh())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
if rank == 0:
    print(f'{step + 1} steps on {dist.get_world_size()} ranks, loss {loss.item():.3f}')
    if 'SAVE_TO' in os.environ:
        torch.save(model.module.state_dict(), os.environ['SAVE_TO'])
dist.destroy_process_group()
