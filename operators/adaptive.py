"""A model with a drift detector on its error, and what is done when the detector fires."""

from typing import Any

import numpy as np

from streamlearn.block import F8, Block, Columns, Features
from streamlearn.contracts import Finding, State, merged
from streamlearn.operators import _checks, _findings, _prequential
from streamlearn.operators._base import Classifier, Detector, Operator, Regressor
from streamlearn.operators._findings import Found
from streamlearn.operators._members import Listener, ask, first_rise
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

POLICIES = ("notify", "reset", "inflate", "background")
_COUNTS = ("n_alarms_", "n_warnings_", "_serving", "_born")


class _Adaptive(Listener):
    """The walk that both families share: run, listen to the errors, cut at an alarm, adapt."""

    def __init__(
        self,
        model: Operator | Any,
        detector: Detector | Any,
        policy: str = "reset",
        warning: Detector | Any = None,
        factor: float = 10.0,
    ) -> None:
        owner = type(self).__name__
        self.model = as_stage(model)
        self.detector = _listener(owner, "detector", detector)
        self.policy = _checks.choice(owner, "policy", policy, POLICIES)
        self.warning = None if warning is None else _listener(owner, "warning", warning)
        self.factor = _checks.number(owner, "factor", factor)
        if self.factor <= 1:
            raise ValueError(f"{owner}: factor must be > 1, got {factor!r}")
        if self.model.task != self.task:
            raise ValueError(f"{owner}: model must do {self.task}, got {type(self.model).__name__}")
        if policy == "inflate" and not hasattr(self.model, "inflate"):
            name = type(self.model).__name__
            raise ValueError(f"{owner}: policy inflate needs a covariance, {name} keeps none")
        self.takes_categories = self.model.takes_categories
        self.takes_sparse, self.takes_nan = self.model.takes_sparse, self.model.takes_nan
        self.cheap_snapshot = self.model.cheap_snapshot
        self._early = self._early_listener() if policy == "background" else None
        self._background: Operator | None = None
        self.needs_pickle = any(member.needs_pickle for member in self._members().values())
        self._serving = self._born = 0  # numbers of the model, and of the last one that was born
        self.n_alarms_ = 0
        self.n_warnings_ = 0

    def _early_listener(self) -> Detector:
        """The detector that starts the background model: as given, or ten times as nervous."""
        if self.warning is not None:
            return self.warning
        delta = getattr(self.detector, "delta", None)
        if delta is None:
            raise ValueError(f"{type(self).__name__}: policy background needs a warning detector")
        return self.detector.clone({"delta": min(10.0 * delta, 0.5)})

    def grow(self, features: Features) -> None:
        """The model, and the one in the background, make room."""
        self.model.meet(features)
        if self._background is not None:
            self._background.meet(features)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        asked = _prequential.asked(block)
        if self.policy == "notify":
            outputs = ask(self.model, self._serving, asked)
            found = self._rises(_prequential.errors(asked, outputs, str(self.task)))
            self.n_alarms_ += int(np.count_nonzero(found))
            quiet = {"alarm": np.zeros(block.n, np.uint8)}
            return _prequential.hidden(_findings.added(outputs | quiet, found), block)
        return _prequential.hidden(self._in_pieces(asked), block)

    def _piece(self, block: Block) -> tuple[Columns, int]:
        """Run rows up to and including the first that calls for a change, and make the change."""
        before = self.model.snapshot() if block.n > 1 else None
        outputs = ask(self.model, self._serving, block)
        errors = _prequential.errors(block, outputs, str(self.task))
        cut, alarmed, warned = self._listen(errors)
        if before is not None and 0 <= cut < block.n - 1:
            self.model.restore(before)
            block = block.rows(0, cut + 1)
            outputs = ask(self.model, self._serving, block)
        if self._background is not None:
            taught = ask(self._background, self._born, block)
            outputs |= {name: c for name, c in taught.items() if name.startswith("log:")}
        outputs |= self._marks(block.n, alarmed, warned)
        if alarmed:
            outputs = _findings.added(outputs, _findings.at(block.n, -1, self._finding()))
        self._change(alarmed, warned)
        return outputs, block.n

    def _rises(self, errors: F8) -> Found:
        """The findings on each row whose error raised an alarm."""
        found = np.full(errors.shape[0], None, dtype=object)
        start = 0
        while (at := first_rise(self.detector, errors[start:])) >= 0:
            found[start + at] = (self._finding(),)
            start += at + 1
        return found

    def _finding(self) -> Finding:
        """What the detector found, and what is done about it."""
        return self.detector.finding() | {"action": self.policy}

    def _listen(self, errors: F8) -> tuple[int, bool, bool]:
        """The first row of an alarm or a warning (-1: none), and which of them it is."""
        if self._early is None:
            alarm = first_rise(self.detector, errors)
            return alarm, alarm >= 0, False
        heard = self._early.snapshot()
        warning = first_rise(self._early, errors)
        alarm = first_rise(self.detector, errors if warning < 0 else errors[: warning + 1])
        if alarm < 0:
            return warning, False, warning >= 0
        if alarm != warning:  # it heard rows that come after the cut
            self._early.restore(heard)
            first_rise(self._early, errors[: alarm + 1])
        return alarm, True, alarm == warning

    def _marks(self, n: int, alarmed: bool, warned: bool) -> Columns:
        """The columns that say on which row something was raised: only ever the last of a piece."""
        alarm = np.zeros(n, dtype=np.uint8)
        alarm[-1:] = alarmed
        if self._early is None:
            return {"alarm": alarm}
        warning = np.zeros(n, dtype=np.uint8)
        warning[-1:] = warned
        return {"alarm": alarm, "warning": warning}

    # -- the change --------------------------------------------------------------------------------

    def _change(self, alarmed: bool, warned: bool) -> None:
        """A warning starts a background model, an alarm does what the policy says."""
        self.n_warnings_ += warned
        self.n_alarms_ += alarmed
        if alarmed or warned:
            self._shorten()
        if alarmed:
            self._adapt()
        elif warned:
            self._background = self._fresh()
            self._born += 1

    def _adapt(self) -> None:
        if self.policy == "inflate":
            self.model.inflate(self.factor)  # type: ignore[attr-defined]  # checked when made
            return
        if self._background is None:
            self.model.reset()
        else:
            self.model, self._background = self._background, None
            self._serving = self._born
        self.detector.reset()
        if self._early is not None:
            self._early.reset()

    def load_kernels(self) -> None:
        """Adapt once without a reason, so that no kernel compiles at the first alarm."""
        self.model.load_kernels()
        self._adapt()

    def _fresh(self) -> Operator:
        fresh = self.model.clone()
        fresh.meet(self._features)
        return fresh

    # -- state -------------------------------------------------------------------------------------

    def _members(self) -> dict[str, Operator]:
        members = {"model": self.model, "detector": self.detector}
        optional = {"early": self._early, "background": self._background}
        return members | {name: member for name, member in optional.items() if member is not None}

    def snapshot(self) -> dict[str, Any]:
        """Snapshots of the model, the detectors and the background model."""
        own = {name: getattr(self, name) for name in (*_COUNTS, "_features", "_labels")}
        members = {name: (m, m.snapshot()) for name, m in self._members().items()}
        return own | {"members": members}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, to the models of then."""
        for name in (*_COUNTS, "_features", "_labels"):
            setattr(self, name, snapshot[name])
        members = snapshot["members"]
        self.model = members["model"][0]
        self._background = members["background"][0] if "background" in members else None
        for member, taken in members.values():
            member.restore(taken)

    def state(self) -> State:
        """The states of the members, and how often it alarmed and warned."""
        table = super().state().table
        table |= {name: getattr(self, name) for name in _COUNTS}
        members = {name: member.state() for name, member in self._members().items()}
        return merged(members, table | {"has_background": self._background is not None})

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        for name in _COUNTS:
            setattr(self, name, state.table[name])
        self._background = self._fresh() if state.table["has_background"] else None
        for name, member in self._members().items():
            member.load(state.under(name))

    def reset(self) -> None:
        """Forget everything learnt, alarms included; names of features and classes stay."""
        self._background = None
        self.n_alarms_ = self.n_warnings_ = self._serving = self._born = self._stride = 0
        for member in self._members().values():
            member.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of all members."""
        return sum(member.state_bytes for member in self._members().values())


