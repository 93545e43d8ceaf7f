"""On what, with what and when it was measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import streamlearn

PACKAGES = ("numpy", "numba", "pyarrow", "river")


def describe() -> dict[str, Any]:
    """CPU model, cores, system, date, and versions of Python and of what does the work."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    versions = {name: version(name) for name in PACKAGES}
    return found | {"streamlearn": streamlearn.__version__} | versions


def line(about: dict[str, Any]) -> str:
    """One line of it, with the rates where they were measured."""
    versions = ", ".join(f"{k} {about[k]}" for k in ("python", *PACKAGES))
    said = f"{about['cpu']}, {about['cores']} cores, {about['system']}, {about['date']}; {versions}"
    if about.get("rates"):
        copies = about["rates"]["copy_gbytes"].items()
        by_size = ", ".join(f"{v:.0f} ({_size(int(k))})" for k, v in copies)
        said += f"; one core: dgemm {about['rates']['dgemm_gflops']:.1f} Gflop/s, "
        said += f"copies in GB/s read and written, by what they touch: {by_size}"
    quick = " A quick run: the figures mean nothing." if about.get("quick") else ""
    return f"{said}.{quick}"


def _size(kib: int) -> str:
    return f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB"


def _cpu() -> str:
    """Model name as the kernel gives it, or what Python knows."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for row in table.read_text(encoding="utf-8").splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"
