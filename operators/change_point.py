"""Bayesian change points: a drift detector that asks how long ago the mean last changed."""

import math

import numpy as np
from river import base

from streamlearn.block import F8, I8
from streamlearn.contracts import Finding, Json
from streamlearn.jit.change_point import (
    ALARMED,
    FELL,
    LIKELIEST,
    MEAN,
    ROSE,
    SIZES,
    STATISTIC,
    WEIGHT,
    by_run_length,
    change_point_first_alarm,
    change_point_statistics,
)
from streamlearn.jit.limits import GIVEN
from streamlearn.operators import _checks
from streamlearn.operators._calibrated import CALIBRATION, Calibrated

_LIMIT = 0.5  # above it a shorter run is likelier than the whole one


class BayesianChangePoint(Calibrated, base.DriftDetector):
    """Bayesian online change-point detection for normal values of known variance.

    Model: x_t ~ N(mu, data_var); mu ~ N(prior_mean, prior_var) anew at each change; at each value
    a change comes with probability `hazard`. Keeps the probability of each run length, the values
    since the last change; an alarm where another run is likelier than the one since the restart
    (the rule of frouros, whose names and constants these are, and whose alarms, index by index, up
    to `max_run_length` values after a restart). Memory and cost are bounded: runs of
    `max_run_length` values and more are given up, but for the one since the restart, so that a
    change which stayed unlikely for so long is no longer found. After an alarm the next value
    starts anew.
    Scale the values to the model: it has no other notion of what is far. A NaN is skipped. A value
    that is infinite or beyond 1e100 in size is skipped and counted in `n_rejected`.
    Args:
        prior_mean: mean of a run's mean, in units of the values.
        prior_var: variance of a run's mean, in units of the values squared, > 0.
        data_var: variance of the values around it, likewise, > 0.
        hazard: probability of a change at each value, in (0, 1).
        min_num_instances: values before the first alarm, >= 1.
        max_run_length: the shorter runs that are kept, >= 2.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, where
            the values are those of the model; then all but `prior_mean` stay at their defaults.
            None: an alarm where another run is likelier.
        seed: of the generator behind calibrated alarms.
    State:
        runs_: (2, max_run_length) float64, log weight and posterior mean by run length.
        whole_: (3,) float64, the same of the run since the restart, and the last statistic.
        counts_: (3,) int64, values fed, alarmed, the likeliest shorter run.
    Cost: O(max_run_length) an event, so many exponentials at most.
    Raises: ValueError for a parameter out of range.
    Reference: Adams and MacKay (2007), Bayesian online changepoint detection, arXiv:0710.3742.
    >>> detector = BayesianChangePoint(data_var=0.1)
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 100))
    101
    """

    _arrays = ("runs_", "whole_", "counts_", *CALIBRATION)
    _counters = ("n_detections", "n_rejected")

    _shape = ("prior_var", "data_var", "hazard", "min_num_instances", "max_run_length")
    _takes = GIVEN  # it claims nothing but for its own model's data

    def __init__(
        self,
        prior_mean: float = 0.0,
        prior_var: float = 1.0,
        data_var: float = 1.0,
        hazard: float = 0.01,
        min_num_instances: int = 30,
        max_run_length: int = 200,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        me = "BayesianChangePoint"
        self.prior_mean = _checks.number(me, "prior_mean", prior_mean)
        self.prior_var = _checks.positive(me, "prior_var", prior_var)
        self.data_var = _checks.positive(me, "data_var", data_var)
        self.hazard = _checks.positive(me, "hazard", hazard)
        if self.hazard >= 1.0:
            raise ValueError(f"{me}: hazard must be < 1, got {hazard!r}")
        self.min_num_instances = _checks.whole(me, "min_num_instances", min_num_instances, 1)
        self.max_run_length = _checks.whole(me, "max_run_length", max_run_length, 2)
        self.runs_: F8 = np.zeros((2, self.max_run_length))
        self.whole_: F8 = np.array([0.0, self.prior_mean, -math.inf])
        self.counts_: I8 = np.zeros(SIZES, dtype=np.int64)
        self.n_detections = 0
        self.n_rejected = 0
        self._by_length = by_run_length(self.prior_var, self.data_var, self.max_run_length)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        prior = (self.prior_mean, self.prior_var, self.data_var, self.hazard)
        change_point_statistics(
            scores, self.runs_, self.whole_, self.counts_, prior, self._by_length, out
        )

    def _alarm(self) -> None:
        fell = self.runs_[MEAN, self.counts_[LIKELIEST]] < self.whole_[MEAN]
        self.counts_[ALARMED] = FELL if fell else ROSE

    def _first(self, values: F8) -> tuple[int, int]:
        prior = (self.prior_mean, self.prior_var, self.data_var, self.hazard)
        return change_point_first_alarm(
            values, self.runs_, self.whole_, self.counts_,
            prior, self._by_length, self.min_num_instances, _LIMIT,
        )  # fmt: skip

    def finding(self) -> Finding:
        """The probability of the likeliest run, its length and mean, and the mean before."""
        return super().finding() | {"how": "rose" if self.rose else "fell"} | self.standing

    @property
    def standing(self) -> dict[str, Json]:
        """As a finding has it; the limit alone before the first value."""
        said: dict[str, Json] = {"limit": _LIMIT}
        if math.isfinite(self.statistic):
            run = int(self.counts_[LIKELIEST])
            said |= {"statistic": self.statistic, "run_length": run}
            said |= {"mean": float(self.runs_[MEAN, run]), "before": float(self.whole_[MEAN])}
        return said | super().standing

    @property
    def statistic(self) -> float:
        """Probability, after the last value, of the likeliest shorter run against the whole one."""
        return float(self.whole_[STATISTIC])

    @property
    def rose(self) -> bool:
        """Whether the mean rose at the alarm of the last value; False when that raised none."""
        return int(self.counts_[ALARMED]) == ROSE

    @property
    def run_lengths(self) -> F8:
        """Log weights of the run lengths 0, 1, ... that are kept; the last is the whole run's."""
        held = self.runs_[WEIGHT][: int(self.counts_[0])]
        return np.append(held, self.whole_[WEIGHT])
