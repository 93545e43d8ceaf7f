"""For tests of your own operators: blocks by hand, hard streams, and every law as a check.

`check_operator(MyOperator)` walks hard random streams through an operator and raises an
`AssertionError` that names the law it broke. The checks need no test framework; the project's own
suite feeds the same checks from hypothesis.

>>> from streamlearn.operators import MeanRegressor
>>> check_operator(MeanRegressor)["blocks"]
10
"""

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import (
    B1,
    BOOLEAN,
    CATEGORY,
    EXPIRED,
    F8,
    I8,
    LABELLED,
    LEARN,
    NUMBER,
    OBSERVE,
    PREDICT,
    SCORED,
    U1,
    UNSCORED,
    Block,
    Columns,
    Csr,
    Features,
    Logged,
    Vocabulary,
    concatenate,
)
from streamlearn.contracts import Batch, Positions, State
from streamlearn.operators._base import Detector, Operator, Transformer
from streamlearn.pipeline import Pipeline

Make = Callable[[], Operator]
CLASSIFICATION, REGRESSION = "classification", "regression"

# -- blocks by hand --------------------------------------------------------------------------------


def labelled(X: Any, y: Any, task: str = REGRESSION, weight: Any = None) -> Block:
    """A block of labelled rows (mode 7) with features x0, x1, ….

    X: (n, d). y: (n,) or (n, q) targets; for task="classification" labels of any kind, whose codes
    follow their first appearance. weight: (n,), 1 where not given.
    """
    return block_of(X, y, task=task, weight=weight)


def block_of(
    X: Any,
    y: Any = None,
    *,
    task: str = REGRESSION,
    weight: Any = None,
    mode: Any = LABELLED,
    names: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    categories: dict[str, Vocabulary] | None = None,
    labels: Vocabulary | None = None,
    ids: Any = None,
) -> Block:
    """A block from whatever numpy takes; what is not given has the plainest value there is.

    X: (n, d), NaN is missing. y: targets or labels, missing where not given. mode: one for all rows
    or (n,). names: x0, x1, … if not given. kinds: numbers if not given. ids: (n,) or None.
    """
    dense = np.ascontiguousarray(X, dtype=np.float64)
    n, d = dense.shape
    if task == CLASSIFICATION:
        labels = Vocabulary() if labels is None else labels
        y = None if y is None else [_code(label, labels) for label in np.asarray(y).tolist()]
    target = np.full(n, np.nan) if y is None else np.ascontiguousarray(y, dtype=np.float64)
    features = Features(names or [f"x{j}" for j in range(d)], kinds, categories)
    modes = np.full(n, mode, dtype=np.uint8)
    weights = np.ones(n) if weight is None else np.ascontiguousarray(weight, dtype=np.float64)
    keys = None if ids is None else np.asarray(ids)
    return Block(dense, target, weights, modes, features, labels, ids=keys)


def _code(label: Any, labels: Vocabulary) -> float:
    missing = label is None or (isinstance(label, float) and math.isnan(label))
    return math.nan if missing else float(labels.code(label))


# -- hard streams ----------------------------------------------------------------------------------

NUMBERS = ("normal", "missing", "constant", "offset", "huge", "boolean")
KINDS = (*NUMBERS, CATEGORY, "missing category")
MODES = ("labelled", "mixed", "delayed", "late")


class Plan(NamedTuple):
    """What `Stream.from_plan` makes; the same plan gives the same stream.

    rows: rows of each segment. columns: kinds (of `KINDS`) of the columns that come with each
    segment. modes: "labelled" (all 7), "mixed" (all eight), "delayed" (ids; scored, then learnt),
    "late" (numbers; of each row a label at once, up to 100 rows later, never, or given up).
    """

    task: str = CLASSIFICATION
    rows: tuple[int, ...] = (60,)
    columns: tuple[tuple[str, ...], ...] = (("normal", "normal"),)
    modes: str = "labelled"
    weighted: bool = False
    gaps: bool = False  # NaN labels
    infinities: bool = False
    repeats: bool = False
    sparse: bool = False  # three sparse columns beside the dense ones
    n_classes: int = 3
    seed: int = 0
    keys: int = 0  # how many; 0: rows have none


