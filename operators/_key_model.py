"""What each key of a bank has: a linear head, and before it, if asked for, its own scaling."""

import math
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import B1, F8, Block
from streamlearn.contracts import Json
from streamlearn.jit import bank
from streamlearn.operators._base import Operator
from streamlearn.operators._layout import Layout
from streamlearn.operators.analytic import AnalyticClassifier, AnalyticRegressor
from streamlearn.operators.scale import Normalizer

_PLAIN = {
    "form": "standard", "groups": "shared", "random_features": 0, "evaluator": "mean_field",
    "window": None,
}  # fmt: skip


class KeyModel(NamedTuple):
    """The parameters that all keys have: of the head, and of what scales its features, if any."""

    head: Operator
    scaler: Normalizer | None

    @property
    def least(self) -> bool:
        """Whether the head is one of least squares."""
        return isinstance(self.head, (AnalyticClassifier, AnalyticRegressor))

    @property
    def settings(self) -> F8:
        """Of the head, as kernels take them."""
        given: F8 = self.head._settings  # type: ignore[attr-defined]  # both kinds have some
        return given.copy()

    @property
    def shape(self) -> tuple[float, float, float, bool]:
        """q, eps, c and the order of the scaling, as kernels take them."""
        scaler = self.scaler
        assert scaler is not None  # the caller saw to it
        return scaler._decay, scaler.eps, scaler.clip, scaler.update_first

    def layout(self, d: int, K: int) -> Layout:
        """Of records with so many features and outputs."""
        fresh = getattr(self.head, "sigma_w2", None)
        variance = 1.0 / getattr(self.head, "ridge", 1.0) if fresh is None else fresh
        return Layout(d, K, variance, 0 if self.scaler is None else bank.MOMENTS)

    def blank(self, layout: Layout) -> F8:
        """The record of a key that is new."""
        scale = math.log(getattr(self.head, "alpha0", 1.0))
        record = layout.blank(getattr(self.head, "delta0", 0.0), scale)
        if isinstance(self.head, AnalyticClassifier):
            record[bank.FISHER] = 1.0
        return record

    @property
    def plain(self) -> Json:
        """Names and parameters, as JSON."""
        head: Json = [type(self.head).__name__, self.head._plain_parameters()]
        if self.scaler is None:
            return head
        return [[type(self.scaler).__name__, self.scaler._plain_parameters()], head]


def key_model(owner: str, model: Any, *kinds: type[Operator]) -> KeyModel:
    """The parts of a model, one of these kinds, or a pipeline of Normalizer() and such a one.

    Raises: ValueError for a model whose equations no record holds.
    """
    stages = getattr(model, "stages", (model,))
    head, before = stages[-1], stages[:-1]
    if type(head) not in kinds or [type(stage) for stage in before] not in ([], [Normalizer]):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{owner}: model must be a {names}, or a Pipeline of Normalizer() and one, "
            f"got {model!r}"
        )
    for name, rule in _PLAIN.items():
        value = getattr(head, name, rule)
        if value != rule:
            raise ValueError(f"{owner}: model.{name} must be {rule!r}, got {value!r}")
    return KeyModel(head, before[0] if before else None)


def come_back(block: Block) -> B1:
    """Rows whose features come back from a log, (n,): those were scaled with their event."""
    given = np.zeros(block.n, dtype=np.bool_)
    if block.logged is not None:
        given |= block.logged.held.get("X", given)
        if block.logged.met is not None:
            given[block.logged.met.rows] = True
    return given
