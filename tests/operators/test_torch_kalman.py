"""A network under a Kalman head: against autograd and plain numpy, then the traps of training."""

import copy
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn import operators, registry
from streamlearn.block import F8, I8, LEARN, PREDICT, Block
from streamlearn.errors import UserError
from streamlearn.jit import lift
from streamlearn.jit.representation import WORK_ROWS, density_slopes
from streamlearn.operators import KalmanClassifier, KalmanRegressor
from streamlearn.operators.torch_kalman import TorchKalmanClassifier, TorchKalmanRegressor
from streamlearn.testing import (
    assert_same_bits,
    assert_same_state,
    block_of,
    cut,
    labelled,
    run_in_cuts,
    through_json,
)
from tests.operators.test_kalman_reference import hand_over

torch = pytest.importorskip("torch", reason='needs the extra "torch"')

SMALL = {"hidden": [6]}


def classes(n: int, d: int = 3, seed: int = 0, K: int = 2) -> Block:
    """A curved boundary, so that there is something to learn for a network."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = np.floor(K * (0.5 + 0.499 * np.sin(2.0 * X[:, 0] + X[:, 1] ** 2)))
    return labelled(X, y.astype(int), "classification")


# -- the slope of the predictive density -----------------------------------------------------------


def slope_of(head: Any, phi: F8, code: int, y: Any, weight: float = 1.0) -> F8:
    """What the kernel says for one row."""
    out, D = np.empty((1, phi.shape[0])), phi.shape[0] + 1
    outputs = np.ascontiguousarray(head.outputs_)
    labels = (np.array([code]), np.atleast_2d(np.asarray(y, dtype=float)), np.array([weight]))
    state = (head.means_, head.covariance_, outputs, head.scalars_)
    work = np.zeros((WORK_ROWS, max(D, outputs.shape[1])))
    density_slopes(phi[None], labels, state, head._settings, head.form == "sqrt", work, out)
    return np.asarray(out[0])


def by_differences(log_density: Any, phi: F8, step: float = 1e-6) -> F8:
    """Central differences of the head's own answers."""
    out = np.empty_like(phi)
    for j in range(phi.shape[0]):
        up, down = phi.copy(), phi.copy()
        up[j] += step
        down[j] -= step
        out[j] = (log_density(up) - log_density(down)) / (2.0 * step)
    return out


HEADS: list[dict[str, Any]] = [
    {},
    {"feature_norm2": 0.0},
    {"form": "sqrt", "qr_every": 5, "delta0": 0.01},
    {"form": "joseph", "delta0": 0.05, "decay_mean": False},
]