class Stream:
    """Rows whose features, categories and classes appear on the way, as a schema hands them out.

    The tables of a block hold what has appeared up to its last row, and not more: an operator that
    looks ahead into a table is found out.

    X: (n, d). y, weight, mode: (n,). ids: (n,) or None. first: (d,), the row a column appears at.
    sparse: None or (n, w), handed out as CSR. events: None or (n,), the number of the event. keys:
    None or (n,).
    """

    sparse: F8 | None = None
    events: I8 | None = None
    keys: NDArray[Any] | None = None

    def __init__(
        self, X: F8, y: F8, weight: F8, mode: U1, kinds: Sequence[str], first: I8, task: str,
        ids: I8 | None = None, names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.X, self.y, self.weight, self.mode, self.ids = X, y, weight, mode, ids
        self.kinds, self.first, self.task = tuple(kinds), first, task
        self.names = tuple(names or [f"x{j}" for j in range(X.shape[1])])

    @classmethod
    def from_plan(cls, plan: Plan) -> "Stream":
        """A stream as planned, with a change of concept in the middle."""
        rng = np.random.default_rng(plan.seed)
        n = sum(plan.rows)
        starts = np.cumsum([0, *plan.rows[:-1]])
        kinds = [kind for added in plan.columns for kind in added]
        first = np.repeat(starts, [len(added) for added in plan.columns])
        X = np.column_stack([_column(rng, kind, n) for kind in kinds])
        y = _targets(rng, plan, np.arange(n) < n // 2)
        if plan.repeats:
            _repeat_rows(rng, X, y)
        if plan.infinities:
            X[rng.random(n) < 0.05, 0] = np.inf
        X[np.arange(n)[:, None] < first[None, :]] = np.nan
        mode, ids = _modes(rng, plan.modes, n)
        y[(mode & LEARN == 0) & (rng.random(n) < 0.5)] = np.nan
        if plan.gaps:
            y[rng.random(n) < 0.15] = np.nan
        weight = rng.choice([0.0, 0.5, 1.0, 2.0], n) if plan.weighted else np.ones(n)
        plain = {BOOLEAN: BOOLEAN, CATEGORY: CATEGORY, "missing category": CATEGORY}
        kinds = [plain.get(kind, NUMBER) for kind in kinds]
        y = _in_order_of_appearance(y) if plan.task == CLASSIFICATION else y
        for j in [j for j, kind in enumerate(kinds) if kind == CATEGORY]:
            X[:, j] = _in_order_of_appearance(X[:, j])
        made = cls(X, y, weight, mode, kinds, first, plan.task, ids)
        if plan.keys:
            made.keys = np.random.default_rng([plan.seed, 1]).integers(-1, plan.keys - 1, n)
        if plan.sparse:
            made.sparse = np.where(rng.random((n, 3)) < 0.4, rng.normal(size=(n, 3)), 0.0)
        if plan.modes == "late":
            fates = rng.choice([LEARN, LEARN, LEARN, LABELLED, SCORED, EXPIRED], n)
            return made.late(rng.choice([0, 0, 1, 2, 5, 12, 100], n), fates)
        return made

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    def changed(self, **columns: Any) -> "Stream":
        """This stream with some of its columns exchanged."""
        new = copy.copy(self)
        for name, value in columns.items():
            setattr(new, name, value)
        return new

    def late(self, delay: Any, fate: Any = LEARN) -> "Stream":
        """This stream with labels that come late, in rows of their own, joined by `events`.

        delay: rows, one for all or (n,): the label of row i comes right after row i + delay, before
        the next; what is outstanding at the end follows in order of due row, then number. fate: one
        for all or (n,): LEARN, LABELLED (the label comes with the row), EXPIRED (none comes, which
        is told when the label was due) or SCORED (none comes, which is known at once). Rows that
        tell of a label hold no features; classes get their codes in the order in which they arrive.
        """
        fates = np.broadcast_to(np.asarray(fate, dtype=np.uint8), (self.n,))
        due = np.arange(self.n) + np.broadcast_to(np.asarray(delay), (self.n,))
        events = [(t, 0, t) for t in range(self.n)]
        told = [(int(due[t]), 1, t) for t in range(self.n) if fates[t] in (LEARN, EXPIRED)]
        order = sorted(events + told)
        rows = np.array([t for *_, t in order], dtype=np.int64)
        brings = np.array([kind == 1 for _, kind, _ in order])
        whole = np.where(fates == LABELLED, LABELLED, SCORED).astype(np.uint8)
        mode = np.where(brings, fates[rows], whole[rows]).astype(np.uint8)
        y = np.where(mode & LEARN != 0, self.y[rows], np.nan)
        at = np.flatnonzero(~brings)  # where each event stands now
        new = self.changed(
            X=np.where(brings[:, None], np.nan, self.X[rows]),
            y=_in_order_of_appearance(y) if self.task == CLASSIFICATION else y,
            weight=self.weight[rows],
            mode=mode,
            first=np.where(self.first < self.n, at[np.minimum(self.first, self.n - 1)], rows.size),
            events=np.where(fates == SCORED, -1, np.arange(self.n))[rows],
        )
        if self.sparse is not None:
            new.sparse = np.where(brings[:, None], 0.0, self.sparse[rows])
        if self.keys is not None:
            new.keys = self.keys[rows]
        return new

    def blocks(self, cuts: Iterable[int] = (), skip: int = 0) -> Iterator[Block]:
        """The rows from `skip` on, cut before the rows in cuts and where new features appear."""
        ends = sorted({*cuts, *self.first.tolist(), self.n, skip})
        features, labels, start = Features(()), Vocabulary(), 0
        for end in [end for end in ends if 0 < end <= self.n]:
            new = [j for j in range(len(features), len(self.names)) if self.first[j] <= start]
            if new:
                features = features.plus([self.names[j] for j in new], [self.kinds[j] for j in new])
            self._append(features, labels, end)
            if start >= skip:
                yield self._block(start, end, features, labels)
            start = end

    def _append(self, features: Features, labels: Vocabulary, end: int) -> None:
        """Let the tables know what the rows before end hold."""
        for j, name in enumerate(features.names):
            if self.kinds[j] == CATEGORY:
                for code in range(_known(self.X[:end, j])):
                    features.categories[name].code(f"{name} is {code}")
        if self.task == CLASSIFICATION:
            for code in range(_known(self.y[:end])):
                labels.code(_LETTERS[code] if code < len(_LETTERS) else f"class {code}")

    def _block(self, start: int, end: int, features: Features, labels: Vocabulary) -> Block:
        rows = slice(start, end)
        X = np.array(self.X[rows, : len(features)], order="C")  # a copy: operators may not write
        return Block(
            X, self.y[rows].copy(), self.weight[rows].copy(), self.mode[rows].copy(), features,
            labels if self.task == CLASSIFICATION else None,
            ids=None if self.ids is None else self.ids[rows].copy(),
            sparse=None if self.sparse is None else _csr(self.sparse[rows]),
            events=None if self.events is None else self.events[rows].copy(),
            keys=None if self.keys is None else self.keys[rows].copy(),
        )  # fmt: skip


_LETTERS = "abcdefgh"


def _csr(dense: F8) -> Csr:
    """The elements that are not 0, row by row."""
    t, j = np.nonzero(dense)
    ends = np.cumsum(np.bincount(t, minlength=dense.shape[0]), dtype=np.int64)
    return Csr(dense[t, j], j.astype(np.int64), np.concatenate([[0], ends]), dense.shape[1])


def _known(codes: F8) -> int:
    """1 + the largest code."""
    present = codes[np.isfinite(codes)]
    return int(present.max()) + 1 if present.size else 0


def _in_order_of_appearance(codes: F8) -> F8:
    """The same column with codes that appear in the order 0, 1, 2, …; NaN stays."""
    table = Vocabulary()
    return np.array([code if math.isnan(code) else float(table.code(code)) for code in codes])


def _column(rng: np.random.Generator, kind: str, n: int) -> F8:
    values = rng.normal(size=n)
    if kind == "missing":
        values[rng.random(n) < 0.4] = np.nan
    elif kind == "constant":
        values[:] = 3.7
    elif kind == "offset":
        values += 1e8
    elif kind == "huge":
        values[rng.random(n) < 0.05] *= 1e300
    elif kind == "boolean":
        values = (values > 0).astype(np.float64)
    elif kind.endswith(CATEGORY):
        values = np.minimum(rng.geometric(0.3, n), 2 + np.arange(n) // 10).astype(np.float64)
        if kind != CATEGORY:
            values[rng.random(n) < 0.2] = np.nan
    return values


def _targets(rng: np.random.Generator, plan: Plan, before: B1) -> F8:
    """Targets that change their concept in the middle; classes come one after the other."""
    n = before.shape[0]
    base = rng.normal(size=n)
    if plan.task == REGRESSION:
        return np.asarray(np.where(before, base, 10.0 + base) + (1e8 if plan.repeats else 0.0))
    there = 2 + (np.arange(n) * max(plan.n_classes - 1, 0)) // max(n, 1)
    codes = np.floor(rng.random(n) * np.minimum(there, plan.n_classes))
    settled = rng.random(n) < 0.85
    return np.where(settled, np.where(before, 0.0, float(plan.n_classes - 1)), codes)


def _repeat_rows(rng: np.random.Generator, X: F8, y: F8) -> None:
    for t in np.flatnonzero(rng.random(X.shape[0]) < 0.25):
        if t:
            X[t], y[t] = X[t - 1], y[t - 1]


def _modes(rng: np.random.Generator, name: str, n: int) -> tuple[U1, I8 | None]:
    if name in ("labelled", "late"):
        return np.full(n, LABELLED, dtype=np.uint8), None
    if name == "mixed":
        often = [LABELLED, LABELLED, SCORED, UNSCORED, LEARN, PREDICT]
        return rng.choice([*often, *range(8)], n).astype(np.uint8), None
    mode = rng.choice([SCORED, SCORED, LEARN, LEARN, LABELLED], n).astype(np.uint8)
    ids = np.arange(n)
    late = mode == LEARN  # a label for one of the last events; some twice, some for none
    ids[late] = np.maximum(ids - rng.integers(1, 12, n), 0)[late]
    return mode, ids


# -- a source in memory ----------------------------------------------------------------------------


class SettableClock:
    """A clock that stands until it is told: call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.now += seconds


class Mark(Enum):
    """What a `ListSource` does between its blocks."""

    PAUSE = "one poll waits in vain"
    ABORT = "one poll raises Aborted, once in the life of the source: a crash"
    EOF = "finished, until it is opened again"


class Aborted(Exception):
    """The crash that `Mark.ABORT` stands for."""


class ListSource:
    """Blocks of a list, with marks between them.

    Guarantee: opened at a position, it gives every row from there on, in order, once. Positions are
    rows from the start, under "list". Nothing is read in advance; nothing is kept after `close`.

    Args:
        items: blocks and marks, in order; after the last the source is finished.
        clock: is put forward by max_wait where a poll waits in vain.
    """

    guarantee = "every row from the position on, in order, once"

    def __init__(self, items: Iterable[Block | Mark], clock: SettableClock | None = None) -> None:
        self._items = list(items)
        self._clock = clock or SettableClock()
        self._done: set[int] = set()  # marks that have had their effect, by place
        self._row, self._stopped = 0, False

    def open(self, positions: Positions) -> None:
        """Go to these positions; an empty dict means the beginning."""
        self._row, self._stopped = int(positions.get("list", 0)), False

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """Rows of one block, at most max_events; None at a pause and at the end."""
        start = 0
        for place, item in enumerate(self._items):
            if isinstance(item, Block):
                if self._row < start + item.n:
                    return self._rows(item, start, max_events)
                start += item.n
            elif self._row == start and place not in self._done:
                self._done.add(place)
                self._at_mark(item, max_wait)
                return None
        self._stopped = True
        return None

    def _rows(self, block: Block, start: int, max_events: int) -> Batch:
        first = self._row - start
        rows = block.rows(first, min(first + max_events, block.n))
        self._row += rows.n
        return Batch(rows, [], {"list": self._row})

    def _at_mark(self, mark: Mark, max_wait: float) -> None:
        if mark is Mark.ABORT:
            raise Aborted(f"at row {self._row}")
        if mark is Mark.EOF:
            self._stopped = True
        else:
            self._clock.sleep(max_wait)

    @property
    def finished(self) -> bool:
        """True at EOF and after the last item."""
        rows = sum(item.n for item in self._items if isinstance(item, Block))
        left = any(
            isinstance(item, Mark) and place not in self._done
            for place, item in enumerate(self._items)
        )
        return self._stopped or (self._row >= rows and not left)

    def close(self) -> None:
        """Nothing is held; may be called twice."""


# -- running and comparing -------------------------------------------------------------------------


def cut(block: Block, cuts: Iterable[int]) -> list[Block]:
    """The block in pieces that end before these rows, in order and each once."""
    ends = sorted({row for row in cuts if 0 < row < block.n})
    return [block.rows(a, b) for a, b in pairwise([0, *ends, block.n])]


def run_in_cuts(operator: Operator, blocks: Iterable[Block]) -> Columns:
    """The outputs over consecutive blocks as those over one; transformers cut where they widen."""
    parts, lengths = [], []
    for block in blocks:
        for piece in operator.pieces(block):
            parts.append(operator.run(piece))
            lengths.append(piece.n)
    return concatenate(parts, lengths)


def assert_same_bits(one: Columns, other: Columns, owner: str = "outputs") -> None:
    """Outputs of two runs over the same rows must be equal: exactly, with NaN equal to NaN.

    A class that one run does not know of has probability 0 there; where nothing was answered
    (`prediction` is NaN), probabilities say nothing and are not compared.
    """
    assert sorted(one) == sorted(other), f"{owner}: columns {sorted(one)} against {sorted(other)}"
    silent = np.isnan(one["prediction"]) if "prediction" in one else None
    for name, column in one.items():
        first, second = _padded_alike(name, column, other[name])
        assert first.dtype == second.dtype, f"{owner}: {name} is {first.dtype} and {second.dtype}"
        equal = _equal(first, second)
        same = np.asarray(equal.all(axis=tuple(range(1, equal.ndim))))
        if name.endswith("proba") and silent is not None and silent.ndim == 1:
            same |= silent
        if not same.all():
            t = int(np.flatnonzero(~same)[0])
            raise AssertionError(f"{owner}: {name} differs at row {t}: {first[t]} and {second[t]}")


def _padded_alike(
    name: str, one: NDArray[Any], other: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as wide as the wider: classes, in probabilities or sets, with 0, else NaN."""
    if one.shape == other.shape or one.ndim != other.ndim or one.ndim < 2:
        return one, other
    width = max(one.shape[1], other.shape[1])
    fill = 0.0 if name.endswith("proba") or one.dtype.kind != "f" else np.nan
    out = [np.full((a.shape[0], width, *a.shape[2:]), fill, a.dtype) for a in (one, other)]
    for wide, narrow in zip(out, (one, other), strict=True):
        wide[:, : narrow.shape[1]] = narrow
    return out[0], out[1]


def bits(array: NDArray[Any]) -> bytes:
    """What an array holds, as bytes that any process gives; objects as Python shows them."""
    if array.dtype.kind == "O":
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).tobytes()


def _equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    if one.shape != other.shape:
        return np.zeros((one.shape[0], 1), dtype=np.bool_)
    if one.dtype.kind != "f":
        return np.asarray(one == other)
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))


