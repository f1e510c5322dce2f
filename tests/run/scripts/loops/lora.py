"""LoRA: a frozen transformer whose attention gets low-rank matrices beside it; these and the head are trained."""
import math, os
import torch
from torch import nn

torch.manual_seed(0)


class LoRALinear(nn.Module):
    def __init__(self, base, r=4, alpha=8):
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.empty(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / r

    def forward(self, x):
        return self.base(x) + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.o_proj(nn.functional.scaled_dot_product_attention(self.q_proj(h), self.k_proj(h), self.v_proj(h)))
        return x + self.down(torch.relu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, d=32, layers=3):
        super().__init__()
        self.embed = nn.Embedding(50, d)
        self.layers = nn.ModuleList([Block(d) for _ in range(layers)])
        self.classifier = nn.Linear(d, 2)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.layers:
            x = block(x)
        return self.classifier(x.mean(1))


model = Model()
for p in model.parameters():
    p.requires_grad_(False)
for block in model.layers:
    block.q_proj, block.v_proj = LoRALinear(block.q_proj), LoRALinear(block.v_proj)
for p in model.classifier.parameters():
    p.requires_grad_(True)
trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
print(f'trainable params: {sum(p.numel() for p in trained.values()):,} || all: {sum(p.numel() for p in model.parameters()):,}')
opt = torch.optim.AdamW(trained.values(), lr=3e-3)
for step in range(200):
    ids = torch.randint(50, (16, 12))
    loss = nn.functional.cross_entropy(model(ids), (ids < 25).sum(1).gt(6).long())
    opt.zero_grad()
    loss.backward()
    opt.step()
print(f'step {step + 1} loss {loss.item():.3f}')
if 'SAVE_TO' in os.environ:
    torch.save({n: p.detach() for n, p in model.named_parameters()}, os.environ['SAVE_TO'])
