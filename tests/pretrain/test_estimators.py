"""Our estimators by scikit-learn's own rules, and the RBM beside the one whose place it takes."""
# ruff: noqa: N806  X is scikit-learn's name for the data

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import BernoulliRBM as TheirRBM
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pretrain.data import digits
from pretrain.estimators import BernoulliRBM, DeepAutoencoder, PretrainedClassifier

Array = npt.NDArray[Any]

DIGITS = digits()
IMAGES, LABELS = DIGITS.train.images, DIGITS.train.labels
SMALL = {"hidden_layer_sizes": (6, 4), "pretrain_epochs": 2, "epochs": 2}
ALL = [
    BernoulliRBM(5, n_iter=2, random_state=0),
    PretrainedClassifier(**SMALL, random_state=0),
    DeepAutoencoder(**SMALL, random_state=0),
]


@parametrize_with_checks(
    [
        BernoulliRBM(5),
        PretrainedClassifier((10,), pretrain_epochs=1, epochs=3, learning_rate=0.05),
        PretrainedClassifier(
            (8,), unit="supervised", pretrain_epochs=1, epochs=3, learning_rate=0.05, early_stopping=True
        ),
        DeepAutoencoder((6, 4), pretrain_epochs=1, epochs=1),
    ]
)
def test_keeps_scikit_learns_conventions(estimator: Any, check: Any) -> None:
    check(estimator)


# -- BernoulliRBM beside scikit-learn's --------------------------------------------------------------------------------


def pair(dtype: str = "float64") -> tuple[BernoulliRBM, TheirRBM]:
    """Ours and theirs, never fitted, with the same weights, which matter."""
    ours, theirs = BernoulliRBM(12, random_state=0), TheirRBM(12, random_state=0)
    rng = np.random.default_rng(0)
    for name, shape in (("components_", (12, 64)), ("intercept_hidden_", 12), ("intercept_visible_", 64)):
        values = rng.normal(0, 0.5, shape).astype(dtype)
        setattr(ours, name, values)
        setattr(theirs, name, values)
    return ours, theirs


def binary(count: int = 50) -> Array:
    return (IMAGES[:count] > 0.5).astype(np.float64)


def test_constructor_of_the_rbm_is_theirs() -> None:
    def parameters(kind: type) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(kind).parameters.values()]

    assert parameters(BernoulliRBM) == parameters(TheirRBM)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_rbm_has_their_attributes_and_answers_in_their_shapes_and_types(form: Any, dtype: str) -> None:
    X = form(IMAGES[:33].astype(dtype))
    fitted = [kind(12, n_iter=1, random_state=0).fit(X) for kind in (BernoulliRBM, TheirRBM)]
    ours, theirs = fitted

    def described(value: Any) -> Any:
        return (value.shape, value.dtype) if isinstance(value, np.ndarray) else value

    assert {k: described(v) for k, v in vars(ours).items()} == {k: described(v) for k, v in vars(theirs).items()}
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
    assert described(ours.transform(X)) == described(theirs.transform(X))
    assert described(ours.gibbs(X)) == described(theirs.gibbs(X))
    scores = theirs.score_samples(X)
    if not isinstance(X, sp.csr_matrix):  # whose arithmetic makes theirs float64
        assert scores.dtype == dtype
    assert described(ours.score_samples(X)) == (scores.shape, np.dtype(dtype))
    assert set(np.unique(ours.h_samples_)) <= {0.0, 1.0}


def test_partial_fit_starts_as_theirs_and_keeps_the_type_of_a_fitted_rbm() -> None:
    X = IMAGES[:10]
    ours, theirs = BernoulliRBM(12, random_state=0), TheirRBM(12, random_state=0)
    assert ours.partial_fit(X) is ours
    theirs.partial_fit(X)
    assert ours.components_.dtype == theirs.components_.dtype == np.float64
    # the first weights are the same draws, and one step of 0.1 has changed them by less than that
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=0.2)
    before = ours.components_.copy()
    assert (ours.partial_fit(X).components_ != before).any()
    assert BernoulliRBM(12, n_iter=1).fit(X).partial_fit(X).components_.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_rbm_answers_as_theirs_of_the_same_weights(form: Any, dtype: str) -> None:
    ours, theirs = pair(dtype)
    X = form(binary().astype(dtype))
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours._free_energy(X), theirs._free_energy(X), rtol=1e-5)


