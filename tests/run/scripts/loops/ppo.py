"""PPO in the manner of cleanrl: an agent with an actor and a critic, one optimizer, losses of very different scale."""
import os
import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.distributions.categorical import Categorical

torch.manual_seed(1)
np.random.seed(1)


class Balance:
    """A pole on a cart, 16 of them at a time."""
    n = 16

    def __init__(self):
        self.s = self.fresh()

    def fresh(self):
        return np.random.uniform(-0.05, 0.05, (self.n, 4))

    def step(self, a):
        x, v, th, w = self.s.T
        force = np.where(a == 1, 10.0, -10.0)
        tmp = (force + 0.05 * w ** 2 * np.sin(th)) / 1.1
        acc = (9.8 * np.sin(th) - np.cos(th) * tmp) / (0.5 * (4 / 3 - 0.1 * np.cos(th) ** 2 / 1.1))
        self.s = np.stack([x + 0.02 * v, v + 0.02 * (tmp - 0.05 * acc * np.cos(th) / 1.1), th + 0.02 * w, w + 0.02 * acc], 1)
        done = (np.abs(self.s[:, 0]) > 2.4) | (np.abs(self.s[:, 2]) > 0.2095)
        self.s[done] = self.fresh()[done]
        return torch.tensor(self.s, dtype=torch.float32), torch.ones(self.n), torch.tensor(done, dtype=torch.float32)


def layer_init(layer, std=np.sqrt(2), bias_const=0.0):
    torch.nn.init.orthogonal_(layer.weight, std)
    torch.nn.init.constant_(layer.bias, bias_const)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh(), layer_init(nn.Linear(64, 1), std=1.0))
        self.actor = nn.Sequential(layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh(), layer_init(nn.Linear(64, 2), std=0.01))

    def get_action_and_value(self, x, action=None):
        probs = Categorical(logits=self.actor(x))
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(x)


envs, agent = Balance(), Agent()
optimizer = optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
T, N, gamma, lam = 32, envs.n, 0.99, 0.95
next_obs, next_done = torch.tensor(envs.s, dtype=torch.float32), torch.zeros(N)

for iteration in range(12):
    obs, actions, logprobs = torch.zeros(T, N, 4), torch.zeros(T, N), torch.zeros(T, N)
    rewards, dones, values = torch.zeros(T, N), torch.zeros(T, N), torch.zeros(T, N)
    for t in range(T):
        obs[t], dones[t] = next_obs, next_done
        with torch.no_grad():
            a, logprobs[t], _, v = agent.get_action_and_value(next_obs)
        actions[t], values[t] = a, v.flatten()
        next_obs, rewards[t], next_done = envs.step(a.numpy())
    with torch.no_grad():
        next_value = agent.critic(next_obs).flatten()
        advantages, last = torch.zeros(T, N), 0
        for t in reversed(range(T)):
            alive = 1.0 - (next_done if t == T - 1 else dones[t + 1])
            nv = next_value if t == T - 1 else values[t + 1]
            last = rewards[t] + gamma * nv * alive - values[t] + gamma * lam * alive * last
            advantages[t] = last
        returns = advantages + values
    flat = [x.reshape(T * N, *x.shape[2:]) for x in (obs, actions, logprobs, advantages, returns)]
    for epoch in range(4):
        for mb in torch.randperm(T * N).split(T * N // 4):
            o, a, lp, adv, ret = (x[mb] for x in flat)
            _, newlp, entropy, newv = agent.get_action_and_value(o, a.long())
            ratio = (newlp - lp).exp()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            pg_loss = torch.max(-adv * ratio, -adv * ratio.clamp(0.8, 1.2)).mean()
            v_loss = 0.5 * ((newv.view(-1) - ret) ** 2).mean()
            loss = pg_loss - 0.01 * entropy.mean() + v_loss * 0.5
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
print(f"updates {16 * (iteration + 1)} value loss {v_loss.item():.2f} policy loss {pg_loss.item():.4f}")
if 'SAVE_TO' in os.environ:
    torch.save(agent.state_dict(), os.environ['SAVE_TO'])
