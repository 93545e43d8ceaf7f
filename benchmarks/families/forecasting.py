"""The online forecaster: what it costs beside plain numpy, and the tables of its specification."""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.families import Cost, Table, triangle
from streamlearn.block import F8, SCORED
from streamlearn.forecasting import LAST, MODEL, SEASONAL, Forecast, evaluate, read_series
from streamlearn.operators.forecaster import NETWORKS, OnlineForecaster
from streamlearn.testing import block_of

CANDIDATES: dict[str, dict[str, tuple[Any, ...]]] = {
    "OnlineForecaster": {
        "experts": (
            ("cross_time", "cross_variable"),
            ("cross_time",),
            ("cross_variable",),
            ("cross_time", "cross_variable", "last_value"),
        ),
        "share": (0.01, 0.0, 0.001, 0.05),
        "eta": (0.5, 0.1, 2.0),
        "forgetting": (0.9995, 0.999, 0.9999),
        "ridge": (10.0, 1.0, 100.0),
        "warm_up": (1000, 300, 3000),
        "correction": (False, True),
    }
}
SPEC: dict[str, Any] = {"warm_up": 0, "share": 0.0, "scale_loss": False, "leaky": False}
BOTH = ("cross_time", "cross_variable")


class PlainForecaster:
    """The same equations in numpy, a matrix-vector product a step; series come standardised.

    overlap: a window teaches when it was made, with targets still to come: the protocol that leaks.
    """

    def __init__(
        self, M: int, H: int, L: int = 60, C: int = 11, *, ridge: float = 10.0, f: float = 0.9995,
        eta: float = 0.5, share: float = 0.01, scaled: bool = True, overlap: bool = False,
    ) -> None:  # fmt: skip
        self.H, self.L, self.C, self.f, self.ridge = H, L, C, f, ridge
        self.eta, self.share, self.scaled, self.overlap = eta, share, scaled, overlap
        self.P1, self.B1 = np.eye(L + 1) / ridge, np.zeros((L + 1, H))
        D2 = 1 + M * (C + 1)
        self.P2, self.B2 = np.eye(D2) / ridge, np.zeros((D2, M * H))
        self.logu, self.lscale, self.turn = np.full((M, 2), math.log(0.5)), np.ones(M), 0
        self.low, self.high = np.full((M, H), 2.06), np.full((M, H), 2.06)
        self.size, self.seen = np.zeros((M, H)), 0

    def run(self, Z: F8) -> dict[str, F8]:
        """Forecasts (n, M, H) of both experts, of their mean and of their mixture."""
        n, M = Z.shape
        made = np.full((4, n, M, self.H), np.nan)
        steps = np.diff(Z, axis=0, prepend=Z[:1])
        bounds = np.full((2, n, M, self.H), np.nan)
        for t in range(n):
            self._track(t, Z, made[3], bounds)
            if not self.overlap and t - self.H >= self.L - 1:
                self._learn(t - self.H, Z, steps, made)
            if t >= self.L - 1:
                self._answer(t, Z, steps, made)
                bounds[0, t] = made[3, t] - self.low * self.size
                bounds[1, t] = made[3, t] + self.high * self.size
                if self.overlap and t + self.H < n:
                    self._learn(t, Z, steps, made)
        return dict(zip(("f1", "f2", "mean", "mixture"), made, strict=True))

    def _inputs(self, t: int, Z: F8, steps: F8) -> tuple[F8, F8]:
        """(M, L + 1) lags less the last value, and (D2,) levels and steps of all channels."""
        window = Z[t - self.L + 1 : t + 1]
        lags = np.ones((Z.shape[1], self.L + 1))
        lags[:, 1:] = (window - window[-1]).T
        return lags, np.concatenate([[1.0], Z[t], steps[t - self.C + 1 : t + 1].ravel()])

    def _learn(self, s: int, Z: F8, steps: F8, made: F8) -> None:
        lags, state = self._inputs(s, Z, steps)
        Y = (Z[s + 1 : s + 1 + self.H] - Z[s]).T  # (M, H)
        f = self.f
        for x, y in zip(lags, Y, strict=True):
            _update(self.P1, self.B1, x, y, f)
            f = 1.0
        _update(self.P2, self.B2, state, Y.ravel(), self.f)
        if (
            self.share > 0.0
        ):  # the form that is bounded; the specification's table has the plain one
            for P, B in ((self.P1, self.B1), (self.P2, self.B2)):
                _leak(P, B, (1.0 - self.f) * self.ridge * len(P), self.turn % len(P))
            self.turn += 1
        truth = Z[s + 1 : s + 1 + self.H].T
        loss = np.mean((made[:2, s] - truth) ** 2, axis=2).T  # (M, 2)
        if self.scaled:
            self.lscale = 0.99 * self.lscale + 0.01 * loss.mean(axis=1)
            loss = np.minimum(loss / self.lscale[:, None], 10.0)
        self.logu -= self.eta * loss
        self.logu -= np.logaddexp(self.logu[:, 0], self.logu[:, 1])[:, None]
        if self.share > 0.0:
            self.logu = np.log((1.0 - self.share) * np.exp(self.logu) + 0.5 * self.share)

    def _answer(self, t: int, Z: F8, steps: F8, made: F8) -> None:
        lags, state = self._inputs(t, Z, steps)
        made[0, t] = Z[t][:, None] + lags @ self.B1
        made[1, t] = Z[t][:, None] + (state @ self.B2).reshape(-1, self.H)
        w = np.clip(np.exp(self.logu[:, :1]), 1e-4, 1.0 - 1e-4)
        made[2, t] = 0.5 * (made[0, t] + made[1, t])
        made[3, t] = w * made[0, t] + (1.0 - w) * made[1, t]

    def _track(self, t: int, Z: F8, mixed: F8, bounds: F8) -> None:
        H = min(self.H, t - self.L + 1)
        if H < 1:
            return
        back = t - 1 - np.arange(H)
        off = Z[t] - mixed[back, :, np.arange(H)]  # (H, M)
        self.low[:, :H] += 0.02 * ((Z[t] < bounds[0, back, :, np.arange(H)]) - 0.05).T
        self.high[:, :H] += 0.02 * ((Z[t] > bounds[1, back, :, np.arange(H)]) - 0.05).T
        self.seen = min(self.seen + 1, 200)
        self.size[:, :H] += (np.abs(off).T - self.size[:, :H]) / self.seen


