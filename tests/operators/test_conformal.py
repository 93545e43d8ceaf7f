"""Conformal intervals and sets: against the definition row by row, and what they cover."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, I8, LEARN, SCORED, Block, Columns, Features, Vocabulary
from streamlearn.operators import ConformalClassifier, ConformalRegressor, KalmanClassifier
from streamlearn.operators._base import Classifier, Operator, Regressor
from streamlearn.pipeline import Pipeline
from streamlearn.testing import labelled


class Says(Regressor):
    """A model that learns nothing: its first feature is the answer, the second its variance."""

    def _run(self, block: Block) -> Columns:
        return {"prediction": block.X[:, 0].copy(), "variance": block.X[:, 1].copy()}


class SaysProbabilities(Classifier):
    """A model that learns nothing: its features are the probabilities of the classes."""

    def _run(self, block: Block) -> Columns:
        said = block.X.argmax(axis=1).astype(np.float64)
        return {"prediction": said, "proba": block.X.copy()}


def late(X: F8, y: F8, delay: int, labels: Vocabulary | None = None) -> tuple[Block, I8]:
    """Rows whose label comes `delay` events later, and the rows of the events, in their order."""
    n = y.shape[0]
    order = sorted([(t, 0, t) for t in range(n)] + [(t + delay, 1, t) for t in range(n)])
    event = np.array([t for *_, t in order])
    brings = np.array([kind == 1 for _, kind, _ in order])
    block = Block(
        np.where(brings[:, None], np.nan, X[event]),
        np.where(brings, y[event], np.nan),
        np.ones(2 * n),
        np.where(brings, LEARN, SCORED).astype(np.uint8),
        Features([f"x{j}" for j in range(X.shape[1])]),
        labels,
        events=event,
    )
    return block, np.flatnonzero(~brings)


def answers(
    operator: Operator, X: F8, y: F8, delay: int | None = None, labels: Vocabulary | None = None
) -> Columns:
    """Outputs for the events, with labels at once (None) or so many events late."""
    if delay is None:
        task = "regression" if labels is None else "classification"
        block = labelled(X, y, task).replace(labels=labels)
        return Pipeline(operator).run(block)
    block, events = late(X, y, delay, labels)
    return {name: column[events] for name, column in Pipeline(operator).run(block).items()}


def naive(
    scores: F8,
    delay: int | None,
    coverage: float,
    gamma: float,
    memory: int,
    make_up: float = 1000.0,
) -> tuple[F8, list[float]]:
    """Radius at each row and level after each label, from the definition: a list that is sorted."""
    alpha = 1.0 - coverage
    radius, when, aim = (np.empty(scores.shape[0]) for _ in range(3))
    seen: list[float] = []
    level, levels, between = alpha, [], 0.0

    def expected() -> float:
        return min(max(level, 0.0), 1.0)

    def now() -> float:
        recent = sorted(seen[-memory:])
        m = len(recent)
        if (m + 1) * coverage > m:
            return math.inf
        if level < 0.0:
            doublings = min(-level / (2.0 * alpha), 1.0) if between else -level / (gamma * coverage)
            return float(recent[-1] * 2.0**doublings)
        rank = math.ceil((m + 1) * (1.0 - level))
        return float(recent[min(rank, m) - 1]) if rank >= 1 else 0.0

    def learn(t: int) -> None:
        nonlocal level, between
        between = max(len(seen) - when[t], between - 1.0, 0.0)
        if radius[t] < math.inf:
            owed = alpha - float(scores[t] > radius[t])
            if between:
                rate = min(gamma, 0.5 / between)
                level += rate * (owed + (aim[t] - expected()))
                credit = min(make_up, 50.0)
                level = min(max(level, alpha - make_up * rate), alpha + credit * rate)
            else:
                level += gamma * owed
            level = min(level, 1.0)
        seen.append(scores[t])
        levels.append(level)

    for t in range(scores.shape[0]):
        radius[t], when[t], aim[t] = now(), len(seen), expected()
        if delay is None:
            learn(t)
        elif t >= delay:
            learn(t - delay)
    for t in range(scores.shape[0] - (delay or 0), scores.shape[0]):  # outstanding at the end
        learn(t)
    return radius, levels


def drifting(n: int, seed: int = 0, every: int = 3000) -> tuple[F8, F8]:
    """Answers with a variance, and targets whose noise jumps at every so many rows."""
    rng = np.random.default_rng(seed)
    scale = np.array([1.0, 10.0, 0.1, 3.0])[np.arange(n) // every % 4]
    X = np.stack([rng.normal(size=n), scale**2], axis=1)
    return X, X[:, 0] + scale * rng.normal(size=n)


@pytest.mark.parametrize("delay", [None, 0, 1, 30])
@pytest.mark.parametrize(
    ("coverage", "gamma", "memory", "make_up"), [(0.9, 0.01, 250, 1000.0), (0.6, 0.2, 10, 3.0)]
)
def test_intervals_are_those_of_the_definition_at_every_row(
    delay: int | None, coverage: float, gamma: float, memory: int, make_up: float
) -> None:
    """Scores in a plain list, sorted anew at every row."""
    X, y = drifting(1200, seed=3, every=350)
    model = ConformalRegressor(Says(), coverage, gamma, memory, make_up)
    outputs = answers(model, X, y, delay)
    radius, levels = naive(np.abs(y - X[:, 0]), delay, coverage, gamma, memory, make_up)
    half = (outputs["upper"] - outputs["lower"]) / 2.0
    assert_allclose(half, np.where(np.isinf(radius), np.nan, radius), rtol=1e-9)
    assert_allclose(outputs["upper"] - X[:, 0], half, rtol=1e-9, atol=1e-12)
    assert_allclose(model.level_, levels[-1], rtol=1e-9)


def covered(outputs: Columns, y: F8) -> F8:
    """Whether each target was inside, (n,); rows without a bound count as inside."""
    outside = (y < outputs["lower"]) | (y > outputs["upper"])
    return np.asarray(~outside, dtype=np.float64)


def worst(inside: F8, window: int = 5000) -> tuple[float, float]:
    """The smallest and the largest share over any `window` rows."""
    total = np.concatenate([[0.0], np.cumsum(inside)])
    shares = (total[window:] - total[:-window]) / window
    return float(shares.min()), float(shares.max())


def test_any_5000_rows_hold_90_percent_whatever_the_noise_does() -> None:
    """Noise jumps by factors of 10, 100 and 30."""
    X, y = drifting(20_000)
    outputs = answers(ConformalRegressor(Says()), X, y)
    low, high = worst(covered(outputs, y))
    assert low >= 0.89
    assert high <= 0.91
    assert np.isnan(outputs["lower"]).sum() == 9  # 1 / alpha - 1


@pytest.mark.parametrize("delay", [24, 200])
def test_late_labels_cost_their_delay_at_each_drift(delay: int) -> None:
    """At most one drift more than 5,000 // 3,000 is in a window."""
    X, y = drifting(12_000)
    outputs = answers(ConformalRegressor(Says()), X, y, delay)
    low, high = worst(covered(outputs, y)[delay + 10 :])
    assert low >= 0.89 - 2 * delay / 5000
    assert high <= 0.91 + 2 * delay / 5000
    calm, inside = np.random.default_rng(1).normal(size=(12_000, 2)), slice(delay + 10, None)
    calm[:, 1] = 1.0
    noise = calm[:, 0] + np.random.default_rng(2).normal(size=12_000)
    outputs = answers(ConformalRegressor(Says()), calm, noise, delay)
    low, high = worst(covered(outputs, noise)[inside])
    assert 0.89 <= low <= high <= 0.91


