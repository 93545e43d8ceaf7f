"""A champion that serves, and a challenger in its shadow, which takes over when proved better."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, Block, Columns, Features
from streamlearn.contracts import Finding, Json, State
from streamlearn.jit.champion import BETTER, N_EVIDENCE, NEGATIVE, POSITIVE, weigh
from streamlearn.operators import _checks, _findings, _prequential
from streamlearn.operators._base import REGRESSION, Classifier, Detector, Operator, Regressor
from streamlearn.operators._ensemble import Ensemble
from streamlearn.operators._members import Listener, first_rise
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.baselines import MajorityClassifier
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_MOST_ENTRIES = 100  # of the history; the last ones, and what tells of versions that are there


class _Champion(Ensemble, Listener):
    """What both families share: two models walk the stream, one of them serves."""

    _arrays: ClassVar[tuple[str, ...]] = ("evidence_", "flips_")
    _counters: ClassVar[tuple[str, ...]] = (
        *("version", "n_promotions", "n_rollbacks", "n_rejected", "labels_"),
        *("versions_", "_numbers", "_born", "_serving", "_versions", "_kept"),
    )

    def __init__(
        self,
        champion: Operator | Any,
        challenger: Operator | Any = None,
        alpha: float = 0.05,
        bet: float = 0.2,
        detector: Detector | Any = None,
        keep: int = 3,
    ) -> None:
        owner = type(self).__name__
        self.champion = as_stage(champion)
        self.challenger = None if challenger is None else as_stage(challenger)
        self.alpha = _checks.positive(owner, "alpha", alpha)
        self.bet = _checks.positive(owner, "bet", bet)
        for name in ("alpha", "bet"):
            if getattr(self, name) >= 1.0:
                raise ValueError(f"{owner}: {name} must be < 1, got {getattr(self, name)!r}")
        found = as_stage(ADWIN(average_run_length=10_000) if detector is None else detector)
        if not isinstance(found, Detector):
            name = type(detector).__name__
            raise ValueError(f"{owner}: detector must be a drift detector, got {name}")
        self.detector: Detector = found
        self.keep = _checks.whole(owner, "keep", keep, 1)
        if self.challenger is self.champion:
            raise ValueError(f"{owner}: challenger must be another model, got the champion itself")
        shadow = self.champion.clone() if self.challenger is None else self.challenger
        self._adopt([self.champion, shadow], ["champion", "challenger"])
        self.takes_sparse = all(member.takes_sparse for member in self.members_)
        self._begin()

    def _begin(self) -> None:
        self.evidence_: F8 = np.zeros(N_EVIDENCE)
        self.flips_: F8 = np.zeros(2)  # negative and positive ones, of all restarts before
        self.version = 1
        self.n_promotions = self.n_rollbacks = self.n_rejected = 0
        self.labels_ = 0  # rows that both were compared on, or would have been
        self.versions_: list[dict[str, Json]] = [_entry(1, 0, 0, "start")]
        self._numbers, self._born = [0, 1], 1
        self._serving = 0  # which of the members
        self._versions = [1, 0]  # of each member; 0 has never served
        self._kept: list[int] = []  # versions that were replaced, the last one last
        self._frozen: dict[int, Operator] = {}  # these, as they were then

    def grow(self, features: Features) -> None:
        """The models make room, those that are kept among them."""
        super().grow(features)
        for model in self._frozen.values():
            model.meet(features)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        for model in self._frozen.values():
            model.run(block.rows(0, 0))  # it meets new classes as the others do
        return _prequential.hidden(self._in_pieces(_prequential.asked(block)), block)

    def _piece(self, block: Block) -> tuple[Columns, int]:
        """Run rows up to and including the first that decides something, and act on it."""
        before = [m.snapshot() for m in self.members_] if block.n > 1 else None
        said, logs = self._answers(block)
        at, decided, alarmed = self._judge(self._losses(block, said))
        if before is not None and 0 <= at < block.n - 1:
            for member, taken in zip(self.members_, before, strict=True):
                member.restore(taken)
            block = block.rows(0, at + 1)
            said, logs = self._answers(block)
        outputs = _shared(said[self._serving], said[1 - self._serving]) | logs
        outputs = _findings.open_to(outputs, block.n)  # a champion may raise its own
        self.labels_ += int(np.count_nonzero(~np.isnan(self._losses(block, said)[0])))
        found = self._act(decided, alarmed)
        if found:
            outputs = _findings.added(outputs, _findings.at(block.n, -1, *found))
        return outputs, block.n

    def _losses(self, block: Block, said: list[Columns]) -> tuple[F8, F8]:
        """Losses of the champion and the challenger, (n,) each, NaN where a row says nothing."""
        plain = block if block.logged is None else block.replace(logged=None)
        losses = [_prequential.errors(plain, one, str(self.task)) for one in said]
        return losses[self._serving], losses[1 - self._serving]

    def _judge(self, losses: tuple[F8, F8]) -> tuple[int, bool, bool]:
        """The first row that decides or alarms (-1: none), and which of them it does."""
        bound, scaled = math.log(1.0 / self.alpha), self.task == REGRESSION
        heard = self.evidence_.copy()
        decided = weigh(*losses, self.evidence_, self.bet, bound, scaled)
        champion = losses[0] if decided < 0 else losses[0][: decided + 1]
        alarm = first_rise(self.detector, champion)
        if alarm < 0:
            return decided, decided >= 0, False
        if alarm != decided:  # it took rows that come after the cut
            self.evidence_ = heard
            part = losses[0][: alarm + 1], losses[1][: alarm + 1]
            weigh(*part, self.evidence_, self.bet, bound, scaled)
        return alarm, alarm == decided, True

    # -- what is done ------------------------------------------------------------------------------

    def _act(self, decided: bool, alarmed: bool) -> list[Finding]:
        """Do what a row calls for; what is to be told of it."""
        if alarmed or decided:
            self._shorten()
        told = self._alarmed(decided) if alarmed else None
        done = self._decide() if decided else None
        return [finding for finding in (told, done) if finding is not None]

    def _alarmed(self, decided: bool) -> Finding:
        """The data have drifted: what was known of who is better is void, if it was not decided."""
        found: Finding = self.detector.finding() | {"action": "restart"}
        self.detector.reset()
        if not decided:
            self._restart()
            self._renew()
        return found

    def _decide(self) -> Finding | None:
        """Promote the challenger, or let it go."""
        wealth, limit = float(self.evidence_[BETTER]), math.log(1.0 / self.alpha)
        negative, positive = (int(self.evidence_[place]) for place in (NEGATIVE, POSITIVE))
        self._restart()
        if wealth < limit:
            self.n_rejected += 1
            self._renew()
            return None
        former, was = self._versions[1 - self._serving], self.version
        how = "rollback" if former else "promote"
        self._promote(former or 1 + max(entry["version"] for entry in self.versions_), how)
        return {
            "detector": type(self).__name__,
            "watches": "error",
            "statistic": wealth,
            "limit": limit,
            "negative_flips": negative,
            "positive_flips": positive,
            "from": was,
            "to": self.version,
            "action": how,
        }

    def _promote(self, version: int, how: str) -> None:
        """The model in the shadow serves from the next row on; the other one is kept."""
        self._keep()
        self.n_promotions += how == "promote"
        self.n_rollbacks += how == "rollback"
        self._serving = 1 - self._serving
        self._versions[self._serving] = self.version = version
        self._enter(_entry(version, self._serving, self.labels_, how))
        self.detector.reset()

    def _keep(self) -> None:
        """Keep the version that serves as it is now; the oldest beyond `keep` goes."""
        serving = self.members_[self._serving]
        self._frozen[self.version] = frozen = self._shelved(serving.clone())
        frozen.load(serving.state())
        self._kept = [v for v in self._kept if v != self.version] + [self.version]
        while len(self._kept) > self.keep:
            del self._frozen[self._kept.pop(0)]

    def _restart(self) -> None:
        """Begin a new test."""
        self.flips_ = self.flips_ + self.evidence_[[NEGATIVE, POSITIVE]]
        self.evidence_ = np.zeros(N_EVIDENCE)

    def _renew(self) -> None:
        """Where no challenger was given, a fresh model takes the place in the shadow."""
        if self.challenger is not None:
            return
        shadow = 1 - self._serving
        self.members_[shadow].reset()
        self._number(shadow)
        self._versions = [v if j != shadow else 0 for j, v in enumerate(self._versions)]

    def _number(self, side: int) -> None:
        """A number for another model in this place: what was logged before is not its own."""
        self._born += 1
        self._numbers = [n if j != side else self._born for j, n in enumerate(self._numbers)]

    def roll_back(self, version: int | None = None) -> int:
        """Serve a version that was replaced, as it was then; the last one if none is named.

        What served is kept, and where its place is not taken it learns on in the shadow. The test
        begins anew. Labels of events from before are not for the version that is back: it did not
        answer them. Returns the version.
        Raises: ValueError where it is not kept.
        """
        kept = [v for v in self._kept if v != self.version]
        if not kept or version not in (None, *kept):
            raise ValueError(
                f"{type(self).__name__}: version must be one that is kept "
                f"({', '.join(map(str, kept)) or 'none yet'}), got {version!r}"
            )
        asked = kept[-1] if version is None else version
        side, taken = self._side_of(asked), self._frozen[asked].state()
        self._keep()
        self.members_[side].load(taken)
        self._number(side)
        self._serving, self.version = side, asked
        self._versions[side] = asked
        self.n_rollbacks += 1
        self._enter(_entry(asked, side, self.labels_, "by hand"))
        self._restart()
        self.detector.reset()
        return asked

    def _enter(self, entry: dict[str, Json]) -> None:
        """Add to the history; of one that is too long the first entry goes that nobody needs."""
        self.versions_ = [*self.versions_, entry]
        if len(self.versions_) <= _MOST_ENTRIES + self.keep:
            return
        last = {entry["version"]: place for place, entry in enumerate(self.versions_)}
        needed = {last[v] for v in (*self._kept, *self._versions, max(last)) if v in last}
        gone = next(place for place in range(len(self.versions_)) if place not in needed)
        self.versions_ = [e for place, e in enumerate(self.versions_) if place != gone]

    def _side_of(self, version: int) -> int:
        """Which of the members a version is of."""
        return int(next(e["model"] for e in reversed(self.versions_) if e["version"] == version))

    @property
    def negative_flips(self) -> int:
        """Rows on which the champion was right and the challenger wrong."""
        return int(self.flips_[0] + self.evidence_[NEGATIVE])

    @property
    def positive_flips(self) -> int:
        """Rows on which the challenger was right and the champion wrong."""
        return int(self.flips_[1] + self.evidence_[POSITIVE])

    # -- state -------------------------------------------------------------------------------------

    def _members(self) -> dict[str, Operator]:
        kept = {f"version {version}": model for version, model in self._frozen.items()}
        return super()._members() | {"detector": self.detector} | kept

    def snapshot(self) -> dict[str, Any]:
        """Snapshots of the members, and which versions are kept."""
        return super().snapshot() | {"_frozen": dict(self._frozen)}

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        name, table = type(self).__name__, state.table
        _checks.unchanged(name, table["parameters"], self._plain_parameters())
        sides = {entry["version"]: entry["model"] for entry in table["versions_"]}
        self._frozen = {
            version: self._shelved(self.members_[sides[version]].clone())
            for version in table["_kept"]
        }
        super().load(state)

    def reset(self) -> None:
        """Forget everything learnt, versions included; names of features and classes stay."""
        super().reset()
        self._begin()


def _shared(own: Columns, other: Columns) -> Columns:
    """What a model says that the other one says too: whoever serves, the columns stay the same."""
    always = ("prediction", "proba", "alarm", "why")
    return {name: column for name, column in own.items() if name in other or name in always}


def _entry(version: int, model: int, labels: int, how: str) -> dict[str, Json]:
    return {"version": version, "model": model, "labels": labels, "how": how}


class ChampionClassifier(_Champion, Classifier):
    """A classifier that is replaced only with evidence, by a challenger that learns beside it.

    Both answer every event and learn every label; the champion's answers are given. On each row
    that one of them has right and the other wrong, `bet` of a wealth is put on either side; a side
    whose wealth reaches 1/alpha is proved better, at any time, without a fixed number of rows: a
    challenger that is not better is promoted with probability <= alpha in each test. A promoted
    challenger is the champion, and the former one learns on in the shadow: if that is proved
    better, it is rolled back. A challenger that is proved worse is let go. After an alarm of the
    detector on the champion's error the test begins anew.

    Args:
        champion: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier.
        challenger: likewise; without one a fresh model like the champion, which begins anew where
            it is proved worse, and at an alarm.
        alpha: chance of a wrong promotion in one test, in (0, 1).
        bet: share of the wealth that is bet on one row, in (0, 1).
        detector: watches the champion's 0/1 error; default: ADWIN, calibrated to an alarm in 10,000
            rows without drift.
        keep: versions that were replaced and are kept as they were, for `roll_back`, >= 1.
    Attributes: `version` that serves, `versions_` (version, model, labels, how; the last 100 and
        those of versions that are kept), `n_promotions`,
        `n_rollbacks`, `n_rejected`, `negative_flips`, `positive_flips`.
    Outputs: those of the champion that the challenger gives, too (intervals and sets where both
        have them), `alarm` (n,) uint8, and `why` at a promotion, a rollback or an alarm.
    Cost: both models', the detector's, and a snapshot of both a block; a promotion runs the rows
        before it again (restore and rerun), so the cut of blocks never shows.
    Raises: ValueError for parameters that do not fit together.
    Reference: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by
        betting; flips: Schumann et al. (2023), Backward compatibility during data updates.
    >>> from streamlearn.operators import ChampionClassifier, KalmanClassifier
    >>> model = ChampionClassifier(KalmanClassifier(), KalmanClassifier(random_features=50))
    >>> model.learn_one({"a": 1.0}, "spam")
    >>> model.version
    1
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"champion": KalmanClassifier()}
        yield {
            "champion": MajorityClassifier(),
            "challenger": KalmanClassifier(),
            "alpha": 0.5,
            "bet": 0.5,
            "detector": ADWIN(),
        }


class ChampionRegressor(_Champion, Regressor):
    """A regressor that is replaced only with evidence. See `ChampionClassifier`.

    The difference of the absolute errors, divided by the mean one of the rows before and cut off at
    1, takes the place of right and wrong; `better` is about its mean.
    >>> from streamlearn.operators import ChampionRegressor, KalmanRegressor
    >>> model = ChampionRegressor(KalmanRegressor())
    >>> model.learn_one({"a": 1.0}, 2.0)
    >>> model.version
    1
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"champion": KalmanRegressor()}