def _update(P: F8, B: F8, x: F8, y: F8, f: float) -> None:
    g = P @ x
    den = f + x @ g
    B += np.outer(g, (y - x @ B) / den)
    P -= np.outer(g, g / den)
    if f != 1.0:
        P /= f


def _leak(P: F8, B: F8, c: float, i: int) -> None:
    g = P[i].copy()
    c /= 1.0 + c * g[i]
    B -= np.outer(c * g, B[i])
    P -= np.outer(c * g, g)


# -- costs -----------------------------------------------------------------------------------------


def costs() -> Iterator[Cost]:
    """By channels, horizon and look back; `wide` is the larger of both matrices."""
    for M, H, L, C, grows in (
        (1, 1, 15, 11, ""), (8, 1, 15, 0, ""), (8, 1, 60, 11, ""), (8, 24, 60, 11, ""),
        (54, 1, 60, 1, ""), *((8, 1, L, 0, "lags") for L in (30, 60, 127, 255, 500)),
    ):  # fmt: skip
        own, cross = triangle(L + 1, M * H, heads=M), triangle(1 + M * (C + 1), M * H)
        own["flops"] -= 4.0 * (M - 1) * M * H * (L + 1)  # a channel's rows have H outputs alone
        own["bytes"] = triangle(L + 1, M * H)["bytes"]  # one matrix for all channels
        yield Cost(
            "OnlineForecaster",
            f"{M} channels, {H} ahead, {L} lags, {C} cross lags",
            lambda H=H, L=L, C=C: OnlineForecaster(H, L, C, warm_up=0),  # type: ignore[misc]
            lambda X, _, M=M, H=H, L=L, C=C: _plainly(X, M, H, L, C),  # type: ignore[misc]
            M,
            max(L + 1, 1 + M * (C + 1)),
            grows=grows,
            many=L + 1,
            flops=own["flops"] + cross["flops"],
            bytes=own["bytes"] + cross["bytes"],
            spec="M (3 D1^2 + 4 H D1) + 3 D2^2 + 4 M H D2",
        )


def _plainly(X: F8, M: int, H: int, L: int, C: int) -> None:
    PlainForecaster(M, H, L, C).run(X)


# -- tables ----------------------------------------------------------------------------------------

PUBLISHED = {  # section 9, MSE / MAE
    (1, "P2"): (
        "0.404 / 0.336",
        "0.353 / 0.332",
        "0.362 / 0.340",
        "0.344 / 0.326",
        "0.347 / 0.326",
    ),
    (24, "P2"): (
        "1.818 / 0.688",
        "1.663 / 0.572",
        "1.963 / 0.628",
        "1.708 / 0.577",
        "1.664 / 0.573",
    ),
    (24, "P0"): (
        "1.818 / 0.688",
        "1.559 / 0.566",
        "1.442 / 0.585",
        "1.436 / 0.555",
        "1.354 / 0.543",
    ),
    (48, "P2"): (
        "2.852 / 0.788",
        "2.774 / 0.676",
        "3.421 / 0.781",
        "2.907 / 0.697",
        "2.867 / 0.690",
    ),
    (48, "P0"): (
        "2.852 / 0.788",
        "2.583 / 0.667",
        "2.145 / 0.686",
        "2.230 / 0.650",
        "1.968 / 0.623",
    ),
}


def tables(data: Path) -> Iterator[Table]:
    """Section 9 on ETTh2, and the defaults on all three sets beside their baselines."""
    yield _section_nine(data)
    yield _defaults(data)
    if importlib.util.find_spec("torch") is not None:
        yield _networks(data)


def _etth2(data: Path) -> F8:
    X = read_series(str(data / "ETTh2.parquet"), limit=14_400)[0].values
    Z: F8 = (X - X[:2880].mean(axis=0)) / X[:2880].std(axis=0)
    return Z


