"""A restricted Boltzmann machine in place of scikit-learn's."""
# ruff: noqa: N803, N806  X is scikit-learn's name for the data

from __future__ import annotations

import time
import zlib
from typing import Any, ClassVar, cast

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pretrain.estimators.conventions import FLOATS, FROM_0, FROM_1, POSITIVE, Array, RandomState, generator_of
from pretrain.negative import GradientEstimator
from pretrain.rbm import RBM, START

CHUNK = 1000  # rows of a sparse matrix that are made dense at once


class BernoulliRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A restricted Boltzmann machine, in place of scikit-learn's class of this name.

    It is trained by persistent contrastive divergence (Tieleman 2008): stochastic gradient ascent without momentum, on
    batches in the order of the data, `batch_size` chains, one Gibbs step a batch. Data are in [0, 1], dense or sparse;
    sparse ones are made dense batch by batch. `fit` computes in float32 if the data are that, otherwise in float64.

    - `n_components`: hidden units;
    - `learning_rate`: of the mean gradient over a batch;
    - `batch_size`: examples a batch, and chains;
    - `n_iter`: passes over the data;
    - `verbose`: not 0 prints the mean pseudo-likelihood after each pass;
    - `random_state`: an int, a `RandomState` or None, as everywhere in scikit-learn.

    Fitted: `components_` [n_components, n_features], `intercept_hidden_` [n_components], `intercept_visible_`
    [n_features], `h_samples_` [batch_size, n_components], the state of the chains, and `n_features_in_`.

    Differences: it draws other random numbers; if the last batch has fewer examples than there are chains, the
    chains still count by their mean; `score_samples` chooses an example's bit by what the example holds, so that the
    order and the other examples do not matter; `partial_fit` returns the estimator.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [FROM_1],
        "learning_rate": [POSITIVE],
        "batch_size": [FROM_1],
        "n_iter": [FROM_0],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float = 0.1,
        batch_size: int = 10,
        n_iter: int = 10,
        verbose: int = 0,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> BernoulliRBM:
        """Learns from X [n, n_features], from the start."""
        self._validate_params()
        X = validate_data(self, X, accept_sparse="csr", dtype=FLOATS)
        rng = check_random_state(self.random_state)
        self._start(X, rng)
        return self._learn(X, self.batch_size, self.n_iter, self.verbose, rng)

    def partial_fit(self, X: Any, y: Any = None) -> BernoulliRBM:
        """One step on the batch X [n, n_features], from where the last call of this or `fit` ended."""
        self._validate_params()
        first = not hasattr(self, "components_")
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=first)
        if first:
            self._start(X, self._lasting_rng())
        return self._learn(X, X.shape[0], 1, 0, self._lasting_rng())

    @torch.no_grad()
    def transform(self, X: Any) -> Array:
        """p(h = 1 | v) [n, n_components] for X [n, n_features]."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False, dtype=FLOATS)
        rbm = self._rbm(X.dtype)
        codes = [rbm.encode(_tensor(X[rows], rbm)) for rows in gen_batches(X.shape[0], CHUNK)]
        return torch.cat(codes).numpy()

    @torch.no_grad()
    def gibbs(self, v: Any) -> Array:
        """Bits [n, n_features] after one step of Gibbs sampling, hidden units then visible ones, from v."""
        check_is_fitted(self)
        v = v if sp.issparse(v) else np.asarray(v)
        rbm = self._rbm(v.dtype)
        drawn = rbm.gibbs(_tensor(v, rbm), 1, generator_of(self._lasting_rng()))
        return drawn.bool().numpy()

    def score_samples(self, X: Any) -> Array:
        """The pseudo-likelihood [n] of X [n, n_features], in nats: n_features · log p(a bit | the example's others).

        Which bit is random, but follows from the example and `random_state`: with an int every call gives the same.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        return self._pseudo_likelihood(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _pseudo_likelihood(self, X: Any) -> Array:
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        scores = []
        for rows in gen_batches(X.shape[0], CHUNK):
            v = np.array(_dense(X[rows]), np.result_type(X.dtype, self.components_.dtype), order="C")
            bits = np.array([zlib.crc32(example.tobytes(), seed) % v.shape[1] for example in v])
            other, places = v.copy(), (np.arange(len(v)), bits)
            other[places] = 1 - other[places]
            gap = self._free_energy(other) - self._free_energy(v)
            scores.append(-v.shape[1] * np.logaddexp(0, -gap))  # log of the logistic function of the gap
        return np.concatenate(scores)

    @torch.no_grad()
    def _free_energy(self, v: Array) -> Array:
        """F(v) [n] of v [n, n_features]."""
        rbm = self._rbm(v.dtype)
        return rbm.free_energy(_tensor(v, rbm)).numpy()

    def _start(self, X: Any, rng: np.random.RandomState) -> None:
        self.components_ = rng.normal(0, START, (self.n_components, X.shape[1])).astype(X.dtype)
        self.intercept_hidden_ = np.zeros(self.n_components, X.dtype)
        self.intercept_visible_ = np.zeros(X.shape[1], X.dtype)
        self.h_samples_ = np.zeros((self.batch_size, self.n_components), X.dtype)
        self._n_features_out = self.n_components

    def _learn(self, X: Any, batch_size: int, n_iter: int, verbose: int, rng: np.random.RandomState) -> BernoulliRBM:
        rbm, generator = self._rbm(self.components_.dtype, len(self.h_samples_)), generator_of(rng)
        rbm.load_state({"chains": _tensor(self.h_samples_, rbm)})
        # these share the memory of the RBM, which the optimizer changes in place
        self.components_ = rbm.weight.detach().numpy()
        self.intercept_hidden_ = rbm.bias.detach().numpy()
        self.intercept_visible_ = rbm.visible_bias.detach().numpy()
        optimizer = torch.optim.SGD(rbm.parameters(), lr=self.learning_rate)
        begin = time.monotonic()
        for iteration in range(1, n_iter + 1):
            for rows in gen_batches(X.shape[0], batch_size):
                rbm.fill_gradient(_tensor(X[rows], rbm), generator)
                optimizer.step()
            if verbose:
                score, end = self._pseudo_likelihood(X).mean(), time.monotonic()
                print(
                    f"[{type(self).__name__}] Iteration {iteration}, pseudo-likelihood = {score:.2f},"
                    f" time = {end - begin:.2f}s"
                )
                begin = end
        self.h_samples_ = rbm.state().get("chains", torch.from_numpy(self.h_samples_)).numpy()
        return self

    def _rbm(self, dtype: Any, chains: int = 1) -> RBM:
        """An RBM with copies of the fitted arrays; with data of `dtype` it computes as precisely as numpy would."""
        dtype = np.result_type(dtype, self.components_.dtype)
        arrays = self.components_, self.intercept_hidden_, self.intercept_visible_
        weight, bias, visible_bias = (torch.from_numpy(np.array(array, dtype, order="C")) for array in arrays)
        return _rbm(weight, bias, visible_bias, chains)

    def _lasting_rng(self) -> np.random.RandomState:
        """That of `partial_fit` and `gibbs`, which goes on from call to call."""
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        return cast(np.random.RandomState, self.random_state_)


def _rbm(weight: Tensor, bias: Tensor, visible_bias: Tensor, chains: int) -> RBM:
    """An RBM that has these tensors for parameters and so many chains."""
    estimator = GradientEstimator(method="pcd", chains=chains, weight_cost=0.0)
    # a generator of its own: the first weights, which are not wanted, must not draw from torch's
    rbm = RBM(weight.shape[1], weight.shape[0], estimator=estimator, generator=torch.Generator())
    rbm.load_state_dict({"weight": weight, "bias": bias, "visible_bias": visible_bias}, assign=True)
    return rbm


def _dense(rows: Any) -> Any:
    """Rows [n, n_features] of an array or a sparse matrix, as an array."""
    return rows.toarray() if sp.issparse(rows) else rows


def _tensor(rows: Any, rbm: RBM) -> Tensor:
    """A copy of the rows [n, n_features], in the RBM's type."""
    # a copy, because torch would warn of an array that may not be written to
    return torch.from_numpy(np.array(_dense(rows), order="C")).to(rbm.weight.dtype)
