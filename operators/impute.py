"""Imputation: missing values filled from what was seen before them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import BOOLEAN, CATEGORY, F8, U1, Block, Columns, Features
from streamlearn.jit.impute import (
    CONSTANT,
    LAST,
    MEAN,
    impute_run,
    mark_missing,
)
from streamlearn.operators import _checks
from streamlearn.operators._base import Transformer
from streamlearn.operators._supervised import plain

_STRATEGIES = {"mean": MEAN, "last": LAST, "constant": CONSTANT}


class Imputer(Transformer, base.Transformer):
    """Missing numbers filled with a statistic from before the row; categories stay missing.

    A boolean is filled as a number: by its mean, the share of true. A category that is missing
    stays NaN, which OneHotEncoder and HashEncoder turn into zeros: missing is a value of its own
    there. A row with an infinite feature is passed on as it is, so that later stages refuse it
    too, is not learnt, and is counted in `n_rejected`.
    Args:
        strategy: "mean" (running, weighted), "last" (the newest value) or "constant" (`fill`).
        fill: what stands in until a feature has its first value.
        indicators: add `name_missing` after each feature `name`: 1 where it was missing, else 0.
    State:
        fill_: (d,) float64, what a missing value of each column becomes; NaN for a category.
        mass_: (d,) float64, sum of the weights behind each mean.
    Cost: O(d) time an event, no allocation; 16 d bytes.
    Raises: ValueError for a parameter out of range.
    >>> imputer = Imputer()
    >>> for value in (1.0, 3.0):
    ...     imputer.learn_one({"a": value, "b": 1.0})
    >>> imputer.transform_one({"b": 5.0})
    {'a': 2.0, 'b': 5.0}
    """

    _arrays = ("fill_", "mass_")
    _counters = ("n_rejected",)
    takes_categories = True

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"strategy": "last", "indicators": True}

    def __init__(self, strategy: str = "mean", fill: float = 0.0, indicators: bool = False) -> None:
        self.strategy = _checks.choice("Imputer", "strategy", strategy, _STRATEGIES)
        self.fill = _checks.number("Imputer", "fill", fill)
        self.indicators = _checks.truth("Imputer", "indicators", indicators)
        self.fill_: F8 = np.zeros(0)
        self.mass_: F8 = np.zeros(0)
        self.n_rejected = 0
        self._frozen: U1 = np.zeros(0, dtype=np.uint8)
        self._output: tuple[Features, Features] | None = None

    def grow(self, features: Features) -> None:
        """Room for new features, filled with the constant until their first value."""
        d, known = len(features), self.fill_.shape[0]
        self.fill_ = _checks.padded(self.fill_, (d,), fill=self.fill)
        self.mass_ = _checks.padded(self.mass_, (d,))
        self._frozen = np.array([kind == CATEGORY for kind in features.kinds], dtype=np.uint8)
        self.fill_[known:][self._frozen[known:] == 1] = np.nan

    def _run(self, block: Block) -> Columns:
        X, out = plain(block.X), np.empty(block.X.shape)
        refused, some = impute_run(
            X, block.weight, block.mode, _STRATEGIES[self.strategy],
            self.fill_, self.mass_, self._frozen, out,
        )  # fmt: skip
        self.n_rejected += int(refused)  # without the JIT, kernels give numpy's integers
        filled = out if some else X
        if not self.indicators:
            return {"X": filled}
        wide = np.empty((block.n, 2 * block.d))
        mark_missing(X, filled, wide)
        return {"X": wide}

    def output_features(self, features: Features) -> Features:
        """The same columns, each followed by its indicator where these are asked for."""
        if not self.indicators:
            return features
        if self._output is None or self._output[0] is not features:
            names = [n for name in features.names for n in (name, f"{name}_missing")]
            kinds = [k for kind in features.kinds for k in (kind, BOOLEAN)]
            self._output = (features, Features(names, kinds, features.categories))
        return self._output[1]
