"""Online bagging: members that see every event a random number of times, and vote."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, LEARN, OBSERVE, Block, Columns
from streamlearn.contracts import State
from streamlearn.jit import ensemble
from streamlearn.jit.counter import key_of
from streamlearn.operators import _checks, _prequential
from streamlearn.operators._base import CLASSIFICATION, Classifier, Operator, Regressor
from streamlearn.operators._beside import Draws
from streamlearn.operators._ensemble import Ensemble, numbers, side_by_side
from streamlearn.operators._experts_on_device import bag_on_device
from streamlearn.operators._members import Listener, first_rise
from streamlearn.operators._on_device import without_cpu
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.baselines import MajorityClassifier, MeanRegressor
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_MOST = 100.0  # the largest mean of the weights


class _Bagging(Ensemble):
    """The walk of all four families: draw, let the members run, vote.

    Draws belong to events: the n-th event that was observed, or learnt without having been, has
    number n, and number and member give the draw. A late label brings the number of its event
    along, so that it counts as often as its features did.
    """

    _arrays: ClassVar[tuple[str, ...]] = ()
    _counters: ClassVar[tuple[str, ...]] = ("n_events_", "_numbers")

    model: Operator
    n: int
    lam: float
    seed: int
    device: str

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that all families have, and make the members."""
        owner = type(self).__name__
        model = given["model"]
        self.model = self._default_model() if model is None else as_stage(model)
        self.n = _checks.whole(owner, "n", given["n"], 1)
        self.lam = _checks.positive(owner, "lam", given["lam"])
        _checks.between(owner, "lam", self.lam, 0.0, _MOST)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)
        self.device = given["device"]
        members, self._there = bag_on_device(owner, self.device, self.model, self.n)
        self._adopt(members, ["model"] * len(members))
        keys = [key_of(self.seed, f"member {j}") for j in range(self.n)]
        self._keys = np.array(keys, dtype=np.uint64)
        self._cumulative = _poisson(self.lam)
        self._clear()

    def _default_model(self) -> Operator:
        return KalmanClassifier() if self.task == CLASSIFICATION else KalmanRegressor()

    def _clear(self) -> None:
        self.n_events_ = 0
        self._numbers = list(range(self.n))

    def _plain_parameters(self) -> dict[str, Any]:
        """Without `device` where it is the CPU: states from before it are still read."""
        return without_cpu(super()._plain_parameters())

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        if self.needs_pickle:  # what a foreign model is, only its pickle says
            self.model = self.members_[0].clone()

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        said, logs = self._taught(block)
        return self._voted(said, block) | logs

    def _taught(self, block: Block) -> tuple[list[Columns], Columns]:
        """What the members answer, each with weights of its own, and what is to be logged."""
        events, fresh = self._numbered(block)
        logs: Columns = {"log:event": events} if block.log_wanted else {}
        found = self._ask_all(block, Draws(self._keys, events, self._cumulative))
        self.n_events_ += fresh
        for _, more in found:
            logs |= more
        return [answers for answers, _ in found], logs

    def _numbered(self, block: Block) -> tuple[I8, int]:
        """The number of each row's event (-1 where none is needed), and how many are new."""
        new = block.mode & (OBSERVE | LEARN) != 0
        events = np.full(block.n, -1, dtype=np.int64)
        if block.logged is not None and "event" in block.logged.columns:
            held = block.logged.held["event"]
            events[held] = block.logged.columns["event"][held]
            new &= ~held
        fresh = int(np.count_nonzero(new))
        events[new] = np.arange(self.n_events_, self.n_events_ + fresh)
        return events, fresh

    def _voted(self, said: list[Columns], block: Block) -> Columns:
        """The mean of what the members answer."""
        if self.task == CLASSIFICATION:
            classes, P = side_by_side(said, block.n)
            proba, best = np.empty((block.n, P.shape[2])), np.empty(block.n)
            ensemble.vote_classes(classes, P, block.mode, proba, best)
            return {"prediction": best, "proba": proba}
        M = 1 if block.y.ndim == 1 else block.y.shape[1]
        F, V = numbers(said, (block.n, M))
        mean, variance = np.empty((block.n, M)), np.empty((block.n, M))
        ensemble.vote_numbers(F, V, block.mode, mean, variance)
        outputs = {"prediction": mean, "variance": variance}
        if not all("variance" in answers for answers in said):
            del outputs["variance"]
        if block.y.ndim == 1:
            return {name: column[:, 0] for name, column in outputs.items()}
        return outputs