def wandering(n: int, within: int) -> tuple[F8, F8]:
    """Answers, and targets whose noise forgets how large it was within so many rows."""
    rng = np.random.default_rng(0)
    size, kept = np.zeros(n), 1.0 - 1.0 / within
    steps = rng.normal(size=n) * 0.7 * math.sqrt(1.0 - kept**2)
    for t in range(1, n):
        size[t] = kept * size[t - 1] + steps[t]
    X = np.stack([rng.normal(size=n), np.ones(n)], axis=1)
    return X, X[:, 0] + np.exp(size) * rng.normal(size=n)


@pytest.mark.parametrize(("delay", "allowed"), [(200, 0.05), (1000, 0.21)])
def test_noise_that_changes_within_the_delay_costs_one_delay(delay: int, allowed: float) -> None:
    """No label tells of it in time: the mean holds, any 5,000 rows but for one delay full.

    And no interval is wider than twice the largest error known.
    """
    X, y = wandering(30_000, within=500)
    outputs = answers(ConformalRegressor(Says()), X, y, delay)
    inside = covered(outputs, y)[delay + 10 :]
    low, high = worst(inside)
    assert 0.9 - allowed <= low <= high <= 0.9 + allowed
    assert_allclose(inside.mean(), 0.9, atol=delay / inside.shape[0])
    half = (outputs["upper"] - outputs["lower"])[delay + 10 :] / 2.0
    known = np.maximum.accumulate(np.abs(y - X[:, 0]))[10:-delay]
    assert np.all(half <= 2.0 * known + 1e-12)


