"""Experts of the forecaster that are temporal convolution networks, fitted, then trained online."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import F8, I8, U1, Features
from streamlearn.jit import forecast as jit
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.operators import _checks, _torch
from streamlearn.operators._torch import repeatable

__all__ = ["Settings", "Shape", "TorchExperts", "checked", "repeatable"]

TCN_TIME, TCN_VARIABLE = "tcn_time", "tcn_variable"
_CLIP = 50.0  # deviations, as in the kernel
_OWNER = "OnlineForecaster: tcn_args"


class Settings(NamedTuple):
    """What `tcn_args` may hold: the size of both networks, and how they learn."""

    hidden: int = 32
    lr: float = 1e-3
    decay: float = 0.01
    clip: float = 1.0
    epochs: int = 5
    batch: int = 32


def checked(given: Mapping[str, Any]) -> Settings:
    """The settings, each within its range."""
    for name in given:
        _checks.choice(_OWNER, "names", name, Settings._fields)
    found = Settings(**given)
    return Settings(
        hidden=_checks.whole(_OWNER, "hidden", found.hidden, 1),
        lr=_checks.positive(_OWNER, "lr", found.lr),
        decay=_checks.not_negative(_OWNER, "decay", found.decay),
        clip=_checks.positive(_OWNER, "clip", found.clip),
        epochs=_checks.whole(_OWNER, "epochs", found.epochs, 0),
        batch=_checks.whole(_OWNER, "batch", found.batch, 1),
    )


class Shape(NamedTuple):
    """What the forecaster says of itself."""

    horizon: int
    lags: int
    warm_up: int
    seed: int
    device: str


Moment = tuple[F8, F8, int]  # ring (W, M) and moments (5, M) of the kernel, and a row


class TorchExperts:
    """One network of all channels alike, one of all together; both forecast increments.

    `tcn_time` sees the last `lags` values of one channel less the last, and knows no other channel;
    its weights are shared. `tcn_variable` sees those of all channels, and their levels. Inputs and
    outputs are in deviations, cut at 50 of them.

    The first `warm_up` rows are kept. With the last of them the networks are fitted: `epochs` times
    over all windows within, in batches. From then on each lesson is one step.

    past (warm_up, 1 + M): weight and values of those rows, NaN is a gap; no rows once fitted.
    """

    def __init__(self, names: Sequence[str], shape: Shape, settings: Settings) -> None:
        self.names, self.shape, self.settings = tuple(names), shape, settings
        _torch.check_device("OnlineForecaster", shape.device)
        layers = max(1, math.ceil(math.log2(shape.lags + 1)) - 1)
        rule = _torch.Rule("adam", settings.lr, settings.clip, shape.device, settings.decay)
        self.trained: dict[str, _torch.Trained] = {}
        for name in self.names:
            seed = key_of(shape.seed, name)
            module = _torch.Convolutions(settings.hidden, layers, seed)
            self.trained[name] = _torch.Trained(module, rule)
        length = 2 ** (layers + 1) - 1
        self._back = np.minimum(np.arange(length)[::-1], shape.lags - 1)  # rows ago, oldest first
        self.past: F8 = np.full((shape.warm_up, 1), math.nan)

    def grow(self, features: Features) -> None:
        """Make room for channels; what is known stays."""
        H, M = self.shape.horizon, len(features)
        self.past = _checks.padded(self.past, (len(self.past), 1 + M), fill=math.nan)
        for name, trained in self.trained.items():
            if name == TCN_TIME:
                trained.grow(("any channel",), 0, H)
            else:
                trained.grow(tuple(map(str, features.names)), M, M * H)

    # -- inputs ------------------------------------------------------------------------------------

    def _rows_of(self, name: str, steps: F8, levels: F8) -> F8:
        """Inputs of a network from steps (n, length, M) and levels (n, M)."""
        n, _, M = steps.shape
        by_channel = np.ascontiguousarray(steps.transpose(0, 2, 1))
        if name == TCN_TIME:
            return by_channel.reshape(n * M, -1)
        return np.concatenate((by_channel.reshape(n, -1), levels), axis=1)

    def _inputs(self, name: str, moment: Moment, ago: int) -> F8:
        """Inputs of a network at a row, `ago` before the last; 0 for a channel that had not begun.
        """  # fmt: skip
        ring, m, r = moment
        window = ring[(r - self._back) % ring.shape[0]]
        began = m[jit.AGE] - ago > 0.0
        steps = _deviations(window - window[-1], np.where(began, m[jit.SD], 0.0))
        levels = _deviations(window[-1] - m[jit.MEAN], np.where(began, m[jit.SD], 0.0))
        return self._rows_of(name, steps[None], levels[None])

    # -- learning and answers ----------------------------------------------------------------------

    def answers(self, moment: Moment) -> dict[str, F8]:
        """(M, H) increments in deviations that each network forecasts from the last row."""
        M, H = moment[0].shape[1], self.shape.horizon
        if M == 0:
            return {}
        return {
            name: trained.answers(self._inputs(name, moment, 0)).reshape(M, H)
            for name, trained in self.trained.items()
        }

    def learn(self, moment: Moment, targets: F8, weight: float) -> None:
        """One step of each network on what was seen H rows ago; targets (M, H), NaN is none."""
        for name, trained in self.trained.items() if targets.size else ():
            X = self._inputs(name, moment, self.shape.horizon)
            self._step(trained, X, targets[None], weight)

    def _step(self, trained: _torch.Trained, X: F8, Y: F8, weight: Any) -> None:
        """Down the mean squared error of what is known; X rows of inputs, Y (n, M, H).

        weight: of each window, (n,), or one for all.
        """
        known = np.count_nonzero(~np.isnan(Y))
        if known == 0:
            return

        def slopes(answered: F8) -> F8:
            errors = np.nan_to_num(Y - answered.reshape(Y.shape), nan=0.0)
            errors *= np.reshape(weight, (-1, 1, 1)) * 2.0 * X.shape[0] / known
            slope: F8 = errors.reshape(answered.shape)
            return slope

        trained.step(X, slopes)

    # -- the fit -----------------------------------------------------------------------------------

    @property
    def is_fitted(self) -> bool:
        """Whether the rows of the warm-up have come."""
        return len(self.past) == 0

    def keep(self, moment: Moment, there: U1, weight: float) -> None:
        """Keep a row of the warm-up; the last of them starts the fit."""
        ring, m, r = moment
        row = ring[r % len(ring)]
        self.past[r, 0] = weight
        self.past[r, 1:] = np.where(there[r % len(there)] > 0, row, math.nan)
        if r + 1 == len(self.past):
            self._fit(m)
            self.past = np.zeros((0, self.past.shape[1]))

    def _fit(self, m: F8) -> None:
        """Several times over all windows of the rows kept, in an order of the seed's."""
        if m.shape[1] == 0:
            return
        H, values = self.shape.horizon, self.past[:, 1:]
        began = np.where(np.isnan(values).all(axis=0), len(values), np.isnan(values).argmin(axis=0))
        filled = _carried(values, began)
        origins = np.arange(max(len(values) - H, 0))
        origins = origins[self.past[origins + H, 0] > 0.0]
        for epoch in range(self.settings.epochs):
            draws = uniforms(key_of(self.shape.seed, f"epoch {epoch}"), len(origins))
            order = origins[np.argsort(draws, kind="stable")]
            for start in range(0, len(order), self.settings.batch):
                self._fit_batch(order[start : start + self.settings.batch], m, filled, began)

    def _fit_batch(self, at: I8, m: F8, filled: F8, began: I8) -> None:
        H, values, weight = self.shape.horizon, self.past[:, 1:], self.past[:, 0]
        age = at[:, None] - began + 1  # (n, M)
        sd = np.where(age > 0, m[jit.SD], 0.0)
        last = filled[at]
        window = filled[np.maximum(at[:, None] - self._back, 0)]
        steps = _deviations(window - last[:, None], sd[:, None])
        levels = _deviations(last - m[jit.MEAN], sd)
        ahead = values[at[:, None] + 1 + np.arange(H)] - last[:, None]  # (n, H, M)
        ready = (age >= self.shape.lags) & (sd > 0.0)
        Y = np.where(ready[:, None], _deviations(ahead, sd[:, None]), math.nan).transpose(0, 2, 1)
        for name, trained in self.trained.items():
            self._step(trained, self._rows_of(name, steps, levels), Y, weight[at + H])

    def __copy__(self) -> "TorchExperts":
        """With networks of its own, as the copy of an array has its own numbers."""
        return copy.deepcopy(self)

    # -- state -------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all that is state, by name."""
        found: dict[str, NDArray[Any]] = {"past": self.past.copy()}
        for name, trained in self.trained.items():
            found |= {f"{name}/{part}": array for part, array in trained.arrays().items()}
            found[f"{name}/steps"] = np.array([trained.steps, trained.skipped], dtype=np.int64)
        return found

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave, for as many channels."""
        self.past = np.array(arrays["past"])
        for name, trained in self.trained.items():
            start = f"{name}/"
            own = {k[len(start) :]: a for k, a in arrays.items() if k.startswith(start)}
            trained.steps, trained.skipped = (int(n) for n in own.pop("steps"))
            trained.load("OnlineForecaster", own)


def _deviations(values: F8, sd: F8) -> F8:
    """values / sd, cut; 0 where a channel does not move."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found: F8 = np.where(sd > 0.0, np.clip(values / sd, -_CLIP, _CLIP), 0.0)
    return found


def _carried(values: F8, began: I8) -> F8:
    """Gaps filled with the value before, and what is before the first with the first; 0 if none."""
    filled = values.copy()
    for j, first in enumerate(began.tolist()):
        if first == len(values):
            filled[:, j] = 0.0
            continue
        filled[:first, j] = values[first, j]
        there = np.where(np.isnan(filled[:, j]), 0, np.arange(len(values)))
        filled[:, j] = filled[np.maximum.accumulate(there), j]
    return filled
