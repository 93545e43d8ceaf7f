"""Banks: one model a key does what an operator of its own would do, whatever is evicted."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.block import F8, PREDICT, Block
from streamlearn.errors import UserError
from streamlearn.operators import (
    AdaptiveRegressor,
    AnalyticClassifier,
    AnalyticRegressor,
    BalancedNormalizer,
    KalmanClassifier,
    KalmanRegressor,
    KeyedClassifier,
    KeyedRegressor,
    Normalizer,
    _cold,
    _records,
    _threads,
)
from streamlearn.operators._base import Operator
from streamlearn.operators._layout import relaid
from streamlearn.pipeline import Pipeline
from streamlearn.testing import (
    Plan,
    Stream,
    assert_same_bits,
    assert_same_state,
    check_block_law,
    check_delay_zero,
    check_late_labels,
    check_resume,
    check_snapshot,
    labelled,
    run_in_cuts,
)

MODELS: dict[str, Callable[[], Any]] = {
    "kalman": KalmanRegressor,
    "rescaled": lambda: KalmanRegressor(
        sigma_w2=1.5, feature_norm2=10.0, delta0=0.01, decay_mean=False
    ),
    "least squares": lambda: AnalyticRegressor(lam=0.8, ridge=1.0),
    "classes": KalmanClassifier,
    "balanced": lambda: KalmanClassifier(
        sigma_w2=1.5, delta_objective="gaussian", balance=True, delta0=0.01
    ),
    "least squares classes": lambda: AnalyticClassifier(lam=0.8, ridge=1.0),
    "calibrated": lambda: AnalyticClassifier(lam=1.0, lr_alpha=0.3, balance=True),
    "clipped": lambda: AnalyticClassifier(lam=1.0, probabilities="clip"),
    "scaled": lambda: Pipeline(Normalizer(), KalmanRegressor()),
    "scaled first": lambda: Pipeline(
        Normalizer(m=0.05, kappa=0.5, clip=2.0, update_first=True), AnalyticRegressor(lam=1.0)
    ),
    "scaled classes": lambda: Pipeline(Normalizer(m=0.1), KalmanClassifier()),
    "scaled least squares": lambda: Pipeline(Normalizer(), AnalyticClassifier(lam=1.0)),
}


def _plan(model: Operator, **more: Any) -> Plan:
    kinds = (("normal", "missing"), ("offset",))
    plan = Plan(str(model.task), (60, 60), kinds, "mixed", True, True, True, seed=3, keys=5)
    return plan._replace(**more)


def _bank(model: Any, **more: Any) -> Any:
    return (KeyedClassifier if model.task == "classification" else KeyedRegressor)(model, **more)


@pytest.mark.parametrize("name", MODELS)
def test_each_key_is_an_operator_of_its_own_after_every_row(name: str) -> None:
    """Missing values, weights, rows that only ask, features and classes that come: the same bits.

    Least squares that forget give the ridge back by other operations: the same but for rounding.
    """
    stream = Stream.from_plan(_plan(MODELS[name]()))
    own: dict[int, Operator] = {}
    got = _bank(MODELS[name]())
    for block in stream.blocks(range(stream.n)):
        assert block.keys is not None
        twin = own.setdefault(block.keys[0], MODELS[name]())
        said, expected = got.run(block), twin.run(block)
        if name.startswith("least squares"):
            for column, values in expected.items():
                known = values.shape[-1] if column == "proba" else None
                np.testing.assert_allclose(said[column][..., :known], values, rtol=1e-9)
        else:
            assert_same_bits(expected, said, name)
    assert got.n_keys_ == len(own)


@pytest.mark.parametrize("name", ["scaled", "scaled classes"])
def test_a_late_label_finds_what_its_keys_own_scaling_made_of_the_event(name: str) -> None:
    """A pipeline of its own for every key, which is fed the rows of that key, says the same."""
    stream = Stream.from_plan(_plan(MODELS[name](), modes="late"))
    said = run_in_cuts(Pipeline(_bank(MODELS[name]())), stream.blocks([50, 51, 90]))
    assert stream.keys is not None
    for key in np.unique(stream.keys):
        rows = np.flatnonzero(stream.keys == key)
        own = MODELS[name]()
        blocks = list(stream.blocks(range(stream.n)))
        told = [own.run(blocks[row])["prediction"][0] for row in rows]
        np.testing.assert_array_equal(told, said["prediction"][rows])


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", ["scaled", "scaled least squares"])
def test_keys_that_scale_their_features_hold_the_laws(name: str) -> None:
    """While keys are evicted and come back."""

    def make() -> Any:
        return _bank(MODELS[name](), max_keys=4)

    for seed, modes in enumerate(("mixed", "labelled", "late")):
        stream = Stream.from_plan(_plan(MODELS[name](), keys=12, modes=modes, seed=seed))
        check_block_law(make, stream, [17, 40, 41, 90])
        check_resume(make, stream, 70)
        check_snapshot(make, stream, 50)
        check_late_labels(make, stream, [33, 80])
        if modes == "labelled":
            check_delay_zero(make, stream)


def test_moments_are_of_the_values_of_one_key() -> None:
    """Weighted means and variances of a memory that never fades, by numpy."""
    rng = np.random.default_rng(0)
    X, weight, keys = rng.normal(3.0, 2.0, (90, 2)), rng.uniform(0.5, 2.0, 90), np.arange(90) % 3
    model = KeyedRegressor(Pipeline(Normalizer(kappa=0.0), KalmanRegressor()))
    model.run(labelled(X, X[:, 0]).replace(keys=keys, weight=weight))
    own = keys == 1
    mean = np.average(X[own], axis=0, weights=weight[own])
    variance = np.average((X[own] - mean) ** 2, axis=0, weights=weight[own])
    expected = [mean, variance, np.full(2, weight[own].sum())]
    moments = model.moments(1)
    assert moments is not None
    np.testing.assert_allclose(moments, expected, rtol=1e-12)
    assert model.moments(7) is None
    assert KeyedRegressor().moments() is None


KEPT: dict[str, dict[str, Any]] = {
    "few": {"max_keys": 3},
    "old": {"max_keys": None, "max_age": 6},
    "both": {"max_keys": 4, "max_age": 20},
}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at what is to be evicted every eight events."""
    monkeypatch.setattr(_records, "EVERY", 8)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("evicted", ["keep", "forget"])
