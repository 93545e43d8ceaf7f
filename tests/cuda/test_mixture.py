"""Mixtures on the device: equal to specification and CPU, by row and delayed, whatever the cut."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Block, Features
from streamlearn.jit.cuda import _compile, mixture
from streamlearn.jit.cuda.products import THREADS
from streamlearn.operators import (
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureRegressor,
)
from tests.cuda.test_delayed import returned, same_state, widened

K, D = 2, 5
N = 2 * mixture.SLOTS
CLOSE: dict[str, Any] = (
    {"rtol": 1e-12, "atol": 1e-12} if _compile.SIMULATED else {"rtol": 1e-8, "atol": 1e-9}
)


def begun() -> list[F8]:
    rng = np.random.default_rng(4)
    A = rng.normal(size=(K, D, D))
    Lam = A @ A.transpose(0, 2, 1) + np.eye(D)
    comp = np.array([-np.linalg.slogdet(Lam)[1], [3.0, 5.0]])
    return [rng.normal(size=(K, D)), Lam, comp, np.array([25.0, 0.99])]


def naive(X: F8, weight: F8, state: list[F8]) -> tuple[list[F8], F8]:
    """Steps (1) to (8) and (11) of the specification, in covariances."""
    mu, Lam, comp, (chi, rho) = (array.copy() for array in state)
    cov, sp, score = np.linalg.inv(Lam), comp[1], np.empty(len(X))
    for t, x in enumerate(X):
        e = x - mu
        d2 = np.array([v @ np.linalg.solve(C, v) for v, C in zip(e, cov, strict=True)])
        logp = -0.5 * (D * math.log(2 * math.pi) + np.linalg.slogdet(cov)[1] + d2)
        density = np.exp(logp - logp.max()) * sp / sp.sum()
        score[t] = -math.log(density.sum()) - logp.max()
        post = density / density.sum()
        if d2.min() >= chi:
            post = np.eye(K)[d2.argmin()]
        sp = rho * sp + weight[t] * post
        w = weight[t] * post / sp
        mu = mu + w[:, None] * e
        cov = (1 - w)[:, None, None] * (cov + w[:, None, None] * e[:, :, None] * e[:, None, :])
    return [mu, np.linalg.inv(cov), np.array([np.linalg.slogdet(cov)[1], sp])], score


def walk(X: F8, weight: F8, state: list[F8]) -> F8:
    """In place; the scores."""
    n = mixture.SLOTS
    shapes: list[tuple[int, ...]]
    shapes = [(K, n, D)] * 2 + [(K, n, n)] * 3 + [(K, n + 2), (K, n, 2), (2, K), (2, K)]
    scratch = tuple(_compile.send("test", *(np.zeros(shape) for shape in shapes)))
    there = _compile.send("test", *state)
    rows, (score,) = _compile.send("test", X, weight), _compile.send("test", np.zeros(len(X)))
    _compile.launch("test", mixture.walk_delayed, THREADS, (rows, there, scratch, score))
    state[:] = [_compile.fetch(array) for array in there]
    said: F8 = _compile.fetch(score)
    return said


def test_a_mixture_is_what_the_specification_says() -> None:
    """Two groups; the last row is new to all components."""
    rng = np.random.default_rng(1)
    X, weight, state = rng.normal(size=(N, D)), rng.choice([0.5, 1.0], N), begun()
    X[-1] += 10.0
    expected, said = naive(X, weight, state)
    assert_allclose(walk(X, weight, state), said, **CLOSE)
    for mine, other in zip(state, expected, strict=False):
        assert_allclose(mine, other, **CLOSE)
    assert_array_equal(state[1], state[1].transpose(0, 2, 1))


def test_pending_rows_come_again_to_the_same_bits() -> None:
    """A launch leaves all rows but one of a group pending; the next begins with them."""
    rng = np.random.default_rng(2)
    X, weight = rng.normal(size=(N, D)), np.ones(N)
    whole, parts = begun(), begun()
    said = walk(X, weight, whole)
    first = walk(X[: N - 1], weight[: N - 1], parts)
    again = walk(X[N // 2 :], weight[N // 2 :], parts)
    assert_array_equal(np.concatenate([first, again[N // 2 - 1 :]]), said)
    for mine, other in zip(parts, whole, strict=True):
        assert_array_equal(mine, other)


SETTINGS: dict[str, Any] = {
    "std": 1.0, "delta": 2.0, "eps": 0.5, "rho": 0.5, "k_max": 3, "v_min": 2.0, "sp_min": 1.1,
}  # fmt: skip


def stream(n: int, d: int = 2) -> Block:
    """Clusters, one of them at first alone, weights, rows that but ask or but teach, a gap."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, d)) * 0.5 + rng.choice([0.0, -6.0], (n, 1))
    X[:3] += 20.0
    X[6], X[n // 2, 0], X[n // 2 + 2, 1] = 40.0, np.nan, np.inf
    mode = rng.choice([5, 5, 5, 4, 1, 2], n).astype(np.uint8)
    weight: F8 = rng.choice([0.5, 1.0], n)
    return Block(X, np.full(n, np.nan), weight, mode, Features([f"x{i}" for i in range(d)]))


def scorers(*devices: str) -> list[Any]:
    return [GaussianMixtureAnomalyScorer(**SETTINGS, device=device) for device in devices]


def test_a_scorer_says_what_the_cpu_says() -> None:
    """Components come and go, or are forced, a variance has its floor; gaps go to the host."""
    host, there = scorers("cpu", "cuda")
    n = 32
    block = stream(n)
    for start, stop in ((0, 8), (8, 8), (8, n)):
        part = block.rows(start, stop)
        assert_allclose(there.run(part)["score"], host.run(part)["score"], **CLOSE)
        for name in ("mu_", "Lam_", "components_", "moments_", "scalars_"):
            expected = getattr(host, name)
            assert_allclose(getattr(there, name), expected, **CLOSE, err_msg=name)
        if start == 0:
            assert host.mu_.max() > 10.0
    Lam = there.Lam_
    assert_array_equal(Lam, Lam.transpose(0, 2, 1))
    assert host.n_forced > 0
    assert host.mu_.max() < 10.0, "what was at first is forgotten"


def test_any_cut_gives_a_scorer_the_same_bits() -> None:
    """Blocks of one, a state saved and loaded, a snapshot, a copy, a feature that comes late."""
    n = 12
    block = stream(n)
    wider = widened(block.rows(n - 3, n))
    whole, parts, again = scorers("cuda", "cuda", "cuda")
    whole.run(block.rows(0, n - 3))
    expected = whole.run(wider)["score"]
    for t in range(5):
        parts.run(block.rows(t, t + 1))
    again.load(parts.state())
    before = again.snapshot()
    again.run(block.rows(5, n - 5))
    again.restore(before)
    again.run(block.rows(5, n - 5))
    again = copy.deepcopy(again)
    again.run(block.rows(n - 5, n - 3))
    assert_array_equal(again.run(wider)["score"], expected)
    same_state(again.state(), whole.state())


def test_a_scorer_makes_room_for_more_components() -> None:
    """Eight at first: the launch ends at the row that begins the ninth, and the next goes on."""
    host, there = (
        GaussianMixtureAnomalyScorer(std=1.0, delta=1.0, k_max=9, device=at)
        for at in ("cpu", "cuda")
    )
    n = 10
    X: F8 = 10.0 * np.arange(n, dtype=np.float64)[:, None]
    block = Block(X, np.full(n, np.nan), np.ones(n), np.full(n, 5, np.uint8), Features(["a"]))
    assert_allclose(there.run(block)["score"], host.run(block)["score"], **CLOSE)
    assert there.n_components_ == 9
    assert_allclose(there.Lam_, host.Lam_, **CLOSE)


RECALLS: dict[str, Any] = {
    "joint": lambda device: GaussianMixtureClassifier(**SETTINGS, device=device),
    "by_class": lambda device: GaussianMixtureClassifier(
        **SETTINGS | {"k_max": 2}, components="by_class", balance=True, device=device
    ),
    "targets": lambda device: GaussianMixtureRegressor(**SETTINGS, device=device),
}


def labelled_stream(kind: str, n: int) -> Block:
    """A third class that comes late, labels that are missing or none, weights, a gap."""
    rng = np.random.default_rng(5)
    classes = np.array([0, 1, 0, 1, 1, 0, 2] + [0, 1, 2] * n, dtype=np.float64)[:n]
    X: F8 = rng.normal(size=(n, 1)) * 0.5 + 3.0 * classes[:, None]
    y: F8 = classes.copy()
    y[3], y[8] = np.nan, 1.5
    if kind == "targets":
        y = np.column_stack([2.0 * X[:, 0] + rng.normal(size=n), rng.normal(size=n)])
        y[3], y[8] = [np.nan, np.inf], [np.inf, np.nan]
    X[9, 0] = np.nan
    mode = rng.choice([7, 7, 6, 2], n).astype(np.uint8)
    mode[[4, 5, 9]] = 1, 5, 7
    return Block(X, y, rng.choice([0.5, 1.0], n), mode, Features(["x0"]))


@pytest.mark.parametrize("kind", RECALLS)
def test_recall_says_what_the_cpu_says(kind: str) -> None:
    """Classes as columns or as owners of components, targets; the host walks what needs it."""
    n = 13
    block = labelled_stream(kind, n)
    host, there = (RECALLS[kind](device) for device in ("cpu", "cuda"))
    for part in (block.rows(0, 8), block.rows(8, n)):
        expected, said = host.run(part), there.run(part)
        for name, column in expected.items():
            assert_allclose(said[name], column, **CLOSE, err_msg=name)
    for name in ("mu_", "Lam_", "components_", "moments_", "classes_", "scalars_"):
        assert_allclose(getattr(there, name), getattr(host, name), **CLOSE, err_msg=name)
    assert host.n_rejected == 1
    assert there.n_samples_ == host.n_samples_ > n // 2


def test_any_cut_gives_a_classifier_the_same_bits() -> None:
    """A state saved and loaded, a snapshot, a copy, a class that comes late."""
    returned((RECALLS["joint"]("cuda") for _ in range(3)), labelled_stream("joint", 10), (4, 6))


@pytest.mark.parametrize(
    "make", [GaussianMixtureAnomalyScorer, GaussianMixtureClassifier, GaussianMixtureRegressor]
)
def test_a_mode_without_a_kernel_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{make.__name__}: device must be cpu unless"):
        make(mode="paper", device="cuda")
