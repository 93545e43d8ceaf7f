"""Predictions of a regressor with intervals, in every file."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from streamlearn import Pipeline, replay
from streamlearn.operators import ConformalRegressor, MeanRegressor

pytestmark = pytest.mark.jit


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predictions_have_both_ends(ending: str, tmp_path: Path) -> None:
    """Missing where there is no bound yet: before the fifth label, at 80 %."""
    y = np.random.default_rng(0).normal(size=40).tolist()
    data = [{"x": float(i), "y": target} for i, target in enumerate(y)]
    file = tmp_path / f"said.{ending}"
    pipe = Pipeline(ConformalRegressor(MeanRegressor(), coverage=0.8))
    replay(pipe, data, target="y", task="regression", predictions=file)
    if ending == "jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        read = pyarrow.csv.read_csv if ending == "csv" else pq.read_table
        rows = read(file).to_pylist()
    assert list(rows[0]) == ["row", "prediction", "lower", "upper"]
    assert [row["lower"] for row in rows[:5]] == [None] * 5
    for row in rows[6:]:
        assert row["upper"] - row["prediction"] == pytest.approx(row["prediction"] - row["lower"])
        assert row["upper"] >= row["lower"]