@pytest.mark.parametrize("kept", KEPT)
def test_eviction_holds_the_laws(kept: str, evicted: str) -> None:
    for seed, modes in enumerate(("mixed", "labelled", "late")):
        plan = _plan(KalmanClassifier(), keys=12, modes=modes, seed=seed)
        stream = Stream.from_plan(plan)

        def make() -> Any:
            return KeyedClassifier(None, evicted=evicted, **KEPT[kept])

        check_block_law(make, stream, [17, 40, 41, 90])
        check_resume(make, stream, 70)
        check_snapshot(make, stream, 50)
        check_late_labels(make, stream, [33, 80])


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("kept", KEPT)
def test_a_key_that_comes_back_finds_its_model_as_it_was(kept: str) -> None:
    """Also where it only asks, and where the records got wider meanwhile."""
    stream = Stream.from_plan(_plan(KalmanClassifier(), keys=12))
    bounded, free = KeyedClassifier(None, **KEPT[kept]), KeyedClassifier(max_keys=None)
    assert_same_bits(
        run_in_cuts(free, stream.blocks([30, 77])), run_in_cuts(bounded, stream.blocks())
    )
    assert bounded.n_evicted_ >= 3
    assert bounded.n_keys_ + bounded.n_evicted_ == free.n_keys_
    for key in range(-1, 11):
        assert repr(bounded.metrics(key)) == repr(free.metrics(key))


@pytest.mark.usefixtures("often")
def test_those_not_seen_for_the_longest_go_and_forgotten_ones_begin_anew() -> None:
    """Eight events bring the keys 1 to 8; five are over the three, and of an eighth none more."""
    model = KeyedRegressor(max_keys=3, evicted="forget")
    X, y = np.ones((8, 1)), np.arange(8.0)
    model.run(labelled(X, y).replace(keys=np.array([8, 7, 1, 2, 3, 4, 5, 6])))
    assert [key in model for key in (6, 5, 4, 3, 8)] == [True, True, True, False, False]
    assert (model.n_keys_, model.n_evicted_) == (3, 0)
    assert model.metrics(8) is None
    assert model.predict_one({"x0": 1.0}, key=8) == 0.0


