"""Banks on the device: equal to the CPU's walk, key by key, whatever the cut."""

import copy
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Block, Features, Vocabulary
from streamlearn.jit import bank, kalman, lift, rls
from streamlearn.jit.cuda import _compile
from streamlearn.operators import KeyedClassifier, _bank_on_device
from streamlearn.operators._bank_on_device import DeviceBank

CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
D, K = 3, 2


def settings(walker: str) -> F8:
    p = np.zeros(kalman.N_SETTINGS)
    p[lift.LIMIT] = 1e12
    if "rls" in walker:
        p[[rls.LAM, rls.RIDGE, rls.REFRESH]] = 0.8, 0.5, 5.0
        p[[rls.SCALED, rls.LR_ALPHA, rls.BALANCE]] = 1.0, 0.05, 1.0
    else:
        p[[kalman.S_W, kalman.S2, kalman.LR_DELTA, kalman.DELTA_MAX]] = 1.0, 0.1, 0.01, 0.2
        p[[kalman.LR_ALPHA, kalman.DECAY_MEAN, kalman.SOFTMAX]] = 0.02, 1.0, 1.0
        p[[kalman.CENTRE, kalman.RESCALE]] = 1.0, 1.0
    return p


def blank(outputs: int) -> F8:
    record = np.zeros(bank.stride_of(D, outputs))
    record[bank.DELTA] = 0.01
    record[bank.HEAD + 2 * outputs : bank.HEAD + 3 * outputs] = 1.0
    at = bank.triangle_at(D, outputs)
    for i in range(D):
        record[at + i * (i + 3) // 2] = 1.0
    return record


def stream(n: int, outputs: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, D - 1))
    X[rng.random(X.shape) < 0.1] = np.nan
    y = rng.integers(0, K, (n, 1)) + 0.0 if outputs > 1 else rng.normal(size=(n, 1))
    y[rng.random(n) < 0.1] = np.nan
    mode = rng.choice([7, 7, 5, 6, 2, 1], n).astype(np.uint8)
    keys = rng.choice([-5, 0, 7, 2**40, 99, bank.NO_KEY], n)
    return (X, y, rng.choice([0.5, 1.0], n), mode), keys


def walk(model: DeviceBank, rows: Any, keys: Any, outputs: int) -> list[F8]:
    n = len(keys)
    out = np.empty((n, outputs)), np.empty((n, 1)), np.empty((n, D - 1))
    model.walk(rows, keys, out)
    return list(out)


def on_cpu(walker: str, rows: Any, keys: Any, outputs: int) -> tuple[list[F8], F8]:
    """The CPU's walk; a slot a key, in order, and at the end the blank record."""
    known, active = np.unique(keys), rows[3] & 6 != 0
    first = {k: np.flatnonzero((keys == k) & active).min(initial=len(keys)) for k in known}
    slots = np.array(
        [np.searchsorted(known, k) if t >= first[k] else len(known) for t, k in enumerate(keys)]
    )
    records = np.tile(blank(outputs), (len(known) + 1, 1))
    n, s = len(keys), np.zeros(bank.N_COUNTERS)
    s[bank.MARK] = -1.0
    out = np.empty((n, outputs)), np.empty((n, 1)), np.empty((n, D - 1))
    fixed = settings(walker), np.empty(bank.work_size(D, outputs)), np.empty(D)
    undo = np.zeros(n, np.int64), np.zeros((0, 0))
    given, order = (*rows, slots, np.arange(1.0, n + 1.0)), np.arange(n)
    run = bank.walk_classes if outputs > 1 else bank.walk_targets
    run(given, order, records, fixed, s, out, undo, True if "rls" in walker else None)
    return list(out), records[:-1][[first[k] < n for k in known]]


