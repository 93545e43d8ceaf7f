"""Scaling of inputs: streaming z-scores, and rows of unit length."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from river import base

from streamlearn.block import BOOLEAN, F8, I8, LEARN, NUMBER, OBSERVE, Block, Columns, Features
from streamlearn.jit.scale import (
    MASS,
    MU,
    V,
    balanced_run,
    enrol,
    mixed_moments,
    normaliser_run,
    unit_norm_run,
)
from streamlearn.operators import _checks
from streamlearn.operators._base import Transformer
from streamlearn.operators._supervised import plain


class _Scaler(Transformer):
    """What scalers share: a column that was scaled is a number, whatever it was before."""

    _named: tuple[Features, Features] | None = None  # the last columns seen, and what they became

    def output_features(self, features: Features) -> Features:
        """The same names, all of them numbers: a scaled 0 or 1 is no boolean any more."""
        if self._named is None or self._named[0] is not features:
            kinds = [NUMBER if kind == BOOLEAN else kind for kind in features.kinds]
            scaled = Features(features.names, kinds, features.categories)
            self._named = (features, scaled if BOOLEAN in features.kinds else features)
        return self._named[1]


class _ZScore(_Scaler):
    """What both normalisers share: parameters of memory and score, and keeping a share."""

    _arrays = ("moments_",)
    _counters: ClassVar[tuple[str, ...]] = ("n_rejected",)
    moments_: F8

    def _set_parameters(self, m: float, kappa: float, eps: float, clip: float) -> None:
        owner = type(self).__name__
        self.m = _checks.between(owner, "m", m, 0.0, 1.0)
        if self.m in (0.0, 1.0):
            raise ValueError(f"{owner}: m must be > 0 and < 1, got {m!r}")
        self.kappa = _checks.between(owner, "kappa", kappa, 0.0, 1.0)
        self.eps = _checks.not_negative(owner, "eps", eps)
        self.clip = _checks.positive(owner, "clip", clip)
        self._decay = (1.0 - self.m) ** self.kappa
        self.n_rejected = 0

    def reset(self, keep: float = 0.0) -> None:
        """Keep this share of the memory, in [0, 1]; with 0.1 a new value counts tenfold."""
        share = _checks.between(type(self).__name__, "keep", keep, 0.0, 1.0)
        if share == 0.0:
            super().reset()
        else:
            self.moments_[..., MASS, :] *= share


class Normalizer(_ZScore, base.Transformer):
    """Each feature's z-score by its running mean and variance, with one knob for their memory.

    A row is scored with the statistics from before it, then taken into them (OBSERVE rows). They
    are the weighted mean and variance of all values so far, a value's weight being its sample
    weight times q per later value, q = (1 - m) ** kappa. A NaN stays NaN and leaves its feature's
    statistics alone. A feature with fewer than two values, or that never moved, gives 0. A row with
    an infinite feature is passed on as it is, so that later stages refuse it too, is not learnt,
    and is counted in `n_rejected`. Deviations beyond 1e150 count as 1e150 in the variance.
    A wrong value, k deviations out, is a value: its feature's scores stay near 0 until it has faded
    from the variance, with kappa 1 some ln(m k^2) / m rows later (20,700 for a million at the
    defaults). Hand in what cannot be as missing.
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
        self._set_parameters(m, kappa, eps, clip)
        self.update_first = _checks.truth("Normalizer", "update_first", update_first)
        self._shape = (self.eps, self.clip, self.update_first)
        self.moments_ = np.zeros((3, 0))

    def grow(self, features: Features) -> None:
        """Room for new features, of which nothing is known yet."""
        self.moments_ = _checks.padded(self.moments_, (3, len(features)))

    def _run(self, block: Block) -> Columns:
        out = np.empty(block.X.shape)
        refused = normaliser_run(
            plain(block.X), block.weight, block.mode, self.moments_, self._decay, self._shape, out
        )
        self.n_rejected += int(refused)  # without the JIT, kernels give numpy's integers
        return {"X": out}

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


