"""Representation fine-tuning: a network trained online by the predictive loss of a Kalman head."""

import copy
import logging
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import (
    F8,
    I8,
    LEARN,
    PREDICT,
    Block,
    Columns,
    Features,
    concatenate,
)
from streamlearn.contracts import State, merged
from streamlearn.errors import UserError
from streamlearn.jit import kalman, lift
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.jit.representation import WORK_ROWS, density_slopes
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor
from streamlearn.operators._supervised import MAX_CLASSES, bad_weight, rows_of
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_log = logging.getLogger(__name__)
_MISSING = (
    "{} trains a torch network, and torch is not here; "
    'pip install "streamlearn[torch]" (or KalmanClassifier(random_features=100), without a network)'
)
_BUFFERS, _OPTIMISERS, _DEVICES = ("reservoir", "ring"), ("adam", "sgd"), ("cpu", "cuda")
_ARRAYS = ("inputs_", "scalars_", "pending_inputs_", "pending_slopes_", "replay_inputs_",
           "replay_labels_", "replay_weights_")  # fmt: skip


def _torch_room(owner: str) -> ModuleType:
    """The one file that imports torch, on first use."""
    try:
        from streamlearn.operators import _torch  # torch takes two seconds
    except ImportError as error:
        raise UserError(_MISSING.format(owner)) from error
    return _torch


