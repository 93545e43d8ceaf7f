"""What is recorded for a report: equal to plain numpy over the rows looked at, however cut."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn import ADWIN, KalmanClassifier, KalmanRegressor, Normalizer, Pipeline
from streamlearn.block import (
    CATEGORY,
    F8,
    LABELLED,
    LEARN,
    NUMBER,
    SCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.recording import N_BINS, PER_BIN, Recorder

LABELS = Vocabulary(["no", "yes"])


def stream(n: int, seed: int = 0) -> tuple[Block, Columns]:
    """Two numbers, one often missing, and a category; classes answered at random."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 3.0, 0.0] + [0.0, 50.0, 0.0]
    X[rng.random(n) < 0.2, 1] = np.nan
    X[:, 2] = rng.integers(0, 3, n)
    X[n // 2 :, 0] += 2.0
    kinds = (NUMBER, NUMBER, CATEGORY)
    features = Features(["a", "b", "c"], kinds, {"c": Vocabulary(["x", "y", "z"])})
    y = rng.integers(0, 2, n).astype(float)
    block = Block(X, y, np.ones(n), np.full(n, LABELLED, np.uint8), features, LABELS)
    outputs = {
        "prediction": rng.integers(0, 2, n).astype(float),
        "alarm": (rng.random(n) < 0.01).astype(np.uint8),
    }
    return block, outputs


def pipeline() -> Pipeline:
    return Pipeline(Normalizer(), KalmanClassifier(), ADWIN())


def recorded(block: Block, outputs: Columns, cuts: list[int]) -> dict[str, Any]:
    recorder = Recorder(pipeline())
    edges = [0, *cuts, block.n]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            part = {name: column[start:stop] for name, column in outputs.items()}
            recorder.update(block.rows(start, stop), part, 1e-6 * (stop - start))
    return recorder.result()


def test_every_row_of_a_short_stream_is_looked_at() -> None:
    """Means, deviations, shares and missing rows by bin, against numpy over the rows of the bin."""
    n, width = 500, 4
    block, outputs = stream(n)
    found = recorded(block, outputs, [7, 130, 131, 400])
    assert (found["events"], found["width"], found["sampled"]) == (n, width, n)
    assert found["row"] == list(range(width - 1, n, width))
    a, b, c = found["features"]
    bins = [slice(i, i + width) for i in range(0, n, width)]
    assert_allclose(a["mean"], [block.X[s, 0].mean() for s in bins], rtol=1e-12)
    assert_allclose(a["sd"], [block.X[s, 0].std() for s in bins], rtol=1e-9)
    assert_allclose(b["missing"], [np.isnan(block.X[s, 1]).mean() for s in bins])
    assert_allclose(c["shares"]["y"], [(block.X[s, 2] == 1).mean() for s in bins])
    right = [(outputs["prediction"][s] == 1).mean() for s in bins]
    assert_allclose(found["answer"]["shares"]["yes"], right)
    assert found["alarms"] == [int(outputs["alarm"][s].sum()) for s in bins]
    assert_allclose(sum(found["seconds"]), 1e-6 * n, rtol=1e-9)


def test_drift_is_in_standard_deviations_from_the_overall_mean() -> None:
    block, outputs = stream(500)
    a, b, c = recorded(block, outputs, [])["features"]
    x = block.X[:, 0]
    want = [(x[i : i + 4].mean() - x.mean()) / x.std() for i in range(0, 500, 4)]
    assert_allclose(a["drift"], want, rtol=1e-9)
    assert_allclose(a["overall"], [x.mean(), x.std()], rtol=1e-12)
    assert_allclose(a["size"], np.sqrt(np.mean(np.square(want))), rtol=1e-9)
    assert_allclose(b["missing_overall"], np.isnan(block.X[:, 1]).mean())
    shares = np.array([[(block.X[i : i + 4, 2] == k).mean() for k in range(3)] for i in (0, 4)])
    overall = np.array([(block.X[:, 2] == k).mean() for k in range(3)])
    assert_allclose(c["drift"][:2], np.abs(shares - overall).sum(axis=1) / 2)


@pytest.mark.jit
@pytest.mark.parametrize("n", [1, 127, 128, 129, 20_000])
def test_what_is_recorded_does_not_depend_on_the_cut(n: int) -> None:
    """All but what is read between blocks, and times."""
    block, outputs = stream(n)
    whole = recorded(block, outputs, [])
    rng = np.random.default_rng(1)
    for _ in range(3):
        cuts = sorted(rng.integers(0, n + 1, 9).tolist())
        other = recorded(block, outputs, cuts)
        for name in whole.keys() - {"seconds", "pipeline"}:
            assert other[name] == whole[name], name


@pytest.mark.jit
def test_a_long_stream_is_sampled_and_its_means_hold() -> None:
    """At least PER_BIN rows a bin, without a period: alternating rows are both looked at."""
    n = 200_000
    X = np.empty((n, 1))
    X[0::2], X[1::2] = 0.0, 1.0
    y: F8 = np.zeros(n)
    block = Block(X, y, np.ones(n), np.full(n, LABELLED, np.uint8), Features(["a"]), LABELS)
    found = recorded(block, {"prediction": y}, list(range(4096, n, 4096)))
    bins = len(found["row"])
    assert N_BINS // 2 < bins <= N_BINS
    assert bins * PER_BIN * 0.9 <= found["sampled"] < n / 4
    assert_allclose(found["features"][0]["mean"], 0.5, atol=0.4)
    assert_allclose(found["features"][0]["overall"][0], 0.5, atol=0.02)


def test_rows_that_bring_labels_are_no_events() -> None:
    """A late label adds to the time, and to nothing else; its alarm is that of the event before."""
    block, outputs = stream(6)
    mode = np.array([SCORED, LEARN, SCORED, SCORED, LEARN, SCORED], np.uint8)
    late = block.replace(mode=mode)
    outputs["alarm"] = np.array([0, 0, 0, 0, 1, 0], np.uint8)
    recorder = Recorder(pipeline())
    recorder.update(late, outputs, 1.0)
    recorder.update(late.rows(1, 2), {}, 0.5)
    found = recorder.result()
    assert found["events"] == 4
    assert found["alarms"] == [0, 0, 1, 0]
    assert found["features"][0]["mean"] == block.X[[0, 2, 3, 5], 0].tolist()
    assert_allclose(found["seconds"], [0.25, 0.25, 0.25, 0.75])


def test_a_feature_that_appears_later_was_missing_before() -> None:
    block, outputs = stream(4)
    recorder = Recorder(pipeline())
    narrow = block.with_X(block.X[:, :1].copy(), Features(["a"]))
    recorder.update(narrow.rows(0, 2), {k: v[:2] for k, v in outputs.items()}, 0.0)
    recorder.update(block.rows(2, 4), {k: v[2:] for k, v in outputs.items()}, 0.0)
    found = recorder.result()["features"]
    assert [f["name"] for f in found] == ["a", "b", "c"]
    assert found[1]["missing"][:2] == [1.0, 1.0]
    assert found[1]["missing"][2:] == np.isnan(block.X[2:, 1]).astype(float).tolist()
    assert found[1]["mean"][:2] == [None, None]


def test_the_detector_and_the_state_are_read() -> None:
    """Once a bin, after a block; nothing where no detector is."""
    block, outputs = stream(64)
    block = block.with_X(block.X[:, :1].copy(), Features(["a"]))
    detector = ADWIN()
    pipe = Pipeline(Normalizer(), KalmanClassifier(), detector)
    recorder = Recorder(pipe)
    for start in (0, 32):
        part = block.rows(start, start + 32)
        recorder.update(part, pipe.run(part), 0.0)
    first, last = recorder.result()["pipeline"]
    assert (first["row"], last["row"]) == (31, 63)
    assert last["bytes"] == pipe.state_bytes
    assert (last["mean"], last["width"]) == (detector.estimation, detector.width)
    alone = Recorder(Pipeline(Normalizer(), KalmanRegressor()))
    alone.update(block.replace(labels=None), outputs, 0.0)
    assert "mean" not in alone.result()["pipeline"][0]
    assert alone.result()["target"]["mean"][0] == block.y[0]


def test_extreme_values_are_left_out() -> None:
    """Infinite values, and those whose square is, count as missing."""
    block, outputs = stream(4)
    X = block.X.copy()
    X[:, 0] = [np.inf, 1e300, 2.0, -np.inf]
    recorder = Recorder(pipeline())
    recorder.update(block.replace(X=X), outputs, 0.0)
    found = recorder.result()["features"][0]
    assert found["missing"] == [1.0, 1.0, 0.0, 1.0]
    assert found["overall"] == [2.0, 0.0]


def test_nothing_was_recorded_before_the_first_block() -> None:
    found = Recorder(pipeline()).result()
    assert (found["events"], found["row"], found["features"]) == (0, [], [])


def test_scores_of_anomalies_are_numbers_beside_labels_that_are_classes() -> None:
    block, _ = stream(300)
    score = np.linspace(0.0, 0.9, 300)
    recorder = Recorder(pipeline())
    recorder.update(block, {"score": score}, 1e-3)
    found = recorder.result()
    assert found["answer"]["kind"] == "number"
    assert found["answer"]["overall"][0] == pytest.approx(0.45, abs=0.1)
    assert found["target"]["missing_overall"] == 1.0
