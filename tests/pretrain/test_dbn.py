"""Deep belief nets against enumeration, and what they make of the digits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.data import digits
from pretrain.dbn import DBN, deep_belief_net
from pretrain.errors import DataError
from pretrain.greedy import train_greedily
from pretrain.likelihood import exact_log_z
from pretrain.negative import GradientEstimator
from pretrain.rbm import RBM
from pretrain.sampling import bernoulli
from tests.pretrain.layers import KillAt, Killed
from tests.pretrain.test_rbm import all_bits


def tiny(*sizes: int, classes: int = 0, seed: int = 0, visible: str = "bernoulli") -> DBN:
    """A net with weights that matter, in float64."""
    net = deep_belief_net(
        *sizes, classes=classes, visible=visible, estimator=GradientEstimator(weight_cost=0.0)
    ).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


def with_labels(features: Tensor, label: int, classes: int) -> Tensor:
    one_hot = F.one_hot(torch.tensor(label), classes).double().expand(len(features), -1)
    return torch.cat([features, one_hot], dim=1)


def exact_log_p(net: DBN, v: Tensor) -> Tensor:
    """log p(v) of a net of two RBMs, every first hidden layer written down."""
    first, top = net.layers
    h = all_bits(first.outputs)
    if net.classes:
        energies = [top.free_energy(with_labels(h, k, net.classes)) for k in range(net.classes)]
        log_top = torch.logsumexp(-torch.stack(energies), dim=0) - exact_log_z(top)
    else:
        log_top = -top.free_energy(h) - exact_log_z(top)
    assert float(log_top.detach().exp().sum()) == pytest.approx(1.0)
    on = first.decode(h)  # [h, pixels]
    log_v = v @ on.log().t() + (1 - v) @ torch.log1p(-on).t()
    return torch.logsumexp(log_v + log_top, dim=1).detach()


@pytest.mark.parametrize("classes", [0, 3])
def test_the_bound_is_below_the_likelihood(classes: int) -> None:
    net, v = tiny(5, 4, 3, classes=classes), all_bits(5)
    bound = net.log_probability_bound(v, exact_log_z(net.top), samples=4000, generator=torch.Generator().manual_seed(0))
    exact = exact_log_p(net, v)
    assert (bound < exact + 0.05).all()
    assert (exact - bound).mean() > 0.1, "these two RBMs do not fit: the bound is not tight"


def test_the_bound_is_tight_where_the_top_undoes_the_rbm_below() -> None:
    # then the net is the lower RBM, whose posterior is factorial (Hinton, Osindero & Teh 2006, section 4)
    net, v = tiny(5, 4, 5), all_bits(5)
    first, top = net.layers
    with torch.no_grad():
        top.weight.copy_(first.weight.t())
        top.visible_bias.copy_(first.bias)
        top.bias.copy_(first.visible_bias)
    generator = torch.Generator().manual_seed(0)
    bound = net.log_probability_bound(v, exact_log_z(top), samples=3, generator=generator)
    torch.testing.assert_close(bound, -first.free_energy(v).detach() - exact_log_z(first))
    torch.testing.assert_close(bound, exact_log_p(net, v))


def test_samples_have_the_nets_own_distribution() -> None:
    net, v = tiny(4, 3, 3), all_bits(4)
    generator = torch.Generator().manual_seed(1)
    drawn = bernoulli(net.sample(30_000, steps=60, generator=generator).detach(), generator)
    share = exact_log_p(net, v).exp()
    for configuration, probability in zip(v, share, strict=True):
        found = float((drawn == configuration).all(1).double().mean())
        assert abs(found - probability) < 5 * float(probability * (1 - probability) / 30_000) ** 0.5


def test_labels_have_the_probabilities_of_the_enumerated_top() -> None:
    net, v = tiny(5, 4, 3, classes=3), all_bits(5)
    found = net.label_log_probabilities(v).exp()
    features = net.features(v)
    h = all_bits(3)
    weights = []
    for k in range(3):
        seen = with_labels(features, k, 3)
        every = torch.stack([-net.top.energy(seen, row.expand(len(seen), -1)) for row in h], dim=1)
        weights.append(torch.logsumexp(every, dim=1).exp())
    share = torch.stack(weights, dim=1)
    torch.testing.assert_close(found, (share / share.sum(1, keepdim=True)).detach())
    assert (net.classify(v) == share.argmax(1)).all()


def test_held_labels_condition_the_samples() -> None:
    net = tiny(4, 3, 3, classes=2)
    generator = torch.Generator().manual_seed(1)
    label = torch.ones(30_000, dtype=torch.int64)
    drawn = bernoulli(net.sample(30_000, labels=label, steps=60, generator=generator).detach(), generator)
    h = all_bits(3)
    log_top = -net.top.free_energy(with_labels(h, 1, 2))
    on = net.layers[0].decode(h)
    mean = torch.softmax(log_top, 0) @ on
    assert ((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / 30_000**0.5).all()


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_up_down_gradient_is_that_of_what_each_layer_predicts(visible: str) -> None:
    net = tiny(5, 4, 3, 4, classes=2, visible=visible)
    net.untie()
    x = torch.cat([all_bits(5)[[3, 9, 30]], F.one_hot(torch.tensor([0, 1, 1]), 2).double()], dim=1)
    net.fill_gradient(x, torch.Generator().manual_seed(7))
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    assert set(found) == {name for name, _ in net.named_parameters() if name != "layers.0.bias"} - {"layers.1.bias"}
    # the same draws once more, by hand
    generator = torch.Generator().manual_seed(7)
    first, second, top = net.layers
    h1 = bernoulli(torch.sigmoid(net.recognition[0](x[:, :5])), generator).detach()
    h2 = bernoulli(torch.sigmoid(net.recognition[1](h1)), generator).detach()
    seen = torch.cat([h2, x[:, 5:]], dim=1)
    top.fill_gradient(seen, generator)
    for name, parameter in top.named_parameters():
        torch.testing.assert_close(found[f"layers.2.{name}"], parameter.grad)
    dream2 = top.gibbs(seen, 1, generator)[:, :3]
    dream1 = second.sample_visible(dream2, generator).detach()
    dream0 = first.sample_visible(dream1, generator).detach()
    net.zero_grad()
    log_p = torch.zeros((), dtype=torch.float64)
    for rbm, below, above in ((first, x[:, :5], h1), (second, h1, h2)):
        mean = rbm.decode(above)
        if rbm.log_variance is None:
            log_p = log_p + torch.distributions.Bernoulli(mean).log_prob(below).sum()
        else:
            spread = torch.exp(rbm.log_variance / 2)
            log_p = log_p + torch.distributions.Normal(mean, spread).log_prob(below).sum()
    for recognise, below, above in ((net.recognition[0], dream0, dream1), (net.recognition[1], dream1, dream2)):
        log_p = log_p + torch.distributions.Bernoulli(logits=recognise(below)).log_prob(above).sum()
    torch.autograd.backward(-log_p / 3)
    for name, parameter in net.named_parameters():
        if parameter.grad is not None and "layers.2" not in name:
            torch.testing.assert_close(found[name], parameter.grad)


@pytest.fixture(scope="module")
def digits_net() -> DBN:
    data = digits()
    generator = torch.Generator().manual_seed(0)
    net = deep_belief_net(64, 60, 120, classes=10, generator=generator)
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    result = train_greedily(
        net.layers, images, label_units=labels, epochs=40, batch_size=20, learning_rate=0.05, generator=generator
    )
    assert result.finished and len(result.errors) == 2
    return net


def test_it_learns_to_tell_the_digits_and_up_down_keeps_or_betters_it(digits_net: DBN) -> None:
    data = digits()
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    test, right = torch.from_numpy(data.test.images), torch.from_numpy(data.test.labels)
    before = float((digits_net.classify(test) == right).float().mean())
    assert before > 0.85
    digits_net.untie()
    train_greedily([digits_net], images, label_units=labels, epochs=15, batch_size=20)
    after = float((digits_net.classify(test) == right).float().mean())
    assert after >= before - 0.02
    first = digits_net.layers[0]
    assert not torch.equal(digits_net.recognition[0].weight, first.weight), "the two have gone apart"


def test_its_fantasies_of_a_label_look_like_that_digit(digits_net: DBN) -> None:
    data = digits()
    judge = LogisticRegression(max_iter=2000).fit(data.train.images, data.train.labels)
    wanted = torch.arange(10).repeat(20)
    drawn = digits_net.sample(200, labels=wanted, steps=200, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 64) and drawn.min() >= 0 and drawn.max() <= 1
    agreed = (judge.predict(drawn.detach().numpy()) == wanted.numpy()).mean()
    assert agreed > 0.7, "ten digits: chance is 0.1"


def test_killed_while_training_up_and_down_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    images, labels = torch.from_numpy(digits().train.images[:100]), torch.from_numpy(digits().train.labels[:100])

    def train(path: Path | None, kill: int | None) -> Tensor:
        net = deep_belief_net(
            64, 12, 10, classes=10, estimator=GradientEstimator(method="pcd", chains=8),
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        net.untie()
        killer: Callable[[object], None] | None = None if kill is None else KillAt(kill)
        train_greedily(
            [net], images, label_units=labels, epochs=3, batch_size=20, checkpoint=path, checkpoint_every=0,
            on_step=killer,
        )  # fmt: skip
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    whole, path = train(None, None), tmp_path / "net.safetensors"
    for kill in (1, 4, 6):
        with pytest.raises(Killed):
            train(path, kill)
    assert torch.equal(train(path, None), whole)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DBN([]), "at least one RBM"),
        (lambda: DBN([RBM(4, 3), RBM(4, 2)]), "RBM 1 has 3 hidden units, but the next has 4"),
        (lambda: DBN([RBM(4, 3, hidden="rectified"), RBM(3, 2)]), "Bernoulli hidden units"),
        (lambda: DBN([RBM(4, 3), RBM(3, 2)]).classify(torch.zeros(1, 4)), "no label units"),
        (lambda: deep_belief_net(4), "number of visible units"),
        (lambda: deep_belief_net(4, 3, classes=2).sample(1, labels=torch.tensor([5])), "labels must lie in 0 to 1"),
        (lambda: deep_belief_net(4, 3, 2).fill_gradient(torch.zeros(1, 4)), "untie the weights first"),
        (lambda: deep_belief_net(4, 3).encoder(), "of a deep belief net's layers"),
        (lambda: train_greedily([RBM(4, 3)], torch.zeros(2, 4), label_units=torch.tensor([0, 1])), "no label units"),
    ],
)
def test_what_cannot_be_done_is_one_line(make: Callable[[], object], says: str) -> None:
    with pytest.raises((ValueError, DataError), match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_sizes_chain_up_to_the_labels() -> None:
    net = deep_belief_net(9, 7, 5, 4, classes=3)
    assert [(layer.inputs, layer.outputs) for layer in net.layers] == [(9, 7), (7, 5), (8, 4)]
    assert all(below.outputs <= above.inputs for below, above in pairwise(net.layers))
