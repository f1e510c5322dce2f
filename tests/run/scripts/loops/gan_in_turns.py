"""A GAN on a ring of eight Gaussians; discriminator and generator take turns, an optimizer each."""
import math, os
import torch
from torch import nn

torch.manual_seed(1)
angles = torch.arange(8) * math.pi / 4
centres = torch.stack([angles.cos(), angles.sin()], 1)

G = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
opt_g = torch.optim.Adam(G.parameters(), 1e-3, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()

for it in range(200):
    real = centres[torch.randint(8, (64,))] + 0.05 * torch.randn(64, 2)
    fake = G(torch.randn(64, 8))
    loss_d = bce(D(real), torch.ones(64, 1)) + bce(D(fake.detach()), torch.zeros(64, 1))
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()

    loss_g = bce(D(fake), torch.ones(64, 1))
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
print(f'{it + 1} iterations, D {loss_d.item():.3f}, G {loss_g.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save({f'{n}.{k}': v for n, m in (('G', G), ('D', D)) for k, v in m.state_dict().items()}, os.environ['SAVE_TO'])
