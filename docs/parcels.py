"""Writes parcels.csv, the data of the tutorial: 12,000 parcels, and which came late.

What makes a parcel late changes twice. At row 4,000 a bridge is closed: distance
counts much more, rain less. At row 8,000 the depot in the south takes on half of the
north's parcels: weight begins to count. Whether a parcel was late is known some hours
after it was sent: `known_at`.

Run it: python parcels.py
"""

import csv
import math
import random
from datetime import datetime, timedelta

DEPOTS = ("north", "south", "east")
CONCEPTS = {  # from row: bias, distance, weight, rain, and what each depot adds
    0: (-0.4, 0.3, 0.1, 2.2, {"north": 1.5, "south": -1.5, "east": 0.0}),
    4_000: (-0.2, 2.6, 0.1, 0.3, {"north": 0.0, "south": 0.0, "east": 0.6}),
    8_000: (0.1, -0.4, 2.4, 0.4, {"north": -1.0, "south": 1.8, "east": 0.0}),
}


def parcels(n: int = 12_000, seed: int = 7) -> list[dict[str, object]]:
    """The rows; the same on every machine."""
    rng = random.Random(seed)  # nothing secret
    sent = datetime(2025, 3, 3, 6, 0, tzinfo=None)  # noqa: DTZ001  # local time of the depots
    rows = []
    for i in range(n):
        bias, by_distance, by_weight, by_rain, by_depot = CONCEPTS[i // 4_000 * 4_000]
        sent += timedelta(seconds=round(rng.expovariate(1 / 300)))
        depot = rng.choice(DEPOTS)
        distance, weight, rain = rng.lognormvariate(3, 0.5), rng.lognormvariate(0.5, 0.6), 0.0
        if rng.random() < 0.4:
            rain = rng.expovariate(1 / 3)
        score = bias + by_depot[depot] + by_weight * (math.log(weight) - 0.5) / 0.6
        score += by_distance * (math.log(distance) - 3) / 0.5 + by_rain * (min(rain, 6) - 1.2) / 2
        late = rng.random() < 1 / (1 + math.exp(-2 * score))
        known = sent + timedelta(hours=rng.uniform(1, 9))
        rows.append(
            {
                "parcel": f"P{i:05d}",
                "sent": sent.isoformat(),
                "depot": depot,
                "distance_km": round(distance, 1),
                "weight_kg": round(weight, 2),
                "rain_mm": "" if rng.random() < 0.05 else round(rain, 1),
                "late": "yes" if late else "no",
                "known_at": known.isoformat(timespec="seconds"),
            }
        )
    return rows


if __name__ == "__main__":
    rows = parcels()
    with open("parcels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote parcels.csv: {len(rows)} parcels")
