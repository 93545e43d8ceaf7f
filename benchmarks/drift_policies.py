"""`python -m benchmarks.drift_policies`: what each policy is worth at known drifts, into
docs/adaptation.md. About five minutes on one core."""

import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks import pages, real, tables
from streamlearn.block import Block
from streamlearn.drift_evaluation import DriftEvaluation
from streamlearn.operators import (
    AdaptiveClassifier,
    ExpertPoolClassifier,
    KalmanClassifier,
    Normalizer,
)
from streamlearn.pipeline import Pipeline
from streamlearn.testing import block_of, cut

KINDS = ("sine", "mixed", "randomtree", "stagger", "sea")
ABRUPT, GRADUAL = "10000,20000,30000", "9000-10500,19000-21500,30500-31500"
HORIZON = 2000
ABOUT = """\
`python -m benchmarks.drift_policies` writes this page: what may be done at an alarm, and what it is
worth. A policy is an argument of `AdaptiveClassifier` and `AdaptiveRegressor`: a name, or a list,
done in its order, with arguments where they are not the defaults:

```yaml
pipeline:
  - Normalizer
  - AdaptiveClassifier:
      model: {KalmanHead: {random_features: 100}}
      policy: [reset, {replay: {rows: 100}}]
```

`notify` reports and does nothing. `reset` starts the model anew. `inflate` widens its covariance by
`factor`. `forget` lets it remember `memory` labels at most, for `rows` labels. `background` starts
a second model at a warning and swaps it in at the alarm if it is better, else begins anew. `replay`
learns again those of the last `rows` labelled rows that came after the likeliest change.
`ExpertPoolClassifier` takes the old expert back that knows the new concept, or begins a new one.
A model that began anew answers the next event as the very first: with no class, or with 0, which is
far off for numbers that are far from 0. With `replay` after it, it has learnt before it answers."""
READING = f"""\
Streams of Lobo (2020), 40,000 or 41,000 rows. Pipeline: `Normalizer`, and a wrapper around
`KalmanClassifier(random_features=100)`, whose own forgetting is on but in the first row; all else
are defaults, the detector too: ADWIN on the errors with an average run length of 50,000, for
experts on the log loss. *Recovery* and *excess errors*: of the twelve abrupt drifts of sine, mixed,
randomtree and stagger, as [drift evaluation](concepts/drift-evaluation.md) defines them, over
{HORIZON:,} rows; a drift not recovered from by then counts {HORIZON:,}. *False alarms*: on all ten
streams, more than {HORIZON:,} rows after a drift or before it. SEA is only in the false alarms and
in the accuracies: 20 % of its labels are wrong, which hides its drifts."""

DRIFTS = """\
Recovery / excess errors; and what the pool of experts did, with the number of the expert that went
on. Expert 0 is the first of a stream."""


class Found(NamedTuple):
    """What one pipeline did on one stream."""

    drifts: list[dict[str, Any]]
    false_alarms: int
    accuracy: float
    reused: list[tuple[int, str]]  # the rows of shifts, and what was done


def kalman(**given: Any) -> KalmanClassifier:
    """The model that all policies act on."""
    return KalmanClassifier(random_features=100, **given)


def policies() -> dict[str, Callable[[], Any]]:
    """The stage to run, by the words of the table."""
    acting: dict[str, Any] = {
        "`reset` (default)": "reset",
        "`inflate`": "inflate",
        "`forget`": "forget",
        "`background`": "background",
        "`[reset, replay]`": ["reset", "replay"],
        "`[background, replay]`": ["background", "replay"],
        "`[inflate, forget]`": ["inflate", "forget"],
    }
    made: dict[str, Callable[[], Any]] = {
        "no adaptation": lambda: kalman(lr_delta=0.0),
        "forgetting only": kalman,
    }
    made |= {name: _acting(policy) for name, policy in acting.items()}
    return made | {"`ExpertPoolClassifier`": lambda: ExpertPoolClassifier(kalman())}


def _acting(policy: Any) -> Callable[[], Any]:
    return lambda: AdaptiveClassifier(kalman(), policy=policy)