@pytest.mark.parametrize("way", HEADS)
def test_slope_for_classes_equals_central_differences(way: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    head = KalmanClassifier(lr_delta=1e-3, **way)
    X = rng.normal(size=(60, 4))
    rows = labelled(X, rng.integers(0, 3, 60), "classification")
    head.run(rows)

    def log_p(phi: F8, c: int) -> float:
        asked = block_of(phi[None], task="classification", mode=PREDICT, labels=rows.labels)
        return math.log(head.run(asked)["proba"][0, c])

    for c in range(3):
        phi = rng.normal(size=4)
        expected = by_differences(lambda f, c=c: log_p(f, c), phi)
        assert_allclose(slope_of(head, phi, c, c), expected, rtol=1e-5, atol=1e-9)
        assert_allclose(slope_of(head, phi, c, c, 2.5), 2.5 * expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("way", HEADS)
@pytest.mark.parametrize("q", [1, 3])
def test_slope_for_targets_equals_central_differences(way: dict[str, Any], q: int) -> None:
    rng = np.random.default_rng(4)
    head = KalmanRegressor(lr_delta=1e-3, **way)
    X = rng.normal(size=(60, 4))
    Y = X @ rng.normal(size=(4, q)) + 5.0 + rng.normal(size=(60, q))
    head.run(labelled(X, Y))
    y = rng.normal(size=q) + 5.0

    def log_density(phi: F8) -> float:
        answer = head.run(block_of(phi[None], np.full((1, q), np.nan), mode=PREDICT))
        mean, variance = np.ravel(answer["prediction"]), np.ravel(answer["variance"])
        return float(-0.5 * np.sum(np.log(variance) + (y - mean) ** 2 / variance))

    phi = rng.normal(size=4)
    expected = by_differences(log_density, phi)
    assert_allclose(slope_of(head, phi, lift.TARGET, y), expected, rtol=1e-5, atol=1e-8)


def test_slope_of_a_new_class_counts_it_among_the_others() -> None:
    """Its means are 0, which is exact; its probability is not the 0 that an answer gives it."""
    rng = np.random.default_rng(5)
    head = KalmanClassifier(delta0=0.01)
    X = rng.normal(size=(40, 3))
    head.run(labelled(X, rng.integers(0, 2, 40), "classification"))

    def log_p(phi: F8) -> float:
        f = np.concatenate([[1.0], phi])
        f *= math.sqrt(10.0 / (f @ f))
        loss = -math.expm1(-head.delta_)
        v = (1 - loss) * (f @ head.covariance_ @ f) + loss * (f @ f)
        kappa = head.alpha_ / math.sqrt(1 + math.pi * head.alpha_**2 * v / 8)
        mu = kappa * math.sqrt(1 - loss) * np.append(head.means_ @ f, 0.0)
        return float(mu[2] - np.log(np.exp(mu).sum()))

    phi = rng.normal(size=3)
    for code in (2, 7):
        expected = by_differences(log_p, phi)
        assert_allclose(slope_of(head, phi, code, code), expected, rtol=1e-5, atol=1e-9)


def test_slope_is_zero_before_a_residual_has_a_unit_and_where_it_is_not_finite() -> None:
    head = KalmanRegressor()
    head.run(labelled(np.ones((1, 2)), np.array([1e6])))
    assert_array_equal(slope_of(head, np.ones(2), lift.TARGET, 0.0), np.zeros(2))
    head.run(labelled(np.random.default_rng(0).normal(size=(9, 2)), np.arange(9.0)))
    assert np.any(slope_of(head, np.ones(2), lift.TARGET, 0.0))
    assert_array_equal(slope_of(head, np.ones(2), lift.TARGET, 1e6, 1e308), np.zeros(2))
    assert_array_equal(slope_of(head, np.full(2, 1e9), lift.TARGET, 0.0), np.zeros(2))


# -- the frozen network ----------------------------------------------------------------------------


def test_a_frozen_network_is_the_kalman_head_on_its_features() -> None:
    rows = classes(300, K=3)
    frozen = TorchKalmanClassifier(module_args=SMALL, lr=0.0, delta_min=0.0, seed=2)
    outputs = frozen.run(rows)
    with torch.no_grad():
        phi = frozen.network_(torch.from_numpy(rows.X)).numpy()
    head = KalmanClassifier()
    expected = head.run(labelled(phi, rows.y.astype(int), "classification"))
    assert_allclose(outputs["proba"], expected["proba"], rtol=0, atol=1e-12)
    assert_array_equal(outputs["prediction"], expected["prediction"])
    assert_allclose(frozen.head_.covariance_, head.covariance_, rtol=0, atol=1e-12)
    assert frozen.n_steps_ == 0


def test_a_frozen_network_is_the_kalman_head_for_several_targets() -> None:
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(200, 3)), rng.normal(size=(200, 2))
    head = KalmanRegressor(feature_norm2=0.0, sigma2=0.5)
    frozen = TorchKalmanRegressor(module_args=SMALL, lr=0.0, delta_min=0.0, head=head)
    outputs = frozen.run(labelled(X, Y))
    with torch.no_grad():
        phi = frozen.network_(torch.from_numpy(X)).numpy()
    expected = head.run(labelled(phi, Y))
    for name in ("prediction", "variance"):
        assert_allclose(outputs[name], expected[name], rtol=0, atol=1e-12)


# -- the whole walk against autograd and plain numpy -----------------------------------------------


class Twin:
    """Two classes, the specification's recursion in numpy, loss and steps by torch itself.

    The loss of a row is written down in torch at its turn, with m and A of then as constants, and
    kept until its group is full; `torch.optim` makes the step.
    """

    def __init__(self, network: Any, group: int, optimiser: Any, clip: float) -> None:
        self.network, self.group, self.clip = network, group, clip
        self.optimiser = optimiser(network.parameters())
        h = network(torch.zeros((1, 3), dtype=torch.float64)).shape[1]
        self.m, self.A = np.zeros((1 + h, 2)), np.eye(1 + h)
        self.delta, self.log_alpha = 0.0, 0.0
        self.seen: set[int] = set()
        self.waiting: list[Any] = []

    def loss(self, x: F8, c: int) -> Any:
        """-log p(c | past), differentiable in the network's weights."""
        raw = torch.cat(
            (torch.ones(1, dtype=torch.float64), self.network(torch.from_numpy(x)[None])[0])
        )
        f = raw * torch.sqrt(10.0 / (raw @ raw))
        m, A = torch.from_numpy(self.m.copy()), torch.from_numpy(self.A.copy())
        g = math.exp(-self.delta / 2)
        v = g * g * (f @ A @ f) + (1 - g * g) * (f @ f)
        alpha = math.exp(self.log_alpha)
        mu = g * (m.T @ f) * alpha / torch.sqrt(1 + math.pi * alpha**2 * v / 8)
        return torch.logsumexp(mu, 0) - mu[c]

    def row(self, x: F8, c: int, w: float) -> float:
        """The probability of class 1, once both are known; then everything learns."""
        with torch.no_grad():
            phi = self.network(torch.from_numpy(x)[None])[0].numpy()
        f = np.concatenate([[1.0], phi])
        f = f * math.sqrt(10.0 / (f @ f))
        g = math.exp(-self.delta / 2)
        a, b = f @ self.A @ f, f @ f
        v = g * g * a + (1 - g * g) * b
        alpha = math.exp(self.log_alpha)
        q = 1 + math.pi * alpha**2 * v / 8
        kappa = alpha / math.sqrt(q)
        u = self.m.T @ f
        known = sorted(self.seen)
        answer = np.exp(kappa * g * u)
        answer = answer / answer[known].sum() if known else answer
        self.seen.add(c)
        known = sorted(self.seen)
        p = np.where(np.isin([0, 1], known), np.exp(kappa * g * u), 0.0)
        p /= p.sum()
        if len(known) == 2:
            self.waiting.append((x, c, w, self.loss(x, c)))
        else:
            self.waiting.append((x, c, w, None))
        lead = u[c] - p @ u
        dkappa = -(math.pi / 16) * alpha**3 * q**-1.5 * 2 * g * (a - b)
        slope = -0.5 * g * (dkappa * g * lead + kappa * lead)
        rise = kappa / q * g * lead
        self.delta = min(max(self.delta + 1e-4 * min(max(slope, -1), 1), 0.0), 0.2)
        self.log_alpha += 0.02 * min(max(rise, -1), 1)
        g = math.exp(-self.delta / 2)
        A = g * g * self.A + (1 - g * g) * np.eye(f.size)
        S = f @ A @ f + 0.1 / w
        k = A @ f / S
        e = np.eye(2)[c] - g * self.m.T @ f
        self.m, self.A = g * self.m + np.outer(k, e), A - np.outer(k, A @ f)
        self.delta = max(self.delta, 2e-5)
        if len(self.waiting) == self.group:
            self.step()
        return float(answer[1]) if known == [0, 1] else math.nan

    def step(self) -> None:
        """The mean of the losses of the group, weighted; the weights have not moved since."""
        self.optimiser.zero_grad()
        total = sum(w * loss for _, _, w, loss in self.waiting if loss is not None)
        self.waiting = []
        if not isinstance(total, torch.Tensor):  # one class alone is certain: a gradient of 0
            for p in self.network.parameters():
                p.grad = torch.zeros_like(p)
        else:
            (total / self.group).backward()
        gradients = [p.grad for p in self.network.parameters()]
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        for g in gradients:  # torch's own clipping adds 1e-6 to the norm
            g.mul_(min(1.0, self.clip / norm) if norm > 0.0 else 1.0)
        self.optimiser.step()


def _adam(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=0.02)


def _sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.3)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_every_answer_equals_that_of_autograd_and_plain_numpy(group: int, optimiser: str) -> None:
    rows = classes(120)
    weight = np.random.default_rng(1).choice([0.5, 1.0, 2.0], rows.n)
    rows = rows.replace(weight=weight)
    lr = {"adam": 0.02, "sgd": 0.3}[optimiser]
    ours = TorchKalmanClassifier(
        module_args={"hidden": [5, 4]},
        optimiser=optimiser,
        lr=lr,
        group=group,
        clip=0.7,
        delta_min=2e-5,
    )
    ours.meet(rows.features)
    start = copy.deepcopy(ours.network_)
    twin = Twin(copy.deepcopy(start), group, {"adam": _adam, "sgd": _sgd}[optimiser], 0.7)
    expected = np.array(
        [twin.row(x, int(c), w) for x, c, w in zip(rows.X, rows.y, weight, strict=True)]
    )
    got = ours.run(rows)["proba"][:, 1]
    told = ~np.isnan(expected)
    assert told.sum() > 100
    assert_allclose(got[told][1:], expected[told][1:], rtol=0, atol=1e-9)
    for mine, theirs in zip(ours.network_.parameters(), twin.network.parameters(), strict=True):
        assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=1e-9)
    for before, after in zip(start.parameters(), ours.network_.parameters(), strict=True):
        assert float((before - after).detach().abs().max()) > 0.01
    assert ours.n_steps_ == rows.n // group


