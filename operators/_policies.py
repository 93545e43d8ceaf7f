"""What may be done at an alarm, by name, with arguments; and what is kept to learn from again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamlearn.block import B1, F8, LEARN, Block, Features, Logged, Vocabulary
from streamlearn.operators import _checks

_ARGUMENTS: dict[str, dict[str, float]] = {  # of each policy, by its name, with the defaults
    "notify": {},
    "reset": {},
    "inflate": {"factor": 10.0},
    "forget": {"memory": 50, "rows": 200},
    "background": {},
    "replay": {"rows": 200, "times": 1},
}
POLICIES = tuple(_ARGUMENTS)
_HUGE = 1e100  # sums of squares of larger errors are infinite
Policy = str | Sequence[Any] | Mapping[str, Any]
Actions = dict[str, dict[str, float]]  # arguments by the name of a policy, in their order


def actions(owner: str, policy: Any, factor: float) -> Actions:
    """What a policy says is to be done at an alarm.

    policy: a name, `{name: {argument: value}}`, or a list of these. factor: default of `inflate`.
    Raises: ValueError naming the place, the rule and the value.
    """
    found: Actions = {}
    for place, name, given in _named(owner, policy):
        _checks.choice(owner, place, name, POLICIES)
        if name in found:
            raise ValueError(f"{owner}: {place} must not come twice, got {name!r} again")
        found[name] = _arguments(owner, place, name, given, factor)
    if not found:
        raise ValueError(f"{owner}: policy must name one of {', '.join(POLICIES)}, got {policy!r}")
    others = {"notify": found.keys() - {"notify"}, "reset": found.keys() & {"background"}}
    for alone, beside in others.items():
        if alone in found and beside:
            why = "it does nothing" if alone == "notify" else "both begin anew"
            raise ValueError(
                f"{owner}: policy must not have {alone} beside {', '.join(sorted(beside))}, "
                f"for {why}, got {policy!r}"
            )
    return found


def _named(owner: str, policy: Any) -> list[tuple[str, Any, Any]]:
    """Each policy with its place, its name and its arguments."""
    if isinstance(policy, Mapping):
        return [(f"policy[{name}]", name, given) for name, given in policy.items()]
    if isinstance(policy, str) or not isinstance(policy, Sequence):
        return [("policy", policy, None)]
    found: list[tuple[str, Any, Any]] = []
    for i, one in enumerate(policy):
        if isinstance(one, Mapping) and len(one) == 1:
            found.extend((f"policy[{i}]", name, given) for name, given in one.items())
        elif isinstance(one, str):
            found.append((f"policy[{i}]", one, None))
        else:
            raise ValueError(
                f"{owner}: policy[{i}] must be a name or {{name: arguments}}, got {one!r}"
            )
    return found


def _arguments(owner: str, place: str, name: str, given: Any, factor: float) -> dict[str, float]:
    """The arguments of one policy, checked, with the defaults."""
    known = _ARGUMENTS[name] | ({"factor": factor} if name == "inflate" else {})
    if not isinstance(given, Mapping | None):
        raise ValueError(f"{owner}: {place} must have `argument: value` pairs, got {given!r}")
    ready = dict(known)
    for argument, value in (given or {}).items():
        if argument not in known:
            there = f"there are: {', '.join(known)}" if known else "there are none"
            raise ValueError(f"{owner}: {place} has no argument {argument!r}; {there}")
        where = f"{place}.{argument}"
        if argument in ("rows", "times"):
            ready[argument] = _checks.whole(owner, where, value, 1)
        elif _checks.number(owner, where, value) <= 1.0:
            raise ValueError(f"{owner}: {where} must be > 1, got {value!r}")
        else:
            ready[argument] = float(value)
    return ready


def taught(block: Block) -> B1:
    """The rows that teach: LEARN, with a label and a weight, (n,)."""
    known = np.isfinite(block.y) if block.y.ndim == 1 else np.isfinite(block.y).all(axis=1)
    return np.asarray((block.mode & LEARN != 0) & (block.weight > 0.0) & known)


class Recent:
    """The last rows that taught something, with the features that they taught on.

    A late label stands there with the features of when its event was scored. Memory: twice `size`
    rows. State: X (m, d), y (m,) or (m, q), weight (m,), value (m,), what the detector was fed;
    m <= size.
    """

    def __init__(self, size: int, takes_nan: bool) -> None:
        self.size, self.takes_nan = size, takes_nan
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        none = np.zeros(0)
        self._held: tuple[F8, F8, F8, F8] = np.zeros((0, 0)), none, none, none
        self._n = 0

    def add(self, block: Block, values: F8) -> None:
        """Take the rows of a block that teach; values (n,): what the detector was fed."""
        rows = np.flatnonzero(taught(block))[-self.size :]
        if not len(rows):
            return
        X, fed = self._filled(block.X[rows], block.d), np.nan_to_num(values[rows])
        self.append((X, block.y[rows], block.weight[rows], fed))

    def append(self, rows: tuple[F8, F8, F8, F8]) -> None:
        """Take the last `size` rows of columns such as `columns` gives."""
        X, y, weight, value = (column[-self.size :] for column in rows)
        if self._n + len(weight) > len(self._held[2]) or self._held[0].shape[1] < X.shape[1]:
            self._make_room(X.shape[1], y.shape[1:])
        X = self._filled(X, self._held[0].shape[1])
        for kept, column in zip(self._held, (X, y, weight, value), strict=True):
            kept[self._n : self._n + len(weight)] = column
        self._n += len(weight)

    def reserve(self, block: Block) -> None:
        """Have the room for rows of such a block, and their width, before there are any."""
        if not len(self._held[2]) or self._held[0].shape[1] < block.d:
            self._make_room(block.d, block.y.shape[1:])

    def _make_room(self, d: int, targets: tuple[int, ...]) -> None:
        """Keep the last `size` rows alone, before as many that are free, d wide."""
        X, y, weight, value = self.columns()
        room, d = 2 * self.size, max(d, X.shape[1])
        self._held = (
            np.zeros((room, d)), np.zeros((room, *targets)), np.zeros(room), np.zeros(room),
        )  # fmt: skip
        self._n = len(weight)
        old = self._filled(X, d), y.reshape(self._n, *targets), weight, value
        for kept, column in zip(self._held, old, strict=True):
            kept[: self._n] = column

    def _filled(self, X: F8, d: int) -> F8:
        """X in the width of now: a feature that did not exist then is missing, or 0."""
        wide = np.full((X.shape[0], d), np.nan)
        wide[:, : X.shape[1]] = X
        return wide if self.takes_nan else np.nan_to_num(wide, nan=0.0)

    def columns(self) -> tuple[F8, F8, F8, F8]:
        """X, y, weight, value of the last `size` rows, oldest first."""
        kept = slice(max(self._n - self.size, 0), self._n)
        X, y, weight, value = self._held
        return X[kept], y[kept], weight[kept], value[kept]

    def last(self, n: int) -> tuple[F8, F8, F8, F8]:
        """Columns of the last n rows."""
        return self._cut(slice(max(len(self) - n, 0), None))

    def but(self, n: int) -> tuple[F8, F8, F8, F8]:
        """Columns of all rows but the last n."""
        return self._cut(slice(0, max(len(self) - n, 0)))

    def _cut(self, rows: slice) -> tuple[F8, F8, F8, F8]:
        X, y, weight, value = self.columns()
        return X[rows], y[rows], weight[rows], value[rows]

    def put(self, X: F8, y: F8, weight: F8, value: F8) -> None:
        """Take over what `columns` gave."""
        self._held = np.array(X), np.array(y), np.array(weight), np.array(value)
        self._n = len(weight)

    def __len__(self) -> int:
        return min(self._n, self.size)

    def block(self, n: int, mode: int, features: Features, labels: Vocabulary | None) -> Block:
        """The last n rows, all of one mode, as rows whose events nobody has to look for."""
        X, y, weight, _ = self.last(n)
        modes = np.full(len(weight), mode, dtype=np.uint8)
        X = self._filled(X, len(features))
        return Block(X, y, weight, modes, features, labels, logged=Logged({}, {}))

    def since_change(self) -> int:
        """How many of the rows came after the likeliest change of the mean of `value`: least
        squares with one step. All of them where nothing changed."""
        value = self.columns()[3]
        n = len(value)
        if n < 2:
            return n
        if (top := np.abs(value).max()) > _HUGE:
            value = value / top
        after = np.arange(n - 1, 0, -1)
        centred = value - value.mean()
        sums = np.cumsum(centred[::-1])[::-1][1:]  # of the rows from 1, 2, … on
        gain = sums * sums * n / (after * (n - after))
        return int(after[gain.argmax()]) if gain.max() > 0.0 else n

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return sum(column.nbytes for column in self.columns())

    @property
    def room(self) -> int:
        """Bytes of the rows and of the room for more."""
        return sum(column.nbytes for column in self._held)
