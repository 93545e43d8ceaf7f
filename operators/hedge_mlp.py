"""HedgeMLP: a network that grows as deep as the stream calls for, learned event by event."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, LEARN, Block, Columns, Features
from streamlearn.contracts import State
from streamlearn.jit import hedge_mlp
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor

_LOSSES = ("absolute", "minmax")
_MAX_CLASSES = 100_000  # a label beyond it is no class code


class _HedgeMLP(Operator):
    """What both share: the network, its growth, and the call of the kernel.

    Heads have room for classes that may come; what their properties give is cut to the classes
    known, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "input_weights_", "hidden_weights_", "biases_", "input_head_", "heads_", "alpha_",
        "outputs_", "scalars_",
    )  # fmt: skip
    _classify: ClassVar[bool] = False
    recalls_input = True

    layers: int
    hidden: int
    eta: float
    beta: float
    floor: float
    hedge_loss: str
    seed: int

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"layers": 2, "hidden": 8}
        yield {"layers": 1, "hidden": 3, "eta": 0.5, "floor": 0.0, "hedge_loss": "minmax"}

    # -- construction ------------------------------------------------------------------------------

    def _set_parameters(self, given: dict[str, Any]) -> None:
        owner = type(self).__name__
        for name in ("layers", "hidden"):
            setattr(self, name, _checks.whole(owner, name, given[name], 1))
        self.eta = _checks.positive(owner, "eta", given["eta"])
        self.beta = _checks.between(owner, "beta", given["beta"], 1e-9, 1.0)
        self.floor = _checks.between(owner, "floor", given["floor"], 0.0, 1.0)
        self.hedge_loss = _checks.choice(owner, "hedge_loss", given["hedge_loss"], _LOSSES)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)

    def _begin(self, **more: float) -> None:
        """The settings as the vector that the kernel takes, and the empty state."""
        self._settings = np.zeros(hedge_mlp.N_SETTINGS)
        self._settings[hedge_mlp.ETA] = self.eta
        self._settings[hedge_mlp.LOG_BETA] = math.log(self.beta)
        self._settings[hedge_mlp.FLOOR] = self.floor
        self._settings[hedge_mlp.MINMAX] = self.hedge_loss == "minmax"
        for name, value in more.items():
            self._settings[getattr(hedge_mlp, name)] = value
        self._clear()

    def _clear(self) -> None:
        """The state of a network that has not even seen a feature."""
        L, h = self.layers, self.hidden
        self.scalars_ = np.zeros(hedge_mlp.N_SCALARS)
        self.alpha_ = np.full(L + 1, 1.0 / (L + 1))
        self.biases_ = np.zeros((L, h))
        self.input_weights_ = np.zeros((0, h))
        deeper = [normals(key_of(self.seed, f"layer {i}"), h * h) for i in range(1, L)]
        self.hidden_weights_ = math.sqrt(2.0 / h) * np.reshape(deeper, (L - 1, h, h))
        self._input_head, self._heads = np.zeros((0, 1)), np.zeros((L, 0, 1 + h))
        self._outputs = np.zeros((4, 0))
        self._scratch: tuple[Any, ...] = ()
        self.grow(Features(()))
        self._widen(0 if self._classify else 1)

    def grow(self, features: Features) -> None:
        """Make room for features: weights drawn by name (He), a head's weights 0."""
        known, d = self.input_weights_.shape[0], len(features)
        if d > known:
            scale = math.sqrt(2.0 / d)
            drawn = [
                scale * normals(key_of(self.seed, f"feature {name}"), self.hidden)
                for name in features.names[known:]
            ]
            self.input_weights_ = np.vstack([self.input_weights_, *drawn])
        self._input_head = _checks.padded(self._input_head, (self._input_head.shape[0], 1 + d))

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; the operator must have the same parameters."""
        self._clear()
        super().load(state)

    def _widen(self, K: int) -> None:
        """Room for K classes or targets, and scratch to fit."""
        L, h, d = self.layers, self.hidden, self.input_weights_.shape[0]
        if self._outputs.shape[1] < K:
            self._input_head = _checks.padded(self._input_head, (K, 1 + d))
            self._heads = _checks.padded(self._heads, (L, K, 1 + h))
            self._outputs = _checks.padded(self._outputs, (4, K))
        room, width = self._outputs.shape[1], max(d, h)
        if (
            self._scratch
            and self._scratch[0].shape[1] == width
            and self._scratch[2].shape[1] == room
        ):
            return
        shapes = (L + 1, width), (L, h), (L + 1, room), (L + 1, room), (L + 1,), (2, room)
        places = [np.zeros(shape, dtype=np.int64) for shape in ((L + 1, width), (L + 1,))]
        self._scratch = (*map(np.zeros, shapes), *places, np.zeros((2, L + 1)))

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int:
        """Columns of heads and outputs that are state; any more are room."""
        known = self.scalars_[hedge_mlp.CLASSES] if self._classify else self._outputs.shape[1]
        return int(known)

    @property
    def input_head_(self) -> F8:
        """(K, 1 + d) weights of the head on the input, bias first."""
        return self._input_head[: self._n_outputs]

    @input_head_.setter
    def input_head_(self, value: F8) -> None:
        self._input_head = np.ascontiguousarray(value)

    @property
    def heads_(self) -> F8:
        """(L, K, 1 + h) weights of the heads on the hidden layers, biases first."""
        return np.ascontiguousarray(self._heads[:, : self._n_outputs])

    @heads_.setter
    def heads_(self, value: F8) -> None:
        self._heads = np.ascontiguousarray(value)

    @property
    def outputs_(self) -> F8:
        """(4, K): rows learnt of a class, then zeros; of a target mean, variance, mass, count."""
        return self._outputs[:, : self._n_outputs]

    @outputs_.setter
    def outputs_(self, value: F8) -> None:
        self._outputs = np.ascontiguousarray(value)

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.scalars_[hedge_mlp.SAMPLES])

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN refused: an infinite feature or target, or a label that is no class."""
        return int(self.scalars_[hedge_mlp.REJECTED])

    @property
    def n_imputed(self) -> int:
        """Missing values in rows with OBSERVE, which count 0."""
        return int(self.scalars_[hedge_mlp.IMPUTED])

    @property
    def n_resets(self) -> int:
        """Heads that started anew because what they said was no number."""
        return int(self.scalars_[hedge_mlp.RESETS])

    # -- the walk ----------------------------------------------------------------------------------

    def _walk(self, block: Block, K: int) -> tuple[F8, F8]:
        """Call the kernel with room for K classes or targets: answers (n, K) and (n, 1)."""
        self._widen(K)
        y = block.y if block.y.ndim == 2 else block.y[:, None]
        rows = tuple(_plain(a) for a in (block.X, y, block.weight, block.mode))
        net = (
            self.input_weights_, self.hidden_weights_, self.biases_, self._input_head, self._heads,
            self.alpha_, self._outputs, self.scalars_,
        )  # fmt: skip
        out = np.empty((block.n, self._outputs.shape[1])), np.empty((block.n, 1))
        bad = hedge_mlp.walk(
            rows, net, (self._settings, *self._scratch), out, None if self._classify else True
        )
        if bad >= 0:
            raise ValueError(
                f"{type(self).__name__}: weight must be >= 0 and finite, got {block.weight[bad]} "
                f"in row {bad} of the block"
            )
        return out


