"""Word-level language model with a hand-made RNN cell. No torch.optim: the update is one line.

After the "NLP from scratch" tutorial and examples/word_language_model.
"""
import math
import os
import random

import torch
import torch.nn as nn

random.seed(1111)
torch.manual_seed(1111)

TEXT = """
the house that jack built
this is the malt that lay in the house that jack built
this is the rat that ate the malt that lay in the house that jack built
this is the cat that killed the rat that ate the malt that lay in the house that jack built
this is the dog that worried the cat that killed the rat that ate the malt that lay in the house that jack built
this is the cow with the crumpled horn that tossed the dog that worried the cat that killed the rat
that ate the malt that lay in the house that jack built
"""

all_lines = [line.split() + ['<eol>'] for line in TEXT.strip().split('\n')]
all_words = sorted({w for line in all_lines for w in line})
n_words = len(all_words)
word_to_ix = {w: i for i, w in enumerate(all_words)}
print('%d lines, %d different words' % (len(all_lines), n_words))


class RNN(nn.Module):
    def __init__(self, n_tokens, embed_size, hidden_size):
        super(RNN, self).__init__()
        self.hidden_size = hidden_size

        self.encoder = nn.Embedding(n_tokens, embed_size)
        self.i2h = nn.Linear(embed_size + hidden_size, hidden_size)
        self.i2o = nn.Linear(embed_size + hidden_size, n_tokens)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, input, hidden):
        combined = torch.cat((self.encoder(input), hidden), 1)
        hidden = torch.tanh(self.i2h(combined))
        output = self.softmax(self.i2o(combined))
        return output, hidden

    def initHidden(self):
        return torch.zeros(1, self.hidden_size)


n_hidden = 32
rnn = RNN(n_words, 16, n_hidden)
criterion = nn.NLLLoss()
learning_rate = 0.02  # If you set this too high, it might explode. If too low, it might not learn
clip = 5.0


def line_to_tensor(line):
    return torch.tensor([word_to_ix[w] for w in line])


def random_example():
    tensor = line_to_tensor(random.choice(all_lines))
    return tensor[:-1], tensor[1:]


def train(input_line_tensor, target_line_tensor):
    hidden = rnn.initHidden()
    rnn.zero_grad()

    loss = 0
    for i in range(input_line_tensor.size(0)):
        output, hidden = rnn(input_line_tensor[i:i + 1], hidden)
        loss += criterion(output, target_line_tensor[i:i + 1])

    loss.backward()
    torch.nn.utils.clip_grad_norm_(rnn.parameters(), clip)

    # Add parameters' gradients to their values, multiplied by learning rate
    for p in rnn.parameters():
        p.data.add_(p.grad.data, alpha=-learning_rate)

    return output, loss.item() / input_line_tensor.size(0)


n_iters = 240
print_every = 40
total_loss = 0  # Reset every print_every iters

for iter in range(1, n_iters + 1):
    output, loss = train(*random_example())
    total_loss += loss

    if iter % print_every == 0:
        cur_loss = total_loss / print_every
        print('| %3d/%d iterations | lr %.3f | loss %5.2f | ppl %8.2f' %
              (iter, n_iters, learning_rate, cur_loss, math.exp(cur_loss)))
        total_loss = 0


def sample(start_word='this', max_length=16):
    with torch.no_grad():  # no need to track history in sampling
        words, hidden = [start_word], rnn.initHidden()
        for _ in range(max_length):
            output, hidden = rnn(torch.tensor([word_to_ix[words[-1]]]), hidden)
            words.append(all_words[output.topk(1)[1].item()])
            if words[-1] == '<eol>':
                break
    return ' '.join(words)


print(sample('this'))
print(sample('cow'))

save_to = os.environ.get('SAVE_TO', '')
if save_to:
    with open(save_to, 'wb') as f:
        torch.save(dict(rnn.named_parameters()), f)