def test_errors_that_shrink_are_no_debt() -> None:
    """All rows of a delay are inside while errors shrink: 50 of them are given back, no more."""
    rng = np.random.default_rng(0)
    scale = np.maximum(np.exp(-np.arange(4000) / 100.0), 1e-6)
    X = np.stack([rng.normal(size=4000), np.ones(4000)], axis=1)
    y = X[:, 0] + scale * rng.normal(size=4000)
    model, highest = ConformalRegressor(Says()), 0.0
    block, _ = late(X, y, 400)
    pipe = Pipeline(model)
    for start in range(0, block.n, 20):
        pipe.run(block.rows(start, start + 20))
        highest = max(highest, float(model.level_[0]))
    assert_allclose(highest, 0.1 + 50.0 * 0.5 / 400, rtol=0.01)


def test_labels_that_never_come_shorten_no_delay() -> None:
    """Half of the labels are missing, in stretches longer than the delay: widths stay in bounds."""
    X, y = wandering(12_000, within=500)
    y[np.arange(12_000) % 600 < 300] = np.nan
    outputs = answers(ConformalRegressor(Says()), X, y, 24)
    half = (outputs["upper"] - outputs["lower"])[400:] / 2.0
    known = np.fmax.accumulate(np.abs(y - X[:, 0]))[399:-1]
    assert np.all(half <= 2.0 * known + 1e-12)


def test_errors_are_what_the_level_says() -> None:
    """The identity behind the guarantee: errors = T alpha + (level - alpha) / gamma."""
    X, y = drifting(9000, seed=5)
    model = ConformalRegressor(Says(), gamma=0.02)
    outputs = answers(model, X, y)
    judged = ~np.isnan(outputs["lower"])
    errors = np.sum(1.0 - covered(outputs, y)[judged])
    steps = (judged.sum() * 0.1 - errors) * 0.02
    assert_allclose(model.level_ - 0.1, steps, atol=1e-9)
    assert_allclose(model.coverage_, np.mean(covered(outputs, y)))
    assert_allclose(model.boundless_, np.mean(~judged))
    assert_allclose(model.width_, np.mean((outputs["upper"] - outputs["lower"])[judged]))


def test_scaled_scores_follow_the_variance_of_the_model() -> None:
    """Where the model knows its noise, widths are right from the first row of a change on."""
    X, y = drifting(12_000)
    outputs = answers(ConformalRegressor(Says(), scaled=True), X, y)
    width = (outputs["upper"] - outputs["lower"])[1000:]
    share = width / np.sqrt(X[1000:, 1])
    assert_allclose(np.median(share), 3.29, rtol=0.05)  # 2 * 1.645 of the normal
    assert_allclose(share, 3.29, rtol=0.6)
    with pytest.raises(ValueError, match="scaled needs a variance, NoVariance states none"):
        answers(ConformalRegressor(NoVariance(), scaled=True), X[:5], y[:5])


class NoVariance(Regressor):
    """A model that says 0."""

    def _run(self, block: Block) -> Columns:
        return {"prediction": np.zeros(block.n)}


def test_hard_targets_are_refused_and_counted() -> None:
    """Infinite, too far away, missing; a model that is never wrong; then one that is far off."""
    X = np.ones((400, 2))
    y = np.ones(400)
    y[20:23] = np.inf, 1e300, np.nan
    y[300:] = 1.0 + 1e6 * np.random.default_rng(0).random(100)
    model = ConformalRegressor(Says())
    outputs = answers(model, X, y)
    assert model.n_rejected == 2
    assert model.n_samples_ == 397
    assert_array_equal(outputs["upper"][23:300], 1.0)
    assert outputs["upper"][301:].min() == 1.0
    assert_allclose(covered(outputs, y)[330:].mean(), 0.9, atol=0.1)


