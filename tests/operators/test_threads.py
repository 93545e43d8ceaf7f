"""Members in threads: the bits of one thread, whoever did what; and no thread for little work."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from streamlearn.block import Block
from streamlearn.operators import (
    ADWINBaggingClassifier,
    ChampionClassifier,
    ExpertMixtureRegressor,
    KalmanClassifier,
    KalmanRegressor,
    OnlineBaggingClassifier,
    OnlineBaggingRegressor,
    _threads,
)
from streamlearn.operators._base import Operator
from streamlearn.operators._threads import LEAST_WORK, Crew, map_members
from streamlearn.testing import assert_same_bits, assert_same_state, block_of

CURVED: Any = {"random_features": 2}  # linear heads are walked together, see test_beside.py
MAKES: dict[str, Callable[[], Operator]] = {
    "bagging": lambda: OnlineBaggingClassifier(KalmanClassifier(**CURVED), n=5),
    "numbers": lambda: OnlineBaggingRegressor(KalmanRegressor(**CURVED), n=3),
    "resets": lambda: ADWINBaggingClassifier(KalmanClassifier(**CURVED), n=4, delta=0.5),
    "mixture": lambda: ExpertMixtureRegressor([KalmanRegressor(), KalmanRegressor(**CURVED)]),
    "champion": lambda: ChampionClassifier(KalmanClassifier(), KalmanClassifier(**CURVED)),
}


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads for everything, on a machine of any size."""
    monkeypatch.setattr(_threads, "cores", lambda: 2)
    monkeypatch.setattr(_threads, "LEAST_WORK", 0.0)


def rows(classes: bool, n: int = 300) -> Block:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 3))
    score = X[:, 0] * np.where(np.arange(n) < n // 2, 1.0, -1.0)
    y = (score > 0) * 1.0 if classes else score
    return block_of(X, y, task="classification" if classes else "regression")


@pytest.mark.jit
@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("name", MAKES)
def test_members_in_threads_give_the_bits_of_one_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped = threading.Event()
    real = Operator.run
    together, alone = MAKES[name](), MAKES[name]()

    def run(self: Operator, block: Block) -> Any:
        if threading.current_thread().name.startswith("streamlearn-members"):
            helped.set()
        elif self is not together:  # a member: not before another thread has one, too
            helped.wait(10.0)
        return real(self, block)

    block = rows(together.task == "classification")
    monkeypatch.setattr(Operator, "run", run)
    pieces = [block.rows(a, min(a + 70, block.n)) for a in range(0, block.n, 70)]
    with_threads = [together.run(piece) for piece in pieces]
    assert helped.is_set()
    monkeypatch.setattr(_threads, "cores", lambda: 1)
    for piece, outputs in zip(pieces, with_threads, strict=True):
        assert_same_bits(outputs, alone.run(piece), name)
    assert_same_state(together.state(), alone.state(), name)


@pytest.mark.usefixtures("two_cores")
def test_results_come_in_the_order_of_the_calls_from_two_threads() -> None:
    both = threading.Barrier(2)  # passed by two threads at once, or by none

    def call(j: int) -> tuple[int, str]:
        if j < 2:
            both.wait(10.0)
        return j, threading.current_thread().name

    found = map_members([partial(call, j) for j in range(7)], 1.0)
    assert [j for j, _ in found] == list(range(7))
    assert len({name for _, name in found}) == 2


@pytest.mark.usefixtures("two_cores")
def test_the_first_call_that_fails_is_heard_after_all_have_ended() -> None:
    done: list[int] = []

    def call(j: int) -> None:
        if j in (1, 3):
            raise ValueError(f"call {j} fails")
        done.append(j)

    with pytest.raises(ValueError, match=r"^call 1 fails$"):
        map_members([partial(call, j) for j in range(3)], 1.0)
    assert set(done) <= {0, 2}
    assert 0 in done


@pytest.mark.usefixtures("two_cores")
def test_a_call_that_has_calls_of_its_own_makes_them_in_its_thread() -> None:
    """Else two ensembles of ensembles would wait for each other's helpers."""

    def inner() -> str:
        return threading.current_thread().name

    def outer() -> list[str]:
        return [inner(), *map_members([inner, inner, inner], 1.0)]

    for names in map_members([outer] * 5, 1.0):
        assert len(set(names)) == 1


@pytest.mark.parametrize(("cores", "work"), [(2, LEAST_WORK - 1.0), (1, 1e12)])
def test_little_work_and_one_core_take_no_thread(
    cores: int, work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "cores", lambda: cores)
    names = map_members([lambda: threading.current_thread().name] * 4, work)
    assert names == [threading.current_thread().name] * 4


def test_the_first_block_of_a_crew_tells_what_a_row_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def noted(calls: Any, work: float, least: float) -> list[Any]:
        asked.append(work)
        return [call() for call in calls]

    monkeypatch.setattr(_threads, "map_members", noted)
    ticks = iter(range(0, 10**9, 500))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(ticks))  # 500 ns a call
    crew = Crew()
    for n in (10, 30):
        assert crew.map([lambda: 1, lambda: 2], n) == [1, 2]
    assert asked == [0.0, 30 * 2 * 500 / 10]


def test_a_crew_cuts_work_into_as_many_shares_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 ns a row, as ten rows said: that holds of up to eighty; 300 us are to be done by each."""
    ticks = iter(range(0, 10**9, 5000))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(ticks))
    monkeypatch.setattr(_threads, "cores", lambda: 4)
    crew = Crew()
    assert crew.shares(10**6) == 1
    crew.map([lambda: 1], 10)
    monkeypatch.setattr(_threads, "LEAST_WORK", 12_000.0)
    assert [crew.shares(n) for n in (23, 24, 35, 36, 80, 10**6)] == [1, 2, 2, 3, 4, 4]
    monkeypatch.setattr(_threads, "LEAST_WORK", 20_001.0)
    assert [crew.shares(n) for n in (80, 10**6)] == [3, 3]
    inside = map_members([partial(crew.shares, 80)] * 3, 10**6)
    assert inside == [1, 1, 1]


def test_calls_that_never_wait_for_the_gil_pay_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**9, 5000))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(ticks))  # 500 ns a row
    monkeypatch.setattr(_threads, "cores", lambda: 2)
    monkeypatch.setattr(_threads, "LEAST_FREE", 30_000.0)
    asked: list[float] = []

    def noted(calls: Any, work: float, least: float) -> list[Any]:
        asked.append(least)
        return [call() for call in calls]

    monkeypatch.setattr(_threads, "map_members", noted)
    for crew, shares in ((Crew(), 1), (Crew(free=True), 2)):
        crew.map([lambda: 1], 10)
        assert crew.shares(80) == shares  # 40 us
    assert asked == [LEAST_WORK, 30_000.0]


def _child(answers: Any) -> None:
    answers.put(map_members([os.getpid] * 4, 1.0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads
@pytest.mark.usefixtures("two_cores")
def test_a_child_of_this_process_makes_threads_of_its_own() -> None:
    map_members([os.getpid] * 4, 1.0)
    forks = multiprocessing.get_context("fork")
    answers = forks.Queue()
    child: Any = forks.Process(target=_child, args=(answers,))
    child.start()
    assert answers.get(timeout=30.0) == [child.pid] * 4
    child.join()