class _ADWINBagging(_Bagging, Listener):
    """Bagging with a detector beside each member: where one fires, the worst member starts anew.

    As `Adaptive` does it: run, listen, and where a detector fires in the middle, go back, run up to
    that row, act, and go on with short blocks. A new member has a new number, so that what the old
    one logged is not handed to it.
    """

    _counters = (*_Bagging._counters, "n_resets_", "_born")

    delta: float

    def _set_parameters(self, given: dict[str, Any]) -> None:
        owner = type(self).__name__
        self.delta = _checks.positive(owner, "delta", given["delta"])
        if self.delta >= 1.0:
            raise ValueError(f"{owner}: delta must be < 1, got {given['delta']!r}")
        self.n_resets_ = 0
        super()._set_parameters(given)

    def _clear(self) -> None:
        super()._clear()
        self.detectors_ = [ADWIN(self.delta) for _ in range(self.n)]
        self.n_resets_, self._born = 0, self.n
        self._stride = 0

    def _members(self) -> dict[str, Operator]:
        detectors = {f"detector {j}": d for j, d in enumerate(self.detectors_)}
        return super()._members() | detectors

    def _run(self, block: Block) -> Columns:
        asked = _prequential.asked(block)
        return _prequential.hidden(self._in_pieces(asked), block)

    def _piece(self, block: Block) -> tuple[Columns, int]:
        """Run rows up to and including the first at which a detector fires, and act on it."""
        before = self.snapshot() if block.n > 1 else None
        said, logs = self._taught(block)
        cut = self._listen(block, said)
        if before is not None and 0 <= cut < block.n - 1:
            self.restore(before)
            block = block.rows(0, cut + 1)
            said, logs = self._taught(block)
            self._listen(block, said)
        outputs = self._voted(said, block) | logs
        if cut >= 0:
            self._replace_worst()
        return outputs, block.n

    def _listen(self, block: Block, said: list[Columns]) -> int:
        """Feed the detectors; the first row at which one fired because errors rose, or -1.

        Those that heard rows beyond it are to be restored: only up to it all have heard the same.
        """
        cut = -1
        for number, detector, answers in zip(self._numbers, self.detectors_, said, strict=True):
            own = block
            if block.logged is not None:
                own = block.replace(logged=block.logged.under(f"{number}/"))
            errors = _prequential.errors(own, answers, str(self.task))
            alarm = first_rise(detector, errors if cut < 0 else errors[: cut + 1])
            cut = alarm if alarm >= 0 else cut
        return cut

    def _replace_worst(self) -> None:
        """Start the member anew whose detector remembers the largest error."""
        worst = max(range(self.n), key=lambda j: self.detectors_[j].estimation)
        self.members_[worst].reset()
        self.detectors_[worst].reset()
        self._numbers[worst] = self._born
        self._born += 1
        self.n_resets_ += 1
        self._shorten()


def _poisson(lam: float) -> F8:
    """P(k <= i) of the Poisson distribution for i = 0, 1, …, as far as 64-bit numbers tell."""
    terms, total = [math.exp(-lam)], math.exp(-lam)
    cumulative = [total]
    while 1.0 - total > 1e-15 and len(terms) < 10.0 * lam + 100.0:
        terms.append(terms[-1] * lam / len(terms))
        total += terms[-1]
        cumulative.append(total)
    return np.array(cumulative[:-1])


