"""Blocks that run at once come to the bits of one alone: they wait where they must."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn import operators
from streamlearn.block import Block
from streamlearn.jit.cuda import _compile, mixture
from streamlearn.testing import labelled
from tests.cuda.several_blocks import several_blocks
from tests.cuda.test_delayed import same_state
from tests.cuda.test_mixture import D, begun, walk

pytestmark = pytest.mark.skipif(not _compile.SIMULATED, reason="a device has blocks of its own")

N = 40
MIXTURE: dict[str, Any] = {  # components come and go, floors bind, initial variances move
    "warm_start": 4, "delta": 1.0, "eps": 0.5, "rho": 0.7, "k_max": 4, "v_min": 2.0, "sp_min": 1.1,
}  # fmt: skip
MAKES: dict[str, Any] = {
    "Gaussian mixture, density": lambda device: operators.GaussianMixtureAnomalyScorer(
        **MIXTURE, device=device
    ),
    "Gaussian mixture, classes": lambda device: operators.GaussianMixtureClassifier(
        **MIXTURE, device=device
    ),
    "Gaussian mixture by class": lambda device: operators.GaussianMixtureClassifier(
        **MIXTURE, components="by_class", device=device
    ),
    "Gaussian mixture, targets": lambda device: operators.GaussianMixtureRegressor(
        **MIXTURE, device=device
    ),
    "head, classes": lambda device: operators.KalmanClassifier(delta0=0.01, device=device),
    "head, targets": lambda device: operators.LiteRVFLRegressor(hidden=3, memory=9, device=device),
    "bank": lambda device: operators.KeyedClassifier(
        operators.KalmanClassifier(), max_keys=None, device=device
    ),
    "bag": lambda device: operators.OnlineBaggingClassifier(
        operators.KalmanClassifier(), n=4, device=device
    ),
}


def events(name: str) -> Block:
    rng = np.random.default_rng(6)
    kind = rng.integers(0, 3, N)
    X = rng.normal(size=(N, 3)) + 4.0 * kind[:, None]
    if "targets" in name:
        return labelled(X, X @ rng.normal(size=(3, 2)) + rng.normal(size=(N, 2)))
    block = labelled(X, kind, "classification")
    return block.replace(keys=rng.integers(0, 7, N)) if name == "bank" else block


@pytest.mark.parametrize("name", MAKES)
def test_several_blocks_at_once_come_to_the_bits_of_one(name: str) -> None:
    block, found = events(name), []
    for blocks in (1, 3):
        with several_blocks(blocks):
            model = MAKES[name]("cuda")
            found.append(([model.run(block.rows(0, 15)), model.run(block.rows(15, N))], model))
    (alone, one), (said, many) = found
    host = MAKES[name]("cpu")
    for rows, mine, other in zip((block.rows(0, 15), block.rows(15, N)), alone, said, strict=True):
        for column, expected in host.run(rows).items():
            assert_array_equal(other[column], mine[column], err_msg=column)
            assert_allclose(other[column], expected, rtol=1e-8, atol=1e-9, err_msg=column)
    same_state(many.state(), one.state())


def test_several_blocks_delay_the_updates_of_a_mixture() -> None:
    """The kernel that no operator has yet."""
    rng = np.random.default_rng(7)
    n, found = 2 * mixture.SLOTS + 1, []
    X, weight = rng.normal(size=(n, D)), np.ones(n)
    for blocks in (1, 3):
        with several_blocks(blocks):
            state = begun()
            found.append([walk(X, weight, state), *state])
    for one, other in zip(*found, strict=True):
        assert_array_equal(other, one)
