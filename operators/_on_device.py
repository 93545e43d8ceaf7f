"""Linear heads on an NVIDIA GPU: what their operators share, and what stands on the device.

Not exported. `jit.cuda` is imported where a device is asked for, never before.
"""

from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8
from streamlearn.contracts import State
from streamlearn.operators import _checks
from streamlearn.operators._base import Operator

DEVICES = ("cpu", "cuda")
RAW = ("anchor_weights_", "anchor_", "held_", "held_products_", "links_", "steps_")


class DelayedHead:
    """Weights and covariance of one head on the device, and the lessons not folded into them yet.

    Raw arrays, as `state` keeps them: W, P of the last fold | F and P f of the pending lessons |
    c of each at the others | their steps; see `jit.cuda.delayed`.
    """

    def __init__(self, owner: str, walker: str) -> None:
        from streamlearn.jit.cuda import _compile, delayed

        self._owner, self._device = owner, _compile
        self._delayed: Any = delayed
        self._walk = getattr(delayed, walker)
        self.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> "DelayedHead":
        copied = DelayedHead.__new__(DelayedHead)
        copied.__dict__ |= self.__dict__
        copied.raw = None if self.raw is None and self._W is None else self.fetched()
        copied._W = None
        return copied

    raw: tuple[F8, ...] | None  # to be put there before the next walk

    def take(self, raw: tuple[F8, ...]) -> None:
        """Go on from raw arrays."""
        self.clear()
        self.raw, self.pending = tuple(array.copy() for array in raw), raw[2].shape[0]

    def clear(self) -> None:
        """Nothing on the device: the host's arrays count."""
        self.raw = None
        self._W: Any = None
        self.pending = 0

    @property
    def holds(self) -> bool:
        """Whether weights and covariance stand here, and not with the host."""
        return self._W is not None or self.raw is not None

    def _place(self, W: F8, P: F8) -> None:
        """Put the raw arrays, or else these of the host, on the device; all or nothing."""
        if self._W is not None:
            return
        K, D = W.shape
        n = self._delayed.SLOTS
        shapes = [
            (K, D), (D, D), (2 * n, D), (2 * n, D), (n, 2 * n), (n, self._delayed.ERRORS + 2 * K),
            (n, D), (2 * n, n), (2 * n, n), (K, n), (3, n), (1,), (self._delayed.WORK, K),
        ]  # fmt: skip
        made = self._device.reserve(self._owner, [(shape, np.float64) for shape in shapes])
        for array in made[2:]:
            self._device.overwrite(array, np.zeros(array.shape))
        self._W, self._P, *held = made
        self._held, self._scratch, self._work = held[:4], held[4:10], held[10]
        W, P, *rest = self.raw or (W, P)
        self._device.overwrite(self._W, W)
        self._device.overwrite(self._P, P)
        for array, part in zip(self._held, rest, strict=False):
            whole = np.zeros(array.shape)
            whole[: part.shape[0], : part.shape[1]] = part
            self._device.overwrite(array, whole)
        self.raw = None

    def walk(
        self, state: tuple[F8, F8, F8, F8], rows: Any, plan: Any, settings: F8, health: F8, out: Any
    ) -> None:
        """Walk rows by a plan of `delayed.plan`: one launch. W and P are of the host, where nothing
        stands here yet; the two small arrays behind them and `out` are written to.
        """
        W, P, outputs, s = state
        (plan, pending), own = plan, self._device
        fresh, raw = self._W is None, self.raw
        sent = own.send(self._owner, *rows, *plan, outputs, s, settings, health, *out)
        self._place(W, P)
        n, m = len(rows), len(rows) + len(plan)
        outputs_, s_, settings_, health_ = sent[m : m + 4]
        try:
            own.launch(
                self._owner, self._walk, self._delayed.THREADS,
                (sent[:n], sent[n:m], (self._W, self._P, outputs_, s_), tuple(self._held),
                 tuple(self._scratch), (settings_, self._work, health_), sent[m + 4 :]),
            )  # fmt: skip
        except BaseException:
            if fresh:  # nothing was walked: what was put there counts as before
                self._W, self.raw = None, raw
            raise
        self.pending = pending
        for host, array in zip((outputs, s, *out), (outputs_, s_, *sent[m + 4 :]), strict=True):
            host[...] = own.fetch(array)

    def fetched(self) -> tuple[F8, ...]:
        """The raw arrays: W, P, F, U, C, steps, the last four cut to what is pending."""
        if self.raw is not None:
            return self.raw
        n = self.pending
        F, U, C, steps = (self._device.fetch(array)[:n] for array in self._held)
        return self._device.fetch(self._W), self._device.fetch(self._P), F, U, C[:, :n], steps

    def now(self) -> tuple[F8, F8]:
        """W and P with what is pending, (K, D) and (D, D); nothing is folded."""
        d = self._delayed
        W, P, F, U, C, steps = (array.copy() for array in self.fetched())
        Z, K = np.zeros(F.shape), W.shape[0]
        for s, step in enumerate(steps):
            u = U[s].copy()
            for q in range(s):
                u = steps[q, d.G2] * u + steps[q, d.FLOOR] * F[s] - C[q, s] * Z[q]
            z = Z[s] = step[d.ROOT] * (step[d.G2] * u + step[d.FLOOR] * F[s])
            W = step[d.SHRINK] * W + np.outer(step[d.ERRORS : d.ERRORS + K], z)
            W[:, 0] -= step[d.ERRORS + K :]
            P = step[d.G2] * P - np.outer(z, z) + step[d.FLOOR] * np.eye(P.shape[0])
        return W, P

    def widen(self, K: int) -> None:
        """Room for K outputs, those that are new with weights of 0; what is pending stays."""
        self.raw = narrowed(self.fetched(), K)
        self._W = None


