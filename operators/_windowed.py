"""What the watchers of rows against a reference share: rules, rows that count, scales, findings."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import F8, OBSERVE, Block, Features
from streamlearn.contracts import Json
from streamlearn.operators import _checks
from streamlearn.operators._base import Transformer

_WINDOWS = 100  # a reference of fewer windows is too short to tell the tail of a statistic
_SHOWN = 5  # features of a finding


class Windowed(Transformer):
    """Compares the newest `window` rows with a reference, every so many rows."""

    reference: int
    window: int
    every: int
    sliding: bool
    average_run_length: int | None
    alpha: float
    block: int
    seed: int

    def _set_window(self, given: Mapping[str, Any]) -> None:
        """Check and keep these parameters. Raises: ValueError for one out of range."""
        owner = type(self).__name__
        self.every = every = _checks.whole(owner, "every", given["every"], 1)
        self.window = window = _checks.whole(owner, "window", given["window"], every)
        if window % every:
            raise ValueError(f"{owner}: window must be a multiple of every={every}, got {window}")
        self.reference = _checks.whole(owner, "reference", given["reference"], window)
        self.sliding = _checks.truth(owner, "sliding", given["sliding"])
        self.average_run_length = given["average_run_length"]
        if self.average_run_length is not None:
            _checks.whole(owner, "average_run_length", self.average_run_length, 10 * every)
        self.alpha = _checks.between(owner, "alpha", given["alpha"], 1e-300, 1.0)
        self.block = _checks.whole(owner, "block", given["block"], 0)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)

    def _warn_of(self, rows: int) -> None:
        """Warn where a reference of so many rows is too short for a run length."""
        if self.average_run_length is not None and rows < _WINDOWS * self.window:
            warnings.warn(
                f"{type(self).__name__}: a reference of {rows} rows has fewer than {_WINDOWS} "
                f"windows of {self.window}: the run length between false alarms may be far from "
                f"what is asked for",
                stacklevel=3,
            )

    def load_kernels(self) -> None:
        """Walk invented rows that drift through small clones, up to an alarm of each kind."""
        small: dict[str, Any] = {"window": 4, "every": 2, "reference": 16, "block": 0, "alpha": 0.5}
        if hasattr(self, "train"):
            small["train"] = 16
        X = np.cos(np.arange(160.0)).reshape(80, 2)
        X[60:] += 1000.0
        modes, features = np.full(80, OBSERVE, dtype=np.uint8), Features(["a", "b"])
        for length in (None, 20) if self.average_run_length else (None,):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such a reference is short on purpose
                twin = self.clone(small | {"average_run_length": length})
                twin.run(Block(X, np.full(80, np.nan), np.ones(80), modes, features))


def observed(block: Block) -> tuple[NDArray[np.intp], F8]:
    """The rows that OBSERVE with a weight > 0: which of the block, and their features (m, d)."""
    rows = np.flatnonzero((block.mode & OBSERVE != 0) & (block.weight > 0.0))
    return rows, np.ascontiguousarray(block.X if rows.shape[0] == block.n else block.X[rows])


def moments_of(rows: F8) -> F8:
    """Centre and scale of each column of rows (n, d): (2, d)."""
    moments = [_centre_and_scale(rows[:, j]) for j in range(rows.shape[1])]
    return np.array(moments).reshape(rows.shape[1], 2).T.copy()


def _centre_and_scale(column: F8) -> tuple[float, float]:
    """Median, and the width of the middle 80 % in standard deviations of a normal distribution."""
    there = np.clip(np.sort(column[~np.isnan(column)]), -1e150, 1e150)
    if there.shape[0] == 0:
        return 0.0, 1.0
    low, middle, high = there[np.round(np.array([0.1, 0.5, 0.9]) * (len(there) - 1)).astype(int)]
    scale = (high - low) / 2.563
    if scale == 0.0:  # nearly constant: whatever moves it counts
        scale = float(np.abs(there - middle).mean())
    return float(middle), float(scale) if scale > 0.0 else 1.0


def moved_means(features: Features, rows: F8, moments: F8) -> list[dict[str, Json]]:
    """The features whose means in these rows are furthest from the centre, in units of scale."""
    centre, scale = moments
    d = centre.shape[0]
    now = (rows[:, :d] - centre) / scale
    known = ~np.isnan(now)
    sums = np.where(known, np.clip(now, -1e9, 1e9), 0.0).sum(axis=0)
    shift = sums / np.maximum(known.sum(axis=0), 1)
    names = [str(name) for name in features.names[:d]]
    return [
        {
            "name": names[j],
            "statistic": float(shift[j]),
            "from": float(centre[j]),
            "to": float(np.clip(centre[j] + shift[j] * scale[j], -1e300, 1e300)),
        }
        for j in np.lexsort((names, -np.abs(shift)))[:_SHOWN].tolist()
    ]
