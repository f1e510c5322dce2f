"""A scripted net, as those that will be loaded from C++ are trained."""
import os
import warnings
import torch
from torch import nn, Tensor

warnings.filterwarnings('ignore', category=DeprecationWarning)
torch.manual_seed(0)


class Cell(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.gate(x)) * torch.tanh(self.value(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(5, 24)
        self.cells = nn.ModuleList([Cell(24) for _ in range(2)])
        self.out = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.inp(x))
        for cell in self.cells:
            x = cell(x)
        return self.out(x)


net = torch.jit.script(Net())
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
for step in range(200):
    x = torch.randn(64, 5)
    loss = (net(x) - x.sum(1, keepdim=True).sin()).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print(f'{step + 1} steps, loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save(dict(net.state_dict()), os.environ['SAVE_TO'])
