"""Every metric against a plain loop over dicts: late labels, groups, both bookings, the curve."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from river import metrics as _river_metrics
from sklearn import metrics as sk

from streamlearn.block import (
    EXPIRED,
    F8,
    I8,
    LABELLED,
    LEARN,
    SCORED,
    U1,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.evaluation import Evaluation

river_metrics: Any = _river_metrics  # untyped
Row = dict[str, Any]
CLIP = 1e-15
NAN = math.nan


class Late:
    """Events with labels that come later, as blocks and as a list of what happens."""

    def __init__(self, seed: int, n: int, delay: int, k: int = 2, groups: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.y: I8 = rng.integers(0, k, n)
        self.said: I8 = np.where(rng.random(n) < 0.6, self.y, rng.integers(0, k, n))
        self.proba: F8 = np.round(rng.dirichlet(np.ones(k), n), 3)  # with ties
        self.sets: U1 = (self.proba > 0.3).astype(np.uint8)  # some of them empty
        self.group = np.array([f"g{g}" for g in rng.integers(0, groups, n)], dtype=object)
        self.never = rng.random(n) < 0.1 if delay else np.zeros(n, dtype=bool)
        wait = rng.integers(0, 2 * delay + 1, n) if delay else np.zeros(n, dtype=int)
        order: list[tuple[float, int, int]] = [(i, 0, i) for i in range(n)]
        if delay:
            order += [(i + wait[i] + 0.5, 1, i) for i in range(n)]
        self.order = [(kind, i) for _, kind, i in sorted(order)]
        self.delay, self.k = delay, k

    def block(self) -> tuple[Block, Columns]:
        """All of it in one block."""
        event: I8 = np.array([i for _, i in self.order])
        comes = np.array([kind for kind, _ in self.order]) == 1
        first = SCORED if self.delay else LABELLED
        mode: U1 = np.where(comes, np.where(self.never[event], EXPIRED, LEARN), first).astype("u1")
        y = np.where(mode == SCORED, NAN, self.y[event].astype(float))
        y[mode == EXPIRED] = NAN
        prediction = np.where(comes, NAN, self.said[event])
        proba = np.where(comes[:, None], NAN, self.proba[event])
        n = event.shape[0]
        block = Block(
            np.zeros((n, 0)), y, np.ones(n), mode, Features(()), Vocabulary(range(self.k)),
            events=event if self.delay else None, groups=self.group[event],
        )  # fmt: skip
        sets = np.where(comes[:, None], np.uint8(0), self.sets[event])
        return block, {"prediction": prediction, "proba": proba, "set": sets}

    def booked(self) -> list[Row]:
        """Rows in the order of their booking, each with what was said when it was scored."""
        labels: list[int] = []
        pending: dict[int, Row] = {}
        out, last = [], 0
        for kind, i in self.order:
            if kind == 0:
                pending[i] = {
                    "event": i, "y": int(self.y[i]), "said": int(self.said[i]),
                    "p": self.proba[i].tolist(), "labels": list(labels), "group": self.group[i],
                    "set": {c for c in range(self.k) if self.proba[i][c] > 0.3},
                }  # fmt: skip
                last = i
            if (kind == 1 and not self.never[i]) or not self.delay:
                out.append(pending.pop(i) | {"after": last})
                labels.append(int(self.y[i]))
        return out


def majority(labels: list[int]) -> int:
    return min(sorted(set(labels)), key=lambda label: -labels.count(label))


def naive(rows: list[Row], weights: list[float], k: int) -> Row:
    """The metrics of rows with weights, each by its definition."""
    total = sum(weights)
    pairs = list(zip(rows, weights, strict=True))
    confusion = np.zeros((k, k))
    for row, w in pairs:
        confusion[row["y"], row["said"]] += w
    right, chance = np.trace(confusion) / total, confusion.sum(0) @ confusion.sum(1) / total**2
    lazy = sum(w for r, w in pairs if r["labels"] and r["labels"][-1] == r["y"]) / total
    common = sum(w for r, w in pairs if r["labels"] and majority(r["labels"]) == r["y"]) / total
    bins: list[list[float]] = [[] for _ in range(15)]
    for row, w in pairs:
        confidence = row["p"][row["said"]]
        b = next(b for b in range(15) if confidence <= (b + 1) / 15 or b == 14)
        bins[b].append(w * (confidence - (row["said"] == row["y"])))
    f1, recall = [], []
    for c in range(k):
        occurs, said = confusion[c].sum(), confusion[:, c].sum()
        if occurs > 0:
            recall.append(confusion[c, c] / occurs)
        if occurs + said > 0:
            f1.append(2 * confusion[c, c] / (occurs + said))
    square = [sum((p - (c == r["y"])) ** 2 for c, p in enumerate(r["p"])) / 2 for r in rows]
    return {
        "accuracy": right,
        "balanced_accuracy": sum(recall) / len(recall),
        "kappa": (right - chance) / (1 - chance),
        "kappa_t": (right - lazy) / (1 - lazy),
        "kappa_m": (right - common) / (1 - common),
        "log_loss": sum(-w * math.log(max(r["p"][r["y"]], CLIP)) for r, w in pairs) / total,
        "brier": sum(w * s for s, w in zip(square, weights, strict=True)) / total,
        "ece": sum(abs(sum(errors)) for errors in bins) / total,
        "macro_f1": sum(f1) / len(f1),
        "set_coverage": sum(w for r, w in pairs if r["y"] in r["set"]) / total,
        "set_size": sum(w * len(r["set"]) for r, w in pairs) / total,
    }


def ranks(rows: list[Row], k: int) -> Row:
    """By scikit-learn: of class 1 for two classes, else the mean of one against the rest."""
    y = np.array([row["y"] for row in rows])
    p = np.array([row["p"] for row in rows])
    classes = [1] if k == 2 else list(range(k))
    return {
        "roc_auc": np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in classes]),
        "average_precision": np.mean(
            [sk.average_precision_score(y == c, p[:, c]) for c in classes]
        ),
    }


def assert_holds(found: Row, expected: Row) -> None:
    assert {n: found[n] for n in expected} == pytest.approx(expected, rel=1e-11, abs=1e-11)


def in_cuts(measured: Evaluation, block: Block, outputs: Columns, cuts: list[int]) -> Evaluation:
    for start, stop in itertools.pairwise([0, *cuts, block.n]):
        part = {name: column[start:stop] for name, column in outputs.items()}
        measured.update(block.rows(start, stop), part)
    return measured


@pytest.mark.jit
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("delay", [0, 1, 40, 400])
def test_everything_equals_a_plain_loop(delay: int, k: int) -> None:
    """Labels that come out of order, one in ten never; window 100, memory of 50 rows."""
    made = Late(delay + k, 600, delay, k)
    block, outputs = made.block()
    measured = Evaluation(
        "classification", window=100, fading=0.98, delayed=delay > 0, positive=1 if k == 2 else None
    )
    rows = made.booked()
    found = in_cuts(measured, block, outputs, [1, 77, 78, 300]).result()
    n, f = len(rows), 0.98
    age = [f ** (n - 1 - t) for t in range(n)]
    assert (found["scored"], found["events"]) == (n, 600)
    assert_holds(found["metrics"], naive(rows, [1.0] * n, k))
    assert_holds(found["windowed"], naive(rows[-100:], [1.0] * 100, k) | ranks(rows[-100:], k))
    assert_holds(found["fading"], naive(rows, age, k))
    for group in ("g0", "g1", "g2"):
        own = [t for t in range(n) if rows[t]["group"] == group]
        theirs = [rows[t] for t in own]
        assert found["by_group"][group]["scored"] == len(own)
        assert_holds(found["by_group"][group], naive(theirs, [1.0] * len(own), k))
        assert_holds(found["by_group"][group]["fading"], naive(theirs, [age[t] for t in own], k))
        late = [row for row in rows[-100:] if row["group"] == group]
        expected = naive(late, [1.0] * len(late), k) | ranks(late, k)
        assert_holds(found["by_group"][group]["windowed"], expected)
    if delay:
        by_event = sorted(rows, key=lambda row: row["event"])
        weights = [f ** (599 - row["event"]) for row in by_event]
        scoring = found["delayed"]["scoring_time"]
        latest = by_event[-100:]
        assert_holds(scoring["windowed"], naive(latest, [1.0] * 100, k) | ranks(latest, k))
        assert_holds(scoring["fading"], naive(by_event, weights, k))
        assert found["delayed"]["label_time"]["windowed"] == found["windowed"]
        assert found["delayed"]["expired"] == made.never.sum()
        assert (found["delayed"]["pending"], found["delayed"]["unmatched"]) == (0, 0)


@pytest.mark.jit
@pytest.mark.parametrize("delay", [0, 40])
def test_the_curve_equals_a_plain_loop(delay: int) -> None:
    """2,500 events: bins of 8, by the event and by the event after which the label came."""
    made = Late(3, 2500, delay)
    measured = Evaluation("classification", delayed=delay > 0)
    in_cuts(measured, *made.block(), [500, 513, 1111])
    rows = made.booked()
    for booking, by in (("scoring", "event"), ("label", "after")):
        curve = measured.curve(booking)
        assert curve["row"] == [*range(7, 2500, 8), 2499]
        for b in (0, 1, 77, 200, 312):
            own = [row for row in rows if row[by] // 8 == b]
            assert curve["n"][b] == len(own)
            expected = naive(own, [1.0] * len(own), 2) if len(own) > 3 else {}
            for name in ("accuracy", "log_loss", "brier", "set_coverage", "set_size"):
                if name in expected:
                    assert curve[name][b] == pytest.approx(expected[name], rel=1e-11)
    lazy = [row for row in rows if row["event"] // 8 == 200]
    right = [row["labels"][-1] == row["y"] for row in lazy]
    shown = measured.curve()["baselines"]["no_change"]["accuracy"][200]
    assert shown == pytest.approx(sum(right) / len(right))


@pytest.mark.jit
def test_the_law_and_resuming_with_everything_on() -> None:
    """Late labels, groups beyond the cap, ten classes, samples and folds: same bits in any cut."""
    made = Late(11, 1500, 30, k=10, groups=6)
    block, outputs = made.block()
    settings: Row = {"window": 64, "fading": 0.9, "delayed": True, "max_groups": 4}
    whole = in_cuts(Evaluation("classification", **settings), block, outputs, [])
    rng = np.random.default_rng(0)
    cuts = sorted(rng.integers(0, block.n, 40).tolist())
    pieces = Evaluation("classification", **settings)
    for start, stop in itertools.pairwise([0, *cuts, block.n]):
        part = {name: column[start:stop] for name, column in outputs.items()}
        if rng.random() < 0.3:
            saved, pieces = pieces.state(), Evaluation("classification", **settings)
            pieces.load(saved)
        pieces.update(block.rows(start, stop), part)
    a, b = whole.state(), pieces.state()
    assert a.table == b.table
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)
    assert whole.result() == pieces.result()
    shown = whole.result()["by_group"]
    assert list(shown)[-1] == "(other)"
    assert len(shown) == 5
    assert sum(row["scored"] for row in shown.values()) == whole.scored


@pytest.mark.jit
def test_ranking_over_the_stream_is_the_mean_of_every_thousandth_row() -> None:
    made = Late(5, 3500, 0)
    measured = in_cuts(Evaluation("classification"), *made.block(), [999, 1000, 2500])
    rows = made.booked()
    every = [ranks(rows[n - 1000 : n], 2) for n in (1000, 2000, 3000)]
    expected = {name: np.mean([row[name] for row in every]) for name in every[0]}
    assert_holds(measured.result()["metrics"], expected)
    fade = [0.999**2000, 0.999**1000, 1.0]
    expected = {n: np.average([row[n] for row in every], weights=fade) for n in every[0]}
    assert_holds(measured.result()["fading"], expected)


@pytest.mark.jit
def test_metrics_equal_rivers_and_rivers_can_be_added() -> None:
    """Row by row, to 1e-12: those that both have, on a random stream of two classes."""
    made = Late(8, 400, 0)
    added = [river_metrics.CohenKappa(), river_metrics.LogLoss(), river_metrics.MacroF1()]
    measured = Evaluation("classification", labels=Vocabulary([False, True]), river=added)
    block, outputs = made.block()
    block = block.replace(labels=Vocabulary([False, True]))
    ours = {
        "accuracy": river_metrics.Accuracy(), "kappa": river_metrics.CohenKappa(),
        "balanced_accuracy": river_metrics.BalancedAccuracy(), "macro_f1": river_metrics.MacroF1(),
    }  # fmt: skip
    for t in range(400):
        part = {name: column[t : t + 1] for name, column in outputs.items()}
        measured.update(block.rows(t, t + 1), part)
        for metric in ours.values():
            metric.update(bool(made.y[t]), bool(made.said[t]))
        if t > 10 and t % 20 == 0:
            found = measured.result()
            assert_holds(found["metrics"], {name: m.get() for name, m in ours.items()})
            assert found["river"]["CohenKappa"] == ours["kappa"].get()
            assert found["river"]["MacroF1"] == ours["macro_f1"].get()
            assert found["river"]["LogLoss"] == pytest.approx(found["metrics"]["log_loss"])
    assert measured.needs_pickle
    fresh = [river_metrics.CohenKappa(), river_metrics.LogLoss(), river_metrics.MacroF1()]
    again = Evaluation("classification", river=fresh)
    again.load(measured.state())
    assert again.result()["river"] == measured.result()["river"]


@pytest.mark.parametrize("delay", [0, 7])
def test_regression_equals_a_plain_loop(delay: int) -> None:
    """Season 3, intervals of a variance, and late labels with what was said at scoring."""
    rng = np.random.default_rng(delay)
    n = 200
    y, spread = np.cumsum(rng.normal(size=n)), rng.uniform(0.2, 2.0, n)
    said = y + rng.normal(size=n)
    order = sorted([(i, 0, i) for i in range(n)] + [(i + delay + 0.5, 1, i) for i in range(n)])
    order = order if delay else [(i, 0, i) for i in range(n)]
    event: I8 = np.array([i for _, _, i in order])
    comes = np.array([kind for _, kind, _ in order]) == 1
    mode: U1 = np.where(comes, LEARN, SCORED if delay else LABELLED).astype("u1")
    target = np.where(mode == SCORED, NAN, y[event])
    hidden = {"prediction": said, "variance": spread}
    outputs: Columns = {name: np.where(comes, NAN, v[event]) for name, v in hidden.items()}
    m = event.shape[0]
    block = Block(
        np.zeros((m, 0)), target, np.ones(m), mode, Features(()), events=event if delay else None
    )
    measured = Evaluation("regression", window=50, delayed=delay > 0, season=3, level=0.8)
    found = in_cuts(measured, block, outputs, [5, 100, 101]).result()
    z = 1.2815515655446004  # of the normal distribution at 0.9
    low, high = said - z * np.sqrt(spread), said + z * np.sqrt(spread)
    for view, rows in (("metrics", range(n)), ("windowed", range(n - 50, n))):
        own = list(rows)
        known = [i for i in own if i - delay >= 3]  # i - delay labels have come when i is scored
        season = [abs(y[i] - y[i - delay - 3]) for i in known]
        below = np.maximum(0.1 * (y - low), -0.9 * (y - low))[own]
        above = np.maximum(0.9 * (y - high), -0.1 * (y - high))[own]
        assert_holds(
            found[view],
            {
                "mae": sk.mean_absolute_error(y[own], said[own]),
                "rmse": math.sqrt(sk.mean_squared_error(y[own], said[own])),
                "r2": sk.r2_score(y[own], said[own]),
                "smape": 100
                * np.mean([2 * abs(y[i] - said[i]) / (abs(y[i]) + abs(said[i])) for i in own]),
                "mase": sum(abs(y[i] - said[i]) for i in known) / sum(season),
                "pinball": np.mean((below + above) / 2),
                "coverage": np.mean([low[i] <= y[i] <= high[i] for i in own]),
                "width": np.mean((high - low)[own]),
            },
        )
    theirs = river_metrics.SMAPE()
    for a, b in zip(y, said, strict=True):
        theirs.update(a, b)
    assert found["metrics"]["smape"] == pytest.approx(theirs.get(), rel=1e-12)


def test_several_labels_equal_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    y = (rng.random((120, 3)) < [0.2, 0.5, 0.8]).astype(float)
    said = np.where(rng.random((120, 3)) < 0.7, y, 1 - y)
    proba = rng.uniform(0.05, 0.95, (120, 3))
    mode = np.full(120, LABELLED, dtype=np.uint8)
    block = Block(np.zeros((120, 0)), y, np.ones(120), mode, Features(()))
    measured = Evaluation("multilabel", window=30)
    assert measured.result()["metrics"]["exact_match"] is None
    found = in_cuts(measured, block, {"prediction": said, "proba": proba}, [1, 50]).result()
    for view, rows in (("metrics", slice(0, 120)), ("windowed", slice(90, 120))):
        t, s, p = y[rows], said[rows], proba[rows]
        expected = {
            "exact_match": sk.accuracy_score(t, s),
            "hamming_loss": sk.hamming_loss(t, s),
            "micro_f1": sk.f1_score(t, s, average="micro"),
            "macro_f1": sk.f1_score(t, s, average="macro"),
            "jaccard": sk.jaccard_score(t, s, average="samples", zero_division=1.0),
            "log_loss": np.mean([sk.log_loss(t[:, j], p[:, j]) for j in range(3)]),
            "brier": np.mean((p - t) ** 2),
        }
        assert_holds(found[view], expected)
    assert found["baselines"]["no_change"]["exact_match"] == pytest.approx(
        sk.accuracy_score(y[1:], y[:-1])
    )
    shares = y.cumsum(axis=0)[:-1] / np.arange(1, 120)[:, None]
    assert found["baselines"]["majority"]["hamming_loss"] == pytest.approx(
        sk.hamming_loss(y[1:], shares > 0.5)
    )
    assert [row["recall"] for row in found["per_class"].values()] == pytest.approx(
        sk.recall_score(y, said, average=None)
    )


def test_anomaly_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    y = (rng.random(300) < 0.1).astype(float)
    score = y + rng.normal(size=300)
    mode = np.full(300, LABELLED, dtype=np.uint8)
    block = Block(np.zeros((300, 0)), y, np.ones(300), mode, Features(()))
    measured = Evaluation("anomaly", window=200)
    found = in_cuts(measured, block, {"score": score}, [7]).result()
    last = slice(100, 300)
    assert_holds(
        found["windowed"],
        {
            "roc_auc": sk.roc_auc_score(y[last], score[last]),
            "average_precision": sk.average_precision_score(y[last], score[last]),
        },
    )
    assert found["baselines"]["chance"]["average_precision"] == pytest.approx(y.mean())
    assert found["baselines"]["chance"]["roc_auc"] == 0.5
