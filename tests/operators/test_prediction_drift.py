"""Prediction drift: what a model answers, compared without labels."""

from typing import Any

import numpy as np
import pytest
from river import drift

from streamlearn import registry
from streamlearn.block import F8, SCORED, Block, Features
from streamlearn.operators import ADWIN, FeatureDrift, KalmanRegressor, PredictionDrift
from streamlearn.pipeline import Pipeline
from streamlearn.testing import labelled

QUICK: dict[str, Any] = {
    "average_run_length": None, "reference": 100, "window": 40, "every": 20, "test": "ks",
}  # fmt: skip


def answers(n: int, seed: int = 0) -> F8:
    """Probabilities that fall after two thirds, with gaps."""
    rng = np.random.default_rng(seed)
    values = rng.beta(8.0, 2.0, n)
    values[2 * n // 3 :] = rng.beta(5.0, 4.0, n - 2 * n // 3)
    values[rng.random(n) < 0.1] = np.nan
    return values


def test_a_detector_hears_the_values_as_they_are() -> None:
    values = np.repeat([0.9, 0.4], 1000)
    plain, around = ADWIN(), PredictionDrift(ADWIN())
    assert around.first_alarm(values) == plain.first_alarm(values)
    assert around.finding() == plain.finding() | {
        "detector": "PredictionDrift", "by": "ADWIN", "watches": "prediction",
    }  # fmt: skip
    assert around.n_detections == 1


def test_a_window_of_answers_is_compared_with_a_reference() -> None:
    """Missing answers are passed over: the alarm is that of `FeatureDrift` without them."""
    values = answers(600)
    there = np.flatnonzero(~np.isnan(values))
    watch, twin = PredictionDrift(FeatureDrift(**QUICK)), FeatureDrift(**QUICK)
    X = values[there, None]
    alarm = twin.run(labelled(X, np.zeros(len(X))))["alarm"]
    assert there[np.argmax(alarm)] == watch.first_alarm(values) >= 400
    (moved,) = watch.finding()["features"]
    assert moved["name"] == "prediction"
    assert moved["to"] < moved["from"]
    assert watch.standing["statistic"] > watch.standing["limit"]


def test_in_a_pipeline_it_needs_no_label() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 1))
    X[500:] += 4.0
    pipeline = Pipeline(KalmanRegressor(), PredictionDrift(FeatureDrift(**QUICK)))
    pipeline.expects_labels = False
    pipeline.run(labelled(X[:300], 2.0 * X[:300, 0]))
    modes = np.full(300, SCORED, np.uint8)
    features = Features(("0",)) if pipeline.features is None else pipeline.features
    out = pipeline.run(Block(X[300:], np.full(300, np.nan), np.ones(300), modes, features))
    (at,) = np.flatnonzero(out["alarm"])
    assert 200 <= at < 240
    assert out["why"][at][0]["watches"] == "prediction"


def test_what_is_no_detector_is_refused() -> None:
    with pytest.raises(TypeError, match="detector must be a drift detector on one number"):
        PredictionDrift(KalmanRegressor())
    assert PredictionDrift(drift.PageHinkley()).first_alarm(np.zeros(10)) == -1


def test_its_detector_may_be_named_in_a_configuration() -> None:
    asked = {"detector": {"FeatureDrift": {"test": "psi", "average_run_length": None}}}
    watch = registry.build("PredictionDrift", asked)
    assert watch.detector.test == "psi"
    assert registry.build("PredictionDrift", {"detector": "ADWIN"}).detector.delta == 0.002
