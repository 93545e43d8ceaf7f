"""A model with a drift detector on its error, and what is done when the detector fires."""

import math
from typing import Any

import numpy as np

from streamlearn.block import F8, LEARN, UNSCORED, Block, Columns, Features
from streamlearn.contracts import Finding, State, merged
from streamlearn.operators import _checks, _findings, _prequential
from streamlearn.operators._base import Classifier, Detector, Operator, Regressor
from streamlearn.operators._findings import Found
from streamlearn.operators._members import Holder, Listener, ask, first_rise
from streamlearn.operators._policies import Actions, Policy, Recent, actions, taught
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_RECENT = tuple(f"recent/{name}_" for name in ("buffer", "labels", "weights", "values"))
_LEADS = 50  # lessons by which the background model is compared with the one that serves
_COUNTS = ("n_alarms_", "n_warnings_", "_serving", "_born", "_hasty")


class _Adaptive(Holder, Listener):
    """The walk that both families share: run, listen to the errors, cut at an alarm, adapt."""

    def __init__(
        self,
        model: Operator | Any,
        detector: Detector | Any = None,
        policy: Policy = "reset",
        warning: Detector | Any = None,
        factor: float = 10.0,
    ) -> None:
        owner = type(self).__name__
        self.model = as_stage(model)
        self.detector = _listener(owner, "detector", _default() if detector is None else detector)
        self.policy = policy
        self.warning = None if warning is None else _listener(owner, "warning", warning)
        self.factor = _checks.number(owner, "factor", factor)
        if self.factor <= 1:
            raise ValueError(f"{owner}: factor must be > 1, got {factor!r}")
        if self.model.task != self.task:
            raise ValueError(f"{owner}: model must do {self.task}, got {type(self.model).__name__}")
        self._actions = actions(owner, policy, self.factor)
        _check_abilities(owner, self._actions, self.model)
        self.takes_categories = self.model.takes_categories
        self.takes_sparse, self.takes_nan = self.model.takes_sparse, self.model.takes_nan
        self.cheap_snapshot, self.exact = self.model.cheap_snapshot, self.model.exact
        self.takes_keys = self.model.takes_keys
        self._recent = None
        if "replay" in self._actions:
            self._recent = Recent(int(self._actions["replay"]["rows"]), self.takes_nan)
            self.takes_sparse = False
        self._early = self._early_listener() if "background" in self._actions else None
        self._background: Operator | None = None
        self._leads: F8 = np.zeros(0)  # by lesson: 1 where the background model was less wrong
        self.needs_pickle = any(member.needs_pickle for member in self._members().values())
        self._serving = self._born = 0  # numbers of the model, and of the last one that was born
        self._hasty = 0  # lessons until the model forgets as usual again
        self.n_alarms_ = 0
        self.n_warnings_ = 0

    def _early_listener(self) -> Detector:
        """The detector that starts the background model: as given, or ten times as nervous."""
        if self.warning is not None:
            return self.warning
        length = getattr(self.detector, "average_run_length", None)
        if length is not None:
            return self.detector.clone({"average_run_length": max(1000, length // 10)})
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
        if "notify" in self._actions:
            outputs = ask(self.model, self._serving, asked)
            found = self._rises(self._signal(self.detector, asked, outputs))
            self.n_alarms_ += int(np.count_nonzero(found))
            told = _findings.added(_findings.open_to(outputs, block.n), found)
            return _prequential.hidden(told, block)
        return _prequential.hidden(self._in_pieces(asked), block)

    def _piece(self, block: Block) -> tuple[Columns, int]:
        """Run rows up to and including the first that calls for a change, and make the change."""
        block = self._while_hasty(block)
        before = self.model.snapshot() if block.n > 1 else None
        outputs = ask(self.model, self._serving, block)
        cut, alarmed, warned = self._listen(block, outputs)
        if before is not None and 0 <= cut < block.n - 1:
            self.model.restore(before)
            block = block.rows(0, cut + 1)
            outputs = ask(self.model, self._serving, block)
        if self._background is not None:
            young = ask(self._background, self._born, block)
            self._compare(block, outputs, young)
            outputs |= {name: c for name, c in young.items() if name.startswith("log:")}
        outputs = _findings.open_to(outputs, block.n)  # the model may raise its own
        if self._early is not None:
            outputs["warning"] = np.zeros(block.n, np.uint8)
            outputs["warning"][-1:] = warned  # only ever on the last row of a piece
        if alarmed:
            outputs = _findings.added(outputs, _findings.at(block.n, -1, self._finding()))
        if self._recent is not None:
            self._recent.add(block, self._signal(self.detector, block, outputs))
        self._slow_down(block)
        self._change(alarmed, warned)
        return outputs, block.n

    def _compare(self, block: Block, outputs: Columns, young: Columns) -> None:
        """Note of each lesson which of the two models was less wrong, by their answers of now."""
        now = block.replace(logged=None)
        old, new = (_prequential.errors(now, said, str(self.task)) for said in (outputs, young))
        with np.errstate(invalid="ignore"):  # both are infinite: neither was less wrong
            lead = np.sign(old - new)
        self._leads = np.concatenate([self._leads, lead[np.isfinite(lead)]])[-_LEADS:]

    def _while_hasty(self, block: Block) -> Block:
        """The rows up to the lesson after which the model forgets as usual again."""
        if self._hasty == 0:
            return block
        lessons = np.flatnonzero(taught(block))
        if len(lessons) < self._hasty:
            return block
        return block.rows(0, int(lessons[self._hasty - 1]) + 1)

    def _slow_down(self, block: Block) -> None:
        """Count the lessons of a piece during which the model forgets faster."""
        if self._hasty:
            self._hasty -= int(np.count_nonzero(taught(block)))
            self._set_pace()

    def _set_pace(self) -> None:
        """Let the model forget faster, or as usual; the one in the background always as usual."""
        if "forget" in self._actions:
            memory = self._actions["forget"]["memory"] if self._hasty else None
            self.model.hasten(memory)  # type: ignore[attr-defined]  # checked when made
            if self._background is not None:
                self._background.hasten(None)  # type: ignore[attr-defined]  # of the same kind

    def _signal(self, detector: Detector, block: Block, outputs: Columns) -> F8:
        """What a detector is fed, (n,): what it watches of the model."""
        return _prequential.signal(detector.watches, block, outputs, str(self.task))

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
        return self.detector.finding() | {"action": "+".join(self._actions)}

    def _listen(self, block: Block, outputs: Columns) -> tuple[int, bool, bool]:
        """The first row of an alarm or a warning (-1: none), and which of them it is."""
        errors = self._signal(self.detector, block, outputs)
        if self._early is None:
            alarm = first_rise(self.detector, errors)
            return alarm, alarm >= 0, False
        heard = self._early.snapshot()
        early = self._signal(self._early, block, outputs)
        warning = first_rise(self._early, early)
        alarm = first_rise(self.detector, errors if warning < 0 else errors[: warning + 1])
        if alarm < 0:
            return warning, False, warning >= 0
        if alarm != warning:  # it heard rows that come after the cut
            self._early.restore(heard)
            first_rise(self._early, early[: alarm + 1])
        return alarm, True, alarm == warning

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
            self._background, self._leads = self._fresh(), np.zeros(0)
            self._born += 1

    def _adapt(self) -> None:
        """Do what the policies say, in their order."""
        anew = False
        for name, arguments in self._actions.items():
            if name == "inflate":
                self.model.inflate(arguments["factor"])  # type: ignore[attr-defined]  # checked
            elif name == "forget":
                self._hasty = int(arguments["rows"])
            elif name == "replay":
                self._replay(int(arguments["times"]), UNSCORED if anew else LEARN)
            else:
                anew = self._begin_anew()
        self._set_pace()

    def _begin_anew(self) -> bool:
        """Go on with the background model if it is better, else a fresh one; whether it is fresh.

        Better: of the last lessons in which one was less wrong it won so many more than it lost
        that chance, two standard deviations of it, does not explain it.
        """
        better = self._leads.sum() > 2.0 * math.sqrt(np.count_nonzero(self._leads))
        fresh = self._background is None or not better
        if self._background is None or not better:
            self.model.reset()
        else:
            self.model, self._serving = self._background, self._born
        self._background, self._leads = None, np.zeros(0)
        self.detector.reset()
        if self._early is not None:
            self._early.reset()
        return fresh

    def _replay(self, times: int, mode: int) -> None:
        """Learn the last rows again, those that came after the likeliest change."""
        assert self._recent is not None
        if mode == LEARN and self.model.exact:
            return  # the background model has learnt them
        n = self._recent.since_change()
        for _ in range(times if n else 0):
            self.model.run(self._recent.block(n, mode, self._features, self._labels))

    def load_kernels(self) -> None:
        """Adapt once without a reason, so that no kernel compiles at the first alarm."""
        self.model.load_kernels()
        self._adapt()

    def _fresh(self) -> Operator:
        fresh = self._shelved(self.model.clone())
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
        kept = None if self._recent is None else [c.copy() for c in self._recent.columns()]
        return own | {"members": members, "recent": kept, "_leads": self._leads}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, to the models of then."""
        for name in (*_COUNTS, "_features", "_labels"):
            setattr(self, name, snapshot[name])
        self._leads, members = snapshot["_leads"], snapshot["members"]
        self.model = members["model"][0]
        self._background = members["background"][0] if "background" in members else None
        for member, taken in members.values():
            member.restore(taken)
        if self._recent is not None:
            self._recent.put(*snapshot["recent"])
        self._set_pace()

    def _state(self, kept: bool) -> State:
        table = Operator.state(self).table
        table |= {name: getattr(self, name) for name in _COUNTS}
        table |= {"has_background": self._background is not None}
        arrays, table = merged(self._states(kept), table)
        arrays |= {"leads": self._leads.copy()}
        if self._recent is not None:
            rows = zip(_RECENT, self._recent.columns(), strict=True)
            arrays |= {name: column.copy() for name, column in rows}
        return State(arrays, table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        for name in _COUNTS:
            setattr(self, name, state.table.get(name, 0))  # older states have no _hasty
        self._background = self._fresh() if state.table["has_background"] else None
        self._leads = np.array(state.arrays.get("leads", np.zeros(0)))
        for name, member in self._members().items():
            member.load(state.under(name))
        if self._recent is not None:
            self._recent.put(*(state.arrays[name] for name in _RECENT))
        self._set_pace()

    def reset(self) -> None:
        """Forget everything learnt, alarms included; names of features and classes stay."""
        self._background, self._leads = None, np.zeros(0)
        self.n_alarms_ = self.n_warnings_ = self._serving = self._born = self._stride = 0
        self._hasty = 0
        if self._recent is not None:
            self._recent.clear()
        self._set_pace()
        for member in self._members().values():
            member.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of all members, and of the rows kept to be learnt again."""
        kept = 0 if self._recent is None else self._recent.nbytes
        return kept + sum(member.state_bytes for member in self._members().values())


class AdaptiveClassifier(_Adaptive, Classifier):
    """A classifier that acts on drift: a detector watches its prequential 0/1 error.

    Args:
        model: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier.
        detector: fed 1 for a wrong answer, 0 for a right one, after every learnt row, or what it
            `watches`; default: ADWIN with an average run length of 50,000.
        policy: what is done at an alarm: a name, `{name: {argument: value}}`, or a list of these,
            which are done in their order.
            notify: reports, nothing else; alone.
            reset: starts the model anew: the next event is answered as the very first was, with no
            class or with 0. `[reset, replay]` has it learn before.
            inflate: widens its covariance by `factor`, > 1.
            forget: as if it remembered `memory` (50) labels at most, for `rows` (200) labels.
            background: starts a second model at a warning and swaps it in at the alarm if it is
            better, by a sign test on the last 50 labels, else begins anew (after Gomes et al. 2017,
            Adaptive random forests for evolving data stream classification).
            replay: learns again, `times` (1) over, those of the last `rows` (200) labelled rows
            that came after the likeliest change of what the detector watches (a step, by least
            squares). An `exact` model, which counts twice what it learns twice, must have begun
            anew before: `[reset, replay]`.
        warning: the detector of warnings for `background`; default: as `detector`, but delta times
            10, or a tenth of the average run length.
        factor: default of `inflate`, > 1.
    An alarm because the error fell is no reason to act: a model that is still learning gets better.
    Where a detector says what the mean did (`rose`, as ADWIN does), such alarms are passed over.

    Outputs: those of the model, `alarm` (n,) uint8, with `background` also `warning` (n,) uint8.
    Cost: the model's, the detector's, and a snapshot of the model a block; with `replay` a copy of
        each labelled row, and memory for 2 `rows`. After an alarm the rows before it are run again
        (restore and rerun), so the cut of blocks never shows.
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
        for policy in ("notify", "reset", "inflate", "background", ["reset", "forget", "replay"]):
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
        for policy in ("notify", "reset", "inflate", "background", ["reset", "forget", "replay"]):
            yield {"model": KalmanRegressor(), "detector": ADWIN(), "policy": policy}


def Adaptive(
    model: Operator | Any,
    detector: Detector | Any = None,
    policy: Policy = "reset",
    warning: Detector | Any = None,
    factor: float = 10.0,
) -> AdaptiveClassifier | AdaptiveRegressor:
    """`AdaptiveClassifier` or `AdaptiveRegressor`, as the task of the model says."""
    family = AdaptiveRegressor if as_stage(model).task == "regression" else AdaptiveClassifier
    return family(model, detector, policy, warning, factor)


def _default() -> ADWIN:
    """The detector where none was given: acting is dearer than reporting, so alarms are rarer."""
    return ADWIN(average_run_length=50_000)


def _check_abilities(owner: str, wanted: Actions, model: Operator) -> None:
    """Refuse a policy that the model cannot follow, or would be worse for."""
    name = type(model).__name__
    if "inflate" in wanted and not hasattr(model, "inflate"):
        raise ValueError(f"{owner}: policy inflate needs a covariance, {name} keeps none")
    if "forget" in wanted and not hasattr(model, "hasten"):
        raise ValueError(
            f"{owner}: policy forget needs a model that can forget faster for a while "
            f"(Kalman or LiteRVFL), got {name}"
        )
    before = list(wanted)[: list(wanted).index("replay")] if "replay" in wanted else ["reset"]
    if model.exact and not {"reset", "background"} & set(before):
        raise ValueError(
            f"{owner}: policy replay must come after reset or background, for {name} is exact: "
            f"what it learns twice it counts twice; got {', '.join(wanted)}"
        )


def _listener(owner: str, name: str, given: Any) -> Detector:
    found = as_stage(given)
    if not isinstance(found, Detector):
        raise ValueError(f"{owner}: {name} must be a drift detector, got {type(given).__name__}")
    return found
