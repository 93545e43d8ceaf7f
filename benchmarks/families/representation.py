"""Networks under a Kalman head: what is tried for the defaults. Torch sets what a row costs."""

from typing import Any

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    name: {
        "lr": [0.0, 1e-3, 0.03],
        "group": [1, 16],
        "replay": [16],
        "delta_min": [1e-4, 1e-3],
        "module_args": [{"hidden": [32]}, {"hidden": [128]}, {"hidden": [64, 32]}, {"scale": 1.0}],
    }
    for name in ("TorchKalmanClassifier", "TorchKalmanRegressor")
}
