"""Limits of calibrated detectors, found by simulation (`benchmarks.calibrate_detectors fit`).

Many streams without drift grow old together, each watched by a detector, which is the operator's
own kernel. From age to age, in steps of a quarter of an octave or A / 8, the limit is put where,
among the streams that have had no alarm so far, as many exceed it as the chance 1/A asks for. A
stream with an alarm is replaced by a copy of one without that has as many ones: so there are always
as many, and what is known of a limit does not get worse with age. The limits of all steps are drawn
together to the rows of the table; then fresh streams are walked under the table, alarms and events
at risk are counted around each of its cells, and the limits are corrected by the logarithm of
hazard times A, in units of tau, how far the limit moves when A grows by e. So once before the next
run length is begun, and twice more, on more streams, when all are there.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from streamlearn import operators
from streamlearn.block import F8, I8
from streamlearn.jit.adwin import adwin_statistics
from streamlearn.jit.change_point import change_point_statistics
from streamlearn.jit.change_sums import cusum_statistics, page_hinkley_statistics
from streamlearn.jit.error_rate import (
    ddm_statistics,
    ecdd_statistics,
    eddm_statistics,
    rddm_statistics,
)
from streamlearn.jit.error_windows import fhddm_statistics, stepd_statistics
from streamlearn.jit.hoeffding import hddm_a_statistics, hddm_w_statistics
from streamlearn.jit.kswin import kswin_statistics
from streamlearn.jit.limits import BITS, GIVEN, RATES, limit, spread

ROWS = 32
# by run length: alarms in a step of age
ALARMS = {1_000: 300, 3_000: 200, 10_000: 200, 30_000: 120, 100_000: 60}
LOG_RATES = np.log(RATES)
COLUMNS = RATES.shape[0]
AGAIN = {1_000: 1_500, 3_000: 700, 10_000: 600, 30_000: 600, 100_000: 600}  # when all are there
GAIN, AGAIN_GAINS = 0.7, (0.6, 0.4)  # of the corrections
SLOW_GAINS, SLOW_TIMES = (0.5, 0.4), 3  # more, with so many times the streams
FEWEST = 1_500  # streams
PIECE = 64  # values that are drawn at once
EMPTY: dict[str, Any] = {
    "warm_up": 0,
    "jitter": [0.0, 0.0, 1.0],
    "limits": {"1": [[0.0]], "1000000": [[0.0]]},
}

# of closures, which no disk cache knows
Function = TypeVar("Function", bound=Callable[..., Any])
compiled: Callable[[Function], Function] = cast(Any, numba.njit(nogil=True, error_model="numpy"))


class Plan(NamedTuple):
    """What is given for a detector."""

    warm_up: int
    jitter: tuple[float, float, float]  # on bits, on the rest, the ratio of `spread`
    most: int  # streams at most: memory
    steady: int = 0  # from this age on the limit stays as it is; 0: never
    slow: bool = False  # a mean since the restart: copies stay alike, more streams are needed
    longest: int = 30_000  # run length that is fitted


PLANS = {
    "ADWIN": Plan(64, (0.2, 0.0, 1.0), 40_000, longest=100_000),
    "BayesianChangePoint": Plan(64, (0.0, 0.0, 1.0), 40_000, 2_000, longest=100_000),
    "CUSUM": Plan(64, (0.1, 0.0, 1.0), 500_000, longest=100_000),
    "DDM": Plan(64, (0.1, 0.0, 1.0), 500_000, slow=True, longest=100_000),
    "ECDD": Plan(64, (0.3, 0.0, 1.0), 500_000, longest=100_000),
    "EDDM": Plan(128, (0.01, 0.0, 1.0), 500_000, slow=True, longest=30_000),
    "FHDDM": Plan(256, (0.04, 0.0, 1.0), 500_000, longest=100_000),
    "HDDM_A": Plan(64, (0.02, 0.0, 1.0), 500_000, longest=100_000),
    "HDDM_W": Plan(64, (0.02, 0.0, 1.0), 500_000, longest=100_000),
    "KSWIN": Plan(128, (0.0, 0.006, 1.0), 60_000, 2_000, longest=100_000),
    "PageHinkley": Plan(64, (0.1, 0.0, 1.0), 500_000, longest=100_000),
    "RDDM": Plan(130, (0.1, 0.0, 1.0), 20_000, slow=True, longest=100_000),
    "STEPD": Plan(128, (1.0, 0.0, 6.0), 500_000, longest=100_000),
}


# -- the operators' kernels on one stream among many -----------------------------------------------


def one_number(statistics: Any, settings: F8) -> Any:
    """Of a detector whose state is one array."""

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        statistics(values, held[0][i], settings, out)

    return feed


def feeder(name: str, detector: Any) -> Any:
    """feed(values, held, i, out): the statistics of stream i, whose arrays are held[.][i]."""
    simple = {
        "CUSUM": cusum_statistics,
        "DDM": ddm_statistics,
        "ECDD": ecdd_statistics,
        "HDDM_A": hddm_a_statistics,
        "HDDM_W": hddm_w_statistics,
        "PageHinkley": page_hinkley_statistics,
    }
    if name in simple:
        return one_number(simple[name], detector._settings)
    if name == "EDDM":
        return one_number(eddm_statistics, operators.error_rate._SOON)
    return FEEDERS[name](detector)


def _rddm(detector: Any) -> Any:
    settings = detector._settings

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        rddm_statistics(values, held[0][i], held[1][i], settings, out)

    return feed


def _fhddm(detector: Any) -> Any:
    eps = detector._eps(detector.sliding_window_size)

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        fhddm_statistics(values, held[0][i], held[1][i], 0, eps, out)

    return feed


def _stepd(detector: Any) -> Any:
    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        stepd_statistics(values, held[0][i], held[1][i], out)

    return feed


def _adwin(detector: Any) -> Any:
    shape = (detector.clock, float(detector.min_window_length), detector.grace_period)

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        adwin_statistics(values, held[0][i], held[1][i], held[2][i], shape, out)

    return feed


def _kswin(detector: Any) -> Any:
    newest = detector.stat_size

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        kswin_statistics(values, held[0][i], held[1][i], held[2][i], held[3][i], newest, out)

    return feed


def _change_point(detector: Any) -> Any:
    prior = (detector.prior_mean, detector.prior_var, detector.data_var, detector.hazard)
    by_length = detector._by_length

    @compiled
    def feed(values: F8, held: Any, i: int, out: F8) -> None:
        change_point_statistics(values, held[0][i], held[1][i], held[2][i], prior, by_length, out)

    return feed


FEEDERS: dict[str, Callable[[Any], Any]] = {
    "ADWIN": _adwin,
    "BayesianChangePoint": _change_point,
    "FHDDM": _fhddm,
    "KSWIN": _kswin,
    "RDDM": _rddm,
    "STEPD": _stepd,
}


# -- many streams ----------------------------------------------------------------------------------


@compiled
def seed_draws(seed: int) -> None:
    """Of compiled code, which knows numpy's first interface alone."""
    np.random.seed(seed)  # noqa: NPY002


