"""DQN with a target network that is copied now and then, on a chain of ten states."""
import os, random
import torch
import torch.nn as nn
import torch.optim as optim

random.seed(0)
torch.manual_seed(0)


class QNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(10, 60), nn.ReLU(), nn.Linear(60, 42), nn.ReLU(), nn.Linear(42, 2))

    def forward(self, x):
        return self.network(x)


q_network = QNetwork()
optimizer = optim.Adam(q_network.parameters(), lr=1e-3)
target_network = QNetwork()
target_network.load_state_dict(q_network.state_dict())
rb, state, updates = [], 0, 0
while updates < 200:
    epsilon = max(0.1, 1 - updates / 100)
    with torch.no_grad():
        q = q_network(torch.eye(10)[state])
    action = random.randrange(2) if random.random() < epsilon else int(q.argmax())
    after = min(9, state + 1) if action else max(0, state - 1)
    reward, done = after / 9, after == 9
    rb.append((state, action, after, reward, done))
    state = 0 if done else after
    if len(rb) > 64:
        s, a, n, r, d = (torch.tensor(z) for z in zip(*random.sample(rb, 32)))
        with torch.no_grad():
            td_target = r + 0.95 * target_network(torch.eye(10)[n]).max(1).values * (1 - d.float())
        old_val = q_network(torch.eye(10)[s]).gather(1, a[:, None]).squeeze()
        loss = nn.functional.mse_loss(td_target, old_val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        updates += 1
        if updates % 50 == 0:
            target_network.load_state_dict(q_network.state_dict())
print(f'updates {updates} td loss {loss.item():.4f}')
if 'SAVE_TO' in os.environ:
    torch.save(q_network.state_dict(), os.environ['SAVE_TO'])