# -- what training is for --------------------------------------------------------------------------


@pytest.mark.jit
def test_fine_tuning_beats_a_frozen_network_where_features_must_be_learned() -> None:
    """The sign of a product of three inputs, with eight hidden units."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 3))
    rows = labelled(X, np.prod(X, axis=1) > 0, "classification")
    scores, losses = {}, {}
    ways: dict[str, dict[str, Any]] = {
        "frozen": {"lr": 0.0},
        "tuned": {"lr": 0.01, "group": 4},
        "with replay": {"lr": 0.03, "group": 8, "replay": 16},
    }
    for name, more in ways.items():
        out = TorchKalmanClassifier(module_args={"hidden": [8], "scale": 1.0}, **more).run(rows)
        last = slice(2000, None)
        scores[name] = float(np.mean(out["prediction"][last] == rows.y[last]))
        p = out["proba"][np.arange(rows.n), rows.y.astype(int)][last]
        losses[name] = float(-np.log(p).mean())
    assert scores["frozen"] < 0.7
    assert min(scores["tuned"], scores["with replay"]) > 0.8
    assert losses["frozen"] > 0.6
    assert max(losses["tuned"], losses["with replay"]) < 0.4


@pytest.mark.jit
def test_fine_tuning_beats_a_frozen_network_on_numbers() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2500, 2))
    y = 100.0 + 20.0 * np.sin(2.0 * X[:, 0]) * np.cos(2.0 * X[:, 1])
    errors = {}
    for lr in (0.0, 0.01):
        model = TorchKalmanRegressor(module_args={"hidden": [12]}, lr=lr, group=4)
        out = model.run(labelled(X, y))["prediction"]
        errors[lr] = float(np.abs(out - y)[1500:].mean())
    assert errors[0.01] < 0.8 * errors[0.0]


# -- the law, and what is saved --------------------------------------------------------------------


class Foreign(torch.nn.Module):  # type: ignore[misc, name-defined]
    """What somebody else's network may have: float32, a frozen part, dropout, norms, bfloat16."""

    def __init__(self, n_inputs: int = 3, width: int = 4) -> None:
        super().__init__()
        self.first = torch.nn.Linear(n_inputs, width)
        self.fixed = torch.nn.Linear(width, width)
        self.fixed.requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(width)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(width, 3)
        self.register_buffer("scale", torch.tensor([0.5], dtype=torch.bfloat16))

    def forward(self, x: Any) -> Any:
        h = self.drop(self.norm(torch.relu(self.fixed(torch.relu(self.first(x))))))
        return self.last(h) * self.scale.float()