def assert_same_state(one: State, other: State, owner: str = "state") -> None:
    """Two states must be equal: names, dtypes, shapes, every element, and the table as JSON."""
    assert sorted(one.arrays) == sorted(other.arrays), f"{owner}: other arrays"
    for name, array in one.arrays.items():
        first, second = _comparable(name, array), _comparable(name, other.arrays[name])
        alike = (first.dtype, first.shape) == (second.dtype, second.shape)
        assert alike, f"{owner}: {name} is {first.dtype}{first.shape}, {second.dtype}{second.shape}"
        same = _equal(first, second)
        assert same.all(), (
            f"{owner}: {name} differs in {int((~same).sum())} of {same.size} elements"
        )
    first_table, second_table = _json(one.table, owner), _json(other.table, owner)
    if first_table != second_table:
        raise AssertionError(f"{owner}: tables differ: {first_table} and {second_table}")


def _json(table: Any, owner: str) -> str:
    try:
        return json.dumps(table, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{owner}: the table must be plain JSON: {error}") from None


def _comparable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A foreign stage's pickle as its values, without the traces of which equal objects are one."""
    if name.rpartition("/")[2] != "pickle":
        return array
    values = _values(pickle.loads(array.tobytes()), ())  # noqa: S301  # a test's own operator made it
    return np.frombuffer(values.encode(), dtype=np.uint8)


def _values(thing: Any, above: tuple[int, ...]) -> str:
    """An object and all that hangs on it as text; one that is inside itself as its depth."""
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes)):
        return repr(thing)
    if isinstance(thing, (type, FunctionType, BuiltinFunctionType)):
        return f"{thing.__module__}.{thing.__qualname__}"
    if id(thing) in above:
        return f"<{above.index(id(thing))}>"
    inside = (*above, id(thing))
    if isinstance(thing, np.ndarray) and thing.dtype.kind != "O":
        return f"{thing.dtype}{thing.tolist()!r}"
    if isinstance(thing, dict):
        pairs = (f"{_values(k, inside)}: {_values(v, inside)}" for k, v in thing.items())
        return f"{type(thing).__name__}({', '.join(pairs)})"
    if isinstance(thing, (list, tuple, set, frozenset)):
        parts = [_values(part, inside) for part in thing]
        ordered = parts if isinstance(thing, (list, tuple)) else sorted(parts)
        return f"{type(thing).__name__}({', '.join(ordered)})"
    reduced = thing.__reduce_ex__(4)
    if isinstance(reduced, str):
        return reduced
    items = [list(part) if isinstance(part, Iterator) else part for part in reduced]
    return f"{type(thing).__qualname__}({', '.join(_values(part, inside) for part in items)})"


