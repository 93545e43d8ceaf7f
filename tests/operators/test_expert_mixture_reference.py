"""Mixtures against plain numpy: the same equations as a loop over rows, after every label."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from streamlearn.block import F8, Block, Columns
from streamlearn.jit import ensemble
from streamlearn.operators import ExpertMixtureClassifier, ExpertMixtureRegressor
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.testing import labelled


class Says(Regressor):
    """An expert that says column j, and variance column k if it is told to."""

    def __init__(self, j: int, k: int = -1) -> None:
        self.j, self.k = j, k

    def _run(self, block: Block) -> Columns:
        outputs = {"prediction": block.X[:, self.j].copy()}
        return outputs | ({"variance": block.X[:, self.k].copy()} if self.k >= 0 else {})


class SaysTwo(Regressor):
    """An expert with two targets: columns 2 j and 2 j + 1."""

    def __init__(self, j: int) -> None:
        self.j = j

    def _run(self, block: Block) -> Columns:
        return {"prediction": block.X[:, 2 * self.j : 2 * self.j + 2].copy()}


class Believes(Classifier):
    """An expert whose probabilities of K classes are columns K j to K (j + 1)."""

    def __init__(self, j: int, K: int = 3) -> None:
        self.j, self.K = j, K

    def _run(self, block: Block) -> Columns:
        proba = block.X[:, self.K * self.j : self.K * (self.j + 1)].copy()
        empty = np.isnan(proba[:, 0])
        prediction = np.where(empty, np.nan, np.argmax(np.nan_to_num(proba), axis=1))
        return {"prediction": prediction, "proba": proba}


def shares_of(u: F8, awake: F8) -> F8:
    return np.asarray(np.where(awake, u, 0.0) / u[awake].sum())


class Naive:
    """EGD and discounted log scores on plain weights: products, no logarithms, no kernel."""

    def __init__(self, J: int, **settings: Any) -> None:
        self.J, self.eta, self.share = J, settings["eta"], settings["share"]
        self.mixing, self.discount = settings["mixing"], settings["discount"]
        self.scaled = settings["scale_losses"]
        self.u = np.full(J, 1.0 / J)
        self.running, self.seen = np.zeros(J), np.zeros(J)

    def scales(self, loss: F8, w: float, floor: float) -> F8:
        awake = ~np.isnan(loss)
        before = self.running[self.seen > 0].mean() if (self.seen > 0).any() else 0.0
        for j in np.flatnonzero(awake):
            value = min(loss[j], 100.0 * max(before, floor)) if before > 0 else loss[j]
            self.seen[j] += w
            rate = max(1.0 - 0.99**w, w / self.seen[j])
            self.running[j] = (1.0 - rate) * self.running[j] + rate * value
        scale = max(self.running[self.seen > 0].mean(), floor)
        return np.minimum(loss / scale, 10.0) if scale > 0 else np.where(awake, 0.0, np.nan)

    def step(self, loss: F8, scores: F8, w: float, floor: float) -> None:
        own = self.scales(loss, w, floor)
        if self.mixing == "log_score":
            self.weights(scores, w, self.discount)
        else:
            self.weights(own if self.scaled else loss, w * self.eta, 1.0)

    def weights(self, loss: F8, eta: float, discount: float) -> None:
        awake = ~np.isnan(loss)
        if awake.any():
            self.u = self.u**discount
            mass = self.u[awake].sum()
            new = self.u[awake] * np.exp(-eta * (loss[awake] - loss[awake].min()))
            self.u[awake] = new / new.sum() * mass
        self.u /= self.u.sum()
        self.u = (1.0 - self.share) * self.u + self.share / self.J


SETTINGS = [
    {"mixing": "eg", "eta": 0.5, "share": 0.01, "discount": 0.99, "scale_losses": True},
    {"mixing": "eg", "eta": 0.3, "share": 0.0, "discount": 0.99, "scale_losses": False},
    {"mixing": "log_score", "eta": 0.5, "share": 0.05, "discount": 0.9, "scale_losses": True},
]


def rows_of(block: Block) -> Iterator[Block]:
    return (block.rows(t, t + 1) for t in range(block.n))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_the_plain_loop_after_every_label(settings: Any, seed: int) -> None:
    """Answer, variance, weights and running losses; experts fall silent, weights differ."""
    rng = np.random.default_rng(seed)
    n = 120
    X = rng.normal(size=(n, 4))
    X[:, 3] = rng.gamma(2.0, size=n)
    X[rng.random(n) < 0.1, 1] = np.nan
    y, w = rng.normal(size=n), rng.choice([0.5, 1.0, 2.0], n)
    y[[60, 90]] = 60.0, -45.0  # wild: running losses move as by a hundred of themselves
    model = ExpertMixtureRegressor([Says(0, 3), Says(1), Says(2)], **settings)
    twin = Naive(3, **settings)
    mean, var, seen = 0.0, 0.0, 0.0
    for t, row in enumerate(rows_of(labelled(X, y, weight=w))):
        said = model.run(row)
        f = X[t, :3]
        awake = ~np.isnan(f)
        u = shares_of(twin.u, awake)
        v = np.array([X[t, 3], *np.where(twin.seen[1:] > 0, twin.running[1:], np.nan)])
        expected = np.nansum(u * f)
        spread = sum(u[j] * (v[j] + (f[j] - expected) ** 2) for j in np.flatnonzero(awake))
        assert_allclose(said["prediction"][0], expected, rtol=1e-12)
        assert_allclose(said["variance"][0], spread, rtol=1e-11)
        seen += w[t]
        rate = max(1.0 - 0.999 ** w[t], w[t] / seen)
        gap = y[t] - mean
        mean, var = mean + rate * gap, (1.0 - rate) * (var + rate * gap * gap)
        scores = 0.5 * (np.log(v) + (f - y[t]) ** 2 / v)
        twin.step((f - y[t]) ** 2, scores, w[t], 1e-6 * var)
        assert_allclose(model.weights_[0], twin.u, rtol=1e-10)
        assert_allclose(model.losses_[0], twin.running, rtol=1e-10)
    assert model.n_silent_.sum() == np.isnan(X[:, :3]).sum()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_equal_the_plain_loop_after_every_label(settings: Any, seed: int) -> None:
    """Mixture, its exponent, weights; an expert knows two of three classes, one falls silent."""
    rng = np.random.default_rng(seed)
    n, alpha = 120, 0.0
    P = rng.dirichlet(np.ones(3), size=(n, 3))
    P[:, 2] = np.column_stack([rng.dirichlet(np.ones(2), n), np.zeros(n)])
    P[rng.random(n) < 0.1, 1] = np.nan
    y, w = rng.integers(0, 3, n), rng.choice([0.5, 1.0, 2.0], n)
    y[:3] = 0, 1, 2
    block = labelled(P.reshape(n, 9), y, "classification", w)
    model = ExpertMixtureClassifier([Believes(j) for j in range(3)], **settings)
    twin = Naive(3, **settings)
    for t, row in enumerate(rows_of(block)):
        said = model.run(row)
        awake = ~np.isnan(P[t, :, 0])
        mixed = np.nan_to_num(P[t]).T @ shares_of(twin.u, awake)
        sharp = mixed ** np.exp(alpha)
        sharp /= sharp.sum()
        assert_allclose(said["proba"][0], sharp, rtol=1e-10)
        assert said["prediction"][0] == mixed.argmax()
        slope = np.log(sharp[y[t]]) - np.sum(sharp * np.log(sharp))
        alpha += 0.02 * min(w[t], 1.0) * max(slope, -20.0)
        loss = np.where(awake, -np.log(np.maximum(P[t, :, y[t]], 1e-3)), np.nan)
        twin.step(loss, loss, w[t], 0.01)
        assert_allclose(model.weights_[0], twin.u, rtol=1e-9)
        assert_allclose(np.log(model.alpha_), alpha, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.05, 5.0), st.integers(2, 5))
def test_regret_is_within_the_bound(seed: int, eta: float, J: int) -> None:
    """Acceptance 3: weighted loss <= best expert's + ln J / eta + eta T / 8, losses in [0, 1]."""
    rng = np.random.default_rng(seed)
    T = 60
    losses = np.clip(rng.random(J) + 0.5 * rng.normal(size=(T, J)), 0.0, 1.0)
    experts = [Says(j) for j in range(J)]
    settings = {"eta": eta, "share": 0.0, "scale_losses": False}
    model = ExpertMixtureRegressor(experts, **settings)  # type: ignore[arg-type]  # operators
    paid = 0.0
    for row in rows_of(labelled(np.sqrt(losses), np.zeros(T))):
        paid += float(model.weights_[0] @ row.X[0] ** 2)
        model.run(row)
    assert paid <= losses.sum(axis=0).min() + np.log(J) / eta + eta * T / 8.0 + 1e-9


