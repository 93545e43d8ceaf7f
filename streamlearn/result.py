"""What a replay or a run gives: how it went, as numbers and as text."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamlearn.contracts import Json

if TYPE_CHECKING:
    from streamlearn.pipeline import Pipeline

Metrics = dict[str, float | None]


@dataclass(frozen=True, repr=False)
class Result:
    """How a stream went, prequentially: every event was scored before it was learnt.

    events: rows that were processed, those that did not fit excepted; scored: those of them with a
    label and an answer, which the metrics are about; unanswered: with a label, but no answer yet.
    task: classification or regression. metrics, windowed, fading: by name, over the whole stream,
    over the last rows, and fading; None where undefined. baselines: the same for no_change and
    majority or mean, on the same rows. per_class: rows and recalls by class.
    alarms: the last 1,000 rows (from 0) on which the detector fired; n_alarms: how often it did.
    seconds: from opening the source to the last output, decoding included, kernels loaded before.
    state_bytes: bytes of the arrays of the pipeline's state. model: the pipeline as text.
    schema: the columns as they were read. dead_letters: records that did not fit.
    pipeline: the pipeline itself, which has learnt; not in the JSON.
    """

    events: int
    task: str
    target: str
    metrics: Metrics
    windowed: Metrics
    fading: Metrics
    baselines: dict[str, dict[str, Json]]
    alarms: list[int]
    n_alarms: int
    seconds: float
    events_per_second: float
    state_bytes: int
    model: str
    schema: Json
    dead_letters: int
    scored: int
    unanswered: int
    per_class: dict[str, dict[str, Json]] = field(default_factory=dict)
    pipeline: "Pipeline | None" = None

    def to_dict(self) -> dict[str, Json]:
        """Everything but the pipeline, as plain values that JSON can hold."""
        return {name: value for name, value in vars(self).items() if name != "pipeline"}

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined, never NaN."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, default=_plain)

    def __repr__(self) -> str:
        rate = f"{self.events:,} events, {self.events_per_second:,.0f}/s"
        lines = [f"Result: {self.task} of {self.target!r}, {rate}, {self.n_alarms} alarms"]
        for name, value in self.metrics.items():
            beside = ", ".join(f"{who} {_shown(b.get(name))}" for who, b in self.baselines.items())
            lines.append(f"  {name:<9} {_shown(value)}  ({beside})")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(value: Any) -> Json:
    """A numpy scalar (a class name of the data, say) as Python's own, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
