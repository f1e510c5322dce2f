"""The table of remedies: what each changes, why it should work, and where it comes from. Standard library only.

A finding names the remedies that may help it by their names here; `gradtui train --with` and `gradtui compare --with`
apply them to a recipe. A choice of a recipe's field (`choices("activation")`) is an entry too, so that it is described
in one place for the command line, for Python and for the terminal UI. Those that are a number stand beside their field
of the recipe, in `gradtui.lab.recipe_fields`.

Your own remedy, in your code or in a module that an entry point of the group `gradtui.remedies` names:

    from gradtui.remedies import Remedy, register
    register(Remedy("fewer-images", "training", "half as many images", "a quick look", "—", {"train_size": 600}))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradtui.errors import UsageError
from gradtui.format import hint
from gradtui.registry import Registry

FAMILIES = {
    "activation": "what a unit does with its weighted sum",
    "initialisation": "the weights before the first step",
    "normalisation": "scales kept level while the net learns",
    "architecture": "shorter ways for the gradient",
    "recurrent": "nets that read a sequence",
    "gradient": "bounds on the gradient",
    "weights": "bounds and decay of the weights",
    "loss": "what is minimised",
    "optimizer": "how a gradient becomes a step",
    "regularisation": "less net, or less training",
    "pretraining": "layers learnt one at a time, before the whole net",
    "training": "what to look at, or to change, in a training loop of your own",
}


@dataclass(frozen=True)
class Remedy:
    """One entry of the table.

    Args:
        name: what findings and `--with` call it.
        family: one of `FAMILIES`, or of your own.
        what: what it is, in a few words.
        why: why it should work.
        source: who found it, e.g. a paper.
        changes: fields of a recipe and their new values; if the first one is a choice, e.g. of an activation, this is
            the entry of that choice. Neither this nor `scales`: a remedy for training code, which no recipe can take.
        scales: factors of what a recipe has: of its `learning_rate`, or of the `width` or `depth` of its hidden layers.
    """

    name: str
    family: str
    what: str
    why: str
    source: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_for_recipes(self) -> bool:
        """Whether `--with` takes it."""
        return bool(self.changes or self.scales)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**vars(self), "changes": dict(self.changes), "scales": dict(self.scales)}


REMEDIES: Registry[Remedy] = Registry("remedy", "gradtui.remedies", "gradtui.lab.recipe_fields")


def register(remedy: Remedy) -> Remedy:
    """Add a remedy to the table; raises `UsageError` for one that is none, or whose name is taken."""
    if not isinstance(remedy, Remedy):
        raise UsageError(f"a gradtui.Remedy is wanted, not {remedy!r}")
    if not all(isinstance(text, str) and text for text in (remedy.name, remedy.family, remedy.what)):
        raise UsageError(f"a remedy needs a name, a family and words on what it is: {remedy!r}")
    return REMEDIES.register(remedy.name, remedy)


def find(name: str) -> Remedy:
    """An entry of the table; raises `UsageError` with near names if there is none."""
    if name not in REMEDIES:
        families = dict.fromkeys(remedy.family for remedy in REMEDIES.values())
        near = hint(name, REMEDIES, f"`gradtui remedies FAMILY` lists those of {', '.join(families)}")
        raise UsageError(f"there is no remedy {name[:40]!r}: {near}")
    return REMEDIES[name]


def of_family(name: str | None = None) -> list[Remedy]:
    """The remedies of a family, or all of them family by family; raises `UsageError` if there is no such family."""
    families = dict.fromkeys([*FAMILIES, *(remedy.family for remedy in REMEDIES.values())])
    if name is not None and name not in families:
        raise UsageError(f"there is no family {name!r} of remedies: {hint(name, families)}")
    chosen = families if name is None else [name]
    return [remedy for family in chosen for remedy in REMEDIES.values() if remedy.family == family]


def choices(field: str) -> dict[str, Remedy]:
    """The values that a choice of a recipe may take, in the order of the table, each with its entry."""
    found: dict[str, Remedy] = {}
    for remedy in REMEDIES.values():
        if next(iter(remedy.changes), None) == field:
            found.setdefault(str(remedy.changes[field]), remedy)
    return found


def _add(
    name: str, family: str, what: str, why: str, source: str, scales: Mapping[str, float] | None = None, **changes: Any
) -> None:
    register(Remedy(name, family, what, why, source, changes, scales or {}))


# fmt: off
_add("sigmoid", "activation", "1/(1+e^-z)", "its slope is at most 1/4: gradients shrink layer by layer",
     "Nielsen 2015", activation="sigmoid")
_add("tanh", "activation", "tanh z", "its slope reaches 1, so gradients shrink less", "LeCun et al. 1998",
     activation="tanh")
_add("softplus", "activation", "ln(1+e^z)", "a smooth ReLU: its slope is a sigmoid, and never 0", "Dugas et al. 2001",
     activation="softplus")
_add("relu", "activation", "max(0, z)", "its slope is 1 where it is on: nothing shrinks", "Nair & Hinton 2010",
     activation="relu")
_add("leaky-relu", "activation", "z, or slope·z below 0 (--slope, default 0.01)",
     "a unit that is off still passes some gradient, so none dies", "Maas et al. 2013", activation="leaky-relu")
_add("prelu", "activation", "z, or a·z below 0, a learnt by each unit (from --slope, default 0.25)",
     "each unit learns how much gradient it passes when it is off", "He et al. 2015", activation="prelu")
_add("elu", "activation", "z, or e^z − 1 below 0", "its mean is near 0, and it is smooth", "Clevert et al. 2016",
     activation="elu")
_add("selu", "activation", "λz, or λα(e^z − 1) below 0", "with LeCun's weights, mean 0 and variance 1 keep themselves",
     "Klambauer et al. 2017", activation="selu")
_add("gelu", "activation", "z·Φ(z)", "weighs its input by how large it is instead of by its sign alone",
     "Hendrycks & Gimpel 2016", activation="gelu")
_add("silu", "activation", "z·σ(z)", "smooth, and not monotonic: some gradient passes below 0", "Elfwing et al. 2018",
     activation="silu")
_add("maxout", "activation", "the larger of two weighted sums",
     "linear almost everywhere: the gradient passes unchanged", "Goodfellow et al. 2013", activation="maxout")
_add("normal", "initialisation", "weights and biases N(0, σ²) (--sigma, default 1)",
     "the naive choice: wide layers saturate", "Nielsen 2015, ch. 1", init="normal")
_add("scaled", "initialisation", "weights N(0, 1/fan_in), biases N(0, 1)", "keeps sums of many inputs small",
     "Nielsen 2015, ch. 3", init="scaled")
_add("uniform", "initialisation", "weights U(±1/√fan_in), biases 0",
     "the old habit: a variance of 1/(3 fan_in) lets gradients decay with depth", "Glorot & Bengio 2010, eq. 1",
     init="uniform")
_add("lecun", "initialisation", "weights N(0, 1/fan_in), biases 0", "keeps the variance level on the way forward",
     "LeCun et al. 1998", init="lecun")
_add("xavier", "initialisation", "weights N(0, 2/(fan_in+fan_out)), biases 0", "keeps variances level both ways",
     "Glorot & Bengio 2010, eq. 12", init="xavier")
_add("xavier-uniform", "initialisation", "weights U(±√(6/(fan_in+fan_out))), biases 0",
     "the same variance, from a uniform distribution", "Glorot & Bengio 2010, eq. 16", init="xavier-uniform")
_add("he", "initialisation", "weights N(0, 2/fan_in), biases 0", "as LeCun's, for units that are off half of the time",
     "He et al. 2015", init="he")
_add("he-uniform", "initialisation", "weights U(±√(6/fan_in)), biases 0",
     "the same variance, from a uniform distribution", "He et al. 2015", init="he-uniform")
_add("orthogonal", "initialisation", "a random orthogonal matrix, biases 0",
     "a linear net of any depth passes gradients at their length", "Saxe et al. 2014", init="orthogonal")
_add("lsuv", "initialisation", "orthogonal, then each layer scaled until its outputs have variance 1",
     "measures on a batch what formulas only promise", "Mishkin & Matas 2016", init="lsuv")
_add("identity", "initialisation", "recurrent weights I, others N(0, 0.001²), biases 0",
     "a ReLU net that copies its state forgets nothing", "Le et al. 2015", init="identity")
_add("chain", "initialisation", "weights 100, biases −100·input", "every z is 0 and every factor w·σ′(z) is 25",
     "Nielsen 2015, ch. 5", init="chain")
_add("batch-norm", "normalisation", "each unit normalised over the batch",
     "no layer's scale can drift, so no gradient shrinks or grows for long", "Ioffe & Szegedy 2015", norm="batch")
_add("layer-norm", "normalisation", "each image normalised over the units of a layer",
     "as BatchNorm, whatever the size of the batch", "Ba et al. 2016", norm="layer")
_add("rms-norm", "normalisation", "each image divided by its root mean square over the units",
     "LayerNorm without the mean: cheaper, and as good", "Zhang & Sennrich 2019", norm="rms")
_add("lrn", "normalisation", "a unit's output divided by that of its neighbours",
     "lets units compete; it does little for gradients", "Krizhevsky et al. 2012", norm="lrn")
_add("inputs-0-1", "normalisation", "inputs in [0, 1]",
     "all inputs positive: weights of a unit move up or down together", "LeCun et al. 1998", input_scale="unit")
_add("inputs-symmetric", "normalisation", "inputs in [−1, 1]",
     "inputs near mean 0 let the weights of a unit move apart", "LeCun et al. 1998", input_scale="symmetric")
_add("inputs-standardised", "normalisation", "each input with mean 0 and variance 1 over the training images",
     "all inputs have the same scale, so the loss is less stretched in some directions", "LeCun et al. 1998",
     input_scale="standardised")
_add("plain", "architecture", "one layer after the other", "the twin without shortcuts, to compare with",
     "Rumelhart et al. 1986", net="plain")
_add("residual", "architecture", "two layers a block, whose input is added to their output",
     "the gradient comes back unchanged along the shortcuts", "He et al. 2016 (pre-activation)", net="residual")
_add("highway", "architecture", "a learnt gate mixes each layer's input and output",
     "a closed gate carries state and gradient past the layer", "Srivastava et al. 2015", net="highway")
_add("dense", "architecture", "each layer sees the outputs of all before it",
     "every layer has a short way to the loss", "Huang et al. 2017", net="dense")
_add("rnn", "recurrent", "h = tanh(Wx + Uh + b)", "the classical net, whose gradient vanishes over time", "Elman 1990",
     net="rnn", activation="tanh")
_add("irnn", "recurrent", "a ReLU RNN that starts with U = I",
     "at first its state, and its gradient, pass through time unchanged", "Le et al. 2015", net="rnn",
     activation="relu", init="identity")
_add("lstm", "recurrent", "gates around a carried state c (--forget-bias: the forget gate starts open)",
     "through an open forget gate the gradient of c passes unchanged",
     "Hochreiter & Schmidhuber 1997; Gers et al. 2000", net="lstm", activation="tanh", forget_bias=3.0)
_add("gru", "recurrent", "two gates, and no second state", "an update gate that is shut carries h, and its gradient",
     "Cho et al. 2014", net="gru", activation="tanh")
_add("cross-entropy", "loss", "cross-entropy summed over sigmoid outputs",
     "the output's own slope cancels: a wrong, saturated output learns fast", "Nielsen 2015, ch. 3",
     cost="cross-entropy")
_add("softmax", "loss", "cross-entropy of softmax outputs", "the usual cost of a classifier; nothing saturates",
     "Bridle 1990", cost="softmax")
_add("quadratic", "loss", "half the squared error of sigmoid outputs",
     "saturated outputs learn slowly, however wrong they are", "Nielsen 2015, ch. 1", cost="quadratic")
_add("softmax-quadratic", "loss", "half the squared error of softmax outputs",
     "softmax saturates too: its slope is in the gradient", "Golik et al. 2013", cost="softmax-quadratic")
_add("squared", "loss", "mean squared error of linear outputs", "for numbers, not classes", "Legendre 1805",
     cost="squared")
_add("sgd", "optimizer", "a step down the gradient of a batch",
     "the yardstick: layers move as fast as their gradients say", "Robbins & Monro 1951", optimizer="sgd",
     momentum=0.0)
_add("nesterov", "optimizer", "momentum that looks ahead", "brakes before the slope turns",
     "Nesterov 1983; Sutskever et al. 2013", optimizer="nesterov", momentum=0.9)
_add("adagrad", "optimizer", "each weight's rate over the length of its past gradients",
     "small gradients get large rates", "Duchi et al. 2011", optimizer="adagrad")
_add("adadelta", "optimizer", "steps in proportion to recent steps over gradients", "needs hardly a learning rate",
     "Zeiler 2012", optimizer="adadelta")
_add("rmsprop", "optimizer", "the gradient over its recent root mean square",
     "a layer with gradients of 1e-6 steps as far as one with 1", "Tieleman & Hinton 2012", optimizer="rmsprop")
_add("adam", "optimizer", "momentum over the recent root mean square",
     "vanished gradients are scaled up again, layer by layer", "Kingma & Ba 2015", optimizer="adam")
_add("adamw", "optimizer", "Adam with decay outside of the gradient", "decays all weights alike",
     "Loshchilov & Hutter 2019", optimizer="adamw", decay=0.01)
_add("constant", "optimizer", "one rate throughout", "the yardstick", "—", schedule="constant")
_add("step-decay", "optimizer", "a tenth of the rate after half, and again after 3/4",
     "settles after the large steps are done", "He et al. 2015", schedule="step")
_add("exponential", "optimizer", "a rate that falls evenly to a hundredth", "settles little by little",
     "Robbins & Monro 1951", schedule="exponential")
_add("linear", "optimizer", "a rate that falls in a line to 0", "settles at the end", "Goyal et al. 2017",
     schedule="linear")
_add("cosine", "optimizer", "a rate that falls along half a cosine to 0",
     "large steps for long, small ones at the end", "Loshchilov & Hutter 2017", schedule="cosine")
_add("rbm", "pretraining", "each layer first learns as a restricted Boltzmann machine",
     "starts where features are already in place", "Hinton et al. 2006", pretrain="rbm")
_add("autoencoder", "pretraining", "each layer first learns to restore its input",
     "starts where features are already in place", "Bengio et al. 2007", pretrain="autoencoder")
_add("denoising", "pretraining", "each layer first learns to restore a corrupted input",
     "features that hold up against noise", "Vincent et al. 2010", pretrain="denoising")
_add("supervised", "pretraining", "each layer first learns to classify on top of those below",
     "each layer is trained while it is the last", "Bengio et al. 2007", pretrain="supervised")
_add("lower-rate", "training", "a third of the learning rate",
     "a step that is too long for the curvature of the loss makes it grow instead of fall", "LeCun et al. 1998",
     scales={"learning_rate": 1 / 3})
_add("higher-rate", "training", "three times the learning rate",
     "steps of far less than a thousandth of the weights need very many epochs", "Bengio 2012",
     scales={"learning_rate": 3.0})
_add("smaller-init", "training", "first weights of a smaller variance, such as N(0, 0.1²)",
     "large sums saturate units, and make gradients grow from layer to layer", "Glorot & Bengio 2010",
     init="normal", sigma=0.1)
_add("epsilon", "training", "a small ε inside each logarithm, root and division, e.g. log(p + 1e-8)",
     "log 0 and 1/0 are infinite, and so is the slope of √x at 0", "Goodfellow et al. 2016, sec. 4.1")
_add("larger-epsilon", "training", "a larger ε in the optimizer, e.g. Adam(…, eps=1e-4) where parameters are float16",
     "what is below 6e-8 is 0 in float16, and 0 divided by 0 is NaN", "PyTorch, torch.optim.Adam")
_add("wider-format", "training", "bfloat16 or float32 in place of float16, if only for that layer",
     "float16 ends at 65,504, bfloat16 and float32 at 3.4e38", "Micikevicius et al. 2018")
_add("scale-loss", "training", "torch.amp.GradScaler around the loss, and its steps",
     "it leaves out steps whose gradients overflow, and scales small ones up", "Micikevicius et al. 2018")
_add("partial-mask", "training", "one place unmasked in each row of a softmax, or a large negative number for -∞",
     "the softmax of a row that is all -∞ is 0/0", "PyTorch, issue 24816")
_add("check-data", "training", "look for NaN, infinite and very large values among the inputs",
     "one of them makes the loss NaN, and then every weight", "Goodfellow et al. 2016, sec. 11.5")
_add("check-labels", "training", "look whether labels belong to their inputs, and lie from 0 to classes − 1",
     "from labels that do not depend on the inputs, nothing can be learnt that holds on new data",
     "Goodfellow et al. 2016, sec. 11.5")
_add("add-to-optimizer", "training", "hand the layer's parameters to the optimizer, e.g. SGD(model.parameters())",
     "a parameter that no optimizer holds keeps its first value", "PyTorch, torch.optim")
_add("unfreeze", "training", "set requires_grad to True for the layer's parameters",
     "a parameter without it gets no gradient", "PyTorch, autograd mechanics")
_add("attach", "training", "no detach(), no_grad(), .data or NumPy between the layer and the loss",
     "each of them cuts the graph: no gradient comes back past it", "PyTorch, autograd mechanics")
# fmt: on
