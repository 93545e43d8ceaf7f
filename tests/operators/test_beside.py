"""Heads of one ensemble side by side: the bits of heads on their own, whoever walked which."""

import copy
import itertools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamlearn.block import Block, Features, Vocabulary
from streamlearn.jit import kalman_beside
from streamlearn.jit._compile import kernel
from streamlearn.jit.claim import exchange
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
from streamlearn.operators._beside import Beside
from streamlearn.testing import assert_same_bits, assert_same_state, block_of

Make = Callable[[], Any]
MAKES: dict[str, Make] = {
    "bag": lambda: OnlineBaggingClassifier(KalmanClassifier(delta0=0.01), n=5),
    "numbers": lambda: OnlineBaggingRegressor(KalmanRegressor(), n=3, lam=1.0),
    "resets": lambda: ADWINBaggingClassifier(KalmanClassifier(balance=True), n=4, delta=0.5),
    "mixture": lambda: ExpertMixtureRegressor([KalmanRegressor(), KalmanRegressor(sigma2=9.0)]),
    "champion": lambda: ChampionClassifier(KalmanClassifier(), KalmanClassifier(delta0=0.1)),
}


def stream(classes: bool, n: int = 600) -> list[Block]:
    """Blocks of several lengths, with gaps, weights, rows without labels, a class and a feature
    that come later, and a block that only asks at the start.
    """
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 4))
    X[rng.random((n, 4)) < 0.1] = np.nan
    score = np.nan_to_num(X[:, 0]) * np.where(np.arange(n) < n // 2, 1.0, -1.0)
    y = (score > 0) + (np.arange(n) > 200) * (score > 1.0) * 1.0 if classes else score
    y = np.where(rng.random(n) < 0.1, np.nan, y)
    weight, mode = rng.integers(0, 3, n).astype(np.float64), rng.choice([7, 7, 5, 6, 1], n)
    labels = Vocabulary(["a", "b"]), Vocabulary(["a", "b", "c"])
    names = ["x0", "x1", "x2", "x3"]
    blocks, at = [], 0
    for length in (3, 1, 60, 100, 1, 300, 135):
        rows, d = slice(at, at + length), 3 if at < 150 else 4
        at += length
        blocks.append(
            Block(
                np.ascontiguousarray(X[rows, :d]), y[rows], weight[rows],
                np.where(at == 3, 1, mode[rows]).astype(np.uint8),
                Features(names[:d]), labels[at > 164] if classes else None,
                log_wanted=length != 100,
            )
        )  # fmt: skip
    return blocks


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on each head walks on its own."""
    monkeypatch.setattr(Beside, "takes", lambda self, members: False)


@pytest.mark.jit
@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("name", MAKES)
def test_heads_side_by_side_give_the_bits_of_heads_alone(
    name: str, shares: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two shares, both threads are there for every block of more than a row."""
    monkeypatch.setattr(_threads, "cores", lambda: 2)
    monkeypatch.setattr(_threads, "LEAST_FREE", 0.0)
    monkeypatch.setattr(_threads.Crew, "shares", lambda self, rows: shares)
    both, real = threading.Barrier(shares), Beside._share
    walked: list[str] = []

    def share(self: Beside, rows: Any, *given: Any) -> None:
        if rows[0].shape[1] > 1:  # one row is walked by one thread
            both.wait(10.0)
        walked.append(threading.current_thread().name)
        real(self, rows, *given)

    monkeypatch.setattr(Beside, "_share", share)
    together = MAKES[name]()
    blocks = stream(together.task == "classification")
    found = [together.run(block) for block in blocks]
    assert len(walked) >= len(blocks) + (shares - 1) * (len(blocks) - 2)
    assert len(set(walked)) == shares
    alone(monkeypatch)
    lone = MAKES[name]()
    for block, outputs in zip(blocks, found, strict=True):
        assert_same_bits(outputs, lone.run(block), name)
    assert_same_state(together.state(), lone.state(), name)


def test_what_a_head_writes_shares_no_two_cache_lines_with_another() -> None:
    bag = OnlineBaggingClassifier(KalmanClassifier(), n=3)
    bag.run(stream(True)[0])
    spans = []
    for head in bag.members_:
        views = [getattr(head, name) for name in ("_means", "_covariance", "_outputs", "scalars_")]
        first = min(view.ctypes.data for view in views)
        spans.append((first // 128, max(v.ctypes.data + v.nbytes - 1 for v in views) // 128))
        assert first % 128 == 0
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def pickled(bag: Any) -> Any:
    """As it comes back from another process."""
    return pickle.loads(pickle.dumps(bag))  # noqa: S301  # our own bytes


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_has_records_of_its_own(copied: Callable[[Any], Any]) -> None:
    blocks, bag = stream(True), OnlineBaggingClassifier(KalmanClassifier(), n=3)
    bag.run(blocks[0])
    twin, before = copied(bag), bag.state()
    outputs = twin.run(blocks[2])
    assert_same_state(bag.state(), before, "the other")
    assert_same_bits(bag.run(blocks[2]), outputs, "its copy")
    assert_same_state(bag.state(), twin.state(), "the copy")


def test_a_state_that_is_put_back_counts() -> None:
    """A snapshot gives a head arrays that are not in its record."""
    blocks, bag = stream(True), OnlineBaggingClassifier(KalmanClassifier(), n=3)
    bag.run(blocks[2])
    taken = bag.snapshot()
    outputs, after = bag.run(blocks[2]), bag.state()
    for _ in range(2):
        bag.restore(taken)
        assert_same_bits(bag.run(blocks[2]), outputs, "again")
        assert_same_state(bag.state(), after, "again")


def test_a_bad_weight_is_refused_and_who_has_it_has_learnt_nothing() -> None:
    X, y = np.ones((3, 2)), np.zeros(3)
    bag = OnlineBaggingClassifier(KalmanClassifier(), n=3, lam=50.0)
    block = block_of(X, y, task="classification")
    bag.run(block)
    before = [head.state() for head in bag.members_]
    bad = block.replace(weight=np.array([1.0, -2.0, 1.0]))
    with pytest.raises(
        ValueError,
        match=r"^KalmanClassifier: weight must be >= 0 and finite, got -\d+\.0 in row 1 of",
    ):
        bag.run(bad)
    for head, state in zip(bag.members_, before, strict=True):
        assert_same_state(head.state(), state, "head")


@pytest.mark.parametrize(
    ("members", "taken"),
    [
        ([KalmanClassifier(), KalmanClassifier(sigma2=1.0)], True),
        ([KalmanRegressor(), KalmanRegressor()], True),
        ([KalmanClassifier()], False),  # one gains nothing
        ([KalmanRegressor(), KalmanRegressor(random_features=2)], False),
        ([KalmanRegressor(), KalmanRegressor(form="sqrt")], False),
        ([KalmanRegressor(), KalmanRegressor(groups="each")], False),
        ([KalmanClassifier(), KalmanClassifier(evaluator="monte_carlo")], False),
        ([KalmanClassifier(), OnlineBaggingClassifier(n=2)], False),
        ([KalmanRegressor()] * 2, False),  # one and the same
    ],
)
def test_linear_heads_of_one_kind_stand_side_by_side(members: list[Operator], taken: bool) -> None:
    assert Beside().takes(members) == taken


def test_a_wide_head_stands_alone() -> None:
    """Its matrix is in tiles, and updates wait."""
    heads: list[Any] = [KalmanRegressor(), KalmanRegressor()]
    beside = Beside()
    assert beside.takes(heads)
    heads[0].meet(Features([f"x{i}" for i in range(400)]))
    heads[1].meet(heads[0]._features)
    assert not beside.takes(heads)


def test_a_record_holds_every_number_once() -> None:
    K, D = 3, 5
    parts = kalman_beside.parts_of_body(np.arange(float(kalman_beside.record_size(K, D) + 7)), K, D)
    numbers = np.concatenate([part.ravel() for part in parts])
    assert numbers.tolist() == list(range(kalman_beside.record_size(K, D)))


@kernel
def add_alone(taken: Any, counts: Any) -> None:
    """Add to all counts, each time as the only one to have the mark."""
    for _ in range(2000):
        while exchange(taken, 0, 1) != 0:
            pass
        for i in range(counts.shape[0]):
            counts[i] += 1
        exchange(taken, 0, 0)


@pytest.mark.jit
def test_one_thread_at_a_time_has_a_mark() -> None:
    taken, counts = np.zeros(1, np.int64), np.zeros(50, np.int64)
    threads = [threading.Thread(target=add_alone, args=(taken, counts)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts == 6000).all()
    assert taken[0] == 0
