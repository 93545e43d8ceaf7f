"""The laws of the conformance suite, for what stands on the device.

On a GPU all of them, on the hard streams of `check_operator`; in the simulator, where a row costs
milliseconds, that of late labels, which the other tests here do not look at.
"""

from typing import Any

import pytest

from streamlearn import operators
from streamlearn.jit.cuda import _compile
from streamlearn.testing import (
    Plan,
    Stream,
    check_late_labels,
    check_operator,
)

THERE: dict[str, Any] = {"device": "cuda"}
MAKES = {
    "KalmanClassifier": lambda: operators.KalmanClassifier(delta0=0.01, **THERE),
    "KalmanRegressor": lambda: operators.KalmanRegressor(random_features=2, **THERE),
    "LiteRVFLClassifier": lambda: operators.LiteRVFLClassifier(hidden=2, warm_up=3, **THERE),
    "LiteRVFLRegressor": lambda: operators.LiteRVFLRegressor(hidden=2, memory=9.0, **THERE),
    "OnlineBaggingClassifier": lambda: operators.OnlineBaggingClassifier(n=2, **THERE),
    "OnlineBaggingRegressor": lambda: operators.OnlineBaggingRegressor(n=2, lam=1.0, **THERE),
    "ADWINBaggingClassifier": lambda: operators.ADWINBaggingClassifier(n=2, delta=0.9, **THERE),
    "ExpertMixtureClassifier": lambda: operators.ExpertMixtureClassifier(
        [operators.KalmanClassifier(), operators.NoChangeClassifier()], **THERE
    ),
    "ExpertMixtureRegressor": lambda: operators.ExpertMixtureRegressor(**THERE),
    "GaussianMixtureAnomalyScorer": lambda: operators.GaussianMixtureAnomalyScorer(
        std=1.0, **THERE
    ),
    "GaussianMixtureClassifier": lambda: operators.GaussianMixtureClassifier(
        warm_start=9, k_max=3, v_min=5.0, rho=0.9, **THERE
    ),
    "GaussianMixtureClassifier by class": lambda: operators.GaussianMixtureClassifier(
        components="by_class", warm_start=20, balance=True, k_max=2, **THERE
    ),
    "GaussianMixtureRegressor": lambda: operators.GaussianMixtureRegressor(std=1.0, **THERE),
}
FEW = ("OnlineBaggingClassifier",)  # of the others their own tests show as much


@pytest.mark.parametrize("name", FEW if _compile.SIMULATED else MAKES)
def test_the_laws_hold_on_the_device(name: str) -> None:
    make = MAKES[name]
    if not _compile.SIMULATED:
        check_operator(make, streams=3)
        return
    kinds: Any = (("normal",), ("boolean",))
    stream = Stream.from_plan(Plan("classification", (3, 2), kinds, "late", gaps=True, seed=1))
    check_late_labels(make, stream, [3])
