"""Normalizer, BalancedNormalizer and UnitNorm against plain numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from river import compose, dummy

from streamlearn.block import F8, LABELLED, LEARN, PREDICT, SCORED, Block, Features, Vocabulary
from streamlearn.operators.baselines import MajorityClassifier, MeanRegressor
from streamlearn.operators.impute import Imputer
from streamlearn.operators.scale import BalancedNormalizer, Normalizer, UnitNorm
from streamlearn.pipeline import Pipeline
from streamlearn.testing import LAWS, Law, Stream, assert_same_bits, labelled, plan_for


def rows(X: F8, mode: int = LABELLED, weight: F8 | None = None) -> Block:
    """Rows without a target."""
    n = X.shape[0]
    names = Features([f"x{j}" for j in range(X.shape[1])])
    ones = np.ones(n) if weight is None else weight
    return Block(X, np.full(n, np.nan), ones, np.full(n, mode, dtype=np.uint8), names)


def naive_moments(x: F8, w: F8, q: float) -> tuple[float, float, float]:
    """Weighted mean, variance and mass of the values that are not NaN, by their definitions."""
    w, x = w[~np.isnan(x)], x[~np.isnan(x)]
    if not x.size:
        return 0.0, 0.0, 0.0
    weights = w * q ** np.arange(x.size - 1, -1, -1)
    mean = np.average(x, weights=weights)
    return mean, np.average((x - mean) ** 2, weights=weights), weights.sum()


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_moments_equal_the_weighted_batch_after_every_prefix(kappa: float, offset: float) -> None:
    """M3's first acceptance test, with NaN and sample weights besides."""
    rng = np.random.default_rng(7)
    X = rng.normal(offset, 1.0, size=(120, 3))
    X[rng.random(X.shape) < 0.2] = np.nan
    weight = rng.uniform(0.5, 2.0, size=120)
    scaler = Normalizer(m=0.05, kappa=kappa)
    for n in range(1, 121):
        scaler.run(rows(X[n - 1 : n], weight=weight[n - 1 : n]))
        expected = [naive_moments(X[:n, j], weight[:n], 0.95**kappa) for j in range(3)]
        assert_allclose(scaler.moments_.T, expected, rtol=1e-10, atol=1e-10)


def test_scores_use_the_statistics_from_before_the_row() -> None:
    X = np.random.default_rng(0).normal(5.0, 3.0, size=(60, 2))
    out = Normalizer(m=0.1, clip=2.0).run(rows(X))["X"]
    assert_array_equal(out[:2], 0.0)  # no value seen, then one: no variance yet
    for t in range(2, 60):
        for j in range(2):
            mean, variance, _ = naive_moments(X[:t, j], np.ones(t), 0.9)
            score = np.clip((X[t, j] - mean) / np.sqrt(variance + 1e-8), -2.0, 2.0)
            assert_allclose(out[t, j], score, rtol=1e-9)


def test_update_first_takes_the_row_in_before_it_is_scored() -> None:
    X = np.random.default_rng(1).normal(size=(30, 1))
    out = Normalizer(kappa=0.0, update_first=True).run(rows(X))["X"]
    for t in range(1, 30):
        mean, deviation = X[: t + 1].mean(), np.sqrt(X[: t + 1].var() + 1e-8)
        assert_allclose(out[t, 0], (X[t, 0] - mean) / deviation, rtol=1e-9)


def test_only_rows_that_observe_with_a_weight_are_learnt() -> None:
    scaler = Normalizer()
    scaler.run(rows(np.array([[1.0], [3.0]])))
    before = scaler.moments_.copy()
    for mode in (PREDICT, LEARN, PREDICT | LEARN):
        scaler.run(rows(np.array([[9.0]]), mode))
    scaler.run(rows(np.array([[9.0]]), weight=np.zeros(1)))
    assert_array_equal(scaler.moments_, before)


def test_a_feature_that_never_moved_gives_zero_and_nan_stays_nan() -> None:
    X = np.array([[0.1, 1.0], [0.1, np.nan], [0.1, 2.0], [0.1, np.nan], [7.0, 3.0]])
    out = Normalizer().run(rows(X))["X"]
    assert_array_equal(out[:, 0], 0.0)
    assert_array_equal(np.isnan(out[:, 1]), np.isnan(X[:, 1]))


