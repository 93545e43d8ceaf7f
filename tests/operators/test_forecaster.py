"""The online forecaster: the spec's acceptance tests, laws and traps."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from streamlearn.block import LEARN, OBSERVE, PREDICT, SCORED
from streamlearn.jit import forecast as jit
from streamlearn.operators.forecaster import EXPERTS, OnlineForecaster
from streamlearn.testing import block_of, through_json
from tests.naive_forecast import NaiveForecaster

F8 = NDArray[np.float64]
SMALL: dict[str, Any] = {"lags": 6, "cross_lags": 2, "warm_up": 30}


def waves(n: int, M: int = 2, seed: int = 0) -> F8:
    """Noisy waves with a change of level in the middle."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    base = np.sin(2.0 * np.pi * (t / 12.0 + rng.random(M))) * (1.0 + np.arange(M))
    wave: F8 = base + 0.1 * rng.normal(size=(n, M)) + np.where(t > n // 2, 3.0, 0.0)
    return wave


def run(model: OnlineForecaster, X: F8, mode: int = SCORED) -> dict[str, F8]:
    return model.run(block_of(X, mode=mode, names=[f"c{j}" for j in range(X.shape[1])]))


# -- the spec's acceptance tests -------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 24])
@pytest.mark.parametrize("t", [99, 150])
def test_no_look_ahead(H: int, t: int) -> None:  # acceptance 1
    """Other values after row t: what was forecast from rows up to t has the same bits."""
    X = waves(220)
    other = X.copy()
    other[t + 1 :] = np.random.default_rng(9).normal(size=other[t + 1 :].shape) * 100.0
    first = run(OnlineForecaster(H, correction=True, **SMALL), X)
    second = run(OnlineForecaster(H, correction=True, **SMALL), other)
    for name in ("forecast", "lower", "upper"):
        assert_array_equal(first[name][: t + 1], second[name][: t + 1])
    assert not np.array_equal(first["forecast"][t + 1 :], second["forecast"][t + 1 :])


def test_the_leaking_protocol_fails_that_test() -> None:  # acceptance 1, the guard
    """Where targets are learnt before they came, forecasts change with the future."""
    X = waves(70)
    other = X.copy()
    other[51:] += 5.0
    for overlap in (False, True):
        one, two = (NaiveForecaster(2, 4, 5, 2, overlap=overlap).run(Z)[0] for Z in (X, other))
        assert np.array_equal(one[:51], two[:51]) is not overlap


def test_a_window_teaches_with_its_last_row() -> None:  # acceptance 2
    """The first lesson is the window that ends at row L - 1; it comes with row L - 1 + H."""
    L, H = 6, 4
    model = OnlineForecaster(H, lags=L, cross_lags=2)
    for t, row in enumerate(waves(30)):
        run(model, row[None, :])
        assert model.n_lessons_ == max(0, t + 1 - (L - 1) - H)


def test_both_protocols_are_one_for_one_step() -> None:  # acceptance 2
    X = waves(60)
    delayed, overlapping = (NaiveForecaster(2, 1, 5, 2, overlap=o).run(X)[0] for o in (False, True))
    assert_array_equal(delayed, overlapping)


@pytest.mark.parametrize("eta", [0.05, 0.5, 2.0])
def test_regret_of_the_exponentiated_gradient(eta: float) -> None:  # acceptance 3
    """At most ln 2 / eta + eta T / 8 against the best expert; equal to products of factors."""
    rng = np.random.default_rng(3)
    T = 400
    losses = np.column_stack([rng.random(T), np.clip(rng.random(T) + 0.1, 0.0, 1.0)])
    logu, u, suffered = np.log([0.5, 0.5]), np.array([0.5, 0.5]), 0.0
    for loss in losses:
        suffered += np.exp(logu) @ loss
        jit.egd_step(logu, loss, eta, 0.0)
        u = u * np.exp(-eta * loss)
        u /= u.sum()
        assert_allclose(np.exp(logu), u, rtol=1e-12, atol=1e-300)
    assert suffered - losses.sum(axis=0).min() <= math.log(2.0) / eta + eta * T / 8.0


@pytest.mark.jit
@pytest.mark.parametrize(("eta", "share", "expected"), [(0.05, 0.0, 0.502), (5.0, 0.01, 0.132)])
def test_experts_that_swap(eta: float, share: float, expected: float) -> None:  # acceptance 4
    """Losses 0.1 and 0.9 that swap every 50 steps: slow weights are at 0.5, fast ones follow."""
    logu, total = np.log([0.5, 0.5]), 0.0
    for t in range(2000):
        loss = np.array([0.1, 0.9] if (t // 50) % 2 == 0 else [0.9, 0.1])
        total += np.exp(logu) @ loss
        jit.egd_step(logu, loss, eta, share)
    assert total / 2000 == pytest.approx(expected, abs=0.005)


def test_identical_experts_keep_equal_weights() -> None:  # acceptance 5
    """With a season of one row both baselines say the last value."""
    model = OnlineForecaster(2, experts=("last_value", "seasonal"), season=1, lags=3)
    both = run(model, waves(80, 1))
    assert model.n_lessons_ > 70
    assert_allclose(model.weights_, 0.5, rtol=0, atol=1e-15)
    assert_array_equal(both["forecast"][:, 0], waves(80, 1))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.99, 1.0), (0.01, 0.985, 0.989)])
