"""LogitBias: a classifier's probabilities kept honest, and moved to the classes' shares of now."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, OBSERVE, PREDICT, Block, Columns
from streamlearn.jit import logit_bias as jit
from streamlearn.operators import _checks, _prequential
from streamlearn.operators._base import Classifier, Operator
from streamlearn.operators._ensemble import probabilities
from streamlearn.operators._supervised import plain, refuse_bad_weights
from streamlearn.operators._wrapper import Wrapper, with_room
from streamlearn.operators.baselines import MajorityClassifier
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier

PRIORS = ("off", "labels", "predictions")
_HEARD = ("prediction", "proba")


class LogitBias(Wrapper, Classifier):
    """A classifier around another one, whose probabilities it calibrates label by label.

    Model: logits z are the logarithms of the model's probabilities; the answer is the softmax of
    z / T + b, and with `prior` of z / T + b + log(n_now + a) - log(n_train + a): n_train counts the
    labels so far, which the model has learnt from, n_now those of late. Each label moves log T and
    b by a step of AdaGrad on its log loss, and then b shrinks by 1e-4 of itself. Two classes have
    one bias. A class begins with the mean bias of the others.
    With "predictions" n_now needs no label: it adds up the answers of late, one step of expectation
    maximisation a row, for shares that move while labels are late or missing.
    A late label teaches on the model's probabilities of then; the table of calibration takes the
    answer of then.
    Args:
        model: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier.
        lr: step of AdaGrad, >= 0.
        prior: "off", "labels" or "predictions". For a model that forgets little, or not at all: one
            that follows the shares by itself would be corrected twice.
        a: pseudo-count of each class in the shares, > 0.
        lam: forgetting a row of n_now and of the table of calibration, in [0, 1].
    Outputs: those of the model, with `prediction` and `proba` corrected.
    State: scalars_ (5,) float64, log T and counters, and table_ (4, C) float64, biases, their
        squared gradients, n_train and n_now, in the order of `streamlearn.jit.logit_bias`. bins_
        (3, 15) float64: weight, confidence and hits of the answers by confidence.
    Cost: the model's, and O(C) an event, no allocation in the kernel.
    Raises: ValueError for a parameter out of range, and a model that does another task.
    Reference: Guo et al. (2017), On calibration of modern neural networks; Saerens, Latinne and
    Decaestecker (2002), Adjusting the outputs of a classifier to new a priori probabilities; Wu et
    al. (2019), Large scale incremental learning, for the correction of biases.
    >>> from streamlearn.operators import KalmanClassifier, LogitBias
    >>> model = LogitBias(KalmanClassifier())
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _arrays: ClassVar[tuple[str, ...]] = ("scalars_", "table_", "bins_")

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanClassifier(), "prior": "predictions"}
        yield {"model": MajorityClassifier(), "prior": "labels", "lam": 0.9}

    def __init__(
        self,
        model: Operator | Any,
        lr: float = 0.05,
        prior: str = "off",
        a: float = 1.0,
        lam: float = 0.999,
    ) -> None:
        owner = type(self).__name__
        self.model = as_stage(model)
        self.lr = _checks.not_negative(owner, "lr", lr)
        self.prior = _checks.choice(owner, "prior", prior, PRIORS)
        self.a = _checks.positive(owner, "a", a)
        self.lam = _checks.between(owner, "lam", lam, 0.0, 1.0)
        self._p = np.array([self.lr, self.a, self.lam, float(PRIORS.index(prior)), 1.0 - 1e-4])
        self._adopt([self.model], ["model"])
        self._clear()

    def _clear(self) -> None:
        self.scalars_: F8 = np.zeros(jit.N_SCALARS)
        self.table_: F8 = np.zeros((jit.N_ROWS, 0))
        self.bins_: F8 = np.zeros((3, jit.N_BINS))

    @property
    def temperature_(self) -> float:
        """T: above 1 the model was too sure of itself, below too little; in [0.05, 20]."""
        return float(np.exp(self.scalars_[jit.LOG_T]))

    @property
    def bias_(self) -> F8:
        """(C,) what is added to each class's logit."""
        bias: F8 = self.table_[jit.BIAS].copy()
        return bias

    @property
    def calibration_error_(self) -> float:
        """Expected calibration error of the answers of late, over 15 bins; NaN before a label."""
        weight, confidence, hits = self.bins_
        with np.errstate(invalid="ignore"):
            return float(np.abs(confidence - hits).sum() / weight.sum())

    @property
    def n_samples_(self) -> int:
        """Labels learnt."""
        return int(self.scalars_[jit.LEARNT])

    @property
    def n_rejected(self) -> int:
        """Labels refused: no class code."""
        return int(self.scalars_[jit.REJECTED])

    def _asked(self, block: Block) -> Block:
        """With "predictions" what is observed is asked too: its answer says something of shares."""
        block = super()._asked(block)
        if self.prior != "predictions":
            return block
        seen = (block.mode & OBSERVE) != 0
        return block.replace(mode=np.where(seen, block.mode | PREDICT, block.mode).astype(np.uint8))

    def _run(self, block: Block) -> Columns:
        refuse_bad_weights(self, block)
        outputs, then = self._heard(self._asked(block), _HEARD)
        Z = with_room(block, probabilities([then], block.n)[:, 0], int(self.scalars_[jit.KNOWN]))
        Z[np.isnan(then["prediction"])] = np.nan
        n, C = Z.shape
        proba, best, said = np.empty((n, C)), np.empty(n), np.empty((n, 2))
        rows = (Z, plain(block.y), plain(block.weight), plain(block.mode))
        table = _checks.padded(self.table_, (jit.N_ROWS, C))
        state = self.scalars_, table, self.bins_
        told = self._logged_then(block, "said", 2)
        jit.calibrate(rows, told, state, self._p, (proba, best, said, np.empty(C)))
        self.table_ = table[:, : int(self.scalars_[jit.KNOWN])].copy()
        logs: Columns = {"log:said": said} | self._logged(block, outputs, _HEARD)
        corrected = {"prediction": best, "proba": proba}
        return _prequential.hidden(outputs | corrected | (logs if block.log_wanted else {}), block)
