"""Prequential evaluation: how it went, measured in the same pass, beside the baselines."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from streamlearn.block import F8, I8, U1, Block, Columns, Vocabulary
from streamlearn.contracts import Json, State
from streamlearn.jit import metrics as jit
from streamlearn.operators import _checks

MAX_ALARMS = 1000  # row numbers kept; the count goes on
MAX_CLASSES = 1 << 20
TASKS = ("classification", "regression")

Reader = Callable[
    [F8, F8], float
]  # (sums of one contestant, its class table) -> value; NaN = undefined


def _accuracy(sums: F8, classes: F8) -> float:
    return 1.0 - _ratio(sums[jit.MISSES], sums[jit.WEIGHT])


def _kappa(sums: F8, classes: F8) -> float:
    """Cohen (1960): agreement above that of independent draws from both margins."""
    n = sums[jit.WEIGHT]
    chance = float(classes[:, jit.TRUE] @ classes[:, jit.PREDICTED])
    return 1.0 - _ratio(n * sums[jit.MISSES], n * n - chance)


def _kappa_t(sums: F8, classes: F8) -> float:
    """Zliobaite et al. (2015): accuracy above that of the no-change predictor on the same rows."""
    return 1.0 - _ratio(sums[jit.MISSES], sums[jit.CHANGES])


def _log_loss(sums: F8, classes: F8) -> float:
    return _ratio(sums[jit.LOSS], sums[jit.LOSS_WEIGHT])


def _mae(sums: F8, classes: F8) -> float:
    return _ratio(sums[jit.ABSOLUTE], sums[jit.WEIGHT])


def _rmse(sums: F8, classes: F8) -> float:
    return math.sqrt(_ratio(sums[jit.SQUARES], sums[jit.WEIGHT]))


def _r2(sums: F8, classes: F8) -> float:
    """1 - squared error / squared deviation from the mean of the same rows."""
    return 1.0 - _ratio(sums[jit.SQUARES], sums[jit.MOMENT])


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0.0 else math.nan


# the order here is the order everywhere; the first is the one of the progress line
METRICS: dict[str, dict[str, Reader]] = {
    "classification": {
        "accuracy": _accuracy,
        "kappa": _kappa,
        "kappa_t": _kappa_t,
        "log_loss": _log_loss,
    },
    "regression": {"mae": _mae, "rmse": _rmse, "r2": _r2},
}
BASELINES = {
    "classification": {"no_change": jit.NO_CHANGE, "majority": jit.COMMON},
    "regression": {"no_change": jit.NO_CHANGE, "mean": jit.COMMON},
}


class Evaluation:
    """Prequential metrics of one stream: cumulative, windowed and fading, beside baselines.

    A row is scored when it has PREDICT, a label and a finite prediction, in that order of time: the
    answer was given before the label was learnt. A row with a label to which nothing was answered
    (no class known yet, or refused by the model) is counted as `unanswered` and left out. Weights
    are not used. Baselines see every label that comes, and are measured on the rows on which the
    model is: `no_change` says the last label, `majority` the most frequent class so far
    (probabilities are the frequencies), `mean` the mean so far. They have nothing to say before the
    first label.

    Classification: `accuracy`; `kappa` (Cohen 1960); `kappa_t` (Zliobaite et al. 2015; a row before
    the first label is a miss of no-change); `log_loss`, the probability of the true class clipped
    to at least 1e-15, and that for a class unknown at that row; recall of each class. Regression:
    `mae`, `rmse`, `r2`. What is undefined (no row, one class only, constant target) is None.

    Block law: every number is bit-identical under any cut. Windowed numbers are computed anew from
    the last rows when asked, so nothing drifts; moments are centred.

    Args:
        task: "classification" or "regression".
        labels: the class table of y, for the names in the result; taken from the blocks if None.
        window: scored rows in the windowed metrics, >= 1; 56 bytes each.
        fading: factor f of the fading sums S = f S + loss, in (0, 1]; memory of 1/(1-f) rows.
    Cost: O(1) time a row, O(window + classes) memory.
    Raises: ValueError for an argument out of range, or a block that does not fit the task.
    Reference: Gama, Sebastiao, Rodrigues (2013), On evaluating stream learning algorithms.
    """

    def __init__(
        self,
        task: str,
        labels: Vocabulary | None = None,
        window: int = 1000,
        fading: float = 0.999,
    ) -> None:
        self.task = _checks.choice("Evaluation", "task", task, TASKS)
        self.window = _checks.whole("Evaluation", "window", window, least=1)
        self.fading = _checks.between("Evaluation", "fading", fading, 0.0, 1.0)
        if self.fading == 0.0:
            raise ValueError(f"Evaluation: fading must be > 0, got {fading!r}")
        self.labels = labels
        self.reset()

    def reset(self) -> None:
        """Forget everything measured; the class table stays."""
        # the unit stays below 1e100, whatever the factor
        renewal = 1024 if self.fading == 1.0 else int(-230.0 / math.log(self.fading))
        self._book = jit.Book(
            sums=np.zeros((2, 3, jit.N_TERMS)),
            classes=np.zeros((2, 3, 2, 3)),
            label_counts=np.zeros(2),
            recent=np.full((self.window, jit.ROW), math.nan),
            alarms=np.zeros(MAX_ALARMS, dtype=np.int64),
            counters=np.zeros(jit.N_COUNTERS, dtype=np.int64),
            memory=np.array([math.nan, 0.0, 0.0, 0.0, 1.0]),
            growth=1.0 / self.fading,
            renewal=min(max(renewal, 1), 1024),
        )

    # -- measuring ---------------------------------------------------------------------------------

    def update(self, block: Block, outputs: Columns) -> None:
        """Take a block and its outputs: `prediction` (n,); `proba` (n, K), `alarm` (n,) if any."""
        if "prediction" not in outputs:
            raise ValueError(
                f"Evaluation: outputs must have a column 'prediction', got {list(outputs)!r}; "
                f"end the pipeline with a model"
            )
        if block.y.ndim != 1:
            raise ValueError(f"Evaluation: y must have shape (n,), got {block.y.shape!r}")
        y, prediction = _plain(block.y), _plain(outputs["prediction"])
        alarm: U1 = outputs.get("alarm", _NO_ALARM)
        if self.task == "regression":
            jit.regression_run(y, block.mode, prediction, alarm, self._book)
            return
        if block.labels is not None:
            self.labels = block.labels  # a table that was loaded would not grow with the stream
        proba = _plain(outputs["proba"]) if "proba" in outputs else np.zeros((block.n, 0))
        at = 0
        while True:
            at = jit.classification_run(y, block.mode, prediction, proba, alarm, at, self._book)
            if at == block.n:
                return
            self._widen(max(y[at], np.nan_to_num(prediction[at], posinf=0.0)))

    def _widen(self, code: float) -> None:
        """Make room for a class code; tables double."""
        if code >= MAX_CLASSES:
            raise ValueError(
                f"Evaluation: y must be class codes below {MAX_CLASSES}, got {code:g}; "
                f'use task="regression" for a number'
            )
        room = max(int(code) + 1, 2 * self._book.label_counts.shape[0])
        self._book = self._book._replace(
            classes=_checks.padded(self._book.classes, (2, 3, room, 3)),
            label_counts=_checks.padded(self._book.label_counts, (room,)),
        )

    # -- reading -----------------------------------------------------------------------------------

    @property
    def scored(self) -> int:
        """Rows that the metrics are about."""
        return int(self._book.counters[jit.SCORED])

    @property
    def rolling(self) -> tuple[str, float | None]:
        """Name and windowed value of the first metric, for a progress line; some 30 us."""
        sums, classes = self._windowed()
        name, read = next(iter(METRICS[self.task].items()))
        return name, _json(read(sums[jit.MODEL], classes[jit.MODEL]))

    def result(self) -> dict[str, Json]:
        """Everything measured, as plain JSON: None for what is undefined.

        `metrics` (cumulative), `windowed`, `fading`: flat, by name. `baselines`: for each the same
        three, the cumulative ones flat. `per_class` (classification): by label, its scored rows and
        recalls. `alarms`: the last row numbers (from 0; at most 1,000), `n_alarms` all. `events`,
        `scored`, `unanswered`.
        """
        views = self._views()
        found = {name: self._read(view, jit.MODEL) for name, view in views.items()}
        counters = self._book.counters
        out: dict[str, Json] = {
            "task": self.task,
            "events": int(counters[jit.EVENTS]),
            "scored": self.scored,
            "unanswered": int(counters[jit.UNANSWERED]),
            "metrics": found["cumulative"],
            "windowed": found["windowed"],
            "fading": found["fading"],
            "baselines": {name: self._baseline(views, who) for name, who in self._baselines()},
        }
        if self.task == "classification":
            out["per_class"] = self._per_class(views)
        return out | {"alarms": self._alarms(), "n_alarms": int(counters[jit.ALARMS])}

    def _baselines(self) -> list[tuple[str, int]]:
        return list(BASELINES[self.task].items())

    def _views(self) -> dict[str, tuple[F8, F8]]:
        """Sums (3, terms) and class tables (3, K, 3) by view."""
        book = self._book
        return {
            "cumulative": (book.sums[jit.CUMULATIVE], book.classes[jit.CUMULATIVE]),
            "windowed": self._windowed(),
            "fading": (book.sums[jit.FADING], book.classes[jit.FADING]),
        }

    def _windowed(self) -> tuple[F8, F8]:
        sums = np.zeros((1, 3, jit.N_TERMS))
        classes = np.zeros((1, *self._book.classes.shape[1:]))
        n = min(self.scored, self.window)
        if self.task == "regression":
            jit.regression_window(self._book.recent, n, sums)
        else:
            jit.classification_window(self._book.recent, n, sums, classes)
        return sums[0], classes[0]

    def _read(self, view: tuple[F8, F8], who: int) -> dict[str, float | None]:
        sums, classes = view
        readers = METRICS[self.task].items()
        return {name: _json(read(sums[who], classes[who])) for name, read in readers}

    def _baseline(self, views: dict[str, tuple[F8, F8]], who: int) -> dict[str, Json]:
        found = {name: self._read(view, who) for name, view in views.items()}
        return found.pop("cumulative") | found

    def _per_class(self, views: dict[str, tuple[F8, F8]]) -> dict[str, Json]:
        out: dict[str, Json] = {}
        for k in range(int(self._book.counters[jit.CLASSES])):
            tables = {name: classes[jit.MODEL, k] for name, (_, classes) in views.items()}
            out[self._name(k)] = {
                "scored": int(tables["cumulative"][jit.TRUE]),
                "recall": _recall(tables["cumulative"]),
                "windowed_recall": _recall(tables["windowed"]),
                "fading_recall": _recall(tables["fading"]),
            }
        return out

    def _name(self, k: int) -> str:
        known = self.labels is not None and k < len(self.labels)
        return str(self.labels.values[k] if known and self.labels is not None else k)

    def _alarms(self) -> list[int]:
        """Row numbers of the last alarms, oldest first."""
        n, ring = int(self._book.counters[jit.ALARMS]), self._book.alarms
        return [int(ring[i % len(ring)]) for i in range(max(0, n - len(ring)), n)]

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything needed to go on bit-identically, as copies."""
        book, counters = self._book, self._book.counters
        known = int(counters[jit.CLASSES])
        arrays: dict[str, Any] = {
            "sums": book.sums,
            "classes": book.classes[:, :, :known],
            "label_counts": book.label_counts[:known],
            "recent": book.recent[: self.scored],
            "alarms": book.alarms[: int(counters[jit.ALARMS])],
            "counters": counters,
            "memory": book.memory,
        }
        labels = None if self.labels is None else list(self.labels.values)
        table = {"labels": labels, **self._settings()}
        return State({name: array.copy() for name, array in arrays.items()}, table)

    def _settings(self) -> dict[str, Json]:
        return {"task": self.task, "window": self.window, "fading": self.fading}

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; task, window and fading must be the same."""
        for name, value in self._settings().items():
            if state.table[name] != value:
                raise ValueError(
                    f"Evaluation: {name} must be {state.table[name]!r} as in the saved state, "
                    f"got {value!r}"
                )
        self.reset()
        known = state.arrays["label_counts"].shape[0]
        if known > self._book.label_counts.shape[0]:
            self._widen(known - 1)
        for name, array in state.arrays.items():
            own: F8 | I8 = getattr(self._book, name)
            own[tuple(slice(0, n) for n in array.shape)] = array
        names = state.table["labels"]
        if names is not None and (self.labels is None or len(self.labels) < len(names)):
            self.labels = Vocabulary(names)  # until a block brings the table of the stream


_NO_ALARM: U1 = np.zeros(0, dtype=np.uint8)


def _plain(array: Any) -> F8:
    """The array as the kernels take it: float64, contiguous, writeable; copied if it is not so."""
    if array.dtype == np.float64 and array.flags.carray:
        return array  # type: ignore[no-any-return]
    return np.array(array, dtype=np.float64, order="C")


def _recall(table: F8) -> float | None:
    return _json(_ratio(table[jit.HIT], table[jit.TRUE]))


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