def test_a_better_expert_takes_over(share: float, least: float, most: float) -> None:
    """acceptance 5: a gap of 1 in scaled loss, eta 0.5, 20 steps."""
    logu = np.log([0.5, 0.5])
    for _ in range(20):
        jit.egd_step(logu, np.array([0.5, 1.5]), 0.5, share)
    assert least < np.exp(logu[0]) <= most


@pytest.mark.parametrize(("K", "H"), [(1, 1), (2, 3), (3, 8)])
def test_gradient_of_the_correction(K: int, H: int) -> None:  # acceptance 6
    """Of the squared error of the mixture, through the bias, against central differences."""
    rng = np.random.default_rng(K)
    n, h = (K + 1) * H, jit.HIDDEN
    net, x = 0.3 * rng.normal(size=(n + 1) * h + (h + 1) * h + h + 1), rng.normal(size=n)
    y, y1, y2 = rng.normal(size=(3, H))
    act = np.zeros(4 * jit.HIDDEN)

    def error(weights: F8) -> float:
        v = 1.0 / (1.0 + math.exp(-jit.net_run(weights, x, act) - 0.3))
        return float(np.mean((v * y1 + (1.0 - v) * y2 - y) ** 2))

    b = jit.net_run(net, x, act)
    v = 1.0 / (1.0 + math.exp(-b - 0.3))
    slope = float(np.mean(2.0 * (v * y1 + (1.0 - v) * y2 - y) * (y1 - y2)) * v * (1.0 - v))
    grad = np.zeros_like(net)
    jit.net_gradient(net, x, act, slope, grad)
    for i in rng.choice(net.size, 60, replace=False):
        step = np.zeros_like(net)
        step[i] = 1e-5
        numeric = (error(net + step) - error(net - step)) / 2e-5
        assert grad[i] == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def test_the_bias_of_a_channel_is_its_own() -> None:  # acceptance 6
    """With a net that does not move, other data in the other channel leave a channel's bias."""
    X = waves(80)
    other = X.copy()
    other[:, 1] = np.random.default_rng(2).normal(size=80)
    args: dict[str, Any] = SMALL | {"correction": True, "lr": 1e-300, "seed": 5}
    one, two = (OnlineForecaster(3, experts=("cross_time", "last_value"), **args) for _ in range(2))
    run(one, X[:9])  # one lesson: the shared expert has not spoken before it
    run(two, other[:9])
    assert one.bias_[0] == two.bias_[0] != 0.0
    assert one.bias_[1] != two.bias_[1]


def test_experts_do_not_know_of_their_mixture() -> None:  # acceptance 7
    X = waves(150)
    made = [
        OnlineForecaster(3, **SMALL, **more)
        for more in ({}, {"eta": 0.0, "share": 0.0}, {"correction": True}, {"scale_loss": False})
    ]
    for model in made:
        run(model, X)
    for name in ("P1_", "B1_", "P2_", "B2_"):
        for model in made[1:]:
            assert_array_equal(getattr(made[0], name), getattr(model, name))
    assert not np.array_equal(made[0].logu_, made[1].logu_)


def test_the_order_of_channels_turns_the_forecasts() -> None:  # acceptance 9, second half
    X = waves(150, 4)
    order = np.array([2, 0, 3, 1])
    names = [f"c{j}" for j in range(4)]
    one, two = OnlineForecaster(3, **SMALL), OnlineForecaster(3, **SMALL)
    first = one.run(block_of(X, mode=SCORED, names=names))
    second = two.run(block_of(X[:, order], mode=SCORED, names=[names[j] for j in order]))
    for name in first:
        assert_allclose(second[name], first[name][:, :, order], rtol=1e-9, atol=1e-9)


def test_saved_with_windows_waiting() -> None:  # acceptance 10
    X = waves(160, 3)
    args: dict[str, Any] = SMALL | {"correction": True, "experts": EXPERTS, "season": 12}
    whole, first, second = (OnlineForecaster(5, **args) for _ in range(3))
    expected = run(whole, X)
    run(first, X[:97])
    second.load(through_json(first.state()))
    got = run(second, X[97:])
    for name in expected:
        assert_array_equal(got[name], expected[name][97:])
    for name, array in whole.state().arrays.items():
        assert_array_equal(array, second.state().arrays[name])