def _plain(array: Any) -> Any:
    """The array, or a copy if it is read-only or strided: one compiled kernel serves all."""
    return array if array.flags.carray else array.copy()


class HedgeMLPClassifier(_HedgeMLP, Classifier):
    """Online deep learning: every layer of a network has a head, and hedging picks the depth.

    Model: h_0 = x, h_l = relu(W_l h_(l-1) + b_l), p_l = softmax(Theta_l (1, h_l)); the answer is
    the sum of alpha_l p_l. Each event brings one gradient step on sum alpha_l loss_l and discounts
    alpha_l by beta^loss_l: at first the shallow heads lead, deeper ones when they have learnt.
    Inputs should be of similar scale, so put `Normalizer()` before it; a missing one counts 0.
    Args:
        layers: hidden layers L, >= 1.
        hidden: units h of a layer, >= 1.
        eta: learning rate, > 0.
        beta: discount of a head's weight for a loss of 1, in (0, 1]; 1 keeps the weights.
        floor: the least weight of a head times their number, in [0, 1].
        hedge_loss: what alpha pays: "absolute" (log loss / (2 log K), at most 1) or "minmax" (0 for
            the best head of the row, 1 for the worst).
        balance: weigh each row by N / (K n_c), so that all classes count alike.
        seed: of the weights, which are drawn by feature name and layer.
    State:
        input_weights_: (d, h) float64. hidden_weights_: (L - 1, h, h) float64, rows are inputs.
        biases_: (L, h) float64. alpha_: (L + 1,) float64, sums to 1.
        input_head_: (K, 1 + d), heads_: (L, K, 1 + h) float64; K = 1 + largest class code learnt.
        outputs_: (4, K) float64, rows learnt of each class, then zeros. scalars_: (5,) counters.
    The norm of a gradient is clipped at 10, an activation at 1e50; a head that is not finite starts
    anew (`n_resets`). Rows with an infinity are refused (`n_rejected`). A class exists from the row
    that teaches it, with weights 0; with one class there is nothing to learn.
    Cost: 6 (L h^2 + L h K + d h) operations an event, half of it where units rest; no allocation.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Sahoo, Pham, Lu and Hoi (2018), Online Deep Learning: Learning Deep Neural Networks
    on the Fly, arXiv 1711.03705.
    >>> model = HedgeMLPClassifier(layers=2, hidden=8, eta=0.1)
    >>> for i in range(200):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _classify = True

    def __init__(
        self,
        layers: int = 3,
        hidden: int = 32,
        eta: float = 0.05,
        beta: float = 0.99,
        floor: float = 0.2,
        hedge_loss: str = "absolute",
        balance: bool = False,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
        self.balance = _checks.truth(type(self).__name__, "balance", balance)
        self._begin(BALANCE=float(self.balance))

    def _run(self, block: Block) -> Columns:
        answer, side = self._walk(block, self._n_wanted(block))
        known = self._n_outputs
        if known < answer.shape[1]:
            answer = np.ascontiguousarray(answer[:, :known])
        return {"prediction": side[:, 0], "proba": answer}

    def _n_wanted(self, block: Block) -> int:
        """Classes that may be known after this block."""
        if block.y.ndim != 1:
            owner, shape = type(self).__name__, block.y.shape
            raise ValueError(f"{owner}: y must be one target a row, (n,), got shape {shape}")
        known = self._n_outputs
        if block.labels is not None and len(block.labels) <= known:
            return known
        codes = block.y[block.y < _MAX_CLASSES]
        return max(known, 1 + int(codes.max(initial=-1.0)))


class HedgeMLPRegressor(_HedgeMLP, Regressor):
    """Online deep learning for numbers: as `HedgeMLPClassifier`, with linear heads.

    Targets are standardised by their running mean and deviation from before the row, so a step does
    not depend on their unit; y is (n,) or (n, q). A head pays its squared error, at most 1.
    Args:
        target_rate: rate m of the running moments of a target, in (0, 1): a memory of 1 / m rows.
    State: outputs_ (4, q) holds mean, variance, mass and count of each target.
    A row with any target missing is not learnt.
    Cost: 6 (L h^2 + L h q + d h) operations an event, half of it where units rest; no allocation.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    Reference: Sahoo et al. (2018), arXiv 1711.03705.
    >>> model = HedgeMLPRegressor(layers=2, hidden=8, eta=0.05)
    >>> for i in range(400):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 1)
    8.0
    """

    def __init__(
        self,
        layers: int = 3,
        hidden: int = 32,
        eta: float = 0.05,
        beta: float = 0.99,
        floor: float = 0.2,
        hedge_loss: str = "absolute",
        target_rate: float = 0.001,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.target_rate = _checks.between(owner, "target_rate", target_rate, 1e-9, 0.5)
        self._begin(Q=1.0 - self.target_rate)

    def _run(self, block: Block) -> Columns:
        answer, _ = self._walk(block, self._n_wanted(block))
        return {
            "prediction": answer[:, 0] if block.y.ndim == 1 and answer.shape[1] == 1 else answer
        }

    def _n_wanted(self, block: Block) -> int:
        """Number of targets: given by the first block with more than one column, and fixed by the
        first label.
        """
        known = self._n_outputs
        q = 1 if block.y.ndim == 1 else block.y.shape[1]
        if q == known or (q > known and self.n_samples_ == 0):
            return q
        if block.y.ndim == 1 and not (block.mode & LEARN).any():
            return known  # asked only: y says nothing
        raise ValueError(f"{type(self).__name__}: y must have {known} columns, got {q}")
