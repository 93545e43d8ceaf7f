"""Sets of classes from the model to every file, as labels, and what is measured of them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamlearn import Pipeline, replay
from streamlearn.answers import _texts
from streamlearn.block import SCORED, Block, Features, Vocabulary
from streamlearn.connectors.predictions import PredictionRows
from streamlearn.contracts import Answers
from streamlearn.operators import ConformalClassifier, MajorityClassifier

pytestmark = pytest.mark.jit
NAMES = ["common", 'say "hi",\nthen', "rare; [odd]"]


def model() -> ConformalClassifier:
    return ConformalClassifier(MajorityClassifier(), coverage=0.8)


def events(n: int) -> list[dict[str, Any]]:
    codes = np.random.default_rng(0).choice(3, n, p=[0.6, 0.3, 0.1])
    return [{"x": float(i), "y": NAMES[k]} for i, k in enumerate(codes.tolist())]


def one_by_one(data: list[dict[str, Any]]) -> list[set[str] | None]:
    """The set of each event before its label is learnt; None before any answer."""
    one, found = model(), []
    for i, event in enumerate(data):
        found.append(one.predict_set_one({"x": event["x"]}) if i else None)
        one.learn_one({"x": event["x"]}, event["y"])
    return found


def read(file: Path) -> list[list[str] | None]:
    """The sets in a file of predictions."""
    if file.suffix == ".jsonl":
        return [json.loads(line)["set"] for line in file.read_text().splitlines()]
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            texts = [row["set"] for row in csv.DictReader(lines)]
        return [json.loads(text) if text else None for text in texts]
    return list(pq.read_table(file)["set"].to_pylist())


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_files_and_metrics_have_the_sets(ending: str, tmp_path: Path) -> None:
    """Named in the order in which the classes came."""
    data = events(80)
    order = list(dict.fromkeys(event["y"] for event in data))
    expected = one_by_one(data)
    file = tmp_path / f"said.{ending}"
    result = replay(Pipeline(model()), data, target="y", task="classification", predictions=file)
    told = [None if inside is None else sorted(inside, key=order.index) for inside in expected]
    assert read(file) == told
    pairs = [(e["y"], inside) for e, inside in zip(data, expected, strict=True) if inside]
    assert result.scored == len(pairs) == 79
    assert result.metrics["set_coverage"] == pytest.approx(np.mean([y in s for y, s in pairs]))
    assert result.metrics["set_size"] == pytest.approx(np.mean([len(s) for _, s in pairs]))


def test_a_model_without_sets_has_no_column(tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    result = replay(
        Pipeline(MajorityClassifier()), events(20), target="y", task="classification",
        predictions=file,
    )  # fmt: skip
    with file.open(newline="") as lines:
        assert next(csv.reader(lines))[:3] == ["row", "prediction", f"p_{events(1)[0]['y']}"]
    assert (result.metrics["set_coverage"], result.metrics["set_size"]) == (None, None)


def test_answers_over_http_have_the_set() -> None:
    labels = Vocabulary(["a", "b"])
    block = Block(
        np.zeros((3, 0)), np.full(3, np.nan), np.ones(3), np.full(3, SCORED, np.uint8),
        Features(()), labels,
    )  # fmt: skip
    sets = np.array([[1, 1], [0, 0], [1, 0]], np.uint8)
    said = {"prediction": np.array([1.0, 0.0, np.nan]), "proba": np.full((3, 2), 0.5), "set": sets}
    texts = _texts(PredictionRows(labels).take(Answers(block, said, 0)), {})
    assert [json.loads(text)["set"] for text in texts] == [["a", "b"], [], None]