@pytest.mark.parametrize("c", [1e-6, 0.25, 1e6])
def test_scaling_a_channel_scales_its_forecasts(c: float) -> None:  # acceptance 10
    X = waves(150, 3)
    scaled = X * np.array([1.0, c, 1.0])
    first, second = run(OnlineForecaster(4, **SMALL), X), run(OnlineForecaster(4, **SMALL), scaled)
    for name in first:
        expected = first[name] * np.array([1.0, c, 1.0])
        assert_allclose(second[name], expected, rtol=1e-9, atol=1e-9 * min(c, 1.0))


# -- what a row asks for ---------------------------------------------------------------------------


def test_asking_gives_what_was_forecast_and_changes_nothing() -> None:
    model, X = OnlineForecaster(3, **SMALL), waves(100)
    last = {name: column[-1] for name, column in run(model, X).items()}
    before = model.state()
    asked = run(model, np.full((2, 2), 7.0), PREDICT)
    for name, column in asked.items():
        assert_array_equal(column[0], last[name])
        assert_array_equal(column[1], last[name])
    for name, array in model.state().arrays.items():
        assert_array_equal(array, before.arrays[name])
    steps, bounds = model.forecast(), model.forecast_intervals(2)
    assert [step["c1"] for step in steps] == last["forecast"][:, 1].tolist()
    assert bounds[1]["c0"] == (last["lower"][1, 0], last["upper"][1, 0])


def test_a_label_says_nothing() -> None:
    X = waves(60)
    model, quiet = OnlineForecaster(2, **SMALL), OnlineForecaster(2, **SMALL)
    run(model, X)
    run(model, X * 3.0, LEARN)
    run(quiet, X, OBSERVE)
    for name, array in model.state().arrays.items():
        assert_array_equal(array, quiet.state().arrays[name])


def test_before_the_first_row_nothing_is_known() -> None:
    assert OnlineForecaster(2).forecast() == [{}, {}]
    model = OnlineForecaster(2, lags=3)
    model.learn_one({"a": 5.0})
    assert model.forecast() == [{"a": 5.0}, {"a": 5.0}]
    assert all(math.isnan(b) for b in model.forecast_intervals()[0]["a"])


# -- hard inputs -----------------------------------------------------------------------------------


def test_gaps_are_carried_on_and_left_out_of_the_losses() -> None:
    """With every second value of a channel gone, the other forecasts nearly as if it were there."""
    X = waves(400)
    holes = X.copy()
    holes[::2, 0] = np.nan
    model = OnlineForecaster(2, **SMALL)
    out = run(model, holes)
    assert model.n_imputed == 200
    assert np.isfinite(out["forecast"][1:]).all()
    error = np.abs(out["forecast"][300:-1, 0, 1] - X[301:, 1]).mean()
    assert error < 0.5 * np.abs(X[301:, 1] - X[300:-1, 1]).mean()


def test_infinities_are_missing_and_counted() -> None:
    X = waves(100)
    bad, holes = X.copy(), X.copy()
    bad[40, 0], bad[41, 1], holes[40, 0], holes[41, 1] = np.inf, -1e301, np.nan, np.nan
    one, two = OnlineForecaster(2, **SMALL), OnlineForecaster(2, **SMALL)
    assert_array_equal(run(one, bad)["forecast"], run(two, holes)["forecast"])
    assert (one.n_rejected, two.n_rejected) == (2, 0)


@pytest.mark.jit
@pytest.mark.parametrize("leaky", [True, False])
def test_hostile_series_do_no_harm(leaky: bool) -> None:
    """Constant, collinear, tiny, huge, a spike of 1e300: all forecasts finite, P definite."""
    rng = np.random.default_rng(0)
    n = 3000
    good = np.sin(np.arange(n) / 5.0) + 0.1 * rng.normal(size=n)
    X = np.column_stack([good, good, np.full(n, 3.7), 1e-6 * good, 1e6 * good + 1e9, good, good])
    X[1000, 5] = 1e300
    X[1500:, 6] = 0.0
    X[2000:, 2] += 1e5
    model = OnlineForecaster(3, lags=8, cross_lags=3, forgetting=0.99, leaky=leaky, warm_up=200)
    out = run(model, X)
    assert np.isfinite(out["forecast"]).all()
    for P in (model.P1_, model.P2_):
        assert np.array_equal(P, P.T)
    if leaky:
        for P in (model.P1_, model.P2_):
            assert np.linalg.eigvalsh(P).min() > 0.0
            assert np.linalg.eigvalsh(P).max() < 2.0 / model.ridge
    off = np.abs(out["forecast"][2500:-1, 0, 0] - X[2501:, 0]).mean()
    assert off < 0.3 * np.abs(np.diff(X[2500:, 0])).mean() + 0.12


