"""Our own drifting streams: known drift points, the same rows from any place, the stated models."""

import numpy as np
import pytest

from streamlearn.connectors import as_source
from streamlearn.connectors.generators import ROWS, DriftSource, DriftStream


def all_rows(stream: DriftStream) -> tuple[np.ndarray, np.ndarray]:
    pieces = [stream.rows(k) for k in range(-(-stream.n // ROWS))]
    return np.concatenate([X for X, _ in pieces]), np.concatenate([y for _, y in pieces])


def side(stream: DriftStream, X: np.ndarray, concept: int) -> np.ndarray:
    """The class by the definition: the side of the hyperplane through the middle."""
    return ((X - 0.5) @ stream.weights(concept) > 0).astype(float)


@pytest.mark.parametrize("kind", ["abrupt", "recurring"])
def test_the_concept_changes_at_the_drift_points_and_nowhere_else(kind: str) -> None:
    stream = DriftStream(kind=kind, n=9000, at=(1000, 5000, 7000), seed=2)
    X, y = all_rows(stream)
    bounds = [0, 1000, 5000, 7000, 9000]
    for k in range(4):
        rows = slice(bounds[k], bounds[k + 1])
        assert (y[rows] == side(stream, X[rows], k)).mean() > 0.999  # sums differ in the last bit
        wrong = (k + 1) % 4
        assert (y[rows] == side(stream, X[rows], wrong)).mean() < 0.9
    assert (side(stream, X, 0) == side(stream, X, 2)).all() == (kind == "recurring")


def test_a_gradual_change_mixes_both_concepts_around_its_point() -> None:
    stream = DriftStream(kind="gradual", n=20_000, at=(10_000,), width=4000, seed=1)
    X, y = all_rows(stream)
    old, new = side(stream, X, 0), side(stream, X, 1)
    t = np.arange(20_000)
    differ = old != new
    for start in range(4000, 16_000, 1000):
        rows = differ & (t >= start) & (t < start + 1000)
        expected = np.mean(1 / (1 + np.exp(-4 * (t[rows] - 10_000) / 4000)))
        assert abs((y[rows] == new[rows]).mean() - expected) < 0.12


def test_noise_flips_classes_and_spreads_numbers() -> None:
    stream = DriftStream(n=8000, at=(8000,), noise=0.2, seed=3)
    X, y = all_rows(stream)
    assert abs((y != side(stream, X, 0)).mean() - 0.2) < 0.02
    number = DriftStream(n=8000, at=(8000,), noise=0.2, seed=3, task="regression")
    X, y = all_rows(number)
    assert abs(np.std(y - X @ number.weights(0)) - 0.2) < 0.01


def test_rows_depend_on_seed_and_number_alone() -> None:
    short, long = DriftStream(n=5000, at=(100,), seed=7), DriftStream(n=9000, at=(100,), seed=7)
    np.testing.assert_array_equal(all_rows(short)[0], all_rows(long)[0][:5000])
    assert not np.array_equal(all_rows(short)[0], all_rows(DriftStream(n=5000, seed=8))[0])
    source = DriftSource(long)
    source.open({"drift:abrupt": {"row": 4711}})
    batch = source.poll(10, 0.0)
    assert batch is not None
    np.testing.assert_array_equal(batch.block.X, all_rows(long)[0][4711:4721])
    assert batch.positions == {"drift:abrupt": {"row": 4721}}


def test_a_name_with_options_is_the_same_stream() -> None:
    source, schema = as_source("drift:recurring?n=100&d=2&seed=5&at=40,60&noise=0.1")
    assert isinstance(source, DriftSource)
    assert source.stream == DriftStream("recurring", 100, (40, 60), d=2, seed=5, noise=0.1)
    assert source.drift_points == (40, 60)
    assert schema.columns.names == ("x0", "x1")
    assert DriftStream(n=400).drift_points == (100, 200, 300)
