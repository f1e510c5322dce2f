"""torch.autograd.grad by the parameters of a class that is no nn.Module; leaf tensors replaced at each step."""
import os
import torch

torch.manual_seed(0)


class MLP:
    def __init__(self, sizes):
        self.weights = [(torch.randn(i, o) * (2 / i) ** 0.5).requires_grad_() for i, o in zip(sizes, sizes[1:])]
        self.biases = [torch.zeros(o, requires_grad=True) for o in sizes[1:]]

    def __call__(self, x):
        for k, (w, b) in enumerate(zip(self.weights, self.biases)):
            x = x @ w + b
            if k < len(self.weights) - 1:
                x = torch.relu(x)
        return x


net = MLP([2, 32, 32, 1])
x = torch.rand(256, 2) * 2 - 1
y = (x[:, :1] * x[:, 1:] > 0).float()
for step in range(200):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x), y)
    params = net.weights + net.biases
    grads = torch.autograd.grad(loss, params)
    new = [(p - 0.3 * g).detach().requires_grad_() for p, g in zip(params, grads)]
    net.weights, net.biases = new[:3], new[3:]
print(f'{step + 1} steps, loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save({str(i): p.detach() for i, p in enumerate(net.weights + net.biases)}, os.environ['SAVE_TO'])