@compiled
def counted(age: int, ones: int, regime: int, weight: float, cells: F8) -> None:
    """Add a weight to the four cells of a table around age and share of ones."""
    x = 2.0 * math.log2(age / 16.0)
    row = min(max(int(x), 0), cells.shape[0] - 2)
    x = min(max(x - row, 0.0), 1.0)
    last = cells.shape[1] - 1
    k, width, y = last, 0, 0.0
    if regime == BITS:
        k, width = 0, 1
        rate = math.log((ones + 0.5) / (age + 1.0))
        while k < last - 2 and rate > LOG_RATES[k + 1]:
            k += 1
        y = min(max((rate - LOG_RATES[k]) / (LOG_RATES[k + 1] - LOG_RATES[k]), 0.0), 1.0)
    for i in range(2):
        for j in range(1 + width):
            cells[row + i, k + j] += weight * (x if i else 1.0 - x) * (y if j else 1.0 - y)


def walker(feed: Any) -> Any:
    """The compiled walk of all streams through one step of age."""

    @compiled
    def walk(
        held: Any, rates: F8, ones: I8, age: int, until: int, limits: F8, slack: float,
        jitter: tuple[float, float], regime: int, ends: bool, over: F8, risk: F8, alarms: F8,
    ) -> None:  # fmt: skip
        """Feed each stream from its value `age` to its value `until`.

        held: arrays by stream, in/out | rates (n,): chance of a one, or the mean of normal values |
        ones (n,) in/out | limits (rows, 15); what is lower by more than `slack` than a limit a few
        values ago is not looked at, for it takes two logarithms | jitter: width, ratio | ends:
        a stream ends at its first alarm, which is counted | over (n,) out: how far the statistic
        was beyond the limit at most | risk, alarms (rows, 15) in/out.
        """
        values, out, near = np.empty(PIECE), np.empty(PIECE), -math.inf
        width, ratio = jitter
        for i in range(rates.shape[0]):
            t, over[i] = age, -math.inf
            while t < until and not (ends and over[i] > 0.0):
                n = min(PIECE, until - t)
                for k in range(n):
                    if regime == GIVEN:
                        z = np.random.standard_normal()  # noqa: NPY002
                        values[k] = rates[i] + z
                    else:
                        u = np.random.random()  # noqa: NPY002
                        values[k] = (1.0 if u < rates[i] else 0.0) if regime == BITS else u
                feed(values[:n], held, i, out[:n])
                for k in range(n):
                    t += 1
                    if regime == BITS and values[k] == 1.0:
                        ones[i] += 1
                    if ends and t % 8 == 4:
                        counted(t, ones[i], regime, 8.0, risk)
                    if k % 16 == 0:
                        near = limit(limits, t, ones[i], regime) - slack
                    said = out[k] + 0.5 * width
                    if not said > near or said == -math.inf:
                        continue
                    if regime == BITS and (ones[i] == 0 or ones[i] == t):
                        continue
                    u = np.random.random()  # noqa: NPY002
                    said -= width * (1.0 - spread(u, ratio))
                    above = said - limit(limits, t, ones[i], regime)
                    if above > over[i]:
                        over[i] = above
                        if ends and above > 0.0:
                            counted(t, ones[i], regime, 1.0, alarms)
                            break

    return walk


