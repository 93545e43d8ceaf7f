"""Error memories: the acceptance tests of the specification, and what is known to go wrong."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from river import linear_model, preprocessing
from scipy.stats import rankdata

from streamlearn import operators
from streamlearn.block import (
    B1,
    F8,
    LABELLED,
    LEARN,
    OBSERVE,
    PREDICT,
    SCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.jit import error_memory as jit
from streamlearn.operators import (
    AdaptiveClassifier,
    ErrorMemory,
    ErrorMemoryClassifier,
    ErrorMemoryRegressor,
    KalmanClassifier,
    MajorityClassifier,
    MeanRegressor,
    Normalizer,
)
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.pipeline import Pipeline, load
from streamlearn.testing import assert_same_bits, assert_same_state, labelled, run_in_cuts


class Offline(Classifier):
    """A logistic model trained before the stream, that never learns again."""

    recalls_input = True

    def __init__(self, w: Any, bias: float = -1.0) -> None:
        self.w, self.bias = w, bias

    def _run(self, block: Block) -> Columns:
        z = np.nan_to_num(block.X, posinf=0.0, neginf=0.0).clip(-1e3, 1e3) @ np.asarray(self.w)
        p = 1.0 / (1.0 + np.exp(-np.clip(2.0 * z + self.bias, -30.0, 30.0)))
        p = np.round(p, 9)  # numpy's last bits depend on how the rows are cut
        proba = np.column_stack([1.0 - p, p])
        return {"prediction": (p > 0.5).astype(np.float64), "proba": proba}


class Constant(Regressor):
    """Says the same of every row."""

    recalls_input = True

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def _run(self, block: Block) -> Columns:
        return {"prediction": np.full(block.n, self.value)}


def rows(X: Any, y: Any, mode: Any = LABELLED, classes: int | None = 2) -> Block:
    X, n = np.ascontiguousarray(X, dtype=np.float64), len(X)
    names = Features([f"x{j}" for j in range(X.shape[1])])
    labels = None if classes is None else Vocabulary(range(classes))
    modes = np.broadcast_to(np.asarray(mode, np.uint8), n).copy()
    return Block(X, np.asarray(y, dtype=np.float64), np.ones(n), modes, names, labels)


def auc(y: F8, p: F8) -> float:
    ranks, n1 = rankdata(p), y.sum()
    return float((ranks[y == 1].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(y) - n1)))


def log_loss(y: F8, p: F8) -> float:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return float(-np.mean(np.where(y == 1, np.log(p), np.log(1 - p))))


def concept(seed: int, drift: float, n: int = 12_000) -> tuple[F8, Block]:
    """Section 6: weights of the offline model, and rows of which a share 1 - drift fit them."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=8)
    new = w + 1.2 * rng.normal(size=8)
    X = rng.normal(size=(n, 8))
    fits = np.arange(n) < (1.0 - drift) * n
    z = np.where(fits, X @ w, X @ new)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(1.0 - 2.0 * z))).astype(np.float64)
    return w, rows(X, y)


# -- acceptance tests ------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [20.0, 60.0, 130.0])
def test_bits_agree_as_often_as_the_angle_says(degrees: float) -> None:
    """# acceptance 1: within 0.003 of 1 - angle / pi at 200,000 projections."""
    angle = np.deg2rad(degrees)
    cells = []
    for x in ([3.0, 0.0], [np.cos(angle), np.sin(angle)]):
        memory = ErrorMemoryRegressor(
            Constant(), arrays=200_000, bits=1, warm_up=0, rho=1.0, lam=1.0
        )
        memory.run(rows([x], [1.0], classes=None))
        cells.append(memory.cells_[:, 1, 0])
    assert abs(np.mean(cells[0] == cells[1]) - (1.0 - angle / np.pi)) < 0.003


