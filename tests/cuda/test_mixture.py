"""Mixtures on the device: equal to the specification, row by row and delayed, whatever the cut."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8
from streamlearn.jit.cuda import _compile, mixture
from streamlearn.jit.cuda.products import THREADS

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


def walk(way: str, X: F8, weight: F8, state: list[F8]) -> F8:
    """In place; the scores."""
    n = mixture.SLOTS
    shapes: list[tuple[int, ...]] = [(K, D), (2, K, D), (2, K), (K, 3)]
    if way == "walk_delayed":
        shapes = [(K, n, D)] * 2 + [(K, n, n)] * 3 + [(K, n + 2), (K, n, 2), (2, K), (2, K)]
    scratch = tuple(_compile.send("test", *(np.zeros(shape) for shape in shapes)))
    if way == "walk_rows":
        scratch[3][:, 1] = 1.0
    there = _compile.send("test", *state)
    rows, (score,) = _compile.send("test", X, weight), _compile.send("test", np.zeros(len(X)))
    _compile.launch("test", getattr(mixture, way), THREADS, (rows, there, scratch, score))
    state[:] = [_compile.fetch(array) for array in there]
    said: F8 = _compile.fetch(score)
    return said


@pytest.mark.parametrize("way", ["walk_rows", "walk_delayed"])
def test_a_mixture_is_what_the_specification_says(way: str) -> None:
    """Two groups; the last row is new to all components."""
    rng = np.random.default_rng(1)
    X, weight, state = rng.normal(size=(N, D)), rng.choice([0.5, 1.0], N), begun()
    X[-1] += 10.0
    expected, said = naive(X, weight, state)
    assert_allclose(walk(way, X, weight, state), said, **CLOSE)
    for mine, other in zip(state, expected, strict=False):
        assert_allclose(mine, other, **CLOSE)
    assert_array_equal(state[1], state[1].transpose(0, 2, 1))


def test_pending_rows_come_again_to_the_same_bits() -> None:
    """A launch leaves all rows but one of a group pending; the next begins with them."""
    rng = np.random.default_rng(2)
    X, weight = rng.normal(size=(N, D)), np.ones(N)
    whole, parts = begun(), begun()
    said = walk("walk_delayed", X, weight, whole)
    first = walk("walk_delayed", X[: N - 1], weight[: N - 1], parts)
    again = walk("walk_delayed", X[N // 2 :], weight[N // 2 :], parts)
    assert_array_equal(np.concatenate([first, again[N // 2 - 1 :]]), said)
    for mine, other in zip(parts, whole, strict=True):
        assert_array_equal(mine, other)
