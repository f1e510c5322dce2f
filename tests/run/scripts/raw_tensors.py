"""cs231n's spiral, in torch: a two-layer net out of four tensors, nothing from nn."""
import os

import numpy as np
import torch

np.random.seed(0)
torch.manual_seed(0)

N = 100  # number of points per class
D = 2    # dimensionality
K = 3    # number of classes
X = np.zeros((N * K, D))
y = np.zeros(N * K, dtype='int64')
for j in range(K):
    ix = range(N * j, N * (j + 1))
    r = np.linspace(0.0, 1, N)
    t = np.linspace(j * 4, (j + 1) * 4, N) + np.random.randn(N) * 0.2
    X[ix] = np.c_[r * np.sin(t), r * np.cos(t)]
    y[ix] = j
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)

h = 100  # size of hidden layer
W1 = torch.randn(D, h, requires_grad=True)
b1 = torch.zeros(h, requires_grad=True)
W2 = torch.randn(h, K)
W2 = (0.01 * W2).requires_grad_()
b2 = torch.zeros(K, requires_grad=True)

reg = 1e-3  # regularization strength
opt = torch.optim.SGD([W1, b1, W2, b2], lr=1.0)

for i in range(400):
    hidden = torch.clamp(X @ W1 + b1, min=0)  # note, ReLU activation
    scores = hidden @ W2 + b2

    log_probs = scores - scores.logsumexp(dim=1, keepdim=True)
    data_loss = -log_probs[torch.arange(N * K), y].mean()
    reg_loss = 0.5 * reg * (W1 * W1).sum() + 0.5 * reg * (W2 * W2).sum()
    loss = data_loss + reg_loss
    if i % 50 == 0:
        print("iteration %d: loss %f" % (i, loss.item()))

    opt.zero_grad()
    loss.backward()
    opt.step()

with torch.no_grad():
    predicted = (torch.clamp(X @ W1 + b1, min=0) @ W2 + b2).argmax(1)
print('training accuracy: %.2f' % (predicted == y).float().mean())

out = os.environ.get('SAVE_TO')
if out is not None:
    torch.save({'W1': W1, 'b1': b1, 'W2': W2, 'b2': b2}, out)