def foreign() -> TorchKalmanClassifier:
    torch.manual_seed(0)
    return TorchKalmanClassifier(
        Foreign(), lr=0.01, group=5, replay=3, memory=11, head=KalmanClassifier(delta0=1e-3)
    )


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), saved=st.integers(1, 59))
def test_any_cut_and_any_save_give_the_same_bits(cuts: list[int], saved: int) -> None:
    rows = classes(60)
    whole, parts = foreign(), foreign()
    expected = whole.run(rows)
    assert_same_bits(expected, run_in_cuts(parts, cut(rows, cuts)))
    assert_same_state(whole.state(), parts.state())
    first = foreign()
    first.run(rows.rows(0, saved))
    state = through_json(first.state())
    assert all(type(array) is np.ndarray for array in state.arrays.values())
    second = foreign()
    second.load(state)
    rest = {name: column[saved:] for name, column in expected.items()}
    assert_same_bits(rest, second.run(rows.rows(saved, 60)))
    assert_same_state(whole.state(), second.state())


def test_the_module_given_stays_as_it_was_and_frozen_parts_too() -> None:
    model = foreign()
    before = copy.deepcopy(model.module.state_dict())
    model.run(classes(60))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    after = model.network_.state_dict()
    assert torch.equal(after["fixed.weight"], before["fixed.weight"])
    assert not torch.equal(after["first.weight"], before["first.weight"])
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])


