"""Ensembles on the device: every expert equal to the CPU's walk of it."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.jit import kalman, lift
from streamlearn.jit.cuda import _compile, experts
from streamlearn.jit.cuda.delayed import ERRORS, WORK
from streamlearn.jit.cuda.products import THREADS

J, K, D, N = 3, 2, 4, 6
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


@pytest.mark.parametrize("targets", [None, True])
def test_every_expert_walks_as_on_the_cpu(targets: bool | None) -> None:
    """Each with weights of its own; a weight of 0 passes a row over."""
    rng = np.random.default_rng(5)
    F = np.column_stack([np.ones(N), rng.normal(size=(N, D - 1))])
    y = rng.normal(size=(N, K)) if targets else rng.integers(0, K, (N, 1)) + 0.0
    weight = rng.poisson(1.0, (J, N)) + 0.0
    codes = np.where(weight > 0.0, lift.TARGET if targets else y[:, 0].astype(int), lift.EMPTY)
    mode = np.full(N, 7, dtype=np.uint8)
    p = np.zeros(kalman.N_SETTINGS)
    p[[kalman.S_W, kalman.S2, kalman.LR_DELTA, kalman.DELTA_MAX]] = 1.0, 0.1, 0.01, 0.2
    p[[kalman.LR_ALPHA, kalman.DECAY_MEAN, kalman.SOFTMAX, kalman.CENTRE]] = 0.02, 1.0, 1.0, 1.0
    s = np.zeros((J, kalman.N_SCALARS))
    s[:, kalman.DELTA] = 0.05
    outputs = np.zeros((J, 3, K))
    outputs[:, 2] = 1.0
    state = [np.zeros((J, K, D)), np.tile(np.eye(D), (J, 1, 1)), outputs, s]
    out = [np.zeros((J, N, K)), np.zeros((J, N, K if targets else 1))]
    there = _compile.send("test", *state)
    said = _compile.send("test", *out)
    fixed = _compile.send("test", p, np.zeros((J, WORK, K)))
    scratch = _compile.send("test", np.zeros((J, 2, D)), np.zeros((J, 1, ERRORS + 2 * K)))
    rows = _compile.send("test", F, codes, y, weight, mode)
    kernel = experts.walk_targets if targets else experts.walk_classes
    _compile.launch(kernel, THREADS, (rows, there, fixed, scratch, said), J)
    for e in range(J):
        mine: Any = tuple(array[e] for array in state)
        work = np.zeros((kalman.work_rows("standard", D), max(D, K)))
        own: Any = F, codes[e], y, weight[e], mode
        answers = out[0][e], out[1][e]
        kalman.walk_standard(own, mine, (p, work), answers, targets, None)
    for array, expected in zip((*there, *said), (*state, *out), strict=True):
        assert_allclose(_compile.fetch(array), expected, **CLOSE)
