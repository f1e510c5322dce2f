"""WGAN-GP: five critic steps to one of the generator, with a penalty on the critic's gradient."""
import os
import torch
from torch import nn, optim, autograd

torch.manual_seed(0)
BATCH, CRITIC_ITERS, LAMBDA = 64, 5, 0.1


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(2, 64), nn.ReLU(True), nn.Linear(64, 64), nn.ReLU(True), nn.Linear(64, 2))

    def forward(self, noise):
        return self.main(noise)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(2, 64), nn.ReLU(True), nn.Linear(64, 64), nn.ReLU(True), nn.Linear(64, 1))

    def forward(self, inputs):
        return self.main(inputs).view(-1)


def gradient_penalty(netD, real, fake):
    alpha = torch.rand(len(real), 1).expand_as(real)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    out = netD(interpolates)
    grads = autograd.grad(out, interpolates, grad_outputs=torch.ones_like(out), create_graph=True, retain_graph=True)[0]
    return ((grads.norm(2, dim=1) - 1) ** 2).mean() * LAMBDA


def data():
    return torch.cat([torch.randn(BATCH // 2, 2) * 0.1 + 1, torch.randn(BATCH // 2, 2) * 0.1 - 1])


netG, netD = Generator(), Critic()
optimizerD = optim.Adam(netD.parameters(), lr=1e-3, betas=(0.5, 0.9))
optimizerG = optim.Adam(netG.parameters(), lr=1e-3, betas=(0.5, 0.9))

for iteration in range(40):
    for p in netD.parameters():
        p.requires_grad = True
    for _ in range(CRITIC_ITERS):
        real = data()
        netD.zero_grad()
        with torch.no_grad():
            fake = netG(torch.randn(BATCH, 2))
        D_real, D_fake = netD(real).mean(), netD(fake).mean()
        (-D_real).backward()
        D_fake.backward()
        gradient_penalty(netD, real, fake).backward()
        optimizerD.step()

    for p in netD.parameters():
        p.requires_grad = False  # to avoid computation
    netG.zero_grad()
    cost = -netD(netG(torch.randn(BATCH, 2))).mean()
    cost.backward()
    optimizerG.step()
print(f"iteration {iteration + 1} wasserstein {(D_real - D_fake).item():.3f}")
if 'SAVE_TO' in os.environ:
    torch.save({**{'netG.' + k: v for k, v in netG.state_dict().items()}, **{'netD.' + k: v for k, v in netD.state_dict().items()}}, os.environ['SAVE_TO'])
