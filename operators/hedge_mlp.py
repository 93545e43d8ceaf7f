"""HedgeMLP: a network that grows as deep as the stream calls for, learned event by event."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import Block, Columns, Features
from streamlearn.jit import hedge_mlp
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.operators._supervised import Supervised, bad_weight, cut, rows_of

_LOSSES = ("absolute", "minmax")


class _HedgeMLP(Supervised):
    """What both share: the network, its growth, and the call of the kernel.

    Heads have room for classes that may come; what their properties give is cut to the classes
    known, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "input_weights_", "hidden_weights_", "biases_", "input_head_", "heads_", "alpha_",
        "outputs_", "scalars_",
    )  # fmt: skip

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

    input_head_ = cut("_input_head", 0, "(K, 1 + d) weights of the head on the input, bias first.")
    heads_ = cut(
        "_heads", 1, "(L, K, 1 + h) weights of the heads on the hidden layers, biases first."
    )
    outputs_ = cut(
        "_outputs", 1, "(4, K): rows learnt of a class; of a target mean, variance, mass, count."
    )

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

    def _run(self, block: Block) -> Columns:
        self._widen(self._n_wanted(block))
        net = (
            self.input_weights_, self.hidden_weights_, self.biases_, self._input_head, self._heads,
            self.alpha_, self._outputs, self.scalars_,
        )  # fmt: skip
        answer, side = np.empty((block.n, self._outputs.shape[1])), np.empty((block.n, 1))
        fixed = (self._settings, *self._scratch)
        targets = None if self._classify else True
        bad = hedge_mlp.walk(rows_of(block), net, fixed, (answer, side), targets)
        if bad >= 0:
            raise bad_weight(self, block, bad)
        return self._named(block, answer, side if self._classify else None)


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


class HedgeMLPRegressor(_HedgeMLP, Regressor):
    """Online deep learning for numbers: as `HedgeMLPClassifier`, with linear heads.

    Targets are standardised by their running mean and deviation from before the row, so a step does
    not depend on their unit; y is (n,) or (n, q). A head pays its squared error, at most 1.
    Args:
        target_rate: rate m of the running moments of a target, in [1e-9, 0.5]: a memory of 1 / m
            rows.
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