def through_json(state: State) -> State:
    """The state as a checkpoint gives it back: new arrays, the table from its JSON text."""
    return State({k: a.copy() for k, a in state.arrays.items()}, json.loads(_json(state.table, "")))


# -- the laws --------------------------------------------------------------------------------------


def check_block_law(make: Make, stream: Stream, cuts: Sequence[int]) -> None:
    """Outputs and state are the same bits whole, in these cuts, and row by row."""
    whole = make()
    expected = run_in_cuts(whole, stream.blocks())
    for name, ends in (("cuts", cuts), ("rows", range(stream.n))):
        other = make()
        owner = f"{type(whole).__name__}, in {name}"
        assert_same_bits(expected, run_in_cuts(other, stream.blocks(ends)), owner)
        assert_same_state(whole.state(), other.state(), owner)


def check_resume(make: Make, stream: Stream, cut: int) -> None:
    """A fresh operator that loads a state goes on as the one that gave it; the state is a copy."""
    before, after, going = _halves(stream, cut)
    first = make()
    run_in_cuts(first, before)
    state = first.state()
    kept = through_json(state)
    second = make()
    second.load(through_json(state))
    owner = f"{type(first).__name__}, resumed"
    assert_same_state(kept, second.state(), owner)
    assert_same_bits(run_in_cuts(first, going), run_in_cuts(second, after), owner)
    assert_same_state(first.state(), second.state(), owner)
    assert_same_state(kept, state, f"{type(first).__name__}: a state taken before")


