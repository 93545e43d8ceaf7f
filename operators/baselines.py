"""Baselines: the last label, the commonest class, the mean. A model earns its keep above them.

None looks at a feature; yet a row with an infinite one is refused, as by every learner, so
that a model and its baselines are compared on the same rows.
"""

import numpy as np
from river import base

from streamlearn.block import F8, U1, Block, Columns
from streamlearn.jit.baselines import majority_run, mean_run, no_change_run, plan_rows
from streamlearn.operators import _checks
from streamlearn.operators._base import CLASSIFICATION, Classifier, Operator, Regressor
from streamlearn.operators._supervised import MAX_CLASSES, plain


class _Baseline(Operator):
    """Which rows are learnt, and the count of those refused."""

    takes_categories = True
    recalls_input = True
    n_rejected: int

    def _plan(self, block: Block) -> tuple[U1, float]:
        """What to do with each row, and the largest y among those learnt, -1 without any."""
        _checks.one_target(type(self).__name__, block.y)
        plan = np.empty(block.n, dtype=np.uint8)
        most = float(MAX_CLASSES) if self.task == CLASSIFICATION else 0.0
        top, refused = plan_rows(plain(block.X), block.y, block.weight, block.mode, most, plan)
        self.n_rejected += refused
        return plan, top


class NoChangeClassifier(_Baseline, Classifier, base.Classifier):
    """Predicts the last label learnt, with probability 1: the reference of kappa-T.

    NaN before the first label. A row with an infinite feature gets no answer, and like one with a
    label that is no code of a class it is not learnt and counted in `n_rejected`. A weight of 0 is
    not learnt.
    State:
        last_: (1,) float64, code of the last label, NaN before the first.
        n_classes: 1 + the largest class code learnt.
    Cost: O(K) time an event for K classes, O(1) memory.
    Reference: Bifet et al. (2013), Pitfalls in benchmarking data stream classification.
    >>> model = NoChangeClassifier()
    >>> for label in ("down", "up"):
    ...     model.learn_one({}, label)
    >>> model.predict_one({})
    'up'
    """

    _arrays = ("last_",)
    _counters = ("n_classes", "n_rejected")

    def __init__(self) -> None:
        self.last_: F8 = np.full(1, np.nan)
        self.n_classes = 0
        self.n_rejected = 0

    def _run(self, block: Block) -> Columns:
        plan, top = self._plan(block)
        known, self.n_classes = self.n_classes, max(self.n_classes, int(top) + 1)
        prediction, proba = np.empty(block.n), np.empty((block.n, self.n_classes))
        no_change_run(block.y, block.mode, plan, self.last_, known, prediction, proba)
        return {"prediction": prediction, "proba": proba}


class MajorityClassifier(_Baseline, Classifier, base.Classifier):
    """Predicts the class of the largest total weight so far; the shares are its probabilities.

    Of equals the one of the smallest code wins. NaN before the first label. A row with an infinite
    feature gets no answer, and like one with a label that is no code of a class it is not learnt
    and counted in `n_rejected`. A weight of 0 is not learnt.
    State:
        counts_: (K,) float64, sum of the weights of each class.
    Cost: O(K) time an event for K classes, 8 K bytes.
    >>> model = MajorityClassifier()
    >>> for label in ("up", "down", "up"):
    ...     model.learn_one({}, label)
    >>> {label: round(share, 3) for label, share in model.predict_proba_one({}).items()}
    {'up': 0.667, 'down': 0.333}
    """

    _arrays = ("counts_",)
    _counters = ("n_rejected",)

    def __init__(self) -> None:
        self.counts_: F8 = np.zeros(0)
        self.n_rejected = 0

    def _run(self, block: Block) -> Columns:
        plan, top = self._plan(block)
        known = self.counts_.shape[0]
        self.counts_ = _checks.padded(self.counts_, (max(known, int(top) + 1),))
        prediction, proba = np.empty(block.n), np.empty((block.n, self.counts_.shape[0]))
        majority_run(
            block.y, block.weight, block.mode, plan, self.counts_, known, prediction, proba
        )
        return {"prediction": prediction, "proba": proba}


class _TargetBaseline(_Baseline, Regressor):
    """One number that follows the targets."""

    _arrays = ("stats_",)
    _counters = ("n_rejected",)
    _follows = False

    def __init__(self) -> None:
        self.stats_: F8 = np.zeros(2)
        self.n_rejected = 0

    def _run(self, block: Block) -> Columns:
        plan, _ = self._plan(block)
        prediction = np.empty(block.n)
        mean_run(block.y, block.weight, block.mode, plan, self._follows, self.stats_, prediction)
        return {"prediction": prediction}


class NoChangeRegressor(_TargetBaseline, base.Regressor):
    """Predicts the last target learnt: the reference of every forecast.

    NaN before the first target. A row with an infinite feature gets no answer, and like one with an
    infinite target it is not learnt and counted in `n_rejected`. A weight of 0 is not learnt.
    State:
        stats_: (2,) float64, the last target and the sum of the weights so far.
    Cost: O(1) time an event and memory.
    >>> model = NoChangeRegressor()
    >>> for target in (1.0, 3.0):
    ...     model.learn_one({}, target)
    >>> model.predict_one({})
    3.0
    """

    _follows = True


class MeanRegressor(_TargetBaseline, base.Regressor):
    """Predicts the weighted mean of all targets so far.

    NaN before the first target. A row with an infinite feature gets no answer, and like one with an
    infinite target it is not learnt and counted in `n_rejected`. A weight of 0 is not learnt.
    State:
        stats_: (2,) float64, the mean and the sum of the weights.
    Cost: O(1) time an event and memory.
    >>> model = MeanRegressor()
    >>> for target in (1.0, 3.0):
    ...     model.learn_one({}, target)
    >>> model.predict_one({})
    2.0
    """