def test_rows_that_share_no_cell_read_the_mean_of_their_own() -> None:
    """# acceptance 2: five keys, L = 12, K = 3, gamma = lam = 1, to 1e-12 of the running mean."""
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(5, 8))
    memory = ErrorMemoryRegressor(
        Constant(), arrays=3, bits=12, warm_up=0, rho=1.0, lam=1.0, n_min=1.0
    )
    which, y = rng.integers(0, 5, 400), rng.normal(size=400)
    out = memory.run(rows(keys[which], y, classes=None))["prediction"]
    assert np.count_nonzero(memory.cells_[:, :, 0]) == 15
    for t in range(400):
        same = which[:t] == which[t]
        assert abs(out[t] - (y[:t][same].mean() if same.any() else 0.0)) < 1e-12


@pytest.mark.parametrize(("bits", "error"), [(4, 0.02), (8, 0.02)])
@pytest.mark.jit
def test_the_sketch_is_a_kernel_mean(bits: int, error: float) -> None:
    """# acceptance 3: K = 400, 3,000 rows: count within 5 %, ybar within 0.02 of the exact one."""
    rng = np.random.default_rng(1)
    X, Q = rng.normal(size=(3000, 4)), rng.normal(size=(40, 4))
    y = (X[:, 0] + 0.5 * rng.normal(size=3000) > 0).astype(np.float64)
    memory = ErrorMemoryRegressor(
        Constant(), arrays=400, bits=bits, warm_up=0, rho=1.0, lam=1.0, n_min=0.0
    )
    memory.run(rows(X, y, classes=None))
    ybar = memory.run(rows(Q, np.zeros(40), PREDICT, classes=None))["prediction"]
    up = (Q @ memory._projections > 0).reshape(40, bits, 400)
    cells = (up * (1 << np.arange(bits))[:, None]).sum(axis=1)
    counts = memory.cells_[np.arange(400), cells, 0].mean(axis=1)
    cosine = (Q / np.linalg.norm(Q, axis=1)[:, None]) @ (X / np.linalg.norm(X, axis=1)[:, None]).T
    kernel = (1.0 - np.arccos(np.clip(cosine, -1, 1)) / np.pi) ** bits
    assert abs(counts.sum() / kernel.sum() - 1.0) < 0.05
    exact = kernel @ y / kernel.sum(axis=1)
    assert np.mean(np.abs(ybar - exact)) < error


@pytest.mark.parametrize("lam", [0.1, 0.4, 0.9, 1.0])
def test_gamma_1_is_an_average_of_model_and_neighbours(lam: float) -> None:
    """# acceptance 4: (1 - lam) b + lam ybar to 1e-15; nothing read: b, bit for bit."""
    w, block = concept(0, 1.0, 400)
    memory = ErrorMemoryClassifier(Offline(w), arrays=9, bits=4, warm_up=0, lam=lam)
    out = memory.run(block.replace(log_wanted=True))
    b, read = out["log:said"], out["log:read"]
    found = ~np.isnan(read[:, 0])
    assert found.sum() > 300
    assert not found[0]
    mixed = (1.0 - lam) * b[found] + lam * read[found][:, ::2]
    assert_allclose(out["proba"][found], mixed, rtol=0, atol=1e-15)
    assert np.array_equal(out["proba"][~found], Offline(w).run(block)["proba"][~found])


@pytest.mark.parametrize("lam", [0.0, None])
@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
def test_without_strength_or_memory_the_model_answers(lam: float | None, backend: str) -> None:
    """# acceptance 4: lam = 0 for ever, an empty memory until it is written, bit for bit."""
    w, block = concept(1, 1.0, 400)
    if lam is None:
        block = block.replace(mode=np.full(400, SCORED, np.uint8))
    memory = ErrorMemoryClassifier(Offline(w), backend, warm_up=0, lam=lam, gamma=0.5)
    assert_same_bits(memory.run(block), Offline(w).run(block))


