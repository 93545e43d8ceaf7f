"""Several learners on several data sets: average ranks, Friedman's test, critical difference."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.block import F8

_WIDTH = 60  # columns of the axis of the drawing


class RankTest(NamedTuple):
    """What ranks over N data sets say of k learners.

    ranks: (N, k), 1 is best, ties share. average: (k,). chi_square, p_chi_square: Friedman's
    statistic, corrected for ties, with k - 1 degrees of freedom. f, p: that of Iman and Davenport,
    which is less conservative, with k - 1 and (k - 1)(N - 1) degrees. Where all data sets agree, f
    is infinite and p is the chance of that by itself, (1 / k!)^(N - 1).
    critical_difference: of Nemenyi's test: average ranks that are closer cannot be told apart.
    groups: maximal runs of learners (columns, best first) that cannot be told apart.
    """

    ranks: F8
    average: F8
    chi_square: float
    p_chi_square: float
    f: float
    p: float
    critical_difference: float
    groups: list[list[int]]


def ranked(scores: F8, larger_is_better: Sequence[bool] | bool = True) -> F8:
    """Ranks (N, k) within each row of scores, 1 is best, ties get their mean; NaN is last.

    larger_is_better: for all data sets, or for each.
    """
    from scipy.stats import rankdata

    signs = np.where(np.broadcast_to(larger_is_better, len(scores)), -1.0, 1.0)
    costs = np.where(np.isnan(scores), np.inf, scores * signs[:, None])
    ranks: F8 = rankdata(costs, method="average", axis=1).astype(np.float64)
    return ranks


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's: q sqrt(k (k + 1) / (6 n)), q the studentized range over sqrt(2)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1.0 - alpha, k, np.inf)) / math.sqrt(2.0)
    return q * math.sqrt(k * (k + 1) / (6.0 * n))


def rank_test(
    scores: F8, larger_is_better: Sequence[bool] | bool = True, alpha: float = 0.05
) -> RankTest:
    """Compare k >= 2 learners over N >= 2 data sets by their ranks.

    Args:
        scores: (N, k), one row a data set; NaN for a learner that failed there, which comes last.
        larger_is_better: for all data sets, or for each.
        alpha: of the critical difference, in (0, 1).
    Raises: ValueError for fewer than two learners or data sets.
    Reference: Demsar (2006), Statistical comparisons of classifiers over multiple data sets.
    """
    from scipy.stats import chi2
    from scipy.stats import f as f_law

    n, k = scores.shape
    if n < 2 or k < 2:
        raise ValueError(
            f"rank_test: there must be at least 2 learners and 2 data sets, got {k} and {n}"
        )
    ranks = ranked(scores, larger_is_better)
    average: F8 = ranks.mean(axis=0)
    above = 12.0 * n / (k * (k + 1)) * float(np.sum((average - (k + 1) / 2.0) ** 2))
    spread = 1.0 - _ties(ranks) / (n * k * (k * k - 1))
    chi_square = above / spread if spread > 0.0 else 0.0
    left = n * (k - 1) - chi_square
    f = (n - 1) * chi_square / left if left > 1e-12 else math.inf
    difference = critical_difference(k, n, alpha)
    return RankTest(
        ranks,
        average,
        chi_square,
        float(chi2.sf(chi_square, k - 1)),
        f,
        _p_of(f, k, n, float(f_law.sf(f, k - 1, (k - 1) * (n - 1)))),
        difference,
        _groups(average, difference),
    )


def _p_of(f: float, k: int, n: int, p: float) -> float:
    """The p-value of Iman and Davenport's statistic; theirs is 0 wherever all data sets agree."""
    return p if math.isfinite(f) else float(math.factorial(k)) ** (1 - n)


def _ties(ranks: F8) -> float:
    """Sum of t^3 - t over the groups of t equal ranks of each row."""
    total = 0
    for row in ranks:
        _, counts = np.unique(row, return_counts=True)
        total += int(np.sum(counts**3 - counts))
    return float(total)


def _groups(average: F8, difference: float) -> list[list[int]]:
    """Maximal runs, best first, whose ends are closer than the critical difference."""
    order = np.argsort(average, kind="stable")
    found: list[list[int]] = []
    reach = 0
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and average[order[end + 1]] - average[order[start]] < difference:
            end += 1
        if end > start and end > reach:
            found.append(order[start : end + 1].tolist())
            reach = end
    return found


def diagram(names: Sequence[str], test: RankTest) -> str:
    """The critical-difference diagram in text: who stands where, and bars over who is alike.

    ```
    1         2         3
    |---------|---------|     CD = 1.66
    A  1.25  o
    B  2.00       o
    ```
    """
    k = len(names)
    order = np.argsort(test.average, kind="stable")
    label = max(len(name) for name in names)
    indent = " " * (label + 8)

    def column(rank: float) -> int:
        return round((rank - 1) * (_WIDTH - 1) / max(k - 1, 1))

    scale, marks = [" "] * (_WIDTH + 3), ["-"] * _WIDTH
    for rank in range(1, k + 1):
        scale[column(rank) : column(rank) + len(str(rank))] = str(rank)
        marks[column(rank)] = "|"
    lines = [f"{indent}{''.join(scale).rstrip()}", f"{indent}{''.join(marks)}"]
    for i in order:
        place = column(float(test.average[i]))
        lines.append(f"{names[i]:<{label}}  {test.average[i]:5.2f} {' ' * place}o")
    for group in test.groups:
        first, last = (column(float(test.average[group[end]])) for end in (0, -1))
        lines.append(f"{indent}{' ' * first}{'=' * (last - first + 1)}")
    lines.append(
        f"critical difference {test.critical_difference:.2f} (Nemenyi); "
        f"{'those over one bar' if test.groups else 'no two'} cannot be told apart"
    )
    return "\n".join(lines)