@pytest.mark.usefixtures("often")
def test_what_came_back_is_let_go_although_a_wrapper_takes_snapshots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 keys by eights, four of which stay: else each block would leave eight dead records."""
    monkeypatch.setattr(_cold, "_MAX_DEAD", 8)
    keyed = KeyedRegressor(max_keys=4)
    model = AdaptiveRegressor(keyed)
    for t in range(60):
        keys = np.arange(8) + t % 5 * 8
        model.run(labelled(np.ones((8, 1)), np.zeros(8)).replace(keys=keys))
    assert (keyed.n_keys_, keyed.n_evicted_) == (4, 36)
    records: Any = keyed._records
    assert sum(len(s.keys) for s in records.cold.segments.values()) <= 90
    assert records.left is None, "nobody keeps files of them"


@pytest.mark.usefixtures("often")
def test_where_all_keys_have_room_none_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a hundred thousand records cost more than the block, every 4,096 events."""
    model = KeyedRegressor(max_keys=16)
    records: Any = model._records
    X, y = np.ones((32, 1)), np.zeros(32)
    blocks = [labelled(X[:n], y[:n]).replace(keys=np.arange(n) % 16) for n in (8, 16, 32)]
    monkeypatch.setattr(records, "_evict", lambda *_: pytest.fail("evicts"))
    assert model._parts(blocks[1]) == [(0, 16, False)]
    assert model._parts(blocks[2]) == [(0, 8, True), (8, 16, True), (16, 24, True), (24, 32, True)]
    model.run(blocks[2])
    monkeypatch.setattr(np, "flatnonzero", lambda *_: pytest.fail("looks"))
    records.evict(16, None, True)
    assert model.n_keys_ == 16


# -- shards ----------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards of every bank in two threads, on a machine of any size."""
    monkeypatch.setattr(_threads, "cores", lambda: 2)
    monkeypatch.setattr(_threads, "LEAST_WORK", 0.0)
    monkeypatch.setattr(_threads.Crew, "shares", lambda self, rows: 3)


def _alone(model: Any) -> Any:
    """The same bank, walked by one thread."""
    model._crew.shares = lambda rows: 1
    return model


@pytest.mark.jit
@pytest.mark.usefixtures("often", "threads")
@pytest.mark.parametrize("name", ["kalman", "least squares", "classes", "scaled"])
def test_shards_in_threads_give_the_bits_of_one_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped = threading.Event()
    together, alone = (_bank(MODELS[name](), max_keys=9) for _ in range(2))
    real = type(together)._walk_shard

    def walk(self: Any, *given: Any) -> None:
        if threading.current_thread().name.startswith("streamlearn-members"):
            helped.set()
        elif self is together:  # not before another thread has a shard, too
            helped.wait(10.0)
        real(self, *given)

    monkeypatch.setattr(type(together), "_walk_shard", walk)
    stream = Stream.from_plan(_plan(MODELS[name](), keys=12))
    said = run_in_cuts(together, stream.blocks([50]))
    assert helped.is_set()
    assert_same_bits(run_in_cuts(_alone(alone), stream.blocks([50])), said)
    assert_same_state(alone.state(), together.state())


@pytest.mark.usefixtures("often", "threads")
@settings(max_examples=25)
@given(
    st.sampled_from(["mixed", "labelled", "late"]), st.integers(0, 99), st.integers(1, 12),
    st.lists(st.integers(1, 119), max_size=3, unique=True).map(sorted),
)  # fmt: skip
def test_shards_give_the_bits_of_one_however_the_stream_is_cut(
    modes: str, seed: int, keys: int, cuts: list[int]
) -> None:
    """Whatever is evicted, asked or late; and after the last piece was undone and done again."""
    stream = Stream.from_plan(_plan(KalmanClassifier(), modes=modes, seed=seed, keys=keys))
    sharded, alone = KeyedClassifier(max_keys=4), _alone(KeyedClassifier(max_keys=4))
    expected = [alone.run(block) for block in stream.blocks(cuts)]
    for block, answers in zip(stream.blocks(cuts), expected, strict=True):
        taken = sharded.snapshot()
        for _ in range(2):
            sharded.restore(taken)
            assert_same_bits(answers, sharded.run(block))
    assert_same_state(alone.state(), sharded.state())