def _section_nine(data: Path) -> Table:
    Z, rows = _etth2(data), []
    for (H, protocol), published in PUBLISHED.items():
        if protocol == "P2":
            ours = [_ours(Z, H, name) for name in ("last", "f1", "f2", "mean", "EGD", "EGD + net")]
        else:
            ours = _leaking(Z, H)
        pairs = [f"{p}; {o}" for p, o in zip((*published, "-"), ours, strict=False)]
        pairs += ["-"] * (6 - len(pairs))
        rows.append((f"{H}, {protocol}", *pairs))
    head = ("H, protocol", "last value", "f1", "f2", "mean", "EGD", "EGD + MLP")
    note = "MSE / MAE: the specification's; ours. P0 learns from targets that are still to come."
    return Table("Forecasting ETTh2, two recursive ridges", head, rows, note)


def _ours(Z: F8, H: int, name: str) -> str:
    """MSE / MAE of one column without a leak, with the settings of section 9."""
    experts = {"last": ("last_value",), "f1": BOTH[:1], "f2": BOTH[1:]}.get(name, BOTH)
    eta = 0.0 if name == "mean" else 0.5
    more: dict[str, Any] = {"correction": True} if name == "EGD + net" else {}
    found = _evaluated(Z, OnlineForecaster(H, experts=experts, eta=eta, **SPEC, **more))
    return _cell(found.scores[MODEL])


def _evaluated(Z: F8, model: OnlineForecaster) -> Forecast:
    from streamlearn.forecasting import Series

    names = [f"z{j}" for j in range(Z.shape[1])]
    return evaluate(Series(Z, names, None), names, model, season=24, train=2880, start=3600)


def _leaking(Z: F8, H: int) -> list[str]:
    plain = PlainForecaster(Z.shape[1], H, share=0.0, scaled=False, overlap=True)
    made = plain.run(Z) | {"last": np.repeat(Z[:, :, None], H, axis=2)}
    origins = np.arange(3599, len(Z) - H)
    truth = np.stack([Z[origins + 1 + h] for h in range(H)], axis=2)
    cells = []
    for name in ("last", "f1", "f2", "mean", "mixture"):
        e = made[name][origins] - truth
        cells.append(_cell({"mse": float((e * e).mean()), "mae": float(np.abs(e).mean())}))
    return cells


def _cell(score: dict[str, Any]) -> str:
    return f"{score['mse']:.3f} / {score['mae']:.3f}"


def _defaults(data: Path) -> Table:
    """Splits of the papers: 20 % scale, 5 % more before the first target; ETTh2: 14,400 rows."""
    rows = []
    for name, limit in (("ETTh2", 14_400), ("ETTm2", None), ("WTH", None)):
        series, targets = read_series(str(data / f"{name}.parquet"), limit=limit)
        for H in (1, 24, 48):
            found = evaluate(series, targets, OnlineForecaster(H))
            scores = [
                _cell(found.scores[who]) for who in (MODEL, LAST, SEASONAL) if who in found.scores
            ]
            scores += ["-"] * (3 - len(scores))
            rows.append((f"{name}, {H}", *scores, str(found.season), f"{found.coverage:.3f}"))
    head = ("data, H", "model", "last value", "seasonal", "season", "coverage of 0.9")
    return Table(
        "OnlineForecaster with its defaults, no leak", head, rows, "MSE / MAE, standardised."
    )


def _networks(data: Path) -> Table:
    """The first 4,000 online rows of ETTh2: each expert by itself, and mixtures of them."""
    Z, rows = _etth2(data)[:7600], []
    for H in (1, 24):
        alone = _experts_alone(Z, H)
        ridges = _evaluated(Z, OnlineForecaster(H, warm_up=2880))
        mixed = [_cell(ridges.scores[LAST]), _cell(ridges.scores[MODEL]), alone.pop("mixture")]
        rows.append((str(H), *alone.values(), *mixed))
    head = ("H", *BOTH, *NETWORKS, "last value", "both ridges", "all four")
    return Table("Forecasting ETTh2 with networks", head, rows, "MSE / MAE, 4,000 online rows.")


def _experts_alone(Z: F8, H: int) -> dict[str, str]:
    """MSE / MAE of each expert and of their mixture, by one walk: none knows of the others."""
    model = OnlineForecaster(H, experts=(*BOTH, *NETWORKS), warm_up=2880)
    names = [f"z{j}" for j in range(Z.shape[1])]
    made: dict[str, list[F8]] = {name: [] for name in (*model.experts, "mixture")}
    for t in range(len(Z) - H):
        told = model.run(block_of(Z[t : t + 1], mode=SCORED, names=names))["forecast"][0]
        if t >= 3599:
            made["mixture"].append(told - Z[t + 1 : t + 1 + H])
            for k, name in enumerate(model.experts):
                made[name].append(model.answers_[t % H, k].T - Z[t + 1 : t + 1 + H])
    found = {}
    for name, each in made.items():
        e = np.array(each)
        found[name] = _cell({"mse": float(np.mean(e * e)), "mae": float(np.abs(e).mean())})
    return found