@pytest.mark.parametrize("rho", [0.9, 0.999, 1.0])
@pytest.mark.jit
def test_lazy_decay_is_eager_decay(rho: float) -> None:
    """# acceptance 5: to 1e-12 after 10,000 mixed reads and writes; rho = 1 gives plain sums."""
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(10_000, 3)), rng.normal(size=10_000)
    mode = rng.choice([PREDICT, LABELLED, LEARN, SCORED], 10_000)
    memory = ErrorMemoryRegressor(Constant(0.5), arrays=4, bits=3, warm_up=0, rho=rho)
    memory.run(rows(X, y, mode, classes=None))
    up = (X @ memory._projections > 0).reshape(-1, 3, 4)
    cells = (up * np.array([1, 2, 4])[:, None]).sum(axis=1)
    eager, k = np.zeros((4, 8, 3)), np.arange(4)
    for t in np.flatnonzero(mode & LEARN):
        eager[k, cells[t]] += [1.0, y[t], 0.5]
        eager *= rho
    assert_allclose(memory.cells_ * memory.scalars_[jit.SCALE], eager, rtol=1e-12, atol=1e-12)
    assert rho < 1.0 or memory.scalars_[jit.SCALE] == 1.0


@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
@pytest.mark.jit
def test_no_answer_looks_ahead(backend: str) -> None:
    """# acceptance 6: answers up to row i stay when labels from i on change; any cut, same bits."""
    w, block = concept(2, 0.5, 1500)
    arguments: dict[str, Any] = {"arrays": 20, "warm_up": 100, "capacity": 300}
    whole = ErrorMemoryClassifier(Offline(w), backend, **arguments)
    expected = whole.run(block)
    for i in (0, 1, 60, 777, 1499):
        y = block.y.copy()
        y[i:] = 1.0 - y[i:]
        got = ErrorMemoryClassifier(Offline(w), backend, **arguments).run(block.replace(y=y))
        assert np.array_equal(got["proba"][: i + 1], expected["proba"][: i + 1])
    for size in (1, 13, 500):
        parts = ErrorMemoryClassifier(Offline(w), backend, **arguments)
        cuts = [block.rows(a, min(a + size, 1500)) for a in range(0, 1500, size)]
        assert_same_bits(expected, run_in_cuts(parts, cuts))
        assert_same_state(whole.state(), parts.state())