def test_pseudo_likelihood_is_theirs_on_average_over_the_bits() -> None:
    ours, theirs = pair()
    X = binary(20)
    draws = [[m.set_params(random_state=seed).score_samples(X) for seed in range(800)] for m in (ours, theirs)]
    mean, other = np.mean(draws, axis=1)
    # each is the mean of 800 draws: five standard errors of the difference
    error = np.sqrt(np.var(draws, axis=1).sum(0) / 800)
    assert (np.abs(mean - other) < 5 * error).all()
    exact = 0.0
    for bit in range(X.shape[1]):
        flipped = X.copy()
        flipped[:, bit] = 1 - flipped[:, bit]
        exact -= np.logaddexp(0, theirs._free_energy(X) - theirs._free_energy(flipped))
    assert (np.abs(mean - exact) < 5 * error).all()


def test_gibbs_samples_from_the_rbm_as_theirs_does() -> None:
    ours, theirs = pair()
    v = np.repeat(binary(1), 4000, axis=0)
    np.testing.assert_allclose(ours.gibbs(v).mean(0), theirs.gibbs(v).mean(0), atol=0.06)


def test_rbm_learns_the_digits_as_well_as_theirs() -> None:
    def score(kind: Any) -> float:
        rbm = kind(64, learning_rate=0.05, n_iter=5, random_state=0).fit(IMAGES)
        return float(rbm.score_samples(IMAGES).mean())

    ours, theirs = score(BernoulliRBM), score(TheirRBM)
    untrained = BernoulliRBM(64, n_iter=0, random_state=0).fit(IMAGES).score_samples(IMAGES).mean()
    assert untrained < -40
    assert ours == pytest.approx(theirs, abs=3)


def test_rbm_in_a_pipeline_tells_digits_as_well_as_theirs() -> None:
    def score(kind: Any) -> float:
        steps = [
            ("scale", MinMaxScaler()),
            ("rbm", kind(100, learning_rate=0.06, n_iter=10, random_state=0)),
            ("logistic", LogisticRegression(C=10, max_iter=1000)),
        ]
        X, test_X, y, test_y = train_test_split(IMAGES * 16, LABELS, test_size=0.33, random_state=0)
        return float(Pipeline(steps).fit(X, y).score(test_X, test_y))

    assert score(BernoulliRBM) > max(0.8, score(TheirRBM) - 0.03)


def test_rbm_shows_the_pseudo_likelihood_of_each_pass(capsys: pytest.CaptureFixture[str]) -> None:
    BernoulliRBM(5, n_iter=2, verbose=1).fit(IMAGES[:20])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        f"[BernoulliRBM] Iteration {number}, pseudo-likelihood " for number in (1, 2)
    ]


# -- the deep nets -----------------------------------------------------------------------------------------------------


def test_pretrained_classifier_tells_digits_that_it_has_not_seen() -> None:
    X, test_X, y, test_y = train_test_split(IMAGES, LABELS, test_size=1 / 3, random_state=0)
    assert PretrainedClassifier(random_state=0).fit(X, y).score(test_X, test_y) >= 0.93


@pytest.mark.parametrize("unit", ["rbm", "autoencoder", "denoising", "supervised", "none"])
def test_classifier_learns_with_every_unit_from_data_of_any_range(unit: str) -> None:
    X, y = (IMAGES[:300] * 16 - 1000), LABELS[:300]
    net = PretrainedClassifier((30,), unit=unit, pretrain_epochs=3, learning_rate=0.01, epochs=8, random_state=0)
    assert net.fit(X, y).score(X, y) > 0.9
    assert net.net_[0].weight.dtype == torch.float32
    np.testing.assert_allclose(net.offset_, X.mean(0, np.float64))


