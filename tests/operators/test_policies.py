"""Policies at an alarm, alone and combined, against a plain loop over events."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import LABELLED, LEARN, UNSCORED, Block, Features
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    AdaptiveRegressor,
    AnalyticClassifier,
    HedgeMLPClassifier,
    ImplicitLinearClassifier,
    KalmanClassifier,
    KalmanRegressor,
    LiteRVFLClassifier,
    MajorityClassifier,
    Normalizer,
)
from streamlearn.operators._policies import Recent
from streamlearn.pipeline import Pipeline
from streamlearn.testing import assert_same_bits, assert_same_state, cut
from tests.operators.test_adaptive import drifting

COMBINED: list[Any] = [
    "forget",
    ["reset", {"replay": {"rows": 40}}],
    ["inflate", {"forget": {"memory": 10, "rows": 30}}],
    {"reset": None, "forget": {"memory": 20, "rows": 25}, "replay": {"rows": 60, "times": 2}},
]


class Naive:
    """One event at a time; no blocks, no snapshots, the last lessons in a list."""

    def __init__(self, policy: Any, delta: float) -> None:
        self.wanted = policy if isinstance(policy, dict) else {}
        for one in [policy] if isinstance(policy, str) else policy:
            self.wanted |= one if isinstance(one, dict) else {one: self.wanted.get(one)}
        self.delta = delta
        self.model: Any = KalmanClassifier()
        self.detector = ADWIN(delta=delta)
        self.lessons: list[tuple[Block, float]] = []
        self.hasty = 0

    def step(self, row: Block) -> int:
        """Ask, compare, learn; what the policy says where the detector alarms."""
        taught = bool(row.mode[0] & LEARN) and not np.isnan(row.y[0])
        asked = self.model.clone()
        asked.load(self.model.state())
        said = asked.run(row.replace(mode=np.array([1], np.uint8)))["prediction"][0]
        self.model.run(row)
        if not taught:
            return 0
        error = float(said != row.y[0])
        if self.hasty:
            self.hasty -= 1
            if not self.hasty:
                self.model.hasten(None)
        self.lessons.append((row, np.nan_to_num(error if not np.isnan(said) else np.nan)))
        if np.isnan(said):
            return 0
        if self.detector.first_alarm(np.array([error])) < 0 or not self.detector.rose:
            return 0
        self.adapt()
        return 1

    def adapt(self) -> None:
        """The actions in their order."""
        for name, given_ in self.wanted.items():
            arguments = given_ or {}
            if name == "reset":
                self.model, self.detector = KalmanClassifier(), ADWIN(delta=self.delta)
            elif name == "inflate":
                self.model.inflate(10.0)
            elif name == "forget":
                self.hasty = arguments.get("rows", 200)
            elif name == "replay":
                self.replay(arguments.get("rows", 200), arguments.get("times", 1))
        if self.hasty:
            self.model.hasten((self.wanted["forget"] or {}).get("memory", 50))

    def replay(self, rows: int, times: int) -> None:
        """The lessons after the split that leaves the least sum of squares."""
        last = self.lessons[-rows:]
        errors = np.array([error for _, error in last])
        left = [
            ((errors[:k] - errors[:k].mean()) ** 2).sum()
            + ((errors[k:] - errors[k:].mean()) ** 2).sum()
            for k in range(1, len(errors))
        ]
        start = 1 + int(np.argmin(np.round(left, 9))) if np.ptp(errors) > 0 else 0
        for _ in range(times):
            for row, _ in last[start:]:
                self.model.run(row.replace(mode=np.array([UNSCORED], np.uint8)))


@pytest.mark.jit
@pytest.mark.parametrize("policy", COMBINED, ids=str)
def test_policies_do_as_a_plain_loop_over_events_does(policy: Any) -> None:
    block = drifting(1200, seed=4, period=200)
    twin = Naive(policy, delta=0.05)
    alarms = [twin.step(block.rows(t, t + 1)) for t in range(block.n)]
    wrapper = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.05), policy)
    np.testing.assert_array_equal(wrapper.run(block)["alarm"], alarms)
    assert sum(alarms) >= 2
    for name, array in twin.model.state().arrays.items():
        np.testing.assert_array_equal(wrapper.model.state().arrays[name], array)


@pytest.mark.jit
@given(st.sampled_from(COMBINED[1:]), st.lists(st.integers(1, 499), max_size=8), st.integers(0, 3))
def test_no_cut_and_no_crash_changes_a_bit(policy: Any, cuts: list[int], seed: int) -> None:
    """Saved and read at every cut: while it forgets faster, and with rows to learn again."""
    block = drifting(500, seed, period=120)

    def made() -> AdaptiveClassifier:
        return AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.2), policy)

    one, other, outputs = made(), made(), []
    expected = one.run(block)
    for piece in cut(block, cuts):
        outputs.append(other.run(piece))
        other, last = made(), other
        other.load(last.state())
    alarms = np.concatenate([columns["alarm"] for columns in outputs])
    np.testing.assert_array_equal(alarms, expected["alarm"])
    assert_same_state(one.state(), other.state())


def test_a_snapshot_keeps_the_background_model_as_slow_as_it_was() -> None:
    """It had taken over and learnt faster for a while when the snapshot was restored."""
    block = drifting(600, seed=2, period=300)

    def made() -> AdaptiveClassifier:
        policy = {"forget": {"memory": 5, "rows": 500}, "background": None}
        early = ADWIN(delta=0.9, clock=1)
        return AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.002, clock=1), policy, early)

    model, twin = made(), made()
    for t in range(block.n):
        taken, state, served = model.snapshot(), model.state(), model.model
        model.run(block.rows(t, t + 1))
        if model.model is not served:
            break
    assert t < 330
    model.restore(taken)
    twin.load(state)
    rest = block.rows(t, block.n)
    assert_same_bits(model.run(rest), twin.run(rest))


def test_replay_learns_the_new_concept_alone() -> None:
    """Twenty lessons after a change of the error are found to the row."""
    recent = Recent(50, takes_nan=True)
    rows = drifting(90, seed=0, period=1000).replace(
        mode=np.full(90, LABELLED, np.uint8), y=np.ones(90)
    )
    error = np.r_[np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 14), np.ones(20)]
    for start in range(0, 90, 7):
        piece = slice(start, start + 7)
        recent.add(rows.rows(start, min(start + 7, 90)), error[piece])
    n = recent.since_change()
    assert n == 21  # the last error before it is like those after it
    np.testing.assert_array_equal(recent.block(n, LEARN, rows.features, None).X, rows.X[-n:])
    assert len(recent) == 50
    steady = Recent(50, takes_nan=True)
    steady.add(rows, np.zeros(90))
    assert steady.since_change() == 50
    steady.add(rows.rows(0, 12), np.full(12, 1e300))  # whose sum of squares is infinite
    assert steady.since_change() == 12


def test_a_feature_that_came_later_is_missing_in_rows_kept_from_before() -> None:
    for takes_nan in (True, False):
        recent = Recent(4, takes_nan)
        for names in (["a"], ["a", "b"]):
            X = np.arange(2.0 * len(names)).reshape(2, -1)
            ones, mode = np.ones(2), np.full(2, LABELLED, np.uint8)
            recent.add(Block(X, ones, ones, mode, Features(names)), ones)
        kept = recent.block(4, LEARN, Features(["a", "b", "c"]), None).X
        gap = np.nan if takes_nan else 0.0
        then = [[0.0, gap, gap], [1.0, gap, gap], [0.0, 1.0, gap], [2.0, 3.0, gap]]
        np.testing.assert_array_equal(kept, then)


@pytest.mark.jit
@pytest.mark.parametrize("form", ["standard", "joseph", "sqrt", "each"])
def test_hastened_kalman_heads_are_those_of_a_larger_delta(form: str) -> None:
    block = drifting(300, seed=2, period=150)
    kind: dict[str, Any] = {"groups": "each"} if form == "each" else {"form": form}
    fast = KalmanClassifier(delta0=1 / 40, lr_delta=0.0, **kind)
    slow = KalmanClassifier(delta0=0.0, lr_delta=0.0, **kind)
    slow.hasten(40)
    for start, stop in ((0, 100), (100, 200)):
        piece = block.rows(start, stop)
        assert_same_bits(fast.run(piece), slow.run(piece))
    slow.hasten(None)
    still = KalmanClassifier(delta0=0.0, lr_delta=0.0, **kind)
    still.load(slow.state())
    assert_same_bits(still.run(block.rows(200, 300)), slow.run(block.rows(200, 300)))
    with pytest.raises(ValueError, match=r"^KalmanClassifier: memory must be >= 1, got 0\.5$"):
        slow.hasten(0.5)


@pytest.mark.jit
@pytest.mark.parametrize("leaky", [True, False])
def test_hastened_rvfl_is_that_of_a_shorter_memory(leaky: bool) -> None:
    block = drifting(700, seed=2, period=350)
    kind: dict[str, Any] = {"hidden": 5, "warm_up": 20, "leaky": leaky}
    long, short = LiteRVFLClassifier(memory=500, **kind), LiteRVFLClassifier(memory=30, **kind)
    long.run(block.rows(0, 400))
    state = long.state()
    state.table["parameters"]["memory"] = 30.0
    short.load(state)
    long.hasten(30)
    piece = block.rows(400, 700)
    assert_same_bits(short.run(piece), long.run(piece))
    with pytest.raises(ValueError, match=r"^LiteRVFLClassifier: memory must be > 1, got 1$"):
        long.hasten(1)


@pytest.mark.jit
def test_a_network_replays_without_beginning_anew() -> None:
    """A learner that gains from repetition learns the last rows of the new concept again."""
    block = drifting(1500, seed=6, period=500)
    block = block.replace(mode=np.full(block.n, LABELLED, np.uint8))
    wrong = {}
    for policy in ("notify", {"replay": {"rows": 100, "times": 10}}):
        model = ImplicitLinearClassifier()
        wrapper = AdaptiveClassifier(model, ADWIN(delta=0.1), policy)
        outputs = wrapper.run(block)
        known = np.isfinite(block.y)
        wrong[str(policy)] = np.mean(outputs["prediction"][known] != block.y[known])
        assert wrapper.n_alarms_ >= 2
    assert min(wrong, key=lambda name: wrong[name]) != "notify"


def test_what_it_did_is_found_under_its_name() -> None:
    X = np.ones((400, 1))
    y = np.where(np.arange(400) < 200, 0.0, 5.0)
    block = Block(X, y, np.ones(400), np.full(400, LABELLED, np.uint8), Features(["a"]))
    model = KalmanRegressor(lr_delta=0.0)
    outputs = AdaptiveRegressor(model, ADWIN(), ["reset", "replay"]).run(block)
    why = [found[0] for found in outputs["why"] if found is not None]
    assert why[0]["action"] == "reset+replay"
    assert why[0]["detector"] == "ADWIN"


@pytest.mark.parametrize(
    ("model", "policy", "message"),
    [
        (KalmanClassifier(), [], r"policy must name one of notify, reset, .*, got \[\]$"),
        (KalmanClassifier(), 7, r"policy must be one of notify, .*, got 7$"),
        (KalmanClassifier(), ["reset", 7], r"policy\[1\] must be a name or .*, got 7$"),
        (KalmanClassifier(), ["reset", "hope"], r"policy\[1\] must be one of .*, got 'hope'$"),
        (KalmanClassifier(), ["reset", "reset"], r"policy\[1\] must not come twice"),
        (KalmanClassifier(), {"forget": 5}, r"policy\[forget\] must have .* pairs, got 5$"),
        (KalmanClassifier(), {"forget": {"memory": 1}}, r"\]\.memory must be > 1, got 1$"),
        (KalmanClassifier(), ["notify", "reset"], r"must not have notify beside reset"),
        (KalmanClassifier(), ["reset", "background"], r"must not have reset beside background"),
        (KalmanClassifier(), "replay", r"policy replay must come after reset or background"),
        (AnalyticClassifier(), ["replay", "reset"], r"for AnalyticClassifier is exact"),
        (
            Pipeline(Normalizer(), KalmanClassifier()),
            "replay",
            r"policy replay must come after reset or background, for Pipeline is exact",
        ),
        (MajorityClassifier(), "forget", r"needs a model that can .*, got MajorityClassifier$"),
    ],
)
def test_policies_that_cannot_be_are_refused(model: Any, policy: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^AdaptiveClassifier: .*" + message):
        AdaptiveClassifier(model, ADWIN(), policy)


def test_a_policy_of_one_name_may_be_a_list() -> None:
    AdaptiveClassifier(HedgeMLPClassifier(), ADWIN(), "replay")  # gains from repetition
    block = drifting(300, seed=1, period=100)
    said = [
        AdaptiveClassifier(KalmanClassifier(), ADWIN(), policy).run(block)
        for policy in ("reset", ["reset"], {"reset": None})
    ]
    assert_same_bits(said[0], said[1])
    assert_same_bits(said[0], said[2])