class _TorchKalman(Operator):
    """What both families share: the network, the group that waits for its step, replay, the head.

    The network is fixed between two steps, and steps are due after every `group` labels learnt, by
    the operator's own count. So features, slopes and steps do not depend on how a stream is cut.
    """

    recalls_input = True
    cheap_snapshot = False
    _family: ClassVar[type[KalmanClassifier] | type[KalmanRegressor]]

    module: Any
    module_args: dict[str, Any] | None
    head: Any
    optimiser: str
    lr: float
    clip: float
    group: int
    replay: int
    memory: int
    buffer: str
    delta_min: float
    device: str
    seed: int
    balance: bool = False

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build; nothing without torch."""
        try:
            _torch_room(cls.__name__)
        except UserError:
            return
        yield {"module_args": {"hidden": [5]}, "group": 3}
        yield {"module_args": {"hidden": [4, 3]}, "group": 1, "optimiser": "sgd", "lr": 0.1,
               "replay": 2, "memory": 7}  # fmt: skip
        yield {"module_args": {"hidden": [4], "skip": False}, "group": 2, "replay": 3, "memory": 5,
               "buffer": "ring", "head": cls._family(form="sqrt")}  # fmt: skip

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters, and begin."""
        owner = type(self).__name__
        room = _torch_room(owner)
        self.module, self.module_args = given["module"], given["module_args"]
        self.head = self._checked_head(given["head"])
        self.optimiser = _checks.choice(owner, "optimiser", given["optimiser"], _OPTIMISERS)
        self.lr = _checks.not_negative(owner, "lr", given["lr"])
        self.clip = _checks.positive(owner, "clip", given["clip"])
        self.group = _checks.whole(owner, "group", given["group"], 1)
        self.replay = _checks.whole(owner, "replay", given["replay"], 0)
        self.memory = _checks.whole(owner, "memory", given["memory"], 1)
        self.buffer = _checks.choice(owner, "buffer", given["buffer"], _BUFFERS)
        limit = (self.head or self._family()).delta_max
        self.delta_min = _checks.between(owner, "delta_min", given["delta_min"], 0.0, limit)
        self.device = _checks.choice(owner, "device", given["device"], _DEVICES)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)
        room.check_device(owner, self.device)
        self._check_module(room)
        self._clear()

    def _checked_head(self, head: Any) -> Any:
        owner, family = type(self).__name__, self._family.__name__
        if head is None:
            return None
        shared = isinstance(head, self._family) and head.covariance_.ndim == 2
        if not shared or head.random_features > 0:
            raise ValueError(
                f"{owner}: head must be a {family} of one covariance without random features, "
                f"got {head!r}"
            )
        if getattr(head, "balance", False):
            raise ValueError(f"{owner}: head must leave balance to {owner}, got {head!r}")
        return head

    def _check_module(self, room: ModuleType) -> None:
        """What can be known of the module before a feature is seen."""
        owner = type(self).__name__
        if isinstance(self.module, str):
            room.factory_of(owner, self.module)
        elif self.module is not None and not callable(getattr(self.module, "state_dict", None)):
            raise ValueError(
                f"{owner}: module must be a torch.nn.Module, or the path package.module:factory of "
                f"what makes one, got {self.module!r}"
            )
        given = self.module_args
        names = given is None or (
            isinstance(given, dict) and all(isinstance(name, str) for name in given)
        )
        if not names:
            raise ValueError(f"{owner}: module_args must be `argument: value` pairs, got {given!r}")
        if given and self.module is not None and not isinstance(self.module, str):
            raise ValueError(f"{owner}: module_args must be for a module made here, got {given!r}")
        if self.module is None:
            self._try(room, given or {})

    def _try(self, room: ModuleType, arguments: dict[str, Any]) -> None:
        """The built-in network takes these arguments."""
        owner = type(self).__name__
        try:
            room.build(owner, None, arguments, 0, self.seed)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{owner}: module_args must fit the network: {error}") from None

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        head = self._default_head() if self.head is None else self.head.clone()
        self.head_: KalmanClassifier | KalmanRegressor = head
        self._trained: Any = None
        self._phi = Features(())
        self._width: int | None = None  # inputs that the module takes, once it has been asked
        self.inputs_ = np.zeros((2, 0))
        self.scalars_ = np.zeros(3)  # counters of `lift`
        self.pending_inputs_ = np.zeros((self.group, 0))
        self.pending_slopes_ = np.zeros((self.group, 0))
        kept = self.memory if self.replay else 0
        self.replay_inputs_ = np.zeros((kept, 0))
        self.replay_labels_ = np.zeros((kept, 0))
        self.replay_weights_ = np.zeros(kept)
        self.n_taught_ = 0
        self._work = np.zeros((0, 0))
        self.grow(Features(()))

    def _default_head(self) -> KalmanClassifier | KalmanRegressor:
        return self._family()

    # -- the network -------------------------------------------------------------------------------

    @property
    def network_(self) -> Any:
        """The torch module that is trained, or None before the first feature."""
        return None if self._trained is None else self._trained.module

    @property
    def n_steps_(self) -> int:
        """Steps that the network has made."""
        return 0 if self._trained is None else int(self._trained.steps)

    @property
    def n_skipped_(self) -> int:
        """Steps that were not made, as the gradient was not finite."""
        return 0 if self._trained is None else int(self._trained.skipped)

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN refused: infinities, bad labels, features too large for network or head.
        """  # fmt: skip
        refused = self.scalars_[lift.REJECTED] + self.scalars_[lift.REFUSED]
        return int(refused) + self.head_.n_rejected

    @property
    def n_imputed(self) -> int:
        """Missing values in rows with OBSERVE, filled with the running mean of their feature."""
        return int(self.scalars_[lift.IMPUTED])

    @property
    def delta_(self) -> float:
        """The drift rate of the head."""
        return self.head_.delta_

    def grow(self, features: Features) -> None:
        """Make the module, or let it make room; a module of one width refuses new features."""
        d = len(features)
        if d > 0 and d != self._width:
            self._open(features)  # refuses before anything is changed
        self.inputs_ = _checks.padded(self.inputs_, (2, d))
        self.pending_inputs_ = _checks.padded(self.pending_inputs_, (self.group, d))
        self.replay_inputs_ = _checks.padded(self.replay_inputs_, (len(self.replay_inputs_), d))

    def _open(self, features: Features) -> None:
        """A network for these features: made now, or the one there is with more room."""
        room, owner, d = _torch_room(type(self).__name__), type(self).__name__, len(features)
        trained = self._trained
        if trained is None:
            module = room.build(owner, self.module, self.module_args or {}, d, self.seed)
            rule = room.Rule(self.optimiser, self.lr, self.clip, self.device)
            trained = room.Trained(module, rule)
        elif not hasattr(trained.module, "grow"):
            raise ValueError(
                f"{owner}: module takes {self._width} features, got {d}; give it a method "
                f"grow(names), or name the features in the schema"
            )
        if hasattr(trained.module, "grow"):
            trained.grow(tuple(map(str, features.names)))
        self._widen_head(owner, trained, d)
        self._trained, self._width = trained, d

    def _widen_head(self, owner: str, trained: Any, d: int) -> None:
        """Ask the module how many numbers it makes of d inputs, and make room for them."""
        try:
            h = trained.width(d)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{owner}: module must take (1, {d}) numbers: {error}") from None
        more = [f"phi{j}" for j in range(len(self._phi), h)]
        self._phi = self._phi.plus(more, ["number"] * len(more))
        self.head_.meet(self._phi)
        self.pending_slopes_ = _checks.padded(self.pending_slopes_, (self.group, h))

    def inflate(self, factor: float) -> None:
        """Widen the head's covariance after a drift, as `KalmanClassifier.inflate`."""
        self.head_.inflate(factor)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        X, codes, filled = self._lift(block, self.inputs_, self.scalars_)
        kept = {"log:X": filled} if block.log_wanted else {}
        with _torch_room(type(self).__name__).repeatable(self.device):
            outputs = self._walk(block, X, codes)
        return outputs | kept

    def _lift(self, block: Block, inputs: F8, scalars: F8) -> tuple[F8, I8, F8]:
        """Rows with their gaps filled, codes of their labels, and what a late label would teach on.

        inputs and scalars are stepped. Raises: ValueError for a bad weight.
        """
        n, d = block.X.shape
        rows = rows_of(block)
        F, codes = np.empty((n, 1 + d)), np.empty(n, dtype=np.int64)
        settings = np.array([0.0, math.inf])  # no rescaling here, no limit
        room = MAX_CLASSES if self.task == "classification" else 0
        before = inputs.copy()
        bad = lift.lift_linear(rows, inputs, scalars, settings, np.zeros((0, 0)), F, codes, room)
        if bad >= 0:
            raise bad_weight(self, block, bad)
        X = np.ascontiguousarray(F[:, 1:])
        missing = np.isnan(rows[0])
        if not missing.any():
            return X, codes, rows[0]
        filled = np.empty_like(X)
        lift.fill_gaps(rows, before, codes, filled)
        stays = missing.all(axis=1) | (codes == lift.SKIP)
        return X, codes, np.where(stays[:, None], rows[0], filled)

    def seen(self, block: Block, rows: I8) -> F8:
        """The inputs of these rows with their gaps filled: the network of then has moved on."""
        X: F8 = block.X[rows]
        if not np.isnan(X).any():
            return X
        self._admit(block)
        filled: F8 = self._lift(block, self.inputs_.copy(), self.scalars_.copy())[2][rows]
        return filled

    def _walk(self, block: Block, X: F8, codes: I8) -> Columns:
        """Through the network row by row; the head takes rows that teach nothing together."""
        rows = self._rows_of_head(block, codes)
        parts: list[Columns] = []
        lengths, at = [], 0
        while at < block.n or not parts:
            stop = self._embed(at, X, codes, rows)
            if at < stop or not block.n:
                parts.append(self.head_.run(rows.rows(at, stop)))
                lengths.append(stop - at)
            if stop < block.n:
                parts.append(self._learn(stop, X, codes, rows))
                lengths.append(1)
            at = stop + 1
        return concatenate(parts, lengths)

    def _rows_of_head(self, block: Block, codes: I8) -> Block:
        """The block as the head is to see it, its features still to come.

        What was refused here asks and teaches nothing; what has nothing to learn has no label.
        """
        mode = block.mode & np.uint8(PREDICT | LEARN)
        mode[codes == lift.REJECT] &= np.uint8(PREDICT)
        mode[codes == lift.SKIP] = 0
        y = block.y.copy()
        y[codes < 0 if self.task == "classification" else codes != lift.TARGET] = np.nan
        phi = np.zeros((block.n, len(self._phi)))
        return Block(phi, y, block.weight.copy(), mode, self._phi, block.labels)

    def _embed(self, start: int, X: F8, codes: I8, rows: Block) -> int:
        """Features of the rows from `start` up to and including the next that trains the network.

        Returns its place, or the end.
        """
        for t in range(start, rows.n):
            if rows.mode[t] and self._trained is not None:
                phi = self._trained.features(X[t])
                if np.isfinite(phi).all():
                    rows.X[t] = phi
                else:
                    self.scalars_[lift.REFUSED] += 1.0 if rows.mode[t] & LEARN else 0.0
                    codes[t], rows.mode[t] = lift.SKIP, 0
            if self.lr > 0.0 and (codes[t] >= 0 or codes[t] == lift.TARGET):
                return t
        return rows.n

    def _learn(self, t: int, X: F8, codes: I8, rows: Block) -> Columns:
        """The head answers and learns one row; the slope of before, and after a group the step."""
        if self.balance:
            rows.weight[t] *= self._balance(int(codes[t]))
        row = rows.rows(t, t + 1)
        at = self.n_taught_ % self.group
        y = row.y if row.y.ndim == 2 else row.y[:, None]
        labels = (codes[t : t + 1], np.ascontiguousarray(y), row.weight)
        self._slopes(row.X, labels, self.pending_slopes_[at : at + 1])
        self.pending_inputs_[at] = X[t]
        if self.replay:
            self._keep(X[t], labels)
        outputs = self.head_.run(row)
        scalars = self.head_.scalars_
        scalars[kalman.DELTA] = max(scalars[kalman.DELTA], self.delta_min)
        self.n_taught_ += 1
        if self.n_taught_ % self.group == 0:
            self._step()
        return outputs

    def _balance(self, c: int) -> float:
        """N / (C n_c), this row counted."""
        seen = self.head_.outputs_[0]
        seen = np.concatenate([seen, np.zeros(max(0, c + 1 - seen.shape[0]))])
        seen[c] += 1.0
        return float(seen.sum() / (np.count_nonzero(seen) * seen[c]))

    def _slopes(self, phi: F8, labels: tuple[I8, F8, F8], out: F8) -> None:
        """d log p(y | past) / d phi of these rows, with the head as it stands."""
        head = self.head_
        outputs = np.ascontiguousarray(head.outputs_)
        covariance = head.covariance_
        wide = max(covariance.shape[0], outputs.shape[1])
        if self._work.shape[1] < wide:
            self._work = np.zeros((WORK_ROWS, wide))
        state = (head.means_, covariance, outputs, head.scalars_)
        density_slopes(phi, labels, state, head._settings, head.form == "sqrt", self._work, out)

    def _step(self) -> None:
        """One step of the network: the rows of the group, and rows of before."""
        X, taught = self.pending_inputs_, self.pending_slopes_
        drawn = self._drawn()
        if drawn.size:
            X = np.concatenate([X, self.replay_inputs_[drawn]])

        def slopes(phi: F8) -> F8:
            out = np.empty_like(phi)
            out[: self.group] = taught
            if drawn.size:
                y = np.ascontiguousarray(self.replay_labels_[drawn])
                classes = y[:, 0].astype(np.int64)
                codes = (
                    classes if self.task == "classification" else np.full_like(classes, lift.TARGET)
                )
                labels = (codes, y, self.replay_weights_[drawn])
                self._slopes(phi[self.group :], labels, out[self.group :])
            return out

        self._trained.step(X, slopes)
        self.pending_inputs_[:], self.pending_slopes_[:] = 0.0, 0.0

    # -- replay ------------------------------------------------------------------------------------

    def _keep(self, x: F8, labels: tuple[I8, F8, F8]) -> None:
        """Row n_taught_ of those learnt: into the ring, or by chance into the reservoir."""
        _, y, weight = labels
        place = self.n_taught_
        if place >= self.memory:
            draw = uniforms(key_of(self.seed, f"reservoir {place}"), 1)[0]
            place = int(draw * (place + 1)) if self.buffer == "reservoir" else place % self.memory
        if place < self.memory:
            self.replay_labels_ = _checks.padded(self.replay_labels_, (self.memory, y.shape[1]))
            self.replay_inputs_[place], self.replay_labels_[place] = x, y[0]
            self.replay_weights_[place] = weight[0]

    def _drawn(self) -> I8:
        """Places of the rows for this step, with repetition; by the count of labels alone."""
        there = min(self.n_taught_, self.memory)
        draws = uniforms(key_of(self.seed, f"replay {self.n_taught_}"), self.replay)
        return (draws * there).astype(np.int64)

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Copies of the arrays, the head's snapshot, and a deep copy of the network."""
        taken: dict[str, Any] = {name: getattr(self, name).copy() for name in _ARRAYS}
        for name in ("n_taught_", "_phi", "_width", "_features", "_labels"):
            taken[name] = getattr(self, name)
        return taken | {"head": self.head_.snapshot(), "_trained": copy.deepcopy(self._trained)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        for name, value in snapshot.items():
            if name == "head":
                self.head_.restore(value)
            else:
                named = name in ("_phi", "_features", "_labels")
                setattr(self, name, value if named else copy.deepcopy(value))

    def state(self) -> State:
        """Everything needed to go on bit-identically, as plain arrays and numbers."""
        table = super().state().table | {"n_taught": self.n_taught_}
        arrays = {name: getattr(self, name).copy() for name in _ARRAYS}
        if self._trained is not None:
            table |= {"steps": self._trained.steps, "skipped": self._trained.skipped}
            network = self._trained.arrays()
            arrays |= {f"network/{name}": array for name, array in network.items()}
        whole = merged({"head": self.head_.state()}, table)
        return State(whole.arrays | arrays, whole.table)

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; module and parameters must be the same."""
        super().load(state)
        for name in _ARRAYS:
            setattr(self, name, np.array(state.arrays[name]))
        self.n_taught_ = int(state.table["n_taught"])
        self.head_.load(state.under("head"))
        if self._trained is not None:
            start = "network/"
            found = {k[len(start) :]: a for k, a in state.arrays.items() if k.startswith(start)}
            self._trained.load(type(self).__name__, found)
            self._trained.steps = int(state.table["steps"])
            self._trained.skipped = int(state.table["skipped"])

    def reset(self) -> None:
        """Forget everything learnt; the names of features and classes stay."""
        self._clear()
        self.grow(self._features)

    @property
    def state_bytes(self) -> int:
        """Bytes of head, network, moments and replay rows."""
        own: int = sum(getattr(self, name).nbytes for name in _ARRAYS)
        network = {} if self._trained is None else self._trained.tensors()
        return own + self.head_.state_bytes + sum(int(t.nbytes) for t in network.values())


class TorchKalmanClassifier(_TorchKalman, Classifier):
    """A network under a Kalman head, trained online by the head's predictive log loss.

    Model: features phi(x) of a torch module, under the model of `KalmanClassifier` on (1, phi). The
    module climbs log p(y_n | past), with means and covariance of the head as they stood before the
    label: the slope of each row is taken then, in closed form, and one step along the mean slope is
    made after every `group` labels.
    Args:
        module: a `torch.nn.Module` from (n, d) to (n, h) numbers, of which a copy is trained; or
            "package.module:factory", called with `module_args` and, if it takes it, `n_inputs`; or
            None, a layer of tanh units beside the inputs, whose width comes from the data. It runs
            in evaluation mode: dropout does nothing, batch norm keeps its statistics.
        module_args: arguments of the factory. Of the built-in network: hidden ([64], units by
            layer), skip (True: the inputs are features too), scale (2, of the first weights).
        head: a `KalmanClassifier` with settings of its own; default: its defaults.
        optimiser: "adam" or "sgd".
        lr: step size, >= 0; 0 freezes the network: that is `KalmanClassifier` on its features.
        clip: largest norm of the mean slope of a group, > 0.
        group: labels between two steps, >= 1; 1 is one step a label.
        replay: rows of before that join each step, >= 0, drawn with repetition.
        memory: rows kept for replay, >= 1.
        buffer: which are kept: "reservoir" (any with the same chance) or "ring" (the last).
        delta_min: floor of the head's drift rate, in [0, its delta_max]; above 0 it lets go of what
            the covariance holds about the features of before (1e-4 was no gain where measured).
        balance: weigh rows of class c by N / (C n_c), n_c of N rows learnt being of it, C classes.
        device: "cpu" or "cuda"; an error where there is none.
        seed: of the built-in or made network, and of replay.
    State:
        network/…: parameters and buffers by name, Adam's moments, as numpy arrays; no pickle.
        head/…: of `head_`, a `KalmanClassifier` on phi.
        pending_inputs_ (group, d), pending_slopes_ (group, h): labels since the last step.
        replay_inputs_ (memory, d), replay_labels_ (memory, 1), replay_weights_ (memory,).
        inputs_ (2, d): weight seen and running mean of each feature, which fills gaps.
    Inputs should be of similar scale: put `Normalizer()` before it. Rows with an infinity, or of
    which the network makes one, are refused (`n_rejected`); a step with a slope that is not finite
    is not made (`n_skipped_`). A late label teaches on the inputs of then, through the network of
    now. A new feature gets weights of its own in the built-in network; a module without a method
    `grow(names)` refuses it.
    Cost: a forward pass and a call of the head a row, of Python's own 20 us; a forward and backward
        pass of (group + replay) rows a group; O(D^2 + K D) for the head, D = 1 + h.
    Raises: ValueError for a parameter out of range, a module that does not fit, a bad weight;
        UserError (a ValueError) without torch: pip install "streamlearn[torch]".
    Reference: Titsias et al. (2023), arXiv 2306.08448, section 3.
    >>> model = TorchKalmanClassifier()  # doctest: +SKIP
    >>> model.learn_one({"a": 1.0}, "spam")  # doctest: +SKIP
    >>> model.predict_one({"a": 1.0})  # doctest: +SKIP
    'spam'
    """

    _family = KalmanClassifier

    def __init__(
        self,
        module: Any = None,
        module_args: dict[str, Any] | None = None,
        head: Classifier | None = None,
        optimiser: str = "adam",
        lr: float = 0.01,
        clip: float = 1.0,
        group: int = 8,
        replay: int = 0,
        memory: int = 1000,
        buffer: str = "reservoir",
        delta_min: float = 0.0,
        balance: bool = False,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.balance = _checks.truth(type(self).__name__, "balance", balance)
        self._set_parameters(locals())


class TorchKalmanRegressor(_TorchKalman, Regressor):
    """A network under a Kalman head, trained online by the head's predictive density.

    Model, arguments, state and cost as `TorchKalmanClassifier`, with the head of `KalmanRegressor`
    and its Gaussian log density; y is (n,) or (n, q). Outputs `prediction` and `variance`.
    Args:
        head: a `KalmanRegressor` with settings of its own; default: one with `feature_norm2=10`.
    The first two labels, before which a residual has no unit, do not move the network.
    Raises: ValueError for a parameter out of range, a module that does not fit, a bad weight, a
        changed number of targets; UserError (a ValueError) without torch.
    Reference: Titsias et al. (2023), arXiv 2306.08448, section 3.
    >>> model = TorchKalmanRegressor()  # doctest: +SKIP
    >>> model.learn_one({"a": 1.0}, 2.0)  # doctest: +SKIP
    """

    _family = KalmanRegressor

    def _default_head(self) -> KalmanRegressor:
        """With features of one length, which the bounded units of a network are near to anyway."""
        return KalmanRegressor(feature_norm2=10.0)

    def __init__(
        self,
        module: Any = None,
        module_args: dict[str, Any] | None = None,
        head: Regressor | None = None,
        optimiser: str = "adam",
        lr: float = 0.01,
        clip: float = 1.0,
        group: int = 8,
        replay: int = 0,
        memory: int = 1000,
        buffer: str = "reservoir",
        delta_min: float = 0.0,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
