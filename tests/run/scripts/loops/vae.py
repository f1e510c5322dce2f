"""A variational autoencoder on the 8 × 8 digits: two losses, two heads in the encoder."""
import os
import torch
from torch import nn, optim
from torch.nn import functional as F
from sklearn.datasets import load_digits

torch.manual_seed(1)
X = torch.tensor(load_digits().data, dtype=torch.float32) / 16


class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1 = nn.Linear(64, 48)
        self.fc21 = nn.Linear(48, 8)
        self.fc22 = nn.Linear(48, 8)
        self.fc3 = nn.Linear(8, 48)
        self.fc4 = nn.Linear(48, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


model = VAE()
optimizer = optim.Adam(model.parameters(), lr=1e-3)
for step in range(200):
    data = X[torch.randint(len(X), (128,))]
    recon, mu, logvar = model(data)
    BCE = F.binary_cross_entropy(recon, data, reduction='sum')
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    loss = BCE + KLD
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print('====> Step: {} Average loss: {:.4f}'.format(step + 1, loss.item() / 128))
if 'SAVE_TO' in os.environ:
    torch.save(model.state_dict(), os.environ['SAVE_TO'])
