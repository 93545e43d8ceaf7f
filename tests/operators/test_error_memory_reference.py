"""Error memories against a twin that keeps every row and adds them up anew at each question."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.block import F8, LABELLED, LEARN, SCORED, Block, Columns, Features, Vocabulary
from streamlearn.operators import (
    ErrorMemoryClassifier,
    ErrorMemoryRegressor,
    KalmanClassifier,
    KalmanRegressor,
)
from streamlearn.operators._base import Operator
from streamlearn.pipeline import Pipeline

GRID = [(0.0, 0.0), (1.0, 0.4), (1.0, 0.9), (0.0, 0.5), (0.0, 1.0)]


class Noted(NamedTuple):
    """A row that the memory has taken in."""

    z: F8
    cell: F8
    y: F8
    b: F8
    w: float


class Naive:
    """The specification with lists: every mean is a sum over all rows, weighted by their age."""

    def __init__(self, model: Any, C: int) -> None:
        self.p, self.C = model, C
        self.rows: list[Noted] = []
        self.values: list[F8] = []
        grid = GRID if model.lam is None else [(model.gamma, model.lam)]
        self.grid, self.gate = grid, np.full(len(grid), 1.0 / len(grid))
        self.errors: list[tuple[F8, float]] = []
        self.seen = np.zeros(C)

    def key(self, x: F8) -> F8:
        """Standardised by the first `warm_up` values of each feature."""
        if self.p.warm_up == 0:
            return np.nan_to_num(x)
        z = np.zeros(x.shape[0])
        for j, value in enumerate(x):
            column = [row[j] for row in self.values if not np.isnan(row[j])][: self.p.warm_up]
            if len(column) >= min(50, self.p.warm_up) and not np.isnan(value):
                spread = np.std(column)
                z[j] = np.clip((value - np.mean(column)) / spread, -5, 5) if spread > 0 else 0.0
        return z

    def cell(self, z: F8) -> F8:
        """Number of its cell in each array."""
        K, L = self.p.arrays, self.p.bits
        bits = (z @ self.p._projections.astype(float) > 0).reshape(L, K)
        return np.asarray((bits * (1 << np.arange(L))[:, None]).sum(0))

    def read(self, x: F8) -> tuple[F8, F8] | None:
        """Means of labels and answers of like rows, or None."""
        if not self.rows or len(self.values) < min(50, self.p.warm_up) or np.isnan(x).all():
            return None
        z = self.key(x)
        ages = self.p.rho ** (len(self.rows) - np.arange(len(self.rows)))
        read = self.read_ring if self.p.backend == "neighbours" else self.read_sketch
        return read(z, ages)

    def read_sketch(self, z: F8, ages: F8) -> tuple[F8, F8] | None:
        mine = self.cell(z)
        masses, weight = [], np.zeros(len(self.rows))
        total = sum(a * row.w for a, row in zip(ages, self.rows, strict=True))
        for k in range(self.p.arrays):
            there = np.array([row.cell[k] == mine[k] for row in self.rows])
            own = there * ages * np.array([row.w for row in self.rows])
            n = own.sum()
            if n < 1e-12:
                continue
            masses.append(n)
            softmax = self.p.weighting == "softmax"
            weight += own * (np.exp(n / total / self.p.tau) / n if softmax else 1.0)
        return self.mean(weight) if masses and sum(masses) >= self.p.n_min else None

    def read_ring(self, z: F8, ages: F8) -> tuple[F8, F8] | None:
        if len(self.rows) < self.p.n_min:
            return None
        kept = range(max(0, len(self.rows) - self.p.capacity), len(self.rows))

        def cosine(row: Noted) -> float:
            scale = np.linalg.norm(z) * np.linalg.norm(row.z)
            return float(z @ row.z / scale) if scale > 0 else 0.0

        likeness = {i: cosine(self.rows[i]) for i in kept}
        best = sorted(kept, key=lambda i: (-round(likeness[i], 12), -i))[: self.p.neighbours]
        weight = np.zeros(len(self.rows))
        for i in best:
            weight[i] = self.rows[i].w * ages[i] * np.exp(likeness[i] / self.p.tau)
        return self.mean(weight)

    def mean(self, weight: F8) -> tuple[F8, F8]:
        a = weight / weight.sum()
        ybar = sum(a[i] * row.y for i, row in enumerate(self.rows))
        bbar = sum(a[i] * row.b for i, row in enumerate(self.rows))
        return np.asarray(ybar), np.asarray(bbar)

    def options(self, b: F8, read: tuple[F8, F8]) -> list[F8]:
        """The answer of each pair of the grid."""
        ybar, bbar = read
        found = []
        for gamma, lam in self.grid:
            P = b + lam * (gamma * (ybar - b) + (1 - gamma) * (ybar - bbar))
            if self.p.task == "classification":
                P = np.maximum(P, 0.0)
                P = P / P.sum() if P.sum() > 0 else b
            found.append(P)
        return found

    def answer(self, b: F8, read: tuple[F8, F8] | None) -> F8:
        if read is None or self.p.lam == 0.0:
            return b
        mixed = zip(self.gate, self.options(b, read), strict=True)
        return np.asarray(sum(w * P for w, P in mixed))

    def learn(self, x: F8, y: Any, b: F8, read: tuple[F8, F8] | None, w: float) -> None:
        classes = self.p.task == "classification"
        target = np.eye(self.C)[int(y)] if classes else np.atleast_1d(y)
        if classes:
            self.seen[int(y)] += w
            if self.p.balance:
                w *= self.seen.sum() / ((self.seen > 0).sum() * self.seen[int(y)])
        elif not np.isnan(b).any():
            self.errors.append(((target - b) ** 2, w))
        if np.isnan(b).any():
            return
        if read is not None:
            self.step(target, b, read, w)
        if len(self.values) >= min(50, self.p.warm_up) and not np.isnan(x).all():
            z = self.key(x)
            cell = self.cell(z) if self.p.backend == "sketch" else np.zeros(0)
            if self.p.sigma == 0 or (abs(target - b) > self.p.sigma).any():
                self.rows.append(Noted(z, cell, target, b, w))

    def step(self, target: F8, b: F8, read: tuple[F8, F8], w: float) -> None:
        losses = [self.loss(target, P) for P in self.options(b, read)]
        gate = self.gate * np.exp(-self.p.eta * w * (np.array(losses) - min(losses)))
        self.gate = (1 - self.p.alpha) * gate / gate.sum() + self.p.alpha / len(gate)

    def loss(self, target: F8, P: F8) -> float:
        if self.p.task == "classification":
            return float(-np.log(np.clip(P[target == 1.0][0], 1e-4, 1 - 1e-4)))
        ages = self.p.rho ** np.arange(len(self.errors))[::-1]
        mass = ages * np.array([w for _, w in self.errors])
        spread = sum(m * e for m, (e, _) in zip(mass, self.errors, strict=True)) / mass.sum()
        return float(np.mean((target - P) ** 2 / spread))


SMALL: dict[str, Any] = {"arrays": 5, "bits": 3, "n_min": 2.0, "neighbours": 4, "capacity": 30}
SETTINGS: dict[str, dict[str, Any]] = {
    "gate": {"warm_up": 0, "rho": 0.99},
    "warm-up": {"warm_up": 70, "rho": 0.999},
    "softmax": {"warm_up": 10, "weighting": "softmax", "rho": 0.98},
    "forgetful": {"warm_up": 0, "rho": 0.5},
    "forgetful softmax": {"warm_up": 0, "weighting": "softmax", "rho": 0.5},
    "for ever": {"warm_up": 20, "rho": 1.0, "eta": 0.3, "alpha": 0.05},
    "fixed": {"warm_up": 0, "gamma": 0.3, "lam": 0.7},
    "ring": {"backend": "neighbours", "warm_up": 60, "rho": 0.99},
    "wide ring": {"backend": "neighbours", "warm_up": 0, "capacity": 500, "tau": 1.0},
}


def stream(task: str, n: int, seed: int) -> Block:
    """Three features with gaps, weights, and a concept that turns round in the middle."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 5.0, 0.1] + [0.0, 3.0, 0.0]
    z = X[:, 0] * np.where(np.arange(n) < n // 2, 1.0, -1.0)
    if task == "classification":
        y = np.digitize(z + 0.3 * rng.normal(size=n), [-0.5, 0.8]).astype(float)
    else:
        y = 3.0 * z + rng.normal(size=n) + 10.0
    X[rng.random(X.shape) < 0.05] = np.nan
    X[rng.random(n) < 0.02] = np.nan
    names, labels = Features(["a", "b", "c"]), Vocabulary(range(3))
    weight = rng.choice([0.5, 1.0, 2.0], n)
    labels_ = labels if task == "classification" else None
    return Block(X, y, weight, np.full(n, LABELLED, np.uint8), names, labels_)


def said_by(model: Operator, block: Block) -> F8:
    """What the model says of each row on its own, (n, C)."""
    out = model.run(block)
    if "proba" not in out:
        return out["prediction"][:, None]
    return np.where(np.isnan(out["prediction"])[:, None], np.nan, out["proba"])


def answers(outputs: Columns) -> F8:
    return outputs["proba"] if "proba" in outputs else outputs["prediction"][:, None]


def made(task: str, settings: dict[str, Any]) -> Any:
    both = SMALL | settings
    if task == "classification":
        return ErrorMemoryClassifier(KalmanClassifier(), balance="gate" in both, **both)
    return ErrorMemoryRegressor(KalmanRegressor(), **both)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_answers_equal_the_naive_twin_after_every_sample(task: str, name: str) -> None:
    memory, block = made(task, SETTINGS[name]), stream(task, 150, 1)
    inner: Operator = KalmanClassifier() if task == "classification" else KalmanRegressor()
    B = said_by(inner, block)
    memory.meet(block.features)
    memory._key()
    twin = Naive(memory, B.shape[1])
    for t in range(block.n):
        got = answers(memory.run(block.rows(t, t + 1)))[0]
        x, b, read = block.X[t], B[t], twin.read(block.X[t])
        if np.isnan(b).any():
            read = None
        else:
            expected = twin.answer(b, read)
            assert_allclose(got, expected[: got.size], rtol=1e-9, atol=1e-9, err_msg=str(t))
        if not np.isnan(x).all():
            twin.values.append(x)
        twin.learn(x, block.y[t], b, read, float(block.weight[t]))
        assert_allclose(memory.gate_, twin.gate, rtol=1e-8, atol=1e-12)
    assert memory.n_writes_ == len(twin.rows) > 70
    assert memory.n_imputed == sum(np.isnan(x).sum() for x in twin.values)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_balance_weighs_classes_alike(task: str) -> None:
    """Checked after every sample, as above, on a stream in which one class is rare."""
    if task == "regression":
        with pytest.raises(TypeError):
            ErrorMemoryRegressor(balance=True)  # type: ignore[call-arg]
        return
    memory = ErrorMemoryClassifier(
        KalmanClassifier(), arrays=4, bits=2, warm_up=0, rho=1.0, balance=True, lam=1.0
    )
    block = stream(task, 150, 3)
    y = np.where(np.random.default_rng(0).random(150) < 0.1, 1.0, 0.0)
    block = block.replace(y=y, weight=np.ones(150))
    B = said_by(KalmanClassifier(), block)
    memory.meet(block.features)
    memory._key()
    twin = Naive(memory, 3)
    B = np.column_stack([B, np.zeros((150, 3 - B.shape[1]))])
    for t in range(150):
        got = memory.run(block.rows(t, t + 1))["proba"][0]
        read = None if np.isnan(B[t]).any() else twin.read(block.X[t])
        if not np.isnan(B[t]).any():
            assert_allclose(got, twin.answer(B[t], read)[: got.size], rtol=1e-9, atol=1e-9)
        twin.values.append(block.X[t])
        twin.learn(block.X[t], y[t], B[t], read, 1.0)


@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
@pytest.mark.parametrize("cuts", [1, 7, 200])
def test_a_late_label_is_noted_with_the_answer_and_the_reading_of_then(
    backend: str, cuts: int
) -> None:
    """The gate steps by what was said at scoring, and the memory keeps the answer given then."""
    memory = made("classification", {"backend": backend, "warm_up": 0, "rho": 0.99})
    whole, n, delay = stream("classification", 160, 5), 160, 9
    events, mode = [], []
    for t in range(n + delay):
        events += [t] if t < n else []
        mode += [SCORED] if t < n else []
        events += [t - delay] if t >= delay else []
        mode += [LEARN] if t >= delay else []
    at = np.array(events)
    modes = np.array(mode, np.uint8)
    X = np.where((modes == SCORED)[:, None], whole.X[at], np.nan)
    y = np.where(modes == LEARN, whole.y[at], np.nan)
    late = Block(X, y, whole.weight[at], modes, whole.features, whole.labels, events=at)

    inner = Pipeline(KalmanClassifier())
    B = said_by(inner, late)
    pipeline = Pipeline(memory)
    memory.meet(whole.features)
    memory._key()
    parts = [pipeline.run(late.rows(a, a + cuts)) for a in range(0, late.n, cuts)]
    got = np.concatenate([np.pad(p["proba"], ((0, 0), (0, 3 - p["proba"].shape[1])))
                          for p in parts])  # fmt: skip
    twin = Naive(memory, B.shape[1])
    then: dict[int, Any] = {}
    for t, event in enumerate(events):
        x = whole.X[event]
        if mode[t] == SCORED:
            read = None if np.isnan(B[t]).any() else twin.read(x)
            then[event] = B[t], read
            if not np.isnan(B[t]).any():
                assert_allclose(got[t], twin.answer(B[t], read), rtol=1e-8, atol=1e-9)
            if not np.isnan(x).all():
                twin.values.append(x)
        else:
            b, read = then[event]
            twin.learn(x, whole.y[event], b, read, float(whole.weight[event]))
    assert_allclose(memory.gate_, twin.gate, rtol=1e-7, atol=1e-12)
    assert memory.n_writes_ == len(twin.rows) > 100


def test_the_filter_keeps_only_surprises() -> None:
    memory = made("classification", {"backend": "neighbours", "warm_up": 0, "sigma": 0.8})
    block = stream("classification", 150, 2)
    B = said_by(KalmanClassifier(), block)
    memory.meet(block.features)
    twin = Naive(memory, 3)
    for t in range(block.n):
        got = memory.run(block.rows(t, t + 1))["proba"][0]
        read = None if np.isnan(B[t]).any() else twin.read(block.X[t])
        if not np.isnan(B[t]).any():
            assert_allclose(got, twin.answer(B[t], read)[: got.size], rtol=1e-9, atol=1e-9)
        twin.values.append(block.X[t])
        twin.learn(block.X[t], block.y[t], B[t], read, float(block.weight[t]))
    assert 0 < memory.n_writes_ == len(twin.rows) < 120


@pytest.mark.parametrize("lam", [0.4, 0.9, None])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_two_classes_are_the_binary_formula(gamma: float, lam: float | None) -> None:
    """# acceptance 11: the paper's scalar form, y and b the share of class 1, to 1e-12."""
    memory = made("classification", {"gamma": gamma, "lam": lam, "warm_up": 0, "rho": 0.99})
    block = stream("classification", 300, 4)
    y, weight = np.minimum(block.y, 1.0), np.ones(300)
    out = memory.run(block.replace(y=y, weight=weight, log_wanted=True, labels=Vocabulary([0, 1])))
    said, read = out["log:said"], out["log:read"]  # which leave out what is 0 of class 1
    b, ybar, bbar = np.nan_to_num([said[:, 1], read[:, 2], read[:, 3]])
    grid = np.array(GRID if lam is None else [(gamma, lam)])
    gate = np.full(len(grid), 1.0 / len(grid))
    compensated = 0
    for t in range(300):
        if np.isnan(read[t, 0]) or np.isnan(said[t, 0]):
            continue
        err = grid[:, 0] * (ybar[t] - b[t]) + (1.0 - grid[:, 0]) * (ybar[t] - bbar[t])
        P = np.clip(b[t] + grid[:, 1] * err, 0.0, 1.0)
        assert_allclose(out["proba"][t, 1], gate @ P, atol=1e-12)
        loss = -np.log(np.clip(P if y[t] == 1.0 else 1.0 - P, 1e-4, 1.0 - 1e-4))
        gate *= np.exp(-(loss - loss.min()))
        gate = (1.0 - 1e-3) * gate / gate.sum() + 1e-3 / len(gate)
        compensated += 1
    assert compensated > 200