BACKENDS: list[dict[str, Any]] = [
    {}, {"rho": 0.9995}, {"weighting": "softmax"}, {"backend": "neighbours"}
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arguments", BACKENDS)
@pytest.mark.jit
def test_the_gate_does_no_harm_without_drift(seed: int, arguments: dict[str, Any]) -> None:
    """# acceptance 7: costs less than 0.003 log loss and 0.001 AUC."""
    w, block = concept(seed, 0.0)
    p = ErrorMemoryClassifier(Offline(w), **arguments).run(block)["proba"][:, 1]
    b = Offline(w).run(block)["proba"][:, 1]
    assert log_loss(block.y, p) - log_loss(block.y, b) < 0.003
    assert auc(block.y, b) - auc(block.y, p) < 0.001


@pytest.mark.parametrize("arguments", BACKENDS)
@pytest.mark.jit
def test_the_gate_helps_after_a_drift(arguments: dict[str, Any]) -> None:
    """# acceptance 8: gains more than 0.3 log loss and 0.1 AUC, the mean of three streams."""
    gains = []
    for seed in range(3):
        w, block = concept(seed, 1.0)
        p = ErrorMemoryClassifier(Offline(w), **arguments).run(block)["proba"][:, 1]
        b = Offline(w).run(block)["proba"][:, 1]
        gains.append((log_loss(block.y, b) - log_loss(block.y, p),
                      auc(block.y, p) - auc(block.y, b)))  # fmt: skip
    assert np.mean(gains, axis=0)[0] > 0.3
    assert np.mean(gains, axis=0)[1] > 0.1


COUNT_LINES = """
import sys
import numpy as np
from streamlearn.block import LABELLED, Block, Features, Vocabulary
from streamlearn.pipeline import load

def lines(path):
    X = np.random.default_rng(5).normal(size=(30, 3))
    names, labels = Features(["x0", "x1", "x2"]), Vocabulary([0, 1])
    y, w, mode = X[:, 0] > 0, np.ones(30), np.full(30, LABELLED, np.uint8)
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.endswith("jit/error_memory.py"):
            return None
        count += event == "line"
        return trace

    pipe = load(path)
    sys.settrace(trace)
    pipe.run(Block(X, y.astype(float), w, mode, names, labels))
    sys.settrace(None)
    return count

print(*map(lines, sys.argv[1:]))
"""


@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
@pytest.mark.jit
def test_a_million_writes_take_no_more_memory_or_work(backend: str, tmp_path: Path) -> None:
    """# acceptance 9: bytes constant; rows after a million cost no more steps, within 20 %.

    The steps are lines of the kernels run as plain Python; what they take is in the benchmarks.
    """
    rng = np.random.default_rng(3)
    block = rows(rng.normal(size=(1000, 3)), rng.integers(0, 2, 1000))
    memory = ErrorMemoryClassifier(MajorityClassifier(), backend, arrays=20, bits=6, capacity=100)
    pipe, paths = Pipeline(memory), [str(tmp_path / name) for name in ("young.bin", "old.bin")]
    pipe.run(block)
    size = memory.state_bytes
    pipe.save(paths[0])
    for _ in range(1000):
        pipe.run(block)
    pipe.save(paths[1])
    assert memory.n_writes_ > 1_000_000
    assert memory.state_bytes == size
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", COUNT_LINES, *paths]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    young, old = map(int, done.stdout.split())
    assert young > 1000
    assert abs(old / young - 1.0) < 0.2


@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
def test_a_seed_and_a_file_give_the_same_bits(backend: str, tmp_path: Any) -> None:
    """# acceptance 10: equal seeds, equal bits; saved and loaded, it goes on as it would have."""
    _, block = concept(3, 1.0, 400)

    def made(seed: int) -> Pipeline:
        memory = ErrorMemoryClassifier(None, backend, arrays=9, warm_up=80, seed=seed)
        return Pipeline(Normalizer(), memory)

    one, other = made(1), made(1)
    one.run(block.rows(0, 200))
    other.run(block.rows(0, 200))
    other.save(tmp_path / "memory.bin")
    loaded = load(tmp_path / "memory.bin")
    expected = one.run(block.rows(200, 400))
    assert_same_bits(expected, loaded.run(block.rows(200, 400)))
    assert_same_state(one.state(), loaded.state())
    if backend == "sketch":
        another = made(2)
        another.run(block.rows(0, 200))
        assert not np.array_equal(another.run(block.rows(200, 400))["proba"], expected["proba"])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_merged_memories_hold_what_one_would(task: str) -> None:
    """# acceptance 10: rho = 1 and equal seeds: as if both streams had been written into one."""
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(300, 3)), rng.integers(0, 3, 300).astype(np.float64)
    y[150:] = np.minimum(y[150:], 1.0)  # a class that the second has never seen
    arguments: dict[str, Any] = {"arrays": 6, "bits": 4, "warm_up": 0, "rho": 1.0}

    def made() -> Any:
        if task == "classification":
            return ErrorMemoryClassifier(Offline([1.0, 0.0, 0.0]), **arguments)
        return ErrorMemoryRegressor(Constant(0.5), **arguments)

    block = rows(X, y, classes=3 if task == "classification" else None)
    for first, second in ((0, 1), (1, 0)):
        whole, halves = made(), [made(), made()]
        whole.run(block)
        for half, piece in zip(halves, (block.rows(0, 150), block.rows(150, 300)), strict=True):
            half.run(piece)
        halves[first].merge(halves[second])
        merged = halves[first]
        assert_allclose(merged.cells_, whole.cells_, rtol=0, atol=1e-12)
        assert merged.n_writes_ == whole.n_writes_
        assert_allclose(merged.outputs_, whole.outputs_, rtol=1e-12)
        assert merged.gate_.sum() == pytest.approx(1.0)
        asked = rows(X, y, PREDICT, classes=3 if task == "classification" else None)
        fixed = 1.0 / whole.gate_.shape[0]
        whole.gate_[:] = merged.gate_[:] = fixed
        got, expected = merged.run(asked)["prediction"], whole.run(asked)["prediction"]
        assert_allclose(got, expected, rtol=1e-12)


