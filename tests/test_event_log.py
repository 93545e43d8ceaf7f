"""The log of pending events against a dict of rows: what comes back, what it keeps, what it says.

Its state says what was seen, not where a block ended, nor which rows lie in files.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.archive import DamagedError
from streamlearn.block import EXPIRED, LABELLED, LEARN, PREDICT, SCORED, Columns
from streamlearn.contracts import State
from streamlearn.errors import UserError
from streamlearn.event_log import SEGMENT, EventLog, cuts, keys_of, to_drop, to_log, to_recall
from streamlearn.spill import Spill
from streamlearn.testing import assert_same_state, block_of, through_json

Kept = dict[Any, dict[str, Any]]


class NaiveLog:
    """A dict: key -> column -> the logged value of one row."""

    def __init__(self) -> None:
        self.rows: Kept = {}

    def put(self, keys: Any, rows: Any, columns: Any) -> None:
        for t in np.flatnonzero(rows):
            self.rows.pop(keys[t], None)
            self.rows[keys[t]] = {name: np.array(column[t]) for name, column in columns.items()}

    def take(self, keys: Any, rows: Any) -> list[dict[str, Any]]:
        return [self.rows.pop(keys[t], {}) if rows[t] else {} for t in range(len(keys))]


def columns_of(rng: np.random.Generator, n: int, d: int, k: int) -> dict[str, Any]:
    """Features with gaps, probabilities, a prediction and a flag; widths d and k."""
    X = rng.normal(size=(n, d))
    X[rng.random((n, d)) < 0.3] = np.nan
    proba = rng.dirichlet(np.ones(k), n)
    return {
        "0/X": X,
        "1/proba": proba,
        "1/prediction": proba.argmax(axis=1).astype(np.float64),
        "1/alarm": (rng.random(n) < 0.2).astype(np.uint8),
    }


def assert_handed_back(logged: Any, expected: list[dict[str, Any]]) -> None:
    """Each row of the answer holds what the dict holds, and fill beyond it."""
    for t, row in enumerate(expected):
        held = {name for name, rows in logged.held.items() if rows[t]}
        assert held == set(row)
        for name, value in row.items():
            got, wanted = np.atleast_1d(logged.columns[name][t]), np.atleast_1d(value)
            shared = min(got.size, wanted.size)
            np.testing.assert_array_equal(got[:shared], wanted[:shared])
            fill = 0.0 if name.endswith("proba") else np.nan
            rest = np.concatenate([got[shared:], wanted[shared:]])
            np.testing.assert_array_equal(rest, np.full(rest.size, fill))


def walk(log: EventLog, naive: NaiveLog, seed: int, steps: int, most: int, text: bool) -> None:
    """Random puts and takes, of keys old and new, some of them unknown or twice."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        n = int(rng.integers(1, most))
        numbers = rng.integers(0, 40 + 5 * step, n)
        keys: Any = numbers
        if text:
            keys = np.array([f"id {k}" for k in numbers], dtype=object)
        rows = rng.random(n) < 0.7
        if rng.random() < 0.5:
            columns = columns_of(rng, n, 2 + step % 3, 2 + step % 2)
            log.put(keys, rows, columns)
            naive.put(keys.tolist(), rows, columns)
        elif rng.random() < 0.3:
            log.drop(keys, rows)
            naive.take(keys.tolist(), rows)
        else:
            assert_handed_back(log.take(keys, rows), naive.take(keys.tolist(), rows))
        assert len(log) == len(naive.rows)
        assert all(key in log for key in naive.rows)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0, 4096, 1 << 30]))
def test_what_comes_back_is_what_a_dict_of_rows_holds(seed: int, text: bool, memory: int) -> None:
    walk(EventLog(memory), NaiveLog(), seed, 30, 40, text)


