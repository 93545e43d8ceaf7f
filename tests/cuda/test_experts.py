"""Ensembles on the device: every expert equal to the CPU's walk of it, and bags to bags."""

import copy
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.jit import kalman, lift
from streamlearn.jit.cuda import _compile, experts
from streamlearn.jit.cuda.delayed import ERRORS, WORK
from streamlearn.jit.cuda.products import THREADS
from streamlearn.operators import (
    ADWIN,
    ADWINBaggingClassifier,
    ExpertMixtureClassifier,
    ExpertMixtureRegressor,
    KalmanClassifier,
    KalmanRegressor,
    LiteRVFLClassifier,
    NoChangeClassifier,
    NoChangeRegressor,
    OnlineBaggingClassifier,
    OnlineBaggingRegressor,
)
from streamlearn.testing import labelled
from tests.cuda.test_delayed import CLOSE, returned, same_state, stream, widened

J, K, D, N = 3, 2, 4, 6


@pytest.mark.parametrize("targets", [None, True])
def test_every_expert_walks_as_on_the_cpu(targets: bool | None) -> None:
    """Each with weights and settings of its own; a weight of 0 passes a row over.

    The diagonal of the first is not sound, and is mended at its thousandth lesson.
    """
    rng = np.random.default_rng(5)
    F = np.stack(
        [np.column_stack([np.ones(N), rng.normal(size=(N, D - 1))])] * (J if targets else 1)
    )
    F[0, :, -1] = 0.0
    y = rng.normal(size=(N, K)) if targets else rng.integers(0, K, (N, 1)) + 0.0
    weight = rng.poisson(2.0, (J, N)) + 0.0
    codes = np.where(weight > 0.0, lift.TARGET if targets else y[:, 0].astype(int), lift.EMPTY)
    mode = np.full(N, 7, dtype=np.uint8)
    p = np.zeros((J, kalman.N_SETTINGS))
    p[:, [kalman.S_W, kalman.S2, kalman.LR_DELTA, kalman.DELTA_MAX]] = 1.0, 0.1, 0.01, 0.2
    p[:, [kalman.LR_ALPHA, kalman.DECAY_MEAN, kalman.SOFTMAX, kalman.CENTRE]] = 0.02, 1.0, 1.0, 1.0
    p[1, kalman.S2] = 0.4
    s = np.zeros((J, kalman.N_SCALARS))
    s[:, kalman.DELTA], s[0, kalman.SAMPLES] = 0.05, 998.0
    outputs = np.zeros((J, 3, K))
    outputs[:, 2] = 1.0
    state = [np.zeros((J, K, D)), np.tile(np.eye(D), (J, 1, 1)), outputs, s]
    state[1][0, -1, -1] = -10.0
    out = [np.zeros((J, N, K)), np.zeros((J, N, K if targets else 1))]
    there = _compile.send("test", *state)
    said = _compile.send("test", *out)
    fixed = _compile.send("test", p, np.zeros((J, WORK, K)))
    scratch = _compile.send("test", np.zeros((J, 2, D)), np.zeros((J, 1, ERRORS + 2 * K)))
    rows = _compile.send("test", F, codes, y, weight, mode)
    kernel = experts.walk_targets if targets else experts.walk_classes
    _compile.launch("test", kernel, THREADS, (rows, there, fixed, scratch, said), J)
    for e in range(J):
        mine: Any = tuple(array[e] for array in state)
        work = np.zeros((kalman.work_rows("standard", D), max(D, K)))
        own: Any = F[e % len(F)], codes[e], y, weight[e], mode
        answers = out[0][e], out[1][e]
        kalman.walk_standard(own, mine, (p[e], work), answers, targets, None)
    assert s[0, kalman.REPAIRED] == 1.0
    for array, expected in zip((*there, *said), (*state, *out), strict=True):
        assert_allclose(_compile.fetch(array), expected, **CLOSE)