def test_metrics_of_a_key_are_those_of_its_answers() -> None:
    rng = np.random.default_rng(0)
    X, keys = rng.normal(size=(200, 2)), rng.integers(0, 3, 200)
    y = X @ [1.0, -1.0] + keys
    block = labelled(X, y).replace(keys=keys)
    model = KeyedRegressor()
    said = model.run(block)["prediction"]
    wrong = np.abs(said - y)[keys == 1]
    found = model.metrics(1)
    assert found is not None
    assert found["lessons"] == wrong.size
    assert found["mae"] == pytest.approx(wrong.mean(), rel=1e-12)
    assert found["rmse"] == pytest.approx(np.sqrt((wrong**2).mean()), rel=1e-12)
    assert found["last_seen"] == 1 + np.flatnonzero(keys == 1)[-1]
    weights = model.weights(1)
    assert weights is not None
    assert np.abs(weights[0, 1:] - [1.0, -1.0]).max() < 0.05


def test_keys_are_integers_and_text_and_rows_without_one_share_a_model() -> None:
    X, y = np.ones((6, 1)), np.arange(6.0)
    keys = np.array(["a", None, "b", float("nan"), "", "a"], dtype=object)
    coded = np.array([7, None, -3, None, None, 7], dtype=object)
    told, counted = KeyedRegressor(), KeyedRegressor()
    expected = counted.run(labelled(X, y).replace(keys=coded))
    assert_same_bits(expected, told.run(labelled(X, y).replace(keys=keys)))
    twice = told.run(labelled(X[:2], y[:2]).replace(keys=np.array(["a", "b"])))
    assert_same_bits(counted.run(labelled(X[:2], y[:2]).replace(keys=coded[[0, 2]])), twice)
    assert told.n_keys_ == 3
    least = labelled(X[:1], y[:1]).replace(keys=np.array([-(2**63)]))
    assert (-(2**63) in counted, told.n_keys_) == (False, 3)
    counted.run(least)
    assert (-(2**63) in counted, counted.n_keys_) == (True, 4)
    large = labelled(X[:1], y[:1]).replace(keys=np.array([2**64 - 3], dtype=np.uint64))
    told.run(large)
    assert (2**64 - 3 in told, -3 in told, 2**70 in told) == (True, False, False)
    with pytest.raises(TypeError, match=r"a key must be an integer, text or None, got 1\.5"):
        told.run(labelled(X[:1], y[:1]).replace(keys=np.array([1.5])))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KalmanRegressor(form="sqrt"), "model.form must be 'standard', got 'sqrt'"),
        (KalmanRegressor(random_features=3), "model.random_features must be 0, got 3"),
        (AnalyticRegressor(window=9), "model.window must be None, got 9"),
        (
            KalmanClassifier(),
            r"model must be a .* or a Pipeline of Normalizer\(\) and one, got KalmanClassifier\(\)",
        ),
        (Pipeline(BalancedNormalizer(by="key"), KalmanRegressor()), "model must be .* got Pipel"),
        (Pipeline(Normalizer(), Normalizer(), KalmanRegressor()), "model must be .* got Pipel"),
        (Pipeline(Normalizer(), KalmanRegressor(form="sqrt")), "model.form must be 'standard'"),
    ],
)
def test_a_model_that_no_record_holds_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^KeyedRegressor: {message}"):
        KeyedRegressor(model)


def test_limits_of_a_model_are_those_of_its_keys() -> None:
    model = KeyedClassifier(AnalyticClassifier(max_d=2, max_classes=2))
    model.learn_one({"a": 1.0, "b": 1.0}, "x", key=1)
    model.learn_one({"a": 1.0}, "y", key=2)
    with pytest.raises(UserError, match=r"model\.max_d must be at least .* 3 so far, got 2$"):
        model.learn_one({"c": 1.0}, "x", key=1)
    with pytest.raises(UserError, match=r"model\.max_classes must be at least .* 3 so far, got 2$"):
        model.learn_one({"a": 1.0}, "z", key=1)