def _halves(stream: Stream, cut: int) -> tuple[list[Block], list[Block], list[Block]]:
    """Blocks before the cut, and twice those after it: with tables of their own, and the same."""
    going = list(stream.blocks([cut]))
    before = [block for block, end in zip(going, _ends(going), strict=True) if end <= cut]
    return before, list(stream.blocks([cut], skip=cut)), going[len(before) :]


def _ends(blocks: Sequence[Block]) -> list[int]:
    return [int(end) for end in np.cumsum([block.n for block in blocks])]


def check_predict_changes_nothing(make: Make, stream: Stream) -> None:
    """Rows that only ask leave the state as it was, and whether rows ask does not matter to it."""
    operator = make()
    run_in_cuts(operator, stream.blocks())
    before = operator.state()
    last = list(stream.blocks())[-1]
    asks = last.replace(mode=np.full(last.n, PREDICT, dtype=np.uint8), ids=None, events=None)
    run_in_cuts(operator, [asks])
    owner = f"{type(operator).__name__}, asked"
    assert_same_state(before, operator.state(), owner)
    if stream.ids is None and stream.events is None:
        silent = make()
        quiet = stream.changed(mode=stream.mode & np.uint8(LEARN | OBSERVE))
        run_in_cuts(silent, quiet.blocks())
        assert_same_state(before, silent.state(), f"{type(operator).__name__}, not asked")


def check_snapshot(make: Make, stream: Stream, cut: int) -> None:
    """Restoring a snapshot goes on from where it was taken, after more rows and after a reset."""
    before, _, after = _halves(stream, cut)
    operator = make()
    run_in_cuts(operator, before)
    taken, state = operator.snapshot(), operator.state()
    expected = run_in_cuts(operator, after)
    final = operator.state()
    last = [*before, *after][-1]
    first = _last_width([*before, *after][0], last)
    for since in ("more rows", "a reset"):
        owner = f"{type(operator).__name__}, restored after {since}"
        if since == "a reset":  # scratch as wide as a few rows of a new stream want it
            operator.reset()
            run_in_cuts(operator, [first.rows(0, 2)])
        operator.restore(taken)
        assert_same_state(state, operator.state(), owner)
        assert_same_bits(expected, run_in_cuts(operator, after), owner)
        assert_same_state(final, operator.state(), owner)


def check_clone_is_independent(make: Make, stream: Stream) -> None:
    """A clone is untrained and shares nothing; neither does a deep copy of a trained operator."""
    operator, fresh = make(), make().state()
    run_in_cuts(operator, stream.blocks())
    trained = operator.state()
    name = type(operator).__name__
    clone, twin = operator.clone(), copy.deepcopy(operator)
    assert_same_state(fresh, clone.state(), f"{name}: a clone, untrained")
    run_in_cuts(clone, stream.blocks())
    assert_same_state(trained, clone.state(), f"{name}: a clone, trained alike")
    blocks = list(stream.blocks())
    run_in_cuts(twin, [_last_width(block, blocks[-1]) for block in blocks])
    assert_same_state(trained, operator.state(), f"{name}: after its copies learnt")


def check_reset(make: Make, stream: Stream) -> None:
    """After `reset` an operator learns as a new one does.

    stream: without categories, whose columns stay as names of features do.
    """
    operator, fresh = make(), make()
    expected = run_in_cuts(fresh, stream.blocks())
    run_in_cuts(operator, stream.blocks())
    operator.reset()
    owner = f"{type(operator).__name__}, reset"
    assert_same_bits(expected, run_in_cuts(operator, stream.blocks()), owner)
    assert_same_state(fresh.state(), operator.state(), owner)


def check_same_seed_same_bits(make: Make, stream: Stream) -> None:
    """Two operators with the same parameters do the same."""
    one, other = make(), make()
    owner = f"{type(one).__name__}, built twice"
    assert_same_bits(run_in_cuts(one, stream.blocks()), run_in_cuts(other, stream.blocks()), owner)
    assert_same_state(one.state(), other.state(), owner)


def check_feature_order(make: Make, stream: Stream, rtol: float = 1e-6, atol: float = 1e-8) -> None:
    """The order of features makes no difference beyond rounding (rtol, atol), names being equal.

    Detectors, which watch the first column, are exempt.
    """
    if issubclass(type(make()), Detector):
        return
    order = np.lexsort((-np.arange(len(stream.names)), stream.first))
    turned = stream.changed(
        X=np.ascontiguousarray(stream.X[:, order]),
        first=stream.first[order],
        kinds=[stream.kinds[j] for j in order],
        names=[stream.names[j] for j in order],
    )
    one, other = make(), make()
    expected, got = run_in_cuts(one, stream.blocks()), run_in_cuts(other, turned.blocks())
    names = [operator.output_features(operator._features).names for operator in (one, other)]
    for name in [name for name, column in expected.items() if name == "X" or column.ndim == 3]:
        expected[name] = _by_name(expected[name], names[0])
        got[name] = _by_name(got[name], names[1])
    numbers = {name: column for name, column in expected.items() if column.dtype.kind != "O"}
    for name, column in numbers.items():
        what = f"{type(one).__name__}: {name} depends on the order of features"
        np.testing.assert_allclose(got[name], column, rtol, atol, equal_nan=True, err_msg=what)


