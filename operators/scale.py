"""Scaling of inputs: streaming z-scores, and rows of unit length."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import F8, Block, Columns, Features
from streamlearn.jit.scale import MASS, MU, V, normaliser_run, unit_norm_run
from streamlearn.operators import _checks
from streamlearn.operators._base import Transformer


class Normalizer(Transformer, base.Transformer):
    """Each feature's z-score by its running mean and variance, with one knob for their memory.

    A row is scored with the statistics from before it, then taken into them (OBSERVE rows). They
    are the weighted mean and variance of all values so far, a value's weight being its sample
    weight times q per later value, q = (1 - m) ** kappa. A NaN stays NaN and leaves its feature's
    statistics alone. A feature with fewer than two values, or that never moved, gives 0. A row with
    an infinite feature is passed on as it is, so that later stages refuse it too, is not learnt,
    and is counted in `n_rejected`. Deviations beyond 1e150 count as 1e150 in the variance.
    Args:
        m: rate of the exponential memory, in (0, 1); 0.001 remembers about 1,000 events.
        kappa: 1 for that exponential memory, 0 for one that never forgets, or between.
        eps: added to the variance, in units of the feature squared, >= 0.
        clip: scores are cut at +-clip, > 0.
        update_first: take a row in before it is scored (not test-then-train).
    State:
        moments_: (3, d) float64, rows: mean, variance, memory mass (sum of weights).
    Cost: O(d) time an event, no allocation; 24 d bytes.
    Raises: ValueError for a parameter out of range.
    Reference: Elsayed et al. (2024), Deep policy gradient methods without batch updates, target
    networks, or replay buffers; Cha et al. (2023), Overcoming recency bias of normalization
    statistics.
    >>> scaler = Normalizer()
    >>> for value in (1.0, 3.0):
    ...     scaler.learn_one({"a": value})
    >>> round(scaler.transform_one({"a": 3.0})["a"], 2)
    1.0
    """

    _arrays = ("moments_",)
    _counters = ("n_rejected",)

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"m": 0.1, "clip": 2.0}

    def __init__(
        self,
        m: float = 0.001,
        kappa: float = 1.0,
        eps: float = 1e-8,
        clip: float = 8.0,
        update_first: bool = False,
    ) -> None:
        self.m = _checks.between("Normalizer", "m", m, 0.0, 1.0)
        if self.m in (0.0, 1.0):
            raise ValueError(f"Normalizer: m must be > 0 and < 1, got {m!r}")
        self.kappa = _checks.between("Normalizer", "kappa", kappa, 0.0, 1.0)
        self.eps = _checks.not_negative("Normalizer", "eps", eps)
        self.clip = _checks.positive("Normalizer", "clip", clip)
        self.update_first = _checks.truth("Normalizer", "update_first", update_first)
        self._decay = (1.0 - self.m) ** self.kappa
        self._shape = (self.eps, self.clip, self.update_first)
        self.moments_: F8 = np.zeros((3, 0))
        self.n_rejected = 0

    def grow(self, features: Features) -> None:
        """Room for new features, of which nothing is known yet."""
        self.moments_ = _checks.padded(self.moments_, (3, len(features)))

    def _run(self, block: Block) -> Columns:
        out = np.empty(block.X.shape)
        refused = normaliser_run(
            block.X, block.weight, block.mode, self.moments_, self._decay, self._shape, out
        )
        self.n_rejected += int(refused)  # without the JIT, kernels give numpy's integers
        return {"X": out}

    def reset(self, keep: float = 0.0) -> None:
        """Keep this share of the memory, in [0, 1]; with 0.1 a new value counts tenfold."""
        share = _checks.between("Normalizer", "keep", keep, 0.0, 1.0)
        if share == 0.0:
            super().reset()
        else:
            self.moments_[MASS] *= share

    @property
    def mean_(self) -> F8:
        """(d,) the mean of each feature; 0 before its first value."""
        mean: F8 = self.moments_[MU]
        return mean

    @property
    def variance_(self) -> F8:
        """(d,) the variance of each feature; 0 before its second value."""
        variance: F8 = self.moments_[V]
        return variance


class UnitNorm(Transformer, base.Transformer):
    """Each row divided by its Euclidean length plus 1e-8: bounds the gain of one gradient step.

    A NaN stays NaN and is left out of the length. A row with an infinite feature is passed on as it
    is and counted in `n_rejected`.
    Cost: O(d) time an event; no state but the count.
    Reference: Elsayed et al. (2024), Deep policy gradient methods without batch updates, target
    networks, or replay buffers.
    >>> norm = UnitNorm()
    >>> norm.learn_one({"a": 3.0, "b": 4.0})  # it learns no more than the names
    >>> {name: round(z, 6) for name, z in norm.transform_one({"a": 3.0, "b": 4.0}).items()}
    {'a': 0.6, 'b': 0.8}
    """

    _counters = ("n_rejected",)

    def __init__(self) -> None:
        self.n_rejected = 0

    def _run(self, block: Block) -> Columns:
        out = np.empty(block.X.shape)
        self.n_rejected += int(unit_norm_run(block.X, block.weight, block.mode, out))
        return {"X": out}