def agree(host: Any, there: Any, said: dict[str, Any], same: dict[str, Any]) -> None:
    """Answers and logs of both ensembles, and the states of their heads."""
    assert said.keys() == same.keys()
    for name, column in said.items():
        assert_allclose(same[name], column, **CLOSE, err_msg=name)
    heads = [m for m in zip(host.members_, there.members_, strict=True) if hasattr(m[0], "means_")]
    assert heads
    for one, other in heads:
        for name in ("means_", "covariance_", "inputs_", "outputs_", "scalars_"):
            assert_allclose(getattr(other, name), getattr(one, name), **CLOSE, err_msg=name)


@pytest.mark.parametrize("kind", [OnlineBaggingClassifier, OnlineBaggingRegressor])
def test_a_bag_on_the_device_says_what_the_cpu_says(kind: Any) -> None:
    """Gaps, infinities, weights, drift, a class that comes late; and what was done at a row."""
    head = KalmanRegressor if kind is OnlineBaggingRegressor else KalmanClassifier
    model = head(delta0=0.01, random_features=1)
    host, there = (kind(model, n=2, lam=1.0, device=at) for at in ("cpu", "cuda"))
    n = 12
    block = stream(4, n, d=2, numbers=kind is OnlineBaggingRegressor).replace(log_wanted=True)
    for start, stop in ((0, 1), (1, 1), (1, 9), (9, n)):
        part = block.rows(start, stop)
        agree(host, there, host.run(part), there.run(part))
        for bag in (host, there):
            bag.members_[1].inflate(2.0)
    assert all(member.n_samples_ > 0 for member in host.members_)
    alone = block.rows(0, 2)  # a member can still be asked by itself
    said, same = (bag.members_[1].run(alone) for bag in (host, there))
    for name, column in said.items():
        assert_allclose(same[name], column, **CLOSE, err_msg=name)


def test_any_cut_gives_a_bag_the_same_bits() -> None:
    """Blocks of one, a bag that is saved and loaded half-way, a feature that comes at a row."""
    n = 10
    block = stream(3, n, d=2)
    wider = widened(block.rows(n - 3, n))
    settings: dict[str, Any] = {"n": 2, "lam": 1.0, "device": "cuda"}
    whole, parts, again = (
        OnlineBaggingClassifier(KalmanClassifier(delta0=0.01), **settings) for _ in range(3)
    )
    whole.run(block.rows(0, n - 3))
    expected = whole.run(wider)["proba"]
    for t in range(4):
        parts.run(block.rows(t, t + 1))
    again.load(parts.state())
    before = again.snapshot()
    again.run(block.rows(4, n - 3))
    again.restore(before)
    again = copy.deepcopy(again)
    again.run(block.rows(4, n - 3))
    assert_array_equal(again.run(wider)["proba"], expected)
    same_state(again.state(), whole.state())
    assert whole.state_bytes == sum(array.nbytes for array in whole.state().arrays.values())
    again.reset()
    members: list[Any] = list(again.members_)
    for member in members:
        assert_array_equal(member.covariance_, np.eye(4))


def test_a_member_that_starts_anew_does_so_on_the_device() -> None:
    """ADWIN bagging, with the alarm in the middle of a block and at the end of one."""
    n = 14
    y = np.arange(n) >= 10
    block = labelled(np.ones((n, 1)), y + 0.0, "classification")
    host, there, parts = (
        ADWINBaggingClassifier(KalmanClassifier(), n=2, device=at) for at in ("cpu", "cuda", "cuda")
    )
    for bag in (host, there, parts):
        bag.detectors_ = [ADWIN(0.99, clock=1, min_window_length=1, grace_period=1) for _ in y[:2]]
    agree(host, there, host.run(block), there.run(block))
    for start, stop in ((0, 12), (12, 13), (13, n)):
        parts.run(block.rows(start, stop))
    same_state(parts.state(), there.state())
    assert host.n_resets_ > 0


