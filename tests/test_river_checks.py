"""Every exported operator that fits one of River's bases passes every one of River's own checks.

What River's installed version checks is run, all of it: `_unit_test_skips` stays empty. River's
checks read data sets; those that ship inside the river package are used as they are, and the one
that would be downloaded, CreditCard, is replaced by rows of the same shape made here.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from river import base, checks, datasets

from streamlearn import operators
from streamlearn.operators import foreign

BASES = (
    base.Classifier,
    base.Regressor,
    base.Transformer,
    *([base.AnomalyDetector] if hasattr(base, "AnomalyDetector") else []),  # not in River 0.22
    base.DriftDetector,
)
FOREIGN = (
    foreign.RiverClassifier,
    foreign.RiverRegressor,
    foreign.RiverTransformer,
    foreign.RiverScorer,
    foreign.RiverDetector,
)
CLASSES: list[Any] = [*operators.exported().values(), *FOREIGN]


class LocalCreditCard:
    """As CreditCard: times, 28 components, an amount; and, unlike there, one fraud in twenty."""

    def take(self, k: int) -> Iterator[tuple[dict[str, float], int]]:
        """The first k of an endless stream, the same each time."""
        rng = np.random.default_rng(1)
        for t in range(k):
            fraud = int(rng.random() < 0.05)
            values = rng.normal(6.0 * fraud, 1.0, 28)
            x = {"Time": float(t), "Amount": float(rng.gamma(2.0, 40.0))}
            yield x | {f"V{j + 1}": float(v) for j, v in enumerate(values)}, fraud


def _models() -> Iterator[tuple[str, Any, list[pytest.MarkDecorator]]]:
    """Every operator as `_unit_test_params` builds it; the second way and more in a soak test."""
    for found in CLASSES:
        if not issubclass(found, BASES):
            continue
        for k, params in enumerate(found._unit_test_params()):
            marks = [pytest.mark.jit, pytest.mark.soak] if k > 0 else [pytest.mark.jit]
            yield f"{found.__name__}[{k}]" if k else found.__name__, found(**params), marks


def _cases() -> Iterator[Any]:
    for name, model, marks in _models():
        seen: dict[str, int] = {}
        for i, check in enumerate(checks.yield_checks(model)):
            k = seen[check.__name__] = seen.get(check.__name__, -1) + 1
            title = f"{name}-{check.__name__}[{k}]" if k else f"{name}-{check.__name__}"
            yield pytest.param(model, i, id=title, marks=marks)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CreditCard", LocalCreditCard)


@pytest.mark.parametrize(("model", "i"), list(_cases()))
def test_river_check(model: Any, i: int) -> None:
    """The i-th check that River yields for the model, on a clone as River's own suite does it."""
    next(islice(checks.yield_checks(model), i, None))(model.clone())


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_nothing_is_skipped(found: Any) -> None:
    for params in found._unit_test_params():
        skips = getattr(found(**params), "_unit_test_skips", set)
        assert skips() == set()
