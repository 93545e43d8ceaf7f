"""These tests run in numba's CUDA simulator, or on a device, each in a process of its own."""

import os

import pytest

from tests.cuda import stand_in

stand_in.install()
HERE = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or os.environ.get("STREAMLEARN_CUDA") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(
        reason="needs the CUDA simulator: make cuda; or a GPU: STREAMLEARN_CUDA=1"
    )
    few_blocks = pytest.mark.filterwarnings("ignore:Grid size")  # of a device, and meant so
    for item in items:
        if "/tests/cuda/" in str(item.path) and item.path.name != "test_ptx.py":  # no GPU needed
            item.add_marker(few_blocks if HERE else skip)