def _by_name(X: F8, names: Sequence[str]) -> F8:
    return X[..., np.argsort([str(name) for name in names])]


def check_blocks_are_not_written(make: Make, stream: Stream) -> None:
    """An operator reads its block and leaves it as it was."""
    operator = make()
    for block, copied in zip(stream.blocks(), stream.blocks(), strict=True):
        run_in_cuts(operator, [block])
        for name in ("X", "y", "weight", "mode"):
            same = _equal(getattr(block, name), getattr(copied, name)).all()
            assert same, f"{type(operator).__name__}: has written into {name} of its block"


def check_memory_is_bounded(make: Make, stream: Stream, factor: int = 8) -> None:
    """After `factor` times the rows of the same stream, memory is as it was but for 1/4 and 8 KiB.

    `state_bytes` and all that hangs on the operator in this process are looked at.
    """
    operator = make()
    blocks = list(stream.blocks())
    run_in_cuts(operator, blocks)
    before = (operator.state_bytes, operator._raw_memory_usage)
    for _ in range(factor - 1):
        run_in_cuts(operator, [_last_width(block, blocks[-1]) for block in blocks])
    after = (operator.state_bytes, operator._raw_memory_usage)
    for what, small, large in zip(("state_bytes", "objects"), before, after, strict=True):
        bounded = large <= 1.25 * small + 8192
        owner = type(operator).__name__
        assert bounded, f"{owner}: {what} grew from {small} to {large} bytes in {factor}x the rows"


def _last_width(block: Block, last: Block) -> Block:
    """A block again, after all features have appeared."""
    X = np.full((block.n, last.d), np.nan)
    X[:, : block.d] = block.X
    return block.replace(X=X, features=last.features, labels=last.labels)


def check_dicts_equal_blocks(make: Make, stream: Stream) -> None:
    """`predict_one` or `transform_one`, then `learn_one`, do what a block of labelled rows does.

    Not so for the answer about a category that is new: asking does not yet give it a place.
    stream: without missing values and with all features from the start.
    """
    operator, twin = make(), make()
    outputs = run_in_cuts(operator, stream.blocks())
    (block,) = stream.blocks()
    owner = type(operator).__name__
    for t in range(block.n):
        values = zip(block.features.names, block.X[t].tolist(), strict=True)
        x = {name: _plain(block.features, name, value) for name, value in values}
        if isinstance(operator, Transformer):
            _assert_transformed(operator, outputs["X"], t, twin.transform_one(x))  # type: ignore[attr-defined]  # a transformer's
        elif CATEGORY not in block.features.kinds:
            expected, answer = _as_answered(operator, outputs, block, t), twin.predict_one(x)  # type: ignore[attr-defined]  # a predictor's
            assert answer == expected, f"{owner}: {answer} at row {t}, not {expected}"
        y = None if math.isnan(block.y[t]) else float(block.y[t])
        label = block.labels.values[int(y)] if block.labels is not None and y is not None else y
        twin.learn_one(x, label, w=float(block.weight[t]))
    mine, other = operator.state().arrays, twin.state().arrays
    for name in [name for name in mine if name.rpartition("/")[2] != "pickle"]:
        same = _equal(mine[name], other[name]).all()
        assert same, f"{owner}: {name} differs between dicts and blocks"


def _assert_transformed(operator: Operator, X: F8, t: int, answer: dict[Any, float]) -> None:
    """Row t of X under names equals the answer, but for columns that begin at this row."""
    names = operator.output_features(operator._features).names
    row = {k: v for k, v in zip(names, X[t].tolist(), strict=True) if not math.isnan(v)}
    seen = np.logical_or.reduce(~np.isnan(X[:t]), axis=0)
    born = dict(zip(names, seen.tolist(), strict=True))
    expected = {k: v for k, v in row.items() if k in answer or born[k]}
    assert answer == expected, f"{type(operator).__name__}: {answer} at row {t}, not {expected}"


def _plain(features: Features, name: str, value: float) -> Any:
    kind = features.kinds[features.index(name)]
    if kind == CATEGORY:
        return features.categories[name].values[int(value)]
    return bool(value) if kind == BOOLEAN else float(value)


def _as_answered(operator: Operator, outputs: Columns, block: Block, t: int) -> Any:
    """The prediction of row t as `predict_one` says it."""
    value = float(outputs["prediction"][t])
    if operator.task != CLASSIFICATION:
        return 0.0 if math.isnan(value) else value
    assert block.labels is not None
    return None if math.isnan(value) else block.labels.values[int(value)]


# -- late labels -----------------------------------------------------------------------------------


