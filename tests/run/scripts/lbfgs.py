"""Physics-informed network for the boundary value problem
       u''(x) + u(x) = (1 - pi^2) sin(pi x),   u(-1) = u(1) = 0,
whose solution is u(x) = sin(pi x). Trained in double precision with L-BFGS.
"""
import os

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(3)
np.random.seed(3)


class DNN(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.depth = len(layers) - 1
        self.activation = torch.nn.Tanh
        layer_list = []
        for i in range(self.depth - 1):
            layer_list.append(("layer_%d" % i, torch.nn.Linear(layers[i], layers[i + 1])))
            layer_list.append(("activation_%d" % i, self.activation()))
        layer_list.append(("layer_%d" % (self.depth - 1), torch.nn.Linear(layers[-2], layers[-1])))
        from collections import OrderedDict
        self.layers = torch.nn.Sequential(OrderedDict(layer_list))
        for m in self.layers:
            if isinstance(m, torch.nn.Linear):
                torch.nn.init.xavier_normal_(m.weight)
                torch.nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.layers(x)


class PhysicsInformedNN:
    def __init__(self, x_b, u_b, x_f, layers):
        self.x_b = torch.tensor(x_b)
        self.u_b = torch.tensor(u_b)
        self.x_f = torch.tensor(x_f, requires_grad=True)
        self.dnn = DNN(layers)
        self.optimizer = torch.optim.LBFGS(
            self.dnn.parameters(),
            lr=1.0,
            max_iter=100,
            max_eval=150,
            history_size=50,
            tolerance_grad=1e-8,
            tolerance_change=1.0 * np.finfo(float).eps,
            line_search_fn="strong_wolfe",
        )
        self.iter = 0

    def net_u(self, x):
        return self.dnn(x)

    def net_f(self, x):
        u = self.net_u(x)
        u_x = torch.autograd.grad(u, x, torch.ones_like(u), retain_graph=True, create_graph=True)[0]
        u_xx = torch.autograd.grad(u_x, x, torch.ones_like(u_x), retain_graph=True, create_graph=True)[0]
        return u_xx + u - (1 - np.pi ** 2) * torch.sin(np.pi * x)

    def loss_func(self):
        self.optimizer.zero_grad()
        loss_u = torch.mean((self.u_b - self.net_u(self.x_b)) ** 2)
        loss_f = torch.mean(self.net_f(self.x_f) ** 2)
        loss = 10.0 * loss_u + loss_f
        loss.backward()
        self.iter += 1
        if self.iter % 50 == 1:
            print("Iter %d, Loss: %.5e, Loss_u: %.5e, Loss_f: %.5e"
                  % (self.iter, loss.item(), loss_u.item(), loss_f.item()))
        return loss

    def train(self, rounds):
        self.dnn.train()
        for _ in range(rounds):
            self.optimizer.step(self.loss_func)

    def predict(self, x):
        self.dnn.eval()
        return self.net_u(torch.tensor(x)).detach().cpu().numpy()


x_boundary = np.array([[-1.0], [1.0]])
u_boundary = np.array([[0.0], [0.0]])
x_collocation = np.sort(np.random.uniform(-1, 1, (64, 1)), axis=0)

model = PhysicsInformedNN(x_boundary, u_boundary, x_collocation, [1, 20, 20, 20, 1])
model.train(rounds=3)

x_star = np.linspace(-1, 1, 201)[:, None]
u_star = np.sin(np.pi * x_star)
u_pred = model.predict(x_star)
print("Error u: %e" % (np.linalg.norm(u_star - u_pred, 2) / np.linalg.norm(u_star, 2)))

if "SAVE_TO" in os.environ:
    torch.save(dict(model.dnn.state_dict()), os.environ["SAVE_TO"])
