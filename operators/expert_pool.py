"""A pool of experts: at a shift an old one that knows the concept comes back, or one is born."""

import math
from typing import Any

import numpy as np

from streamlearn.block import F8, LEARN, PREDICT, UNSCORED, Block, Columns, Features
from streamlearn.contracts import Finding, State, merged
from streamlearn.jit.expert_pool import (
    COUNTED,
    LESSONS,
    MEAN,
    N_STATS,
    SPREAD,
    USED,
    count_losses,
    walk_losses,
)  # fmt: skip
from streamlearn.operators import _checks, _findings, _prequential
from streamlearn.operators._base import Classifier, Detector, Operator, Regressor
from streamlearn.operators._members import Holder, Listener, ask, first_rise
from streamlearn.operators._policies import Recent, taught
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_RUN = 50_000  # events between two false alarms of the default detector
_COUNTS = (
    "n_switches_", "n_reused_", "n_overruled_", "n_merged_",
    "_active", "_born", "_lessons", "_next_copy", "_next_merge",
)  # fmt: skip
_COLUMNS = ("buffer_", "labels_", "weights_", "values_")


class _ExpertPool(Holder, Listener):
    """The walk, the two triggers and the choice of an expert."""

    _news = True  # of names, since the members that are not asked met some; no state

    def __init__(
        self,
        model: Operator | Any,
        detector: Detector | Any = None,
        size: int = 8,
        z: float = 3.0,
        warm: int = 40,
        win: int = 12,
        every: int = 200,
        merge: int = 10_000,
    ) -> None:
        owner = type(self).__name__
        self.model = as_stage(model)
        if self.model.task != self.task:
            raise ValueError(f"{owner}: model must do {self.task}, got {type(self.model).__name__}")
        self.detector = None if detector is None else as_stage(detector)
        if not isinstance(self.detector, Detector | None):
            name = type(detector).__name__
            raise ValueError(f"{owner}: detector must be a drift detector, got {name}")
        self.size = _checks.whole(owner, "size", size, 1)
        self.z = _checks.positive(owner, "z", z)
        self.warm = _checks.whole(owner, "warm", warm, 1)
        self.win = _checks.whole(owner, "win", win, 1)
        self.every = _checks.whole(owner, "every", every, 1)
        self.merge = _checks.whole(owner, "merge", merge, 1)
        self.takes_categories, self.takes_nan = self.model.takes_categories, self.model.takes_nan
        self.cheap_snapshot, self.exact = self.model.cheap_snapshot, self.model.exact
        self.takes_keys = self.model.takes_keys
        self._ears = self._default_ears() if self.detector is None else self.detector
        self.needs_pickle = self.model.needs_pickle or (
            self._ears is not None and self._ears.needs_pickle
        )
        self._begin()

    def _default_ears(self) -> Detector | None:
        """The detector of shifts where none was given; None: by the z-score of the loss."""
        return None

    def _begin(self) -> None:
        """The pool of one expert that knows nothing."""
        self._born = self._active = self._lessons = self._stride = 0
        self.n_switches_ = self.n_reused_ = self.n_overruled_ = self.n_merged_ = 0
        self._experts, self._numbers = [self._fresh()], [0]
        self._memories = self._blanks()  # of what each learnt last, and of those to come
        self.stats_: F8 = np.zeros((1, N_STATS))
        self._suspicion = np.zeros(1)
        self._copies: list[Operator] = []  # of the active expert, the older first
        self._next_copy, self._next_merge = self.every, self.merge
        self._recent = Recent(4 * self.win if self._ears is None else 200, self.takes_nan)
        if self._ears is not None:
            self._ears.reset()

    def _fresh(self) -> Operator:
        fresh = self._shelved(self.model.clone())
        fresh.meet(self._features)
        return fresh

    def _blanks(self) -> list[Recent]:
        """Memories of all experts that there may be: room is taken once for all of them."""
        return [Recent(4 * self.win, self.takes_nan) for _ in range(self.size)]

    @property
    def n_experts(self) -> int:
        """Experts in the pool."""
        return len(self._experts)

    @property
    def active_(self) -> int:
        """The number of the expert that answers; numbers count from 0 and are never used again."""
        return self._numbers[self._active]

    def grow(self, features: Features) -> None:
        """Every expert makes room."""
        for member in [*self._experts, *self._copies]:
            member.meet(features)
        self._news = True

    def load_kernels(self) -> None:
        """Those of the experts."""
        self._experts[self._active].load_kernels()

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        self._introduce(block)
        return _prequential.hidden(self._in_pieces(_prequential.asked(block)), block)

    def _introduce(self, block: Block) -> None:
        """Let members that are not asked meet new names of features and classes, as if they were:
        their state must not hang on when they are asked. A copy has a table of classes of its own.
        """
        for member in [*self._experts, *self._copies]:
            if self._news or member._labels is not block.labels:
                member.run(block.rows(0, 0).replace(logged=None))
        self._news = False

    def _piece(self, block: Block) -> tuple[Columns, int]:
        for memory in self._memories:
            memory.reserve(block)
        block = self._until(self._next_merge, block)
        done = self._heard(block) if self._ears is not None else self._judged(block)
        self._merge_if_due()
        return done

    def _until(self, due: int, block: Block) -> Block:
        """The rows up to the lesson of this number, or all."""
        left = due - self._lessons
        if block.n < left:
            return block
        lessons = np.flatnonzero(taught(block))
        return block if len(lessons) < left else block.rows(0, int(lessons[left - 1]) + 1)

    def _ask(self, block: Block) -> Columns:
        return ask(self._experts[self._active], self._numbers[self._active], block)

    def _losses(self, block: Block, outputs: Columns) -> F8:
        """Loss of each lesson under these answers, also of one whose label is late, (n,)."""
        return _prequential.signal("loss", block.replace(logged=None), outputs, str(self.task))

    # -- a shift by the z-score of the loss --------------------------------------------------------

    def _judged(self, block: Block) -> tuple[Columns, int]:
        """Rows up to and including the first with too large a loss, which is not learnt."""
        expert, own = self._experts[self._active], self.stats_[self._active]
        alone = block.n == 1
        before = None if alone else expert.snapshot()
        first = block.replace(mode=block.mode & PREDICT) if alone else block
        outputs = self._ask(first)
        losses = self._losses(block, outputs)
        lessons = taught(block)
        at = walk_losses(
            losses, lessons.astype(np.float64), own, self._suspicion, self.z, float(self.warm)
        )
        if self._suspicion[0] == 0.0:
            self._recent.clear()
        if at < 0:
            outputs = self._ask(block) if alone else outputs
            self._memories[self._active].add(block, losses)
            self._lessons += int(np.count_nonzero(lessons))
            return self._marked(outputs, block.n, None), block.n
        if before is not None:
            expert.restore(before)
            block = block.rows(0, at + 1)
        return self._put_aside(block, losses[: at + 1]), block.n

    def _put_aside(self, block: Block, losses: F8) -> Columns:
        """Run a block whose last row is not to be learnt, and shift if there were too many."""
        last = block.n - 1
        self._lessons += int(np.count_nonzero(taught(block))) - 1
        mode = block.mode.copy()
        mode[last] &= ~np.uint8(LEARN)
        outputs = self._ask(block.replace(mode=mode))
        self._memories[self._active].add(block.rows(0, last), losses[:last])
        self._recent.add(block.rows(last, block.n), losses[last:])
        self._suspicion[0] += 1.0
        self._shorten()
        if self._suspicion[0] < self.win:
            return self._marked(outputs, block.n, None)
        own = self.stats_[self._active]
        limit = own[MEAN] + self.z * _deviation(own)
        found = {"detector": type(self).__name__, "watches": "loss", "limit": float(limit)}
        statistic = float(self._recent.columns()[3].mean())
        action = self._shift(len(self._recent), keep=False)
        return self._marked(outputs, block.n, found | {"statistic": statistic} | action)

    # -- a shift by a detector ---------------------------------------------------------------------

    def _heard(self, block: Block) -> tuple[Columns, int]:
        """Rows up to and including the first at which the detector hears the loss rise."""
        assert self._ears is not None
        block = self._until(self._next_copy, block)
        expert = self._experts[self._active]
        before = expert.snapshot() if block.n > 1 else None
        outputs = self._ask(block)
        losses = self._losses(block, outputs)
        at = first_rise(self._ears, losses)
        if before is not None and 0 <= at < block.n - 1:
            expert.restore(before)
            block, losses = block.rows(0, at + 1), losses[: at + 1]
            outputs = self._ask(block)
        lessons = taught(block)
        count_losses(losses, lessons.astype(np.float64), self.stats_[self._active])
        self._recent.add(block, losses)
        self._lessons += int(np.count_nonzero(lessons))
        if at < 0:
            self._copy_if_due()
            return self._marked(outputs, block.n, None), block.n
        self._shorten()
        found = self._ears.finding() | {"watches": "loss"}
        rows = max(self._recent.since_change(), min(self.win, len(self._recent)))
        action = self._shift(rows, keep=True)
        self._ears.reset()
        self._ears.watch(self._recent.columns()[3].copy())  # none after a shift
        self._copy_if_due()
        return self._marked(outputs, block.n, found | action if action else None), block.n

    def _copy_if_due(self) -> None:
        """Every so many lessons a copy of the active expert, the last but one of which is sure not
        to have learnt anything of a new concept."""
        if self._lessons < self._next_copy:
            return
        self._next_copy += self.every
        copy = self._fresh()
        copy.load(self._experts[self._active].state())
        self._copies = [*self._copies[-1:], copy]

    # -- the choice --------------------------------------------------------------------------------

    def _shift(self, n: int, keep: bool) -> Finding:
        """Go on with the expert that knows the last n lessons, or a new one.

        keep: whether the active expert, as it was before, may be the one: then nothing happens.
        """
        lessons = self._recent.block(n, LEARN, self._features, self._labels)
        members = list(self._experts)
        if keep and self._copies:
            members[self._active] = self._copies[0]
        chosen = self._best(members, lessons, keep)
        if chosen == self._active:
            self.n_overruled_ += 1
            return {}
        if keep:  # a detector heard: until the change the lessons were the active expert's
            self._memories[self._active].append(self._recent.but(n))
        before, self.n_switches_ = self.active_, self.n_switches_ + 1
        self.stats_[self._active, USED] = self.n_switches_
        self._experts = members
        reused = chosen >= 0
        self.n_reused_ += reused
        self._active = chosen if reused else self._room()
        self._teach(lessons)
        self._copies, self._next_copy = [], self._lessons + self.every
        self._suspicion[0] = 0.0
        self._recent.clear()
        action = "reuse" if reused else "new"
        return {"action": action, "expert": self.active_, "before": before}

    def _best(self, members: list[Operator], lessons: Block, keep: bool) -> int:
        """The expert with the least mean loss, if that is as usual for it; else -1.

        The active expert stays, whatever the others do, within twice what is usual: the detector
        chose the rows where it was worst. (At real drifts of the lobo streams it was 11 to 96
        standard errors off, at false alarms 6 at most, and wrong experts 6 and more.)

        As usual: within z standard deviations of its own mean (R20); where a detector hears, whose
        rows are more, z standard errors: with the wider bound an expert came back on the random
        trees that was wrong there, and recovery took 1,292 rows.
        """
        z = self.z if self._ears is None else self.z / math.sqrt(lessons.n)
        found, least = -1, math.inf
        for j, member in enumerate(members):
            own = self.stats_[j]
            if own[LESSONS] <= self.warm or (j == self._active and not keep):
                continue
            loss = self._mean_loss(member, lessons)
            usual = own[MEAN] + z * _deviation(own)
            if j == self._active:
                if loss <= usual + z * _deviation(own):
                    return j
                continue
            if loss <= usual and loss < least:
                found, least = j, loss
        return found

    def _mean_loss(self, member: Operator, lessons: Block) -> float:
        outputs = member.run(lessons.replace(mode=np.full(lessons.n, PREDICT, np.uint8)))
        losses = self._losses(lessons, outputs)
        known = np.isfinite(losses)
        return float(losses[known].mean()) if known.any() else math.inf

    def _room(self) -> int:
        """The place of a new expert: behind the others or, in a full pool, of the one not used
        for longest."""
        self._born += 1
        fresh = self._fresh()
        if len(self._experts) < self.size:
            self._experts.append(fresh)
            self._numbers.append(self._born)
            self.stats_ = np.vstack([self.stats_, np.zeros(N_STATS)])
            return len(self._experts) - 1
        place = int(self.stats_[:, USED].argmin())
        self._experts[place], self._numbers[place] = fresh, self._born
        self._memories[place].clear()
        self.stats_[place] = 0.0
        return place

    def _teach(self, lessons: Block) -> None:
        """The active expert learns what nobody of its kind has learnt."""
        young = self.stats_[self._active, LESSONS] == 0.0
        mode = np.full(lessons.n, UNSCORED if young else LEARN, np.uint8)
        self._experts[self._active].run(lessons.replace(mode=mode))
        self._memories[self._active].append(self._recent.last(lessons.n))
        self.stats_[self._active, LESSONS] += lessons.n

    # -- experts that know the same ----------------------------------------------------------------

    def _merge_if_due(self) -> None:
        """Every so many lessons, of two experts that know the same only the older stays."""
        if self._lessons < self._next_merge:
            return
        self._next_merge += self.merge
        while (twins := self._twins()) is not None:
            self._unite(*twins)

    def _twins(self) -> tuple[int, int] | None:
        """The places of two experts that know the same, the older first."""
        by_age = np.argsort(self._numbers).tolist()
        for k, newer in enumerate(by_age):
            for older in by_age[:k]:
                if self._knows(older, newer) and self._knows(newer, older):
                    return older, newer
        return None

    def _knows(self, one: int, other: int) -> bool:
        """Whether an expert's loss on what another learnt last is as usual for the other.

        As usual: within a standard deviation of a loss of the other's own mean (R20); where a
        detector hears, within z standard errors, as in `_best`.
        """
        active = other == self._active and self._ears is not None
        memory = self._recent if active else self._memories[other]
        own, rows = self.stats_[other], min(len(memory), 4 * self.win)
        if rows < self.win or min(own[LESSONS], self.stats_[one, LESSONS]) <= self.warm:
            return False
        within = 1.0 if self._ears is None else min(self.z / math.sqrt(rows), 1.0)
        lessons = memory.block(rows, LEARN, self._features, self._labels)
        loss = self._mean_loss(self._experts[one], lessons)
        return bool(loss <= own[MEAN] + within * _deviation(own))

    def _unite(self, older: int, newer: int) -> None:
        """The older takes the place of both, with the losses of both and the newest lessons."""
        _add_losses(self.stats_[older], self.stats_[newer])
        self._memories[older].append(self._memories[newer].columns())
        if newer == self._active:  # its copies are of no use
            self._copies, self._next_copy = [], self._lessons + self.every
        number = self._numbers[older if newer == self._active else self._active]
        for held in (self._experts, self._numbers, self._memories):
            del held[newer]
        self._memories.append(self._blanks()[0])
        self.stats_ = np.delete(self.stats_, newer, axis=0)
        self._active = self._numbers.index(number)
        self.n_merged_ += 1

    def _marked(self, outputs: Columns, n: int, found: Finding | None) -> Columns:
        """Outputs with `alarm`, and what was found on the last row."""
        told = _findings.open_to(outputs, n)  # the expert may have raised its own
        return told if found is None else _findings.added(told, _findings.at(n, -1, found))

    # -- state -------------------------------------------------------------------------------------

    def _members(self) -> dict[str, Operator]:
        members = {f"expert{j}": expert for j, expert in enumerate(self._experts)}
        members |= {f"copy{j}": copy for j, copy in enumerate(self._copies)}
        return members if self._ears is None else members | {"detector": self._ears}

    def _kept(self) -> dict[str, Recent]:
        """The lessons that are kept, by their name in the state."""
        memories = {f"memory{j}": self._memories[j] for j in range(self.n_experts)}
        return {"recent": self._recent} | memories

    def snapshot(self) -> dict[str, Any]:
        """The pool as it is, and snapshots of its members."""
        own = {name: getattr(self, name) for name in (*_COUNTS, "_features", "_labels")}
        own |= {"_experts": list(self._experts), "_numbers": list(self._numbers)}
        own |= {"_copies": list(self._copies), "stats_": self.stats_.copy()}
        own["_suspicion"] = self._suspicion.copy()
        taken = [(member, member.snapshot()) for member in self._members().values()]
        rows = [[c.copy() for c in kept.columns()] for kept in self._kept().values()]
        return {"own": own, "members": taken, "rows": rows}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, to the experts of then."""
        for name, value in snapshot["own"].items():
            plain = name in (*_COUNTS, "_features", "_labels")
            setattr(self, name, value if plain else value.copy())
        for member, taken in snapshot["members"]:
            member.restore(taken)
        self._news = True
        self._memories = self._blanks()
        for kept, columns in zip(self._kept().values(), snapshot["rows"], strict=True):
            kept.put(*columns)

    def _state(self, kept: bool) -> State:
        table = Operator.state(self).table | {name: getattr(self, name) for name in _COUNTS}
        table |= {"numbers": list(self._numbers), "copies": len(self._copies)}
        arrays, table = merged(self._states(kept), table)
        arrays |= {"stats_": self.stats_.copy(), "suspicion_": self._suspicion.copy()}
        for name, lessons in self._kept().items():
            rows = zip(_COLUMNS, lessons.columns(), strict=True)
            arrays |= {f"{name}/{column}": values.copy() for column, values in rows}
        return State(arrays, table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        for name in _COUNTS:
            setattr(self, name, state.table[name])
        self._numbers = list(state.table["numbers"])
        self._experts = [self._fresh() for _ in self._numbers]
        self._copies = [self._fresh() for _ in range(state.table["copies"])]
        self.stats_ = np.array(state.arrays["stats_"])
        self._suspicion = np.array(state.arrays["suspicion_"])
        self._memories = self._blanks()
        for name, kept in self._kept().items():
            kept.put(*(state.arrays[f"{name}/{column}"] for column in _COLUMNS))
        for name, member in self._members().items():
            member.load(state.under(name))

    def reset(self) -> None:
        """Forget everything learnt; names of features and classes stay."""
        self._begin()

    @property
    def state_bytes(self) -> int:
        """Bytes of all members, and of the lessons kept."""
        members = sum(member.state_bytes for member in self._members().values())
        rows = self._recent.nbytes + sum(memory.room for memory in self._memories)
        return members + self.stats_.nbytes + rows


def _add_losses(own: F8, other: F8) -> None:
    """Make of an expert's numbers (5,) those of one that had the lessons of the other, too.

    Chan, Golub and LeVeque's sum of two sets of squared deviations.
    """
    counted, gap = own[COUNTED] + other[COUNTED], other[MEAN] - own[MEAN]
    if counted > 0.0:
        own[SPREAD] += other[SPREAD] + gap * gap * own[COUNTED] * other[COUNTED] / counted
        own[MEAN] += gap * other[COUNTED] / counted
    own[LESSONS], own[COUNTED] = own[LESSONS] + other[LESSONS], counted
    own[USED] = max(own[USED], other[USED])


def _deviation(own: F8) -> float:
    """Standard deviation of an expert's own losses; 0 before there are two."""
    return math.sqrt(own[SPREAD] / (own[COUNTED] - 1.0)) if own[COUNTED] > 1.0 else 0.0


