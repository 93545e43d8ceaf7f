"""The device suite: law, conformance and equality on a GPU, then its marks, each beside our CPU.

    python -m benchmarks.cuda_device [--quick]

Needs numpy, numba-cuda, pytest and hypothesis, no network. Writes build/cuda-device.json and the
table build/cuda-device.md, both with the name of the device. With NUMBA_ENABLE_CUDASIM=1 and
NUMBA_DISABLE_JIT=1 it runs in the simulator, tiny: that shows that it runs, no more.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.cuda import stand_in

stand_in.install()

from numba import cuda  # noqa: E402  # River's stand-in goes first

from streamlearn.block import F8, Block, Features  # noqa: E402
from streamlearn.jit import mixture as cpu  # noqa: E402
from streamlearn.jit.cuda import _compile, bank, mixture, products  # noqa: E402
from streamlearn.operators._bank_on_device import DeviceBank  # noqa: E402
from streamlearn.operators._base import Operator  # noqa: E402
from streamlearn.operators._layout import Layout  # noqa: E402
from streamlearn.operators.analytic import AnalyticRegressor  # noqa: E402
from streamlearn.operators.bagging import OnlineBaggingRegressor  # noqa: E402
from streamlearn.operators.expert_mixture import ExpertMixtureRegressor  # noqa: E402
from streamlearn.operators.kalman import KalmanRegressor  # noqa: E402
from streamlearn.operators.keyed import KeyedRegressor  # noqa: E402
from streamlearn.operators.mixture import (  # noqa: E402
    GaussianMixtureAnomalyScorer,
    GaussianMixtureRegressor,
)

TINY = _compile.SIMULATED
Sizes = tuple[tuple[int, int, float | None], ...]  # keys, events, exponent of Zipf's law
_cuda: Any = cuda
SEED = 7
Row = dict[str, Any]


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median of the clock over some rounds, after one that compiles; the device is waited for."""
    work()
    taken = []
    for _ in range(1 if TINY else rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken)


def copy_rate() -> float:
    """Bytes read and written a second by a copy within the device."""
    size = (1000,) if TINY else (1 << 28,)
    a, b = _compile.reserve("copy", [(size, np.float64)] * 2)

    def work() -> None:
        if TINY:
            a[:] = b
        else:
            a.copy_to_device(b)
            _cuda.synchronize()

    return 16.0 * size[0] / seconds(work, 9)


# -- mixtures --------------------------------------------------------------------------------------


def mixture_case(D: int, K: int, copies: float) -> Row:
    """Events a second of both ways, and the share of a copy's rate that row by row reaches.

    All components are the same, so that every row updates every one: the whole traffic.
    """
    rng, n = np.random.default_rng(SEED), mixture.SLOTS
    mu, Lam = _compile.reserve("mixture", [((K, D), np.float64), ((K, D, D), np.float64)])
    for j in range(K):
        _compile.overwrite(Lam[j], np.eye(D))
    _compile.overwrite(mu, np.zeros((K, D)))
    X, named = rng.normal(size=(2 * n, D)), plain_settings(K)
    comp, s, moments = np.zeros((4, K)), np.zeros(cpu.N_SCALARS), np.ones((4, D))
    comp[cpu.SP], comp[cpu.OWN], s[cpu.COMPONENTS] = 100.0, -1.0, K
    few_rows = X[:4], np.ones(4), np.full(4, 5, dtype=np.uint8), np.zeros(4, dtype=np.int64)
    none = np.zeros((2, 0))
    state = (mu, Lam, *_compile.send("mixture", comp, moments, none, none, s))
    fixed = _compile.send(
        "mixture", named, np.full(D + 1, np.inf), np.zeros((cpu.N_VEC, K)),
        np.zeros((2, K, 0)), np.zeros((K, 1, 0)),
    )  # fmt: skip
    out = _compile.send("mixture", np.zeros((4, 0)), np.zeros((4, 1)))
    rows_s = walk_time(
        mixture.walk_rows, few_rows, (state, fixed),
        [(K, D), (2, K, D), (K, D), (2, K), (K, 3), (D,), (4 + K,)], out,
    )  # fmt: skip
    state = (mu, Lam, *_compile.send("mixture", comp[:2], np.array([np.inf, 1.0])))
    wide = [(K, n, D)] * 2 + [(K, n, n)] * 3 + [(K, n + 2), (K, n, 2), (2, K), (2, K)]
    (score,) = _compile.send("mixture", np.zeros(2 * n))
    delayed_s = walk_time(mixture.walk_delayed, (X, np.ones(2 * n)), (state,), wide, score)
    few = min(K, 3 if TINY else 20)
    return {
        "case": f"mixture, D = {D}, K = {K}", "rows_per_s": 1.0 / rows_s,
        "share_of_copy": 5.0 / 4.0 * 16.0 * K * D * D / (rows_s * copies),  # 5 passes for 4 rows
        "delayed_per_s": 1.0 / delayed_s, "delayed_times": rows_s / delayed_s,
        "cpu_per_s": few / K / cpu_mixture(D, few),
    }  # fmt: skip