class LateTwin:
    """An operator for which late labels are kept by hand: one row at a time, in a plain dict.

    `run` takes blocks of one row. What the operator said and saw of a scored event is kept under
    its number and handed back with the label; nothing of `EventLog` or `Pipeline` is used, so a
    pipeline of the operator is held against it.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.kept: dict[int, Columns] = {}
        self.sparse: dict[int, Csr | None] = {}

    def run(self, row: Block) -> Columns:
        """Outputs of one row, without what is there to be logged."""
        assert row.n == 1, f"LateTwin: row must be one row, got {row.n}"
        assert row.events is not None, "LateTwin: row must have a number, in `events`"
        number, mode = int(row.events[0]), int(row.mode[0])
        if mode == SCORED and number >= 0:
            outputs = self.operator.run(row.replace(log_wanted=True))
            said = {k.removeprefix("log:"): v for k, v in outputs.items()}
            self.kept[number] = {"X": row.X, **said} | _of_logs(outputs)
            self.sparse[number] = row.sparse
            if isinstance(self.operator, Transformer):
                self.kept[number]["X"] = row.X  # it learns on what came in
            return {k: v for k, v in outputs.items() if not k.startswith("log:")}
        if mode == EXPIRED or (mode == LEARN and number not in self.kept):
            self.kept.pop(number, None)
            row = row.replace(mode=np.array([EXPIRED], dtype=np.uint8))
        elif mode == LEARN:
            kept = self.kept.pop(number)
            here = {k: np.ones(1, dtype=np.bool_) for k in kept}
            row = row.replace(logged=Logged(kept, here))
            if self.operator.needs_label and not isinstance(self.operator, Pipeline):
                row = row.replace(X=self._then(kept["X"], row.d), sparse=self.sparse[number])
        return self.operator.run(row)

    def _then(self, seen: F8, d: int) -> F8:
        """Features of then in today's width: one that did not exist is missing, or 0."""
        X = np.full((1, d), np.nan)
        X[:, : seen.shape[1]] = seen
        return X if self.operator.takes_nan else np.nan_to_num(X, nan=0.0)


def _of_logs(outputs: Columns) -> Columns:
    """What the operator wants to have logged, but of members that were not there."""
    logs = {k[4:]: v for k, v in outputs.items() if k.startswith("log:")}
    away = tuple(k[: -len("here")] for k, v in logs.items() if k.endswith("/here") and not v[0])
    return {k: v for k, v in logs.items() if not k.startswith(away or ("\0",))}


def _late_pipeline(make: Make) -> Pipeline:
    """A pipeline of the operator, or the operator itself if it is one."""
    operator = make()
    return operator if isinstance(operator, Pipeline) else Pipeline(operator)


def _assert_same_stages(one: Pipeline, other: Operator, owner: str) -> None:
    stages = other.stages if isinstance(other, Pipeline) else (other,)
    for first, second in zip(one.stages, stages, strict=True):
        assert_same_state(first.state(), second.state(), owner)


def check_late_labels(make: Make, stream: Stream, cuts: Sequence[int]) -> None:
    """A pipeline of the operator does with late labels what `LateTwin` does, however it is cut.

    stream: with labels late in any way; one that is labelled gets them 3 rows late. The pending
    events are part of the state at every cut.
    """
    if stream.events is None:
        stream = stream.late(3)
    whole, parts = _late_pipeline(make), _late_pipeline(make)
    expected = run_in_cuts(whole, stream.blocks())
    owner = f"{type(make()).__name__}, with late labels"
    assert_same_bits(expected, run_in_cuts(parts, stream.blocks(cuts)), owner)
    assert_same_state(whole.state(), parts.state(), owner)
    half, rest, _ = _halves(stream, cuts[0])
    going = _late_pipeline(make)
    first = run_in_cuts(going, half)
    resumed = _late_pipeline(make)
    resumed.load(through_json(going.state()))
    lengths = [sum(block.n for block in blocks) for blocks in (half, rest)]
    halves = [(first, lengths[0]), (run_in_cuts(resumed, rest), lengths[1])]
    there = [(outputs, n) for outputs, n in halves if n]
    again = concatenate([outputs for outputs, _ in there], [n for _, n in there])
    assert_same_bits(expected, again, f"{owner}, resumed")
    twin = LateTwin(make())
    rows = [twin.run(row) for row in stream.blocks(range(stream.n))]
    assert_same_bits(expected, concatenate(rows, [1] * len(rows)), f"{owner}, by hand")
    _assert_same_stages(whole, twin.operator, f"{owner}, by hand")
    assert whole.pending == len(twin.kept), f"{owner}: {whole.pending} events pend"


def check_delay_zero(make: Make, stream: Stream) -> None:
    """A label right after its event does what one that comes with it does, bit for bit.

    Alarms are raised by the row that brings the label, or by the event where none is needed.
    stream: labelled.
    """
    at_once, after = _late_pipeline(make), _late_pipeline(make)
    late = stream.late(0)
    expected = run_in_cuts(at_once, stream.blocks())
    got = run_in_cuts(after, late.blocks())
    events, labels = late.mode == SCORED, late.mode == LEARN
    raised = labels if make().needs_label else events
    told = {k: v[raised if k in ("alarm", "warning", "why") else events] for k, v in got.items()}
    owner = f"{type(make()).__name__}, its labels one row late"
    assert_same_bits(expected, told, owner)
    _assert_same_stages(at_once, after, owner)


DELAYS = (0, 1, 7, 100)


def check_future_labels(make: Make, stream: Stream, row: int) -> None:
    """Labels that are altered from some row on change nothing before it, whatever the delay.

    Nor the answers of that row: they were given before its label was seen. stream: labelled; it is
    walked as it is and with labels late by each of `DELAYS`.
    """
    for delay in (None, *DELAYS):
        now = stream if delay is None else stream.late(delay)
        at = min(row, now.n - 1)
        y = now.y.copy()
        y[at:] = _altered(y[at:], now.task)
        expected = run_in_cuts(_late_pipeline(make), now.blocks())
        got = run_in_cuts(_late_pipeline(make), now.changed(y=y).blocks())
        owner = f"{type(make()).__name__}, labels altered from row {at}, delay {delay}"
        assert_same_bits(_until(expected, at), _until(got, at), owner)
        answers = [k for k in expected if k in ("prediction", "proba", "variance", "X")]
        first, second = ({k: out[k][: at + 1] for k in answers} for out in (expected, got))
        assert_same_bits(first, second, owner)


