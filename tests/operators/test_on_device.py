"""Where there is no GPU: nothing of it is imported, and asking for one is a clear error."""

import importlib.util
import subprocess
import sys

import pytest

from streamlearn.operators import KalmanClassifier

WITH_NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None


def test_nothing_imports_cuda_before_a_device_is_asked_for() -> None:
    code = (
        "import sys, streamlearn, streamlearn.operators, streamlearn.pipeline\n"
        "assert not [name for name in sys.modules if 'cuda' in name.split('.')], sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_device_is_an_error_that_says_what_to_do() -> None:
    if WITH_NUMBA_CUDA:
        pytest.skip("numba-cuda is installed: the other message, or a GPU")
    with pytest.raises(
        ImportError, match=r'^KalmanClassifier: .*pip install "streamlearn\[cuda\]"'
    ):
        KalmanClassifier(device="cuda")
