"""A model per customer on an NVIDIA GPU, and the same on the CPU: equal answers, events a second.

Without a GPU it says so and shows the CPU's half. `pip install "streamlearn[cuda]"` brings what a
GPU needs.
"""

import time

import numpy as np

from streamlearn.block import LABELLED, Block, Features
from streamlearn.operators import KeyedRegressor

CUSTOMERS, EVENTS, FEATURES = 500, 20_000, 8


def stream() -> Block:
    """Each customer has a line of their own."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, CUSTOMERS, EVENTS)
    X = rng.normal(size=(EVENTS, FEATURES))
    y = np.einsum("nd,nd->n", X, rng.normal(size=(CUSTOMERS, FEATURES))[keys])
    mode = np.full(EVENTS, LABELLED, dtype=np.uint8)
    names = Features([f"x{i}" for i in range(FEATURES)])
    return Block(X, y + 0.1 * rng.normal(size=EVENTS), np.ones(EVENTS), mode, names, keys=keys)


def walk(device: str) -> np.ndarray:
    """Answers of a bank on this device; the second block is timed, when kernels are compiled."""
    bank = KeyedRegressor(max_keys=None, device=device)
    block = stream()
    half = EVENTS // 2
    first = bank.run(block.rows(0, half))["prediction"]
    start = time.perf_counter()
    second = bank.run(block.rows(half, EVENTS))["prediction"]
    rate = half / (time.perf_counter() - start)
    error = np.abs(second - block.y[half:]).mean()
    print(
        f"{device}: {bank.n_keys_:,} models, {rate:,.0f} events/s, mean absolute error {error:.3f}"
    )
    return np.concatenate([first, second])


def main() -> None:
    """Both, where there are both."""
    on_cpu = walk("cpu")
    try:
        on_gpu = walk("cuda")
    except (ImportError, RuntimeError) as missing:
        print(f"no GPU here: {missing}")
        return
    print(f"largest difference of two answers: {np.abs(on_gpu - on_cpu).max():.1e}")


if __name__ == "__main__":
    main()