@dataclass
class Crowd:
    """Streams of one age, each with its detector."""

    held: tuple[Any, ...]
    rates: F8
    ones: I8
    age: int

    def pick(self, at: I8) -> None:
        """Only these, or copies of them."""
        self.held = tuple(each[at] for each in self.held)
        self.rates, self.ones = self.rates[at], self.ones[at]

    def replace(self, gone: Any, rng: np.random.Generator) -> None:
        """A copy of a stream that stays and is like it for each that is gone."""
        order = np.lexsort((rng.random(gone.shape[0]), self.ones))
        stay = order[~gone[order]]
        places = np.searchsorted(np.flatnonzero(~gone[order]), np.flatnonzero(gone[order]))
        near = places + rng.integers(-4, 4, places.shape[0])
        source = stay[np.clip(near, 0, stay.shape[0] - 1)]
        gone_at = order[gone[order]]
        for each in (*self.held, self.rates, self.ones):
            each[gone_at] = each[source]

    def thin(self, n: int, rng: np.random.Generator) -> None:
        """So many of them, evenly over the rates."""
        if n < self.rates.shape[0]:
            order = np.argsort(self.rates + 1e-9 * rng.random(self.rates.shape[0]))
            at = (np.arange(n) + rng.random(n)) * (order.shape[0] / n)
            self.pick(order[at.astype(np.int64)])


