"""Memory stays flat however many events pass; the long form runs under `make soak`."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
    import pathlib
    import sys

    import streamlearn

    def peak():  # not ru_maxrss, which begins at the parent's peak
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    events = int(sys.argv[1])
    pipe = streamlearn.Pipeline(
        streamlearn.Imputer(), streamlearn.Normalizer(),
        streamlearn.KalmanClassifier(), streamlearn.ADWIN(),
    )
    where = f"drift:recurring?n={events}&d=8&at=50000&seed=3"
    streamlearn.replay(pipe, where, target="y", limit=events // 5)
    first = peak()
    result = streamlearn.replay(pipe, where, target="y")
    assert result.events == events, result.events
    print(peak() - first)
"""


@pytest.fixture(autouse=True)
def _linux() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")


def _growth(events: int) -> float:
    """MiB by which the peak of a process grows between a fifth of the stream and all of it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(events)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.jit
def test_memory_is_flat_over_half_a_million_events() -> None:
    assert _growth(500_000) < 16.0


@pytest.mark.soak
def test_memory_is_flat_over_ten_million_events() -> None:
    assert _growth(10_000_000) < 16.0
