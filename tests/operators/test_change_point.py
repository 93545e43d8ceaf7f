"""Bayesian change points against Adams and MacKay's recursion with all run lengths."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from streamlearn.operators.change_point import BayesianChangePoint

logsumexp: Any = special.logsumexp
normal: Any = stats.norm


class AllRunLengths:
    """The algorithm of the paper: log weights of run lengths 0 to n, each with its own mean.

    Of the runs of `longest` values or more only the one since the restart is kept.
    """

    def __init__(
        self, mean: float, var: float, data_var: float, hazard: float, longest: int
    ) -> None:
        self.prior, self.data_var, self.hazard, self.longest = (
            (mean, var),
            data_var,
            hazard,
            longest,
        )
        self.log_weights, self.sums, self.lengths = np.zeros(1), np.zeros(1), np.zeros(1)

    def update(self, value: float) -> float:
        """Take one value; the probability of the likeliest shorter run against the whole one."""
        mean, var = self.prior
        precision = 1 / var + self.lengths / self.data_var
        post = (mean / var + self.sums / self.data_var) / precision
        said = self.log_weights + normal.logpdf(value, post, np.sqrt(1 / precision + self.data_var))
        change = logsumexp(said) + np.log(self.hazard)
        weights = np.append(change, said + np.log1p(-self.hazard))
        self.sums = np.append(0.0, self.sums + value)
        self.lengths = np.append(0.0, self.lengths + 1)
        kept = (self.lengths < self.longest) | (self.lengths == self.lengths[-1])
        self.log_weights = weights[kept] - logsumexp(weights[kept])
        self.sums, self.lengths = self.sums[kept], self.lengths[kept]
        short = self.log_weights[:-1].max()
        return float(np.exp(short - np.logaddexp(short, self.log_weights[-1])))


@pytest.mark.jit
@pytest.mark.parametrize(
    ("arguments", "longest"),
    [((0.0, 1.0, 1.0, 0.01), 400), ((0.3, 4.0, 0.5, 0.1), 12), ((-1.0, 5.0, 0.7, 0.001), 60)],
)
def test_every_value_gives_the_weights_of_the_recursion(
    arguments: tuple[float, float, float, float], longest: int
) -> None:
    values = np.random.default_rng(4).normal(np.arange(300) // 75 * 1.5, 0.8)
    detector = BayesianChangePoint(*arguments, min_num_instances=5, max_run_length=longest)
    naive, since, found = AllRunLengths(*arguments, longest), 0, 0
    for value in values.tolist():
        statistic, since = naive.update(value), since + 1
        detector.update(value)
        assert_allclose(detector.statistic, statistic, rtol=1e-9, atol=1e-300)
        weights = detector.run_lengths
        assert_allclose(weights - logsumexp(weights), naive.log_weights, rtol=1e-9, atol=1e-9)
        assert detector.drift_detected == (since >= 5 and statistic > 0.5)
        if detector.drift_detected:
            naive, since, found = AllRunLengths(*arguments, longest), 0, found + 1
    assert found > 1


@pytest.mark.jit
def test_the_documented_alarms() -> None:
    rng = np.random.RandomState(31)
    values = np.concatenate([rng.normal(*law, size=100) for law in ((0, 0.5), (4, 0.2), (6, 0.5))])
    detector = BayesianChangePoint(0.0, 1.0, 0.5, 0.01, min_num_instances=1)
    assert detector.first_alarm(values) == 100
    found = detector.finding()
    assert found["how"] == "rose"
    assert detector.rose
    assert found["statistic"] > found["limit"] == 0.5
    assert_allclose(found["before"], values[:101].sum() / 101.5, rtol=1e-9)
    assert np.flatnonzero(detector.watch(values[101:])).tolist() == [102]
    assert detector.n_detections == 2


@pytest.mark.jit
def test_the_example_of_frouros() -> None:
    """The example in its documentation: 1031, all run lengths kept."""
    rng = np.random.RandomState(31)
    values = np.concatenate((rng.normal(0.2, 0.01, 1000), rng.normal(0.8, 0.04, 1000)))
    assert BayesianChangePoint(max_run_length=1100).first_alarm(values) == 1031
    assert BayesianChangePoint().first_alarm(values) == 1035


@pytest.mark.jit
@given(cuts=st.lists(st.integers(0, 500), max_size=5))
def test_alarms_and_state_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    values = np.random.default_rng(1).normal(np.arange(500) // 100 % 2 * 3.0)
    whole, parts = BayesianChangePoint(), BayesianChangePoint()
    alarms = np.concatenate([parts.watch(piece) for piece in np.split(values, sorted(cuts))])
    assert_array_equal(whole.watch(values), alarms)
    for name in BayesianChangePoint._arrays:
        assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.n_detections == parts.n_detections == alarms.sum() > 2


@pytest.mark.jit
def test_bad_values_are_skipped_and_counted() -> None:
    values = np.random.default_rng(1).normal(np.arange(500) // 100 % 2 * 3.0)
    bad = np.insert(values, [0, 50, 130, 131], [np.nan, np.inf, -1e300, np.nan])
    kept = np.isfinite(bad) & (np.abs(bad) < 1e100)
    clean, dirty = BayesianChangePoint(), BayesianChangePoint()
    assert_array_equal(dirty.watch(bad)[kept], clean.watch(values))
    assert (clean.n_rejected, dirty.n_rejected) == (0, 2)
    assert BayesianChangePoint().first_alarm(np.full(1000, 0.5)) == -1
    far = BayesianChangePoint()
    alarms = far.watch(np.where(np.arange(400) % 100 < 50, 1e99, -1e99))
    assert alarms.sum() > 1
    assert np.isfinite(far.runs_[0]).any()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"prior_mean": np.nan}, "prior_mean must be a finite number"),
        ({"prior_var": 0.0}, "prior_var must be > 0"),
        ({"data_var": -1.0}, "data_var must be > 0"),
        ({"hazard": 1.0}, "hazard must be < 1"),
        ({"min_num_instances": 0}, "min_num_instances must be a whole number >= 1"),
        ({"max_run_length": 1}, "max_run_length must be a whole number >= 2"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=f"BayesianChangePoint: {what}"):
        BayesianChangePoint(**arguments)
