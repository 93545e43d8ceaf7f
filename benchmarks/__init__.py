"""The suite of measurements: `python -m benchmarks` runs its parts, `suite.PARTS` lists them.

What is compared runs by turns in one process, on one core, and BLAS has one thread: set here, as it
is read when numpy is imported.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