class ExpertPoolClassifier(_ExpertPool, Classifier):
    """Classifiers for concepts that come back: at a shift the old expert that knows it, or a new.

    One expert answers and learns. A detector hears its log loss; a z-score could never call 0/1
    errors at a rate of 10 % too large. At an alarm the loss of every expert of the pool on the
    lessons since the change (a step in the loss, by least squares; `win` at least) is compared with
    what is usual for it. If the active expert is at most 2 z standard errors above its own mean,
    nothing happens (`n_overruled_`): the detector chose the rows where it was worst. Else the best
    expert goes on that is at most z above its own, or a new one, and learns these lessons. The
    expert that was active goes back into the pool as it was `every` to 2 `every` lessons before, so
    that it has learnt nothing of what came after. A detector that was overruled begins anew with
    the losses of the last 200 lessons.

    Every `merge` lessons the experts are compared on what each learnt last (4 `win` lessons):
    of two whose mean losses there are each as usual for the other, within z standard errors of the
    mean of its own, the newer goes (`n_merged_`); if it was active, the older goes on.
    Args:
        model: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier; the
            experts are its clones.
        detector: fed the log loss of every labelled row; default: ADWIN with
            an average run length of 50,000.
        size: experts, >= 1; in a full pool a new one takes the place of that not used for longest.
        z: see above, > 0.
        warm: lessons before an expert may be called back, >= 1; losses count after 15.
        win: lessons that a shift is judged by, at the least, >= 1.
        every: lessons between two copies of the active expert, >= 1.
        merge: lessons between two looks for experts that know the same, >= 1.
    State:
        stats_: (E, 5) float64: lessons, losses counted, their mean, their sum of squared
            deviations, and the last use of each expert.
        The states of the experts, of two copies of the active one, of the detector; the last 200
        lessons, and of each expert the last 4 `win` that it learnt.
    Outputs: those of the active expert, `alarm` (n,) uint8, 1 at a shift, and there `why`: `action`
    (reuse or new), `expert` and `before`, numbers of experts (`active_`).
    A late label is judged by the answer that the expert of now gives to the features of then.
    Cost: one expert and the detector, a snapshot a block, a copy every `every` lessons; E times 200
        answers at a shift, at most E (E - 1) times 4 `win` every `merge` lessons. After an alarm
        the rows before it are run again (restore and rerun), so the cut of blocks never shows.
    Raises: ValueError for parameters that do not fit together.
    Reference: Zhu, Majzoubi, Jain and Choromanska (2022), TAME: Task Agnostic Continual Learning
        using Multiple Experts, arXiv 2210.03869; specification R20. Its soft choice among
        experts is not there.
    >>> from streamlearn.operators import ExpertPoolClassifier, KalmanClassifier
    >>> model = ExpertPoolClassifier(KalmanClassifier())
    >>> model.learn_one({"a": 1.0}, "spam")
    >>> model.predict_one({"a": 1.0})
    'spam'
    """

    def _default_ears(self) -> Detector | None:
        return ADWIN(average_run_length=_RUN)

    @classmethod
    def _unit_test_params(cls) -> Any:
        """Members for River's checks and the conformance suite."""
        yield {"model": KalmanClassifier()}
        yield {"model": KalmanClassifier(), "detector": ADWIN(delta=0.5, clock=4), "size": 2}


