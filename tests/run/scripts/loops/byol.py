"""BYOL: an online net with a predictor learns from a target net, its moving average."""
import copy, os
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


class BYOL(nn.Module):
    def __init__(self):
        super().__init__()
        self.online_encoder = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
        self.predictor = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
        self.target_encoder = copy.deepcopy(self.online_encoder)
        self.target_encoder.requires_grad_(False)

    def forward(self, one, two):
        p1, p2 = self.predictor(self.online_encoder(one)), self.predictor(self.online_encoder(two))
        with torch.no_grad():
            z1, z2 = self.target_encoder(one), self.target_encoder(two)
        return 2 - F.cosine_similarity(p1, z2).mean() - F.cosine_similarity(p2, z1).mean()

    @torch.no_grad()
    def update(self, tau=0.95):
        for o, t in zip(self.online_encoder.parameters(), self.target_encoder.parameters()):
            t.data = tau * t.data + (1 - tau) * o.data


learner = BYOL()
opt = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=1e-3)
centres = torch.randn(8, 16)
for step in range(200):
    x = centres[torch.randint(8, (64,))]
    loss = learner(x + 0.2 * torch.randn(64, 16), x + 0.2 * torch.randn(64, 16))
    opt.zero_grad()
    loss.backward()
    opt.step()
    learner.update()
print(f'{step + 1} steps, loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save({n: p.detach() for n, p in learner.named_parameters()}, os.environ['SAVE_TO'])
