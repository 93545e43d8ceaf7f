"""The device suite runs through; in the simulator tiny, and its figures say nothing."""

import pytest

from streamlearn.jit.cuda import _compile


@pytest.mark.skipif(
    not _compile.SIMULATED, reason="on a GPU it is run by hand, it runs these tests"
)
def test_the_device_suite_runs() -> None:
    from benchmarks import cuda_device

    found = cuda_device.measure(quick=True)
    text = cuda_device.table(found)
    assert "# Measured on simulator" in text
    assert [case["case"].split(",")[0] for case in found["cases"]] == [
        "mixture", "mixture regressor", "bank", "Kalman head", "bag of 2 Kalman heads",
        "mixture of 2 Kalman heads",
    ]  # fmt: skip
    assert all(value > 0.0 for case in found["cases"] for value in list(case.values())[1:])