def test_an_infinite_row_is_passed_on_not_learnt_and_counted() -> None:
    X = np.array([[1.0, 2.0], [2.0, 3.0], [np.inf, 5.0], [1.0, -np.inf]])
    scaler, other = Normalizer(), Normalizer()
    out = scaler.run(rows(X))["X"]
    other.run(rows(X[:2]))
    assert_array_equal(out[2:], X[2:])
    assert_array_equal(scaler.moments_, other.moments_)
    assert scaler.n_rejected == 2
    scaler.run(rows(X[2:], PREDICT))
    assert scaler.n_rejected == 2


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@given(X=arrays(np.float64, (20, 2), elements=st.floats(allow_nan=True, allow_infinity=False)))
def test_no_finite_input_breaks_the_state(kappa: float, X: F8) -> None:
    """Up to the largest float: 1.8e308 next to -1.8e308."""
    scaler = Normalizer(kappa=kappa)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        out = scaler.run(rows(X))["X"]
    assert np.isfinite(scaler.moments_).all()
    assert_array_equal(np.isnan(out), np.isnan(X))
    assert np.nanmax(np.abs(out), initial=0.0) <= 8.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_floats_of_both_signs_leave_the_state_finite(sign: float) -> None:
    """Their difference is no float; every one of them still counts."""
    scaler = Normalizer(kappa=0.0)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        scaler.run(rows(sign * np.array([[1.7e308], [-1.7e308], [1.7e308]])))
    assert np.isfinite(scaler.moments_).all()
    assert scaler.moments_[2, 0] == 3.0


def test_an_offset_of_1e8_costs_no_precision_that_the_input_had() -> None:
    noise = np.random.default_rng(3).normal(size=(400, 1))
    scaler = Normalizer(kappa=0.0)
    scaler.run(rows(noise + 1e8))
    assert_allclose(scaler.variance_, (noise + 1e8).var(), rtol=1e-6)


@pytest.mark.jit
def test_the_scale_of_the_inputs_does_not_reach_a_downstream_learner() -> None:
    """M3's third acceptance test: a linear learner by gradient descent."""
    rng = np.random.default_rng(5)
    X, w = rng.normal(2.0, 3.0, size=(500, 4)), rng.normal(size=4)

    def predictions(scale: float) -> F8:
        Z, weights, out = Normalizer().run(rows(X * scale))["X"], np.zeros(4), np.zeros(500)
        for t in range(500):
            out[t] = weights @ Z[t]
            weights += 0.01 * (X[t] @ w - out[t]) * Z[t]
        return out

    assert_allclose(predictions(1e6), predictions(1.0), rtol=1e-6, atol=1e-6)


def test_reset_keeps_a_share_of_the_memory() -> None:
    """Old values count half of what they did; with keep=0 they are gone."""
    X = np.random.default_rng(2).normal(size=(50, 1))
    scaler = Normalizer(kappa=0.0)
    scaler.run(rows(X[:30]))
    scaler.reset(keep=0.5)
    scaler.run(rows(X[30:]))
    w = np.where(np.arange(50) < 30, 0.5, 1.0)
    assert_allclose(scaler.moments_.T, [naive_moments(X[:, 0], w, 1.0)], rtol=1e-12)
    scaler.reset()
    assert_array_equal(scaler.moments_, np.zeros((3, 1)))


