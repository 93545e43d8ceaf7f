"""The forecaster's torch experts: against a slow twin with torch's own AdamW; laws and traps."""

import math
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from streamlearn import operators
from streamlearn.block import OBSERVE, SCORED
from streamlearn.errors import UserError
from streamlearn.jit import forecast as jit
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.operators.forecaster import NETWORKS, OnlineForecaster
from streamlearn.testing import (
    assert_same_bits,
    assert_same_state,
    block_of,
    cut,
    run_in_cuts,
    through_json,
)

torch = pytest.importorskip("torch", reason='needs the extra "torch"')

F8 = NDArray[np.float64]
TINY: dict[str, Any] = {"hidden": 4, "epochs": 2, "batch": 7, "lr": 0.01}
SMALL: dict[str, Any] = {"lags": 5, "cross_lags": 2, "warm_up": 30, "tcn_args": TINY}
BITS = ("forecast", "lower", "upper")


def waves(n: int, M: int = 2, seed: int = 0) -> F8:
    """Noisy waves with a change of level in the middle."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    base = np.sin(2.0 * np.pi * (t / 12.0 + rng.random(M))) * (1.0 + np.arange(M))
    wave: F8 = base + 0.1 * rng.normal(size=(n, M)) + np.where(t > n // 2, 3.0, 0.0)
    return wave


def run(model: OnlineForecaster, X: F8, mode: int = SCORED) -> dict[str, F8]:
    names = [f"c{j}" for j in range(X.shape[1])]
    return model.run(block_of(X, mode=mode, names=names))


# -- the network -----------------------------------------------------------------------------------


def slow_network(weights: dict[str, Any], x: Any, C: int) -> Any:
    """Every moment of every layer, dilated as in the papers; the last moment is read. x (n, …)."""
    layers = sum(name.startswith("bias") for name in weights)
    L = 2 ** (layers + 1) - 1
    h = x[:, : C * L].reshape(x.shape[0], C, L)
    for i in range(layers):
        d = 2**i
        padded = torch.nn.functional.pad(h, (2 * d, 0))
        taps = [padded[:, :, k * d : k * d + L] for k in range(3)]
        made = sum(
            torch.einsum("oc,nct->not", weights[f"weight{i}"][:, :, k], taps[k]) for k in range(3)
        )
        made = made + weights[f"bias{i}"][:, None]
        made = 0.5 * made * (1.0 + torch.erf(made / math.sqrt(2.0)))
        h = made if i == 0 else h + made
    read = torch.cat((h[:, :, -1], x[:, C * L :]), 1)
    return read @ weights["out"].T + weights["level"]


def opened(lags: int, C: int, extra: int, outputs: int) -> Any:
    from streamlearn.operators import _torch

    layers = max(1, math.ceil(math.log2(lags + 1)) - 1)
    module = _torch.Convolutions(6, layers, seed=3)
    module.grow(tuple(f"s{j}" for j in range(C)), extra, outputs)
    rng = np.random.default_rng(lags)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape))))
    return module


@pytest.mark.parametrize("lags", [1, 2, 4, 7, 8, 60])
@pytest.mark.parametrize(("C", "extra"), [(1, 0), (3, 2)])
def test_strides_are_the_dilated_convolutions_of_the_last_moment(
    lags: int, C: int, extra: int
) -> None:
    module = opened(lags, C, extra, 5)
    assert module.length >= lags
    x = torch.randn((4, C * module.length + extra), dtype=torch.float64)
    got = module(x).detach().numpy()
    assert_allclose(got, slow_network(module.state_dict(), x, C).numpy(), rtol=1e-10, atol=1e-10)


def test_every_lag_reaches_the_answer() -> None:
    module = opened(15, 1, 0, 1)
    x = torch.randn((1, module.length), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    assert (slope != 0.0).all()


def test_new_series_leave_the_answers_as_they_were() -> None:
    module = opened(7, 2, 2, 6)
    x = np.random.default_rng(0).normal(size=(1, 2 * module.length + 2))
    before = module(torch.from_numpy(x)).detach().numpy()
    module.grow(("s0", "s1", "s2"), 3, 9)
    wide = np.concatenate((x[:, :-2], np.zeros((1, module.length)), x[:, -2:], [[4.0]]), axis=1)
    after = module(torch.from_numpy(wide)).detach().numpy()
    assert_allclose(after[:, :6], before, rtol=1e-12)
    assert_array_equal(after[:, 6:], 0.0)


# -- the experts as a whole, against a slow twin ---------------------------------------------------


class SlowExpert:
    """One network from the equations, in the unit of the series."""

    def __init__(self, model: OnlineForecaster, name: str, Z: F8) -> None:
        self.model, self.shared, self.Z = model, name == "tcn_time", Z
        self.begins = [int(np.flatnonzero(~np.isnan(column))[0]) for column in Z.T]
        self.M, self.H = Z.shape[1], model.horizon
        found = model._tcn.trained[name].module.state_dict()
        self.weights = {k: t.clone().requires_grad_(True) for k, t in found.items()}
        rule = model._tcn.settings
        self.clip, self.epochs, self.batch = rule.clip, rule.epochs, rule.batch
        self.optimiser = torch.optim.AdamW(
            list(self.weights.values()), lr=rule.lr, weight_decay=rule.decay
        )
        layers = sum(k.startswith("bias") for k in found)
        self.length = 2 ** (layers + 1) - 1
        self.V = Z.copy()
        for j, b in enumerate(self.begins):
            self.V[:b, j] = Z[b, j]
            for t in range(b, len(Z)):
                self.V[t, j] = self.V[t - 1, j] if math.isnan(Z[t, j]) else Z[t, j]

    def inputs(self, t: int) -> Any:
        L, rows, levels = self.model.lags, [], []
        for j in range(self.M):
            alive = 1.0 if t >= self.begins[j] else 0.0
            back = [min(i, L - 1) for i in range(self.length)][::-1]
            rows.append([alive * (self.V[max(t - i, 0), j] - self.V[t, j]) for i in back])
            levels.append(alive * self.V[t, j])
        if self.shared:
            return torch.tensor(np.array(rows))
        return torch.tensor(np.concatenate([np.ravel(rows), levels])[None])

    def forecast(self, t: int) -> F8:
        C = 1 if self.shared else self.M
        with torch.no_grad():
            steps = slow_network(self.weights, self.inputs(t), C).reshape(self.M, self.H).numpy()
        ready = [t - b + 1 >= self.model.lags for b in self.begins]
        found: F8 = self.V[t][:, None] + np.where(np.array(ready)[:, None], steps, 0.0)
        return found.T

    def targets(self, t: int) -> F8:
        Y = np.full((self.M, self.H), np.nan)
        for j in range(self.M):
            if t - self.begins[j] + 1 >= self.model.lags:
                Y[j] = self.Z[t + 1 : t + 1 + self.H, j] - self.V[t, j]
        return Y

    def learn(self, moments: list[int]) -> None:
        """One step of AdamW on the mean squared error of all that is known."""
        Y = torch.tensor(np.array([self.targets(t) for t in moments]))
        known = ~torch.isnan(Y)
        if not known.any():
            return
        C = 1 if self.shared else self.M
        made = slow_network(self.weights, torch.cat([self.inputs(t) for t in moments]), C)
        loss = ((made.reshape(Y.shape) - Y)[known] ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.weights.values()]
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for g in gradients:
            g.mul_(min(1.0, self.clip / norm) if norm > 0.0 else 1.0)
        self.optimiser.step()

    def fit(self, rows: int) -> None:
        origins = np.arange(rows - self.H)
        for epoch in range(self.epochs):
            draws = uniforms(key_of(self.model.seed, f"epoch {epoch}"), len(origins))
            order = origins[np.argsort(draws, kind="stable")].tolist()
            for start in range(0, len(order), self.batch):
                self.learn(order[start : start + self.batch])

    def run(self) -> F8:
        """Forecasts (n, H, M) after every row."""
        out = np.full((len(self.Z), self.H, self.M), np.nan)
        for t in range(len(self.Z)):
            if t + 1 == self.model.warm_up:
                self.fit(t + 1)
            elif t + 1 > self.model.warm_up and t >= self.H:
                self.learn([t - self.H])
            out[t] = self.forecast(t)
        return out


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("H", "lags", "warm_up"), [(1, 4, 40), (3, 7, 25), (2, 3, 0)])
def test_equal_to_the_slow_one(name: str, gaps: bool, H: int, lags: int, warm_up: int) -> None:
    """Fit, steps, gaps, a channel that begins later; forecasts after every row."""
    X = waves(90, 3)
    if gaps:
        X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
        X[:12, 1] = np.nan
        X[0, 0], X[12, 1], X[0, 2] = 0.0, 1.0, 2.0
    model = OnlineForecaster(H, lags, 2, experts=(name,), warm_up=warm_up, tcn_args=TINY, seed=4)
    run(model, X[:0])
    model._settings[jit.WARM_UP], model.moments_[jit.SD] = 0.0, 1.0  # no scaling in the twin
    slow = SlowExpert(model, name, X)
    got, expected = run(model, X)["forecast"], slow.run()
    assert max(slow.begins) == (12 if gaps else 0)
    for j, begin in enumerate(slow.begins):
        assert_allclose(got[begin:, :, j], expected[begin:, :, j], rtol=1e-9, atol=1e-9)


# -- the spec's acceptance tests -------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 24])
def test_no_look_ahead(H: int) -> None:  # acceptance 1
    X = waves(130)
    args = SMALL | {"warm_up": 60, "experts": (*NETWORKS, "cross_time")}
    for t in (40, 59, 90):  # within the warm-up, at its end, after it
        other = X.copy()
        other[t + 1 :] = np.random.default_rng(9).normal(size=other[t + 1 :].shape) * 100.0
        first, second = run(OnlineForecaster(H, **args), X), run(OnlineForecaster(H, **args), other)
        for name in BITS:
            assert_array_equal(first[name][: t + 1], second[name][: t + 1])
        assert not np.array_equal(first["forecast"][t + 1 :], second["forecast"][t + 1 :])


def test_networks_do_not_know_of_their_mixture() -> None:  # acceptance 7
    X = waves(80)
    made = [
        OnlineForecaster(2, experts=experts, **SMALL, **more)
        for experts in ((*NETWORKS, "cross_time"), (*NETWORKS, "last_value"))
        for more in ({}, {"eta": 0.0, "share": 0.0}, {"correction": True})
    ]
    for model in made:
        run(model, X)
    for model in made[1:]:
        for name, array in made[0]._tcn.arrays().items():
            assert_array_equal(array, model._tcn.arrays()[name])


def test_ridges_do_not_know_of_the_networks() -> None:  # acceptance 7
    X, both = waves(80), ("cross_time", "cross_variable")
    one = OnlineForecaster(2, experts=both, lags=5, cross_lags=2, warm_up=30)
    two = OnlineForecaster(2, experts=(*both, "tcn_time"), **SMALL)
    run(one, X)
    run(two, X)
    for name in ("P1_", "B1_", "P2_", "B2_", "moments_", "ring_"):
        assert_array_equal(getattr(one, name), getattr(two, name))


def trained(name: str, X: F8, **more: Any) -> OnlineForecaster:
    model = OnlineForecaster(2, experts=(name,), **(SMALL | more))
    run(model, X)
    return model


def test_a_channel_is_forecast_from_its_own_values() -> None:  # acceptance 9, second half
    """With the weights that were learnt, other data elsewhere change `tcn_variable` alone."""
    X = waves(80, 3)
    for name in NETWORKS:
        tcn = trained(name, X)._tcn
        model = trained(name, X)
        ring, m = model.ring_.copy(), model.moments_
        before = tcn.answers((ring, m, 79))[name]
        ring[:, 1:] = np.random.default_rng(0).normal(size=(len(ring), 2))
        after = tcn.answers((ring, m, 79))[name]
        assert np.array_equal(after[0], before[0]) is (name == "tcn_time")
        turned = tcn.answers((model.ring_[:, ::-1].copy(), m[:, ::-1].copy(), 79))[name]
        same = np.allclose(turned[::-1], before, rtol=1e-12, atol=1e-14)
        assert same is (name == "tcn_time")


@pytest.mark.parametrize("at", [17, 30, 64])  # within the warm-up, at its end, after it
def test_saved_with_windows_waiting(at: int) -> None:  # acceptance 10
    X = waves(90, 3)
    args: dict[str, Any] = SMALL | {"experts": (*NETWORKS, "cross_variable"), "correction": True}
    whole, first, second = (OnlineForecaster(4, **args) for _ in range(3))
    expected = run(whole, X)
    run(first, X[:at])
    second.load(through_json(first.state()))
    got = run(second, X[at:])
    for name in BITS:
        assert_array_equal(got[name], expected[name][at:])
    assert_same_state(whole.state(), second.state())


@pytest.mark.parametrize("c", [0.25, 1024.0])
def test_scaling_a_channel_scales_its_forecasts(c: float) -> None:  # acceptance 10
    X = waves(80, 3)
    factors = np.array([1.0, c, 1.0])
    first = run(OnlineForecaster(2, experts=NETWORKS, **SMALL), X)
    second = run(OnlineForecaster(2, experts=NETWORKS, **SMALL), X * factors)
    for name in BITS:
        assert_allclose(second[name], first[name] * factors, rtol=1e-9)


# -- the law, and state ----------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1, 2, 3], [29], [30], [31, 60], range(1, 80)])
def test_cuts_change_nothing(cuts: Any) -> None:
    rows = block_of(waves(80), mode=SCORED, names=["a", "b"])
    args: dict[str, Any] = SMALL | {"experts": ("tcn_variable", "cross_time", "tcn_time")}
    whole, pieces = OnlineForecaster(3, **args), OnlineForecaster(3, **args)
    assert_same_bits(whole.run(rows), run_in_cuts(pieces, cut(rows, cuts)))
    assert_same_state(whole.state(), pieces.state())


def test_a_snapshot_can_be_restored_twice() -> None:
    X = waves(80)
    model = OnlineForecaster(2, experts=NETWORKS, **SMALL)
    run(model, X[:25])
    taken = model.snapshot()
    first = run(model, X[25:])
    for _ in range(2):
        model.restore(taken)
        assert_same_bits(first, run(model, X[25:]))
    assert not model.cheap_snapshot
    model.reset()
    again = run(model, X)
    assert_same_bits(again, run(OnlineForecaster(2, experts=NETWORKS, **SMALL), X))


def test_the_rows_of_the_warm_up_are_let_go() -> None:
    model = OnlineForecaster(2, experts=("tcn_time",), **SMALL)
    run(model, waves(29))
    assert model.state().arrays["tcn/past"].shape == (30, 3)
    before = model.state_bytes
    run(model, waves(1))
    assert model.state().arrays["tcn/past"].shape == (0, 3)
    assert before - model.state_bytes == 30 * 3 * 8


def test_a_row_of_no_weight_teaches_nothing() -> None:
    X, weight = waves(80), np.ones(80)
    weight[[5, 20, 29, 50, 70]] = 0.0
    args: dict[str, Any] = SMALL | {"experts": NETWORKS, "tcn_args": TINY | {"batch": 1}}
    model, whole = OnlineForecaster(2, **args), OnlineForecaster(2, **args)
    model.run(block_of(X, mode=SCORED, weight=weight))
    whole.run(block_of(X, mode=SCORED))
    windows = TINY["epochs"] * (30 - 2 - 4), 50  # of the fit, whose first four are too young
    lost = TINY["epochs"] * 2, 2  # row 5 completes a window that is too young
    for name in NETWORKS:
        assert whole._tcn.trained[name].steps == sum(windows)
        assert model._tcn.trained[name].steps == sum(windows) - sum(lost)


# -- what it is for, and hard inputs ---------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_what_no_ridge_can(name: str) -> None:
    """A tent map: the next value is a function of the last, with no linear part."""
    x = np.empty(1000)
    x[0] = 0.3
    for t in range(1, len(x)):
        x[t] = 1.9 * min(x[t - 1], 1.0 - x[t - 1])
    X = x[:, None]
    args: dict[str, Any] = {"lags": 3, "warm_up": 500}
    more: dict[str, Any] = {"tcn_args": {"hidden": 8, "epochs": 30, "lr": 0.005}}
    network = run(OnlineForecaster(1, experts=(name,), **args, **more), X)["forecast"][:, 0, 0]
    ridge = run(OnlineForecaster(1, experts=("cross_time",), **args), X)["forecast"][:, 0, 0]
    errors = [np.square(made[600:-1] - x[601:]).mean() for made in (network, ridge)]
    assert errors[0] < 0.6 * errors[1]  # the shared one must guess the level from two steps


def test_hostile_series_do_no_harm() -> None:
    """Constant, tiny, huge, infinite, a spike of 1e300, silence: all forecasts finite."""
    rng = np.random.default_rng(0)
    good = np.sin(np.arange(160) / 5.0) + 0.1 * rng.normal(size=160)
    X = np.column_stack([good, np.full(160, 3.7), 1e-6 * good, 1e6 * good + 1e9, good, good, good])
    X[[20, 100], 4] = 1e300, -1e300
    X[[21, 101], 5] = np.inf, -np.inf
    X[80:, 6] = np.nan
    model = OnlineForecaster(3, experts=(*NETWORKS, "cross_time"), **SMALL)
    out = run(model, X)
    assert np.isfinite(out["forecast"]).all()
    assert model.n_rejected == 2
    for name, array in model.state().arrays.items():
        if name.startswith("tcn/"):
            assert np.isfinite(array).all(), name


def test_a_new_channel_joins() -> None:
    X = waves(90, 3)
    model = OnlineForecaster(2, experts=NETWORKS, **SMALL)
    run(model, X[:20, :2])
    run(model, X[20:50])  # it comes within the warm-up
    wide = np.column_stack([X, X[:, 0]])
    out = run(model, wide[50:])  # and one more after it
    assert np.isfinite(out["forecast"]).all()
    assert model._tcn.trained["tcn_variable"].module.names == ("c0", "c1", "c2", "c3")


def test_without_a_channel_there_is_nothing_to_do() -> None:
    model = OnlineForecaster(2, experts=NETWORKS, **SMALL)
    model.run(block_of(np.zeros((40, 0)), mode=OBSERVE))
    out = run(model, waves(20))
    assert np.isfinite(out["forecast"]).all()


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tcn_args": {"units": 3}}, r"tcn_args: names must be one of hidden, .* got 'units'$"),
        ({"tcn_args": {"hidden": 0}}, r"tcn_args: hidden must be a whole number >= 1, got 0$"),
        ({"tcn_args": {"lr": 0.0}}, r"tcn_args: lr must be > 0, got 0\.0$"),
        ({"tcn_args": [3]}, r"tcn_args must be `argument: value` pairs, got \[3\]$"),
        ({"device": "tpu"}, r"device must be one of cpu, cuda, got 'tpu'$"),
        ({"experts": ("last_value",), "tcn_args": {"lr": 0.1}}, r"must be left out without the"),
        ({"experts": ("last_value",), "device": "cuda"}, r"must be left out without the experts"),
    ],
)
def test_messages(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^OnlineForecaster: .*" + message):
        OnlineForecaster(**({"experts": NETWORKS} | arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="device must be there, got 'cuda'"):
        OnlineForecaster(experts=NETWORKS, device="cuda")


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_torch", "torch_forecast"):
        monkeypatch.delattr(operators, name, raising=False)
        monkeypatch.setitem(sys.modules, f"streamlearn.operators.{name}", None)
    with pytest.raises(UserError, match=r'^OnlineForecaster: .* pip install "streamlearn\[torch\]'):
        OnlineForecaster(experts=("tcn_time",))
    OnlineForecaster().learn_one({"a": 1.0})
    assert len(list(OnlineForecaster._unit_test_params())) == 3
