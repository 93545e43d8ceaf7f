"""Every kernel compiles for a GPU (sm_90) without one, where NVIDIA's compiler is installed."""

import importlib.util
import os
import subprocess
import sys

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
COMPILER = importlib.util.find_spec("numba_cuda") is not None
COMPILE = """
import numba.cuda.dispatcher as dispatcher
from numba import cuda, float64, int64, types, uint8

class Device:
    compute_capability = 9, 0

dispatcher.get_current_device = Device  # what device functions are compiled for
from streamlearn.jit.cuda import bank, delayed, experts, mixture

one, two, three = float64[::1], float64[:, ::1], float64[:, :, ::1]
ints, bits = int64[::1], uint8[::1]
of = types.Tuple

def head(rows):
    return (
        of((two, ints, two, one, bits)), of((ints,) * 5), of((two, two, two, one)), of((two,) * 4),
        of((two, two, two, two, two, one)), of((one, two, one)), of((two, two)),
    )

keyed = (
    of((two, two, one, bits, ints)), of((ints, two)), of((ints,) * 5), of((one, one)),
    of((two,) * 3),
)
density = of((two, one)), of((two, three, two, one))
recalled = (
    of((two, one, bits, ints)), of((two, three, two, two, two, two, one)),
    of((one, one, two, three, three)), of((two, three, two, two, two, one, one)), of((two, two)),
)
ensemble = (
    of((three, int64[:, ::1], two, two, bits)), of((three, three, three, two)), of((two, three)),
    of((three, three)), of((three, three)),
)
KERNELS = {
    delayed.walk_kalman_classes: head(two), delayed.walk_kalman_targets: head(two),
    delayed.walk_rls_classes: head(two), delayed.walk_rls_targets: head(two),
    bank.walk_kalman: keyed, bank.walk_rls: keyed, bank.walk_classes: keyed,
    bank.walk_rls_classes: keyed,
    bank.clear: (ints, two, one), bank.enter: (ints, two, ints, two, one),
    mixture.walk_rows: recalled,
    mixture.walk_delayed: (*density, of((three,) * 5 + (two, three, two, two)), one),
    experts.walk_classes: ensemble, experts.walk_targets: ensemble,
}
for kernel, arguments in KERNELS.items():
    ptx, _ = cuda.compile_ptx(kernel.py_func, arguments, cc=(9, 0))
    assert ".entry" in ptx
print(len(KERNELS), "kernels compile for sm_90")
"""


@pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
@pytest.mark.skipif(not COMPILER, reason='needs pip install "numba-cuda[cu13]" (500 MB), no GPU')
def test_kernels_compile_without_a_device() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
