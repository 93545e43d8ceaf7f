"""From sums to metrics: what each metric is, and what it is called."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import F8
from streamlearn.jit import metrics as jit


class View(NamedTuple):
    """Sums of one stretch of the stream, or of many at once: axes before those named are kept.

    sums (…, 3, T): contestant, term. classes (…, 3, K, 3): contestant, class, column. trust
    (…, N_BINS, 3): bin of the model's confidence, column. None where they are not kept. ranks
    (…, 2): mean ROC AUC, mean average precision of the model, NaN where undefined.
    """

    sums: F8
    classes: F8 | None
    trust: F8 | None
    ranks: F8


Reader = Callable[[View, int], F8]  # (view, contestant) -> values (…); NaN = undefined


def ratio(above: Any, below: Any) -> F8:
    """above / below, NaN where below is not > 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    with np.errstate(all="ignore"):  # of inf / inf
        np.divide(above, below, out=out, where=below > 0.0)
    return out


def _share(term: int, of: int = jit.WEIGHT) -> Reader:
    return lambda v, who: ratio(v.sums[..., who, term], v.sums[..., who, of])


def _one_less(term: int, of: int = jit.WEIGHT) -> Reader:
    return lambda v, who: 1.0 - ratio(v.sums[..., who, term], v.sums[..., who, of])


def _root(term: int) -> Reader:
    return lambda v, who: np.sqrt(ratio(v.sums[..., who, term], v.sums[..., who, jit.WEIGHT]))


def _undefined(v: View) -> F8:
    return np.full(v.sums.shape[:-2], np.nan)


def _against(other: int) -> Reader:
    """1 - misses / misses of a baseline; a row on which that had nothing to say yet is a miss."""

    def read(v: View, who: int) -> F8:
        silent = v.sums[..., who, jit.WEIGHT] - v.sums[..., other, jit.WEIGHT]
        missed = v.sums[..., other, jit.MISSES] + silent
        return 1.0 - ratio(v.sums[..., who, jit.MISSES], missed)

    return read


# -- classification --------------------------------------------------------------------------------


def _kappa(v: View, who: int) -> F8:
    """Cohen (1960): agreement above that of independent draws from both margins."""
    if v.classes is None:
        return _undefined(v)
    n, own = v.sums[..., who, jit.WEIGHT], v.classes[..., who, :, :]
    chance = (own[..., jit.TRUE] * own[..., jit.PREDICTED]).sum(axis=-1)
    return 1.0 - ratio(n * v.sums[..., who, jit.MISSES], n * n - chance)


def recall(table: F8) -> F8:
    """By class, from its columns (…, 3); undefined for a class that did not occur."""
    return ratio(table[..., jit.HIT], table[..., jit.TRUE])


def precision(table: F8) -> F8:
    """By class; undefined for a class that was never predicted."""
    return ratio(table[..., jit.HIT], table[..., jit.PREDICTED])


def f1(table: F8) -> F8:
    """By class: harmonic mean of both; undefined for one that neither occurred nor was said."""
    return ratio(2.0 * table[..., jit.HIT], table[..., jit.TRUE] + table[..., jit.PREDICTED])


def _mean_over_classes(of: Callable[[F8], F8]) -> Reader:
    """The mean over the classes for which it is defined."""

    def read(v: View, who: int) -> F8:
        if v.classes is None:
            return _undefined(v)
        values = of(v.classes[..., who, :, :])
        known = ~np.isnan(values)
        return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))

    return read


def _ece(v: View, who: int) -> F8:
    """Guo et al. (2017): |accuracy - confidence| of the bins, weighted by their rows."""
    own = v.trust
    if own is None or who != jit.MODEL:
        return _undefined(v)
    return ratio(abs(own[..., 2] - own[..., 1]).sum(axis=-1), own[..., 0].sum(axis=-1))


def _rank(which: int) -> Reader:
    return lambda v, who: v.ranks[..., which] if who == jit.MODEL else _undefined(v)


# -- several labels --------------------------------------------------------------------------------