def without_cpu(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters without a `device` that is the CPU, as states had them before."""
    return {name: value for name, value in given.items() if name != "device" or value != "cpu"}


def narrowed(raw: tuple[F8, ...], K: int) -> tuple[F8, ...]:
    """Raw arrays with K outputs: some may be cut off, or come with weights of 0."""
    W, P, F, U, C, steps = raw
    kept, old = min(K, W.shape[0]), W.shape[0]
    first = steps.shape[1] - 2 * old
    moves = first + old
    other = np.zeros((steps.shape[0], first + 2 * K))
    other[:, : first + kept] = steps[:, : first + kept]
    other[:, first + K : first + K + kept] = steps[:, moves : moves + kept]
    return _checks.padded(W[:kept], (K, W.shape[1])), P, F, U, C, other


class OnDevice(Operator):
    """A linear head that may stand on the device: `device` chooses once and for all.

    A subclass gives `_host`, `_health` and `_head_names`, and calls `_walk_there` instead of its
    kernel where `_there` is not None. Its own weights and covariance are then what was last read.
    """

    device: str = "cpu"
    _there: DelayedHead | None = None
    _fresh: bool = True  # whether the host's weights and covariance are those of now
    _settings: F8
    _head_names: ClassVar[tuple[str, str]]  # of weights and covariance, as attributes
    _walker_names: ClassVar[tuple[str, str]]  # of the device's walkers for classes and for targets
    _classify: ClassVar[bool] = False

    def _choose_device(self, device: str) -> None:
        """Check and keep `device`; an error where there is none. Call it first of all."""
        owner = type(self).__name__
        self.device = _checks.choice(owner, "device", device, DEVICES)
        if device != "cuda":
            return
        from streamlearn.jit.cuda import _compile

        _compile.require(owner)
        self._there = DelayedHead(owner, self._walker_names[0 if self._classify else 1])
        taken = {name.strip("_") + "_" for name in self._head_names}
        self._arrays = tuple(n for n in type(self)._arrays if n not in taken)  # type: ignore[misc]

    def _host(self) -> tuple[F8, F8, F8, F8]:
        """The host's weights, covariance, outputs and scalars, as kernels take them."""
        raise NotImplementedError(f"{type(self).__name__} has no _host")

    def _health(self) -> F8:
        """What a sound diagonal is, and how another is mended; see `jit.cuda.delayed`."""
        raise NotImplementedError(f"{type(self).__name__} has no _health")

    # -- the walk ----------------------------------------------------------------------------------

    def _walk_there(self, rows: Any, lesson: Any, units: I8 | None, out: Any) -> None:
        """Walk rows whose features are ready; lesson (n,) bool says which teach."""
        from streamlearn.jit.cuda import delayed

        assert self._there is not None
        plan = delayed.plan(lesson, units, self._there.pending)
        self._there.walk(self._host(), rows, plan, self._settings, self._health(), out)
        self._fresh = False

    def _open_outputs(self, K: int) -> None:
        """Room for K outputs, on the device too."""
        if self._there is not None and self._there.holds:
            self._there.widen(K)

    def _refresh(self) -> None:
        """The host's weights and covariance as they are now; what is pending stays so."""
        if self._fresh or self._there is None:
            return
        self._fresh = True
        for name, value in zip(self._head_names, self._there.now(), strict=True):
            setattr(self, name, value)

    def _come_home(self) -> None:
        """Fold what is pending and take all back to the host, for what is done there at a row."""
        there = self._there
        if there is None or not there.holds:
            return
        if there.pending:
            from streamlearn.jit.cuda import delayed

            W = self._host()[0]
            K, q = W.shape[0], 1 if self._classify else W.shape[0]
            none = np.zeros(0, np.int64), np.zeros((0, q)), np.zeros(0), np.zeros(0, np.uint8)
            rows = (np.zeros((0, W.shape[1])), *none)
            plan = delayed.fold_only(there.pending), 0
            out = np.zeros((0, K)), np.zeros((0, q))
            there.walk(self._host(), rows, plan, self._settings, self._health(), out)
        self._fresh = False
        self._refresh()
        there.clear()

    def _stay_home(self) -> None:
        """Drop what stands on the device: the host begins anew."""
        if self._there is not None:
            self._there.clear()
        self._fresh = True

    # -- state -------------------------------------------------------------------------------------

    def _raw(self) -> tuple[F8, ...]:
        """The raw arrays of the head; on the host they are weights and covariance alone."""
        assert self._there is not None
        if self._there.holds:
            return self._there.fetched()
        W, P = (array.copy() for array in self._host()[:2])
        K, D = W.shape
        return W, P, np.zeros((0, D)), np.zeros((0, D)), np.zeros((0, 0)), np.zeros((0, 4 + 2 * K))

    def _take(self, raw: tuple[F8, ...]) -> None:
        """Go on from raw arrays, which are put on the device before the next walk."""
        assert self._there is not None
        raw = narrowed(raw, self._host()[2].shape[1])  # outputs are those that are known
        self._there.take(raw)
        self._fresh = False
        for name, value in zip(self._head_names, raw[:2], strict=True):
            setattr(self, name, value)  # of the right shape

    def snapshot(self) -> dict[str, Any]:
        """A copy of all that learning changes, for `restore` within this process."""
        taken = super().snapshot()
        return taken if self._there is None else taken | {"raw": self._raw()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore({name: value for name, value in snapshot.items() if name != "raw"})
        if self._there is not None:
            self._take(snapshot["raw"])

    def state(self) -> State:
        """Everything needed to go on bit-identically: of a head on the device its raw arrays."""
        state = super().state()
        if self._there is None:
            return state
        raw = narrowed(self._raw(), state.arrays["outputs_"].shape[1])
        return State(state.arrays | dict(zip(RAW, raw, strict=True)), state.table)

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; refused if the parameters were others."""
        if self._there is not None:
            self._there.clear()
        super().load(state)
        if self._there is not None:
            self._take(tuple(np.array(state.arrays[name]) for name in RAW))

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays that make up the state, those on the device among them."""
        if self._there is None:
            return super().state_bytes
        (K, D), n = self._host()[0].shape, self._there.pending
        numbers: int = K * D + D * D + n * (2 * D + n + 4 + 2 * K)
        return super().state_bytes + 8 * numbers

    def reset(self) -> None:
        """Forget everything learnt; the names of features and classes stay."""
        super().reset()
        if self._there is not None:
            fresh = self.clone()
            fresh.meet(self._features)
            self._there.clear()
            self._fresh = True
            for name in self._head_names:
                setattr(self, name, getattr(fresh, name))

    def _plain_parameters(self) -> dict[str, Any]:
        """Without `device` where it is the CPU: states from before it are still read."""
        return without_cpu(super()._plain_parameters())
