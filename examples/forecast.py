"""Forecast two series 24 rows ahead, with intervals, while they come; one changes its level.

Run it: python examples/forecast.py
"""

import numpy as np
import pyarrow as pa

from streamlearn import forecast


def main() -> None:
    """Hourly load and price: a day's rhythm, noise, and from row 3,000 on twice the rhythm."""
    rng = np.random.default_rng(0)
    hours = np.arange(5000)
    day = np.sin(2 * np.pi * hours / 24) * np.where(hours < 3000, 1.0, 2.0)
    power = {
        "time": np.datetime64("2024-01-01T00", "ns") + hours * np.timedelta64(1, "h"),
        "load": 100 + 20 * day + 0.4 * rng.normal(size=5000).cumsum(),
        "price": 40 + 5 * np.roll(day, 2) + rng.normal(size=5000),
    }

    found = forecast(pa.table(power), "load,price", horizon=24)
    print(found)
    print(f"{found.level:.0%} intervals held {found.coverage:.1%} of the values")
    print("the next hour:", found.next[0]["load"])
    errors = {who: score["mse"] for who, score in found.scores.items()}
    assert errors["model"] < min(errors["last value"], errors["seasonal"])

    model = found.forecaster  # it has learnt all rows, and goes on
    assert model is not None
    model.learn_one({"load": 101.0, "price": 39.0})
    print("one row later, 24 ahead:", model.forecast()[-1]["load"])


if __name__ == "__main__":
    main()