def per_label(v: View, who: int) -> F8:
    """The class table (…, q, 3) of q labels: true, predicted, both."""
    terms = v.sums[..., who, jit.PER_LABEL :]
    return terms.reshape(*terms.shape[:-1], terms.shape[-1] // 3, 3)


def _micro_f1(v: View, who: int) -> F8:
    return f1(per_label(v, who).sum(axis=-2))


def _macro_f1(v: View, who: int) -> F8:
    values = f1(per_label(v, who))
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


# -- anomalies -------------------------------------------------------------------------------------


def _chance_auc(v: View, who: int) -> F8:
    return np.where(v.sums[..., 0, jit.WEIGHT] > 0.0, 0.5, np.nan)


def _chance_precision(v: View, who: int) -> F8:
    """A random score has the share of anomalies as its average precision."""
    return ratio(v.sums[..., 0, jit.POSITIVE], v.sums[..., 0, jit.WEIGHT])


# the order here is the order everywhere; the first is the one of the progress line
METRICS: dict[str, dict[str, Reader]] = {
    "classification": {
        "accuracy": _one_less(jit.MISSES),
        "balanced_accuracy": _mean_over_classes(recall),
        "kappa": _kappa,
        "kappa_t": _against(jit.NO_CHANGE),
        "kappa_m": _against(jit.COMMON),
        "log_loss": _share(jit.LOSS, jit.LOSS_WEIGHT),
        "brier": _share(jit.BRIER, jit.LOSS_WEIGHT),
        "ece": _ece,
        "macro_f1": _mean_over_classes(f1),
        "roc_auc": _rank(0),
        "average_precision": _rank(1),
        "set_coverage": _share(jit.IN_SET, jit.SETS),
        "set_size": _share(jit.SET_SIZE, jit.SETS),
    },
    "regression": {
        "mae": _share(jit.ABSOLUTE),
        "rmse": _root(jit.SQUARES),
        "r2": _one_less(jit.SQUARES, jit.MOMENT),
        "smape": lambda v, who: 100.0 * _share(jit.SMAPE)(v, who),
        "mase": _share(jit.PAIRED, jit.SEASONAL),
        "pinball": _share(jit.PINBALL, jit.INTERVALS),
        "coverage": _share(jit.COVERED, jit.INTERVALS),
        "width": _share(jit.WIDTH, jit.INTERVALS),
    },
    "multilabel": {
        "exact_match": _one_less(jit.INEXACT),
        "hamming_loss": _share(jit.HAMMING),
        "micro_f1": _micro_f1,
        "macro_f1": _macro_f1,
        "jaccard": _share(jit.JACCARD),
        "log_loss": _share(jit.LOSS, jit.LOSS_WEIGHT),
        "brier": _share(jit.BRIER, jit.LOSS_WEIGHT),
    },
    "anomaly": {"roc_auc": _rank(0), "average_precision": _rank(1)},
}
BASELINES = {
    "classification": {"no_change": jit.NO_CHANGE, "majority": jit.COMMON},
    "regression": {"no_change": jit.NO_CHANGE, "mean": jit.COMMON},
    "multilabel": {"no_change": jit.NO_CHANGE, "majority": jit.COMMON},
    "anomaly": {"chance": jit.COMMON},
}
_CHANCE: dict[str, Reader] = {"roc_auc": _chance_auc, "average_precision": _chance_precision}


def readers(task: str, who: int) -> dict[str, Reader]:
    """The metrics of a contestant, by name."""
    return _CHANCE if task == "anomaly" and who != jit.MODEL else METRICS[task]


def read(task: str, view: View, who: int) -> dict[str, float | None]:
    """All metrics of one stretch; None for what is undefined."""
    return {name: plain(value(view, who)) for name, value in readers(task, who).items()}


def read_all(task: str, view: View, who: int) -> dict[str, list[float | None]]:
    """All metrics that a view of many stretches can give, as lists; one that none has is left out.

    Stretches without a row have None.
    """
    out = {}
    for name, value in readers(task, who).items():
        values = value(view, who)
        if np.isfinite(values).any() or not values.size:
            out[name] = plains(values)
    return out


def plain(value: Any) -> float | None:
    """A float as JSON can hold it."""
    return float(value) if np.isfinite(value) else None


def plains(values: NDArray[Any]) -> list[float | None]:
    """A list as JSON can hold it."""
    known = np.isfinite(values)
    return [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]


# -- ranking ---------------------------------------------------------------------------------------

MAX_RANKED = 32  # classes of a macro average of the ranking metrics


def ranking(positive: F8, negative: F8) -> tuple[float, float]:
    """ROC AUC (ties count a half) and average precision of scores; NaN if one side is empty.

    Equal to scikit-learn's `roc_auc_score` and `average_precision_score`. O(n log n).
    """
    p, n = len(positive), len(negative)
    if p == 0 or n == 0:
        return np.nan, np.nan
    auc, precision_ = jit.ranked(np.sort(positive), np.sort(negative))
    return auc, precision_


def class_ranking(codes: F8, scores: F8, positive: int | None) -> tuple[float, float]:
    """Of the positive class; where None, one against the rest, the mean over all that occur.

    codes (n,). scores (n, S): probabilities by class.
    """
    if positive is not None and positive >= scores.shape[1]:
        return np.nan, np.nan
    found = []
    for k in range(scores.shape[1]) if positive is None else [positive]:
        is_it, own = codes == k, scores[:, k]
        found.append(ranking(own[is_it], own[~is_it]))
    if positive is not None:
        return found[0]
    both = [pair for pair in found if pair[0] == pair[0]]
    return (
        (float(np.mean([a for a, _ in both])), float(np.mean([p for _, p in both])))
        if both
        else (np.nan, np.nan)
    )
