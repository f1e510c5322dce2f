"""Weight normalisation, old and new, and spectral normalisation in one net."""
import os
import warnings
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

warnings.filterwarnings('ignore', category=FutureWarning)
torch.manual_seed(0)
net = nn.Sequential(
    weight_norm(nn.Conv1d(1, 12, 5, padding=2)), nn.ReLU(),
    parametrizations.weight_norm(nn.Conv1d(12, 12, 3, padding=1)), nn.ReLU(),
    nn.AdaptiveAvgPool1d(4), nn.Flatten(),
    parametrizations.spectral_norm(nn.Linear(48, 32)), nn.ReLU(),
    nn.utils.spectral_norm(nn.Linear(32, 16)), nn.ReLU(),
    nn.Linear(16, 3),
)
opt = torch.optim.RMSprop(net.parameters(), lr=1e-3)
phase = torch.linspace(0, 6.28, 32)
for step in range(200):
    y = torch.randint(3, (32,))
    x = torch.sin((y + 1)[:, None] * phase + 6.28 * torch.rand(32, 1)) + 0.3 * torch.randn(32, 32)
    loss = nn.functional.cross_entropy(net(x[:, None]), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
print(f'{step + 1} steps, loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save({n: p.detach() for n, p in net.named_parameters()}, os.environ['SAVE_TO'])
