"""Soft actor-critic: actor, two critics and the temperature, three optimizers, each with a loss of its own."""
import copy, os
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

torch.manual_seed(0)


class SoftQNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3 + 1, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 1)

    def forward(self, x, a):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(torch.cat([x, a], 1))))))


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc_mean = nn.Linear(64, 1)
        self.fc_logstd = nn.Linear(64, 1)

    def get_action(self, x):
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        mean, log_std = self.fc_mean(x), torch.tanh(self.fc_logstd(x)) * 2 - 1
        normal = torch.distributions.Normal(mean, log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        return y_t, normal.log_prob(x_t) - torch.log(1 - y_t.pow(2) + 1e-6)


actor, qf1, qf2 = Actor(), SoftQNetwork(), SoftQNetwork()
qf1_target, qf2_target = copy.deepcopy(qf1), copy.deepcopy(qf2)
q_optimizer = optim.Adam(list(qf1.parameters()) + list(qf2.parameters()), lr=1e-3)
actor_optimizer = optim.Adam(list(actor.parameters()), lr=3e-4)
log_alpha = torch.zeros(1, requires_grad=True)
a_optimizer = optim.Adam([log_alpha], lr=1e-3)

for step in range(200):
    obs = torch.randn(64, 3)
    act = torch.rand(64, 1) * 2 - 1
    nxt = obs + 0.1 * act
    reward = -(obs.sum(1, keepdim=True) + act).pow(2)
    with torch.no_grad():
        na, nlp = actor.get_action(nxt)
        target = reward + 0.9 * (torch.min(qf1_target(nxt, na), qf2_target(nxt, na)) - log_alpha.exp() * nlp)
    qf_loss = F.mse_loss(qf1(obs, act), target) + F.mse_loss(qf2(obs, act), target)
    q_optimizer.zero_grad()
    qf_loss.backward()
    q_optimizer.step()

    pi, log_pi = actor.get_action(obs)
    actor_loss = (log_alpha.exp().detach() * log_pi - torch.min(qf1(obs, pi), qf2(obs, pi))).mean()
    actor_optimizer.zero_grad()
    actor_loss.backward()
    actor_optimizer.step()

    alpha_loss = (-log_alpha.exp() * (log_pi.detach() - 1)).mean()
    a_optimizer.zero_grad()
    alpha_loss.backward()
    a_optimizer.step()
    for net, slow in ((qf1, qf1_target), (qf2, qf2_target)):
        for p, t in zip(net.parameters(), slow.parameters()):
            t.data.copy_(0.005 * p.data + 0.995 * t.data)
print(f'{step + 1} steps, qf_loss {qf_loss.item():.2f} alpha {log_alpha.exp().item():.3f}')
if 'SAVE_TO' in os.environ:
    weights = {f'{n}.{k}': v for n, m in (('actor', actor), ('qf1', qf1), ('qf2', qf2)) for k, v in m.state_dict().items()}
    torch.save({**weights, 'log_alpha': log_alpha.detach()}, os.environ['SAVE_TO'])
