"""Kalman heads that are experts of one ensemble, side by side on an NVIDIA GPU: one launch a block.

Not exported. `jit.cuda` is imported where a device is asked for, never before.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import F8, Block, Columns
from streamlearn.operators import _checks
from streamlearn.operators._on_device import DEVICES
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

HEADS = (KalmanClassifier, KalmanRegressor)
Raw = tuple[F8, ...]


class Experts:
    """Weights (J, K, D) and covariances (J, D, D) of J experts on the device.

    Each of them is a head that keeps its `Place` here where a lone one has its `DelayedHead`:
    state, snapshots and growth are the head's own. Nothing is pending: every row is folded at once.
    """

    def __init__(self, owner: str, J: int, classify: bool) -> None:
        from streamlearn.jit.cuda import _compile, delayed, experts, products

        _compile.require(owner)
        self._owner, self._device, self._classify = owner, _compile, classify
        self._sizes = delayed.ERRORS, delayed.WORK
        self._threads = products.THREADS
        self._walk = experts.walk_classes if classify else experts.walk_targets
        self.places: list[Place | None] = [None] * J
        self._state: tuple[Any, Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Experts":
        copied = Experts(self._owner, len(self.places), self._classify)
        memo[id(self)] = copied  # places enter themselves as they are copied
        return copied

    # -- what stands on the device -----------------------------------------------------------------

    def read(self, e: int) -> tuple[F8, F8]:
        """W and P of an expert that stands here."""
        assert self._state is not None
        W, P = (self._device.fetch(array[e]) for array in self._state)
        return W, P

    def _make_room(self, K: int, D: int) -> None:
        """Room for K outputs on D coordinates; who stands in another comes to the host before."""
        if self._state is not None and self._state[0].shape[1:] == (K, D):
            return
        for place in self.places:
            if place is not None:
                place.leave()
        self._state = None
        J, (errors, work) = len(self.places), self._sizes
        shapes = [
            (J, K, D), (J, D, D), (J, 2, D), (J, 1, errors + 2 * K), (J, work, K),
        ]  # fmt: skip
        made = self._device.reserve(self._owner, [(shape, np.float64) for shape in shapes])
        self._state, self._scratch, self._work = tuple(made[:2]), tuple(made[2:4]), made[4]

    def _enter(self, e: int, raw: Raw) -> None:
        assert self._state is not None
        for array, given in zip(self._state, raw[:2], strict=True):
            self._device.overwrite(array[e], given)

    # -- the walk ----------------------------------------------------------------------------------

    def make_ready(self, at: int, hosts: Sequence[Raw], rows: Any, settings: F8) -> "Ready":
        """All that a launch takes of the experts from `at` on; nothing is learnt yet.

        hosts: of each W, P (of the host, for who does not stand here yet), outputs and scalars |
        rows as `jit.cuda.experts` says | settings (J, N_SETTINGS). Raises: MemoryError.
        """
        (K, D), J, n = hosts[0][0].shape, len(hosts), rows[0].shape[1]
        outputs, s = (np.stack([host[i] for host in hosts]) for i in (2, 3))
        self._make_room(K, D)
        sides = (J, n, 1 if self._classify else K)
        sent = self._device.send(self._owner, *rows, outputs, s, settings)
        answers = self._device.reserve(
            self._owner, [((J, n, K), np.float64), (sides, np.float64)]
        )  # fmt: skip
        for e, host in enumerate(hosts, at):
            place = self.places[e]
            assert place is not None
            place.arrive(host)
        assert self._state is not None
        mine = slice(at, at + J)
        W, P, u, step, work = (a[mine] for a in (*self._state, *self._scratch, self._work))
        return Ready(
            (sent[:5], (W, P, sent[5], sent[6]), (sent[7], work), (u, step), tuple(answers)), hosts
        )

    def launch(self, ready: "Ready") -> None:
        """Walk. Raises: MemoryError before anything is learnt."""
        J = len(ready.hosts)
        self._device.launch(self._owner, self._walk, self._threads, ready.arguments, J)

    def answers(self, ready: "Ready") -> tuple[F8, F8]:
        """What was said, (J, n, K) and a side; outputs and scalars of the hosts are written to."""
        there = ready.arguments[1][2:]
        for j, host in enumerate(ready.hosts):
            host[2][...], host[3][...] = (self._device.fetch(array[j]) for array in there)
        answer, side = (self._device.fetch(array) for array in ready.arguments[4])
        return answer, side


class Ready(NamedTuple):
    """A launch that is ready: what the kernel takes, and the hosts of its experts."""

    arguments: tuple[Any, ...]
    hosts: Sequence[Raw]


class _Turn:
    """What a group of experts is to walk: lifted, so counted, when made; undone until answered."""

    def __init__(self, experts: Experts, members: Sequence[Any], blocks: Sequence[Block]) -> None:
        for member, block in zip(members, blocks, strict=True):
            member._admit(block)
        self._experts, self._pairs = experts, list(zip(members, blocks, strict=True))
        K = max(max(member._n_wanted(block), member._room) for member, block in self._pairs)
        self._seen = [m._seen(block, K) if block.log_wanted else {} for m, block in self._pairs]
        self._before = [(member.inputs_.copy(), member.scalars_.copy()) for member in members]
        lifted = [member._lift(block, K) for member, block in self._pairs]
        F = np.stack([rows[0] for rows in lifted[: 1 if self._alike() else None]])
        codes, weight = (np.stack([rows[i] for rows in lifted]) for i in (1, 3))
        self._rows = F, codes, lifted[0][2], weight, lifted[0][4]

    def _alike(self) -> bool:
        """Whether all have the same features."""
        X = self._pairs[0][1].X
        lifts = {
            (m.feature_norm2, m.random_scale, m.seed, m.sigma2 / m.sigma_w2) for m, _ in self._pairs
        }
        one = all(block.X is X for _, block in self._pairs)
        return one and len(lifts) == 1 and not np.isnan(X).any()

    def make_ready(self) -> None:
        """See `Experts.make_ready`."""
        settings = np.stack([member._settings for member, _ in self._pairs])
        hosts = [member._host() for member, _ in self._pairs]
        self._ready = self._experts.make_ready(0, hosts, self._rows, settings)

    def launch(self) -> None:
        """See `Experts.launch`."""
        self._experts.launch(self._ready)

    def undo(self) -> None:
        """The members are as they were before."""
        for (member, _), (inputs, scalars) in zip(self._pairs, self._before, strict=True):
            member.inputs_, member.scalars_ = inputs, scalars

    def answers(self) -> list[Columns]:
        """What each member has answered."""
        answer, side = self._experts.answers(self._ready)
        said = []
        for j, (member, block) in enumerate(self._pairs):
            member._fresh = False
            said.append(member._answered(block, (answer[j], side[j]), self._seen[j]))
        return said


class Crowd:
    """The members of an ensemble: groups of them stand on the device, each side by side in one
    launch a block; others run with the host.
    """

    def __init__(self, groups: Sequence[tuple[Experts, Sequence[int]]]) -> None:
        self._groups = groups

    def run(self, members: Sequence[Any], blocks: Sequence[Block]) -> list[Columns]:
        """What each member answers to a block of its own; all differ in X and weight alone.

        Raises: MemoryError; the members are then as before.
        """
        turns = [
            _Turn(experts, [members[j] for j in own], [blocks[j] for j in own])
            for experts, own in self._groups
        ]
        try:
            for turn in turns:
                turn.make_ready()
            for turn in turns:
                turn.launch()
        except MemoryError:
            for turn in turns:
                turn.undo()
            raise
        said: dict[int, Columns] = {}
        for (_, own), turn in zip(self._groups, turns, strict=True):
            said |= zip(own, turn.answers(), strict=True)
        return [
            said[j] if j in said else member.run(block)
            for j, (member, block) in enumerate(zip(members, blocks, strict=True))
        ]


class Place:
    """Where one expert stands; what a head asks of a `DelayedHead`."""

    pending = 0

    def __init__(self, experts: Experts, e: int) -> None:
        self._experts, self._e = experts, e
        experts.places[e] = self
        self.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Place":
        copied = Place(copy.deepcopy(self._experts, memo), self._e)
        copied._raw = self.fetched() if self.holds else None
        return copied

    _raw: Raw | None  # to be put there before the next walk

    @property
    def holds(self) -> bool:
        """Whether weights and covariance are kept here, and not with the host."""
        return self._there or self._raw is not None

    def take(self, raw: Raw) -> None:
        """Go on from raw arrays, which have nothing pending."""
        self._raw, self._there = tuple(array.copy() for array in raw), False

    def clear(self) -> None:
        """Nothing here: the host's arrays count."""
        self._raw, self._there = None, False

    def leave(self) -> None:
        """Off the device, where there is to be other room; what was there is kept."""
        if self._there:
            self._raw, self._there = self.fetched(), False

    def arrive(self, host: Raw) -> None:
        """Stand on the device: with what is kept, or else with the host's arrays."""
        if not self._there:
            self._experts._enter(self._e, self._raw or host)
            self._raw, self._there = None, True

    def fetched(self) -> Raw:
        """The raw arrays as `DelayedHead` has them, none of them pending."""
        if self._raw is not None:
            return self._raw
        W, P = self._experts.read(self._e)
        (K, D), none = W.shape, np.zeros((0, 0))
        return W, P, np.zeros((0, D)), np.zeros((0, D)), none, np.zeros((0, 4 + 2 * K))

    def now(self) -> tuple[F8, F8]:
        """W and P, (K, D) and (D, D)."""
        W, P = self.fetched()[:2]
        return W.copy(), P.copy()

    def widen(self, K: int) -> None:
        """Room for K outputs, those that are new with weights of 0."""
        W, *rest = self.fetched()
        self._raw, self._there = (_checks.padded(W, (K, W.shape[1])), *rest), False

    def walk(self, state: Raw, rows: Any, plan: Any, settings: F8, health: F8, out: Any) -> None:
        """Walk rows by this expert alone, as `DelayedHead.walk`; needs neither plan nor health."""
        F, codes, y, weight, mode = rows
        alone = F[None], codes[None], y, weight[None], mode
        ready = self._experts.make_ready(self._e, [state], alone, settings[None])
        self._experts.launch(ready)
        answer, side = self._experts.answers(ready)
        out[0][...], out[1][...] = answer[0], side[0]


