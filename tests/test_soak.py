"""Memory stays flat and matrices definite however many events pass; see `make soak`."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from streamlearn.block import F8, Vocabulary
from streamlearn.operators import (
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureImputer,
    HedgeMLPClassifier,
    HedgeMLPRegressor,
    KalmanBankRegressor,
    KalmanRegressor,
)
from streamlearn.testing import block_of, labelled

SCRIPT = """
    import pathlib
    import sys

    import streamlearn

    def peak():  # not ru_maxrss, which begins at the parent's peak
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    events = int(sys.argv[1])
    pipe = streamlearn.Pipeline(
        streamlearn.Imputer(), streamlearn.Normalizer(),
        streamlearn.KalmanClassifier(), streamlearn.ADWIN(),
    )
    where = f"drift:recurring?n={events}&d=8&at=50000&seed=3"
    streamlearn.replay(pipe, where, target="y", limit=events // 5)
    first = peak()
    result = streamlearn.replay(pipe, where, target="y")
    assert result.events == events, result.events
    print(peak() - first)
"""


def _growth(events: int) -> float:
    """MiB by which the peak of a process grows between a fifth of the stream and all of it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(events)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.jit
def test_memory_is_flat_over_half_a_million_events() -> None:
    assert _growth(500_000) < 16.0


@pytest.mark.soak
def test_memory_is_flat_over_ten_million_events() -> None:
    assert _growth(10_000_000) < 16.0


# -- hostile input, beside what stands with the operators' own tests -------------------------------

LENGTHS = [100_000, pytest.param(10_000_000, marks=pytest.mark.soak)]


def hostile(rng: np.random.Generator, n: int) -> F8:
    """Collinear, constant, of scales 1e-6 to 1e6, with outliers and repeated rows."""
    a, b = rng.normal(size=n), rng.normal(size=n)
    X = np.column_stack([a, a + 1e-9 * b, np.full(n, 3.7), 1e-6 * b, 1e6 * b])
    X[rng.random(n) < 1e-3] *= 1e4
    X[1::50] = X[::50][: X[1::50].shape[0]]
    return X


def definite(A: F8, largest: float) -> None:
    """Symmetric to the last bit, 0 < eig <= largest; after scaling, as scales differ."""
    assert_array_equal(A, A.T)
    root = np.sqrt(np.diag(A))
    np.linalg.cholesky(A / root / root[:, None])
    assert np.linalg.eigvalsh(A).max() <= largest


@pytest.mark.jit
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(
    "made",
    [
        lambda: KalmanRegressor(sigma_w2=2.0, delta0=1e-3),
        lambda: KalmanRegressor(sigma_w2=2.0, form="joseph"),
        lambda: KalmanBankRegressor(sigma_w2=2.0, deltas=[1e-4, 1e-2]),
    ],
    ids=["standard", "joseph", "bank"],
)
def test_covariances_of_targets_stay_definite(made: Any, n: int) -> None:
    """Kalman acceptance 6 where lengths are not set to `feature_norm2`: what is longer than a
    covariance can take is refused, and not answered; all else is.
    """
    rng, model = np.random.default_rng(1), made()
    for _ in range(n // 50_000):
        X = hostile(rng, 50_000) * [1.0, 1.0, 1.0, 1.0, 1e-3]
        out = model.run(labelled(X, X[:, 0] + rng.normal(size=50_000)))
        answered = ~np.isnan(out["prediction"])
        assert answered.mean() > 0.99
        assert np.isfinite(out["prediction"][answered]).all()
        assert (out["variance"][answered] > 0.0).all()
        for A in model.covariance_.reshape(-1, *model.covariance_.shape[-2:]):
            definite(A, 2.0 * (1 + 1e-9))


@pytest.mark.jit
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(
    "kind", [GaussianMixtureClassifier, GaussianMixtureImputer, GaussianMixtureAnomalyScorer]
)
def test_precisions_of_mixtures_stay_definite(kind: Any, n: int) -> None:
    """The regressor has such a test of its own."""
    rng, model = np.random.default_rng(2), kind(k_max=5)
    for _ in range(n // 50_000):
        X = hostile(rng, 50_000)
        model.run(block_of(X, X[:, 0] > 0, task="", labels=Vocabulary([0, 1])))
        for L in model.Lam_:
            definite(L, np.inf)
    assert model.n_repaired == 0


@pytest.mark.jit
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", [HedgeMLPClassifier, HedgeMLPRegressor])
def test_networks_stay_finite(kind: Any, n: int) -> None:
    rng, model = np.random.default_rng(3), kind(layers=2, hidden=8)
    labels = Vocabulary([0, 1]) if kind is HedgeMLPClassifier else None
    for _ in range(n // 50_000):
        X = hostile(rng, 50_000)
        model.run(block_of(X, X[:, 0] > 0, task="", labels=labels))
        for name, array in model.state().arrays.items():
            assert np.isfinite(array).all(), name