def test_what_torch_keeps_for_the_process_is_left_alone() -> None:
    threads, draws = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        model = TorchKalmanClassifier("torch.nn:Linear", {"in_features": 3, "out_features": 2})
        model.run(classes(40))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), draws)
    finally:
        torch.set_num_threads(threads)


def test_a_saved_network_of_another_build_is_refused() -> None:
    small = TorchKalmanClassifier(module_args={"hidden": [4]})
    small.run(classes(10))
    with pytest.raises(ValueError, match=r"module must be the one that was saved.*weight0"):
        hand_over(small.state(), TorchKalmanClassifier(module_args={"hidden": [5]}))
    sgd = TorchKalmanClassifier(module_args={"hidden": [4]}, optimiser="sgd")
    with pytest.raises(ValueError, match=r"these parts differ.*first/bias0"):
        hand_over(small.state(), sgd)


# -- replay ----------------------------------------------------------------------------------------


def kept(buffer: str, seed: int = 0, n: int = 40) -> I8:
    """Numbers of the rows that are in the memory of eight after n rows."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.arange(float(n)), rng.normal(size=n)])
    model = TorchKalmanClassifier(module_args=SMALL, replay=1, memory=8, buffer=buffer, seed=seed)
    model.run(labelled(X, rng.integers(0, 2, n), "classification"))
    rows = model.replay_inputs_[:, 0].astype(np.int64)
    assert_array_equal(model.replay_inputs_, X[rows])
    return rows


def test_a_ring_keeps_the_last_rows_and_a_reservoir_any_with_the_same_chance() -> None:
    assert sorted(kept("ring")) == list(range(32, 40))
    assert sorted(kept("reservoir", n=8)) == list(range(8))
    counts = np.zeros(40)
    for seed in range(30):
        rows = kept("reservoir", seed)
        assert len(set(rows)) == 8
        counts[rows] += 1
    share = counts.reshape(4, 10).sum(axis=1) / 240  # quarters of the stream
    assert_allclose(share, 0.25, atol=0.08)


def test_rows_of_before_are_in_the_step() -> None:
    """With a group of one and a memory of one, the row is in its own step twice: once more with
    the head that has learnt it."""
    rows = classes(30)
    plain = TorchKalmanClassifier(module_args=SMALL, group=1, optimiser="sgd", lr=0.1)
    replayed = TorchKalmanClassifier(
        module_args=SMALL, group=1, optimiser="sgd", lr=0.1, replay=1, memory=1, buffer="ring"
    )
    plain.run(rows.rows(0, 10))
    replayed.run(rows.rows(0, 10))
    last = int(rows.y[9])
    assert_array_equal(replayed.replay_labels_, [[last]])
    assert_array_equal(replayed.replay_inputs_, rows.X[9:10])
    differ = [
        float((a - b).abs().max().detach())
        for a, b in zip(plain.network_.parameters(), replayed.network_.parameters(), strict=True)
    ]
    assert max(differ) > 1e-4


# -- growth, gaps, hard input ----------------------------------------------------------------------


def test_a_new_feature_changes_no_answer_where_it_is_zero() -> None:
    rows = classes(200)
    model = TorchKalmanClassifier(module_args={"hidden": [6, 5]}, lr=0.01)
    model.run(rows)
    asks = block_of(rows.X[:20], task="classification", mode=PREDICT, labels=rows.labels)
    before = model.run(asks)["proba"]
    moments = {k: a for k, a in model.state().arrays.items() if "first/" in k}
    names = ["x0", "x1", "x2", "new", "newer"]
    wide = np.hstack([rows.X[:20], np.zeros((20, 2))])
    asks = block_of(wide, task="classification", mode=PREDICT, names=names, labels=rows.labels)
    assert_allclose(model.run(asks)["proba"], before, rtol=0, atol=1e-12)
    grown = model.state().arrays
    for name, array in moments.items():
        assert_array_equal(grown[name][tuple(slice(0, n) for n in array.shape)], array)
    assert_array_equal(grown["network/first/weight0"][:, 3:], 0.0)
    assert np.all(grown["network/module/weight0"][:, 3:] != 0.0)


def test_a_network_of_one_width_refuses_a_new_feature() -> None:
    model = foreign()
    model.run(classes(10))
    with pytest.raises(ValueError, match=r"module takes 3 features, got 4; give it a method grow"):
        model.run(classes(10, d=4))
    assert model.run(classes(10))["prediction"].shape == (10,)  # and goes on as before
    with pytest.raises(ValueError, match=r"module must take \(1, 4\) numbers"):
        foreign().run(classes(10, d=4))


def test_gaps_are_filled_with_the_running_mean_of_before() -> None:
    rows = classes(80)
    model, twin = (TorchKalmanClassifier(module_args=SMALL, group=3) for _ in range(2))
    X = rows.X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    X[5] = np.nan
    filled = X.copy()
    for t in range(80):
        there = [X[:t, j][~np.isnan(X[:t, j])] for j in range(3)]
        means = np.array([values.mean() if values.size else 0.0 for values in there])
        filled[t] = np.where(np.isnan(X[t]), means, X[t])
    y = rows.y.copy()
    y[5] = np.nan  # nothing but gaps: nothing to learn
    expected = twin.run(rows.replace(X=filled, y=y))
    got = model.run(rows.replace(X=X))
    assert_allclose(got["proba"], expected["proba"], rtol=0, atol=1e-9)
    assert model.n_imputed == int(np.isnan(X).sum())
    assert model.head_.gap_ == twin.head_.gap_


def test_hard_input_leaves_the_network_finite() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(400, 4)) * np.array([1e-6, 1.0, 1e6, 0.0])
    X[rng.random(X.shape) < 0.02] = np.inf
    X[rng.random(X.shape) < 0.02] *= 1e300
    for family, y in (
        (TorchKalmanClassifier, rng.integers(0, 2, 400)),
        (TorchKalmanRegressor, rng.normal(size=400) * 1e8),
    ):
        model = family(module_args=SMALL, optimiser="sgd", lr=1.0, group=1)
        task = "classification" if family is TorchKalmanClassifier else "regression"
        out = model.run(labelled(X, y, task, weight=rng.choice([1.0, 1e200], 400)))
        infinite = np.isinf(X).any(axis=1)
        assert np.isnan(out["prediction"][infinite]).all()
        assert model.n_rejected >= infinite.sum()
        for p in model.network_.parameters():
            assert torch.isfinite(p).all()


@pytest.mark.jit
@pytest.mark.parametrize("n", [2000, pytest.param(300_000, marks=pytest.mark.soak)])
def test_the_covariance_stays_definite_and_bounded(n: int) -> None:
    """Collinear, constant, from 1e-6 to 1e6, while the features under it move."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(n, 1))
    X = np.hstack([base, base, -2.0 * base, 1e-6 * rng.normal(size=(n, 1)), np.ones((n, 1))])
    X[:, 4] *= np.where(np.arange(n) % 100 == 0, 1e6, 1.0)
    rows = labelled(X, (base[:, 0] > 0) ^ (rng.random(n) < 0.1), "classification")
    model = TorchKalmanClassifier(module_args={"hidden": [4]}, lr=0.05, group=4)
    for start in range(0, n, 1000):
        out = model.run(rows.rows(start, start + 1000))
        assert np.isfinite(out["proba"][2:]).all()
    values = np.linalg.eigvalsh(model.head_.covariance_)
    assert values[0] > 0.0
    assert values[-1] <= 1.0 + 1e-9
    assert model.n_skipped_ == 0


