"""Banks: one small model per key (customer, device, sensor), up to millions of them."""

import functools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from streamlearn.block import B1, F8, I8, OBSERVE, Block, Columns, Features
from streamlearn.contracts import Json, Shelf, State
from streamlearn.errors import UserError
from streamlearn.jit import bank
from streamlearn.operators import _checks, _records
from streamlearn.operators._bank_on_device import DeviceRecords
from streamlearn.operators._base import Classifier, Operator, Regressor, Row
from streamlearn.operators._key_model import KeyModel, come_back, key_model
from streamlearn.operators._keys import Codes
from streamlearn.operators._layout import Layout, relaid
from streamlearn.operators._on_device import DEVICES
from streamlearn.operators._records import Records, Shard
from streamlearn.operators._saved import Saved
from streamlearn.operators._supervised import Supervised, refuse_bad_weights, rows_of
from streamlearn.operators._threads import Crew
from streamlearn.operators.analytic import AnalyticClassifier, AnalyticRegressor
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_log = logging.getLogger(__name__)
_EVICTED = ("keep", "forget")
_REFUSED = (
    "%s: refused %d rows, for an infinity, or features too large (put Normalizer() before it)"
)


class _Keyed(Supervised):
    """What both banks share: the records by key, and the call of the walk."""

    takes_keys = True
    exact = True
    model: Operator
    _model: KeyModel  # its parts
    _key: Any = None  # of the row that the methods on dicts are about

    # -- construction ------------------------------------------------------------------------------

    def _set_parameters(self, given: dict[str, Any]) -> None:
        owner = type(self).__name__
        most, age = given["max_keys"], given["max_age"]
        self.max_keys = None if most is None else _checks.whole(owner, "max_keys", most, 1)
        self.max_age = None if age is None else _checks.whole(owner, "max_age", age, 1)
        self.evicted = _checks.choice(owner, "evicted", given["evicted"], _EVICTED)
        self._settings, blank = self._model.settings, self._model.blank
        self._codes = Codes()
        self._crew = Crew()  # shards of the records, in threads
        self._saved: Saved | None = None
        self._records: Records | DeviceRecords = (
            Records(self._layout(0, 1), blank)
            if self._choose_device(given["device"]) == "cpu"
            else DeviceRecords(owner, self._walker_there, self._layout(0, 1), blank, self._settings)
        )
        self._warned = False

    def _choose_device(self, device: str) -> str:
        """Check and keep `device`; a device evicts nothing."""
        owner = type(self).__name__
        self.device = _checks.choice(owner, "device", device, DEVICES)
        if device == "cuda" and not self.max_keys is self.max_age is None:
            raise ValueError(
                f"{owner}: max_keys and max_age must be None with device='cuda', which evicts "
                f"nothing, got {self.max_keys} and {self.max_age}"
            )
        if device == "cuda" and self._model.scaler is not None:
            raise ValueError(
                f"{owner}: model must have no Normalizer() with device='cuda', where records hold "
                f"no moments, got {self.model!r}"
            )
        return self.device

    @property
    def _walker_there(self) -> str:
        if self._classify:
            return "walk_rls_classes" if self._model.least else "walk_classes"
        return "walk_rls" if self._model.least else "walk_kalman"

    def _layout(self, d: int, K: int) -> Layout:
        return self._model.layout(d, K)

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"max_keys": 3, "evicted": "forget"}

    # -- what it holds -----------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int:
        return int(self._records.counters[bank.CLASSES]) if self._classify else 1

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt, of all keys."""
        return int(self._records.counters[bank.LESSONS])

    @property
    def n_keys_(self) -> int:
        """Keys with a model in memory; rows without a key count as one."""
        return self._records.n_keys

    @property
    def n_evicted_(self) -> int:
        """Keys whose model was evicted and is kept."""
        return len(self._records.cold)

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN that were refused: for an infinity, features too large, or no class."""
        return int(self._records.counters[bank.REFUSED])

    @property
    def state_bytes(self) -> int:
        """Bytes of the records and keys in memory."""
        return self._records.nbytes

    def metrics(self, key: Any = None) -> dict[str, float] | None:
        """How well the model of one key did, test-then-train, over its lessons; None without one.

        lessons, last_seen (events of the bank), and mae and rmse, or accuracy and log_loss. A late
        label counts with the answer that its key's model would have given as it came.
        """
        record = self._records.record(self._codes.one(key))
        if record is None:
            return None
        n = float(record[bank.SAMPLES])
        error, square = (float(record[i]) / n if n else math.nan for i in (bank.ERROR, bank.SQUARE))
        found = {"lessons": n, "last_seen": float(record[bank.SEEN])}
        if self._classify:
            return found | {"accuracy": 1.0 - error, "log_loss": square}
        return found | {"mae": error, "rmse": math.sqrt(square)}

    def weights(self, key: Any = None) -> F8 | None:
        """(K, D) the weights of one key's model, of the constant and the features; None without."""
        record = self._records.record(self._codes.one(key))
        if record is None:
            return None
        d, K = self._records.layout[:2]
        at = bank.weights_at(1 + d, K)
        return record[at : at + K * (1 + d)].reshape(K, 1 + d)[: self._n_outputs].copy()

    def moments(self, key: Any = None) -> F8 | None:
        """(3, d) mean, variance and memory mass of one key's features, where keys scale theirs.

        None without the key, or without a Normalizer() in `model`.
        """
        record = self._records.record(self._codes.one(key))
        if record is None or self._model.scaler is None:
            return None
        d, K = self._records.layout[:2]
        at = bank.moments_at(1 + d, K)
        return record[at : at + bank.MOMENTS * d].reshape(bank.MOMENTS, d).copy()

    def __contains__(self, key: Any) -> bool:
        return self._records.record(self._codes.one(key)) is not None

    # -- the walk ----------------------------------------------------------------------------------

    def grow(self, features: Features) -> None:
        """Make room for features in every record: weight 0, prior variance; copies the bank."""
        self._refuse_beyond("max_d", "features", len(features))
        self._records.widen(self._layout(len(features), self._records.layout.K))

    def _n_classes(self, block: Block) -> int:
        wanted = super()._n_classes(block)
        self._refuse_beyond("max_classes", "classes", wanted)
        return wanted

    def _refuse_beyond(self, limit: str, what: str, wanted: int) -> None:
        most = getattr(self._model.head, limit, wanted)
        if wanted > most:
            raise UserError(
                f"{type(self).__name__}: model.{limit} must be at least the {what} of the stream, "
                f"{wanted} so far, got {most}"
            )

    def _run(self, block: Block) -> Columns:
        if block.y.ndim != 1 and block.y.shape[1] != 1:
            raise ValueError(
                f"{type(self).__name__}: y must be one target a row, (n,), got {block.y.shape}"
            )
        refuse_bad_weights(self, block)
        wanted = self._n_classes(block) if self._classify else 1
        d, K = self._records.layout[:2]
        self._records.widen(self._layout(d, max(wanted, K)))
        n, K = block.n, max(wanted, K)
        scaled = None if self._model.scaler is None else (np.empty((n, d)), come_back(block))
        seen = np.empty((n if block.log_wanted else 0, d))
        answer, side = np.empty((n, K)), np.empty((n, 1))
        rows, keys = rows_of(block), self._codes.of(block.keys, n)
        for start, stop, due in self._parts(block):
            part = slice(start, stop)
            some = [column[part] for column in rows]
            own = None if scaled is None else (scaled[0][part], scaled[1][part])
            self._walk(some, keys[part], (answer[part], side[part], seen[part]), own)
            if due:
                keep = self.evicted == "keep"
                assert isinstance(self._records, Records)  # a device evicts nothing
                self._records.evict(self.max_keys, self._age_due(), keep)
        if not self._warned and self.n_rejected:
            self._warned = True
            _log.warning(_REFUSED, type(self).__name__, self.n_rejected)
        said = self._named(block, answer, side)
        return said | {"log:X": seen} if block.log_wanted else said

    def _walk(
        self, rows: list[Any], keys: I8, out: tuple[F8, F8, F8], scaled: tuple[F8, B1] | None
    ) -> None:
        """Walk these rows. scaled: room for their features, and which of them were scaled before;
        None where keys scale nothing."""
        records = self._records
        if isinstance(records, DeviceRecords):
            records.walk(rows, keys, out)
            return
        n, mode = keys.shape[0], rows[3]
        slots = records.slots_of(keys, mode)
        events, shards = records.deal(slots, mode, self._crew.shares(n))
        walk = functools.partial(self._walk_shard, (*rows, slots, events), scaled, records, out)
        self._crew.map([functools.partial(walk, shard) for shard in shards], n)
        records.walked(shards)

    def _walk_shard(
        self, rows: Any, scaled: Any, records: Records, out: tuple[F8, F8, F8], own: Shard
    ) -> None:
        """Walk the rows of one shard, which share nothing that is written with those of others."""
        d, K = records.layout[:2]
        least = True if self._model.least else None
        if scaled is not None:
            Z, given = scaled
            bank.scale_rows(
                rows, given, own.order, records.rows, bank.moments_at(1 + d, K), self._model.shape,
                Z, own.counters, own.undo,
            )  # fmt: skip
            rows = Z, *rows[1:]
        fixed = self._settings, np.empty(bank.work_size(1 + d, K)), np.empty(1 + d)
        walk = bank.walk_classes if self._classify else bank.walk_targets
        walk(rows, own.order, records.rows, fixed, own.counters, out, own.undo, least)

    def _parts(self, block: Block) -> list[tuple[int, int, bool]]:
        """The block cut where something may have to be evicted, by the bank's own count."""
        most = math.inf if self.max_keys is None else self.max_keys
        if self.max_age is None and self._records.n_keys + block.n <= most:
            return [(0, block.n, False)]
        every, count = _records.EVERY, int(self._records.counters[bank.COUNT])
        touched = block.mode & np.uint8(OBSERVE) != 0
        ends = np.flatnonzero(touched)[every - count % every - 1 :: every] + 1
        cuts = [0, *ends.tolist()]
        parts = [(a, b, True) for a, b in pairwise(cuts)]
        return parts if cuts[-1] == block.n else [*parts, (cuts[-1], block.n, False)]

    def load_kernels(self) -> None:
        """Those of the table of keys, which a walk needs where it grows and keys are evicted."""
        if isinstance(self._records, Records):
            self._records.load_kernels()

    def _age_due(self) -> int | None:
        """max_age where keys are to be looked at for it: at most eight times in as many rows."""
        if self.max_age is None:
            return None
        every = _records.EVERY
        stride = every * max(1, self.max_age // (8 * every))
        return self.max_age if self._records.counters[bank.COUNT] % stride == 0.0 else None

    def seen(self, block: Block, rows: I8) -> F8:
        """The features of these rows as the heads see them: scaled, and gaps filled, by keys."""
        X: F8 = block.X[rows]
        if self._model.scaler is None and not np.isnan(X).any():
            return X
        taken = self.snapshot()
        try:
            filled: F8 = self.run(block.replace(log_wanted=True))["log:X"][rows]
        finally:
            self.restore(taken)
        return filled

    # -- state -------------------------------------------------------------------------------------

    def _plain_parameters(self) -> dict[str, Json]:
        own = {n: v for n, v in super()._plain_parameters().items() if n != "device" or v != "cpu"}
        return own | {"model": self._model.plain}

    def snapshot(self) -> dict[str, Any]:
        """This moment, for `restore`: while it is held, a copy of each record that changes."""
        named = {"_features": self._features, "_labels": self._labels}
        return named | {"_records": self._records.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        self._features, self._labels = snapshot["_features"], snapshot["_labels"]
        self._records.restore(snapshot["_records"])

    def state(self) -> State:
        """Everything, evicted records too: keys_ (n,), records_ (n, stride), counters_ (4,)."""
        layout = self._layout(len(self._features), self._n_outputs)
        keys, records = self._records.whole(layout)
        evicted, cold = self._records.cold.whole(layout)
        arrays = {
            "keys_": keys, "records_": records, "evicted_keys_": evicted, "evicted_records_": cold,
            "counters_": self._records.counters[: bank.MARK].copy(),
        }  # fmt: skip
        return State(arrays, super().state().table)

    def shelve(self, shelf: Shelf) -> None:
        """Keep evicted records there from now on, and what checkpoints need of the others."""
        if isinstance(self._records, DeviceRecords):
            return  # evicts nothing; its checkpoints hold it whole
        self._saved = Saved(shelf)
        self._records.shelve(shelf)

    @property
    def _lasting(self) -> tuple[Saved, Records] | None:
        """What checkpoints leave records with; None without a shelf that outlives the process."""
        shelf, records = self._records.cold.shelf, self._records
        if shelf is None or shelf.private or isinstance(records, DeviceRecords):
            return None
        assert self._saved is not None  # both came with `shelve`
        return self._saved, records

    def kept_state(self) -> State:
        """As `state`, but for the records, which lie on the shelf; those that changed are written.

        Without a shelf, or on one that does not outlive the process, `state`.
        """
        if self._lasting is None:
            return self.state()
        saved, records = self._lasting
        files: Json = {"records": saved.write(records), "evicted": records.cold_names()}
        arrays = {"counters_": self._records.counters[: bank.MARK].copy()}
        return State(arrays, super().state().table | {"files": files})

    def _load_files(self, state: State, now: Layout) -> None:
        """Take over a state whose records lie on the shelf."""
        files: Any = state.table["files"]
        if self._lasting is None:
            raise ValueError(
                f"{type(self).__name__}: a state whose records lie in files must be loaded with "
                f"their folder, got none for {files['records'][0]}"
            )
        saved, records = self._lasting
        keys, rows = saved.open(files["records"], now)
        records.fill(now, keys, rows, state.arrays["counters_"])
        saved.loaded(records)
        records.cold.open(files["evicted"], now)
        records.cold.drop(keys)

    def load(self, state: State) -> None:
        """Take over what `state` or `kept_state` gave; refused if the parameters were others."""
        super().load(state)
        given, counters = state.arrays, state.arrays["counters_"]
        K = int(counters[bank.CLASSES]) if self._classify else 1
        then, now = (self._layout(len(self._features), k) for k in (K, max(K, 1)))
        if "files" in state.table:
            self._load_files(state, now)
            return
        rows = [relaid(given[name], then, now) for name in ("records_", "evicted_records_")]
        self._records.fill(now, given["keys_"], rows[0], counters)
        if len(rows[1]):
            self._records.cold.put(given["evicted_keys_"], rows[1], now)

    def reset(self) -> None:
        """Forget every key; the names of features and classes stay."""
        none: F8 = np.zeros((0, self._records.layout.stride))
        self._records.fill(
            self._records.layout, np.zeros(0, np.int64), none, np.zeros(bank.N_COUNTERS)
        )
        self._warned = False

    # -- dicts -------------------------------------------------------------------------------------

    def _block(self, x: Row, y: float, w: float, mode: int) -> Block:
        block = super()._block(x, y, w, mode)
        return block.replace(keys=np.array([self._key], dtype=object))

    def learn_one(self, x: Row, y: Any = None, w: float = 1.0, key: Any = None) -> None:
        """Learn from one event of a key, given as a dict; w is the weight of the sample, >= 0."""
        with self._about(key):
            super().learn_one(x, y, w)

    @contextmanager
    def _aware_of(self, x: Row) -> Iterator[None]:
        """As of every operator; for a name never learnt only the one record asked is widened."""
        whole = self._records
        if self._with_names_of(x) is self._features or not isinstance(whole, Records):
            with super()._aware_of(x):
                yield
            return
        self._records = whole.only(self._codes.one(self._key))
        try:
            with super()._aware_of(x):
                yield
        finally:
            self._records = whole

    @contextmanager
    def _about(self, key: Any) -> Iterator[None]:
        self._key = key
        try:
            yield
        finally:
            self._key = None


class KeyedClassifier(_Keyed, Classifier):
    """A classifier for every key: as many linear heads, on the same features, as there are keys.

    Model: each key (`Block.keys`; `key:` in YAML) has a `KalmanClassifier` of its own, with its own
    classes, drift, calibration and means of missing features, or an `AnalyticClassifier`: the same
    numbers, to the bit (but for rounding from 63 features on, where these delay their updates, and
    with lam < 1). A row without a key belongs to one model that all of them share. A class that a
    key has not had yet has probability 0 there. The row that brings a late label must have the key
    of its event.
    Args:
        model: the `KalmanClassifier` whose parameters all have, form "standard", groups "shared",
            evaluator "mean_field", no random features (`RVFLFeatures()` before it gives them all
            the same), or `AnalyticClassifier` without a window; or a `Pipeline` of `Normalizer()`
            and such a one: each key scales its features itself. Default: `KalmanClassifier()`.
        max_keys: keys in memory, >= 1, or None. Every 4,096 events, where there are more, those
            that were not seen for the longest are evicted, and an eighth of max_keys with them.
        max_age: events of the bank after which a key that was not seen is evicted, >= 1, or None;
            looked at eight times meanwhile, and not more often than every 4,096 events.
        evicted: "keep", and a key that comes back finds its model as it was, or "forget". A
            pipeline that runs with checkpoints keeps them in files, otherwise they are in memory.
        device: "cpu", or "cuda" for an NVIDIA GPU, with at most 32 features, max_keys and max_age
            None, no `Normalizer()` in `model`: for blocks of 100,000 events and more. An error
            where there is none. A snapshot copies all records, and `last_seen` counts rows.
    Outputs: `prediction` and `proba`, (n, K).
    State: keys_ (n,) int64, ascending, and records_ (n, stride) float64, in the order of
        `streamlearn.jit.bank`: about 8 (45 + K D + D^2 / 2 + 2 d) bytes a key, D = 1 + d; 24 d
        more where keys scale.
        evicted_keys_, evicted_records_: likewise. counters_ (4,): events, refused rows, lessons,
        classes. A key of text is known by 64 bits of its digest.
    Cost: O(D^2 + K D) time an event, no allocation in the kernel, a block's keys in threads where
        that pays (the bits are those of one); a snapshot costs a copy of the records that change
        while it is held, a new feature or class a copy of all.
    Raises: ValueError for a parameter out of range, another model, and a negative weight; TypeError
        for a key that is no integer, text or None.
    Reference: as `KalmanClassifier` and `AnalyticClassifier`.
    >>> model = KeyedClassifier()
    >>> for i in range(100):
    ...     model.learn_one({"a": i % 2 - 0.5}, "odd" if i % 2 else "even", key="one way")
    ...     model.learn_one({"a": i % 2 - 0.5}, "even" if i % 2 else "odd", key="the other")
    >>> model.predict_one({"a": 0.5}, key="one way"), model.predict_one({"a": 0.5}, key="the other")
    ('odd', 'even')
    """

    _classify = True

    def __init__(
        self,
        model: Operator | Any = None,
        max_keys: int | None = 1_000_000,
        max_age: int | None = None,
        evicted: str = "keep",
        device: str = "cpu",
    ) -> None:
        self.model = KalmanClassifier() if model is None else model
        self._model = key_model(
            type(self).__name__, self.model, KalmanClassifier, AnalyticClassifier
        )
        self._set_parameters(locals())

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield from super()._unit_test_params()
        yield {"model": AnalyticClassifier(lam=0.9)}

    def predict_one(self, x: Row, key: Any = None, **_: Any) -> Any:
        """The most probable class for a key, or None before it has any."""
        with self._about(key):
            return super().predict_one(x)

    def predict_proba_one(self, x: Row, key: Any = None, **_: Any) -> dict[Any, float]:
        """Probability of each known class for a key; empty before it has any."""
        with self._about(key):
            return super().predict_proba_one(x)


class KeyedRegressor(_Keyed, Regressor):
    """A linear regression for every key: as many as there are customers, devices or sensors.

    Model: each key has a `KalmanRegressor` of its own or an `AnalyticRegressor` (recursive least
    squares): the same numbers, to the bit, but for rounding with lam < 1. For keys, rows without
    one, late labels, eviction, arguments, state and cost see `KeyedClassifier`.
    Args:
        model: the `KalmanRegressor` or `AnalyticRegressor` (window None) whose parameters all have,
            or a `Pipeline` of `Normalizer()` and one of them; default: `KalmanRegressor()`.
        max_keys: keys in memory, >= 1, or None.
        max_age: events of the bank after which a key that was not seen is evicted, or None.
        evicted: "keep" or "forget".
        device: "cpu" or "cuda".
    Outputs: `prediction` and `variance`, (n,).
    Raises: ValueError for a parameter out of range, another model, a negative weight, and more than
        one target; TypeError for a key that is no integer, text or None.
    Reference: as `KalmanRegressor` and `AnalyticRegressor`.
    >>> model = KeyedRegressor()
    >>> for i in range(100):
    ...     model.learn_one({"a": i % 2 - 0.5}, 7.0 + i % 2, key=1)
    ...     model.learn_one({"a": i % 2 - 0.5}, -7.0, key=2)
    >>> [round(model.predict_one({"a": 0.5}, key=key), 2) for key in (1, 2)]
    [8.0, -7.0]
    >>> model.metrics(2)["lessons"]
    100.0
    """

    def __init__(
        self,
        model: Operator | Any = None,
        max_keys: int | None = 1_000_000,
        max_age: int | None = None,
        evicted: str = "keep",
        device: str = "cpu",
    ) -> None:
        self.model = KalmanRegressor() if model is None else model
        self._model = key_model(type(self).__name__, self.model, KalmanRegressor, AnalyticRegressor)
        self._set_parameters(locals())

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield from super()._unit_test_params()
        yield {"model": AnalyticRegressor(lam=0.9)}

    def predict_one(self, x: Row, key: Any = None, **_: Any) -> float:
        """The predicted target for a key; 0.0 before anything was learnt."""
        with self._about(key):
            return super().predict_one(x)