def _until(outputs: Columns, row: int) -> Columns:
    """The rows before this one; findings, a column only where there are any, if they have some."""
    cut = {name: column[:row] for name, column in outputs.items()}
    return {k: c for k, c in cut.items() if k != "why" or any(told is not None for told in c)}


def _altered(y: F8, task: str) -> F8:
    """Other labels: classes in turned order, with one more; targets elsewhere."""
    if task == REGRESSION:
        return 3.0 - 2.0 * y
    return np.where(np.isnan(y), y, np.nanmax(y, initial=0.0) + 1.0 - y)


# -- all laws for one operator ---------------------------------------------------------------------


class Law(NamedTuple):
    """One law, its check, and the streams it walks.

    hard: whatever the operator takes. late: hard, with late labels; at once: hard, all labelled.
    tame: no missing values, features all there from the start. plain: tame, and no categories.
    long: 1,000 rows.
    """

    name: str
    check: Callable[[Make, Stream, Sequence[int]], None]
    streams: str = "hard"


LAWS = (
    Law("blocks", check_block_law),
    Law("resume", lambda make, stream, cuts: check_resume(make, stream, cuts[0])),
    Law("predict", lambda make, stream, _: check_predict_changes_nothing(make, stream)),
    Law("snapshot", lambda make, stream, cuts: check_snapshot(make, stream, cuts[0])),
    Law("clone", lambda make, stream, _: check_clone_is_independent(make, stream)),
    Law("seed", lambda make, stream, _: check_same_seed_same_bits(make, stream)),
    Law("input", lambda make, stream, _: check_blocks_are_not_written(make, stream)),
    Law("late", check_late_labels, "late"),
    Law("delay zero", lambda make, stream, _: check_delay_zero(make, stream), "at once"),
    Law("future", lambda make, stream, cuts: check_future_labels(make, stream, cuts[0]), "at once"),
    Law("reset", lambda make, stream, _: check_reset(make, stream), "plain"),
    Law("order", lambda make, stream, _: check_feature_order(make, stream), "tame"),
    Law("dicts", lambda make, stream, _: check_dicts_equal_blocks(make, stream), "tame"),
    Law("memory", lambda make, stream, _: check_memory_is_bounded(make, stream), "long"),
)


def laws_of(operator: Operator) -> list[Law]:
    """The laws that bind an operator: detectors have no dicts, labels and features."""
    exempt = set() if operator.task is not None or isinstance(operator, Transformer) else {"dicts"}
    if operator.task not in (None, CLASSIFICATION, REGRESSION):
        exempt.add("dicts")
    if isinstance(operator, Detector):
        exempt |= {"order", "late", "delay zero", "future"}
    return [law for law in LAWS if law.name not in exempt]


def kinds_of(operator: Operator) -> tuple[str, ...]:
    """The kinds of columns that an operator takes."""
    return KINDS if operator.takes_categories else NUMBERS


def classes_of(operator: Operator) -> int:
    """The most classes that its streams have."""
    return 5 if getattr(operator, "_multiclass", True) else 2


def tasks_of(operator: Operator) -> tuple[str, ...]:
    """What its targets may be; both where it has no task."""
    fixed = operator.task if operator.task in (CLASSIFICATION, REGRESSION) else None
    return (CLASSIFICATION, REGRESSION) if fixed is None else (fixed,)


def plan_for(operator: Operator, streams: str, rng: np.random.Generator) -> Plan:
    """A random plan of a stream that the operator takes."""
    task = str(rng.choice(tasks_of(operator)))
    modes = {"hard": str(rng.choice(MODES)), "late": "late", "at once": "labelled"}
    if streams not in modes:
        rows = 1000 if streams == "long" else 60
        with_category = operator.takes_categories and streams != "plain"
        kinds = ("normal", "normal", "boolean", *((CATEGORY,) if with_category else ()))
        return Plan(task, (rows,), (kinds,), n_classes=2, seed=int(rng.integers(2**32)))
    segments = int(rng.integers(1, 4))
    return Plan(
        task,
        tuple(int(n) for n in rng.integers(1, 40, segments)),
        tuple(tuple(rng.choice(kinds_of(operator), rng.integers(1, 4))) for _ in range(segments)),
        modes[streams],
        weighted=bool(rng.integers(2)),
        gaps=bool(rng.integers(2)),
        infinities=bool(rng.integers(2)),
        repeats=bool(rng.integers(2)),
        sparse=operator.takes_sparse and bool(rng.integers(2)),
        n_classes=int(rng.integers(1, classes_of(operator) + 1)),
        seed=int(rng.integers(2**32)),
        keys=int(rng.integers(8)) if operator.takes_keys else 0,
    )


def check_operator(make: Make, streams: int = 10, seed: int = 0) -> dict[str, int]:
    """Hold an operator to every law of the engine, on hard random streams.

    Args:
        make: gives a new, untrained operator at each call; a class will do, or a lambda.
        streams: how many streams each law is tried on.
        seed: of the streams; the same seed, the same streams.
    Returns: how many streams each law has passed.
    Raises: AssertionError that names the operator, the law and the first row that broke it.
    Cost: a few seconds with compiled kernels.
    """
    rng, operator = np.random.default_rng(seed), make()
    passed = {}
    for law in laws_of(operator):
        passed[law.name] = 1 if law.streams == "long" else streams
        for _ in range(passed[law.name]):
            stream = Stream.from_plan(plan_for(operator, law.streams, rng))
            cuts = rng.integers(0, stream.n + 1, rng.integers(1, 6))
            law.check(make, stream, [int(cut) for cut in cuts])
    return passed