@pytest.mark.parametrize("memory", [0, 100_000, 1 << 30])
@pytest.mark.parametrize("seed", range(3))
def test_segments_that_close_lose_nothing(seed: int, memory: int) -> None:
    """Thousands of puts: segments are closed, thinned out, spilled and brought back."""
    log, naive = EventLog(memory), NaiveLog()
    rng = np.random.default_rng(seed)
    at = 0
    for step in range(30):
        n = int(rng.integers(1, 800))
        keys = np.arange(at, at + n)
        columns = columns_of(rng, n, 2 + step // 10, 2)
        everywhere = np.ones(n, dtype=np.bool_)
        log.put(keys, everywhere, columns)
        naive.put(keys.tolist(), everywhere, columns)
        at += n
        late = rng.permutation(at)[: int(rng.integers(1, 700))]
        rows = np.ones(late.size, dtype=np.bool_)
        assert_handed_back(log.take(late, rows), naive.take(late.tolist(), rows))
        assert len(log) == len(naive.rows)
    left = np.array(sorted(naive.rows))
    rows = np.ones(left.size, dtype=np.bool_)
    assert_handed_back(log.take(left, rows), naive.take(left.tolist(), rows))
    assert len(log) == 0
    assert log.nbytes < 400_000  # no more than the open segment


def logged_in_pieces(
    ends: list[int], spill: Spill | None = None, memory: int = 1 << 30, n: int = 5000
) -> EventLog:
    """One stream of puts and takes, cut at these rows and where segments close; widths grow."""
    log = EventLog(memory, spill)
    rng = np.random.default_rng(0)
    X, late = rng.normal(size=(n, 4)), rng.integers(200, 3000, n)
    settles: dict[int, list[int]] = {}
    for t in range(n):
        if rng.random() < 0.8:
            settles.setdefault(t + int(late[t]), []).append(t)
    start = 0
    for end in sorted({*ends, *range(SEGMENT, n, SEGMENT), n}):
        keys = np.array([k for t in range(start, end) for k in settles.get(t, [])], dtype=np.int64)
        assert (keys < start).all(), "no label may meet its event in a piece"
        log.take(keys, np.ones(keys.size, dtype=np.bool_))
        wide = X[start:end, : 2 + (end > n // 2) + (end > 3 * n // 4)].copy()
        wide[np.arange(start, end) < n // 2, 2:] = np.nan
        wide[np.arange(start, end) < 3 * n // 4, 3:] = np.nan
        log.put(np.arange(start, end), np.ones(end - start, dtype=np.bool_), {"0/X": wide})
        start = end
    return log


def every(step: int) -> list[int]:
    return list(range(0, 5000, step))


@pytest.mark.parametrize("memory", [20_000, 1 << 30])
def test_state_does_not_depend_on_the_cut(tmp_path: Path, memory: int) -> None:
    """Nor does what is in which file, as pieces end where segments close."""
    logs = [
        logged_in_pieces(every(step), Spill(tmp_path / str(step)), memory)
        for step in (1, 7, 150, 199)
    ]
    for log in logs[1:]:
        assert_same_state(logs[0].state(), log.state())
    assert bool(logs[0].state().table["files"]) == (memory == 20_000)


def test_what_is_spilled_does_not_depend_on_a_crash(tmp_path: Path) -> None:
    """A log that was saved and loaded on the way names the same files at the end."""
    spill = Spill(tmp_path / "a")
    whole = logged_in_pieces(every(100), spill, memory=40_000)
    state = whole.state()
    assert len(state.table["files"]) >= 2
    assert state.arrays["held/0/X"].shape[0] < len(whole)
    memory = logged_in_pieces(every(100))
    assert_same_state(whole.state(whole=True), memory.state())
    again = EventLog(40_000, Spill(tmp_path / "a"))
    again.load(through_json(state))
    assert_same_state(again.state(), state)
    assert_same_state(again.state(whole=True), memory.state())
    for log in (whole, again, memory):
        rows = np.ones(1500, dtype=np.bool_)
        log.take(np.arange(0, 3000, 2), rows)
        log.put(np.arange(5000, 6500), rows, {"0/X": np.ones((1500, 4))})
    assert_same_state(again.state(), whole.state())
    assert_same_state(again.state(whole=True), memory.state())


@given(st.integers(0, 10**6), st.sampled_from([0, 20_000, 1 << 30]))
def test_a_row_that_is_settled_counts_as_put_and_leaves_nothing(seed: int, memory: int) -> None:
    """As if it had been put, and dropped; in place of a key that pends too."""
    rng = np.random.default_rng(seed)
    log, other = EventLog(memory), EventLog(memory)
    at = 0
    for step in range(12):
        n = min(int(rng.integers(1, 600)), log.room)
        assert log.room == other.room
        keys = np.arange(at, at + n)
        rows, gone = rng.random(n) < 0.8, rng.random(n) < rng.choice([0.0, 0.5, 1.0])
        if step % 3 == 0 and n > 3:
            keys[~gone] = rng.permutation(at + n)[: np.count_nonzero(~gone)]
            keys[gone] = at + n + np.arange(np.count_nonzero(gone))
        columns = columns_of(rng, n, 3, 2)
        log.put(keys, rows, columns, gone)
        other.put(keys, rows, columns)
        other.drop(keys, rows & gone)
        late = rng.permutation(at + n)[: n // 2]
        for one in (log, other):
            one.drop(late, np.ones(late.size, dtype=np.bool_))
        at += 2 * n
        assert_same_state(log.state(), other.state())
        assert log.knows_any(keys) == any(key in other for key in keys.tolist())
    assert not EventLog().knows_any(np.arange(3))


def test_columns_that_open_later_in_the_block_leave_no_trace() -> None:
    """The same two events, logged with their own widths, or with that of a wider block."""
    rows = np.array([True, False])
    narrow, wide = EventLog(), EventLog()
    for log, more in ((narrow, 0), (wide, 2)):
        fill = np.full((2, more), np.nan)
        columns: Columns = {
            "0/X": np.hstack([np.array([[1.0, np.nan, 3.0]] * 2), fill]),
            "0/proba": np.hstack([np.array([[0.0, 1.0]] * 2), np.zeros((2, more))]),
            "0/prediction": np.array([1.0, 0.0]),
        }
        log.put(np.array(["a", "b"], dtype=object), rows, columns)
        log.put(
            np.array(["b", "b"], dtype=object), rows, {k: c * np.nan for k, c in columns.items()}
        )
    assert_same_state(narrow.state(), wide.state())
    back = wide.take(np.array(["a"], dtype=object), np.array([True]))
    np.testing.assert_array_equal(back.columns["0/X"], [[1.0, np.nan, 3.0, np.nan, np.nan]])
    np.testing.assert_array_equal(back.columns["0/proba"], [[0.0, 1.0, 0.0, 0.0]])


def test_a_member_that_was_not_there_has_logged_nothing() -> None:
    """Marks p/here, nested ones too, say for which rows the columns p/… mean something."""
    log = EventLog()
    columns: Columns = {
        "0/1/X": np.ones((3, 2)),
        "0/1/here": np.array([1, 1, 0], dtype=np.uint8),
        "0/1/2/prediction": np.ones(3),
        "0/1/2/here": np.array([1, 0, 1], dtype=np.uint8),
        "0/prediction": np.zeros(3),
    }
    rows = np.ones(3, dtype=np.bool_)
    log.put(np.arange(3), rows, columns)
    logged = log.take(np.arange(3), rows)
    assert logged.held["0/1/X"].tolist() == [True, True, False]
    assert logged.held["0/1/2/prediction"].tolist() == [True, False, False]
    assert logged.held["0/prediction"].tolist() == [True, True, True]
    assert "0/1/here" not in logged.columns


def small(n: int = 3000, memory: int = 20_000, spill: Spill | None = None) -> EventLog:
    log = EventLog(memory, spill)
    rows = np.ones(n, dtype=np.bool_)
    log.put(np.arange(n), rows, {"X": np.arange(2.0 * n).reshape(n, 2)})
    return log


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_snapshot_is_restored_again_and_again(memory: int) -> None:
    log = small(memory=memory)
    taken, before = log.snapshot(), log.state(whole=True)
    rows = np.ones(3000, dtype=np.bool_)
    later = None
    for _ in range(2):
        log.drop(np.arange(500, 3500), rows)
        log.put(np.arange(9000, 12_000), rows, {"X": np.zeros((3000, 3))})
        later = log.snapshot(), log.state(whole=True)
        log.restore(taken)
        assert_same_state(log.state(whole=True), before)
    assert later is not None
    log.put(np.arange(50_000, 53_000), rows, {"X": np.full((3000, 4), 7.0)})
    log.restore(later[0])
    assert_same_state(log.state(whole=True), later[1])


def test_a_deep_copy_lives_apart() -> None:
    log = small(memory=0)
    twin, before = copy.deepcopy(log), log.state()
    twin.drop(np.arange(3000), np.ones(3000, dtype=np.bool_))
    assert (len(twin), len(log)) == (0, 3000)
    assert_same_state(log.state(), before)


def test_memory_stays_below_the_limit() -> None:
    limit = 1 << 20
    log = EventLog(limit)
    rows = np.ones(4096, dtype=np.bool_)
    for block in range(20):
        at = block * 4096
        log.put(np.arange(at, at + 4096), rows, {"X": np.full((4096, 8), float(block))})
        assert log.nbytes < 2.5 * limit  # the open segment, and a place and a flag a spilled row
    assert len(log) == 20 * 4096
    back = log.take(np.arange(0, 20 * 4096, 20), rows).columns["X"][:, 3]
    np.testing.assert_array_equal(back, np.arange(0, 20 * 4096, 20) // 4096)


def test_ids_of_any_kind_come_back_from_a_state() -> None:
    log, rows = EventLog(), np.ones(3, dtype=np.bool_)
    keys = np.array(["a", 7, "7"], dtype=object)
    log.put(keys, rows, {"x": np.arange(3.0)})
    other = EventLog()
    other.load(through_json(log.state()))
    assert other.take(keys, rows).columns["x"].tolist() == [0.0, 1.0, 2.0]


def test_an_empty_log_has_a_state() -> None:
    other = EventLog()
    other.load(through_json(EventLog().state()))
    assert len(other) == 0
    assert_same_state(other.state(), EventLog().state())


def test_a_damaged_or_missing_file_is_refused_on_load(tmp_path: Path) -> None:
    log = small(memory=0, spill=Spill(tmp_path))
    state = log.state()
    path = tmp_path / state.table["files"][0]
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    with pytest.raises(DamagedError, match="pending labels are missing or damaged"):
        EventLog(0, Spill(tmp_path)).load(state)
    path.unlink()
    with pytest.raises(DamagedError, match="pending labels are missing or damaged"):
        EventLog(0, Spill(tmp_path)).load(state)


def test_a_state_with_files_wants_their_folder(tmp_path: Path) -> None:
    state = small(memory=0, spill=Spill(tmp_path)).state()
    with pytest.raises(UserError, match="call spill_to before load"):
        EventLog().load(state)
    log = EventLog()
    log.spill_to(Spill(tmp_path), 0)
    log.load(state)
    assert len(log) == 3000


def test_a_state_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    state = small(memory=0, spill=Spill(tmp_path)).state()
    bad = State(state.arrays, state.table | {"files": ["../../etc/passwd"]})
    with pytest.raises(DamagedError, match="named by its digest"):
        EventLog(0, Spill(tmp_path)).load(bad)


def test_a_state_of_an_older_version_is_taken_where_nothing_pends() -> None:
    log = small()
    log.load(State({}, {"ids": [], "names": []}))
    assert_same_state(log.state(), EventLog().state())
    with pytest.raises(UserError, match="of an older one"):
        log.load(State({"values/X": np.ones(1)}, {"ids": ["a"], "names": ["X"]}))


def test_memory_must_not_be_negative() -> None:
    with pytest.raises(UserError, match=r"^EventLog: memory must be >= 0, got -1$"):
        EventLog(-1)


# -- which rows, and where a block is cut ----------------------------------------------------------


def test_numbers_go_before_ids_and_say_what_is_logged() -> None:
    mode = [SCORED, SCORED, LEARN, EXPIRED, LABELLED, PREDICT, EXPIRED]
    block = block_of(np.zeros((7, 1)), mode=mode, ids=[*"abcdefg"])
    assert keys_of(block) is block.ids
    assert to_log(block).tolist() == [True, True, *[False] * 5]
    assert not to_drop(block).any()
    block = block.replace(events=np.array([0, -1, 0, 0, 1, 2, -1]))
    assert keys_of(block) is block.events
    assert to_log(block).tolist() == [True, *[False] * 6]
    assert to_recall(block).tolist() == [False, False, True, *[False] * 4]
    assert to_drop(block).tolist() == [False, False, False, True, False, False, False]


def plain_cuts(mode: list[int], keys: list[int], numbered: bool, room: int) -> list[int]:
    """One row after the other: a piece ends before a label whose event it holds, and when full."""
    ends: list[int] = []
    scored: set[int] = set()
    left = room
    for t, (bits, key) in enumerate(zip(mode, keys, strict=True)):
        settles = bits & 6 == LEARN or (numbered and bits == EXPIRED)
        if settles and key in scored and (not ends or ends[-1] != t):
            ends.append(t)
            scored = set()
        if bits == SCORED:
            scored.add(key)
            left -= 1
            if not left:
                ends.append(t + 1)
                scored, left = set(), SEGMENT
    return ends if ends and ends[-1] == len(mode) else [*ends, len(mode)]


@given(
    st.lists(st.sampled_from([SCORED, SCORED, LEARN, EXPIRED, LABELLED]), min_size=1, max_size=40),
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(1, 30),
)
def test_cuts_are_those_of_a_walk_over_the_rows(
    mode: list[int], seed: int, numbered: bool, room: int
) -> None:
    """With numbers every event is scored once; an id may be scored again."""
    rng = np.random.default_rng(seed)
    scored = np.cumsum(np.array(mode) == SCORED) - 1
    keys = np.maximum(scored - rng.integers(-1, 5, len(mode)), 0)
    if numbered:
        keys = np.where(np.array(mode) == SCORED, scored, keys)
    block = block_of(np.zeros((len(mode), 1)), mode=mode, ids=keys)
    if numbered:
        block = block.replace(events=keys)
    assert cuts(block, room) == plain_cuts(mode, keys.tolist(), numbered, room)