def test_two_targets_are_two_streams_of_scores() -> None:
    """Each has its own radius."""
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(3000, 2)) * [1.0, 5.0]

    class Two(Regressor):
        def _run(self, block: Block) -> Columns:
            return {"prediction": np.zeros((block.n, 2))}

    both = ConformalRegressor(Two()).run(labelled(np.zeros((3000, 1)), Y))
    for j in range(2):
        one = ConformalRegressor(NoVariance()).run(labelled(np.zeros((3000, 1)), Y[:, j].copy()))
        assert_array_equal(both["upper"][:, j], one["upper"])


# -- sets ------------------------------------------------------------------------------------------


def classes(n: int, seed: int, sharp: float, C: int = 4) -> tuple[F8, F8, Vocabulary]:
    """Calibrated probabilities and labels; from the middle on half of the labels are others."""
    rng = np.random.default_rng(seed)
    z = np.exp(sharp * rng.normal(size=(n, C)))
    P = z / z.sum(axis=1, keepdims=True)
    y = (rng.random(n)[:, None] > np.cumsum(P, axis=1)).sum(axis=1).clip(0, C - 1)
    turned = (np.arange(n) >= n // 2) & (rng.random(n) < 0.5)
    y = np.where(turned, rng.integers(0, C, n), y)
    y[:C] = range(C)
    return P, y.astype(np.float64), Vocabulary(range(C))


@pytest.mark.parametrize("delay", [None, 50])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("sharp", [1.0, 12.0])
def test_sets_hold_what_they_should(sharp: float, exact: bool, delay: int | None) -> None:
    """sharp 12: the model is right 97 times in 100, so that sets of one cover too much."""
    P, y, labels = classes(12_000, 0, sharp)
    model = ConformalClassifier(SaysProbabilities(), exact=exact)
    outputs = answers(model, P, y, delay, labels)
    inside = outputs["set"][np.arange(y.shape[0]), y.astype(int)].astype(np.float64)
    begun = 10 + (delay or 0)
    low, high = worst(inside[begun:])
    allowed = 0.01 + (delay or 0) / 5000
    assert low >= 0.9 - allowed
    assert not exact or high <= 0.9 + allowed
    sizes = outputs["set"][begun:].sum(axis=1)
    assert exact or sizes.min() >= 1
    assert not (exact and sharp > 10.0) or sizes.min() == 0
    if delay is None:
        assert_allclose(model.coverage_, inside[1:].sum() / y.shape[0], atol=1e-3)
        assert_allclose(model.size_, outputs["set"].sum(axis=1).mean(), atol=1e-3)


def test_sets_are_the_classes_above_the_rank_of_the_definition() -> None:
    """Scores 1 - p(label) in a plain list; all classes known from the start but one."""
    P, y, labels = classes(3000, 7, 1.0)
    outputs = answers(
        ConformalClassifier(SaysProbabilities(), gamma=0.01, exact=True), P, y, None, labels
    )
    rows = np.arange(3000)
    scores = 1.0 - P[rows, y.astype(int)]
    radius, _ = naive(scores, None, 0.9, 0.01, 250)
    expected = radius[:, None] >= 1.0 - P
    assert_array_equal(outputs["set"][4:], expected[4:])


def test_a_new_class_is_outside_once_and_inside_from_then_on_where_it_is_likely() -> None:
    """Nobody can name it before; its first label counts as an error."""
    model = ConformalClassifier(KalmanClassifier(), coverage=0.8, memory=20)
    rng = np.random.default_rng(0)
    for i in range(400):
        kind = i % 2 if i < 200 else i % 3
        x = {f"x{j}": float(j == kind) + 0.1 * rng.normal() for j in range(3)}
        label = "abc"[kind]
        if i == 200:
            assert "c" not in model.predict_set_one(x)
        if i > 300:
            assert label in model.predict_set_one(x)
        model.learn_one(x, label)
    assert model.predict_set_one({"x0": 1.0, "x1": 0.0, "x2": 0.0}) == {"a"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coverage": 1.0}, r"^ConformalRegressor: coverage must be in \[0.5, 0.999\], got 1.0$"),
        ({"gamma": 0.0}, r"^ConformalRegressor: gamma must be in \[0.0001, 0.2\], got 0.0$"),
        (
            {"coverage": 0.99, "memory": 50},
            r"^ConformalRegressor: memory must be >= 99 for coverage 0.99, got 50$",
        ),
        ({"model": KalmanClassifier()}, "model must do regression, got KalmanClassifier"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], message: str) -> None:
    """Owner, rule, value."""
    with pytest.raises(ValueError, match=message):
        ConformalRegressor(**({"model": Says()} | given))