def test_a_row_that_the_network_makes_infinite_is_refused() -> None:
    class Exponential(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: Any) -> Any:
            return torch.exp(self.w * x)

    model = TorchKalmanClassifier(Exponential(), lr=0.01, group=1)
    X = np.array([[1.0, 0.5], [1000.0, 0.5], [0.2, 0.1]])
    out = model.run(labelled(X, [0, 1, 1], "classification"))
    assert_array_equal(np.isnan(out["prediction"]), [True, True, False])
    assert model.n_rejected == 1
    assert model.head_.n_samples_ == 2


def test_a_step_with_a_gradient_that_is_not_finite_is_not_made() -> None:
    class Root(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: Any) -> Any:
            return torch.sqrt(torch.abs(self.w * x))  # infinite slope at 0

    model = TorchKalmanClassifier(Root(), lr=0.1, group=2)
    model.run(classes(20))
    assert (model.n_steps_, model.n_skipped_) == (0, 10)
    assert float(model.network_.w.detach()) == 0.0


def test_balance_is_a_weight_by_class() -> None:
    rows = classes(80, K=3)
    y = rows.y.astype(int)
    weight, seen = np.ones(80), np.zeros(3)
    for t in range(80):
        seen[y[t]] += 1
        weight[t] = seen.sum() / ((seen > 0).sum() * seen[y[t]])
    way: dict[str, Any] = {"module_args": SMALL, "group": 2, "lr": 0.05, "replay": 2}
    one, other = TorchKalmanClassifier(balance=True, **way), TorchKalmanClassifier(**way)
    assert_same_bits(one.run(rows), other.run(rows.replace(weight=weight)))