def test_data_in_the_unit_interval_are_taken_as_they_are() -> None:
    X = IMAGES[:100].astype(np.float64)
    net = PretrainedClassifier(**SMALL).fit(X, LABELS[:100])
    assert (net.offset_ == 0).all()
    assert (net.scale_ == 1).all()
    logits = net.net_(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(net.decision_function(X), logits)


def test_classifier_answers_with_the_labels_it_was_given() -> None:
    X, names = IMAGES[:200], np.array(["even", "odd"])[LABELS[:200] % 2]
    net = PretrainedClassifier((20,), pretrain_epochs=1, learning_rate=0.01, random_state=0).fit(X, names)
    assert list(net.classes_) == ["even", "odd"]
    assert (net.predict(X) == names).mean() > 0.9
    odds = net.decision_function(X)
    assert odds.shape == (200,)
    np.testing.assert_allclose(net.predict_proba(X)[:, 1], 1 / (1 + np.exp(-odds)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(net.predict_log_proba(X)), net.predict_proba(X), rtol=1e-5)


def test_classifier_of_one_class_says_so() -> None:
    with pytest.raises(ValueError, match=r"at least 2 classes.*one class: 'only'"):
        PretrainedClassifier().fit(IMAGES[:5], ["only"] * 5)


def test_early_stopping_ends_before_the_last_epoch_with_the_best_weights() -> None:
    net = PretrainedClassifier(
        (30,), unit="none", learning_rate=0.02, epochs=200, early_stopping=True, patience=3, random_state=0
    ).fit(IMAGES[:400], LABELS[:400])
    assert 3 < net.n_iter_ < 100
    assert net.score(DIGITS.test.images, DIGITS.test.labels) > 0.85


def test_deep_autoencoder_rebuilds_digits_better_than_fewer_principal_components() -> None:
    test = DIGITS.test.images
    net = DeepAutoencoder((100, 10), random_state=0).fit(IMAGES)
    pca = PCA(8).fit(IMAGES)
    by_pca = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).sum(1).mean()
    by_mean = ((IMAGES.mean(0) - test) ** 2).sum(1).mean()
    assert -net.score(test) < by_pca < by_mean
    codes = net.transform(test)
    assert codes.shape == (len(test), 10)
    assert codes.dtype == np.float32
    rebuilt = net.inverse_transform(codes)
    assert net.score(test) == pytest.approx(-((rebuilt - test) ** 2).sum(1).mean(), rel=1e-5)
    assert list(net.get_feature_names_out()[:2]) == ["deepautoencoder0", "deepautoencoder1"]


@pytest.mark.parametrize("unit", ["rbm", "autoencoder", "denoising", "none"])
def test_autoencoder_rebuilds_data_of_any_range_in_their_own_units(unit: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 8)) * [1, 10, 100, 1, 1, 1, 1, 0] + 50
    net = DeepAutoencoder((16, 2), unit=unit, epochs=20, learning_rate=0.01, random_state=0).fit(X)
    assert net.score(X) > -0.3 * X.var(0).sum()
    # a column that never changes comes back as it is, but for its small weights
    np.testing.assert_allclose(net.inverse_transform(net.transform(X))[:, -1], 50, atol=1)


def test_autoencoder_refuses_codes_of_another_length_and_units_that_need_labels() -> None:
    net = DeepAutoencoder(**SMALL).fit(IMAGES[:50])
    with pytest.raises(ValueError, match="X has 3 features, but the code has 4"):
        net.inverse_transform(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="'unit' parameter"):
        DeepAutoencoder(unit="supervised").fit(IMAGES[:50])
    with pytest.raises(NotFittedError):
        DeepAutoencoder().inverse_transform(np.zeros((2, 3)))


@pytest.mark.parametrize("sizes", [(), (5, 0), (2.5,), ["3"]])
def test_hidden_layers_that_cannot_be_are_refused(sizes: Any) -> None:
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        PretrainedClassifier(sizes).fit(IMAGES[:50], LABELS[:50])


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs", "cg"])
def test_fine_tuning_takes_every_optimizer_at_its_own_rate_and_dropout(optimizer: str) -> None:
    net = PretrainedClassifier(
        40, unit="autoencoder", pretrain_epochs=1, optimizer=optimizer, learning_rate=None, epochs=12, dropout=0.1
    )
    assert net.fit(IMAGES[:300], LABELS[:300]).score(IMAGES[:300], LABELS[:300]) > 0.6
    assert net.n_iter_ == 12


