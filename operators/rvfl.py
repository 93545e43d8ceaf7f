"""Lite-RVFL: a ridge read-out that forgets, on the inputs and on random features of them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from river import base

from streamlearn.block import BOOLEAN, F8, LEARN, NUMBER, Block, Columns, Features
from streamlearn.jit import lift, rls, rvfl
from streamlearn.jit import random_features as activations
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor, Transformer
from streamlearn.operators._least_squares import LeastSquares
from streamlearn.operators._supervised import bad_weight, cut, plain, rows_of

_ACTIVATIONS = {
    "sigmoid": activations.SIGMOID, "tanh": activations.TANH, "relu": activations.RELU,
    "identity": activations.IDENTITY,
}  # fmt: skip

_MOST_HIDDEN = 10_000  # the inverse of a head on as many has 800 MB


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
        if self.hidden > _MOST_HIDDEN:
            raise ValueError(f"{owner}: hidden must be <= {_MOST_HIDDEN}, got {self.hidden}")
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
        self._choose_device(given["device"])
        self._set_nodes(owner, given)
        memory = given["memory"]
        self.memory = None if memory is None else _checks.number(owner, "memory", memory)
        if self.memory is not None and self.memory <= 1.0:
            raise ValueError(f"{owner}: memory must be > 1 or null, got {memory!r}")
        self.ridge = _checks.positive(owner, "ridge", given["ridge"])
        self.leaky = _checks.truth(owner, "leaky", given["leaky"])
        if self.device == "cuda" and not self.leaky:  # an inverse that winds up is not begun anew
            raise ValueError(f"{owner}: leaky must be true with device='cuda', got {self.leaky!r}")
        self._begin(self._lam, self.leaky)

    @property
    def _lam(self) -> float:
        """The factor by which the weight of a lesson fades with each that follows."""
        return 1.0 if self.memory is None else 1.0 - 1.0 / self.memory

    def hasten(self, memory: float | None) -> None:
        """From here on remember so many lessons at most; None: as `memory` says, again.

        memory: lessons, > 1. It is a setting of this object, not part of its state.
        """
        if memory is not None and _checks.number(type(self).__name__, "memory", memory) <= 1.0:
            raise ValueError(f"{type(self).__name__}: memory must be > 1, got {memory!r}")
        lam = self._lam if memory is None else min(self._lam, 1.0 - 1.0 / memory)
        self._settings[rls.LAM] = lam
        self._settings[rls.LEAK] = (1.0 - lam) * self.ridge if self.leaky else 0.0

    @property
    def _first_variance(self) -> float:
        return self._lam / self.ridge  # so that the first lesson meets the ridge itself

    def _clear(self) -> None:
        super()._clear()
        self._buffer, self._lessons = np.zeros((0, 0)), np.zeros((0, 2))
        self.width_ = 0

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_kept(self) -> int:
        """Lessons of the warm-up, which are kept until it is over."""
        return self.n_samples_ if self.n_samples_ < self.warm_up else 0

    buffer_ = cut(
        "_buffer", 0, "(n, d) the inputs of the lessons of the warm-up so far; empty after it.",
        to="_n_kept",
    )  # fmt: skip
    lessons_ = cut("_lessons", 0, "(n, 1 + q) their weights and labels.", to="_n_kept")

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
        return self._named(block, answer, side)

    def _walk_on(self, block: Block, rows: Any, start: int, K: int) -> tuple[F8, F8, int]:
        """From row start on, as far as the scaler stands: answers, and where to go on."""
        F, codes = self._buffers(block.n, self._width)
        nodes = self._nodes(self.inputs_, self._features)
        room = self._weights.shape[0] if self._classify else 0
        kept = (self._buffer, self._lessons)
        lifted = (F, codes)
        stop = rvfl.lift_nodes(start, rows, nodes, kept, self.scalars_, self._shape, lifted, room)
        if stop < 0:
            raise bad_weight(self, block, -1 - stop)
        part = slice(start, stop)
        answer, side = self._teach(F[part], codes[part], *(column[part] for column in rows[1:]))
        return answer, side, stop

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
        F = np.empty((n, self._width))
        rvfl.lift_again(X, self._nodes(self.inputs_, self._features), self._shape, F)
        self._untaught(F.shape[1])
        self._widen(K)
        codes = np.full(n, lift.TARGET)
        if self._classify:
            codes = lessons[:, 1].astype(np.int64)
        mode = np.full(n, LEARN, dtype=np.uint8)
        self._teach(F, codes, plain(lessons[:, 1:]), plain(lessons[:, 0]), mode)


class LiteRVFLClassifier(_LiteRVFL, Classifier):
    """Classifier that is linear in the inputs and in random features of them, and forgets.

    Model: f = (1, g(V z + b), z), z the inputs standardised by the moments of the first labelled
    rows and cut at +-clip, V and b normal draws that are never learnt, g the activation. The
    weights W of one-hot labels minimise sum lam^age w |y - W f|^2 + ridge |W|^2 over all labelled
    rows, lam = 1 - 1 / memory: recursive least squares, one rank-one step a label. With `leaky` the
    ridge does not fade as the rows do: each label gives (1 - lam) D ridge back to one of the D
    coordinates in turn. Without, what the inputs do not excite winds up (see `n_resets`).
    Args:
        hidden: random features, in [0, 10000]; 0 is linear. Well below `memory` times 4.
        memory: labelled rows remembered, > 1; a row's weight has halved after 0.7 of it. None
            never forgets. The paper's theta is (1 - 1 / memory) ** -0.5.
        ridge: pull of the weights to 0, in units of squared features, > 0.
        activation: "sigmoid", "tanh", "relu" or "identity".
        warm_up: labelled rows whose moments fix the scaler, >= 2. At an eighth, a quarter, a half
            and all of them it is fixed anew and these rows are learnt again with it; before an
            eighth, answers are class shares.
        node_scale: standard deviation of an entry of V and b times sqrt(d), > 0.
        leaky: whether the ridge stays.
        probabilities: "scaled", a softmax of the scores with a learned scale, or "clip", positive
            parts of the scores, normalised.
        alpha0: the scale at the start, in [0.1, 100].
        lr_alpha: rate of its logarithm, in [0, 1]: it is learnt over about 1 / lr_alpha labels by
            natural gradients; 0 keeps alpha0.
        balance: weigh a row by N / (C n_c), so that all C classes count alike.
        eps_std: added to standard deviations, in units of the feature, >= 0.
        clip: bound of standardised inputs, > 0.
        seed: of the random features, which are drawn by feature name.
        device: "cpu", or "cuda" for an NVIDIA GPU: for a thousand nodes and more, with `leaky`;
            an error where there is none.
    State:
        weights_: (K, D) float64, D = 1 + hidden + d; K = 1 + largest class code learnt.
        inverse_: (D, D) float64, of the weighted second moments of f with the ridge.
        outputs_: (3, K) float64, weight learnt of each class, then zeros and ones.
        scalars_: (9,) float64, counters, log alpha, in the order of `streamlearn.jit.rls`.
        inputs_: (5, d) float64, of each feature: values seen, running mean and sum of squares,
            applied centre and factor.
        buffer_, lessons_: (n, d) and (n, 2) float64, the rows of the warm-up; then empty.
    A missing feature is at its centre. A row without any feature teaches nothing, and nothing is
    forgotten for it. A feature that comes later counts once it has an eighth of `warm_up` values,
    with running moments until it has all of them; of these, values a million standard deviations
    off are left out. Rows with an infinity are refused (`n_rejected`).
    A class exists from the first row that teaches it, with a column of zeros, which is exact.
    Cost: O(D^2 + K D + hidden d) time an event, no allocation in the kernel; O(D^2 + K D) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Hu, Liu and He (2025), Lite-RVFL: A Lightweight Random Vector Functional-Link Neural
    Network for Learning Under Concept Drift, arXiv 2506.08063. The ridge that stays is ours.
    >>> model = LiteRVFLClassifier(hidden=20)
    >>> for i in range(100):
    ...     model.learn_one({"a": i % 10 - 4.5}, "out" if abs(i % 10 - 4.5) > 2 else "in")
    >>> model.predict_one({"a": -4.5}), model.predict_one({"a": 0.5}), model.predict_one({"a": 4.5})
    ('out', 'in', 'out')
    """

    _classify = True

    def __init__(
        self,
        hidden: int = 100,
        memory: float | None = 250.0,
        ridge: float = 1.0,
        activation: str = "relu",
        warm_up: int = 200,
        node_scale: float = 2.0,
        leaky: bool = True,
        probabilities: str = "scaled",
        alpha0: float = 4.0,
        lr_alpha: float = 0.01,
        balance: bool = False,
        eps_std: float = 0.01,
        clip: float = 10.0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        given = locals()
        self._set_answers(given)
        self._set_head(given)


class LiteRVFLRegressor(_LiteRVFL, Regressor):
    """Regression that is linear in the inputs and in random features of them, and forgets.

    Model, state and arguments as `LiteRVFLClassifier`; y is (n,) or (n, q). The ridge pulls to the
    running mean of a target, so its level is free: adding a number to all targets adds it to all
    answers. Outputs `prediction` and `variance`: s2 (1 + f' P f), s2 the running variance of
    residuals over the root of that factor, P the inverse.
    State: outputs_ (3, q) holds faded weight, running mean and residual variance of each target.
    A row with any target missing counts as unlabelled; a target beyond 1e300 as infinite.
    Cost: O(D^2 + q D + hidden d) time an event; O(D^2 + q D) memory.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    Reference: Hu, Liu and He (2025), arXiv 2506.08063, which has the classifier.
    >>> model = LiteRVFLRegressor(hidden=20, ridge=0.01)
    >>> for i in range(200):
    ...     model.learn_one({"a": i % 10 - 4.5}, 1000 + (i % 10 - 4.5) ** 2)
    >>> round(model.predict_one({"a": 0.5}))
    1000
    """

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
        device: str = "cpu",
    ) -> None:
        self._set_head(locals())


class RVFLFeatures(_Nodes, Transformer, base.Transformer):
    """Random nodes and standardised inputs, as `LiteRVFLClassifier` has them, for any head.

    The output is g(V z + b) and z, in columns `node0`, `node1`, … and under the names of the
    inputs. A feature's moments run over its first `warm_up` values (OBSERVE rows) and are frozen
    then; a row is scaled by those from before it, and a feature with less than an eighth of the
    values is 0. A missing value is at its centre, 0; a row without any feature is NaN throughout. A
    row with an infinite feature is passed on as it is, so that later stages refuse it too, and is
    counted in `n_rejected`.
    Args:
        hidden, activation, warm_up, node_scale, eps_std, clip, seed: as `LiteRVFLClassifier`.
    State:
        inputs_: (5, d) float64, of each feature: values seen, running mean and sum of squares,
            applied centre and factor.
        width_: number of features by which the scale of V was chosen, that of the end of warm-up.
    Cost: O(hidden d) time an event, no allocation in the kernel; 40 d bytes.
    Raises: ValueError for a parameter out of range.
    Reference: Pao, Park and Sobajic (1994), Learning and generalization characteristics of the
    random vector functional-link net.
    >>> features = RVFLFeatures(hidden=2, warm_up=2)
    >>> for value in (1.0, 3.0):
    ...     features.learn_one({"a": value})
    >>> sorted(features.transform_one({"a": 3.0}))
    ['a', 'node0', 'node1']
    """

    _arrays = ("inputs_", "counters_")
    _counters = ("width_",)

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"hidden": 5, "warm_up": 4, "activation": "relu", "clip": 3.0, "seed": 1}
        yield {"hidden": 0, "warm_up": 20, "activation": "identity", "eps_std": 0.0}

    def __init__(
        self,
        hidden: int = 100,
        activation: str = "tanh",
        warm_up: int = 200,
        node_scale: float = 2.0,
        eps_std: float = 0.01,
        clip: float = 10.0,
        seed: int = 0,
    ) -> None:
        self._set_nodes("RVFLFeatures", locals())
        self.inputs_: F8 = np.zeros((5, 0))
        self.counters_: F8 = np.zeros(2)
        self._output: tuple[Features, Features] | None = None

    @property
    def n_rejected(self) -> int:
        """Rows with OBSERVE and an infinite feature."""
        return int(self.counters_[rvfl.REFUSED])

    def grow(self, features: Features) -> None:
        """Room for new features, of which nothing is known yet."""
        self.inputs_ = _checks.padded(self.inputs_, (5, len(features)))
        if self.counters_[rvfl.SEEN] < self.warm_up:
            self.width_ = len(features)

    def _run(self, block: Block) -> Columns:
        X, _, weight, mode = rows_of(block)
        out = np.empty((block.n, self.hidden + block.d))
        nodes = self._nodes(self.inputs_, self._features)
        rvfl.expand_run(X, weight, mode, nodes, self._shape, self.counters_, out)
        return {"X": out}

    def output_features(self, features: Features) -> Features:
        """The nodes, then the same columns, all of them numbers."""
        if self._output is None or self._output[0] is not features:
            nodes = [f"node{k}" for k in range(self.hidden)]
            kinds = [NUMBER if kind == BOOLEAN else kind for kind in features.kinds]
            names = [*nodes, *features.names]
            made = Features(names, [NUMBER] * self.hidden + kinds, features.categories)
            self._output = (features, made)
        return self._output[1]
