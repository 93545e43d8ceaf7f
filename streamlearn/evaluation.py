"""Prequential evaluation: how it went, measured in the same pass, beside the baselines."""

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streamlearn import waiting
from streamlearn.block import (
    B1,
    F8,
    I8,
    LEARN,
    NO_TIME,
    OBSERVE,
    PREDICT,
    Block,
    Columns,
    Vocabulary,
)
from streamlearn.booking import CONFUSED, SAMPLE, Booking
from streamlearn.connectors.alerts import of_drift
from streamlearn.contests import CONTESTS, Rows
from streamlearn.contracts import Json, State, merged
from streamlearn.event_log import EventLog, to_log
from streamlearn.fates import ASSUMED, EXPIRED_FATE, TOLD, Fates
from streamlearn.groups import Groups
from streamlearn.jit import metrics as jit
from streamlearn.metric_readers import (
    BASELINES,
    METRICS,
    View,
    f1,
    per_label,
    plain,
    plains,
    precision,
    ratio,
    read,
    read_all,
    recall,
)
from streamlearn.operators import _checks
from streamlearn.spill import Spill

__all__ = ["BASELINES", "MAX_ALARMS", "METRICS", "TASKS", "Evaluation"]

MAX_ALARMS = 1000  # events kept; the count goes on
TASKS = tuple(METRICS)
_EVENT = PREDICT | OBSERVE
_NO_KEYS: I8 = np.zeros(0, dtype=np.int64)


