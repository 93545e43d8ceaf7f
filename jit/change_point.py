"""Bayesian online change-point detection: normal values of known variance, unknown mean.

A run length r = values since the last change. Short runs r < R are kept one by one; the run since
the restart, the whole one, beside them. Letters: w = log weight, mu = posterior mean of a run,
tau = its precision, var = variance of the next value; `runs` (2, R) holds w and mu by r, `whole`
(3,) w and mu and the statistic.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, kernel, part
from streamlearn.jit.adwin import CALM

WEIGHT, MEAN, STATISTIC = 0, 1, 2  # rows of `runs`, places in `whole`
FED, ALARMED, LIKELIEST, SIZES = 0, 1, 2, 3  # places in `counts`
ROSE, FELL = 1, 2
_HALF_LOG, _HALF_INVERSE, _GAIN = 0, 1, 2  # rows of `by_length`
_NEGLIGIBLE = -40.0  # a weight of exp(-40) of the greatest changes no digit of the sum


def by_run_length(prior_var: float, data_var: float, longest: int) -> F8:
    """What depends on r alone, for r < longest: log(var) / 2, 1 / (2 var) and the mean's gain."""
    tau = 1.0 / prior_var + np.arange(longest) / data_var
    var = 1.0 / tau + data_var
    return np.array([0.5 * np.log(var), 0.5 / var, 1.0 / data_var / (tau + 1.0 / data_var)])


@part
def restart(runs: F8, whole: F8, prior_mean: float) -> None:
    """Before the first value: the whole run alone, of length 0."""
    runs[WEIGHT, :] = -math.inf
    runs[MEAN, :] = prior_mean
    whole[WEIGHT], whole[MEAN], whole[STATISTIC] = 0.0, prior_mean, -math.inf


@part
def observe_whole(value: float, whole: F8, fed: int, prior_var: float, data_var: float) -> None:
    """The whole run's weight and mean with one more value."""
    tau = 1.0 / prior_var + fed / data_var
    var = 1.0 / tau + data_var
    e = value - whole[MEAN]
    whole[WEIGHT] -= 0.5 * math.log(var) + 0.5 / var * e * e
    whole[MEAN] += 1.0 / data_var / (tau + 1.0 / data_var) * e


@part
def observe_runs(value: float, runs: F8, by_length: F8, held: int) -> None:
    """Each short run's weight and mean with one more value."""
    for r in range(held):
        e = value - runs[MEAN, r]
        runs[WEIGHT, r] -= by_length[_HALF_LOG, r] + by_length[_HALF_INVERSE, r] * e * e
        runs[MEAN, r] += by_length[_GAIN, r] * e


@part
def log_evidence(runs: F8, whole: F8, held: int) -> float:
    """Log of the sum of all weights."""
    best = whole[WEIGHT]
    for r in range(held):
        best = max(best, runs[WEIGHT, r])
    total = math.exp(whole[WEIGHT] - best)
    for r in range(held):
        if runs[WEIGHT, r] - best > _NEGLIGIBLE:
            total += math.exp(runs[WEIGHT, r] - best)
    return float(best) + math.log(total)


@part
def change_point_push(
    value: float, runs: F8, whole: F8, counts: I8, prior: tuple[float, float, float, float],
    by_length: F8,
) -> float:  # fmt: skip
    """Take one value; the probability of the likeliest shorter run against the whole one.

    Of these two hypotheses alone, so above 1/2 the whole run is no longer the likeliest of all.
    runs (2, R), whole (3,), counts (3,) in/out. O(R), R exponentials at most.
    """
    prior_mean, prior_var, data_var, hazard = prior
    if counts[FED] == 0:
        restart(runs, whole, prior_mean)
    longest = runs.shape[1]
    held = min(counts[FED], longest)
    observe_whole(value, whole, counts[FED], prior_var, data_var)
    observe_runs(value, runs, by_length, held)
    evidence = log_evidence(runs, whole, held)
    stay = math.log1p(-hazard) - evidence
    for r in range(min(held, longest - 1), 0, -1):  # every run is one longer
        runs[WEIGHT, r] = runs[WEIGHT, r - 1] + stay
        runs[MEAN, r] = runs[MEAN, r - 1]
    runs[WEIGHT, 0], runs[MEAN, 0] = math.log(hazard), prior_mean
    whole[WEIGHT] += stay
    counts[FED] += 1
    likeliest = 0
    for r in range(1, min(held + 1, longest)):
        if runs[WEIGHT, r] > runs[WEIGHT, likeliest]:
            likeliest = r
    counts[LIKELIEST] = likeliest
    return 1.0 / (1.0 + math.exp(whole[WEIGHT] - runs[WEIGHT, likeliest]))


@kernel
def change_point_first_alarm(
    values: F8, runs: F8, whole: F8, counts: I8, prior: tuple[float, float, float, float],
    by_length: F8, least: int, limit: float,
) -> tuple[int, int]:  # fmt: skip
    """Feed values up to and including the first that raises an alarm: the probability > limit.

    values (n,), NaN is skipped | runs (2, R), whole (3,), counts (3,) in/out | prior: mean and
    variance of the mean, variance of the data, chance of a change at each value | by_length (3, R)
    | least: values before the first alarm. The value after an alarm starts anew. Returns the index
    of the alarm or -1, and how many values were refused for their size. O(R) a value, allocates
    nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if not abs(values[t]) <= CALM:
            refused += values[t] == values[t]
            continue
        if counts[ALARMED] != 0:
            counts[:] = 0
        whole[STATISTIC] = change_point_push(values[t], runs, whole, counts, prior, by_length)
        if counts[FED] >= least and whole[STATISTIC] > limit:
            fell = runs[MEAN, counts[LIKELIEST]] < whole[MEAN]
            counts[ALARMED] = FELL if fell else ROSE
            return t, refused
    return -1, refused


@kernel
def change_point_statistics(
    values: F8, runs: F8, whole: F8, counts: I8, prior: tuple[float, float, float, float],
    by_length: F8, out: F8,
) -> None:  # fmt: skip
    """Feed all values (n,), NaN is skipped; out (n,): log odds of the likeliest shorter run.

    Arrays as in `change_point_first_alarm`. The probability is too near to 1 to be compared.
    """
    for t in range(values.shape[0]):
        out[t] = -math.inf
        if values[t] == values[t]:
            whole[STATISTIC] = change_point_push(values[t], runs, whole, counts, prior, by_length)
            out[t] = runs[WEIGHT, counts[LIKELIEST]] - whole[WEIGHT]
