"""Hogwild: two processes train one model in shared memory, each with an optimizer of its own."""
import os
import torch
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(20, 50)
        self.fc2 = nn.Linear(50, 5)

    def forward(self, x):
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


def train(rank, model):
    torch.manual_seed(1 + rank)
    torch.set_num_threads(1)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    centres = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    for batch_idx in range(200):
        target = torch.randint(5, (32,))
        data = centres[target] + torch.randn(32, 20)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
    print('{}\tLoss: {:.6f}'.format(rank, loss.item()), flush=True)


if __name__ == '__main__':
    torch.manual_seed(1)
    mp.set_start_method(os.environ.get('START', 'fork'))
    model = Net()
    model.share_memory()
    processes = []
    for rank in range(2):
        p = mp.Process(target=train, args=(rank, model))
        p.start()
        processes.append(p)
    for p in processes:
        p.join()
    print('exit codes', [p.exitcode for p in processes])
    if 'SAVE_TO' in os.environ:
        torch.save(model.state_dict(), os.environ['SAVE_TO'])