class Evaluation:
    """Prequential metrics of one stream: cumulative, windowed and fading, beside baselines.

    A row is scored when it has PREDICT, a label and a finite prediction, in that order of time: the
    answer was given before the label was learnt. A row with a label to which nothing was answered
    (no class known yet, or refused by the model) is counted as `unanswered` and left out. Weights
    are not used. Baselines see every label that comes, and are measured on the rows on which the
    model is: `no_change` says the last label, `majority` the most frequent class so far
    (probabilities are the frequencies), `mean` the mean so far. They have nothing to say before the
    first label.

    With `delayed`, what was said about a SCORED row waits for its LEARN row, and so does what the
    baselines said then; a row of mode 0 tells that no label will come. It is booked twice: by
    *label time*, when its label comes (the last `window` labels, fading by labels), which
    `windowed` and `fading` show; and by *scoring time* (the `window` latest events whose label has
    come, fading by events), as if labels were not late. Cumulative numbers are the same. A block
    with `groups` is measured by group as well; the windowed numbers of a group are about its rows
    in the window.

    Classification: `accuracy`; `balanced_accuracy`, the mean recall of the classes that occurred;
    `kappa` (Cohen 1960); `kappa_t` against no-change (Zliobaite et al. 2015; a row before the first
    label is a miss of no-change) and `kappa_m` against the majority class (Bifet et al. 2015);
    `log_loss`, the probability of the true class clipped to at least 1e-15, and that for a class
    unknown at that row; `brier`, half the sum of squares over the classes (Brier 1950); `ece`, the
    expected calibration error over 15 bins of the confidence in the predicted class (Guo et al.
    2017); `macro_f1`; `roc_auc` and `average_precision` of the positive class where there are two
    (the later in sort order unless `positive` says which), else the mean of one against the rest,
    up to 32 classes: windowed anew from the last rows, cumulative and fading as means of that value
    at every 1,000th row (Brzezinski and Stefanowski 2017), before the first as that value; of sets
    of classes (`set`, n x K) `set_coverage`, the share that holds the label, and mean `set_size`.
    Regression: `mae`, `rmse`, `r2`; `smape` in percent; `mase`, the error over that of the target
    `season` labels before on the same rows (Hyndman and Koehler 2006); of intervals (`lower` and
    `upper`, or the normal one of `variance`) `pinball` loss at both ends, `coverage` and `width`.
    Several labels a row: `exact_match`, `hamming_loss`, `micro_f1`, `macro_f1`, `jaccard` (1 where
    nothing is true nor said), `log_loss` and `brier`, means over the labels. Anomalies: `roc_auc`
    and `average_precision` of the column `score`, beside those of chance.
    What is undefined (no row, one class only, constant target) is None.

    Block law: every number is bit-identical under any cut. Windowed numbers are computed anew from
    the last rows when asked, so nothing drifts; moments are centred.

    Args:
        task: "classification", "regression", "multilabel" or "anomaly".
        labels: the class table of y, for the names in the result; taken from the blocks if None.
        window: scored rows in the windowed metrics, >= 1; some 300 bytes each.
        fading: factor f of the fading sums S = f S + loss, in (0, 1]; memory of 1/(1-f) rows.
        delayed: whether labels come later, in rows of their own.
        season: labels from one season to the next, for `mase`, >= 1.
        level: of the interval made of a variance, and of the pinball loss, in (0, 1).
        positive: label of the positive class, for the ranking metrics.
        max_groups: groups told apart, >= 1; the others together are "(other)".
        river: metrics of River, updated row by row in Python (some microseconds a row); their state
            is a pickle.
    Cost: O(1) time a row (O(K) with probabilities), O(window + 512 bins + groups K) memory.
    Raises: ValueError for an argument out of range, or a block that does not fit the task.
    Reference: Gama, Sebastiao, Rodrigues (2013), On evaluating stream learning algorithms.
    """

    def __init__(
        self,
        task: str,
        labels: Vocabulary | None = None,
        window: int = 1000,
        fading: float = 0.999,
        *,
        delayed: bool = False,
        season: int = 1,
        level: float = 0.9,
        positive: Any = None,
        max_groups: int = 100,
        river: Sequence[Any] = (),
    ) -> None:
        self.task = _checks.choice("Evaluation", "task", task, TASKS)
        self.window = _checks.whole("Evaluation", "window", window, least=1)
        self.fading = _checks.between("Evaluation", "fading", fading, 0.0, 1.0)
        if self.fading == 0.0:
            raise ValueError(f"Evaluation: fading must be > 0, got {fading!r}")
        self.delayed = _checks.truth("Evaluation", "delayed", delayed)
        self.season = _checks.whole("Evaluation", "season", season, least=1)
        self.level = _checks.between("Evaluation", "level", level, 0.0, 1.0)
        if self.level in (0.0, 1.0):
            raise ValueError(f"Evaluation: level must be in (0, 1), got {level!r}")
        self.positive = positive
        self.max_groups = _checks.whole("Evaluation", "max_groups", max_groups, least=1)
        self.labels = labels
        self._log = EventLog()
        self._fresh_river = copy.deepcopy(list(river))
        self.reset()

    def reset(self) -> None:
        """Forget everything measured; the class table stays."""
        self._contest = CONTESTS[self.task](self.season, self.level, self.positive)
        self._bookings: list[Booking] = []  # by label time; by scoring time where labels are late
        self._groups = Groups(self.max_groups)
        self._alarm_events: I8 = np.zeros(MAX_ALARMS, dtype=np.int64)
        self._events = self._n_alarms = self._n_swaps = self._unmatched = self._expired = 0
        self._log.load(EventLog().state())
        told = self.delayed and self.task in ("classification", "regression")
        self._fates = Fates(self.task) if told else None
        self._river: list[Any] = copy.deepcopy(self._fresh_river)
        if self.task != "multilabel":  # there the number of labels is not known yet
            self._bookings = self._fresh()

    def _fresh(self) -> list[Booking]:
        """Bookings in which nothing stands."""
        contest = self._contest
        return [
            Booking(contest.layout, self.window, self.fading, contest.add)
            for _ in range(1 + self.delayed)
        ]

    @property
    def needs_pickle(self) -> bool:
        """Whether the state holds a pickle: that of metrics of River."""
        return bool(self._river)

    # -- measuring ---------------------------------------------------------------------------------

    def update(self, block: Block, outputs: Columns) -> None:
        """Take a block and its outputs.

        `prediction` (n,), or (n, q) of several labels, or `score` (n,) of anomalies; if any,
        `proba` and `set` (n, K), `lower`, `upper`, `variance` and `alarm` (n,).
        """
        asked = "score" if self.task == "anomaly" else "prediction"
        if asked not in outputs:
            raise ValueError(
                f"Evaluation: outputs must have a column {asked!r}, got {list(outputs)!r}; "
                f"end the pipeline with a model"
            )
        if block.labels is not None:
            self.labels = block.labels  # a table that was loaded would not grow with the stream
        self._contest.labels = self.labels
        if not self.delayed or block.plain:
            self._update(block, outputs)
            return
        for start, stop, orderly in waiting.pieces(block, self._log.room):
            part = {name: column[start:stop] for name, column in outputs.items()}
            self._update(block.rows(start, stop), part, orderly)

    def _update(self, block: Block, outputs: Columns, orderly: bool = True) -> None:
        """Take rows; orderly: no label comes before the event that it is about is scored."""
        contest, y = self._contest, self._contest.targets(block)
        if not self._bookings:
            self._bookings = self._fresh()
        late = self.delayed and not block.plain
        waits = to_log(block) if late else None
        if waits is not None and waits.any():
            y = y.copy()
            y[waits] = np.nan  # what is said of it is hidden until it comes
        event = self._numbered(block)
        group = _NO_KEYS if block.groups is None else self._groups.codes(block.groups)
        heard = contest.hear(y, outputs, self.delayed)
        rows, key = Rows(y, block.mode, heard, event, group, _NO_KEYS), event
        if waits is not None:
            key = self._recall(block, waits, rows, orderly)
        elif self._fates is not None:
            self._settle(block, rows, np.zeros(block.n, dtype=np.bool_))
        self._book(rows, self._bookings[0])
        if self.delayed:
            again = Rows(y, rows.asked, rows.heard, key, _NO_KEYS, key)
            self._book(again, self._bookings[1])
        if self._river:
            self._update_river(rows)
        self._note_alarms(outputs, event)

    def _numbered(self, block: Block) -> I8:
        """For each row the number of the last event, from 0: its own where it is one."""
        first = self._events
        if block.plain:
            self._events += block.n
            return np.arange(first, first + block.n)
        own = (block.mode & _EVENT) != 0
        self._events += int(np.count_nonzero(own))
        event: I8 = np.maximum(first - 1 + np.cumsum(own), 0)
        return event

    def _recall(self, block: Block, waits: B1, rows: Rows, orderly: bool) -> I8:
        """Log what waits, and complete the rows that bring labels by what was said about them.

        Returns the number of the event that each row is about.
        """
        columns = rows.heard | {"event": rows.event.astype(np.float64)}
        if rows.group.shape[0]:
            columns["group"] = rows.group.astype(np.float64)
        come = np.equal(block.mode, LEARN)
        found, lost = waiting.exchange(self._log, block, waits, come, columns, orderly)
        held = found.held.get("event", np.zeros(block.n, dtype=np.bool_))
        expired = lost.held.get("event", np.zeros(block.n, dtype=np.bool_))
        rows.asked = np.where(waits, np.uint8(0), block.mode & PREDICT)
        for logged, at in ((found, held), (lost, expired)):
            if at.any():
                for name, column in columns.items():
                    columns[name] = waiting.filled(name, column, logged, at)
        if held.any():
            self._contest.recalled(rows.y, columns, held)
            rows.asked[held] = PREDICT
        key = columns.pop("event").astype(np.int64)
        if "group" in columns:
            rows.group = columns.pop("group").astype(np.int64)
        rows.heard = columns
        self._unmatched += int(np.count_nonzero(come & ~held))
        self._expired += int(np.count_nonzero(expired))
        if self._fates is not None:
            self._settle(block, rows, expired)
        return key

    def _settle(self, block: Block, rows: Rows, expired: B1) -> None:
        """Count the events whose label has come by these rows, or will not, by their fate."""
        assert self._fates is not None
        told = np.isfinite(rows.y) & (rows.asked & PREDICT != 0)
        if block.label_times is None or block.plain:
            fates = np.where(expired, EXPIRED_FATE, TOLD)
        else:  # a label that never became known was assumed
            came = (block.mode != LEARN) | (block.label_times != NO_TIME)
            fates = np.where(expired, EXPIRED_FATE, np.where(came, TOLD, ASSUMED))
        self._fates.add(fates, np.where(expired, np.nan, rows.y), rows.heard, told | expired)

    def _book(self, rows: Rows, booking: Booking) -> None:
        """All rows, through folds of the curve and samples of the ranking metrics."""
        contest = self._contest
        contest.make_room(booking, rows.heard)
        if rows.group.shape[0] and len(self._groups) > booking.groups:
            booking.make_room(groups=len(self._groups))
        at, n = 0, rows.y.shape[0]
        while at < n:
            before = booking.booked
            at = contest.book(rows, at, booking)
            after = booking.booked
            if booking.every and after > before and after % SAMPLE == 0:
                booking.sample(int(rows.event[at - 1]), contest.rank)
            elif at < n:
                booking.fold()

    def _note_alarms(self, outputs: Columns, event: I8) -> None:
        """Keep the events at which the detector fired; another model that serves is no drift."""
        alarm = outputs.get("alarm")
        if alarm is None or not np.count_nonzero(alarm):  # `any` takes 1 us of a lone event
            return
        drift = of_drift(outputs)
        self._n_swaps += int(np.count_nonzero(alarm)) - int(np.count_nonzero(drift))
        fired = event[drift != 0]
        if fired.shape[0]:
            self._n_alarms += fired.shape[0]
            kept = fired[-MAX_ALARMS:]
            self._alarm_events[(np.arange(-kept.shape[0], 0) + self._n_alarms) % MAX_ALARMS] = kept

    def _update_river(self, rows: Rows) -> None:
        """Row by row, as River does."""
        answer = rows.heard["prediction"]
        taken = np.isfinite(rows.y) & np.isfinite(answer) & (rows.asked & PREDICT != 0)
        names = _Names(self.labels)
        for t in np.flatnonzero(taken):
            y, said = rows.y[t].item(), answer[t].item()
            if self.task == "classification":
                y, said = names[int(y)], names[int(said)]
            for metric in self._river:
                if self.task == "classification" and not metric.requires_labels:
                    shares = enumerate(rows.heard["proba"][t].tolist())
                    metric.update(y, {names[k]: p for k, p in shares})
                else:
                    metric.update(y, said)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def scored(self) -> int:
        """Rows that the metrics are about."""
        return self._bookings[0].booked if self._bookings else 0

    @property
    def rolling(self) -> tuple[str, float | None]:
        """Name and windowed value of the first metric, for a progress line; some 100 us."""
        name, value = next(iter(METRICS[self.task].items()))
        if not self._bookings:
            return name, None
        rank = self._contest.rank if self.task == "anomaly" else None
        return name, plain(value(self._bookings[0].windowed(rank)[0], jit.MODEL))

    def standing(self) -> dict[str, Json]:
        """How it goes now: `scored`, `window`, `windowed` metrics, and those of each baseline.

        Cost: a millisecond or two, of sorting the scores of the window for the ranking metrics.
        """
        view, _ = (self._bookings or self._fresh())[0].windowed(self._contest.rank)
        whos = BASELINES[self.task].items()
        return {
            "scored": self.scored,
            "window": self.window,
            "windowed": read(self.task, view, jit.MODEL),
            "baselines": {name: read(self.task, view, who) for name, who in whos},
        }

    def metrics(self) -> dict[str, float | None]:
        """The cumulative metrics alone: a part of `result` that costs less."""
        if not self._bookings:
            return dict.fromkeys(METRICS[self.task])
        return read(self.task, self._bookings[0].cumulative(self._contest.rank), jit.MODEL)

    def result(self) -> dict[str, Json]:
        """Everything measured, as plain JSON: None for what is undefined.

        `metrics` (cumulative), `windowed`, `fading`: flat, by name. `baselines`: for each the same
        three, the cumulative ones flat. `per_class`: by label, its scored rows, recall, precision
        and F1. `calibration`: `edges` of the bins of confidence, and of each bin `n`, mean
        `confidence` and `accuracy`. `confusion`: `labels`, and `counts` by true and predicted class
        (up to 64). `by_group`: by name, `scored` rows and the three. `delayed`: `windowed` and
        `fading` by `label_time` and by `scoring_time`, events `pending`, labels `unmatched`, events
        `expired`, and `fates`: see `Fates`. `curve`, `label_curve`: see `curve`. `residuals`: label
        minus answer of the last rows. `river`: its metrics. `alarms`: the events (from 0; the last
        1,000) at which the detector fired, `n_alarms` all; `n_swaps`: how often a model was
        promoted or rolled back, which is no alarm. `events`, `scored`, `unanswered`. What
        the task does not have is None or empty.
        """
        bookings = self._bookings or self._fresh()
        booking, rank = bookings[0], self._contest.rank
        window, window_of = booking.windowed(rank)
        views = {
            "cumulative": booking.cumulative(rank),
            "windowed": window,
            "fading": booking.fading_view(rank),
        }
        found = {name: read(self.task, view, jit.MODEL) for name, view in views.items()}
        whos = BASELINES[self.task].items()
        out: dict[str, Json] = {
            "task": self.task,
            "events": self._events,
            "scored": self.scored,
            "unanswered": int(booking.book.counters[jit.UNANSWERED]),
            "metrics": found["cumulative"],
            "windowed": found["windowed"],
            "fading": found["fading"],
            "baselines": {name: self._baseline(views, who) for name, who in whos},
            "calibration": self._calibration(views["cumulative"]),
            "confusion": self._confusion(),
            "by_group": self._by_group(window_of),
            "delayed": self._delayed(found, bookings[1]) if self.delayed else None,
            "curve": self.curve(),
            "label_curve": self.curve("label") if self.delayed else None,
            "residuals": booking.residuals() if self.task == "regression" else None,
            "river": {type(metric).__name__: plain(metric.get()) for metric in self._river},
            "alarms": self._alarms(),
            "n_alarms": self._n_alarms,
            "n_swaps": self._n_swaps,
        }
        if self.task in ("classification", "multilabel"):
            out["per_class"] = self._per_class(views)
        return out

    def curve(self, booking: str = "scoring") -> dict[str, Json]:
        """Metrics over at most 512 stretches of equal width in events, as lists.

        `row`: last event of the stretch. `n`: rows scored. Then each metric that a stretch can
        give, and `baselines`: the same for each. booking: "scoring", by the event that a label is
        about, or "label", by the event after which it came; the same where labels are not late.
        """
        which = _checks.choice("Evaluation", "booking", booking, ("scoring", "label"))
        own = (self._bookings or self._fresh())[-1 if which == "scoring" else 0]
        last, view = own.bins(self._events)
        n = view.sums[:, jit.MODEL, jit.WEIGHT].astype(np.int64)
        out: dict[str, Json] = {"row": last.tolist(), "n": n.tolist()}
        out |= read_all(self.task, view, jit.MODEL)
        whos = BASELINES[self.task].items()
        return out | {"baselines": {name: read_all(self.task, view, who) for name, who in whos}}

    def _baseline(self, views: dict[str, View], who: int) -> dict[str, Json]:
        found: dict[str, Json] = {name: read(self.task, v, who) for name, v in views.items()}
        cumulative: dict[str, Json] = found.pop("cumulative")
        return cumulative | found

    def _per_class(self, views: dict[str, View]) -> dict[str, Json]:
        several = self.task == "multilabel"
        tables = {
            name: per_label(view, jit.MODEL) if several else _table(view)
            for name, view in views.items()
        }
        many = tables["cumulative"].shape[0] if several else self._contest.known
        out: dict[str, Json] = {}
        for k, name in enumerate(_Names(self.labels).shown(many)):
            out[name] = {"scored": int(tables["cumulative"][k, jit.TRUE])}
            for view, table in tables.items():
                prefix = "" if view == "cumulative" else f"{view}_"
                for metric, value in (("recall", recall), ("precision", precision), ("f1", f1)):
                    out[name][prefix + metric] = plain(value(table[k]))
        return out

    def _calibration(self, view: View) -> Json:
        if self.task != "classification" or view.trust is None:
            return None
        own = view.trust
        if not own[:, 0].any():
            return None
        return {
            "edges": [b / jit.N_BINS for b in range(jit.N_BINS + 1)],
            "n": own[:, 0].astype(np.int64).tolist(),
            "confidence": plains(ratio(own[:, 1], own[:, 0])),
            "accuracy": plains(ratio(own[:, 2], own[:, 0])),
        }

    def _confusion(self) -> Json:
        k = self._contest.known
        if self.task != "classification" or not 0 < k <= CONFUSED:
            return None
        counts = np.zeros((k, k), dtype=np.int64)
        own = self._bookings[0].book.confusion[:k, :k]
        counts[: own.shape[0], : own.shape[1]] = own
        return {"labels": _Names(self.labels).shown(k), "counts": counts.tolist()}

    def _by_group(self, window_of: Callable[[int], View]) -> dict[str, Json]:
        out: dict[str, Json] = {}
        for g, name in enumerate(self._groups.shown()):
            if g >= self._bookings[0].groups:
                continue  # no row of it was booked
            views = {
                "metrics": self._bookings[0].group(g, fading=False),
                "windowed": window_of(g),
                "fading": self._bookings[0].group(g, fading=True),
            }
            scored = int(views["metrics"].sums[jit.MODEL, jit.WEIGHT])
            if scored:
                found: dict[str, Json] = {n: read(self.task, v, 0) for n, v in views.items()}
                out[name] = {"scored": scored, **found.pop("metrics"), **found}
        return out

    def _delayed(
        self, found: dict[str, dict[str, float | None]], booking: Booking
    ) -> dict[str, Json]:
        rank = self._contest.rank
        views = {"windowed": booking.windowed(rank)[0], "fading": booking.fading_view(rank)}
        return {
            "label_time": {name: found[name] for name in views},
            "scoring_time": {n: read(self.task, v, jit.MODEL) for n, v in views.items()},
            "pending": len(self._log),
            "unmatched": self._unmatched,
            "expired": self._expired,
            "fates": None if self._fates is None else self._fates.result(),
        }

    def _alarms(self) -> list[int]:
        """The events of the last alarms, oldest first."""
        n = self._n_alarms
        last = np.arange(max(0, n - MAX_ALARMS), n) % MAX_ALARMS
        return [int(event) for event in self._alarm_events[last]]

    # -- state -------------------------------------------------------------------------------------

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Keep what waits for labels in this folder, above so many bytes."""
        self._log.spill_to(spill, memory)

    def state(self) -> State:
        """Everything needed to go on bit-identically, as copies."""
        known, groups, events = self._contest.known, len(self._groups), self._events
        members = {"contest": self._contest.state(), "log": self._log.state()}
        for i, booking in enumerate(self._bookings):
            members[f"booking{i}"] = booking.state(events, known, 0 if i else groups)
        alarms = self._alarm_events[: self._n_alarms].copy()
        if self._fates is not None:
            members["fates"] = self._fates.state()
        own = State({"alarms": alarms}, {"groups": self._groups.state()})
        if self._river:
            data = pickle.dumps(self._river, protocol=5)
            members["river"] = State({"pickle": np.frombuffer(data, dtype=np.uint8).copy()}, {})
        table = {
            "labels": None if self.labels is None else list(self.labels.values),
            "counts": [self._events, self._n_alarms, self._unmatched, self._expired],
            "swaps": self._n_swaps,
            "bookings": len(self._bookings),
            **self._settings(),
        }
        return merged(members | {"own": own}, table)

    def _settings(self) -> dict[str, Json]:
        """What a state and the evaluation that loads it must have in common."""
        names = ("task", "window", "fading", "delayed", "season", "level", "positive", "max_groups")
        river = [type(metric).__name__ for metric in self._river]
        return {name: getattr(self, name) for name in names} | {"river_metrics": river}

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; the settings must be the same.

        Metrics of River come out of their pickle: load only what you trust.
        """
        _checks.unchanged("Evaluation", state.table, self._settings())
        self.reset()
        counts = state.table["counts"]
        self._events, self._n_alarms, self._unmatched, self._expired = counts
        self._n_swaps = state.table.get("swaps", 0)
        self._contest.load(state.under("contest"))
        self._log.load(state.under("log"))
        if self._fates is not None:
            self._fates.load(state.under("fates"))
        self._groups.load(state.under("own").table["groups"])
        alarms = state.under("own").arrays["alarms"]
        self._alarm_events[: alarms.shape[0]] = alarms
        if state.table["bookings"]:
            self._bookings = self._fresh()
            for i, booking in enumerate(self._bookings):
                booking.load(state.under(f"booking{i}"))
        if self._river:
            self._river = pickle.loads(state.under("river").arrays["pickle"].tobytes())  # noqa: S301
        names = state.table["labels"]
        if names is not None and (self.labels is None or len(self.labels) < len(names)):
            self.labels = Vocabulary(names)  # until a block brings the table of the stream
        self._contest.labels = self.labels


class _Names:
    """Names of the classes; a code that the table does not know stands for itself."""

    def __init__(self, labels: Vocabulary | None) -> None:
        self._values = [] if labels is None else labels.values

    def __getitem__(self, k: int) -> Any:
        return self._values[k] if k < len(self._values) else k

    def shown(self, n: int) -> list[str]:
        """The first n as text."""
        return [str(self[k]) for k in range(n)]


def _table(view: View) -> F8:
    """The class table (K, 3) of the model."""
    assert view.classes is not None  # only bins of a curve go without
    own: F8 = view.classes[jit.MODEL]
    return own