class AdaptiveClassifier(_Adaptive, Classifier):
    """A classifier that acts on drift: a detector watches its prequential 0/1 error.

    Args:
        model: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier.
        detector: fed 1 for a wrong answer, 0 for a right one, after every learnt row.
        policy: `notify` reports; `reset` starts the model anew; `inflate` widens its covariance by
            `factor`; `background` starts a second model at a warning and swaps it in at the alarm
            (Gomes et al. 2017, Adaptive random forests for evolving data stream classification).
        warning: the detector of warnings for `background`; default: as `detector`, delta times 10.
        factor: for `inflate`, > 1.
    An alarm because the error fell is no reason to act: a model that is still learning gets better.
    Where a detector says what the mean did (`rose`, as ADWIN does), such alarms are passed over.

    Outputs: those of the model, `alarm` (n,) uint8, with `background` also `warning` (n,) uint8.
    Cost: the model's, the detector's, and a snapshot of the model a block. After an alarm the rows
        before it are run again (restore and rerun), so the cut of blocks never shows.
    Raises: ValueError for parameters that do not fit together.
    >>> from streamlearn.operators import ADWIN, AdaptiveClassifier, KalmanClassifier
    >>> model = AdaptiveClassifier(KalmanClassifier(), ADWIN(), policy="reset")
    >>> model.learn_one({"a": 1.0}, "spam")
    >>> model.predict_one({"a": 1.0})
    'spam'
    """

    @classmethod
    def _unit_test_params(cls) -> Any:
        """Members for River's checks and the conformance suite."""
        for policy in POLICIES:
            yield {"model": KalmanClassifier(), "detector": ADWIN(), "policy": policy}