def plain_settings(K: int) -> F8:
    """Settings of a scorer that keeps K components as they are: none comes, none goes."""
    p = np.zeros(cpu.N_SETTINGS)
    p[[cpu.RHO, cpu.STD, cpu.DELTA]] = 1.0
    p[cpu.K_MAX] = K
    return p


def walk_time(kernel: Any, rows: Any, more: Any, shapes: list[tuple[int, ...]], out: Any) -> float:
    """Seconds a row; more: what the kernel takes between rows and scratch."""
    n, sent = len(rows[0]), _compile.send("mixture", *rows)
    scratch = tuple(_compile.reserve("mixture", [(s, np.float64) for s in shapes]))
    for array in scratch:
        _compile.overwrite(array, np.zeros(array.shape))
    arguments = (sent, *more, scratch, out)
    return seconds(lambda: _compile.launch("mixture", kernel, products.THREADS, arguments), 5) / n


def cpu_mixture(D: int, K: int) -> float:
    """Seconds an event of our own CPU path, every row new until there are K components."""
    model = GaussianMixtureAnomalyScorer(std=1.0, delta=1.0, beta=0.5, k_max=K)
    X = np.random.default_rng(SEED).normal(size=(K + 8, D))
    names = Features([f"x{i}" for i in range(D)])
    ones, mode = np.ones(8), np.full(K, 6, dtype=np.uint8)
    model.run(Block(X[:K], np.full(K, np.nan), np.ones(K), mode, names))
    block = Block(X[K:], np.full(8, np.nan), ones, mode[:1].repeat(8), names)
    return seconds(lambda: model.run(block), 3) / 8


def recall_case(D: int, K: int, n: int) -> Row:
    """A target recalled from all features and K components, beside the CPU's delayed updates."""
    return beside_cpu(
        f"mixture regressor, d = {D}, K = {K}", D, n,
        lambda device: GaussianMixtureRegressor(
            std=1.0, delta=1.0, beta=0.5, k_max=K, device=device
        ),
    )  # fmt: skip


# -- banks -----------------------------------------------------------------------------------------


def bank_case(keys: int, n: int, zipf: float | None, d: int = 8) -> Row:
    """Events a second of the launch alone, of the whole way from the host and back, on the CPU."""
    rng = np.random.default_rng(SEED)
    model = AnalyticRegressor(lam=0.999)
    drawn = rng.integers(0, keys, n) if zipf is None else rng.zipf(zipf, n) % keys
    rows = [_compile.pinned((n, d)), _compile.pinned((n, 1)), _compile.pinned((n,)),
            _compile.pinned((n,), np.uint8)]  # fmt: skip
    rows[0][:], rows[1][:] = rng.normal(size=(n, d)), rng.normal(size=(n, 1))
    rows[2][:], rows[3][:] = 1.0, 7
    place = _compile.pinned((n,), np.int64)
    place[:] = drawn
    out = _compile.pinned((n, 1)), _compile.pinned((n, 1)), _compile.pinned((0, d))
    there = DeviceBank("bank", "walk_rls", Layout(d, 1, 10.0).blank(), model._settings, 2 * keys)
    whole = seconds(lambda: there.walk(rows, place, out), 9)
    alone = seconds(launch_alone(there, rows, place, d), 9)
    on_cpu = KeyedRegressor(model, max_keys=None)
    block = Block(
        rows[0], rows[1][:, 0], rows[2], rows[3], Features([f"x{i}" for i in range(d)]), keys=place
    )
    cpu = seconds(lambda: on_cpu.run(block), 3)
    spread = "uniform" if zipf is None else f"Zipf {zipf}"
    return {
        "case": f"bank, {keys:,} keys {spread}, d = {d}, blocks of {n:,}",
        "kernel_per_s": n / alone, "end_to_end_per_s": n / whole, "cpu_per_s": n / cpu,
    }  # fmt: skip


