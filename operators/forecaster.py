"""An online forecaster: several series, several steps ahead, learning as the targets come true."""

import copy
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, OBSERVE, PREDICT, SCORED, Block, Columns, Features
from streamlearn.contracts import State
from streamlearn.errors import UserError
from streamlearn.jit import forecast as jit
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.operators import _checks
from streamlearn.operators._base import Operator, Row
from streamlearn.operators._supervised import plain, refuse_bad_weights

FORECASTING = "forecasting"
EXPERTS = ("cross_time", "cross_variable", "last_value", "seasonal")  # in the order of their codes
NETWORKS = ("tcn_time", "tcn_variable")  # torch experts, with codes from `jit.GIVEN` on
_DEVICES = ("cpu", "cuda")
_MISSING = (
    "{}: the experts tcn_time and tcn_variable are torch networks, and torch is not here; "
    'pip install "streamlearn[torch]" (or cross_time and cross_variable, without a network)'
)


def _torch_room(owner: str) -> ModuleType:
    """The file of the torch experts, on first use."""
    try:
        from streamlearn.operators import torch_forecast  # torch takes two seconds
    except ImportError as error:
        raise UserError(_MISSING.format(owner)) from error
    return torch_forecast


class OnlineForecaster(Operator):
    """Forecasts all columns H rows ahead, with intervals, and learns when those rows have come.

    Every column of X is a channel of one multivariate series, a row a moment. No label is needed:
    what was forecast comes as later rows, and a forecast teaches once its last row is there, H rows
    after it was made, never before (the rolling delayed protocol). Row t is first taken in, then
    learnt from, then forecast from: its answer is about the rows t + 1 to t + H.

    Model: experts forecast the increments y_(t+h) - y_t of each channel, in its standard
    deviations. `cross_time` is one recursive ridge for all channels, on the last `lags` values less
    the last; `cross_variable` one recursive ridge on level and last `cross_lags` steps of all
    channels; `last_value` and `seasonal` repeat. With torch there are two networks of dilated
    convolutions: `tcn_time`, shared by the channels, sees what `cross_time` sees of one channel;
    `tcn_variable` the windows and levels of all. They are fitted with the last row of the warm-up,
    on the windows within, and make a step of AdamW a lesson from then on. Each channel has its own
    weights over the experts: exponentiated gradient on the squared error of whole windows, with a
    fixed share, so that an expert that was wrong for long can return. `correction` adds a small
    network, shared by the channels, that moves the first expert's logit by what the last known
    window looked like.
    Intervals: quantiles of the errors of each step and channel, in units of their running size,
    followed by a gradient step whenever one was missed or not, so that the share of misses tends to
    1 - level under any drift.
    Args:
        horizon: rows ahead, H >= 1.
        lags: of `cross_time`, >= 1. A channel with fewer rows repeats its last value.
        cross_lags: steps of each channel that `cross_variable` sees, >= 0.
        experts: names of the six above, at least one; `correction` favours the first.
        ridge: penalty of the weights, in lessons, > 0.
        forgetting: a lesson counts this much less with each later one, in [0.001, 1].
        leaky: keep the ridge where forgetting would wear it off, so that nothing winds up.
        eta: rate of the exponentiated gradient, >= 0; 0 keeps equal weights.
        share: of all weight that is dealt out equally after each lesson, in [0, 1).
        scale_loss: divide losses by their running mean, so that eta has no unit.
        correction: whether to learn the network. lr: its rate (Adam), > 0.
        warm_up: values of a channel whose mean and deviation scale it; frozen then. 0: they come
            scaled. Also the rows that the networks are fitted to.
        season: rows of one period, >= 0, for the `seasonal` expert alone.
        level: share of values that shall be within the intervals, in [0.01, 0.999].
        seed: of the networks.
        tcn_args: of the torch experts: hidden (32, units a layer), lr (1e-3), decay (0.01, of the
            weights), clip (1, largest norm of a gradient), epochs (5, over the warm-up) and batch
            (32, windows a step of the fit).
        device: of the torch experts, "cpu" or "cuda"; an error where there is none.
    Outputs: `forecast`, `lower`, `upper`, each (n, H, M); intervals are NaN until a first error is
        known. A row with PREDICT alone gets what was forecast from the last row observed.
    State:
        ring_: (W, M) float64, the last values, gaps carried on; W = longest look back + H.
        there_: (W, M) uint8, 0 where there was a gap.
        moments_: (5, M) float64: count, mean, sum of squares, deviation, age.
        P1_, B1_: (lags + 1)^2 and (lags + 1, H) float64, inverse and weights of `cross_time`.
        P2_, B2_: (D2, D2), (D2, M H) float64, those of `cross_variable`;
            D2 = 1 + M (cross_lags + 1).
        logu_: (M, K) float64, log weights. lscale_, bias_: (M,) float64.
        net_: (3, n) float64, the network and Adam's moments; n = 0 without `correction`.
        answers_: (H, K, M, H) float64, the experts' forecasts that wait for their targets.
        issued_: (3, H, M, H) float64, forecasts, lower and upper bounds.
        spread_: (4, M, H) float64, of the residuals: count, mean size, quantiles below and above.
        scalars_: (6,) float64, counters in the order of `streamlearn.jit.forecast`.
        tcn/…: with torch experts: their weights and Adam's moments by name, and tcn/past
            (warm_up, 1 + M), weight and values of the rows of the warm-up, none once it is over.
    A missing value is carried on in the inputs and left out of every loss; counted in `n_imputed`.
    An infinite value, or one beyond 1e300, is missing too; such rows are counted in `n_rejected`.
    What differs by more than 50 deviations counts as 50. A channel that never moved is forecast by
    its value. A new channel begins with its first value; a row of weight 0 is not learnt from.
    Cost: O(M lags^2 + D2^2 + D2 M H) time an event, no allocation; memory O(H^2 K M + D2^2). A
        torch expert: about 1 ms a row, and once (warm_up epochs / batch) steps.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight;
        UserError (a ValueError) for a torch expert without torch.
    Reference: Zhang et al. (2023), OneNet: Enhancing time series forecasting models under concept
    drift by online ensembling, arXiv 2309.12659; Gibbs and Candes (2021), Adaptive conformal
    inference under distribution shift.
    >>> model = OnlineForecaster(horizon=2, lags=4)
    >>> for t in range(200):
    ...     model.learn_one({"tide": float(t % 4)})  # 0, 1, 2, 3, 0, …
    >>> [round(step["tide"], 1) for step in model.forecast()]
    [0.0, 1.0]
    """

    task = FORECASTING
    needs_label = False
    _arrays: ClassVar[tuple[str, ...]] = (
        "ring_", "there_", "moments_", "P1_", "B1_", "P2_", "B2_", "logu_", "lscale_", "bias_",
        "net_", "answers_", "issued_", "spread_", "scalars_",
    )  # fmt: skip

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What the conformance suite builds; small ones are past their start within its streams."""
        yield {"horizon": 3, "lags": 4, "cross_lags": 2}
        yield {
            "horizon": 2, "lags": 3, "cross_lags": 1, "experts": EXPERTS, "season": 4,
            "correction": True, "warm_up": 10, "forgetting": 0.9, "seed": 1,
        }  # fmt: skip
        yield {"horizon": 1, "lags": 1, "experts": ("cross_time",), "warm_up": 0, "share": 0.0}
        try:
            _torch_room(cls.__name__)
        except UserError:
            return
        yield {
            "horizon": 2, "lags": 3, "experts": ("tcn_variable", "cross_time"), "warm_up": 12,
            "tcn_args": {"hidden": 3, "epochs": 1, "batch": 4},
        }  # fmt: skip

    def __init__(
        self,
        horizon: int = 1,
        lags: int = 60,
        cross_lags: int = 11,
        experts: Sequence[str] = ("cross_time", "cross_variable"),
        ridge: float = 10.0,
        forgetting: float = 0.9995,
        leaky: bool = True,
        eta: float = 0.5,
        share: float = 0.01,
        scale_loss: bool = True,
        correction: bool = False,
        lr: float = 1e-3,
        warm_up: int = 1000,
        season: int = 0,
        level: float = 0.9,
        seed: int = 0,
        tcn_args: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        owner = type(self).__name__
        self.horizon = _checks.whole(owner, "horizon", horizon, 1)
        self.lags = _checks.whole(owner, "lags", lags, 1)
        self.cross_lags = _checks.whole(owner, "cross_lags", cross_lags, 0)
        self.ridge = _checks.positive(owner, "ridge", ridge)
        self.forgetting = _checks.between(owner, "forgetting", forgetting, 1e-3, 1.0)
        self.leaky = _checks.truth(owner, "leaky", leaky)
        self.eta = _checks.not_negative(owner, "eta", eta)
        self.share = _checks.between(owner, "share", share, 0.0, 0.999)
        self.scale_loss = _checks.truth(owner, "scale_loss", scale_loss)
        self.correction = _checks.truth(owner, "correction", correction)
        self.lr = _checks.positive(owner, "lr", lr)
        self.warm_up = _checks.whole(owner, "warm_up", warm_up, 0)
        self.season = _checks.whole(owner, "season", season, 0)
        self.level = _checks.between(owner, "level", level, 0.01, 0.999)
        self.seed = _checks.whole(owner, "seed", seed, 0)
        self.experts = self._checked_experts(experts)
        self.tcn_args, self.device = tcn_args, _checks.choice(owner, "device", device, _DEVICES)
        self.cheap_snapshot = not self._networks()
        self._clear()

    def _networks(self) -> list[str]:
        """The torch experts among the experts; refuses their arguments where there is none."""
        owner, found = type(self).__name__, [name for name in self.experts if name in NETWORKS]
        if not found and (self.tcn_args or self.device != "cpu"):
            raise ValueError(
                f"{owner}: tcn_args and device must be left out without the experts tcn_time and "
                f"tcn_variable, got {self.tcn_args!r} and {self.device!r}"
            )
        return found

    def _checked_experts(self, given: Sequence[str]) -> tuple[str, ...]:
        owner = type(self).__name__
        names = [given] if isinstance(given, str) else list(given)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{owner}: experts must be different and at least one, got {given!r}")
        for name in names:
            _checks.choice(owner, "experts", name, (*EXPERTS, *NETWORKS))
        if "seasonal" in names and self.season == 0:
            raise ValueError(f"{owner}: season must be > 0 for the seasonal expert, got 0")
        return tuple(names)

    def _clear(self) -> None:
        """Settings as the vector that the kernel takes, and the state without a channel."""
        quantile = NormalDist().inv_cdf(0.5 + 0.5 * self.level) * math.sqrt(0.5 * math.pi)
        settings = {
            jit.RIDGE: self.ridge, jit.FORGET: self.forgetting, jit.ETA: self.eta,
            jit.SHARE: self.share, jit.RESCALE: self.scale_loss, jit.WARM_UP: self.warm_up,
            jit.SEASON: self.season, jit.CROSS_LAGS: self.cross_lags, jit.LAGS: self.lags,
            jit.MISS: 0.5 * (1.0 - self.level), jit.START_Q: quantile, jit.LR_NET: self.lr,
            jit.LEAKY: self.leaky,
        }  # fmt: skip
        self._settings = np.array([float(settings[i]) for i in range(jit.N_SETTINGS)])
        codes = [*EXPERTS, *NETWORKS]  # EXPERTS has jit.GIVEN names
        self._kinds = np.array([codes.index(name) for name in self.experts], dtype=np.int64)
        H, K = self.horizon, len(self.experts)
        self._window = max(self.lags, self.cross_lags + 1, self.season) + H
        D1 = self.lags + 1 if "cross_time" in self.experts else 0
        D2 = 1 if "cross_variable" in self.experts else 0
        self.ring_ = np.zeros((self._window, 0))
        self.there_ = np.zeros((self._window, 0), dtype=np.uint8)
        self.moments_ = np.zeros((5, 0))
        self.P1_, self.B1_ = np.eye(D1) / self.ridge, np.zeros((D1, H))
        self.P2_, self.B2_ = np.eye(D2) / self.ridge, np.zeros((D2, 0))
        self.logu_, self.lscale_, self.bias_ = np.zeros((0, K)), np.zeros(0), np.zeros(0)
        self.net_ = self._fresh_net(K, H)
        self.answers_ = np.zeros((H, K, 0, H))
        self.issued_ = np.zeros((3, H, 0, H))
        self.spread_ = np.zeros((4, 0, H))
        self.scalars_ = np.zeros(jit.N_SCALARS)
        self._work = np.zeros((0, 0))
        self._tcn = self._fresh_networks()
        self.grow(Features(()))

    def _fresh_net(self, K: int, H: int) -> F8:
        """Uniform within 1 / sqrt(fan in), as drawn for `seed`; moments 0."""
        if not self.correction:
            return np.zeros((3, 0))
        nodes, inputs = jit.HIDDEN, (K + 1) * H
        fans = [inputs] * (inputs + 1) * nodes + [nodes] * ((nodes + 1) * nodes + nodes + 1)
        draws = 2.0 * uniforms(key_of(self.seed, "correction"), len(fans)) - 1.0
        net = np.zeros((3, len(fans)))
        net[0] = draws / np.sqrt(np.array(fans))
        return net

    def _fresh_networks(self) -> Any:
        """The torch experts, or None."""
        names = self._networks()
        if not names:
            return None
        owner = type(self).__name__
        room = _torch_room(owner)
        if not isinstance(self.tcn_args or {}, dict):
            raise ValueError(
                f"{owner}: tcn_args must be `argument: value` pairs, got {self.tcn_args!r}"
            )
        shape = room.Shape(self.horizon, self.lags, self.warm_up, self.seed, self.device)
        return room.TorchExperts(names, shape, room.checked(self.tcn_args or {}))

    # -- the walk ----------------------------------------------------------------------------------

    def grow(self, features: Features) -> None:
        """Make room for channels: weights 0 and equal shares; exact for one that was always 0."""
        M, H, K = len(features), self.horizon, len(self.experts)
        old = self.ring_.shape[1]
        self.ring_ = _checks.padded(self.ring_, (self._window, M))
        there = np.zeros((self._window, M), dtype=np.uint8)
        there[:, :old] = self.there_
        self.there_ = there
        self.moments_ = _checks.padded(self.moments_, (5, M))
        if self.warm_up == 0:
            self.moments_[jit.SD] = 1.0
        self.logu_ = _checks.padded(self.logu_, (M, K), fill=-math.log(K))
        self.lscale_ = _checks.padded(self.lscale_, (M,), fill=1.0)
        self.bias_ = _checks.padded(self.bias_, (M,))
        self.answers_ = _checks.padded(self.answers_, (H, K, M, H), fill=math.nan)
        self.issued_ = _checks.padded(self.issued_, (3, H, M, H), fill=math.nan)
        self.spread_ = _checks.padded(self.spread_, (4, M, H))
        D2 = 0
        if "cross_variable" in self.experts:
            D2 = 1 + M * (self.cross_lags + 1)
            self.P2_ = _checks.padded(self.P2_, (D2, D2), diagonal=1.0 / self.ridge)
        self.B2_ = _checks.padded(self.B2_, (D2, M * H))
        self._turns = self._leaks(features, D2)
        net = max(self.net_.shape[1], 4 * jit.HIDDEN if self.correction else 0, (K + 1) * H)
        self._work = np.zeros((jit.WORK, max(self.lags + 1, D2, M * H, net)))
        if self._tcn is not None:
            self._tcn.grow(features)

    def _leaks(self, features: Features, D2: int) -> I8:
        """Coordinates of `cross_variable` by names of channels: their order is no matter."""
        named = sorted(range(len(features)), key=lambda j: str(features.names[j]))
        each = self.cross_lags + 1
        turns = [0, *(1 + j * each + i for j in named for i in range(each))]
        return np.array(turns[:D2], dtype=np.int64)

    def _run(self, block: Block) -> Columns:
        shape = (block.n, self.horizon, len(self._features))
        out = np.full(shape, math.nan), np.full(shape, math.nan), np.full(shape, math.nan)
        refuse_bad_weights(self, block)
        rows = plain(block.X), plain(block.weight), plain(block.mode)
        if self._tcn is None:
            self._walk((*rows, np.zeros((block.n, 0, 0, 0))), out)
        else:
            with _torch_room(type(self).__name__).repeatable(self.device):
                self._walk_with_networks(rows, out)
        return dict(zip(("forecast", "lower", "upper"), out, strict=True))

    def _walk(self, rows: tuple[Any, ...], out: tuple[F8, F8, F8]) -> None:
        """One call of the kernel; rows: X, weight, mode and what torch experts say."""
        jit.walk(
            rows,
            (self.ring_, self.there_, self.moments_),
            ((self.P1_, self.B1_, self.P2_, self.B2_), (self.logu_, self.lscale_, self.bias_)),
            self.net_ if self.correction else None,
            (self.answers_, self.issued_, self.spread_),
            (self._settings, self._kinds, self._turns, self._work),
            self.scalars_,
            out,
        )

    def _walk_with_networks(self, rows: tuple[Any, ...], out: tuple[F8, F8, F8]) -> None:
        """Row by row: the kernel takes it in, the networks learn and answer, the kernel goes on."""
        X, weight, mode = rows
        said = np.zeros((1, len(self.experts), X.shape[1], self.horizon))
        for t in range(X.shape[0]):
            asks = mode[t : t + 1] & np.uint8(PREDICT)
            if mode[t] & OBSERVE:
                take_in = np.full(1, jit.TAKE_IN, dtype=np.uint8)
                self._walk((X[t : t + 1], weight[t : t + 1], take_in, said), out)
                self._teach_networks(float(weight[t]), said[0])
                asks |= np.uint8(jit.GO_ON)
            told = out[0][t : t + 1], out[1][t : t + 1], out[2][t : t + 1]
            self._walk((X[t : t + 1], weight[t : t + 1], asks, said), told)

    def _teach_networks(self, weight: float, said: F8) -> None:
        """The lesson that the last row completes, or the fit; said (K, M, H) <- their answers."""
        tcn, H, M = self._tcn, self.horizon, len(self._features)
        r = int(self.scalars_[jit.ROWS]) - 1
        now = self.ring_, self.moments_, r
        if not tcn.is_fitted:
            tcn.keep(now, self.there_, weight)
        elif r >= H and weight > 0.0:
            targets = self._work[jit.TARGETS, : M * H].reshape(M, H)
            tcn.learn((self.ring_, self.moments_, r - H), targets, weight)
        for name, answer in tcn.answers(now).items():
            said[self.experts.index(name)] = answer

    def load_kernels(self) -> None:
        """Walk one invented row through a clone."""
        block = Block(
            np.zeros((1, 1)), np.zeros(1), np.ones(1), np.full(1, SCORED, dtype=np.uint8),
            Features(["invented"]),
        )  # fmt: skip
        self.clone().run(block)

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore(snapshot)
        self.grow(self._features)  # the order of the leaks and the scratch, for these channels

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; refused if the parameters were others."""
        super().load(state)
        if self._tcn is not None:
            found = {k: a for k, a in state.arrays.items() if k.startswith("tcn/")}
            self._tcn.load({k.removeprefix("tcn/"): a for k, a in found.items()})

    def state(self) -> State:
        """Everything needed to go on bit-identically, as plain arrays and numbers."""
        state = super().state()
        if self._tcn is None:
            return state
        networks = {f"tcn/{name}": array for name, array in self._tcn.arrays().items()}
        return State(state.arrays | networks, state.table)

    def snapshot(self) -> dict[str, Any]:
        """A copy of all that learning changes."""
        taken = super().snapshot()
        return taken if self._tcn is None else taken | {"_tcn": copy.copy(self._tcn)}

    def reset(self) -> None:
        """Forget everything learnt; the names of the channels stay."""
        super().reset()
        self._tcn = self._fresh_networks()
        if self._tcn is not None:
            self._tcn.grow(self._features)

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays that make up the state."""
        networks = {} if self._tcn is None else self._tcn.arrays()
        own: int = super().state_bytes
        return own + sum(int(array.nbytes) for array in networks.values())

    # -- what it knows -----------------------------------------------------------------------------

    @property
    def weights_(self) -> F8:
        """(M, K) the weight of each expert in each channel, without the short-term correction."""
        weights: F8 = np.exp(self.logu_)
        return weights

    @property
    def n_lessons_(self) -> int:
        """Windows that were learnt from."""
        return int(self.scalars_[jit.LESSONS])

    @property
    def n_rejected(self) -> int:
        """Rows with an infinite value, or one beyond 1e300; it counts as missing."""
        return int(self.scalars_[jit.REJECTED])

    @property
    def n_imputed(self) -> int:
        """Values that were missing, and carried on from the row before."""
        return int(self.scalars_[jit.MISSING])

    # -- dicts -------------------------------------------------------------------------------------

    def learn_one(self, x: Row, y: Any = None, w: float = 1.0) -> None:
        """Take in the values of one moment, and learn from the window that they complete."""
        super().learn_one(x, None, w)

    def forecast(self, horizon: int | None = None) -> list[Row]:
        """The values of the next rows, one dict a row: what follows all that was learnt.

        horizon: rows, at most the `horizon` it was made for; all if None.
        """
        return self._steps("forecast", horizon)

    def forecast_intervals(
        self, horizon: int | None = None
    ) -> list[dict[Any, tuple[float, float]]]:
        """Lower and upper bounds of the next rows, as `forecast`; NaN until an error is known."""
        low, high = self._steps("lower", horizon), self._steps("upper", horizon)
        return [{name: (a[name], b[name]) for name in a} for a, b in zip(low, high, strict=True)]

    def _steps(self, what: str, horizon: int | None) -> list[Row]:
        owner = type(self).__name__
        wanted = self.horizon if horizon is None else _checks.whole(owner, "horizon", horizon, 1)
        if wanted > self.horizon:
            raise ValueError(f"{owner}: horizon must be <= {self.horizon}, got {wanted}")
        told = self._answer({})[what][0, :wanted].tolist()
        return [dict(zip(self._features.names, row, strict=True)) for row in told]