def test_drift_rate_stays_above_its_floor() -> None:
    rows = classes(400)
    for floor in (0.0, 1e-3):
        model = TorchKalmanClassifier(
            module_args=SMALL, delta_min=floor, head=KalmanClassifier(lr_delta=0.0)
        )
        model.run(rows)
        assert model.delta_ == floor


def test_rows_that_only_ask_or_have_no_label_make_no_step() -> None:
    rows = classes(40)
    model = TorchKalmanClassifier(module_args=SMALL, group=1)
    model.run(rows.replace(mode=np.full(40, PREDICT, dtype=np.uint8)))
    assert model.n_steps_ == 0
    model.run(rows.replace(y=np.full(40, np.nan)))
    assert (model.n_steps_, model.head_.gap_) == (0, 40)
    model.run(rows.replace(mode=np.full(40, LEARN, dtype=np.uint8)))
    assert model.n_steps_ == 40


# -- construction ----------------------------------------------------------------------------------


def test_a_factory_by_import_path_is_told_the_width_and_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_of_ours.py").write_text(
        "import torch\n"
        "def small(n_inputs, width):\n"
        "    return torch.nn.Sequential(torch.nn.Linear(n_inputs, width), torch.nn.ReLU())\n"
        "def wrong():\n    return 3\n"
        "def drawing():\n    return torch.nn.RReLU().train()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = {"module": "nets_of_ours:small", "module_args": {"width": 7}}
    one, other = (
        registry.build("TorchKalman", arguments, "classification", "pipeline[0]") for _ in range(2)
    )
    rows = classes(30)
    assert_same_bits(one.run(rows), other.run(rows))
    assert one.network_[0].weight.shape == (7, 3)
    assert one.head_.covariance_.shape == (8, 8)
    with pytest.raises(ValueError, match=r"module must make a torch.nn.Module.*makes 3"):
        TorchKalmanClassifier("nets_of_ours:wrong").run(rows)
    with pytest.raises(UserError, match=r"module: must be importable, as package.module:factory"):
        registry.build("TorchKalman", {"module": "nets_of_ours:nowhere"}, "classification")


