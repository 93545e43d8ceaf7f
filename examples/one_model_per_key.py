"""One model per key: 5,000 sensors that all answer differently, one pipeline, in seconds.

Run it: `python examples/one_model_per_key.py`.
"""

import numpy as np

from streamlearn import Normalizer, Pipeline
from streamlearn.operators import KalmanRegressor, KeyedRegressor
from streamlearn.testing import labelled


def main() -> None:
    """Learn 200,000 readings with one model, and with a model for each sensor."""
    rng = np.random.default_rng(0)
    n, n_sensors = 200_000, 5_000
    sensors = rng.integers(0, n_sensors, n)
    slopes = rng.normal(size=(n_sensors, 3))
    X = rng.normal(size=(n, 3))
    y = (X * slopes[sensors]).sum(axis=1) + 0.1 * rng.normal(size=n)

    for model in (KalmanRegressor(), KeyedRegressor(max_keys=10_000)):
        pipeline, wrong = Pipeline(Normalizer(), model), 0.0
        for start in range(0, n, 4096):
            part = slice(start, start + 4096)
            block = labelled(X[part], y[part]).replace(keys=sensors[part])
            said = pipeline.run(block)["prediction"]
            wrong = float(np.abs(said - y[part]).mean())
        print(f"{type(model).__name__}: mean absolute error of the last block {wrong:.3f}")

    keyed = pipeline.predictor
    assert isinstance(keyed, KeyedRegressor)
    print(f"sensor 7: {keyed.metrics(7)}")
    print(f"{keyed.n_keys_:,} keys, {keyed.state_bytes / keyed.n_keys_:.0f} bytes each")


if __name__ == "__main__":
    main()