class OnlineBaggingClassifier(_Bagging, Classifier):
    """A bag of copies of one classifier, each of which counts every event a random number of times.

    Member j learns event i with weight Poisson(lam), drawn from (seed, j, i) alone; the answer is
    the mean of the probabilities. `lam=1` is the bootstrap of Oza and Russell; 6, as in leveraging
    bagging, teaches every member more and makes them as different.
    Args:
        model: the classifier to copy, a pipeline that ends in one, a River or scikit-learn
            classifier; it stays untrained. One that takes no weights learns once or not at all.
            Default: `KalmanClassifier()`.
        n: members, >= 1.
        lam: mean of the weights, in (0, 100].
        seed: of the draws.
        device: "cpu", or "cuda" for an NVIDIA GPU, where one launch a block walks all members; for
            tens of Kalman heads (standard, shared, mean field); an error where there is none.
    State: n_events_, events that have drawn; the states of the members, under their numbers.
    The draw weighs also what a member learns without labels (running means of features).
    Cost: n times the model's, and some 10 us a block for the draws. On a device O(D^2) a row of all
        members at a time, and a copy of all covariances a snapshot.
    Raises: ValueError for a parameter out of range, and a model that does another task; MemoryError
        where a device has no room, nothing changed.
    Reference: Oza and Russell (2001), Online bagging and boosting; Bifet, Holmes and Pfahringer
    (2010), Leveraging bagging for evolving data streams.
    >>> from streamlearn.operators import KalmanClassifier, OnlineBaggingClassifier
    >>> model = OnlineBaggingClassifier(KalmanClassifier(), n=5)
    >>> for i in range(50):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanClassifier(), "n": 3}
        yield {"model": MajorityClassifier(), "n": 2, "lam": 1.0, "seed": 3}

    def __init__(
        self,
        model: Operator | Any = None,
        n: int = 10,
        lam: float = 6.0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())


class OnlineBaggingRegressor(_Bagging, Regressor):
    """A bag of copies of one regressor, each of which counts every event a random number of times.

    As `OnlineBaggingClassifier`; the answer is the mean, and `variance`, where every member has
    one, that of their mixture: mean variance plus variance of the means.
    Cost, errors, reference: as `OnlineBaggingClassifier`.
    >>> from streamlearn.operators import KalmanRegressor, OnlineBaggingRegressor
    >>> model = OnlineBaggingRegressor(KalmanRegressor(), n=5)
    >>> for i in range(50):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 1)
    8.0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanRegressor(), "n": 3}
        yield {"model": MeanRegressor(), "n": 2, "lam": 1.0, "seed": 3}

    def __init__(
        self,
        model: Operator | Any = None,
        n: int = 10,
        lam: float = 6.0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())


class ADWINBaggingClassifier(_ADWINBagging, Classifier):
    """Online bagging that replaces its worst member when the error of any member rises.

    An ADWIN listens to the prequential 0/1 error of each member. Where one finds that the error
    rose, the member with the largest error in its window starts anew, and so does its detector.
    Args:
        model, n, lam, seed, device: as for `OnlineBaggingClassifier`.
        delta: significance of the detectors, in (0, 1).
    State: n_resets_, members replaced; the states of members and detectors.
    Cost: as `OnlineBaggingClassifier`, n detectors, and a snapshot of the members a block. Rows
        before an alarm are run again (restore and rerun), so the cut of blocks never shows.
    Raises: ValueError for a parameter out of range, and a model that does another task.
    Reference: Bifet, Holmes, Pfahringer, Kirkby and Gavaldà (2009), New ensemble methods for
    evolving data streams.
    >>> from streamlearn.operators import ADWINBaggingClassifier, KalmanClassifier
    >>> model = ADWINBaggingClassifier(KalmanClassifier(), n=5)
    >>> model.learn_one({"a": 1.0}, "spam")
    >>> model.n_resets_
    0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanClassifier(), "n": 3}
        yield {"model": KalmanClassifier(), "n": 2, "lam": 1.0, "delta": 0.9}

    def __init__(
        self,
        model: Operator | Any = None,
        n: int = 10,
        lam: float = 6.0,
        delta: float = 0.002,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())


class ADWINBaggingRegressor(_ADWINBagging, Regressor):
    """Online bagging that replaces its worst member when the error of any member rises.

    As `ADWINBaggingClassifier`, with the absolute error; outputs as `OnlineBaggingRegressor`.
    >>> from streamlearn.operators import ADWINBaggingRegressor, KalmanRegressor
    >>> model = ADWINBaggingRegressor(KalmanRegressor(), n=5)
    >>> model.learn_one({"a": 1.0}, 2.0)
    >>> model.n_resets_
    0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanRegressor(), "n": 3}
        yield {"model": KalmanRegressor(), "n": 2, "lam": 1.0, "delta": 0.9}

    def __init__(
        self,
        model: Operator | Any = None,
        n: int = 10,
        lam: float = 6.0,
        delta: float = 0.002,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