def test_deep_nets_print_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    PretrainedClassifier(**SMALL, verbose=1).fit(IMAGES[:50], LABELS[:50])
    DeepAutoencoder(**SMALL, early_stopping=True, verbose=1).fit(IMAGES[:50])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (2 * 2 + 2)
    assert lines[2].startswith("[PretrainedClassifier] Layer 2 of 2, epoch 1 of 2, error = ")
    assert lines[4].startswith("[PretrainedClassifier] Fine-tuning, epoch 1 of 2, cost = ")
    assert ", validation error = " in lines[-1]


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_copies_of_every_kind_answer_alike_and_torchs_own_generator_is_left_alone(estimator: Any) -> None:
    X, y = IMAGES[:60], LABELS[:60]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    first = clone(estimator).fit(X, y)
    answer = first.predict_proba if hasattr(first, "predict_proba") else first.transform
    again = clone(estimator).fit(X, y)
    for other in (again, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        there = other.predict_proba if hasattr(other, "predict_proba") else other.transform
        np.testing.assert_array_equal(there(X), answer(X))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_another_seed_is_another_training(estimator: Any) -> None:
    X, y = IMAGES[:60], LABELS[:60]
    one, two = (clone(estimator).set_params(random_state=seed).fit(X, y) for seed in (0, 1))
    weights = [m.net_[0].weight.detach().numpy() if hasattr(m, "net_") else m.components_ for m in (one, two)]
    assert not np.allclose(*weights)


def test_grid_search_chooses_among_pretrained_classifiers_in_a_pipeline() -> None:
    X, y = IMAGES[:300] * 16, LABELS[:300]
    pipeline = make_pipeline(MinMaxScaler(), PretrainedClassifier((20,), epochs=10, random_state=0))
    grid = {"pretrainedclassifier__learning_rate": [1e-5, 0.01], "pretrainedclassifier__pretrain_epochs": [1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_params_["pretrainedclassifier__learning_rate"] == 0.01
    assert search.best_score_ > 0.7


def test_codes_and_features_feed_what_comes_after_them() -> None:
    X, y = IMAGES[:300], LABELS[:300]
    code = DeepAutoencoder((40, 10), pretrain_epochs=3, learning_rate=0.01, epochs=10, random_state=0)
    assert make_pipeline(code, LogisticRegression(max_iter=500)).fit(X, y).score(X, y) > 0.8


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PretrainedClassifier, DeepAutoencoder])
def test_warm_start_goes_on_from_the_net_of_the_last_fit(kind: Any) -> None:
    X, y = IMAGES[:100], LABELS[:100]
    how = {**SMALL, "hidden_layer_sizes": (20, 10), "learning_rate": 0.02, "epochs": 5, "random_state": 0}
    cold, warm = kind(**how), kind(**how, warm_start=True)
    first = cold.fit(X, y).net_[0].weight.detach().clone()
    assert torch.equal(warm.fit(X, y).net_[0].weight, first)
    assert torch.equal(cold.fit(X, y).net_[0].weight, first), "from the start"
    assert warm.fit(X.astype("f8"), y).n_iter_ == 5 and not torch.equal(warm.net_[0].weight, first)
    assert warm.score(X, y) > cold.score(X, y)
    with pytest.raises(ValueError, match="is expecting 64 features"):
        warm.fit(X[:, :9], y)
    if kind is PretrainedClassifier:
        with pytest.raises(ValueError, match=r"warm_start goes on with the classes \[0, "):
            warm.fit(X, y % 3)


@pytest.mark.parametrize("kind", [PretrainedClassifier, DeepAutoencoder])
def test_partial_fit_learns_from_batch_to_batch(kind: Any) -> None:
    some = {"classes": range(10)} if kind is PretrainedClassifier else {}
    part = kind((20, 10), pretrain_epochs=2, random_state=0, learning_rate=0.01)
    part.partial_fit(IMAGES[:300], LABELS[:300], **some)
    before = part.score(IMAGES, LABELS)
    for _ in range(3):
        for start in range(300, 1200, 300):
            part.partial_fit(IMAGES[start : start + 300], LABELS[start : start + 300])
    assert part.score(IMAGES, LABELS) > before and part.n_iter_ == 10
    if some:
        with pytest.raises(ValueError, match=r"not among classes: \[12\]"):
            part.partial_fit(IMAGES[:2], [3, 12])
        with pytest.raises(ValueError, match="classes must be passed on the first call"):
            kind().partial_fit(IMAGES, LABELS)


@pytest.mark.parametrize("kind", [PretrainedClassifier, DeepAutoencoder])
@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"learning_rate": 0}, {"epochs": -1},
        {"pretrain_epochs": 1.5}, {"batch_size": 0}, {"batch_size": -3}, {"patience": 0}, {"device": "cuda:99"},
        {"device": "meta"}, {"device": "no"}, {"hidden_layer_sizes": (3, 0)}, {"hidden_layer_sizes": ()},
        {"random_state": -1}, {"validation_fraction": float("nan")}, {"warm_start": "yes"},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_before_any_training(kind: Any, wrong: dict[str, Any]) -> None:
    estimator = kind(**{**SMALL, **wrong})
    with pytest.raises(ValueError, match=r"\w") as caught:
        estimator.fit(IMAGES[:20], LABELS[:20])
    assert len(str(caught.value)) < 400 and not hasattr(estimator, "net_")