def test_log_space_agrees_with_products() -> None:
    """Acceptance 3: log weights and plain products, to 1e-12."""
    rng = np.random.default_rng(1)
    losses, u = rng.random((200, 2)), np.full(2, 0.5)
    model = ExpertMixtureRegressor([Says(0), Says(1)], eta=0.5, share=0.0, scale_losses=False)
    for row in rows_of(labelled(np.sqrt(losses), np.zeros(200))):
        model.run(row)
        u = u * np.exp(-0.5 * row.X[0] ** 2)
        u /= u.sum()
        assert_allclose(model.weights_[0], u, rtol=0.0, atol=1e-12)


@pytest.mark.jit
@pytest.mark.parametrize(("eta", "share", "expected"), [(0.05, 0.0, 0.502), (5.0, 0.01, 0.132)])
def test_slow_switch(eta: float, share: float, expected: float) -> None:
    """Acceptance 4: losses 0.1 / 0.9 swap every 50 steps; the weighted loss over 2000."""
    swapped = (np.arange(2000) // 50) % 2 == 1
    losses = np.where(swapped[:, None], [0.9, 0.1], [0.1, 0.9])
    experts: list[Any] = [Says(0), Says(1)]
    model = ExpertMixtureRegressor(experts, eta=eta, share=share, scale_losses=False)
    paid = []
    for row in rows_of(labelled(np.sqrt(losses), np.zeros(2000))):
        paid.append(model.weights_[0] @ row.X[0] ** 2)
        model.run(row)
    assert_allclose(np.mean(paid), expected, atol=2e-3)  # "about"; exact: 0.50305


def test_identical_experts_and_a_better_one() -> None:
    """Acceptance 5: equal experts stay at 0.5; a scaled gap of 1 wins within 20 steps."""
    X = np.repeat(np.random.default_rng(0).normal(size=(50, 1)), 2, axis=1)
    model = ExpertMixtureRegressor([Says(0), Says(1)])
    said = model.run(labelled(X, np.ones(50)))
    assert_allclose(said["prediction"], X[:, 0], rtol=1e-15)
    assert_allclose(model.weights_[0], 0.5, rtol=1e-14)
    for share, check in ((0.0, 0.99), (0.01, 0.986)):
        apart = ExpertMixtureRegressor([Says(0), Says(1)], eta=0.5, share=share, scale_losses=False)
        apart.run(labelled(np.tile([0.0, 1.0], (20, 1)), np.zeros(20)))
        assert check < apart.weights_[0, 0] < (1.0 if share == 0.0 else 0.988)


# -- the short-term correction ---------------------------------------------------------------------


def network(J: int, seed: int) -> tuple[F8, F8]:
    """Random weights, and scratch."""
    rng = np.random.default_rng(seed)
    net = np.zeros((3, ensemble.network_size(J)))
    net[0] = rng.normal(size=net.shape[1]) * 0.3
    return net, np.zeros(ensemble.work_shape(J, correct=True))


def mlp(net: F8, r: F8, J: int) -> F8:
    """The network in matrix form."""
    at, x, h = 0, r, ensemble.HIDDEN
    for n_in, n_out, last in ((J + 1, h, False), (h, h, False), (h, J, True)):
        bias, W = np.split(net[at : at + (n_in + 1) * n_out], [n_out])
        x = bias + x @ W.reshape(n_in, n_out)
        x = x if last else np.tanh(x)
        at += (n_in + 1) * n_out
    return x


def error_of(net: F8, r: F8, u: F8, answers: F8, target: float) -> float:
    b = mlp(net, r, len(u))
    v = u * np.exp(b)
    return float((v @ answers / v.sum() - target) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_network(seed: int) -> None:
    """Acceptance 6: central differences, relative error below 1e-5; and the bias itself."""
    J, rng = 3, np.random.default_rng(seed)
    net, work = network(J, seed)
    u, answers, target = rng.dirichlet(np.ones(J)), rng.normal(size=J) * 0.3, 0.4
    r = np.append(u * answers, target)
    work[ensemble.INPUT, : J + 1], work[ensemble.ANSWERS, :J] = r, answers
    loss = ensemble.bias_gradient(net, np.log(u)[None, :], 0, target, 1, work)
    assert_allclose(work[ensemble.BIAS, :J], mlp(net[0], r, J), rtol=1e-10)
    assert_allclose(loss, error_of(net[0], r, u, answers, target), rtol=1e-10)
    for i in rng.choice(net.shape[1], 200, replace=False):
        ends = []
        for side in (1e-5, -1e-5):
            moved = net[0].copy()
            moved[i] += side
            ends.append(error_of(moved, r, u, answers, target))
        expected = (ends[0] - ends[1]) / 2e-5
        assert_allclose(work[ensemble.GRADIENT, i], expected, rtol=1e-5, atol=1e-10)


def test_the_bias_of_a_target_rests_on_its_own_data() -> None:
    """Acceptance 6: another target's answers and label do not enter it."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    other, z = X.copy(), y.copy()
    other[-1, [1, 3]], z[-1, 1] = 7.0, -5.0
    biases = []
    for features, targets in ((X, y), (other, z)):
        model = ExpertMixtureRegressor([SaysTwo(0), SaysTwo(1)], correction=True)
        block = labelled(features, np.zeros(40)).replace(y=targets)
        model.run(block)
        biases.append(model.biases_.copy())
    assert (biases[0][0] == biases[1][0]).all()
    assert (biases[0][1] != biases[1][1]).all()
    assert np.abs(biases[0]).min() > 0.0


@pytest.mark.jit
def test_the_correction_follows_what_slow_weights_cannot() -> None:
    """The right expert changes every 10 rows: weights stay about equal, the bias goes along."""
    n = 6000
    X = np.tile([1.0, -1.0], (n, 1))
    y = np.where((np.arange(n) // 10) % 2 == 0, 1.0, -1.0)
    errors = {}
    for correction in (False, True):
        experts: list[Any] = [Says(0), Says(1)]
        model = ExpertMixtureRegressor(experts, correction=correction, eta=0.01)
        said = model.run(labelled(X, y))["prediction"]
        errors[correction] = np.mean((said - y)[-1000:] ** 2)
    assert errors[True] < 0.6 * errors[False]
