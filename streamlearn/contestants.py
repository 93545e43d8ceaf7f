"""Drift detectors of this package, of River and of frouros, as functions of one kind."""

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamlearn import operators
from streamlearn.block import F8
from streamlearn.operators._calibrated import longest

Run = Callable[[F8], list[int]]  # a stream to the indices of its alarms, by a new detector

ON_NUMBERS = ("ADWIN", "PageHinkley", "CUSUM", "KSWIN", "BayesianChangePoint")
ON_ERRORS = (
    "ADWIN", "PageHinkley", "CUSUM", "KSWIN", "DDM", "EDDM", "RDDM", "HDDM_A", "HDDM_W", "ECDD",
    "FHDDM", "STEPD",
)  # fmt: skip
_RIVER = {
    "ADWIN": "ADWIN", "PageHinkley": "PageHinkley", "KSWIN": "KSWIN", "DDM": "binary.DDM",
    "EDDM": "binary.EDDM", "HDDM_A": "binary.HDDMA", "HDDM_W": "binary.HDDMW",
    "FHDDM": "binary.FHDDM",
}  # fmt: skip
_FROUROS = {
    "ADWIN": "ADWIN", "PageHinkley": "PageHinkley", "CUSUM": "CUSUM", "KSWIN": "KSWIN",
    "DDM": "DDM", "EDDM": "EDDM", "RDDM": "RDDM", "HDDM_A": "HDDMA", "HDDM_W": "HDDMW",
    "ECDD": "ECDDWT", "STEPD": "STEPD",
}  # fmt: skip
_TAKES_RIGHT = (("river", "FHDDM"), ("frouros", "STEPD"))  # 1 = right: these get the complement
_SLOW = ("KSWIN",)  # of others: a sort an event


@dataclass(frozen=True)
class Contestant:
    """A detector with its settings; `slow` ones walk fewer streams."""

    name: str
    package: str
    setting: str
    run: Run
    slow: bool = False


def ours(watched: str, average_run_length: int) -> Iterator[Contestant]:
    """Those of this package that take such a stream: as published, and calibrated where they are.

    Args:
        watched: errors or numbers. average_run_length: of the calibrated ones, in events.
    """
    for name in ON_ERRORS if watched == "errors" else ON_NUMBERS:
        kind = operators.exported()[name]
        yield Contestant(name, "streamlearn", "published", _our_run(kind))
        takes = "average_run_length" in inspect.signature(kind).parameters
        if takes and average_run_length <= longest(name):
            run = _our_run(kind, average_run_length=average_run_length)
            yield Contestant(name, "streamlearn", f"A = {average_run_length:,}", run)


def _our_run(kind: Any, **given: Any) -> Run:
    def run(values: F8) -> list[int]:
        detector, found, start = kind(**given), [], 0
        while (at := detector.first_alarm(values[start:])) >= 0:
            start += at + 1
            found.append(start - 1)
        return found

    return run


def of_river(watched: str) -> Iterator[Contestant]:
    """River's, with its own constants; KSWIN's generator is seeded with 0."""
    drift = importlib.import_module("river.drift")
    for name in ON_ERRORS if watched == "errors" else ON_NUMBERS:
        if name in _RIVER:
            kind: Any = drift
            for part in _RIVER[name].split("."):
                kind = getattr(kind, part, None) or getattr(kind, name)  # an older River: as ours
            given = {"seed": 0} if name == "KSWIN" else {}
            run = _river_run(kind, given, ("river", name) in _TAKES_RIGHT, watched == "errors")
            yield Contestant(name, "river", "its own", run, name in _SLOW)


def _river_run(kind: Any, given: dict[str, int], takes_right: bool, bits: bool) -> Run:
    def run(values: F8) -> list[int]:
        detector, found = kind(**given), []
        for i, value in enumerate(_listed(values, takes_right, bits)):
            detector.update(value)
            if detector.drift_detected:
                found.append(i)
        return found

    return run


def of_frouros(watched: str) -> Iterator[Contestant]:
    """Those of frouros, with its own constants; none where it is not installed.

    Its Bayesian change point is left out: it keeps a matrix of events squared; and on numbers its
    ADWIN, which raises an error where a sum of them is negative.
    """
    try:
        drift = importlib.import_module("frouros.detectors.concept_drift")
    except ImportError:
        return
    for name in ON_ERRORS if watched == "errors" else ON_NUMBERS:
        if name in _FROUROS and (name, watched) != ("ADWIN", "numbers"):
            takes_right = ("frouros", name) in _TAKES_RIGHT
            run = _frouros_run(getattr(drift, _FROUROS[name]), takes_right, watched == "errors")
            yield Contestant(name, "frouros", "its own", run, name in _SLOW)


def _frouros_run(kind: Any, takes_right: bool, bits: bool) -> Run:
    def run(values: F8) -> list[int]:
        detector, found = kind(), []
        np.random.seed(0)  # noqa: NPY002  # its KSWIN draws from this one
        with warnings.catch_warnings():  # SciPy's KS test gives up where rounding makes p > 1
            warnings.simplefilter("ignore", RuntimeWarning)
            for i, value in enumerate(_listed(values, takes_right, bits)):
                detector.update(value=value)
                if detector.drift:
                    found.append(i)
                    detector.reset()
        return found

    return run


def _listed(values: F8, takes_right: bool, bits: bool) -> list[Any]:
    """Plain numbers: what these are usually given."""
    if bits:
        return [int(value != takes_right) for value in values.tolist()]
    return [float(value) for value in values.tolist()]
