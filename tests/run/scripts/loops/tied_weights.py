"""A GPT whose head is its token embedding, with warm-up, cosine decay, clipping and two groups of weight decay."""
import math, os
import torch
import torch.nn as nn
from torch.nn import functional as F

torch.manual_seed(1337)
V, B, T, C, H, L = 27, 16, 24, 32, 4, 3


class CausalSelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(C, 3 * C, bias=False)
        self.c_proj = nn.Linear(C, C, bias=False)

    def forward(self, x):
        b, t, _ = x.size()
        q, k, v = (z.view(b, t, H, C // H).transpose(1, 2) for z in self.c_attn(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, C))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(C), CausalSelfAttention(), nn.LayerNorm(C)
        self.mlp = nn.ModuleDict(dict(c_fc=nn.Linear(C, 4 * C), c_proj=nn.Linear(4 * C, C)))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict(dict(wte=nn.Embedding(V, C), wpe=nn.Embedding(T, C), h=nn.ModuleList([Block() for _ in range(L)]), ln_f=nn.LayerNorm(C)))
        self.lm_head = nn.Linear(C, V, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * L) if name.endswith('c_proj.weight') else 0.02)

    def forward(self, idx, targets):
        x = self.transformer.wte(idx) + self.transformer.wpe(torch.arange(idx.size(1)))
        for block in self.transformer.h:
            x = block(x)
        return F.cross_entropy(self.lm_head(self.transformer.ln_f(x)).view(-1, V), targets.view(-1))


data = torch.tensor([(i * i + i // 3) % V for i in range(2000)])
model = GPT()
decay = [p for p in model.parameters() if p.dim() >= 2]
nodecay = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW([{'params': decay, 'weight_decay': 0.1}, {'params': nodecay, 'weight_decay': 0.0}], lr=3e-3, betas=(0.9, 0.95))
for it in range(200):
    lr = 3e-3 * (it + 1) / 20 if it < 20 else 3e-4 + 0.5 * (1 + math.cos(math.pi * (it - 20) / 180)) * 2.7e-3
    for group in optimizer.param_groups:
        group['lr'] = lr
    ix = torch.randint(len(data) - T - 1, (B,))
    x, y = (torch.stack([data[i + s:i + s + T] for i in ix]) for s in (0, 1))
    loss = model(x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
print(f'iter {it + 1}: loss {loss.item():.4f}')
if 'SAVE_TO' in os.environ:
    torch.save({n: p.detach() for n, p in model.named_parameters()}, os.environ['SAVE_TO'])