def test_a_network_that_draws_random_numbers_is_refused() -> None:
    class Noisy(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + torch.randn_like(x)

    with pytest.raises(ValueError, match="draws random numbers"):
        TorchKalmanClassifier(Noisy()).run(classes(3))


def test_a_network_without_anything_to_train_serves() -> None:
    rows = classes(100)
    out = TorchKalmanClassifier(torch.nn.Tanh(), group=4).run(rows)
    expected = KalmanClassifier().run(
        labelled(np.tanh(rows.X), rows.y.astype(int), "classification")
    )
    assert_allclose(out["proba"], expected["proba"], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"lr must be >= 0, got -1\.0"),
        ({"clip": 0.0}, r"clip must be > 0, got 0\.0"),
        ({"group": 0}, "group must be a whole number >= 1, got 0"),
        ({"optimiser": "lion"}, "optimiser must be one of adam, sgd, got 'lion'"),
        ({"buffer": "heap"}, "buffer must be one of reservoir, ring, got 'heap'"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got 'tpu'"),
        ({"module": 3}, r"module must be a torch.nn.Module, or the path .* got 3"),
        ({"module_args": 3}, "module_args must be `argument: value` pairs, got 3"),
        ({"module": torch.nn.Tanh(), "module_args": {"a": 1}}, "for a module made here"),
        ({"module_args": {"hidden": [0]}}, "hidden must be a whole number >= 1, got 0"),
        ({"module_args": {"depth": 2}}, "module_args .*depth"),
        ({"head": KalmanClassifier(random_features=3)}, "head must be a KalmanClassifier of one"),
        ({"head": KalmanRegressor()}, "head must be a KalmanClassifier of one covariance"),
        ({"delta_min": 0.5}, r"delta_min must be in \[0, 0\.2\], got 0\.5"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"TorchKalmanClassifier: {message}|{message}"):
        TorchKalmanClassifier(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="device must be there, got 'cuda'"):
        TorchKalmanClassifier(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_law_holds_and_answers_are_those_of_the_cpu() -> None:
    rows = classes(200)
    way: dict[str, Any] = {"module_args": SMALL, "lr": 0.01, "group": 4, "replay": 4}
    whole, parts = (TorchKalmanClassifier(device="cuda", **way) for _ in range(2))
    expected = whole.run(rows)
    assert_same_bits(expected, run_in_cuts(parts, cut(rows, [3, 50, 51])))
    assert_same_state(whole.state(), parts.state())
    on_cpu = TorchKalmanClassifier(**way).run(rows)
    assert_allclose(expected["proba"], on_cpu["proba"], rtol=0, atol=1e-6)


def test_without_torch_the_class_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(operators, "_torch", raising=False)
    monkeypatch.setitem(sys.modules, "streamlearn.operators._torch", None)
    with pytest.raises(UserError, match=r'pip install "streamlearn\[torch\]"'):
        TorchKalmanClassifier()
    assert list(TorchKalmanRegressor._unit_test_params()) == []


def test_torch_is_not_imported_before_it_is_asked_for() -> None:
    program = "import sys, streamlearn.operators as o; o.exported(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    assert done.stdout == "False\n"
