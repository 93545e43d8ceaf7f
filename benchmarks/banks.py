"""Banks of models: events a second over keys, kernels alone and whole operators.

`python -m benchmarks --only banks`.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from river import linear_model

from benchmarks import clock
from benchmarks.tables import markdown
from streamlearn.block import I8, Block
from streamlearn.operators import (
    AnalyticRegressor,
    KalmanRegressor,
    KeyedRegressor,
    Normalizer,
    _threads,
)
from streamlearn.pipeline import Pipeline
from streamlearn.testing import labelled

TITLE = "Banks: one model per key"
ABOUT = """\
Processor nanoseconds an event of banks of linear models, on one core: d = 8 features and a
constant, int64 keys drawn uniformly, blocks of 4,096 labelled events, every key known before.
`walk` is the kernels alone, records at hand by slot; `keys` the search of the keys; `run` the whole
operator, its search and its checks included. With `Normalizer` each key scales its features by
moments of its own, a walk before that of its head. Median over blocks (and the least); beside them
a dict with an operator of its own for every key, and one with a linear regression of River, both
one event at a time. `bytes a key`: of all arrays of the bank, the table of keys and room for more
included.

Then `run` by the clock with 100,000 keys, one thread and as many as there are cores, by turns:
milliseconds of a block, medians, and the median of their ratio. The bits are the same. On a busy
machine it measures the others."""
D, BLOCK, BLOCKS = 8, 4096, 60
ROWS = (4096, 65_536)  # of a block, in threads
KEYS = (1_000, 100_000, 1_000_000)
HEADS: dict[str, Callable[[], Any]] = {
    "Kalman": KalmanRegressor,
    "least squares": lambda: AnalyticRegressor(lam=1.0),
    "Normalizer, Kalman": lambda: Pipeline(Normalizer(), KalmanRegressor()),
}
THREADED = ("Kalman", "least squares")
Times = list[float]  # nanoseconds an event: median, least


def measure(quick: bool) -> dict[str, Any]:
    """Nanoseconds an event by head, keys and part."""
    found: dict[str, Any] = {"heads": {}, "cores": _threads.cores(), "threads": _in_threads(quick)}
    clock.pin()
    found["dicts"] = _dicts(200 if quick else 2_000)
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


def _full(head: str, n_keys: int, block: Block) -> KeyedRegressor:
    """A bank that knows all keys."""
    model = KeyedRegressor(HEADS[head]())
    for start in range(0, n_keys, block.n):
        keys = np.arange(start, min(start + block.n, n_keys))
        model.run(block.rows(0, keys.shape[0]).replace(keys=keys))
    return model


def _bank(head: str, n_keys: int, n: int) -> dict[str, Any]:
    """One bank with all keys, its parts by turns."""
    blocks = _blocks(n_keys, 3 * n)  # each part has keys that none had just before
    model = _full(head, n_keys, blocks[0])
    records: Any = model._records
    out = np.empty((BLOCK, 1)), np.empty((BLOCK, 1)), np.empty((0, D))
    room = np.empty((BLOCK, D)), np.zeros(BLOCK, dtype=np.bool_)
    scaled = room if records.layout.moments else None
    taken: dict[str, list[int]] = {"run": [], "keys": [], "walk": []}

    def walk(block: Block, slots: I8) -> None:
        events, (own,) = records.deal(slots, block.mode, 1)
        rows = block.X, block.y[:, None], block.weight, block.mode, slots, events
        model._walk_shard(rows, scaled, records, out, own)

    for block, other, third in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
        slots = records.slots_of(_keys(block), block.mode)
        taken["walk"].append(_processor(lambda b=block, s=slots: walk(b, s)))  # type: ignore[misc]
        taken["run"].append(_processor(lambda b=other: model.run(b)))  # type: ignore[misc]
        taken["keys"].append(
            _processor(lambda b=third: records.slots_of(_keys(b), b.mode))  # type: ignore[misc]
        )
    times = {part: _times(values) for part, values in taken.items()}
    held = records._held
    arrays = [held.rows, held.keys, held.used, records._table, records._free]
    return times | {"bytes a key": sum(array.nbytes for array in arrays) / n_keys}


def _in_threads(quick: bool) -> list[dict[str, Any]]:
    """Milliseconds of a block by one thread and by all, and the median ratio."""
    found = []
    for head in THREADED:
        model = _full(head, KEYS[1], _blocks(KEYS[1], 1)[0])
        for rows in ROWS[:1] if quick else ROWS:
            taken = [_turn(model, rows, seed) for seed in range(2 if quick else 40)]
            alone, together = zip(*taken[1:], strict=True)  # the first tells what a row costs
            ratio = median(a / b for a, b in zip(alone, together, strict=True))
            case = {"head": head, "rows": rows, "one_thread_ms": median(alone)}
            found.append(case | {"threads_ms": median(together), "times_faster": ratio})
    return found


def _turn(model: KeyedRegressor, n: int, seed: int) -> list[float]:
    """Milliseconds of a block with one thread, and of another with as many as there are cores."""
    rng, taken = np.random.default_rng(seed), []
    X = rng.normal(size=(n, D))
    block = labelled(X, X.sum(axis=1) + rng.normal(size=n))
    for cores in (1, _threads.cores()):
        asked = block.replace(keys=rng.integers(0, KEYS[1], n))
        with mock.patch.object(_threads, "cores", lambda cores=cores: cores):
            taken.append(1e-6 * clock.nanoseconds(lambda b=asked: model.run(b)))  # type: ignore[misc]
    return taken


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
            rows.append([head, f"{int(n_keys):,}", *cells, *speed, f"{parts['bytes a key']:,.0f}"])
    for name, ns in measured["dicts"].items():
        rows.append([f"a dict of {name}", "100", "", "", f"{ns:,.0f}", "", f"{1e3 / ns:.2f}", ""])
    head = ["model", "keys", "walk, ns", "keys, ns", "run, ns", "walk, M/s", "run, M/s"]
    threads = [
        [c["head"], f"{c['rows']:,}", *(f"{c[k]:.2f}" for k in ("one_thread_ms", "threads_ms")),
         f"{c['times_faster']:.2f}"] for c in measured["threads"]
    ]  # fmt: skip
    shared = ["model", "rows of a block", "one thread, ms", f"{measured['cores']} threads, ms"]
    return [markdown([*head, "bytes a key"], rows), markdown([*shared, "times"], threads)]