@pytest.mark.parametrize("key", [3, "nobody"])
def test_who_asks_with_a_name_never_learnt_has_one_record_widened(
    key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the bank; the answer is that of a bank that was widened, and nothing stays of it."""
    model = KeyedClassifier(Pipeline(Normalizer(), KalmanClassifier()))
    rng = np.random.default_rng(0)
    for t, (a, b) in enumerate(rng.normal(size=(60, 2))):
        model.learn_one({"a": a, "b": b}, bool(a > b), key=t % 5)
    asked, wide = {"a": 1.0, "b": 0.5, "new": 2.0}, copy.deepcopy(model)
    wide._open_columns(asked)
    expected = wide.predict_proba_one(asked, key=key)
    before, whole = model.state(), model._records
    widths: list[int] = []

    def spied(rows: F8, *layouts: Any) -> F8:
        widths.append(len(rows))
        return relaid(rows, *layouts)

    monkeypatch.setattr(_records, "relaid", spied)
    assert model.predict_proba_one(asked, key=key) == expected
    assert widths == [1 + (key in model)], "a record of nobody, and the one of the key"
    assert model._records is whole
    monkeypatch.undo()
    assert_same_state(before, model.state())


def _walked(model: KeyedRegressor, seed: int, n: int = 30) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 1 + seed % 2))
    block = labelled(X, X[:, 0] * seed).replace(keys=rng.integers(0, 40, n))
    block = block.replace(mode=rng.choice(np.array([7, 7, 5, 2, 1], np.uint8), n))
    if len(block.features) >= len(model._features):
        model.run(block)


@pytest.mark.usefixtures("often", "threads")
@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["walk", "take", "back", "drop"]), st.integers(0, 9))))
def test_versions_are_restored_in_any_order(steps: list[tuple[str, int]]) -> None:
    """Snapshots held, dropped, gone back to and forth from, while keys come and are evicted."""
    model = KeyedRegressor(max_keys=10)
    held: list[tuple[dict[str, Any], Any]] = []
    for what, k in [("walk", 1), ("take", 0), *steps]:
        if what == "walk":
            _walked(model, k)
        elif what == "take":
            held.append((model.snapshot(), model.state()))
        elif held and what == "drop":
            del held[k % len(held)]
        elif held:
            taken, state = held[k % len(held)]
            model.restore(taken)
            assert_same_state(state, model.state())
    for taken, state in held:
        model.restore(taken)
        assert_same_state(state, model.state())


@pytest.mark.jit
def test_room_grows_by_half_and_keeps_what_was_there() -> None:
    """So few copies are made; the rest of the new room is not touched."""
    model, rooms = KeyedRegressor(), []
    X = np.ones((2048, 2))
    for first in range(0, 20_000, 2048):
        keys = np.arange(first, first + 2048)
        model.run(labelled(X, keys * 1.0).replace(keys=keys))
        rooms.append(model._records.rows.shape[0])  # type: ignore[union-attr]  # of the CPU
    assert sorted({*rooms}) == [4096, 8192, 12288, 20480, 32768]
    asked = labelled(X[:2], X[:2, 0]).replace(keys=np.array([7, 19_999]))
    said = model.run(asked.replace(mode=np.full(2, PREDICT, np.uint8)))["prediction"]
    np.testing.assert_allclose(said, [7.0, 19_999.0], rtol=1e-6)


@pytest.mark.jit
def test_a_snapshot_copies_what_is_touched_and_growth_what_is_new() -> None:
    """10,000 keys: the table and the room grow on the way; a walk of 64 keys keeps 64 records."""
    model, n = KeyedRegressor(), 10_000
    X = np.ones((n, 2))
    model.run(labelled(X, np.arange(n) * 1.0).replace(keys=np.arange(n) * 7919))
    assert model.n_keys_ == n
    taken = model.snapshot()
    block: Block = labelled(X[:640], np.full(640, -5.0)).replace(keys=np.arange(640) % 64 * 7919)
    model.run(block)
    entries = taken["_records"].entries
    assert {what for what, _ in entries} == {"rows"}
    assert [sum(len(kept[i]) for _, kept in entries) for i in (0, 1)] == [64, 64]
    asked = block.replace(mode=np.full(640, PREDICT, np.uint8))
    later = model.run(asked)["prediction"]
    model.restore(taken)
    now: F8 = model.run(asked)["prediction"]
    assert (now != later).all()
    assert now[7] == copy.deepcopy(model).run(asked)["prediction"][7]