def test_a_new_feature_starts_afresh() -> None:
    scaler = Normalizer()
    for value in (1.0, 3.0):
        scaler.learn_one({"a": value})
    scaler.learn_one({"a": 2.0, "b": 5.0})
    assert_array_equal(scaler.mean_[1], 5.0)
    assert_allclose(scaler.mean_[0], 2.0, atol=1e-3)


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"m": 0.0}, r"m must be > 0 and < 1, got 0\.0"),
        ({"m": 2.0}, r"m must be in \[0, 1\], got 2\.0"),
        ({"kappa": -0.1}, r"kappa must be in \[0, 1\], got -0\.1"),
        ({"eps": -1.0}, r"eps must be >= 0, got -1\.0"),
        ({"clip": 0.0}, r"clip must be > 0, got 0\.0"),
        ({"update_first": 1}, r"update_first must be true or false, got 1"),
    ],
)
def test_arguments_are_checked(argument: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^Normalizer: {rule}$"):
        Normalizer(**argument)  # type: ignore[arg-type]


def test_keep_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^Normalizer: keep must be in \[0, 1\], got 2\.0$"):
        Normalizer().reset(keep=2.0)


def test_unit_norm_divides_by_the_length() -> None:
    X = np.random.default_rng(4).normal(size=(20, 5))
    expected = X / (np.linalg.norm(X, axis=1, keepdims=True) + 1e-8)
    assert_allclose(UnitNorm().run(rows(X))["X"], expected, rtol=1e-12)


def test_unit_norm_on_hard_rows() -> None:
    """No overflow at 1e300, zeros stay zeros, NaN is left out, infinity is passed on."""
    X = np.array([[3e300, 4e300], [0.0, 0.0], [np.nan, 2.0], [np.inf, 1.0]])
    norm = UnitNorm()
    expected = [[0.6, 0.8], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]]
    assert_allclose(norm.run(rows(X))["X"], expected, rtol=1e-7)
    assert norm.n_rejected == 1


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 18), max_size=5))
def test_scores_and_state_do_not_depend_on_the_cut(seed: int, cuts: list[int]) -> None:
    """All modes and weights mixed; gaps and infinities in a few rows, so that parts have none."""
    rng = np.random.default_rng(seed)
    X = rng.normal(rng.choice([0.0, 1e8]), 1.0, size=(18, 3))
    X[rng.integers(0, 18, 2), rng.integers(0, 3, 2)] = rng.choice([np.nan, np.inf], 2)
    stream = rows(X, weight=rng.choice([0.0, 1.0, 2.5], 18))
    stream.mode[:] = rng.integers(0, 8, 18)
    whole, parts = Normalizer(m=0.1), Normalizer(m=0.1)
    expected = whole.run(stream)["X"]
    ends = [*sorted(cuts), 18]
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        assert_array_equal(parts.run(stream.rows(a, b))["X"], expected[a:b])
    assert_array_equal(whole.moments_, parts.moments_)
    assert whole.n_rejected == parts.n_rejected


def grouped(X: F8, y: F8, mode: int = LABELLED, weight: F8 | None = None) -> Block:
    """Rows with the codes of their classes."""
    return rows(X, mode, weight).replace(y=y)


def keyed(X: F8, keys: Sequence[object]) -> Block:
    """Rows with the keys of their events and no target."""
    column = np.empty(len(keys), dtype=object)
    column[:] = keys
    return rows(X).replace(keys=column)


def naive_mixture(
    x: F8, w: F8, groups: Sequence[object], q: float, b: float
) -> tuple[float, float, dict[object, float]]:
    """Mean and variance of the mixture and the groups' masses, in two passes over one feature."""
    seen = [t for t in range(x.size) if not np.isnan(x[t])]
    mu, v, n = {}, {}, {}
    for g in {groups[t] for t in seen}:
        own = [t for t in seen if groups[t] == g]
        later = [[s for s in seen if s > t] for t in own]
        mates = np.array([sum(groups[s] == g for s in after) for after in later])
        others = np.array([len(after) for after in later]) - mates
        weights = w[own] * q**mates * q ** (others * (1.0 - b))
        mu[g] = np.average(x[own], weights=weights)
        v[g] = np.average((x[own] - mu[g]) ** 2, weights=weights)
        n[g] = weights.sum()
    total = sum(n[g] ** (1.0 - b) for g in n)
    pi = {g: n[g] ** (1.0 - b) / total for g in n}
    mean = sum(pi[g] * mu[g] for g in pi)
    return mean, sum(pi[g] * (v[g] + (mu[g] - mean) ** 2) for g in pi), n


def hard_groups(rng: np.random.Generator, n: int, offset: float = 0.0) -> tuple[F8, F8, F8]:
    """Gaps, weights, codes that leave out 1 and 3, classes of unlike mean and width."""
    y = rng.choice([0.0, 2.0, 5.0], n, p=[0.7, 0.2, 0.1])
    X = offset + rng.normal(3.0 * y, 1.0 + y, size=(3, n)).T
    X[rng.random(X.shape) < 0.2] = np.nan
    return np.ascontiguousarray(X), y, rng.uniform(0.5, 2.0, n)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("b", "kappa"), [(0.0, 1.0), (0.3, 0.5), (0.7, 1.0), (1.0, 1.0), (0.5, 0)])
