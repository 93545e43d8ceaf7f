"""Whether kernels allocate by the event: Numba's own counters, over n and over 2 n rows.

A call makes a handle for each array that a kernel is given or gives back, whatever its length;
these handles are taken off, and what is left is what kernels allocate themselves. In a process of
its own, because Numba reads NUMBA_NRT_STATS when it is imported, and on one core, without threads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys

from benchmarks import clock, per_operator
from benchmarks.tables import markdown

TITLE = "No allocation by the event"
ABOUT = """\
What Numba's counters say while a block of *n* and one of 2 *n* rows is walked: labelled events, 8
features, operators as the tests of conformance build them first, past their first blocks. Shown is
the most that one call of a kernel allocates, less a handle for each array that it is given or gives
back; equal for *n* and 2 *n* rows means that none is made by the event. *Calls* are those of
kernels from Python: an operator that walks in groups of events makes more over more rows."""
ROWS = 400
_runtime: Any = rtsys


def measure(quick: bool) -> list[dict[str, Any]]:
    """Counts of all operators; a quick look at some."""
    names = ["Normalizer", "KalmanRegressor", "ADWIN"] if quick else []
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.allocations", *names],
        env={**os.environ, "NUMBA_NRT_STATS": "1", "PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def tables(found: list[dict[str, Any]]) -> list[str]:
    """What was found in a line, and a row an operator; those that allocate by the event first."""
    some = [f["operator"] for f in found if by_event(f)]
    said = f"Of {len(found)} operators, {len(some) or 'none'} allocate by the event"
    rows = [
        (f["operator"], *(f"{f[k][j]:,}" for j in (0, 1) for k in ("once", "twice")))
        for f in sorted(found, key=lambda f: (-by_event(f), -f["twice"][0], f["operator"]))
    ]
    head = ("operator", "a call, n rows", "2 n rows", "calls, n rows", "2 n rows")
    return [f"{said}{': ' * bool(some)}{', '.join(some)}.", markdown(head, rows)]


def by_event(found: dict[str, Any]) -> float:
    """Allocations of a kernel that an event costs."""
    return float(found["twice"][0] - found["once"][0]) / ROWS


class Watched:
    """Kernels as the engine and the operators call them, with the most that a call allocates."""

    def __init__(self) -> None:
        self.most = self.calls = 0
        rtsys.initialize(cpu_target.target_context)  # as the first kernel would: counters are on
        for name, module in list(sys.modules.items()):
            if not name.startswith("streamlearn.") or name.startswith("streamlearn.jit"):
                continue
            kinds = [v for v in vars(module).values() if getattr(v, "__module__", "") == name]
            for place in (module, *(kind for kind in kinds if isinstance(kind, type))):
                for attribute, value in list(vars(place).items()):
                    counted = self._counted(value)
                    if counted is not value:
                        setattr(place, attribute, counted)

    def _counted(self, value: Any) -> Any:
        """The same, where it is or holds a kernel, with a count."""
        if isinstance(value, Dispatcher):
            return self._call(value)
        if isinstance(value, staticmethod):
            inner = self._counted(value.__func__)
            return value if inner is value.__func__ else staticmethod(inner)
        if isinstance(value, ModuleType) and value.__name__.startswith("streamlearn.jit."):
            held = {name: self._counted(v) for name, v in vars(value).items()
                    if not isinstance(v, ModuleType)}  # fmt: skip
            return SimpleNamespace(**held)
        if isinstance(value, dict) and any(isinstance(v, Dispatcher) for v in value.values()):
            return {key: self._counted(v) for key, v in value.items()}
        return value

    def _call(self, kernel: Any) -> Any:
        def call(*arguments: Any) -> Any:
            before = _runtime.get_allocation_stats().alloc
            given = kernel(*arguments)
            taken = _runtime.get_allocation_stats().alloc - before
            self.most = max(self.most, int(taken) - _arrays(arguments) - _arrays(given))
            self.calls += 1
            return given

        return call


def _arrays(value: Any) -> int:
    """Arrays among arguments, in tuples too."""
    if isinstance(value, tuple):
        return sum(map(_arrays, value))
    return int(isinstance(value, np.ndarray))


def counted(name: str, watched: Watched, n: int = ROWS) -> dict[str, Any]:
    """The most of a call, and calls, over n and over 2 n rows; needs NUMBA_NRT_STATS=1."""
    operator = per_operator.make(name)
    rows = per_operator.block_for(operator, 8)
    for _ in range(2):
        operator.run(rows)
    found = []
    for block in (rows.rows(0, n), rows.rows(0, 2 * n)):
        operator.run(block)
        watched.most = watched.calls = 0
        operator.run(block)
        found.append((watched.most, watched.calls))
    return {"operator": name, "rows": n, "once": found[0], "twice": found[1]}


def main(names: Sequence[str]) -> None:
    """Counts as a line of JSON, of some operators or of all."""
    clock.pin()
    watched = Watched()
    print(json.dumps([counted(name, watched) for name in names or per_operator.measurable()]))


if __name__ == "__main__":
    main(sys.argv[1:])
