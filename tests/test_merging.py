"""The merge by record time: its order, what holds it back, and that a log gives it again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.block import I8, LABELLED, Block, Features
from streamlearn.connectors import as_source
from streamlearn.contracts import Batch, Positions
from streamlearn.errors import UserError
from streamlearn.merging import Merged
from streamlearn.order_log import OrderLog
from streamlearn.schema import Schema
from streamlearn.testing import ListSource, Mark, SettableClock, through_json

X: dict[str, Any] = {"x": {"kind": "number"}}


def recorded(times: list[int], first: float, timed: bool = True) -> Any:
    schema = Schema(features=X, time="t" if timed else None)
    rows = [{"x": first + i, "t": t} for i, t in enumerate(times)]
    return as_source(rows, schema)[0]


def block(values: list[float], times: list[int]) -> Block:
    n = len(values)
    column = np.array(values)[:, None]
    return Block(column, np.zeros(n), np.ones(n), np.full(n, LABELLED, np.uint8), Features(["x"]),
                 times=np.array(times, dtype=np.int64))  # fmt: skip


def taken(merged: Merged, sizes: list[int], polls: int = 10_000) -> list[float]:
    """The values of x in their order."""
    out: list[float] = []
    for k in range(polls):
        if merged.finished:
            break
        step = merged.take(sizes[k % len(sizes)], 0.1)
        if step is None:
            continue
        rows = [iter([] if b is None else b.block.X[:, 0].tolist()) for b in step.batches]
        out += [next(rows[i]) for i in step.order]
        assert np.count_nonzero(step.order == 0) <= sizes[k % len(sizes)]
    return out


def naive_order(streams: list[list[int]]) -> list[float]:
    """Sort by running maximum, input, place."""
    keyed = []
    for i, times in enumerate(streams):
        clock = -1
        for place, t in enumerate(times):
            clock = max(clock, t)
            keyed.append((clock, i, place, 1000.0 * i + place))
    return [value for *_, value in sorted(keyed)]


TIMES = st.lists(st.integers(0, 20), min_size=1, max_size=25)


@given(st.lists(TIMES, min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1))
def test_rows_go_by_time_then_by_input(streams: list[list[int]], sizes: list[int]) -> None:
    inputs = {f"in{i}": recorded(times, 1000.0 * i) for i, times in enumerate(streams)}
    merged = Merged(inputs)
    merged.open({})
    assert taken(merged, sizes) == naive_order(streams)


@given(TIMES, TIMES)
def test_without_times_rows_go_in_turn(one: list[int], other: list[int]) -> None:
    merged = Merged({"a": recorded(one, 0.0, False), "b": recorded(other, 1000.0, False)},
                    by_time=False)  # fmt: skip
    merged.open({})
    streams = [list(range(len(one))), list(range(len(other)))]
    assert taken(merged, [4]) == naive_order(streams)


@given(TIMES, TIMES, st.integers(0, 50), st.booleans())
def test_it_goes_on_from_state_and_positions(
    one: list[int], other: list[int], at: int, timed: bool
) -> None:
    def opened(positions: Positions, state: Any = None) -> Merged:
        inputs = {"a": recorded(one, 0.0, timed), "b": recorded(other, 1000.0, timed)}
        merged = Merged(inputs, by_time=timed)
        if state is not None:
            merged.load(through_json(state))
        merged.open(positions)
        return merged

    expected = taken(opened({}), [100])
    merged = opened({})
    head: list[float] = []
    while len(head) < at and not merged.finished:
        head += taken(merged, [1], polls=1)
    again = opened(merged.positions, merged.state())
    assert head + taken(again, [3]) == expected


def test_an_input_that_is_behind_holds_the_others_and_one_that_has_ended_does_not() -> None:
    clock = SettableClock()
    slow = ListSource([block([100.0], [5]), Mark.PAUSE, Mark.PAUSE, block([101.0], [7])], clock)
    fast = ListSource([block([0.0, 1.0, 2.0, 3.0], [1, 5, 6, 9])], clock)
    merged = Merged({"fast": fast, "slow": slow}, idle=60.0, clock=clock)
    merged.open({})
    assert taken(merged, [9], polls=4) == [0.0, 1.0, 100.0]  # 2.0 waits: slow may say 6 yet
    assert clock.now > 0.0
    assert taken(merged, [9]) == [2.0, 101.0, 3.0]
    assert merged.stalls == 0


class Bursts:
    """A source whose rows come when the clock says so."""

    guarantee = "again from any position"

    def __init__(self, rows: list[tuple[float, float, int]], clock: SettableClock) -> None:
        self.rows, self.clock, self.at = rows, clock, 0

    def open(self, positions: Positions) -> None:
        self.at = int(positions.get("row", 0))

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        if self.finished or self.rows[self.at][0] > self.clock.now:
            self.clock.sleep(max_wait)
            return None
        _, value, t = self.rows[self.at]
        self.at += 1
        return Batch(block([value], [t]), [], {"row": self.at})

    @property
    def finished(self) -> bool:
        return self.at >= len(self.rows)

    def close(self) -> None:
        """Nothing is open."""


def live(clock: SettableClock, order: OrderLog | None, punctual: bool = False) -> Merged:
    """Two inputs, of which the second is silent from 2 s to 9 s; punctual: not at all."""
    one = [(0.5 * i, float(i), i) for i in range(24)]
    two = [(0.0, 100.0, 0), (1.0, 101.0, 2), (9.0, 102.0, 3), (9.0, 103.0, 19), (9.5, 104.0, 19)]
    two = [(0.0, *row[1:]) for row in two] if punctual else two
    inputs = {"one": Bursts(one, clock), "two": Bursts(two, clock)}
    return Merged(inputs, idle=1.5, order=order, clock=clock)


def test_a_silent_input_is_passed_over_and_the_log_gives_the_same_order_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    merged = live(SettableClock(), OrderLog(tmp_path / "order.log"))
    merged.open({})
    order = taken(merged, [3])
    merged.close()
    assert merged.stalls == 1
    assert caplog.messages == ["two: nothing for 1.5 s; the others go on without it (told once)"]
    assert sorted(order) == sorted([*map(float, range(24)), *map(float, range(100, 105))])
    timely = live(SettableClock(), None, punctual=True)
    timely.open({})
    assert taken(timely, [3]) != order  # without the log the order would be another
    for sizes in ([1], [50]):
        log = OrderLog(tmp_path / "order.log", replay=True)
        again = live(SettableClock(), log, punctual=True)
        again.open({})
        assert taken(again, sizes) == order
        assert again.finished
        again.close()


@pytest.mark.parametrize("punctual", [False, True])
def test_a_choice_that_was_the_clock_s_is_durable_at_once(punctual: bool, tmp_path: Path) -> None:
    """What follows from the data is chosen again after a power failure; the clock is another."""
    synced: list[tuple[float, bool]] = []
    clock = SettableClock()

    class Noting(OrderLog):
        def append(self, order: NDArray[np.intp], offsets: I8, sync: bool = False) -> None:
            synced.append((clock.now, sync))
            super().append(order, offsets, sync)

    merged = live(clock, Noting(tmp_path / "order.log"), punctual)
    merged.open({})
    taken(merged, [3])
    merged.close()
    durable = [now for now, sync in synced if sync]
    assert bool(durable) is not punctual
    assert all(2.0 < now < 9.5 for now in durable)
    if not punctual:
        assert all(sync for now, sync in synced if 4.0 < now < 9.0)


@pytest.mark.parametrize("at", [0, 5, 9, 17, 28])
def test_recovery_repeats_the_log_and_goes_on(tmp_path: Path, at: int) -> None:
    """A run that dies after its checkpoint chooses again as it did, though the clock is another."""
    path = tmp_path / "order.log"
    first = live(SettableClock(), OrderLog(path))
    first.open({})
    head: list[float] = []
    while len(head) < at:
        head += taken(first, [1], polls=1)
    state, positions = through_json(first.state()), first.positions
    more: list[float] = []
    while len(more) < 6 and not first.finished:
        more += taken(first, [1], polls=1)
    again = live(SettableClock(100.0), OrderLog(path), punctual=True)
    again.load(state)
    again.open(positions)
    rest = taken(again, [2])
    assert rest[: len(more)] == more
    assert len(head) + len(rest) == 29
    again.close()
    first.close()


def test_data_that_end_before_the_log_are_refused(tmp_path: Path) -> None:
    merged = Merged({"a": recorded([1, 2, 3], 0.0)}, order=OrderLog(tmp_path / "order.log"))
    merged.open({})
    taken(merged, [9])
    merged.close()
    log = OrderLog(tmp_path / "order.log", replay=True)
    shorter = Merged({"a": recorded([1, 2], 0.0)}, order=log)
    shorter.open({})
    with pytest.raises(UserError, match=r"^a: ends at row 2, but the order log goes on"):
        taken(shorter, [9])
    shorter.close()
