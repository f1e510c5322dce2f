"""Hinton's forward-forward: each layer is trained by itself, one after the other, with an optimizer of its own."""
import os
import torch
import torch.nn as nn
from torch.optim import Adam

torch.manual_seed(1234)
centres = torch.randn(4, 30)
labels = torch.randint(4, (400,))
images = centres[labels] + 0.3 * torch.randn(400, 30)


def overlay_y_on_x(x, y):
    x_ = x.clone()
    x_[:, :4] *= 0.0
    x_[range(x.shape[0]), y] = x.max()
    return x_


class Layer(nn.Linear):
    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        super().__init__(in_features, out_features, bias, device, dtype)
        self.relu = torch.nn.ReLU()
        self.opt = Adam(self.parameters(), lr=0.03)
        self.threshold = 2.0
        self.num_epochs = 100

    def forward(self, x):
        x_direction = x / (x.norm(2, 1, keepdim=True) + 1e-4)
        return self.relu(torch.mm(x_direction, self.weight.T) + self.bias.unsqueeze(0))

    def train(self, x_pos, x_neg):
        for i in range(self.num_epochs):
            g_pos = self.forward(x_pos).pow(2).mean(1)
            g_neg = self.forward(x_neg).pow(2).mean(1)
            loss = torch.log(1 + torch.exp(torch.cat([-g_pos + self.threshold, g_neg - self.threshold]))).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
        return self.forward(x_pos).detach(), self.forward(x_neg).detach()


class Net(torch.nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.layers = []
        for d in range(len(dims) - 1):
            self.layers += [Layer(dims[d], dims[d + 1])]

    def train(self, x_pos, x_neg):
        h_pos, h_neg = x_pos, x_neg
        for i, layer in enumerate(self.layers):
            h_pos, h_neg = layer.train(h_pos, h_neg)


net = Net([30, 64, 48])
y_neg = (labels + torch.randint(1, 4, (400,))) % 4
net.train(overlay_y_on_x(images, labels), overlay_y_on_x(images, y_neg))
print('trained', len(net.layers), 'layers')
if 'SAVE_TO' in os.environ:
    torch.save({f'{i}.{k}': v for i, layer in enumerate(net.layers) for k, v in layer.state_dict().items()}, os.environ['SAVE_TO'])
