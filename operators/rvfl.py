"""Lite-RVFL: a ridge read-out that forgets, on the inputs and on random features of them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, LEARN, Block, Columns, Features
from streamlearn.jit import lift, rvfl
from streamlearn.jit import random_features as activations
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.operators._least_squares import LeastSquares, plain, rows_of

_ACTIVATIONS = {
    "sigmoid": activations.SIGMOID, "tanh": activations.TANH, "relu": activations.RELU,
    "identity": activations.IDENTITY,
}  # fmt: skip


class _Draws:
    """Standard normal draws of biases and weights, a row for each feature name, kept by name.

    A row depends on (seed, feature name) alone, so the order of features does not matter.
    """

    def __init__(self, seed: int, m: int) -> None:
        self._seed, self._m = seed, m
        self._rows: dict[Any, F8] = {}
        self._made: tuple[Any, ...] = ()
        self._W: F8 = np.zeros((1, m))

    def weights(self, features: Features, scale: float) -> F8:
        """Biases (row 0) and weights, (1 + d, m), of this standard deviation."""
        if self._made and self._made[0] is features and self._made[1] == scale:
            return self._W
        if not self._rows:
            self._rows = {None: normals(key_of(self._seed, "bias"), self._m)}
        names = [None, *features.names]
        self._rows = {
            name: self._rows[name]
            if name in self._rows
            else normals(key_of(self._seed, f"feature {name}"), self._m)
            for name in names
        }
        self._W = scale * np.array([self._rows[name] for name in names])
        self._made = (features, scale)
        return self._W


class _Nodes:
    """Parameters of the random nodes, which the head and the transformer share."""

    hidden: int
    node_scale: float
    width_: int

    def _set_nodes(self, owner: str, given: dict[str, Any]) -> None:
        """Check and keep them; the settings vector of the kernels."""
        self.hidden = _checks.whole(owner, "hidden", given["hidden"], 0)
        self.activation = _checks.choice(owner, "activation", given["activation"], _ACTIVATIONS)
        self.warm_up = _checks.whole(owner, "warm_up", given["warm_up"], 2)
        self.node_scale = _checks.positive(owner, "node_scale", given["node_scale"])
        self.eps_std = _checks.not_negative(owner, "eps_std", given["eps_std"])
        self.clip = _checks.positive(owner, "clip", given["clip"])
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)
        self._shape = np.array(
            [self.clip, self.eps_std, self.warm_up, _ACTIVATIONS[self.activation]], dtype=np.float64
        )
        self._draws = _Draws(self.seed, self.hidden)
        self._scratch = np.zeros((1, self.hidden))
        self.width_ = 0

    def _nodes(self, inputs: F8, features: Features) -> tuple[F8, F8, F8]:
        """Inputs, weights of the nodes, scratch: what the kernels take."""
        scale = self.node_scale / np.sqrt(max(self.width_, 1))
        return inputs, self._draws.weights(features, float(scale)), self._scratch


class _LiteRVFL(_Nodes, LeastSquares):
    """What classifier and regressor share: the warm-up, the nodes, the leaky head on top."""

    _arrays = (*LeastSquares._arrays, "buffer_", "lessons_")
    _counters: ClassVar[tuple[str, ...]] = ("width_",)
    _inputs_rows = 5
    memory: float | None

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"hidden": 7, "warm_up": 8, "activation": "relu", "memory": 20.0, "seed": 3}
        yield {"hidden": 0, "warm_up": 3, "leaky": False, "memory": None, "eps_std": 0.0}

    def _set_head(self, given: dict[str, Any]) -> None:
        owner = type(self).__name__
        self._set_nodes(owner, given)
        memory = given["memory"]
        self.memory = None if memory is None else _checks.number(owner, "memory", memory)
        if self.memory is not None and self.memory <= 1.0:
            raise ValueError(f"{owner}: memory must be > 1 or null, got {memory!r}")
        self.ridge = _checks.positive(owner, "ridge", given["ridge"])
        self.leaky = _checks.truth(owner, "leaky", given["leaky"])
        self._begin(self._lam, self.leaky)

    @property
    def _lam(self) -> float:
        """The factor by which the weight of a lesson fades with each that follows."""
        return 1.0 if self.memory is None else 1.0 - 1.0 / self.memory

    @property
    def _first_variance(self) -> float:
        return self._lam / self.ridge  # so that the first lesson meets the ridge itself

    def _clear(self) -> None:
        super()._clear()
        self._buffer, self._lessons = np.zeros((0, 0)), np.zeros((0, 2))
        self._lifted = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
        self.width_ = 0

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_kept(self) -> int:
        """Lessons of the warm-up, which are kept until it is over."""
        return self.n_samples_ if self.n_samples_ < self.warm_up else 0

    @property
    def buffer_(self) -> F8:
        """(n, d) the inputs of the lessons so far, within the warm-up; empty after it."""
        return self._buffer[: self._n_kept]

    @buffer_.setter
    def buffer_(self, value: F8) -> None:
        self._buffer = np.ascontiguousarray(value)

    @property
    def lessons_(self) -> F8:
        """(n, 1 + q) their weights and labels."""
        return self._lessons[: self._n_kept]

    @lessons_.setter
    def lessons_(self, value: F8) -> None:
        self._lessons = np.ascontiguousarray(value)

    def _n_columns(self, d: int) -> int:
        return 1 + self.hidden + d

    def grow(self, features: Features) -> None:
        """Room for features, which count once they have an eighth of `warm_up` values."""
        super().grow(features)
        self._buffer = _checks.padded(
            self._buffer, (self._buffer.shape[0], len(features)), fill=np.nan
        )

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        K = self._n_wanted(block)
        self._widen(K)
        rows = rows_of(block)
        if self.n_samples_ >= self.warm_up:
            answer, side, _ = self._walk_on(block, rows, 0, K)
        else:
            answer, side = self._warm_walk(block, rows, K)
        if not self._warned:
            self._warn()
        return self._outputs_of(block, answer, side)

    def _walk_on(self, block: Block, rows: Any, start: int, K: int) -> tuple[F8, F8, int]:
        """From row start on, as far as the scaler stands: answers, and where to go on."""
        F, codes = self._room_for(block.n)
        nodes = self._nodes(self.inputs_, self._features)
        room = self._weights.shape[0] if self._classify else 0
        kept = (self._buffer, self._lessons)
        lifted = (F, codes)
        stop = rvfl.lift_nodes(start, rows, nodes, kept, self.scalars_, self._shape, lifted, room)
        if stop < 0:
            raise self._refuse_weight(block, -1 - stop)
        part = slice(start, stop)
        answer, side = self._teach(F[part], codes[part], *(column[part] for column in rows[1:]))
        return answer, side, stop

    def _room_for(self, n: int) -> tuple[F8, I8]:
        F, codes = self._lifted
        D = self.inverse_.shape[0]
        if F.shape != (n, D):
            F, codes = np.empty((n, D)), np.empty(n, dtype=np.int64)
            if n == 1:  # kept where two allocations cost as much as the walk, not beyond
                self._lifted = F, codes
        return F, codes

    def _warm_walk(self, block: Block, rows: Any, K: int) -> tuple[F8, F8]:
        """Within the warm-up, anew after every part of it that is completed."""
        q = rows[1].shape[1]
        self._buffer = _checks.padded(self._buffer, (self.warm_up, block.d), fill=np.nan)
        self._lessons = _checks.padded(self._lessons, (self.warm_up, 1 + q))
        answers, sides, start = [], [], 0
        while start < block.n:
            before = self.n_samples_
            answer, side, start = self._walk_on(block, rows, start, K)
            answers.append(answer)
            sides.append(side)
            if before < self.n_samples_ <= self.warm_up and self._is_due():
                self._begin_anew(self._weights.shape[0])
        if self.n_samples_ >= self.warm_up:
            self._buffer, self._lessons = np.zeros((0, block.d)), np.zeros((0, 1 + q))
        if not answers:
            return np.empty((0, self._weights.shape[0])), np.empty((0, 1 if self._classify else K))
        return np.concatenate(answers), np.concatenate(sides)

    def _is_due(self) -> bool:
        return bool(rvfl.completes(float(self.n_samples_), self._shape))

    def _begin_anew(self, K: int) -> None:
        """Fix the scaler by the lessons so far, and learn them again with it."""
        n = self.n_samples_
        X, lessons = self._buffer[:n], self._lessons[:n]
        self.width_ = X.shape[1]
        F = np.empty((n, self.inverse_.shape[0]))
        rvfl.lift_again(X, self._nodes(self.inputs_, self._features), self._shape, F)
        self._untaught(F.shape[1])
        self._widen(K)
        codes = np.full(n, lift.TARGET)
        if self._classify:
            codes = lessons[:, 1].astype(np.int64)
        mode = np.full(n, LEARN, dtype=np.uint8)
        self._teach(F, codes, plain(lessons[:, 1:]), plain(lessons[:, 0]), mode)


class LiteRVFLClassifier(_LiteRVFL, Classifier):
    """placeholder"""

    _classify = True

    def __init__(
        self,
        hidden: int = 100,
        memory: float | None = 250.0,
        ridge: float = 1.0,
        activation: str = "sigmoid",
        warm_up: int = 200,
        node_scale: float = 2.0,
        leaky: bool = True,
        probabilities: str = "scaled",
        alpha0: float = 4.0,
        lr_alpha: float = 0.02,
        balance: bool = False,
        eps_std: float = 0.01,
        clip: float = 10.0,
        seed: int = 0,
    ) -> None:
        given = locals()
        self._set_answers(given)
        self._set_head(given)


class LiteRVFLRegressor(_LiteRVFL, Regressor):
    """placeholder"""

    def __init__(
        self,
        hidden: int = 100,
        memory: float | None = 250.0,
        ridge: float = 1.0,
        activation: str = "sigmoid",
        warm_up: int = 200,
        node_scale: float = 2.0,
        leaky: bool = True,
        eps_std: float = 0.01,
        clip: float = 10.0,
        seed: int = 0,
    ) -> None:
        self._set_head(locals())
