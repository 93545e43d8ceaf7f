"""Real data if it is there, the hypothesis profile, the marker for tests that need the JIT."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STREAMLEARN_DATA", ROOT.parent / "shared" / "data"))

SHARE = float(os.environ.get("STREAMLEARN_EXAMPLES", "1"))  # of the examples of every law

settings.register_profile(
    "suite",
    max_examples=max(1, round(10 * SHARE)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real streams; the test is skipped, visibly, where it is absent."""
    if not (DATA / "manifest.json").exists():
        pytest.skip(f"no real streams in {DATA}; set STREAMLEARN_DATA to their folder")
    return DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker process; with the JIT off skip what walks over 500 rows, visibly."""
    for item in items:
        if {"broker", "mesh"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("broker")
    if os.environ.get("NUMBA_DISABLE_JIT") != "1":
        return
    skip = pytest.mark.skip(reason="walks more than 500 rows; needs the JIT")
    for item in items:
        if item.get_closest_marker("jit"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Spare the cyclic collector what has been collected: a full look at it took a second.

    River's check of memory takes two such looks, a quarter of the processor time of the suite.
    """
    gc.collect()
    gc.freeze()


CHECKS = {"test_law": "conformance", "test_river_check": "River"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many conformance and River checks each operator has passed, where any were run."""
    counts: dict[str, dict[str, int]] = {}
    for report in terminalreporter.getreports("passed"):
        test, _, case = report.nodeid.rpartition("::")[2].partition("[")
        if test in CHECKS:
            subject = case.rpartition("-")[0].partition("[")[0]
            row = counts.setdefault(subject, dict.fromkeys(CHECKS, 0))
            row[test] += 1
    if not counts:
        return
    terminalreporter.section("checks passed")
    counts["all"] = {test: sum(row[test] for row in counts.values()) for test in CHECKS}
    for subject, row in counts.items():
        parts = [f"{CHECKS[test]}: {n:5d}" for test, n in row.items()]
        terminalreporter.write_line(f"{subject:28s} {'  '.join(parts)}")
