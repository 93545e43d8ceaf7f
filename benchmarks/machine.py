"""On what, with what and when it was measured."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import streamlearn

PACKAGES = ("numpy", "numba", "pyarrow", "river")


def describe() -> dict[str, str]:
    """CPU model, system, date, and versions of Python and of what does the work."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    versions = {name: version(name) for name in PACKAGES}
    return found | {"streamlearn": streamlearn.__version__} | versions


def _cpu() -> str:
    """Model name as the kernel gives it, or what Python knows."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"