def launch_alone(there: DeviceBank, rows: Any, keys: Any, d: int) -> Callable[[], None]:
    """The launch on arrays that stand on the device already."""
    n = keys.shape[0]
    sent = _compile.send("bank", *rows, keys)
    sort = _compile.send(
        "bank", *(np.zeros(n, np.int64) for _ in range(4)),
        np.zeros(bank.BINS * (-(-n // bank.TILE) + 1), np.int64),
    )  # fmt: skip
    fixed = _compile.send("bank", there._settings, there.counters)
    out = _compile.send("bank", np.zeros((n, 1)), np.zeros((n, 1)), np.zeros((0, d)))
    arguments = (sent, (there._keys, there._records), sort, fixed, out)
    return lambda: _compile.launch("bank", bank.walk_rls, bank.THREADS, arguments)


# -- heads, and ensembles of them ------------------------------------------------------------------


def head_case(d: int, n: int) -> Row:
    """A Kalman head, beside the CPU's delayed updates."""
    return beside_cpu(
        f"Kalman head, d = {d}", d, n, lambda device: KalmanRegressor(delta0=1e-3, device=device)
    )


def ensemble_case(J: int, d: int, n: int) -> Row:
    """A bag of Kalman heads, beside the CPU's in threads."""
    return beside_cpu(
        f"bag of {J} Kalman heads, d = {d}", d, n,
        lambda device: OnlineBaggingRegressor(KalmanRegressor(delta0=1e-3), n=J, device=device),
    )  # fmt: skip


def experts_case(J: int, d: int, n: int) -> Row:
    """A mixture of Kalman heads of J memories, beside the CPU's in threads."""
    return beside_cpu(
        f"mixture of {J} Kalman heads, d = {d}", d, n,
        lambda device: ExpertMixtureRegressor(
            [KalmanRegressor(delta0=1e-3 / (1 + j)) for j in range(J)], device=device
        ),
    )  # fmt: skip


def beside_cpu(case: str, d: int, n: int, make: Callable[[str], Operator]) -> Row:
    """Labelled events a second on the device and on the CPU, whole way."""
    rng = np.random.default_rng(SEED)
    X, mode = rng.normal(size=(n, d)), np.full(n, 7, dtype=np.uint8)
    names = Features([f"x{i}" for i in range(d)])
    block = Block(X, X[:, 0].copy(), np.ones(n), mode, names)
    found: Row = {"case": f"{case}, blocks of {n}"}
    for device, name in (("cuda", "end_to_end_per_s"), ("cpu", "cpu_per_s")):
        model = make(device)
        found[name] = n / seconds(lambda model=model: model.run(block), 3)  # type: ignore[misc]
    return found


# -- the suite -------------------------------------------------------------------------------------


def law() -> str:
    """The tests of tests/cuda on this device: their last line."""
    if TINY:
        return "not run: simulator"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda"],
        env=os.environ | {"STREAMLEARN_CUDA": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout[-4000:])
    return done.stdout.strip().splitlines()[-1]


def measure(quick: bool) -> Row:
    """Everything."""
    small = quick or TINY
    copies = copy_rate()
    cases: list[Row] = []
    for D, K in ((4, 2),) if TINY else ((784, 50),) if quick else ((784, 50), (3072, 200)):
        cases.append(mixture_case(D, K, copies))
    cases.append(recall_case(1, 2, 2) if TINY else recall_case(784, 50, 256))
    sizes: Sizes = ((9, 12, None),) if TINY else ((10**6, 1 << 18, None),) if quick else (
        (10**5, 1 << 18, None), (10**6, 1 << 18, None), (10**6, 1 << 20, None),
        (10**6, 1 << 18, 1.2), (10**6, 4096, None),
    )  # fmt: skip
    cases += [bank_case(keys, n, zipf, 2 if TINY else 8) for keys, n, zipf in sizes]
    for d in (3,) if TINY else (1000,) if small else (1000, 4000, 8000):
        cases.append(head_case(d, 6 if TINY else 1024))
    for J, d in (
        ((2, 2),) if TINY else ((100, 64),) if small else ((100, 64), (1000, 64), (100, 500))
    ):
        cases.append(ensemble_case(J, d, 4 if TINY else 1024))
    cases.append(experts_case(2, 1, 2) if TINY else experts_case(100, 64, 1024))
    name = "simulator" if TINY else _cuda.get_current_device().name
    name = name.decode() if isinstance(name, bytes) else name
    return {
        "device": name, "copy_gbytes_per_s": copies / 1e9, "law": law(), "cases": cases,
        "host": platform.processor() or platform.machine(), "numpy": np.__version__,
    }  # fmt: skip


def table(found: Row) -> str:
    """The same in Markdown."""
    lines = [
        f"# Measured on {found['device']}\n",
        f"Copies within the device {found['copy_gbytes_per_s']:,.0f} GB/s, read and written.\n",
        f"Tests: {found['law']}. Host: {found['host']}.\n",
        "| case | measure | value |", "|---|---|---:|",
    ]  # fmt: skip
    for case in found["cases"]:
        for name, value in case.items():
            if name != "case":
                shown = f"{value:,.0f}" if value > 100 else f"{value:.3g}"
                lines.append(f"| {case['case']} | {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smaller half of the cases")
    quick = parser.parse_args().quick
    _compile.require("device suite")
    found = measure(quick)
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    (folder / "cuda-device.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (folder / "cuda-device.md").write_text(table(found), "utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