class Simulation:
    """A detector, its run length and regime, and the ages it is walked through."""

    def __init__(
        self, name: str, length: int, bits: bool, seed: int, alarms: int, times: int = 1
    ) -> None:
        """alarms: in one step of age, about, at rates; for one column a third is enough."""
        share = 1 if bits else 3
        kind = getattr(operators, name)
        self.plan = PLANS[name]
        self.length, self.fewest = length, times * FEWEST // share
        self.alarms = times * alarms // share
        detector = kind()
        detector.average_run_length = length
        detector._calibrate(length, 0, EMPTY)
        regime = BITS if bits else GIVEN if kind._takes == GIVEN else 1
        self.regime = int(regime)
        self.columns = slice(0, COLUMNS) if bits else slice(COLUMNS, COLUMNS + 1)
        self.jitter = (self.plan.jitter[0 if bits else 1], self.plan.jitter[2])
        self._arrays = [detector._fresh[each] for each in detector._fresh]
        if name == "ADWIN":  # levels for 5 * 2 ** 19 values are enough
            self._arrays = [self._arrays[0][:, :20], *self._arrays[1:]]
        self.walk = WALKERS.setdefault(name, walker(feeder(name, detector)))
        self.rng = np.random.default_rng([seed, length, bits])
        seed_draws(int(self.rng.integers(2**31)))

    def steps(self) -> Iterator[tuple[int, int, int]]:
        """Age, the next age, how many streams."""
        age, last = self.plan.warm_up - 1, 3 * self.length
        if self.plan.steady:
            last = min(last, self.plan.steady)
        while age < last:
            width = max(min(int(0.19 * age), self.length // 8, last - age), 8)
            n = max(self.alarms * self.length // width, self.fewest)
            yield age, min(age + width, last), min(n, self.plan.most)
            age += width

    def crowd(self) -> Crowd:
        """Streams up to the warm-up."""
        n = max(each for _, _, each in self.steps())
        rates = np.zeros(n)
        if self.regime == BITS:
            wide = self.rng.random(n) < 0.2
            low, high = np.where(wide, 0.008, 0.035), np.where(wide, 0.55, 0.5)
            rates = np.exp(self.rng.uniform(np.log(low), np.log(high)))
        elif self.regime == GIVEN:
            rates = self.rng.normal(size=n)
        held = tuple(np.repeat(each[None], n, axis=0) for each in self._arrays)
        found = Crowd(held, rates, np.zeros(n, dtype=np.int64), 0)
        self.advance(found, self.plan.warm_up - 1, np.full((ROWS, COLUMNS + 1), 1e300), 0.0)
        return found

    def table(self, limits: F8) -> F8:
        """Limits of all columns, those of this regime given."""
        out = np.zeros((ROWS, COLUMNS + 1))
        out[:, self.columns] = limits
        return out

    def slack(self, table: F8, age: int, until: int, margin: float) -> float:
        """How far a limit may move between two ages within a few values, and a margin."""
        first = min(max(int(row_of(age + 1)), 0), ROWS - 2)
        rows = table[first : int(row_of(until)) + 2, self.columns]
        return float(0.3 * (rows.max() - rows.min())) + margin

    def settled(self, table: F8, first: float) -> F8:
        """Rows that were not visited from those that were."""
        last = 3 * self.length
        if self.plan.steady and self.plan.steady < last:
            row = math.ceil(row_of(self.plan.steady))
            table = table.copy()
            table[row - 2 :] = table[row - 4 : row].mean(axis=0)
        return outward(table, max(int(first), 0), min(math.ceil(row_of(last)), ROWS - 1))

    def advance(self, crowd: Crowd, until: int, limits: F8, slack: float, cells: Any = None) -> F8:
        """Walk all streams; how far each went beyond its limit. cells: risk and alarms, in/out."""
        over = np.empty(crowd.rates.shape[0])
        risk, alarms = np.zeros((2, ROWS, COLUMNS + 1)) if cells is None else cells
        self.walk(
            crowd.held, crowd.rates, crowd.ones, crowd.age, until, limits, slack, self.jitter,
            self.regime, cells is not None, over, risk, alarms,
        )  # fmt: skip
        crowd.age = until
        return over


WALKERS: dict[str, Any] = {}


def hats(crowd: Crowd, bits: bool) -> F8:
    """Weight (n, columns) of each stream at the columns of a table beside its share of ones."""
    if not bits:
        return np.ones((crowd.rates.shape[0], 1))
    place = np.interp(np.log((crowd.ones + 0.5) / (crowd.age + 1.0)), LOG_RATES, np.arange(COLUMNS))
    found: F8 = np.maximum(1.0 - np.abs(place[:, None] - np.arange(COLUMNS)), 0.0)
    return found


def blurred(cells: F8) -> F8:
    """Each column with a little of its neighbours: what one lacks the others have."""
    if cells.shape[-1] == 1:
        return cells
    wide = np.concatenate((cells[..., :1], cells, cells[..., -1:]), axis=-1)
    out: F8 = 0.2 * wide[..., :-2] + 0.6 * wide[..., 1:-1] + 0.2 * wide[..., 2:]
    return out


def risen(over: F8, weights: F8, chance: float) -> tuple[F8, F8]:
    """How far the limit has to rise for so many to be over it, and tau, by column.

    over (n,) beyond the limit so far, weights (n, columns) | chance of an alarm in this step. Tau
    is the mean of what goes beyond a limit that three times as many exceed. Where hardly any are
    expected the limit stays nearly where it is.
    """
    expected = weights.sum(axis=0) * chance
    nearest = weights.argmax(axis=1)
    tau, rise = np.full(weights.shape[1], np.nan), np.zeros(weights.shape[1])
    chosen = []
    for j, n in enumerate(expected):
        at = np.flatnonzero((nearest == j) & (over > -1e300))
        at = at[np.argsort(-over[at])][: int(30.0 * n) + 30]
        chosen.append(at)
        if at.shape[0] > 0 and (n >= 1.0 or over[at[0]] > 0.0):
            rise[j] = over[at[min(int(n), at.shape[0] - 1)]]
        many = int(3.0 * n) + 10
        if at.shape[0] > many:
            tau[j] = over[at[:many]].mean() - over[at[many]]
    if np.isnan(tau).all():
        return np.zeros_like(tau), np.zeros_like(tau)
    known = ~np.isnan(tau)
    columns = np.arange(tau.shape[0])
    tau = blurred(np.maximum(np.interp(columns, columns[known], tau[known]), 1e-6))
    at = np.concatenate(chosen)
    over, weights = over[at], weights[at]
    wanted = blurred(expected) + 1.0
    for k in range(40):
        found = blurred(weights.T @ (over > weights @ rise)) + 1.0
        rise += (1.0 if k < 20 else 0.5) * tau * np.log(found / wanted)
    return rise, tau


def drawn_together(places: F8, found: F8, counts: F8, scale: F8) -> F8:
    """Rows of a table from what was found at places between: least squares, and little bend.

    places (steps,) in rows | found, counts: how well it is known, scale (steps, columns).
    """
    out = np.zeros((ROWS, found.shape[1]))
    between = np.maximum(1.0 - np.abs(places[:, None] - np.arange(ROWS)), 0.0)
    bend = np.diff(np.eye(ROWS), 2, axis=0)
    for j in range(found.shape[1]):
        weight = (counts[:, j] + 0.1) / np.median(scale[:, j]) ** 2
        stiff = 2.0 / np.median(scale[:, j]) ** 2
        matrix = between.T @ (weight[:, None] * between) + stiff * bend.T @ bend
        out[:, j] = np.linalg.solve(
            matrix + 1e-9 * np.eye(ROWS), between.T @ (weight * found[:, j])
        )
    return out


def outward(table: F8, first: int, last: int) -> F8:
    """Rows before the first that was visited as it is, after the last along its slope, never down.

    A limit that falls for ever would end in an alarm, whatever comes.
    """
    out = table.copy()
    out[:first] = out[first]
    slope = np.maximum((out[last] - out[max(last - 4, first)]) / 4.0, 0.0)
    for row in range(last + 1, ROWS):
        out[row] = out[last] + slope * (row - last)
    return out


def row_of(age: float) -> float:
    """The place of an age among the rows."""
    return 2.0 * math.log2(age / 16.0)


def fit_once(run: Simulation, guess: F8) -> tuple[F8, F8]:
    """Limits and tau (rows, columns of the regime) from one walk of the crowd."""
    crowd, bits = run.crowd(), run.regime == BITS
    n_columns = guess.shape[1]
    carry, margin = np.zeros(n_columns), math.inf
    places, found, taus, counts = [], [], [], []
    for age, until, n in run.steps():
        crowd.thin(n, run.rng)
        table = run.table(guess + carry)
        over = run.advance(crowd, until, table, run.slack(table, age, until, margin))
        weights = hats(crowd, bits)
        chance = 1.0 - (1.0 - 1.0 / run.length) ** (until - age)
        rise, tau = risen(over, weights, chance)
        crowd.replace(over > weights @ rise, run.rng)
        place = row_of(0.5 * (age + until))
        carry = carry + rise
        margin = 2.5 * float(tau.max()) + 1e-9
        row = min(int(place), ROWS - 2)
        middle = guess[row] + (place - row) * (guess[row + 1] - guess[row])
        places.append(place)
        found.append(middle + carry)
        taus.append(tau)
        counts.append(weights.sum(axis=0) * chance)
    at, tau_at, weight = np.array(places), np.array(taus), np.array(counts)
    tau_at = np.where(tau_at > 0.0, tau_at, np.median(tau_at, axis=0) + 1e-6)
    limits = drawn_together(at, np.array(found), weight, tau_at)
    tau_rows = np.maximum(drawn_together(at, tau_at, weight, tau_at), 0.2 * tau_at.mean(axis=0))
    return run.settled(limits, at[0]), run.settled(tau_rows, at[0])


def correct_once(run: Simulation, limits: F8, tau: F8, gain: float) -> tuple[F8, float]:
    """The limits after a walk of fresh streams under them, and the hazard times A that they had."""
    crowd, cells = run.crowd(), np.zeros((2, ROWS, COLUMNS + 1))
    table = run.table(limits)
    for age, until, n in run.steps():
        crowd.thin(n, run.rng)
        over = run.advance(crowd, until, table, run.slack(table, age, until, 0.0), cells)
        crowd.replace(over > 0.0, run.rng)
    risk, alarms = (aged(blurred(each[:, run.columns])) for each in cells)
    error = np.log((alarms + 1.5) / (risk / run.length + 1.5))
    hazard = float(cells[1].sum() / cells[0].sum() * run.length)
    first = row_of(run.plan.warm_up)
    return run.settled(limits + gain * tau * error, first), hazard


def aged(cells: F8) -> F8:
    """Each row with its neighbours: they may err in turn."""
    wide = np.pad(cells, ((1, 1), (0, 0)), mode="edge")
    out: F8 = 0.2 * wide[:-2] + 0.6 * wide[1:-1] + 0.2 * wide[2:]
    return out


def regimes_of(name: str) -> list[bool]:
    """Whether it takes bits, what else it takes."""
    kind = getattr(operators, name)
    return [True] if kind._bits_only else [False] if kind._takes else [True, False]


def fitted(
    name: str, seed: int, told: Callable[[str], None], held: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], F8]]:
    """The table of a detector, and tau, after each run length that was added to it.

    held: limits by run length that stay as they are, from the shortest on, perhaps none.
    """
    plan = PLANS[name]
    limits, tau = np.zeros((2, ROWS, COLUMNS + 1))
    found: dict[str, Any] = {"warm_up": plan.warm_up, "jitter": list(plan.jitter), "limits": held}
    if len(held) > 1:
        tables = np.array(list(held.values()))
        limits, tau = tables[-1], taus([int(each) for each in held], tables)[-1]
    before = max((int(each) for each in held), default=0)
    for length, alarms in ALARMS.items():
        if length > plan.longest:
            return
        if length <= before:
            continue
        if before:
            limits = limits + tau * math.log(length / before)
        for bits in regimes_of(name):
            run = Simulation(name, length, bits, seed, alarms)
            at = run.columns
            limits[:, at], tau[:, at] = fit_once(run, limits[:, at])
            run = Simulation(name, length, bits, seed + 1, alarms)
            limits[:, at], hazard = correct_once(run, limits[:, at], tau[:, at], GAIN)
            told(f"{name} {length} {'bits' if bits else 'numbers'}: hazard x A {hazard:.3f}")
        if getattr(operators, name)._takes:  # one column is all
            limits[:, :-1] = 0.0
        found["limits"][str(length)] = np.round(limits, 5).tolist()
        before = length
        yield found, tau.copy()


def taus(lengths: list[int], tables: F8) -> F8:
    """How far limits move when A grows by e, by run length: what the tables themselves say.

    tables (run lengths, rows, columns); a longest one has the tau of the one before.
    """
    moved = np.diff(tables, axis=0) / np.diff(np.log(lengths))[:, None, None]
    moved = np.concatenate((moved, moved[-1:]))
    found: F8 = np.maximum(moved, 0.3 * np.median(moved, axis=1, keepdims=True))
    return found


def corrected(
    name: str, found: dict[str, Any], seed: int, told: Callable[[str], None],
    chosen: dict[int, F8 | None],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A table with each of the chosen run lengths corrected on more fresh streams.

    chosen: tau by run length; None: as the tables say, which is far off where one of them is.
    """
    lengths = [int(each) for each in found["limits"]]
    tables = np.array(list(found["limits"].values()))
    moved = taus(lengths, tables)
    rounds = [(gain, 1) for gain in AGAIN_GAINS]
    rounds += [(gain, SLOW_TIMES) for gain in SLOW_GAINS if PLANS[name].slow]
    for length, table, said in zip(lengths, tables, moved, strict=True):
        if length not in chosen:
            continue
        known = chosen[length]
        tau = said if known is None else known
        for bits in regimes_of(name):
            for j, (gain, times) in enumerate(rounds):
                run = Simulation(name, length, bits, seed + 100 + j, AGAIN[length], times)
                at = run.columns
                rate = aged(blurred(tau[:, at]))
                table[:, at], hazard = correct_once(run, table[:, at], rate, gain)
                told(f"{name} {length} again {'bits' if bits else 'numbers'}: {hazard:.3f}")
        found["limits"][str(length)] = np.round(table, 5).tolist()
        yield found
