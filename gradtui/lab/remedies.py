"""The table of remedies: what each changes in a recipe, where it comes from, and why it should work.

Standard library only. A choice of a recipe's field (`choices("activation")`) is an entry of this table too, so that a
remedy is described in one place for the command line, for Python and for the terminal UI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    "regularity": "less net, or less training",
    "pretraining": "layers learnt one at a time, before the whole net",
}


@dataclass(frozen=True)
class Remedy:
    """One entry: `changes` are the fields of a recipe that it sets; `what`, `why` and `source` are for people.

    A change to `hidden` that is a number scales: `("width", 0.5)` halves each layer, `("depth", 0.5)` the layers.
    """

    name: str
    family: str
    changes: Mapping[str, Any]
    what: str
    why: str
    source: str

    def changes_of(self, hidden: tuple[int, ...]) -> dict[str, Any]:
        """The changes for a net of these hidden layers."""
        found = dict(self.changes)
        how = found.pop("scale", None)
        if how == "width":
            found["hidden"] = tuple(max(1, units // 2) for units in hidden)
        elif how == "depth":
            found["hidden"] = hidden[: max(1, len(hidden) // 2)]
        return found


def choices(field: str) -> dict[str, Remedy]:
    """The values that a field may take, in the order of the table, each with its entry."""
    return {str(remedy.changes[field]): remedy for remedy in _TABLE if next(iter(remedy.changes), None) == field}


def family(name: str) -> list[Remedy]:
    """The members of a family."""
    return [remedy for remedy in _TABLE if remedy.family == name]


def _activation(name: str, what: str, why: str, source: str) -> Remedy:
    return Remedy(name, "activation", {"activation": name}, what, why, source)


def _initialisation(name: str, what: str, why: str, source: str) -> Remedy:
    return Remedy(name, "initialisation", {"init": name}, what, why, source)


# fmt: off
_TABLE = (
    _activation("sigmoid", "1/(1+e^-z)", "its slope is at most 1/4: gradients shrink layer by layer", "Nielsen 2015"),
    _activation("tanh", "tanh z", "its slope reaches 1, so gradients shrink less", "LeCun et al. 1998"),
    _activation("softplus", "ln(1+e^z)", "a smooth ReLU: its slope is a sigmoid, and never 0", "Dugas et al. 2001"),
    _activation("relu", "max(0, z)", "its slope is 1 where it is on: nothing shrinks", "Nair & Hinton 2010"),
    _activation("leaky-relu", "z, or slope·z below 0 (--slope, default 0.01)",
                "a unit that is off still passes some gradient, so none dies", "Maas et al. 2013"),
    _activation("prelu", "z, or a·z below 0, a learnt by each unit (from --slope, default 0.25)",
                "each unit learns how much gradient it passes when it is off", "He et al. 2015"),
    _activation("elu", "z, or e^z − 1 below 0", "its mean is near 0, and it is smooth", "Clevert et al. 2016"),
    _activation("selu", "λz, or λα(e^z − 1) below 0", "with LeCun's weights, mean 0 and variance 1 keep themselves",
                "Klambauer et al. 2017"),
    _activation("gelu", "z·Φ(z)", "weighs its input by how large it is instead of by its sign alone",
                "Hendrycks & Gimpel 2016"),
    _activation("silu", "z·σ(z)", "smooth, and not monotonic: some gradient passes below 0", "Elfwing et al. 2018"),
    _activation("maxout", "the larger of two weighted sums", "linear almost everywhere: the gradient passes unchanged",
                "Goodfellow et al. 2013"),
    _initialisation("normal", "weights and biases N(0, σ²) (--sigma, default 1)",
                    "the naive choice: wide layers saturate", "Nielsen 2015, ch. 1"),
    _initialisation("scaled", "weights N(0, 1/fan_in), biases N(0, 1)", "keeps sums of many inputs small",
                    "Nielsen 2015, ch. 3"),
    _initialisation("uniform", "weights U(±1/√fan_in), biases 0",
                    "the old habit: a variance of 1/(3 fan_in) lets gradients decay with depth",
                    "Glorot & Bengio 2010, eq. 1"),
    _initialisation("lecun", "weights N(0, 1/fan_in), biases 0", "keeps the variance level on the way forward",
                    "LeCun et al. 1998"),
    _initialisation("xavier", "weights N(0, 2/(fan_in+fan_out)), biases 0", "keeps variances level both ways",
                    "Glorot & Bengio 2010, eq. 12"),
    _initialisation("xavier-uniform", "weights U(±√(6/(fan_in+fan_out))), biases 0",
                    "the same variance, from a uniform distribution", "Glorot & Bengio 2010, eq. 16"),
    _initialisation("he", "weights N(0, 2/fan_in), biases 0", "as LeCun's, for units that are off half of the time",
                    "He et al. 2015"),
    _initialisation("he-uniform", "weights U(±√(6/fan_in)), biases 0",
                    "the same variance, from a uniform distribution", "He et al. 2015"),
    _initialisation("orthogonal", "a random orthogonal matrix, biases 0",
                    "a linear net of any depth passes gradients at their length", "Saxe et al. 2014"),
    _initialisation("lsuv", "orthogonal, then each layer scaled until its outputs have variance 1",
                    "measures on a batch what formulas only promise", "Mishkin & Matas 2016"),
    _initialisation("identity", "recurrent weights I, others N(0, 0.001²), biases 0",
                    "a ReLU net that copies its state forgets nothing", "Le et al. 2015"),
    _initialisation("chain", "weights 100, biases −100·input", "every z is 0 and every factor w·σ′(z) is 25",
                    "Nielsen 2015, ch. 5"),
    Remedy("batch-norm", "normalisation", {"norm": "batch"}, "each unit normalised over the batch",
           "no layer's scale can drift, so no gradient shrinks or grows for long", "Ioffe & Szegedy 2015"),
    Remedy("layer-norm", "normalisation", {"norm": "layer"}, "each image normalised over the units of a layer",
           "as BatchNorm, whatever the size of the batch", "Ba et al. 2016"),
    Remedy("rms-norm", "normalisation", {"norm": "rms"}, "each image divided by its root mean square over the units",
           "LayerNorm without the mean: cheaper, and as good", "Zhang & Sennrich 2019"),
    Remedy("lrn", "normalisation", {"norm": "lrn"}, "a unit's output divided by that of its neighbours",
           "lets units compete; it does little for gradients", "Krizhevsky et al. 2012"),
    Remedy("inputs-0-1", "normalisation", {"input_scale": "unit"}, "inputs in [0, 1]",
           "all inputs positive: weights of a unit move up or down together", "LeCun et al. 1998"),
    Remedy("inputs-symmetric", "normalisation", {"input_scale": "symmetric"}, "inputs in [−1, 1]",
           "inputs near mean 0 let the weights of a unit move apart", "LeCun et al. 1998"),
    Remedy("inputs-standardised", "normalisation", {"input_scale": "standardised"},
           "each input with mean 0 and variance 1 over the training images",
           "all inputs speak equally loud: the descent is not stretched", "LeCun et al. 1998"),
    Remedy("plain", "architecture", {"net": "plain"}, "one layer after the other",
           "the twin without shortcuts, to compare with", "Rumelhart et al. 1986"),
    Remedy("residual", "architecture", {"net": "residual"}, "two layers a block, whose input is added to their output",
           "the gradient comes back unchanged along the shortcuts", "He et al. 2016 (pre-activation)"),
    Remedy("highway", "architecture", {"net": "highway"}, "a learnt gate mixes each layer's input and output",
           "a closed gate carries state and gradient past the layer", "Srivastava et al. 2015"),
    Remedy("dense", "architecture", {"net": "dense"}, "each layer sees the outputs of all before it",
           "every layer has a short way to the loss", "Huang et al. 2017"),
    Remedy("rnn", "recurrent", {"net": "rnn", "activation": "tanh"}, "h = tanh(Wx + Uh + b)",
           "the classical net, whose gradient vanishes over time", "Elman 1990"),
    Remedy("irnn", "recurrent", {"net": "rnn", "activation": "relu", "init": "identity"},
           "a ReLU RNN that starts with U = I", "at first its state, and its gradient, pass through time unchanged",
           "Le et al. 2015"),
    Remedy("lstm", "recurrent", {"net": "lstm", "activation": "tanh", "forget_bias": 3.0},
           "gates around a carried state c (--forget-bias: the forget gate starts open)",
           "through an open forget gate the gradient of c passes unchanged",
           "Hochreiter & Schmidhuber 1997; Gers et al. 2000"),
    Remedy("gru", "recurrent", {"net": "gru", "activation": "tanh"}, "two gates, and no second state",
           "an update gate that is shut carries h, and its gradient", "Cho et al. 2014"),
    Remedy("clip-norm", "gradient", {"clip_norm": 1.0}, "the whole gradient scaled down to a length",
           "a cliff cannot throw the weights far away", "Pascanu et al. 2013"),
    Remedy("clip-value", "gradient", {"clip_value": 0.1}, "each component of the gradient bounded",
           "as clipping the norm, but changes the direction", "Mikolov 2012"),
    Remedy("agc", "gradient", {"agc": 0.01}, "a unit's gradient bounded by a share of its weights' length",
           "each unit's step stays in proportion, without BatchNorm", "Brock et al. 2021"),
    Remedy("l1", "weights", {"l1": 0.1}, "a penalty λ/n·|w|", "drives weights that are not needed to 0",
           "Tibshirani 1996"),
    Remedy("l2", "weights", {"l2": 1.0}, "a penalty λ/2n·w², in the gradient",
           "small weights keep units out of saturation", "Nielsen 2015, ch. 3"),
    Remedy("weight-decay", "weights", {"decay": 0.01}, "weights shrink by 1 − ηλ a step, outside of the gradient",
           "decays alike under any optimizer", "Loshchilov & Hutter 2019"),
    Remedy("max-norm", "weights", {"max_norm": 3.0}, "the length of a unit's incoming weights bounded",
           "lets large learning rates explore without blowing up", "Srivastava et al. 2014"),
    Remedy("weight-clip", "weights", {"weight_clip": 0.5}, "each weight bounded after each step",
           "bounds how much a layer can amplify, gradients included", "Arjovsky et al. 2017"),
    Remedy("cross-entropy", "loss", {"cost": "cross-entropy"}, "cross-entropy summed over sigmoid outputs",
           "the output's own slope cancels: a wrong, saturated output learns fast", "Nielsen 2015, ch. 3"),
    Remedy("softmax", "loss", {"cost": "softmax"}, "cross-entropy of softmax outputs",
           "the usual cost of a classifier; nothing saturates", "Bridle 1990"),
    Remedy("quadratic", "loss", {"cost": "quadratic"}, "half the squared error of sigmoid outputs",
           "saturated outputs learn slowly, however wrong they are", "Nielsen 2015, ch. 1"),
    Remedy("softmax-quadratic", "loss", {"cost": "softmax-quadratic"}, "half the squared error of softmax outputs",
           "softmax saturates too: its slope is in the gradient", "Golik et al. 2013"),
    Remedy("squared", "loss", {"cost": "squared"}, "mean squared error of linear outputs", "for numbers, not classes",
           "Legendre 1805"),
    Remedy("sgd", "optimizer", {"optimizer": "sgd", "momentum": 0.0}, "a step down the gradient of a batch",
           "the yardstick: layers move as fast as their gradients say", "Robbins & Monro 1951"),
    Remedy("momentum", "optimizer", {"momentum": 0.9, "optimizer": "sgd"}, "SGD that keeps a share of its last step",
           "steps add up along a slope that stays", "Polyak 1964"),
    Remedy("nesterov", "optimizer", {"optimizer": "nesterov", "momentum": 0.9}, "momentum that looks ahead",
           "brakes before the slope turns", "Nesterov 1983; Sutskever et al. 2013"),
    Remedy("adagrad", "optimizer", {"optimizer": "adagrad"}, "each weight's rate over the length of its past gradients",
           "small gradients get large rates", "Duchi et al. 2011"),
    Remedy("adadelta", "optimizer", {"optimizer": "adadelta"}, "steps in proportion to recent steps over gradients",
           "needs hardly a learning rate", "Zeiler 2012"),
    Remedy("rmsprop", "optimizer", {"optimizer": "rmsprop"}, "the gradient over its recent root mean square",
           "a layer with gradients of 1e-6 steps as far as one with 1", "Tieleman & Hinton 2012"),
    Remedy("adam", "optimizer", {"optimizer": "adam"}, "momentum over the recent root mean square",
           "vanished gradients are scaled up again, layer by layer", "Kingma & Ba 2015"),
    Remedy("adamw", "optimizer", {"optimizer": "adamw", "decay": 0.01}, "Adam with decay outside of the gradient",
           "decays all weights alike", "Loshchilov & Hutter 2019"),
    Remedy("warm-up", "optimizer", {"warmup": 100}, "a rate that grows from 0 over the first steps",
           "keeps the first, largest gradients from doing harm", "Goyal et al. 2017"),
    Remedy("constant", "optimizer", {"schedule": "constant"}, "one rate throughout", "the yardstick", "—"),
    Remedy("step-decay", "optimizer", {"schedule": "step"}, "a tenth of the rate after half, and again after 3/4",
           "settles after the large steps are done", "He et al. 2015"),
    Remedy("exponential", "optimizer", {"schedule": "exponential"}, "a rate that falls evenly to a hundredth",
           "settles little by little", "Robbins & Monro 1951"),
    Remedy("linear", "optimizer", {"schedule": "linear"}, "a rate that falls in a line to 0", "settles at the end",
           "Goyal et al. 2017"),
    Remedy("cosine", "optimizer", {"schedule": "cosine"}, "a rate that falls along half a cosine to 0",
           "large steps for long, small ones at the end", "Loshchilov & Hutter 2017"),
    Remedy("dropout", "regularity", {"dropout": 0.2}, "units left out at random while training",
           "no unit can lean on another; it does not help a gradient", "Srivastava et al. 2014"),
    Remedy("early-stopping", "regularity", {"patience": 10}, "stop when the validation has not improved for so long",
           "keeps the weights of the best epoch", "Prechelt 1998"),
    Remedy("narrower", "regularity", {"scale": "width"}, "half as many units in each hidden layer",
           "fewer weights to fit noise with; the depth, and its gradient, stay", "—"),
    Remedy("shallower", "regularity", {"scale": "depth"}, "half as many hidden layers",
           "the gradient has half the way to go", "—"),
    Remedy("low-rank", "regularity", {"rank": 8}, "each weight matrix a product of two thin ones",
           "fewer weights at the same width", "Sainath et al. 2013"),
    Remedy("rbm", "pretraining", {"pretrain": "rbm"}, "each layer first learns as a restricted Boltzmann machine",
           "starts where features are already in place", "Hinton et al. 2006"),
    Remedy("autoencoder", "pretraining", {"pretrain": "autoencoder"}, "each layer first learns to restore its input",
           "starts where features are already in place", "Bengio et al. 2007"),
    Remedy("denoising", "pretraining", {"pretrain": "denoising"}, "each layer first learns to mend its input",
           "features that hold up against noise", "Vincent et al. 2010"),
    Remedy("supervised", "pretraining", {"pretrain": "supervised"},
           "each layer first learns to classify on top of those below", "each layer is trained while it is the last",
           "Bengio et al. 2007"),
)
# fmt: on
REMEDIES = {remedy.name: remedy for remedy in _TABLE}