@pytest.mark.jit
@pytest.mark.parametrize("n", [100_000, pytest.param(10_000_000, marks=pytest.mark.soak)])
def test_the_covariances_stay_definite(n: int) -> None:
    """Collinear, constant and silent channels of scales 1e-6 to 1e6 for a long time."""
    model = OnlineForecaster(1, lags=3, cross_lags=1, forgetting=0.98, warm_up=50)
    rng = np.random.default_rng(0)
    for start in range(0, n, 50_000):
        z = rng.normal(size=50_000)
        X = np.column_stack([z, 1e-6 * z, 1e6 * z, np.full(50_000, 2.0)])
        X[10_000:30_000] = X[10_000]  # nothing moves for long: where a plain form winds up
        run(model, X, OBSERVE)
        for P in (model.P1_, model.P2_):
            eigenvalues = np.linalg.eigvalsh(P)
            assert 0.0 < eigenvalues.min() <= eigenvalues.max() < 2.0 / model.ridge, start
    assert model.n_lessons_ == n - 3


def test_a_channel_that_stood_still_is_scaled_once_it_moves() -> None:
    """Its long start of one value counts once: no deviation of almost nothing is frozen."""
    X = np.column_stack([waves(300, 1)[:, 0], np.zeros(300)])
    X[150:, 1] = np.random.default_rng(0).normal(size=150)
    model = OnlineForecaster(2, **SMALL)
    run(model, X)
    assert 0.5 < model.moments_[jit.SD, 1] < 2.0


def test_a_new_channel_leaves_the_others() -> None:
    """It begins with its first value; what was forecast of the old ones goes on close by."""
    X = waves(200, 3)
    model = OnlineForecaster(2, **SMALL)
    for row in X[:100]:
        model.learn_one({"a": row[0], "b": row[1]})
    for row in X[100:]:
        model.learn_one({"a": row[0], "b": row[1], "c": row[2]})
    assert list(model.forecast()[0]) == ["a", "b", "c"]
    assert np.isfinite(list(model.forecast()[0].values())).all()
    assert model.weights_.shape == (3, 2)


@pytest.mark.jit
def test_intervals_cover_through_a_change_of_noise() -> None:
    """Noise that grows fivefold, then shrinks: near 90 % in each part, step and channel."""
    rng = np.random.default_rng(1)
    n = 9000
    scale = np.where((np.arange(n) > 3000) & (np.arange(n) < 6000), 5.0, 1.0)[:, None]
    X = np.sin(np.arange(n) / 9.0)[:, None] + scale * rng.standard_t(4, size=(n, 2))
    out = run(OnlineForecaster(3, lags=5, cross_lags=2, warm_up=200), X)
    for begin in (500, 3500, 6500):
        for h in range(3):
            rows = np.arange(begin, begin + 2400)
            truth = X[rows + 1 + h]
            inside = (out["lower"][rows, h] <= truth) & (truth <= out["upper"][rows, h])
            assert 0.86 < inside.mean() < 0.94, (begin, h)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
@pytest.mark.jit
def test_the_level_is_kept(level: float) -> None:
    X = np.random.default_rng(0).exponential(size=(6000, 1))  # not symmetric
    out = run(OnlineForecaster(1, lags=2, cross_lags=1, level=level), X)
    truth = X[1001:, 0]
    low, high = out["lower"][1000:-1, 0, 0], out["upper"][1000:-1, 0, 0]
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(level, abs=0.02)


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, r"^OnlineForecaster: horizon must be a whole number >= 1, got 0$"),
        ({"experts": ()}, r"^OnlineForecaster: experts must be different and at least one, got"),
        ({"experts": ("tcn",)}, r"^OnlineForecaster: experts must be one of cross_time, .* 'tcn'$"),
        ({"experts": ("seasonal",)}, r"^OnlineForecaster: season must be > 0 for the seasonal"),
        ({"forgetting": 0.0}, r"^OnlineForecaster: forgetting must be in \[0\.001, 1\], got 0\.0$"),
        ({"ridge": 0.0}, r"^OnlineForecaster: ridge must be > 0, got 0\.0$"),
    ],
)
def test_messages(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineForecaster(**arguments)


def test_bad_weights_and_horizons_are_refused() -> None:
    model = OnlineForecaster(2)
    with pytest.raises(ValueError, match=r"weight must be >= 0 and finite, got -1\.0 in row 1"):
        model.run(block_of(np.zeros((2, 1)), weight=[1.0, -1.0], mode=SCORED))
    assert model.scalars_[jit.ROWS] == 0.0
    with pytest.raises(ValueError, match=r"^OnlineForecaster: horizon must be <= 2, got 3$"):
        model.forecast(3)
