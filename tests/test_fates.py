"""Events by what became of their labels, against a plain loop, under any cut."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.block import (
    EXPIRED,
    F8,
    LABELLED,
    LEARN,
    NO_TIME,
    PREDICT,
    SCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.evaluation import Evaluation

N = 40


def drawn(seed: int) -> tuple[list[tuple[int, int, bool]], F8, F8, F8]:
    """Rows (mode, event, assumed); then of each event the label, what was said, and how surely."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, int, int, bool]] = []
    for t in range(N):
        fate = rng.integers(0, 5)
        rows.append((float(t), LABELLED if fate == 0 else SCORED, t, False))
        if 1 <= fate <= 3:
            later = t + 0.5 + float(rng.integers(0, 8))
            rows.append((later, EXPIRED if fate == 3 else LEARN, t, bool(fate == 2)))
    rows.sort()
    y, said = rng.integers(0, 2, N).astype(np.float64), rng.integers(0, 2, N).astype(np.float64)
    return [row[1:] for row in rows], y, said, rng.uniform(0.5, 1.0, N)


def blocks(rows: list[tuple[int, int, bool]], y: F8, said: F8, sure: F8) -> tuple[Block, Columns]:
    mode = np.array([mode for mode, *_ in rows], dtype=np.uint8)
    event = np.array([t for _, t, _ in rows], dtype=np.int64)
    asked = mode & PREDICT != 0
    proba = np.where(np.arange(2) == said[event][:, None], sure[event][:, None], 0.0)
    proba += np.where(np.arange(2) != said[event][:, None], 1.0 - sure[event][:, None], 0.0)
    proba[~asked] = np.nan
    block = Block(
        np.zeros((len(rows), 1)), np.where(mode & LEARN != 0, y[event], np.nan),
        np.ones(len(rows)), mode, Features(["a"]), Vocabulary(["no", "yes"]), events=event,
        label_times=np.array([NO_TIME if assumed else 1 for *_, assumed in rows], dtype=np.int64),
    )  # fmt: skip
    return block, {"prediction": np.where(asked, said[event], np.nan), "proba": proba}


def expected(rows: list[tuple[int, int, bool]], y: F8, said: F8, sure: F8) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = {"told": [], "assumed": [], "expired": []}
    for mode, t, assumed in rows:
        if mode == EXPIRED:
            found["expired"].append((sure[t], np.nan))
        elif mode & LEARN:
            found["assumed" if assumed else "told"].append((sure[t], float(y[t] == said[t])))
    out: dict[str, Any] = {}
    for name, pairs in found.items():
        confidence = np.mean([c for c, _ in pairs]) if pairs else None
        right = np.mean([r for _, r in pairs]) if pairs and name != "expired" else None
        out[name] = {"events": len(pairs), "confidence": confidence, "accuracy": right}
    told, gone = out["told"], out["expired"]
    guess = gone["confidence"] + told["accuracy"] - told["confidence"]
    n, m = told["events"], gone["events"]
    out["estimated_accuracy"] = (n * told["accuracy"] + m * guess) / (n + m)
    return out


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 2 * N), max_size=6))
def test_fates_equal_a_loop_under_any_cut(seed: int, cuts: list[int]) -> None:
    rows, *told = drawn(seed)
    block, outputs = blocks(rows, *told)
    whole, cut = (Evaluation("classification", delayed=True) for _ in range(2))
    whole.update(block, outputs)
    ends = sorted({*(c for c in cuts if c < block.n), block.n})
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        cut.update(block.rows(a, b), {name: column[a:b] for name, column in outputs.items()})
        again = Evaluation("classification", delayed=True)
        again.load(cut.state())
        cut = again
    found = whole.result()["delayed"]["fates"]
    assert cut.result()["delayed"]["fates"] == found
    wanted = expected(rows, *told)
    assert found["estimated_accuracy"] == pytest.approx(wanted.pop("estimated_accuracy"), abs=1e-12)
    for fate, values in wanted.items():
        assert found[fate] == {
            name: None if v is None else pytest.approx(v, abs=1e-12) for name, v in values.items()
        }


def test_a_regressor_shows_its_answers_by_fate() -> None:
    y, said = np.array([1.0, 2.0, np.nan]), np.array([1.5, 4.0, 9.0])
    mode = np.array([LABELLED, LABELLED, SCORED, EXPIRED], dtype=np.uint8)
    block = Block(
        np.zeros((4, 1)), np.append(y, np.nan), np.ones(4), mode, Features(["a"]),
        events=np.array([0, 1, 2, 2]),
    )  # fmt: skip
    evaluation = Evaluation("regression", delayed=True)
    evaluation.update(block, {"prediction": np.append(said, np.nan)})
    found = evaluation.result()["delayed"]["fates"]
    assert found["told"] == {"events": 2, "answer": 2.75, "mae": 1.25}
    assert found["expired"] == {"events": 1, "answer": 9.0, "mae": None}
    assert found["estimated_accuracy"] is None
