"""Banks of models: events a second over keys, kernels alone and whole operators.

`python -m benchmarks --only banks`.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from river import linear_model

from benchmarks import clock
from benchmarks.tables import markdown
from streamlearn.block import I8, Block
from streamlearn.jit import bank
from streamlearn.operators import AnalyticRegressor, KalmanRegressor, KeyedRegressor
from streamlearn.testing import labelled

TITLE = "Banks: one model per key"
ABOUT = """\
Processor nanoseconds an event of banks of linear models, on one core: d = 8 features and a
constant, int64 keys drawn uniformly, blocks of 4,096 labelled events, every key known before.
`walk` is the kernel alone, records at hand by slot; `keys` the search of the keys; `run` the whole
operator, its search and its checks included. Median over blocks (and the least); beside them a dict
with an operator of its own for every key, and one with a linear regression of River, both one event
at a time."""
D, BLOCK, BLOCKS = 8, 4096, 60
KEYS = (1_000, 100_000, 1_000_000)
HEADS: dict[str, Callable[[], Any]] = {
    "Kalman": KalmanRegressor,
    "least squares": lambda: AnalyticRegressor(lam=1.0),
}
Times = list[float]  # nanoseconds an event: median, least


def measure(quick: bool) -> dict[str, Any]:
    """Nanoseconds an event by head, keys and part."""
    clock.pin()
    found: dict[str, Any] = {"heads": {}, "dicts": _dicts(200 if quick else 2_000)}
    for head in HEADS:
        by_keys = found["heads"][head] = {}
        for n_keys in KEYS[:1] if quick else KEYS:
            by_keys[str(n_keys)] = _bank(head, n_keys, 3 if quick else BLOCKS)
    return found


def _blocks(n_keys: int, n: int) -> list[Block]:
    rng = np.random.default_rng(n_keys)
    X = rng.normal(size=(BLOCK, D))
    block = labelled(X, X.sum(axis=1) + rng.normal(size=BLOCK))
    return [block.replace(keys=rng.integers(0, n_keys, BLOCK)) for _ in range(n)]


def _bank(head: str, n_keys: int, n: int) -> dict[str, Any]:
    """One bank with all keys, its parts by turns."""
    model, blocks = KeyedRegressor(HEADS[head](), max_keys=None), _blocks(n_keys, n)
    for start in range(0, n_keys, BLOCK):
        keys = np.arange(start, min(start + BLOCK, n_keys))
        model.run(blocks[0].rows(0, keys.shape[0]).replace(keys=keys))
    records: Any = model._records
    fixed = model._settings, np.empty(bank.work_size(1 + D, 1)), np.empty(1 + D)
    out = np.empty((BLOCK, 1)), np.empty((BLOCK, 1)), np.empty((0, D))
    undo = records.undo(BLOCK)
    least = True if head == "least squares" else None
    taken: dict[str, list[int]] = {"run": [], "keys": [], "walk": []}

    def walk(block: Block, slots: I8) -> None:
        rows = block.X, block.y[:, None], block.weight, block.mode, slots
        bank.walk_targets(rows, records.rows, fixed, records.counters, out, undo, least)

    for i, block in enumerate(blocks):
        slots = records.slots_of(_keys(block), block.mode)
        before = blocks[i - 1]  # another's keys: what is searched now is not at hand for it
        taken["walk"].append(_processor(lambda b=block, s=slots: walk(b, s)))  # type: ignore[misc]
        taken["run"].append(_processor(lambda b=before: model.run(b)))  # type: ignore[misc]
        taken["keys"].append(
            _processor(lambda b=block: records.slots_of(_keys(b), b.mode))  # type: ignore[misc]
        )
    times = {part: _times(values) for part, values in taken.items()}
    return times | {"bytes a key": 8 * records.layout.stride + 25}


def _processor(call: Callable[[], object]) -> int:
    """Nanoseconds of this thread, whatever else the machine does."""
    start = time.thread_time_ns()
    call()
    return time.thread_time_ns() - start


def _keys(block: Block) -> I8:
    assert block.keys is not None
    return block.keys


def _times(values: list[int]) -> Times:
    return [median(values) / BLOCK, min(values) / BLOCK]


def _dicts(n: int) -> dict[str, float]:
    """Nanoseconds an event with a dict of 100 models."""
    rng = np.random.default_rng(0)
    X, keys = rng.normal(size=(n, D)), rng.integers(0, 100, n).tolist()
    rows: list[Block] = [labelled(X[t : t + 1], X[t : t + 1].sum(axis=1)) for t in range(n)]
    told = [dict(zip("abcdefgh", row, strict=True)) for row in X.tolist()]
    own: dict[int, KalmanRegressor] = {}
    theirs: dict[int, Any] = {}

    def ours() -> None:
        for key, row in zip(keys, rows, strict=True):
            if key not in own:
                own[key] = KalmanRegressor()
            own[key].run(row)

    def river() -> None:
        for key, x, y in zip(keys, told, X.sum(axis=1).tolist(), strict=True):
            if key not in theirs:
                theirs[key] = linear_model.LinearRegression()
            theirs[key].predict_one(x)
            theirs[key].learn_one(x, y)

    return {name: _second(call) / n for name, call in (("Kalman", ours), ("River", river))}


def _second(call: Callable[[], None]) -> float:
    """Nanoseconds of a second call."""
    call()
    start = time.thread_time_ns()
    call()
    return float(time.thread_time_ns() - start)


def tables(measured: dict[str, Any]) -> list[str]:
    """A row for each bank, and one for each dict."""
    rows = []
    for head, by_keys in measured["heads"].items():
        for n_keys, parts in by_keys.items():
            told = [parts[part] for part in ("walk", "keys", "run")]
            cells = [f"{middle:,.0f} ({least:,.0f})" for middle, least in told]
            speed = [f"{1e3 / parts[part][0]:.1f}" for part in ("walk", "run")]
            rows.append([head, f"{int(n_keys):,}", *cells, *speed])
    for name, ns in measured["dicts"].items():
        rows.append([f"a dict of {name}", "100", "", "", f"{ns:,.0f}", "", f"{1e3 / ns:.2f}"])
    head = ["model", "keys", "walk, ns", "keys, ns", "run, ns", "walk, M/s", "run, M/s"]
    return [markdown(head, rows)]