class BalancedNormalizer(_ZScore, base.Transformer):
    """Z-scores by statistics in which every class (or key) has a say, however rare it is.

    Each group g has the statistics of `Normalizer` over its own values, for each feature: mean
    mu_g, variance v_g, memory mass n_g. A row of any group is scored by their mixture, as it was
    before the row: pi_g ~ n_g ** (1 - b), mu = sum pi_g mu_g,
    v = sum pi_g (v_g + (mu_g - mu) ** 2), b = `balance`. A value of its own group fades n_g by
    q = (1 - m) ** kappa, one of another group by q ** (1 - b). So b = 0 is `Normalizer`: the
    statistics of all values pooled. With b = 1 all groups seen count the same and a group remembers
    in its own time: a burst of one class, however long, does not move the statistics of the others.
    The first `max_groups` - 1 groups learnt have their own statistics; all further ones share the
    last. Features that are missing, constant, huge or infinite: as in `Normalizer`; a row with an
    infinite label is not learnt and counted in `n_rejected` too.
    Args:
        by: "class" groups by label and learns on LEARN rows that have one; "key" groups by the key
            of the events (no key is a key too), learns on OBSERVE rows and needs no label.
        balance: b, in [0, 1].
        max_groups: groups with statistics of their own, >= 1.
        m: rate of the exponential memory, in (0, 1); 0.001 remembers about 1,000 events.
        kappa: 1 for that exponential memory, 0 for one that never forgets, or between.
        eps: added to the variance, in units of the feature squared, >= 0.
        clip: scores are cut at +-clip, > 0.
    State:
        moments_: (K, 3, d) float64, for each of K groups rows: mean, variance, memory mass.
        groups_: the classes (as codes or numbers) or keys of the K groups, in order of first learnt
            row; the last of `max_groups` stands for all further ones.
    Cost: O(K d) time an event, no allocation in the kernel, and for 0 < b < 1 a power a group; with
    "key" also a look-up in a dict; 24 K d bytes.
    Raises: ValueError for a parameter out of range; for rows to learn without `Block.keys` (by key)
        or with more than one target a row (by class).
    Reference: Cha et al. (2023), Overcoming recency bias of normalization statistics, for balanced
    moments; the two clocks of a group's mass are ours.
    >>> scaler = BalancedNormalizer()
    >>> for value, label in ((0.0, "rare"), *[(9.0, "common"), (11.0, "common")] * 50):
    ...     scaler.learn_one({"a": value}, label)
    >>> [round(float(mean), 2) for mean in scaler.mean_]
    [5.0]
    """

    _counters = (*_ZScore._counters, "groups_")
    recalls_input = True

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build; events with keys are not theirs."""
        yield {}
        yield {"m": 0.1, "balance": 0.5, "max_groups": 2}
        yield {"balance": 0.0, "kappa": 0.0}

    def __init__(
        self,
        by: str = "class",
        balance: float = 1.0,
        max_groups: int = 64,
        m: float = 0.001,
        kappa: float = 1.0,
        eps: float = 1e-8,
        clip: float = 8.0,
    ) -> None:
        self.by = _checks.choice("BalancedNormalizer", "by", by, ("class", "key"))
        self.balance = _checks.between("BalancedNormalizer", "balance", balance, 0.0, 1.0)
        self.max_groups = _checks.whole("BalancedNormalizer", "max_groups", max_groups, 1)
        self._set_parameters(m, kappa, eps, clip)
        self.needs_label = self.by == "class"
        self.moments_ = np.zeros((0, 3, 0))
        self.groups_: list[Any] = []

    def grow(self, features: Features) -> None:
        """Room for new features, of which nothing is known yet."""
        self.moments_ = _checks.padded(self.moments_, (len(self.groups_), 3, len(features)))

    def _run(self, block: Block) -> Columns:
        out = np.empty(block.X.shape)
        X, slots = plain(block.X), self._slots(block)
        balanced_run(
            X, slots, block.weight, self.moments_, (self._decay, 1.0 - self.balance),
            (self.eps, self.clip), np.empty((4, block.d)), out,
        )  # fmt: skip
        return {"X": out}

    def _slots(self, block: Block) -> I8:
        """The group that each row teaches, -1 for none; those that are new are opened."""
        known, slots = len(self.groups_), np.empty(block.n, dtype=np.int64)
        bit = LEARN if self.needs_label else OBSERVE
        names = np.empty(self.max_groups)
        if self.by == "class":
            who, keys = self._labels_of(block), None
            names[:known] = self.groups_
        else:
            who, keys = self._keys_of(block)
            names[:known] = np.arange(known)
        K, refused = enrol(plain(block.X), who, block.weight, block.mode, bit, names, known, slots)
        self.n_rejected += int(refused)
        if known < K:
            fresh = names[known:K].tolist()
            self.groups_ += fresh if keys is None else [keys[int(i)] for i in fresh]
            self.moments_ = _checks.padded(self.moments_, (K, 3, block.d))
        return slots

    def _labels_of(self, block: Block) -> F8:
        if block.y.ndim != 1:
            raise ValueError(
                "BalancedNormalizer: y must be one label a row, (n,), for by='class'; "
                f"got shape {block.y.shape}"
            )
        return block.y

    def _keys_of(self, block: Block) -> tuple[F8, list[Any]]:
        """The key of each row as a number (n,), and the keys by their numbers, known ones first."""
        if block.keys is not None:
            table = {key: i for i, key in enumerate(self.groups_)}
            who = [table.setdefault(key, len(table)) for key in block.keys.tolist()]
            return np.array(who, dtype=np.float64), list(table)
        if np.any(block.mode & OBSERVE):
            raise ValueError(
                "BalancedNormalizer: keys must be given with the events for by='key', got none; "
                "name their field as `key` in the schema, or group by='class'"
            )
        return np.full(block.n, np.nan), []

    @property
    def mean_(self) -> F8:
        """(d,) the mean of the mixture, by which the next row is scored; 0 before any value."""
        return self._mixed(MU)

    @property
    def variance_(self) -> F8:
        """(d,) the variance of the mixture; 0 before a second value."""
        return self._mixed(V)

    def _mixed(self, row: int) -> F8:
        mixture = np.empty((4, self.moments_.shape[2]))
        mixed_moments(self.moments_, 1.0 - self.balance, mixture)
        mixed: F8 = mixture[row]
        return mixed


class UnitNorm(_Scaler, base.Transformer):
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
        self.n_rejected += int(unit_norm_run(plain(block.X), block.weight, block.mode, out))
        return {"X": out}