@pytest.mark.parametrize(
    ("model", "device", "message"),
    [
        (KalmanClassifier(), "gpu", "OnlineBaggingClassifier: device must be one of cpu, cuda"),
        (LiteRVFLClassifier(), "cuda", "OnlineBaggingClassifier: model must be a KalmanClassifier"),
        (KalmanClassifier(form="sqrt"), "cuda", "KalmanClassifier: device must be cpu unless form"),
    ],
)
def test_a_bag_that_has_no_kernel_is_refused(model: Any, device: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        OnlineBaggingClassifier(model, device=device)


def mixture_of(kind: Any, device: str) -> Any:
    """Heads of two widths, two of them with features of another length, and one of no kernel."""
    numbers = kind is ExpertMixtureRegressor
    head: Any = KalmanRegressor if numbers else KalmanClassifier
    return kind(
        [
            head(delta0=0.01), head(random_features=1), head(feature_norm2=2.0, lr_delta=0.0),
            NoChangeRegressor() if numbers else NoChangeClassifier(),
        ],
        device=device,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [ExpertMixtureClassifier, ExpertMixtureRegressor])
def test_a_mixture_of_experts_on_the_device_says_what_the_cpu_says(kind: Any) -> None:
    """Two launches a block, and the expert that has no kernel with the host; a gap, weights."""
    host, there = (mixture_of(kind, device) for device in ("cpu", "cuda"))
    n = 9
    block = stream(4, n, d=2, numbers=kind is ExpertMixtureRegressor).replace(log_wanted=True)
    for start, stop in ((0, 2), (2, n)):
        part = block.rows(start, stop)
        agree(host, there, host.run(part), there.run(part))
    assert_allclose(there.log_weights_, host.log_weights_, **CLOSE)
    assert not np.array_equal(host.log_weights_[:, 0], host.log_weights_[:, 2])


def test_any_cut_gives_a_mixture_of_experts_the_same_bits() -> None:
    """A mixture that is saved and loaded half-way, copied, and goes back to a snapshot."""
    three = (mixture_of(ExpertMixtureClassifier, "cuda") for _ in range(3))
    again = returned(three, stream(3, 8, d=2), (3, 5))
    fresh = again.clone()
    assert fresh.device == "cuda"
    assert fresh.members_[0].device == "cuda"
    assert fresh.n_samples_ == 0


def test_a_mixture_without_a_head_for_the_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ExpertMixtureRegressor: experts must have a Kalman"):
        ExpertMixtureRegressor([NoChangeRegressor()], device="cuda")
    with pytest.raises(ValueError, match=r"^ExpertMixtureClassifier: device must be one of cpu"):
        ExpertMixtureClassifier(device="gpu")


def test_a_mixture_without_room_for_one_group_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group of experts has been sent, the second does not fit: nothing has learnt."""
    block = stream(1, 3, d=2)
    mixture, other = (mixture_of(ExpertMixtureClassifier, "cuda") for _ in range(2))
    reserve = _compile.reserve

    def narrow(owner: str, like: Any) -> Any:
        if any(shape[-1] == 4 for shape, _ in like):
            raise MemoryError(owner)
        return reserve(owner, like)

    with monkeypatch.context() as patched:
        patched.setattr(_compile, "reserve", narrow)
        with pytest.raises(MemoryError, match="ExpertMixtureClassifier"):
            mixture.run(block)
    assert_array_equal(mixture.run(block)["proba"], other.run(block)["proba"])
    same_state(mixture.state(), other.state())


class Full(Exception):
    """What the driver raises, in the simulator's place."""

    code = 2


@pytest.mark.parametrize("when", ["reserve", "launch"])
def test_a_bag_without_room_is_as_before(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither arrays nor a launch may fail without a word of how much was needed."""
    block = stream(1, 4, numbers=True)
    bag, other = (OnlineBaggingRegressor(n=2, device="cuda") for _ in range(2))
    for each in (bag, other):
        each.run(block)

    def reserve(owner: str, like: Any) -> Any:
        raise _compile.no_room(owner, like)

    def sized(*_: Any) -> Any:
        raise Full

    with monkeypatch.context() as patched:
        if when == "reserve":
            patched.setattr(_compile, "reserve", reserve)
        else:
            patched.setattr(_compile, "sized", sized)
            patched.setattr(_compile, "local_bytes", lambda kernel: 4321)
        needed = "[0-9,]+" if when == "reserve" else "4,321"
        text = f"^OnlineBaggingRegressor: the device must have {needed} bytes"
        with pytest.raises(MemoryError, match=text):
            bag.run(block)
    same_state(bag.state(), other.state())
    assert_array_equal(bag.run(block)["prediction"], other.run(block)["prediction"])