class ExpertPoolRegressor(_ExpertPool, Regressor):
    """Regressors for concepts that come back: at a shift the old expert that knows it, or a new.

    Without a detector the trigger is R20's: after `warm` lessons, a squared error beyond the mean
    of the active expert's own plus z standard deviations is suspicious, and its row not learnt but
    put aside. Each such row counts 1 up, every other lesson 1 down; at 0 the rows put aside are
    dropped: outliers in bursts shorter than `win` never reach an expert. At `win` a shift is
    called; the best other expert whose mean loss on these rows is within its own mean plus z
    standard deviations goes on, else a new one, and learns them. Two experts know the same where
    each has a mean loss on the other's last lessons of at most one standard deviation above the
    mean of the other's own. With a `detector`, which hears the
    squared error, all is as in `ExpertPoolClassifier`, and so are arguments, state and outputs.
    Raises: ValueError for parameters that do not fit together.
    Reference: specification R20; see `ExpertPoolClassifier`.
    >>> from streamlearn.operators import ExpertPoolRegressor, KalmanRegressor
    >>> model = ExpertPoolRegressor(KalmanRegressor())
    >>> model.learn_one({"a": 1.0}, 2.0)
    >>> model.n_experts
    1
    """

    @classmethod
    def _unit_test_params(cls) -> Any:
        """Members for River's checks and the conformance suite."""
        yield {"model": KalmanRegressor()}
        yield {"model": KalmanRegressor(), "warm": 5, "win": 2, "z": 0.5, "size": 2}