def test_a_copy_that_forgets_can_go_on_apart_and_be_merged() -> None:
    _, block = concept(5, 1.0, 400)
    one = ErrorMemoryClassifier(Offline(np.ones(8)), arrays=5, bits=3, warm_up=60, rho=1.0)
    one.run(block.rows(0, 100))
    other = one.clone()
    other.load(one.state())
    other.forget()
    whole = one.clone()
    whole.load(one.state())
    one.run(block.rows(100, 250))
    other.run(block.rows(250, 400))
    one.merge(other)
    whole.run(block.rows(100, 400))
    assert_allclose(one.cells_, whole.cells_, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.99}, "takes two sketches with rho=1"),
        ({"backend": "neighbours"}, "takes two sketches with rho=1"),
        ({"rho": 1.0, "seed": 1}, "seed must be 0 in both to merge, got 1"),
        ({"rho": 1.0}, "keys of both must be on one scale"),
    ],
)
def test_memories_that_do_not_fit_are_not_merged(arguments: Any, message: str) -> None:
    rho = 1.0 if "seed" in arguments else arguments.get("rho", 1.0)
    one = ErrorMemoryRegressor(Constant(), rho=rho, arrays=3)
    other = ErrorMemoryRegressor(Constant(), arrays=3, **({"rho": 1.0} | arguments))
    rng = np.random.default_rng(0)
    for memory in (one, other):
        memory.run(rows(rng.normal(size=(60, 2)), np.zeros(60), classes=None))
    with pytest.raises(ValueError, match=message):
        one.merge(other)


# -- traps -----------------------------------------------------------------------------------------


@pytest.mark.jit
def test_a_filter_of_errors_bends_the_means() -> None:
    """Why the sketch takes no sigma: a model that fits is made worse by its own rare errors."""
    with pytest.raises(ValueError, match=r"^ErrorMemoryRegressor: sigma must be 0 with the sketch"):
        ErrorMemoryRegressor(sigma=0.3)
    w, block = concept(0, 0.0, 6000)
    arguments: dict[str, Any] = {"backend": "neighbours", "gamma": 0.0, "lam": 1.0}
    losses = [
        log_loss(block.y, ErrorMemoryClassifier(Offline(w), sigma=sigma, **arguments)
                 .run(block)["proba"][:, 1])
        for sigma in (0.0, 0.5)
    ]  # fmt: skip
    assert losses[1] > losses[0] + 0.05


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0), st.floats(0.0, 5.0))
@settings(max_examples=25)
def test_gate_and_probabilities_stay_on_their_simplex(seed: int, alpha: float, eta: float) -> None:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-150, 150, 3)
    X = rng.normal(size=(80, 3)) * scale
    X[rng.random(X.shape) < 0.1] = np.nan
    block = rows(X, rng.integers(0, 3, 80), classes=3)
    block = block.replace(weight=rng.choice([0.0, 1e-200, 1.0, 1e200], 80))
    memory = ErrorMemoryClassifier(
        MajorityClassifier(), arrays=3, bits=2, warm_up=int(rng.integers(0, 60)), n_min=0.0,
        alpha=alpha, eta=eta, rho=float(rng.choice([1e-5, 0.9, 1.0])),
    )  # fmt: skip
    out = memory.run(block)
    answered = ~np.isnan(out["prediction"])
    assert_allclose(out["proba"][answered].sum(axis=1), 1.0, rtol=1e-9)
    assert (out["proba"][answered] >= 0.0).all()
    assert_allclose(memory.gate_.sum(), 1.0, rtol=1e-9)
    assert (memory.gate_ >= alpha / 5 * (1 - 1e-9)).all()
    assert np.isfinite(memory.cells_).all()