def stream(name: str) -> Block:
    """A stream of lobo as one block."""
    table = pq.read_table(real.DATA / f"lobo_{name}.parquet")
    columns = [table[c].to_numpy() for c in table.column_names if c != "class"]
    y = np.unique(table["class"].to_numpy(), return_inverse=True)[1]
    return block_of(np.column_stack(columns).astype(np.float64), y.astype(np.float64))


def run(make: Callable[[], Any], block: Block, drifts: str) -> Found:
    """One stream through a pipeline, judged at its drifts."""
    pipe = Pipeline(Normalizer(), make())
    clone = Pipeline(Normalizer(), make())
    evaluation = DriftEvaluation(clone, drifts, horizon=HORIZON)
    right, reused = 0, []
    for start, piece in zip(
        range(0, block.n, 2000), cut(block, range(0, block.n, 2000)), strict=True
    ):
        outputs = pipe.run(piece)
        evaluation.update(piece, outputs)
        right += int((outputs["prediction"] == piece.y).sum())
        for row, found in enumerate(outputs.get("why", ())):
            if found is not None and "expert" in found[0]:
                reused.append((start + row, f"{found[0]['action']} {found[0]['expert']}"))
    result: dict[str, Any] = evaluation.result()
    alarms = result["alarms"] or {"false_alarms": 0}
    return Found(result["drifts"], alarms["false_alarms"], right / block.n, reused)


def summary(found: dict[str, Found]) -> tuple[str, ...]:
    """Cells of one policy."""
    drifts = [
        drift
        for name, one in found.items()
        if name.endswith("abrupt") and not name.startswith("sea")
        for drift in one.drifts
    ]
    recoveries = [HORIZON if d["recovery"] is None else d["recovery"] for d in drifts]
    excess = statistics.mean(d["excess_errors"] for d in drifts)
    accuracies = [
        statistics.mean(one.accuracy for name, one in found.items() if name.endswith(kind))
        for kind in ("abrupt", "gradual")
    ]
    return (
        f"{statistics.mean(recoveries):.0f}",
        f"{max(recoveries)}",
        f"{excess:.1f}",
        f"{sum(one.false_alarms for one in found.values())}",
        *(f"{accuracy:.4f}" for accuracy in accuracies),
    )


def by_drift(found: dict[str, dict[str, Found]]) -> list[tuple[str, ...]]:
    """Recovery and excess errors of each drift, of the policies that are named."""
    rows = []
    for kind in KINDS:
        for k, start in enumerate(ABRUPT.split(",")):
            cells = []
            for streams in found.values():
                drift = streams[f"{kind}_abrupt"].drifts[k]
                back = "none" if drift["recovery"] is None else drift["recovery"]
                cells.append(f"{back} / {drift['excess_errors']:.0f}")
            done = [
                action
                for row, action in found["`ExpertPoolClassifier`"][f"{kind}_abrupt"].reused
                if 0 <= row - int(start) < HORIZON
            ]
            rows.append((f"{kind}, {int(start):,}", *cells, ", ".join(done) or "none"))
    return rows


def main() -> None:
    """Run all policies over all streams; write the page."""
    if not real.there():
        sys.exit(f"no real streams in {real.DATA}; set STREAMLEARN_DATA to their folder")
    streams = {
        f"{kind}_{how}": (stream(f"{kind}_{how}"), drifts)
        for kind in KINDS
        for how, drifts in (("abrupt", ABRUPT), ("gradual", GRADUAL))
    }
    found, rows = {}, []
    for title, make in policies().items():
        found[title] = {name: run(make, *given) for name, given in streams.items()}
        rows.append((title, *summary(found[title])))
        print(" | ".join(rows[-1]), flush=True)
    head = ("policy", "recovery", "longest", "excess errors", "false alarms", "abrupt", "gradual")
    shown = ("forgetting only", "`reset` (default)", "`[reset, replay]`", "`ExpertPoolClassifier`")
    each = by_drift({title: found[title] for title in shown})
    parts = [
        READING,
        tables.markdown(head, rows),
        "The last two columns are accuracies, over the five streams of a kind.",
        "## Drift by drift",
        DRIFTS,
        tables.markdown(("drift", *shown, "expert"), each),
    ]
    print(pages.write("adaptation", "Acting on drift", ABOUT, parts))


if __name__ == "__main__":
    main()