def bag_on_device(owner: str, device: str, model: Any, n: int) -> tuple[list[Any], Crowd | None]:
    """n copies of a model, and where they stand if device is "cuda".

    Raises: ValueError for another device, and for a model that has no kernel for it; as
    `jit.cuda._compile.require` where there is none.
    """
    if _checks.choice(owner, "device", device, DEVICES) == "cpu":
        return [model.clone() for _ in range(n)], None
    if type(model) not in HEADS:
        raise ValueError(
            f"{owner}: model must be a KalmanClassifier or a KalmanRegressor with device='cuda', "
            f"got {type(model).__name__}; device='cpu' takes any"
        )
    return _placed(owner, [model] * n)


def experts_on_device(
    owner: str, device: str, models: Sequence[Any]
) -> tuple[list[Any], Crowd | None]:
    """These models, of device "cuda" untrained copies of the Kalman heads among them that stand
    there; others as they are. Raises: as `bag_on_device`; ValueError where there is no such head.
    """
    if _checks.choice(owner, "device", device, DEVICES) == "cpu":
        return list(models), None
    if not any(type(model) in HEADS for model in models):
        raise ValueError(
            f"{owner}: experts must have a KalmanClassifier or a KalmanRegressor among them with "
            f"device='cuda', got {', '.join(type(model).__name__ for model in models)}; "
            "device='cpu' takes any"
        )
    return _placed(owner, models)


def _placed(owner: str, models: Sequence[Any]) -> tuple[list[Any], Crowd]:
    """The models with each head on the device, beside those of its kind that are as wide."""
    kinds: dict[Any, list[int]] = {}
    for j, model in enumerate(models):
        if type(model) in HEADS:
            kinds.setdefault((type(model), model.random_features), []).append(j)
    members, groups = list(models), []
    for (kind, _), own in kinds.items():
        experts = Experts(owner, len(own), kind._classify)
        for e, j in enumerate(own):
            members[j] = models[j].clone({"device": "cuda"})
            members[j]._there = Place(experts, e)
        groups.append((experts, own))
    return members, Crowd(groups)