@pytest.mark.parametrize("kind", ["constant", "collinear", "huge", "tiny", "infinite", "offset"])
@pytest.mark.parametrize("family", [ErrorMemoryClassifier, ErrorMemoryRegressor])
@pytest.mark.jit
def test_hostile_features_do_no_harm(kind: str, family: Any) -> None:
    """20,000 rows: the state stays finite, and a class is still found by its neighbours."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(20_000, 4))
    y = (X[:, 0] > 0).astype(np.float64)
    if kind == "constant":
        X[:, 1:] = [3.7, 0.0, -1e6]
    elif kind == "collinear":
        X[:, 1:3] = X[:, :1] * [1e6, -1e-6]
    elif kind == "huge":
        X[rng.random(20_000) < 0.01, 1] = 1e308
    elif kind == "tiny":
        X *= 1e-6
    elif kind == "infinite":
        X[rng.random(20_000) < 0.1, 1] = np.inf
    else:
        X += 1e8
    classes = 2 if family is ErrorMemoryClassifier else None
    memory = family(MajorityClassifier() if classes else MeanRegressor())
    out = memory.run(rows(X, y, classes=classes))
    for array in memory.state().arrays.values():
        assert np.isfinite(array).all()
    late = out["prediction"][10_000:]
    fine = ~np.isnan(late)
    assert np.mean((late[fine] > 0.5) == y[10_000:][fine]) > 0.85
    assert memory.n_rejected == np.isinf(X).any(axis=1).sum()


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
def test_ten_million_rows(backend: str) -> None:
    rng = np.random.default_rng(7)
    memory = ErrorMemoryClassifier(
        MajorityClassifier(), backend, arrays=20, bits=6, capacity=100, rho=0.99
    )
    for k in range(1000):
        X = rng.normal(size=(10_000, 4)) * [1.0, 10.0 ** (k % 13 - 6), 1e6, 0.0] + [0, 0, 1e6, 1]
        memory.run(rows(X, X[:, 0] > 0))
        assert np.isfinite(memory.cells_).all()
    assert memory.gate_.sum() == pytest.approx(1.0)


def test_a_row_without_features_has_no_key() -> None:
    memory = ErrorMemoryRegressor(Constant(), warm_up=0, lam=1.0, arrays=3)
    X = np.array([[1.0, np.nan], [np.nan, np.nan], [np.inf, 1.0], [2.0, 3.0]])
    memory.run(rows(X, [1.0, 2.0, 3.0, np.inf], classes=None))
    assert memory.n_writes_ == 1
    assert memory.n_imputed == 1
    assert memory.n_skipped == 1
    assert memory.n_rejected == 2


def test_a_missing_feature_is_at_its_mean() -> None:
    """A gap and the mean of the warm-up have one key."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(100, 2)) + 5.0
    memory = ErrorMemoryRegressor(Constant(), warm_up=100, lam=1.0, rho=1.0)
    memory.run(rows(X, X[:, 0], classes=None))
    asked = [[4.0, np.nan], [4.0, X[:, 1].mean()]]
    out = memory.run(rows(asked, [0.0, 0.0], PREDICT, classes=None))["prediction"]
    assert out[0] == pytest.approx(out[1], abs=1e-12)


@pytest.mark.jit
def test_the_scale_of_the_keys_is_frozen() -> None:
    rng = np.random.default_rng(9)
    memory = ErrorMemoryRegressor(Constant(), warm_up=200, arrays=3)
    X = rng.normal(size=(600, 2))
    memory.run(rows(X[:300], np.zeros(300), classes=None))
    frozen = memory.scaler_.copy()
    memory.run(rows(100.0 * X[300:], np.zeros(300), classes=None))
    assert np.array_equal(memory.scaler_, frozen)
    assert_allclose(frozen[1], X[:200].mean(axis=0), atol=1e-12)
    assert_allclose(frozen[2], X[:200].var(axis=0), atol=1e-12)


@pytest.mark.parametrize("backend", ["sketch", "neighbours"])
def test_forgetting_leaves_the_model_alone(backend: str) -> None:
    _, block = concept(6, 1.0, 300)
    memory = ErrorMemoryClassifier(None, backend, warm_up=0, arrays=5)
    memory.run(block)
    memory.forget()
    alone = KalmanClassifier()
    alone.run(block)
    asked = block.replace(mode=np.full(300, PREDICT, np.uint8))
    assert_same_bits(memory.run(asked), alone.run(asked))
    assert (memory.gate_ == 0.2).all()


def test_labels_of_before_a_reset_teach_a_memory_that_has_forgotten_their_classes() -> None:
    """As a drift alarm resets it, of a wrapper around it, while labels are outstanding."""
    memory = ErrorMemoryClassifier(KalmanClassifier(), arrays=2, bits=2, warm_up=0)
    pipe = Pipeline(memory)
    mode = np.repeat([LABELLED, SCORED], [6, 4])
    block = rows(np.eye(10), np.arange(10) % 3, mode, classes=3).replace(ids=np.arange(10))
    pipe.run(block)
    memory.reset()
    late = block.rows(6, 10).replace(y=np.zeros(4), mode=np.full(4, LEARN, dtype=np.uint8))
    pipe.run(late)
    assert memory.outputs_[0].tolist() == [4.0, 0.0, 0.0]  # weight learnt of each class
    assert pipe.pending == 0


