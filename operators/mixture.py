"""Incremental Gaussian mixture: one joint density that classifies, regresses, imputes, scores."""

import logging
import math
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import B1, F8, I8, U1, Block, Columns, Features
from streamlearn.contracts import State
from streamlearn.jit import mixture, mixture_delayed
from streamlearn.jit.delayed import effective
from streamlearn.jit.symmetric import packed, unpacked
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor, Row, Scorer, Transformer
from streamlearn.operators._mixture_on_device import (
    DevicePrecisions,
    Lessons,
    cut_rows,
    joint,
    lessons,
)
from streamlearn.operators._on_device import DEVICES, without_cpu
from streamlearn.operators._supervised import (
    MAX_CLASSES,
    cut,
    refuse_bad_weights,
    rows_of,
    targets_of,
)

_log = logging.getLogger(__name__)
_MODES = ("exact", "paper")
Rows = tuple[F8, F8, F8, U1]
_MEMORY = 1000.0  # rows that the width of components is for, where nothing is forgotten
_FLOOR = 0.1  # of the initial variance; nearer to it, what is tied on binary features decides


class _Mixture(Operator):
    """What all four share: the density of the joint vector, its state, the call of the kernel.

    Arrays have room for components that may come; what their properties give is cut to those there
    are, so that it does not depend on how the stream was cut.
    """

    exact = True
    _arrays: ClassVar[tuple[str, ...]] = (
        "mu_", "Lam_", "components_", "moments_", "classes_", "buffer_", "scalars_",
    )  # fmt: skip
    _far_arrays: ClassVar[tuple[str, ...]] = ("tiles_", "factors_", "waiting_", "anchor_")
    _large: int = 64  # coordinates from which updates wait: `jit.mixture_delayed`
    _task: int = mixture.DENSITY

    beta: float
    delta: float
    rho: float
    v_min: float
    sp_min: float
    k_max: int
    mode: str
    eps: float
    std: float
    warm_start: int
    _q: int  # targets of a regressor
    _there: DevicePrecisions | None = None  # where the precisions stand, if that is a device
    _given_far: bool | None = None  # whether a state that is being loaded is far

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"warm_start": 9, "k_max": 3, "v_min": 5.0, "rho": 0.9}
        yield {"std": 1.0, "mode": "paper", "beta": 0.01, "rho": 1.0, "delta": 1.0}

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that all have."""
        owner = type(self).__name__
        self.beta = _checks.between(owner, "beta", given["beta"], 0.0, 0.999)
        self.delta = _checks.between(owner, "delta", given["delta"], 0.0, 1e6)
        self.rho = _checks.between(owner, "rho", given["rho"], 0.5, 1.0)
        for name in ("v_min", "sp_min", "std"):
            setattr(self, name, _checks.not_negative(owner, name, given[name]))
        self.k_max = _checks.whole(owner, "k_max", given["k_max"], 1)
        self.mode = _checks.choice(owner, "mode", given["mode"], _MODES)
        self.eps = _checks.between(owner, "eps", given["eps"], 0.0, 1.0)
        self.warm_start = _checks.whole(owner, "warm_start", given["warm_start"], 1)

    def _begin(self, **more: float) -> None:
        """The settings as the vector that the kernel takes, and the empty state."""
        settings = {
            mixture.TASK: self._task, mixture.PAPER: self.mode == "paper", mixture.RHO: self.rho,
            mixture.V_MIN: self.v_min, mixture.SP_MIN: self.sp_min, mixture.K_MAX: self.k_max,
            mixture.STD: self.std,
            mixture.WARM: 0 if self.std > 0.0 else self.warm_start,
        } | {getattr(mixture, name): value for name, value in more.items()}  # fmt: skip
        self._settings = np.array([float(settings.get(i, 0.0)) for i in range(mixture.N_SETTINGS)])
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self._q = D = 1 if self._task == mixture.TARGETS else 0
        if self._there is not None:
            self._there.clear()
        self.scalars_ = np.zeros(mixture.N_SCALARS)
        self.moments_ = np.zeros((4, D))
        self._mu, self._Lam = np.zeros((0, D)), np.zeros((0, D, D))
        self._set_far(*mixture_delayed.none_delayed(0, 0))
        self._components, self._classes = np.zeros((4, 0)), np.zeros((2, 0))
        self._buffer = np.zeros((0, D + 2))
        self._chi = np.zeros(1)
        self._work = np.zeros((mixture.N_VEC, 0)), np.zeros((0, 0, 0)), np.zeros((0, 0))
        self._ahead = mixture_delayed.scratch(0, 0)
        self._warned = False

    # -- state -------------------------------------------------------------------------------------

    @property
    def n_components_(self) -> int:
        """Components there are."""
        return int(self.scalars_[mixture.COMPONENTS])

    mu_ = cut("_mu", 0, "(K, D) means of the components.", "n_components_")
    factors_ = cut("_factors", 0, "(K, T, 24, 8) updates since then.", "n_components_")
    waiting_ = cut("_waiting", 0, "(K, 4) how many; scale; updates.", "n_components_")
    anchor_ = cut("_anchor", 0, "(K, 3, 8 T) means of the anchors, shifts.", "n_components_")
    components_ = cut(
        "_components", 1, "(4, K): log |C|, posteriors so far, age, class or -1.", "n_components_"
    )

    @property
    def Lam_(self) -> F8:
        """(K, D, D) precisions of the components, symmetric positive definite."""
        if self._there is not None and self._there.holds:
            return self._there.fetched(self.n_components_)
        if not self._is_far:
            return self._Lam[: self.n_components_]
        D, unused = self.moments_.shape[1], np.flatnonzero(self.moments_[mixture.USED] == 0.0)
        Lam = np.empty((self.n_components_, D, D))
        for j, now in enumerate(Lam):
            now[:] = effective(self._tiles[j], self._factors[j], self._waiting[j], D)
            now[unused, unused] = 1.0
        return Lam

    @Lam_.setter
    def Lam_(self, value: F8) -> None:
        self._Lam = np.ascontiguousarray(value)
        self._set_far(*mixture_delayed.none_delayed(0, 0))
        if self._there is not None:
            self._there.clear()

    @property
    def tiles_(self) -> F8:
        """(K, T (T + 1) / 2, 8, 8) halves of the precisions when they were folded, D large."""
        return self._tiles[: self.n_components_]

    @tiles_.setter
    def tiles_(self, value: F8) -> None:
        self._tiles = np.ascontiguousarray(value)
        self._Lam = np.zeros((len(value), 0, 0))

    @property
    def _names_of_state(self) -> tuple[str, ...]:
        far = self._is_far if self._given_far is None else self._given_far
        if not far:
            return self._arrays
        return tuple(name for name in self._arrays if name != "Lam_") + self._far_arrays

    @property
    def _is_far(self) -> bool:
        """Whether D is large: `streamlearn.jit.mixture_delayed`."""
        return bool(self._tiles.shape[1] > 0)

    def _set_far(self, tiles: F8, factors: F8, counters: F8, anchor: F8) -> None:
        self._tiles, self._factors, self._waiting, self._anchor = tiles, factors, counters, anchor

    @property
    def classes_(self) -> F8:
        """(2, C): rows learnt of each class; its column among the targets, 0 where it has none."""
        return self._classes[:, : int(self.scalars_[mixture.CLASSES])]

    @classes_.setter
    def classes_(self, value: F8) -> None:
        self._classes = np.ascontiguousarray(value)

    @property
    def buffer_(self) -> F8:
        """(b, D + 2) rows of the warm-up, with weight and class; none after it."""
        return self._buffer[: int(self.scalars_[mixture.BUFFERED])]

    @buffer_.setter
    def buffer_(self, value: F8) -> None:
        self._buffer = np.ascontiguousarray(value)

    @property
    def weights_(self) -> F8:
        """(K,) prior weights of the components, which sum to 1."""
        sp = self.components_[mixture.SP]
        shares: F8 = sp / sp.sum()
        return shares

    @property
    def n_samples_(self) -> int:
        """Rows learnt."""
        return int(self.scalars_[mixture.SAMPLES])

    @property
    def n_rejected(self) -> int:
        """Rows to be learnt that were refused.

        For a feature or target that is infinite or beyond 1e100, or a label that is no class code.
        """
        return int(self.scalars_[mixture.REJECTED])

    @property
    def n_imputed(self) -> int:
        """Missing features in learnt rows, filled by recall."""
        return int(self.scalars_[mixture.IMPUTED])

    @property
    def n_forced(self) -> int:
        """Rows that were new to all components when there were `k_max`: the nearest took them."""
        return int(self.scalars_[mixture.FORCED])

    @property
    def n_repaired(self) -> int:
        """Precisions that were found not to be positive definite, and began anew."""
        return int(self.scalars_[mixture.REPAIRED])

    @property
    def n_guarded(self) -> int:
        """Updates of mode "paper" without their rank-one term: it made a covariance indefinite."""
        return int(self.scalars_[mixture.GUARDED])

    def grow(self, features: Features) -> None:
        """Make room for features, in front of the targets; they enter once they have had values."""
        known, d = self._d, len(features)
        if d > known:
            self._come_home()
            self._insert(known, d - known)

    @property
    def _d(self) -> int:
        return self.moments_.shape[1] - self._n_targets

    @property
    def _n_targets(self) -> int:
        """Columns of the joint vector behind the features."""
        if self._task == mixture.TARGETS:
            return self._q
        if self._task != mixture.RECALL:
            return 0
        return max(0, int(np.count_nonzero(self._classes[mixture.COLUMN] >= 0.0)) - 1)

    def _insert(self, at: int, count: int) -> None:
        """New coordinates, not in use, in front of coordinate `at`."""
        old = self.moments_.shape[1]
        D = old + count
        kept = np.concatenate([np.arange(at), np.arange(at + count, D)])
        K = self._mu.shape[0]
        mu, moments = np.zeros((K, D)), np.zeros((4, D))
        mu[:, kept], moments[:, kept] = self._mu, self.moments_
        buffer = np.full((self._buffer.shape[0], D + 2), np.nan)
        buffer[:, np.append(kept, [D, D + 1])] = self._buffer
        self._mu, self.moments_, self._buffer = mu, moments, buffer
        if self.mode == "exact" and self._large <= D:
            self._insert_far(kept, D)
            return
        Lam = np.zeros((K, D, D))
        Lam[:, np.arange(D), np.arange(D)] = 1.0
        Lam[:, kept[:, None], kept] = self._Lam
        self._Lam = Lam

    def _insert_far(self, kept: I8, D: int) -> None:
        """New coordinates where D is large, or becomes so: then nothing has waited yet."""
        (K, _), was, old = self._mu.shape, self._is_far, kept.size
        tiles, factors, counters, anchor = mixture_delayed.none_delayed(K, D)
        for j in range(K):
            full = np.eye(D)
            full[kept[:, None], kept] = unpacked(self._tiles[j], old) if was else self._Lam[j]
            tiles[j] = packed(full)
            anchor[j, mixture_delayed.DIAGONAL, :D] = np.diagonal(full)
        anchor[:, mixture_delayed.MEAN0, :D] = self._mu
        if was:
            anchor[:, :, kept] = self._anchor[:, :, :old]
            counters[:] = self._waiting
            T, m = self._factors.shape[1:3]
            flat = self._factors.transpose(0, 2, 1, 3).reshape(K, m, 8 * T)
            wide = np.zeros((K, m, anchor.shape[2]))
            wide[:, :, kept] = flat[:, :, :old]
            tiled = wide.reshape(K, m, factors.shape[1], 8)
            factors[:] = tiled.transpose(0, 2, 1, 3)
        self._set_far(tiles, factors, counters, anchor)
        self._Lam = np.zeros((K, 0, 0))

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; refused if the parameters were others."""
        self._given_far = "tiles_" in state.arrays
        try:
            super().load(state)
        finally:
            self._given_far = None
        D = self.moments_.shape[1]
        if self.mode == "exact" and self._large <= D and not self._is_far:
            self._insert(D, 0)  # of a version whose updates never waited
        if self._task == mixture.TARGETS:
            self._q = self.moments_.shape[1] - len(self._features)

    def reset(self) -> None:
        """Forget everything learnt, and how many targets there were; names stay."""
        self._clear()
        self.grow(self._features)

    def _make_room(self) -> None:
        """Room for a quarter more components, eight at least."""
        K, D = self._mu.shape
        room = min(self.k_max, K + max(8, K // 4))
        self._mu = _checks.padded(self._mu, (room, D))
        self._Lam = _checks.padded(self._Lam, (room, *self._Lam.shape[1:]))
        D = D if self._is_far else 0
        more = mixture_delayed.none_delayed(room - K, D)
        old = (self._tiles, self._factors, self._waiting, self._anchor)
        self._set_far(*(mixture_delayed.joined(a, b) for a, b in zip(old, more, strict=True)))
        self._components = _checks.padded(self._components, (4, room))

    def _open_class(self, code: int) -> None:
        """Give a class its column: none to the first, and none where components have classes."""
        columns = self._classes[mixture.COLUMN]
        opened = int(np.count_nonzero(columns >= 0.0))
        if self._task == mixture.RECALL and opened > 0:
            D = self.moments_.shape[1]
            self._insert(D, 1)
            self.moments_[mixture.MASS, D] = self.scalars_[mixture.SAMPLES]
        columns[code] = float(opened) if self._task == mixture.RECALL else 0.0

    @property
    def delta_(self) -> float:
        """Initial standard deviation of a component, in those of the data.

        With `delta=0` the smallest at which D + 1 rows of the memory fall to each of the
        components that it takes to fill the space: (memory / (D + 1)) ** (-1 / D), at most 1.
        """
        D = max(self.moments_.shape[1], 1)
        memory = min(_MEMORY, 1.0 / max(1.0 - self.rho, 1e-9))
        return self.delta or min(1.0, float((memory / (D + 1.0)) ** (-1.0 / D)))

    def _fit(self) -> None:
        """Scratch, settings, the gate's table and the buffer, as wide as the state is now."""
        (K, D), C = self._mu.shape, self._classes.shape[1]
        delta = self._settings[mixture.DELTA] = self.delta_
        self._settings[mixture.EPS] = min(_FLOOR, self.eps / (delta * delta))
        vec, per, G = self._work
        width = max(K, D, C, 1)
        W = self._anchor.shape[2] or D
        if vec.shape[1] < width or per.shape[1:] != (K, W) or G.shape[0] != D:
            longer = np.zeros((mixture.N_VEC, max(width, vec.shape[1])))
            longer[:, : vec.shape[1]] = vec  # a walk that asked for room goes on with it
            self._work = longer, np.zeros((mixture.N_PER, K, W)), np.zeros((D, D))
            self._ahead = mixture_delayed.scratch(K, D if self._is_far else 0)
        if self._chi.shape[0] != D + 1:
            self._chi = np.full(D + 1, math.inf)
            if self.beta > 0.0:
                mixture.chi2_quantiles(self.beta, self._chi)
        warm = int(self._settings[mixture.WARM])
        left = self.n_samples_ < warm
        replayed = self.scalars_[mixture.REPLAYS] > 0.0  # a walk that asked for room reads it
        if not replayed and self._buffer.shape[0] != (warm if left else 0):
            self._buffer = _checks.padded(self.buffer_, (warm if left else 0, D + 2))

    def _kernel_state(self) -> mixture.State:
        return (
            self._mu, self._Lam, self._components, self.moments_, self._classes, self._buffer,
            self.scalars_,
            (self._tiles, self._factors, self._waiting, self._anchor, *self._ahead),
        )  # fmt: skip

    # -- the walk ----------------------------------------------------------------------------------

    def _walk_block(self, block: Block, answer: F8, side: F8) -> None:
        """Call the kernel until the block is done; it stops where something needs room."""
        refuse_bad_weights(self, block)
        self._walk_rows(rows_of(block), answer, side)
        if not self._warned and self.n_repaired > 0:
            self._warned = True
            _log.warning("%s: a precision had to begin anew", type(self).__name__)

    def _walk_rows(self, rows: Rows, answer: F8, side: F8) -> None:
        at, why = 0, -1
        while why != mixture.DONE:
            self._fit()
            fixed = (self._settings, self._chi, *self._work)
            at, why = mixture.walk(rows, self._kernel_state(), fixed, (answer, side), at)
            if why == mixture.ROOM:
                self._make_room()
            elif why == mixture.CLASS:
                self._open_class(int(rows[1][at, 0]))

    def _come_home(self) -> None:
        """Take the precisions back from a device, for what is done by the host."""
        if self._there is not None and self._there.holds:
            D = self.moments_.shape[1]
            self._Lam = _checks.padded(self.Lam_, (self._mu.shape[0], D, D))
            self._there.clear()

    # -- recall ------------------------------------------------------------------------------------

    def recall(self, X: F8, y: F8 | None = None) -> tuple[F8, F8]:
        """Fill what is missing from what is there, in either direction; changes nothing.

        Args:
            X: (n, d) features, NaN where they are to be recalled.
            y: (n, q) the targets behind them; all are recalled if not given. A class is a row of
                zeros with a one in its column, which the first class that came does not have.
        Returns: Z (n, d + q) with every gap filled, and the variances of what was filled, 0 where
            a value was given. Before anything was learnt, the running mean and variance.
        Cost: O(K (D^2 + m^3)) a row with m gaps.
        """
        X = np.asarray(X, dtype=np.float64)
        D = self.moments_.shape[1]
        q = D - self._d
        targets = np.full((X.shape[0], q), np.nan) if y is None else np.asarray(y, dtype=np.float64)
        if X.shape[1] != D - q or targets.shape != (X.shape[0], q):
            raise ValueError(
                f"{type(self).__name__}: recall takes {D - q} features and {q} targets a row, "
                f"got X of shape {X.shape} and y of shape {targets.shape}"
            )
        self._come_home()
        Z = np.concatenate([X, targets], axis=1)
        variance = np.empty_like(Z)
        self._fit()
        fixed = (self._settings, self._chi, *self._work)
        mixture.fill(Z, self._kernel_state(), fixed, variance)
        return Z, variance

    def recall_one(self, x: Row) -> dict[Any, float]:
        """All features of one event, those missing in x recalled from those that are there."""
        Z, _ = self.recall(self._row(x))
        return dict(zip(self._features.names, Z[0].tolist(), strict=False))


class _DeviceMixture(_Mixture):
    """A mixture whose precisions may stand on an NVIDIA GPU, which then walks all that it can.

    The host walks the other rows: before the mixture has begun, with a feature that is missing,
    refused, or has not entered, and the first of a class that needs a column or a component.
    """

    device: str = "cpu"

    def _choose_device(self, device: str) -> None:
        """Check and keep `device`; an error where there is none, or the mode has no kernel."""
        owner = type(self).__name__
        self.device = _checks.choice(owner, "device", device, DEVICES)
        if device != "cuda":
            return
        if self.mode != "exact":
            raise ValueError(
                f"{owner}: device must be cpu unless mode is exact, got 'cuda' with {self.mode!r}"
            )
        self._there, self._large = DevicePrecisions(owner), sys.maxsize

    def _plain_parameters(self) -> dict[str, Any]:
        """Without `device` where it is the CPU: states from before it are still read."""
        return without_cpu(super()._plain_parameters())

    def _walk_rows(self, rows: Rows, answer: F8, side: F8) -> None:
        if self._there is None:
            super()._walk_rows(rows, answer, side)
            return
        taught = lessons(rows, self._task, self._classes.shape[1])
        known = np.all(np.abs(rows[0]) <= mixture.LARGEST, axis=1, keepdims=True)[:, 0]
        at, waits = 0, False
        while at < known.size:
            end = at if waits else self._device_until(at, known, taught)
            part = slice(at, max(end, at + 1))
            some, out = cut_rows(rows, part), (answer[part], side[part])
            if end == at:
                self._come_home()
                super()._walk_rows(some, *out)
                at, waits = at + 1, False
                continue
            at += self._walk_there(some, taught.of(part), out)
            waits = at < end and not self._makes_room()

    def _device_until(self, at: int, known: B1, taught: Lessons) -> int:
        """The first row from `at` on that the host is to walk."""
        begun = self.n_samples_ >= self._settings[mixture.WARM] and self.n_components_ > 0
        if not (known[at] and begun and (self.moments_[mixture.USED] > 0.0).all()):
            return at
        goes = known[at:]
        if self._task >= mixture.RECALL:
            closed = self._classes[mixture.COLUMN, taught.codes[at:]] < 0.0
            goes = goes & ~(closed & (taught.weight[at:] > 0.0))
        return at + int(np.append(goes, False).argmin())

    def _makes_room(self) -> bool:
        """Room for the next component, unless there are `k_max`. Returns whether there is."""
        if self.n_components_ == self.k_max:
            return False
        self._make_room()
        return True

    def _walk_there(self, rows: Rows, taught: Lessons, out: tuple[F8, F8]) -> int:
        """Rows that the device has walked; it stops where the host is to make room."""
        assert self._there is not None
        self._fit()
        Z = joint(rows, self._task, taught.codes, self._classes, self.moments_.shape[1])
        state = self._mu, self._components, self.moments_, self._classes, self.scalars_
        sent = Z, taught.weight, rows[3], taught.codes
        fixed = self._settings, self._chi
        walked = self._there.walk(sent, self._n_targets, self._Lam, state, fixed, out)
        self.scalars_[mixture.REJECTED] += np.count_nonzero(taught.refused[:walked])
        self._Lam = np.zeros((self._mu.shape[0], 0, 0))
        return walked


class GaussianMixtureClassifier(_DeviceMixture, Classifier):
    """Classifier by recall from an incremental Gaussian mixture of features and classes.

    Model: p(z) = sum_j pi_j N(z | mu_j, Lam_j^-1), z = (x, one-hot class without the first class
    that came). A row that is new to all components by a chi-square test becomes one; else all move
    by their share in it. The class is recalled as the conditional mean of its columns given x, and
    its probability is share^alpha, normalised, with a learned alpha (1 is the share itself).
    Args:
        beta: chance that a row of a component is taken for new, in [0, 1); 0: one component.
        delta: initial standard deviation of a component, in those of the data, >= 0; 0 takes what
            the memory can fill (`delta_`): 0.27 for three coordinates, 0.5 for 5, 0.9 for 30.
        rho: what a component keeps of its accumulated posterior a row, in [0.5, 1]; 1 forgets
            nothing and fails under drift.
        v_min, sp_min: a component older than v_min rows with less posterior than sp_min is
            deleted, >= 0. With rho=1 a posterior never falls below 1: take sp_min=3.
        k_max: the most components, >= 1; beyond it the nearest takes what is new (`n_forced`).
        mode: "exact", or "paper": the published update, which can lose positive definiteness, with
            a guard (`n_guarded`). For comparison.
        eps: floor of the variance of a coordinate given all others, in variances of the data,
            but no more than a tenth of the initial one, in [0, 1].
        std: standard deviation of all coordinates, if known, > 0; 0 estimates it.
        warm_start: rows from which it is estimated, >= 1; after an eighth, a quarter, a half and
            all of them the mixture begins anew from them.
        components: "joint", or "by_class": each component is of one class and has no target
            columns; probabilities are those of Bayes, tempered by alpha.
        probabilities: "scaled", or "clipped": shares clipped to [0, 1] and normalised.
        lr_alpha: step of log alpha a label, >= 0.
        balance: weigh a row of class c by N / (C n_c), so that all classes count alike.
        device: "cpu", or, in mode "exact", "cuda": the precisions stand on an NVIDIA GPU, for
            hundreds of coordinates and many components; an error where there is none. The host
            walks the rows that lack a feature, the first of a class, and all of them until the
            warm-up is over and every feature has entered: all precisions are copied each time.
            Lam_ is state there, and a component begins anew at once where a diagonal is not
            positive.
    State (K components, D = d + classes - 1 coordinates, C = 1 + largest class code learnt):
        mu_: (K, D) float64, means.
        Lam_: (K, D, D) float64, precisions, symmetric positive definite. From D = 64 on it is
            made when asked for; state are the upper halves of the precisions in tiles_, the last
            updates of each in factors_, their counts and scales in waiting_, and the means when
            they were last folded in anchor_.
        components_: (4, K) float64, log-determinant of the covariance, accumulated posterior, age,
            class of the component or -1.
        moments_: (4, D) float64, mass, running mean and variance, 1 where a coordinate is in use.
        classes_: (2, C) float64, rows learnt, column of the class.
        buffer_: (b, D + 2) float64, rows of the warm-up with weight and class.
        scalars_: (13,) float64, counters and log alpha, in the order of `streamlearn.jit.mixture`.
    A missing feature joins what is unknown; in a row that is learnt it is recalled from the rest.
    A feature that comes after the warm-up enters with its tenth value. Rows without a label or any
    feature teach nothing; rows with a value that is infinite or beyond 1e100 are refused.
    Cost: O(K D^2) time an event, with m gaps O(K m^3) more, no allocation in the kernel but where
    K grows; O(K D^2) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight;
        MemoryError where a device has no room.
    Reference: Pinto and Engel (2015), A Fast Incremental Gaussian Mixture Model, PLOS ONE 10(10);
    its covariance recursion is corrected here.
    >>> model = GaussianMixtureClassifier(warm_start=8)
    >>> for i in range(40):
    ...     model.learn_one({"a": i % 4 + 0.1 * (i % 3)}, "high" if i % 4 > 1 else "low")
    >>> model.predict_one({"a": 2.6})
    'high'
    """

    _task = mixture.RECALL
    recalls_input = True

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield from super()._unit_test_params()
        yield {"components": "by_class", "warm_start": 20, "balance": True, "k_max": 2}
        yield {"probabilities": "clipped", "balance": True, "beta": 0.0}

    def __init__(
        self,
        beta: float = 0.1,
        delta: float = 0.0,
        rho: float = 0.995,
        v_min: float = 100.0,
        sp_min: float = 1.0,
        k_max: int = 200,
        mode: str = "exact",
        eps: float = 0.02,
        std: float = 0.0,
        warm_start: int = 100,
        components: str = "joint",
        probabilities: str = "scaled",
        lr_alpha: float = 0.02,
        balance: bool = False,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        self._choose_device(device)
        owner = type(self).__name__
        self.components = _checks.choice(owner, "components", components, ("joint", "by_class"))
        self.probabilities = _checks.choice(
            owner, "probabilities", probabilities, ("scaled", "clipped")
        )
        self.lr_alpha = _checks.not_negative(owner, "lr_alpha", lr_alpha)
        self.balance = _checks.truth(owner, "balance", balance)
        by_class = self.components == "by_class"
        self._task = mixture.CONDITIONAL if by_class else mixture.RECALL
        self._begin(
            LR_ALPHA=self.lr_alpha, BALANCE=self.balance, CLIP=self.probabilities == "clipped"
        )

    def _run(self, block: Block) -> Columns:
        _checks.one_target(type(self).__name__, block.y)
        known = self._classes.shape[1]
        codes = block.y[block.y < MAX_CLASSES]
        C = max(known, 1 + int(codes.max(initial=-1.0)))
        if known < C:
            self._classes = _checks.padded(self._classes, (2, C))
            self._classes[mixture.COLUMN, known:] = -1.0
        answer, side = np.empty((block.n, C)), np.empty((block.n, 1))
        self._walk_block(block, answer, side)
        known = int(self.scalars_[mixture.CLASSES])
        return {"prediction": side[:, 0], "proba": np.ascontiguousarray(answer[:, :known])}

    @property
    def alpha_(self) -> float:
        """The learned power of the recalled shares."""
        return math.exp(self.scalars_[mixture.LOG_ALPHA])


class GaussianMixtureRegressor(_DeviceMixture, Regressor):
    """Regressor by recall from an incremental Gaussian mixture of features and targets.

    Model, state and arguments as `GaussianMixtureClassifier`, with z = (x, y), D = d + q. Outputs
    `prediction`, the conditional mean of y given x, and `variance`, that of the mixture; y is (n,)
    or (n, q). With a column of y missing a row counts as unlabelled.
    Cost: O(K D^2 + K q^3) time an event, no allocation but where K grows; O(K D^2) memory.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets;
        MemoryError where a device has no room.
    Reference: Pinto and Engel (2015), PLOS ONE 10(10).
    >>> model = GaussianMixtureRegressor(warm_start=8)
    >>> for i in range(400):
    ...     model.learn_one({"a": float(i % 5)}, 2.0 * (i % 5) + 1.0)
    >>> round(model.predict_one({"a": 2.5}), 1)
    6.0
    """

    _task = mixture.TARGETS
    recalls_input = True

    def __init__(
        self,
        beta: float = 0.1,
        delta: float = 0.0,
        rho: float = 0.995,
        v_min: float = 100.0,
        sp_min: float = 1.0,
        k_max: int = 200,
        mode: str = "exact",
        eps: float = 0.02,
        std: float = 0.0,
        warm_start: int = 100,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        self._choose_device(device)
        self._begin()

    def snapshot(self) -> dict[str, Any]:
        """A cheap copy of all that learning changes, for `restore` within this process."""
        return super().snapshot() | {"_q": self._q}

    def _run(self, block: Block) -> Columns:
        q = targets_of(self, block, self._q, self.n_samples_ > 0)
        if q > self._q:
            self._insert(self.moments_.shape[1], q - self._q)
            self._q = q
        answer, side = np.empty((block.n, q)), np.empty((block.n, q))
        self._walk_block(block, answer, side)
        if block.y.ndim == 1 and q == 1:
            return {"prediction": answer[:, 0], "variance": side[:, 0]}
        return {"prediction": answer, "variance": side}


class GaussianMixtureImputer(_Mixture, Transformer):
    """Imputer by recall: what is missing is the conditional mean given what is there.

    Model, state and arguments as `GaussianMixtureClassifier`, with z = x, learnt without labels.
    Before the mixture begins, and for a feature not in use yet, the running mean; 0 before the
    first value. A row with an infinity, or a value beyond 1e100, is passed on as it is.
    Cost: O(K (D^2 + m^3)) time an event with m gaps; O(K D^2) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Pinto and Engel (2015), PLOS ONE 10(10).
    >>> imputer = GaussianMixtureImputer(warm_start=8)
    >>> for i in range(40):
    ...     imputer.learn_one({"a": float(i % 5), "b": 10.0 * (i % 5)})
    >>> round(imputer.transform_one({"a": 2.0})["b"])
    20
    """

    def __init__(
        self,
        beta: float = 0.1,
        delta: float = 0.0,
        rho: float = 0.995,
        v_min: float = 100.0,
        sp_min: float = 1.0,
        k_max: int = 200,
        mode: str = "exact",
        eps: float = 0.02,
        std: float = 0.0,
        warm_start: int = 100,
    ) -> None:
        self._set_parameters(locals())
        self._begin()

    def _run(self, block: Block) -> Columns:
        answer = np.empty(block.X.shape)
        self._walk_block(block, answer, np.empty((block.n, 0)))
        return {"X": answer}


class GaussianMixtureAnomalyScorer(_DeviceMixture, Scorer):
    """Anomaly scorer: minus the log density of a row under the mixture of the rows before it.

    Model, state and arguments as `GaussianMixtureClassifier`, with z = x, learnt without labels.
    The score, in nats, is of the features that are there; 0 before the mixture begins.
    Cost: O(K D^2) time an event, with m gaps O(K m^3) more; O(K D^2) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight;
        MemoryError where a device has no room.
    Reference: Pinto and Engel (2015), PLOS ONE 10(10).
    >>> scorer = GaussianMixtureAnomalyScorer(warm_start=8)
    >>> for i in range(40):
    ...     scorer.learn_one({"a": float(i % 5)})
    >>> scorer.score_one({"a": 50.0}) > scorer.score_one({"a": 2.0})
    True
    """

    def __init__(
        self,
        beta: float = 0.1,
        delta: float = 0.0,
        rho: float = 0.995,
        v_min: float = 100.0,
        sp_min: float = 1.0,
        k_max: int = 200,
        mode: str = "exact",
        eps: float = 0.02,
        std: float = 0.0,
        warm_start: int = 100,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        self._choose_device(device)
        self._begin()

    def _run(self, block: Block) -> Columns:
        score = np.empty((block.n, 1))
        self._walk_block(block, np.empty((block.n, 0)), score)
        return {"score": score[:, 0]}