class AdaptiveRegressor(_Adaptive, Regressor):
    """A regressor that acts on drift: a detector watches its prequential absolute error.

    Args, outputs, cost, errors: as `AdaptiveClassifier`, with |y - prediction| fed to the detector.
    >>> from streamlearn.operators import ADWIN, AdaptiveRegressor, KalmanRegressor
    >>> model = AdaptiveRegressor(KalmanRegressor(), ADWIN(), policy="inflate")
    >>> model.learn_one({"a": 1.0}, 2.0)
    >>> model.n_alarms_
    0
    """

    @classmethod
    def _unit_test_params(cls) -> Any:
        """Members for River's checks and the conformance suite."""
        for policy in POLICIES:
            yield {"model": KalmanRegressor(), "detector": ADWIN(), "policy": policy}


def Adaptive(
    model: Operator | Any,
    detector: Detector | Any,
    policy: str = "reset",
    warning: Detector | Any = None,
    factor: float = 10.0,
) -> AdaptiveClassifier | AdaptiveRegressor:
    """`AdaptiveClassifier` or `AdaptiveRegressor`, as the task of the model says."""
    family = AdaptiveRegressor if as_stage(model).task == "regression" else AdaptiveClassifier
    return family(model, detector, policy, warning, factor)


def _listener(owner: str, name: str, given: Any) -> Detector:
    found = as_stage(given)
    if not isinstance(found, Detector):
        raise ValueError(f"{owner}: {name} must be a drift detector, got {type(given).__name__}")
    return found