@pytest.mark.parametrize("walker", ["walk_kalman", "walk_rls", "walk_classes", "walk_rls_classes"])
def test_the_device_walks_every_key_as_the_cpu_does(
    walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of 8 rows, then in other blocks; the table grows on the way."""
    outputs = K if "classes" in walker else 1
    rows, keys = stream(21, outputs)
    said, records = on_cpu(walker, rows, keys, outputs)
    monkeypatch.setattr(_bank_on_device, "_PIECE", 8)
    whole = DeviceBank("Bank", walker, blank(outputs), settings(walker), room=1)
    for column, expected in zip(walk(whole, rows, keys, outputs), said, strict=True):
        assert_allclose(column, expected, **CLOSE)
    moment = whole.whole()
    live = np.arange(records.shape[1]) != bank.SEEN  # rows of the bank here, events there
    assert_allclose(moment.records[:, live], records[:, live], **CLOSE)
    parts = DeviceBank("Bank", walker, blank(outputs), settings(walker), room=1)
    walk(parts, [column[:5] for column in rows], keys[:5], outputs)
    again = DeviceBank("Bank", walker, blank(outputs), settings(walker))
    again.fill(parts.whole())
    walk(again, [column[5:] for column in rows], keys[5:], outputs)
    for mine, other in zip(again.whole(), moment, strict=True):
        assert_array_equal(mine, other)


def test_who_only_asks_finds_a_key_that_came_before_in_the_block() -> None:
    """Whichever thread is first: in the simulator the one that asks is."""
    (X, _, weight, _), _ = stream(5, 1)
    keys = np.array([1, 2, 3, 4, 2])
    rows = X, np.arange(1.0, 6.0)[:, None], weight, np.array([7, 7, 7, 7, 1], dtype=np.uint8)
    said, _ = on_cpu("walk_kalman", rows, keys, 1)
    model = DeviceBank("Bank", "walk_kalman", blank(1), settings("walk_kalman"))
    for column, expected in zip(walk(model, rows, keys, 1), said, strict=True):
        assert_allclose(column, expected, **CLOSE)


def test_a_table_has_at_most_three_and_a_half_places_a_key() -> None:
    model = DeviceBank("Bank", "walk_kalman", blank(1), settings("walk_kalman"), room=9)
    assert model._keys.shape == (16,)
    model._make_room(10)
    assert model._keys.shape == (32,)


def test_without_room_on_the_device_a_bank_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, keys = stream(4, 1)
    model = DeviceBank("Bank", "walk_kalman", blank(1), settings("walk_kalman"))
    walk(model, rows, keys, 1)
    before = model.whole()

    def full(owner: str, like: Any) -> Any:
        raise _compile.no_room(owner, like)

    with monkeypatch.context() as patch:
        patch.setattr(_compile, "reserve", full)
        with pytest.raises(MemoryError, match=r"^Bank: the device must have [0-9,]+ bytes"):
            walk(model, rows, keys, 1)
    for mine, other in zip(model.whole(), before, strict=True):
        assert_array_equal(mine, other)


def rows_of(model: KeyedClassifier) -> F8:
    weights = model.weights(7)
    assert weights is not None
    return weights


def test_a_keyed_model_is_the_same_on_the_device() -> None:
    """New classes on the way, late labels, a snapshot, keys of text; state and back."""
    rows, keys = stream(12, K)
    X, y, weight, mode = rows
    names = Features(["a", "b"])
    block = Block(X, y[:, 0], weight, mode, names, Vocabulary(range(K)), keys=keys)
    host, there = (KeyedClassifier(max_keys=None, device=at) for at in ("cpu", "cuda"))
    for part in (block.rows(0, 7), block.rows(7, 12)):
        said, same = host.run(part), there.run(part)
        for name, column in said.items():
            assert_allclose(same[name], column, **CLOSE, err_msg=name)
    taken, before = there.snapshot(), there.state()
    there.run(block)
    there.restore(taken)
    there = copy.deepcopy(there)
    again = KeyedClassifier(max_keys=None, device="cuda")
    again.load(before)
    assert again.state().table == there.state().table
    for name, array in there.state().arrays.items():
        assert_array_equal(again.state().arrays[name], array)
    for mine, other in zip(rows_of(there), rows_of(host), strict=True):
        assert_allclose(mine, other, **CLOSE)
    assert there.n_keys_ == host.n_keys_
    assert there.n_samples_ == host.n_samples_
    with pytest.raises(
        ValueError, match=r"^KeyedClassifier: max_keys and max_age must be None with"
    ):
        KeyedClassifier(device="cuda")
