"""The deep belief net as a generative model: samples, labels, a bound on the likelihood, the up-down algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from pretrain.negative import GradientEstimator
from pretrain.parallel import reduce
from pretrain.plain import check_inputs, plain_linear
from pretrain.rbm import RBM
from pretrain.sampling import bernoulli
from pretrain.schedule import Schedule

RATE = 0.01  # of the up-down algorithm, which refines the greedy training


class DBN(nn.Module):
    """p(v, h¹, …) = p(v | h¹) … p(hᵏ⁻¹ | hᵏ) p(hᵏ, top): directed layers below an RBM (Hinton, Osindero & Teh 2006).

    `layers` are RBMs from the data up, which share their units; those below the top have Bernoulli hidden units. If
    the top has a softmax group, its last visible units, they are labels. Greedy training trains the RBMs one by one
    (`train_greedily(dbn.layers, data, label_units=labels)`). Then `untie` lets the weights that recognise, those of
    `recognition`, and the generative weights differ, and the net is trained as one layer by the up-down algorithm
    (`train_greedily([dbn], data, label_units=labels)`).

    Raises `ValueError` for RBMs that do not fit together.
    """

    def __init__(self, layers: Sequence[RBM]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a deep belief net needs at least one RBM")
        self.classes = sum(layers[-1].groups)
        self.pixels = layers[0].inputs - (self.classes if len(layers) == 1 else 0)
        for index, (below, layer) in enumerate(pairwise(layers), 1):
            labels = self.classes if index == len(layers) - 1 else 0
            if below.outputs + labels != layer.inputs:
                raise ValueError(
                    f"RBM {index} has {below.outputs} hidden units, but the next has {layer.inputs - labels}"
                    " visible ones beside the labels"
                )
            if below.hidden != "bernoulli" or below.groups or layer.visible != "bernoulli":
                raise ValueError("below the top a deep belief net has Bernoulli hidden units, and no labels")
        self.layers: Sequence[RBM] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.recognition: Sequence[nn.Linear] = nn.ModuleList()  # type: ignore[assignment]
        self.inputs, self.outputs = self.pixels + self.classes, layers[-1].outputs

    @property
    def top(self) -> RBM:
        """The RBM at the top."""
        return self.layers[-1]

    # -- inference ------------------------------------------------------------------------------------------------

    def features(self, x: Tensor) -> Tensor:
        """The top RBM's input from images x [batch, pixels], as probabilities, without the labels."""
        for index in range(len(self.layers) - 1):
            x = self._up(index, x)
        return x

    @torch.no_grad()
    def label_log_probabilities(self, x: Tensor) -> Tensor:
        """log p(label | features) [batch, classes] of images x [batch, pixels], from the free energies.

        Source: Hinton, Osindero & Teh 2006, section 6.2. Raises `ValueError` without label units.
        """
        self._need_labels()
        return torch.log_softmax(-self._label_free_energies(self.features(x)), dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """The likeliest label [batch] of images x [batch, pixels]."""
        return self.label_log_probabilities(x).argmax(1)

    # -- generation -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        count: int,
        *,
        labels: Tensor | None = None,
        steps: int = 1000,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples [count, pixels], as means: `steps` steps of Gibbs sampling at the top, then a top-down pass.

        The chains begin at images `start` [count, pixels], or with all hidden units off. With `labels` [count] the
        label units are clamped to them. Raises `ValueError` for unknown or invalid labels.
        """
        top = self.top.conditionals()
        if start is None:
            h = top.bias.new_zeros(count, len(top.bias))
        else:
            h = bernoulli(self.top.encode(self._with_labels(self.features(start), None)), generator)
        clamped = None if labels is None else self._one_hot(labels)
        mean = top.visible_mean(top.visible_field(h))
        for _ in range(steps):
            v = top.visible_sample(mean, generator)
            if clamped is not None:
                v = torch.cat([v[:, : -self.classes], clamped], dim=1)
            field = top.hidden_field(v)
            h = top.hidden_sample(field, top.hidden_mean(field), generator)
            mean = top.visible_mean(top.visible_field(h))
        mean = mean[:, : mean.shape[1] - self.classes]
        for layer in reversed(self.layers[:-1]):
            mean = layer.decode(bernoulli(mean, generator))
        return mean

    # -- likelihood -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_probability_bound(
        self, x: Tensor, log_z: float, *, samples: int = 10, generator: torch.Generator | None = None
    ) -> Tensor:
        """A lower bound on log p(x) [batch] of images x [batch, pixels], in nats, labels summed out.

        E_q[log p(x, h) − log q(h | x)], by so many samples of h an image (Salakhutdinov & Murray 2008, equation 20);
        `log_z` is that of the top RBM.
        """
        total = x.new_zeros(len(x), dtype=torch.float64)
        for _ in range(samples):
            below = x
            for index, layer in enumerate(self.layers[:-1]):
                q = self._up(index, below)
                h = bernoulli(q, generator)
                log_q = -F.binary_cross_entropy(q.double(), h.double(), reduction="none").sum(1)
                total += (-_cost_of(layer, below, h)).double() - log_q
                below = h
            if self.classes:
                log_p = torch.logsumexp(-self._label_free_energies(below), dim=1)
            else:
                log_p = -self.top.free_energy(below)
            total += log_p.double() - log_z
        return total / samples

    # -- the up-down algorithm, as a layer --------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1) of the top's hidden units [batch, outputs] for images and labels x [batch, inputs]."""
        return self.top.encode(torch.cat([self.features(x[:, : self.pixels]), x[:, self.pixels :]], dim=1))

    def sample_code(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A sample of `encode`'s probabilities."""
        return bernoulli(self.encode(x), generator)

    def decode(self, h: Tensor) -> Tensor:
        """Images and labels [batch, inputs] from the top's hidden units [batch, outputs], by means."""
        v = self.top.decode(h)
        features, labels = v[:, : v.shape[1] - self.classes], v[:, v.shape[1] - self.classes :]
        for layer in reversed(self.layers[:-1]):
            features = layer.decode(features)
        return torch.cat([features, labels], dim=1)

    def fill_gradient(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One up-down step's gradients for images and labels x [batch, inputs] (Hinton, Osindero & Teh 2006, appendix
        B): up, generative weights learn from the states above; the top learns by its own `estimator`; down, recognition
        weights learn from the fantasies. Returns [] the squared error of the images predicted from the first hidden
        layer.
        """
        if len(self.layers) > 1 and not self.recognition:
            raise ValueError("untie the weights first: call DBN.untie()")
        images, labels = x[:, : self.pixels], x[:, self.pixels :]
        lower = self.layers[:-1]
        with torch.no_grad():
            wake_states = [images]
            for index in range(len(lower)):
                wake_states.append(bernoulli(self._up(index, wake_states[-1]), generator))
            seen = torch.cat([wake_states[-1], labels], dim=1)
            error = self.top.fill_gradient(seen, generator)
            if not lower:
                return error
            fantasy = self.top.gibbs(seen, self.top.estimator.steps, generator)
            sleep_states = [fantasy[:, : fantasy.shape[1] - self.classes]]
            for layer in reversed(lower):
                sleep_states.insert(0, layer.sample_visible(sleep_states[0], generator))
            error = F.mse_loss(lower[0].decode(wake_states[1]), images, reduction="sum") / len(x)
        cost = images.new_zeros(())
        for index, (layer, (below, above)) in enumerate(zip(lower, pairwise(wake_states), strict=True)):
            cost = cost + _cost_of(layer, below, above).mean()
            lower_state, upper_state = sleep_states[index], sleep_states[index + 1]
            logits = self.recognition[index](lower_state)
            cost = cost + F.binary_cross_entropy_with_logits(logits, upper_state, reduction="sum") / len(x)
        own = [parameter for module in (*lower, *self.recognition) for parameter in module.parameters()]
        for parameter in own:
            parameter.grad = None
        torch.autograd.backward(cost)
        return reduce(own, error)

    def untie(self) -> None:
        """Give the lower layers recognition weights of their own, initially equal to the generative ones."""
        if not self.recognition and len(self.layers) > 1:
            made = [plain_linear(layer.conditionals().scaled(layer.weight), layer.bias) for layer in self.layers[:-1]]
            self.recognition = nn.ModuleList(made)  # type: ignore[assignment]

    def check(self, x: Tensor) -> None:
        """Raises `DataError` for images that the lowest RBM cannot learn from."""
        check_inputs(x, self.inputs, "deep belief net")
        if len(self.layers) > 1:
            self.layers[0].check(x[:, : self.pixels])
        else:
            self.top.check(x)

    def default_optimizer(
        self, parameters: Iterable[nn.Parameter], learning_rate: float | None, momentum: float | None
    ) -> torch.optim.Optimizer:
        """SGD at 0.01 without momentum."""
        rate = RATE if learning_rate is None else learning_rate
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum or 0.0)

    def default_momentum(self) -> Schedule | None:
        """None."""
        return None

    def encoder(self) -> list[nn.Module]:
        """Raises `ValueError`: a plain net is made of `layers`."""
        raise ValueError("make a plain net of a deep belief net's layers: classifier(dbn.layers[:-1], …)")

    def decoder(self) -> list[nn.Module]:
        """Raises `ValueError`: a plain net is made of `layers`."""
        return self.encoder()

    def state(self) -> dict[str, Tensor]:
        """What training carries from step to step: the top's chains."""
        return self.top.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.top.load_state(state)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _up(self, index: int, x: Tensor) -> Tensor:
        """q(h = 1 | x) of a lower layer [batch, outputs]."""
        if self.recognition:
            return torch.sigmoid(self.recognition[index](x))
        return self.layers[index].encode(x)

    def _label_free_energies(self, features: Tensor) -> Tensor:
        """F(features, label) [batch, classes], for each label."""
        top = self.top.conditionals()
        plain = torch.cat([features, features.new_zeros(len(features), self.classes)], dim=1)
        field, own = top.hidden_field(plain), top.own_energy(plain)
        columns, biases = top.weight[:, -self.classes :], top.visible_bias[-self.classes :]
        energies = [own - biases[k] - top.hidden_log_sum(field + columns[:, k]) for k in range(self.classes)]
        return torch.stack(energies, dim=1)

    def _with_labels(self, features: Tensor, labels: Tensor | None) -> Tensor:
        if not self.classes:
            return features
        one_hot = torch.full_like(features[:, : self.classes], 1 / self.classes) if labels is None else labels
        return torch.cat([features, one_hot], dim=1)

    def _one_hot(self, labels: Tensor) -> Tensor:
        self._need_labels()
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"labels must lie in 0 to {self.classes - 1}, not {int(labels.min())} to {int(labels.max())}"
            )
        return F.one_hot(labels, self.classes).to(self.top.bias)

    def _need_labels(self) -> None:
        if not self.classes:
            raise ValueError("this net has no label units: give its top RBM a softmax group")


def deep_belief_net(
    *sizes: int,
    classes: int = 0,
    visible: str = "bernoulli",
    estimator: GradientEstimator | None = None,
    generator: torch.Generator | None = None,
) -> DBN:
    """A net of RBMs between these numbers of units, from the pixels up, with `classes` label units at the top."""
    if len(sizes) < 2:
        raise ValueError("a net needs the number of visible units and of at least one layer of hidden units")
    rbms = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        top = index == len(sizes) - 2
        rbms.append(
            RBM(
                inputs + (classes if top else 0),
                outputs,
                visible=visible if index == 0 else "bernoulli",  # type: ignore[arg-type]  # the RBM checks it
                groups=(classes,) if top and classes else (),
                estimator=estimator,
                generator=generator,
            )
        )
    return DBN(rbms)


def _cost_of(layer: RBM, v: Tensor, h: Tensor) -> Tensor:
    """−log p(v | h) [batch]."""
    top = layer.conditionals()
    field = top.visible_field(h)
    if layer.log_variance is None:
        return F.binary_cross_entropy_with_logits(field, v, reduction="none").sum(1)
    return F.gaussian_nll_loss(field, v, layer.log_variance.exp().expand_as(v), full=True, reduction="none").sum(1)