def test_several_targets_are_compensated_each() -> None:
    rng = np.random.default_rng(10)
    X = rng.normal(size=(400, 3))
    Y = np.column_stack([X[:, 0], np.where(X[:, 1] > 0, 1e3, -1e3)])
    inner = operators.KalmanRegressor(delta0=0.0, lr_delta=0.0)
    memory = ErrorMemoryRegressor(inner, "neighbours", warm_up=0, gamma=1.0, lam=1.0)
    out = memory.run(labelled(X, Y))["prediction"]
    assert out.shape == (400, 2)
    assert np.mean(np.sign(out[200:, 1]) == np.sign(Y[200:, 1])) > 0.9


def test_every_kind_of_model_can_be_wrapped() -> None:
    """A River pipeline, a pipeline of ours, another wrapper, and by the task of the model."""
    _, block = concept(7, 0.5, 200)
    river = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    models: list[Any] = [
        river,
        Pipeline(Normalizer(), KalmanClassifier()),
        AdaptiveClassifier(KalmanClassifier(), operators.ADWIN()),
        ErrorMemoryClassifier(warm_up=0, arrays=3),
    ]
    for model in models:
        memory = ErrorMemory(model, warm_up=10, arrays=5)
        assert isinstance(memory, ErrorMemoryClassifier)
        out = memory.run(block)
        assert np.isfinite(out["proba"][100:]).all()
        assert memory.n_writes_ > 150
    assert isinstance(ErrorMemory(linear_model.LinearRegression()), ErrorMemoryRegressor)


def test_a_category_is_no_part_of_the_key() -> None:
    """Its codes are names, not sizes; the model has them."""
    inner = Pipeline(operators.OneHotEncoder(), operators.Densifier(), KalmanClassifier())
    memory = ErrorMemoryClassifier(inner, warm_up=0, arrays=3)
    for i in range(60):
        memory.learn_one({"colour": "red" if i % 2 else "blue", "size": 1.0}, bool(i % 2))
    assert memory.predict_one({"colour": "red", "size": 1.0}) is True
    assert not memory._key()[0][0]


def mask_of(mode: Any, bit: int) -> B1:
    return np.asarray(mode & bit != 0)


def test_what_only_observes_is_not_written() -> None:
    _, block = concept(8, 1.0, 100)
    memory = ErrorMemoryClassifier(None, warm_up=0, arrays=3)
    mode = np.random.default_rng(0).integers(0, 8, 100).astype(np.uint8)
    out = memory.run(block.replace(mode=mode))
    assert np.isnan(out["proba"][~mask_of(mode, PREDICT)]).all()
    assert memory.n_writes_ <= mask_of(mode, LEARN).sum()
    assert memory.scalars_[jit.KEYS] == mask_of(mode, OBSERVE).sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "tree"}, "backend must be one of sketch, neighbours, got 'tree'"),
        ({"weighting": "mean"}, "weighting must be one of count, softmax, got 'mean'"),
        ({"arrays": 0}, "arrays must be a whole number >= 1, got 0"),
        ({"bits": 25}, r"bits must be in \[1, 24\], got 25"),
        ({"rho": 0.0}, "rho must be > 0, got 0.0"),
        ({"rho": 1.1}, r"rho must be in \[0, 1\], got 1.1"),
        ({"lam": 2.0}, r"lam must be in \[0, 1\], got 2.0"),
        ({"gamma": -1.0}, r"gamma must be in \[0, 1\], got -1.0"),
        ({"tau": 0.0}, "tau must be > 0, got 0.0"),
        ({"n_min": -1.0}, "n_min must be >= 0, got -1.0"),
        ({"model": MajorityClassifier()}, "model must do regression, got MajorityClassifier"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^ErrorMemoryRegressor: {message}$"):
        ErrorMemoryRegressor(**arguments)
