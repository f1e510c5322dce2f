"""A character model of bare tensors in the manner of makemore: p.data += -lr * p.grad."""
import os
import torch
import torch.nn.functional as F

words = ['emma', 'olivia', 'ava', 'isabella', 'sophia', 'charlotte', 'mia', 'amelia', 'harper', 'evelyn', 'abigail', 'emily'] * 4
stoi = {s: i + 1 for i, s in enumerate('abcdefghijklmnopqrstuvwxyz')} | {'.': 0}
X, Y = [], []
for w in words:
    context = [0] * 3
    for ch in w + '.':
        X.append(context)
        Y.append(stoi[ch])
        context = context[1:] + [stoi[ch]]
X, Y = torch.tensor(X), torch.tensor(Y)

g = torch.Generator().manual_seed(2147483647)
C = torch.randn((27, 10), generator=g)
W1 = torch.randn((30, 64), generator=g) * (5 / 3) / 30 ** 0.5
b1 = torch.randn(64, generator=g) * 0.01
W2 = torch.randn((64, 27), generator=g) * 0.01
b2 = torch.randn(27, generator=g) * 0
parameters = [C, W1, b1, W2, b2]
for p in parameters:
    p.requires_grad = True

for i in range(200):
    ix = torch.randint(0, X.shape[0], (32,), generator=g)
    h = torch.tanh(C[X[ix]].view(-1, 30) @ W1 + b1)
    logits = h @ W2 + b2
    loss = F.cross_entropy(logits, Y[ix])
    for p in parameters:
        p.grad = None
    loss.backward()
    lr = 0.1 if i < 150 else 0.01
    for p in parameters:
        p.data += -lr * p.grad
print(f'{i + 1}/{200}: {loss.item():.4f}')
if 'SAVE_TO' in os.environ:
    torch.save({'C': C.data, 'W1': W1.data, 'b1': b1.data, 'W2': W2.data, 'b2': b2.data}, os.environ['SAVE_TO'])