def test_mixture_equals_its_equations_after_every_prefix(
    b: float, kappa: float, offset: float
) -> None:
    X, y, weight = hard_groups(np.random.default_rng(11), 60, offset)
    scaler = BalancedNormalizer(balance=b, m=0.05, kappa=kappa)
    q = 0.95**kappa
    for n in range(1, 61):
        last = slice(n - 1, n)
        scaler.run(grouped(X[last], y[last], weight=weight[last]))
        for j in range(3):
            if np.isnan(X[:n, j]).all():
                continue
            mean, variance, masses = naive_mixture(X[:n, j], weight[:n], y[:n].tolist(), q, b)
            assert_allclose(scaler.mean_[j], mean, rtol=1e-10, atol=1e-10)
            assert_allclose(scaler.variance_[j], variance, rtol=1e-8, atol=1e-8)
            mine = dict(zip(scaler.groups_, scaler.moments_[:, 2, j].tolist(), strict=True))
            for g, mass in masses.items():
                assert_allclose(mine[g], mass, rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_without_balance_it_is_the_pooled_normaliser(kappa: float) -> None:
    """M3's second acceptance test, at every row, with gaps and weights, exponential memory too."""
    X, y, weight = hard_groups(np.random.default_rng(12), 240)
    pooled = Normalizer(m=0.02, kappa=kappa)
    balanced = BalancedNormalizer(balance=0.0, m=0.02, kappa=kappa)
    expected = pooled.run(rows(X, weight=weight))["X"]
    got = balanced.run(grouped(X, y, weight=weight))["X"]
    assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert_allclose(balanced.mean_, pooled.mean_, rtol=1e-12)
    assert_allclose(balanced.variance_, pooled.variance_, rtol=1e-12)
    assert_allclose(balanced.moments_[:, 2].sum(axis=0), pooled.moments_[2], rtol=1e-12)


@pytest.mark.parametrize("balance", [0.0, 0.4, 1.0])
def test_one_group_gives_the_bits_of_the_normaliser(balance: float) -> None:
    X, _, weight = hard_groups(np.random.default_rng(13), 200)
    expected = Normalizer(m=0.1, clip=2.0).run(rows(X, weight=weight))["X"]
    scaler = BalancedNormalizer(balance=balance, m=0.1, clip=2.0)
    assert_array_equal(scaler.run(grouped(X, np.ones(200), weight=weight))["X"], expected)


@pytest.mark.jit
def test_a_burst_of_one_class_does_not_move_a_balanced_scale() -> None:
    """10,000 events of one class: ten memories. Their own noise stays, so 5 % of a deviation."""
    rng = np.random.default_rng(14)
    y = np.tile([0.0, 1.0], 2000)
    X, burst = rng.normal(10.0 * y, 1.0)[:, None], rng.normal(10.0, 1.0, (10_000, 1))
    moved = {}
    for b in (0.0, 1.0):
        scaler = BalancedNormalizer(balance=b)
        scaler.run(grouped(X, y))
        mean, deviation = scaler.mean_[0], np.sqrt(scaler.variance_[0])
        assert_allclose((mean, deviation), (5.0, np.sqrt(26.0)), atol=0.2)
        scaler.run(grouped(burst, np.ones(10_000)))
        moved[b] = (scaler.mean_[0] - mean, np.sqrt(scaler.variance_[0]) - deviation)
    assert_allclose(moved[1.0], (0.0, 0.0), atol=0.05)
    assert_allclose(moved[0.0], (5.0, 1.0 - np.sqrt(26.0)), atol=0.2)


def test_a_group_remembers_in_its_own_time_with_full_balance() -> None:
    """After a burst of another class, its next value is one of many again, not the only one."""
    X = np.random.default_rng(15).normal(size=(40, 1))
    scaler = BalancedNormalizer(m=0.2)
    scaler.run(grouped(X, np.zeros(40)))
    before = scaler.moments_[0].copy()
    scaler.run(grouped(X + 50.0, np.ones(40)))
    assert_array_equal(scaler.moments_[0], before)


@pytest.mark.jit
def test_a_group_that_has_faded_away_begins_anew_as_the_pooled_statistics_do() -> None:
    """At m = 0.9 the 300 rows of another leave 1e-300 of a group's mass, which counts as 0."""
    rng = np.random.default_rng(16)
    X, y = rng.normal(size=(400, 2)), np.repeat([0.0, 1.0, 0.0], [50, 300, 50])
    expected = Normalizer(m=0.9).run(rows(X))["X"]
    scaler = BalancedNormalizer(balance=0.0, m=0.9)
    assert_allclose(scaler.run(grouped(X[:350], y[:350]))["X"], expected[:350], rtol=1e-9)
    assert_array_equal(scaler.moments_[0, 2], 0.0)
    assert_allclose(scaler.run(grouped(X[350:], y[350:]))["X"], expected[350:], rtol=1e-9)


def test_by_key_learns_without_labels_and_as_by_class() -> None:
    """Keys of any kind in the place of codes; no key is a key too."""
    X, y, _ = hard_groups(np.random.default_rng(17), 100)
    names = {0.0: "north", 2.0: 17, 5.0: None}
    by_class, by_key = BalancedNormalizer(), BalancedNormalizer(by="key")
    expected = by_class.run(grouped(X, y))["X"]
    keys = [names[g] for g in y.tolist()]
    assert_array_equal(by_key.run(keyed(X, keys))["X"], expected)
    assert by_key.groups_ == [names[g] for g in by_class.groups_]
    assert (by_class.needs_label, by_key.needs_label) == (True, False)


@pytest.mark.parametrize("by", ["class", "key"])
def test_groups_beyond_the_most_share_the_last(by: str) -> None:
    X = np.random.default_rng(18).normal(size=(60, 2))
    y = np.array([3.0, 8.0, 1.0, 8.0, 9.0, 0.0] * 10)
    scaler, merged = BalancedNormalizer(by, max_groups=3), BalancedNormalizer()
    block = grouped(X, y) if by == "class" else keyed(X, y.tolist())
    expected = merged.run(grouped(X, np.where(np.isin(y, [3.0, 8.0]), y, -1.0)))["X"]
    assert_array_equal(scaler.run(block)["X"], expected)
    assert scaler.groups_ == [3.0, 8.0, 1.0]
    assert scaler.moments_.shape == (3, 3, 2)


def test_which_rows_teach_a_group() -> None:
    """By class: LEARN with a weight and a finite label; by key: OBSERVE with a weight."""
    X = np.array([[9.0]])
    for scaler in (BalancedNormalizer(), BalancedNormalizer(by="key")):
        taught = {}
        for mode in range(8):
            taught[mode] = scaler.clone()
            block = grouped(X, np.zeros(1), mode)
            taught[mode].run(block.replace(keys=np.zeros(1, dtype=np.int64)))
        learnt = [mode for mode in range(8) if taught[mode].groups_]
        assert learnt == [mode for mode in range(8) if mode & (LEARN if scaler.needs_label else 4)]
    scaler = BalancedNormalizer()
    scaler.run(grouped(X, np.zeros(1), weight=np.zeros(1)))
    scaler.run(grouped(X, np.array([np.nan])))
    assert (scaler.groups_, scaler.n_rejected) == ([], 0)
    scaler.run(grouped(X, np.array([np.inf])))
    scaler.run(grouped(X * np.inf, np.zeros(1)))
    assert (scaler.groups_, scaler.n_rejected) == ([], 2)


def test_constants_give_zero_in_all_groups_and_infinite_rows_are_passed_on() -> None:
    X = np.array([[0.1, 1.0], [0.1, np.nan], [0.1, np.inf], [0.1, 2.0], [7.0, 3.0]])
    out = BalancedNormalizer(balance=0.5).run(grouped(X, np.array([0.0, 1.0, 1.0, 1.0, 0.0])))["X"]
    assert_array_equal(out[[0, 1, 3, 4], 0], 0.0)
    assert_array_equal(out[:, 1] == 0.0, [True, False, False, True, False])
    assert np.isnan(out[1, 1])
    assert_array_equal(out[2], X[2])


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@given(
    X=arrays(np.float64, (20, 2), elements=st.floats(allow_nan=True, allow_infinity=False)),
    y=arrays(np.float64, (20,), elements=st.sampled_from([0.0, 4.0, 7.0])),
)
def test_no_finite_input_breaks_a_mixture(balance: float, X: F8, y: F8) -> None:
    scaler = BalancedNormalizer(balance=balance)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        out = scaler.run(grouped(X, y))["X"]
    assert np.isfinite(scaler.moments_).all()
    assert np.isfinite(scaler.mean_).all()
    assert np.isfinite(scaler.variance_).all()
    assert_array_equal(np.isnan(out), np.isnan(X))
    assert np.nanmax(np.abs(out), initial=0.0) <= 8.0


class KeyedStream(Stream):
    """A stream whose events have keys too."""

    def _block(self, start: int, end: int, features: Features, labels: Vocabulary) -> Block:
        names = np.random.default_rng(9).choice(np.array(["a", None, 3, "b"], dtype=object), self.n)
        event = np.arange(self.n)
        if self.events is not None:  # a row that brings a label has the key of its event
            is_event = self.mode & SCORED != 0
            event = np.where(is_event, np.cumsum(is_event) - 1, self.events)
        return super()._block(start, end, features, labels).replace(keys=names[event][start:end])


@pytest.mark.jit
@pytest.mark.parametrize(
    "law", [law for law in LAWS if law.name != "dicts"], ids=lambda law: law.name
)
def test_laws_hold_by_key(law: Law) -> None:
    """As the conformance suite, whose streams have no keys."""
    rng = np.random.default_rng(19)

    def make() -> BalancedNormalizer:
        return BalancedNormalizer("key", balance=0.5, max_groups=3)

    for _ in range(1 if law.streams == "long" else 8):
        stream = KeyedStream.from_plan(plan_for(make(), law.streams, rng))
        law.check(make, stream, rng.integers(0, stream.n + 1, 4).tolist())


def test_a_late_label_teaches_the_values_of_then() -> None:
    """A pipeline hands the row back as it came in, not as it was scaled."""
    X, y, _ = hard_groups(np.random.default_rng(20), 12)
    pipeline, prompt = Pipeline(BalancedNormalizer(), MajorityClassifier()), BalancedNormalizer()
    live, ids = grouped(X, y), np.arange(12)
    pipeline.run(live.replace(y=np.full(12, np.nan), mode=np.full(12, 5, np.uint8), ids=ids))
    pipeline.run(live.replace(X=X + 99.0, mode=np.full(12, LEARN, np.uint8), ids=ids))
    prompt.run(live)
    assert_array_equal(pipeline.stages[0].state().arrays["moments_"], prompt.moments_)


def test_a_pipeline_of_river_hands_it_the_labels() -> None:
    """Labels that are no numbers get codes in the order of their first row."""
    scaler = BalancedNormalizer()
    model = compose.Pipeline(scaler, dummy.NoChangeClassifier())
    for value, label in ((1.0, "rare"), (5.0, "common"), (7.0, "common")):
        model.predict_one({"a": value})
        model.learn_one({"a": value}, label)
    assert scaler.groups_ == [0.0, 1.0]
    assert_allclose(scaler.mean_, 3.5, rtol=1e-3)
    scaler.reset(keep=0.5)
    assert_allclose(scaler.moments_[:, 2, 0], [0.5, 0.9995])


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"by": "label"}, r"by must be one of class, key, got 'label'"),
        ({"balance": 1.5}, r"balance must be in \[0, 1\], got 1\.5"),
        ({"max_groups": 0}, r"max_groups must be a whole number >= 1, got 0"),
        ({"m": 1.0}, r"m must be > 0 and < 1, got 1\.0"),
        ({"clip": -1.0}, r"clip must be > 0, got -1\.0"),
    ],
)
def test_arguments_of_the_balanced_one_are_checked(argument: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^BalancedNormalizer: {rule}$"):
        BalancedNormalizer(**argument)


def test_events_without_what_groups_them_are_refused() -> None:
    X = np.ones((2, 1))
    with pytest.raises(ValueError, match=r"^BalancedNormalizer: y must be one label .* \(2, 1\)$"):
        BalancedNormalizer().run(rows(X).replace(y=X))
    by_key = BalancedNormalizer(by="key")
    with pytest.raises(ValueError, match=r"^BalancedNormalizer: keys must be given .* got none; "):
        by_key.run(rows(X))
    assert_array_equal(by_key.run(rows(X, PREDICT))["X"], 0.0)


@pytest.mark.parametrize("lies", [np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2]])
@pytest.mark.parametrize(
    "kind", [Normalizer, BalancedNormalizer, UnitNorm, Imputer, MajorityClassifier, MeanRegressor]
)
def test_features_may_lie_anyhow_in_memory(kind: Any, lies: Any) -> None:
    """By columns, as pandas gives them, or with gaps between: the same bits."""
    rng = np.random.default_rng(5)
    block = labelled(rng.normal(size=(20, 3)), rng.integers(2, size=20).astype(float))
    assert_same_bits(kind().run(block), kind().run(block.replace(X=lies(block.X))), kind.__name__)


@pytest.mark.jit
def test_a_wrong_value_fades_from_the_variance_as_documented() -> None:
    """After ln(m k^2) / m rows what is left of it is as much as the others have."""
    scaler, k = Normalizer(), 1e6
    X = np.random.default_rng(6).normal(size=(5000 + 1 + 20_700, 1))
    X[5000] = k
    spread = []
    for part in np.split(X, [5000, 5001, 5001 + 10_000]):
        scaler.run(rows(part))
        spread.append(scaler.moments_[1, 0])
    assert 0.8 < spread[0] < 1.2
    assert spread[2] > 1e4
    assert 1.6 < spread[3] < 2.4
