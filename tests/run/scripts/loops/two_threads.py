"""Two nets, each trained in a thread of its own."""
import os
import threading
import torch
from torch import nn

torch.manual_seed(0)
teacher = nn.Linear(6, 1)
small = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
large = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def fit(net, seed, lr):
    gen = torch.Generator().manual_seed(seed)
    opt = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(200):
        x = torch.randn(32, 6, generator=gen)
        with torch.no_grad():
            y = teacher(x).tanh()
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f'{sum(p.numel() for p in net.parameters())} parameters: loss {loss.item():.4f}', flush=True)


threads = [threading.Thread(target=fit, args=args) for args in ((small, 1, 3e-3), (large, 2, 1e-3))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if 'SAVE_TO' in os.environ:
    torch.save({**{'small.' + k: v for k, v in small.state_dict().items()}, **{'large.' + k: v for k, v in large.state_dict().items()}}, os.environ['SAVE_TO'])
