"""What a replay or a run gives: how it went, as numbers and as text."""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from streamlearn import __version__
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from streamlearn.pipeline import Pipeline

Metrics = dict[str, float | None]


def versions() -> dict[str, str]:
    """What values may depend on: versions of Python and of the libraries, and the machine type."""
    ours = {"streamlearn": __version__, "python": platform.python_version()}
    found = {name: metadata.version(name) for name in ("numpy", "numba", "river", "pyarrow")}
    return ours | found | {"machine": platform.machine()}


@dataclass(frozen=True, repr=False)
class Result:
    """How a stream went, prequentially: every event was scored before it was learnt.

    events: rows that were processed, those that did not fit excepted; scored: those of them with a
    label and an answer, which the metrics are about; unanswered: with a label, but no answer yet.
    task: classification or regression. metrics, windowed, fading: by name, over the whole stream,
    over the last rows, and fading; None where undefined. baselines: the same for no_change and
    majority or mean, on the same rows. per_class: rows and recalls by class.
    alarms: the last 1,000 rows (from 0) on which the detector fired; n_alarms: how often it did.
    n_swaps: how often another version of the model took over, by a promotion or a rollback.
    seconds: from opening the source to the last output, decoding included, kernels loaded before;
    they are of this process alone, which went on after `resumed_at` events.
    state_bytes: bytes of the arrays of the pipeline's state. model: the pipeline as text.
    schema: the columns as they were read. dead_letters: records that did not fit.
    name: what was read. curve: the metrics over time, booked at scoring time, in bins of events;
    label_curve: booked at label time, where labels come late. calibration, confusion, by_group,
    river: as `Evaluation.result` gives them, empty where there is nothing of the kind. delayed:
    windowed and fading metrics by booking; labels: what became of the labels (counts, delays); both
    only where labels come late. residuals: of the last scored rows (regression). known_drifts:
    (start, end) rows that the caller named; drift: how dips, recoveries and alarms compare with
    them. recording: what the report draws beside it. config, versions: what was run, with what.
    pipeline: the pipeline itself, which has learnt. The last and the recording are not in the JSON.
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
    n_swaps: int = 0
    resumed_at: int = 0
    per_class: dict[str, dict[str, Json]] = field(default_factory=dict)
    name: str = ""
    curve: dict[str, Json] = field(default_factory=dict)
    label_curve: dict[str, Json] = field(default_factory=dict)
    calibration: Json = None
    confusion: Json = None
    by_group: dict[str, Json] = field(default_factory=dict)
    river: dict[str, Json] = field(default_factory=dict)
    delayed: Json = None
    labels: Json = None
    residuals: list[float] | None = None
    known_drifts: list[list[int]] = field(default_factory=list)
    drift: Json = None
    config: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    recording: dict[str, Json] | None = None
    pipeline: "Pipeline | None" = None

    def to_dict(self) -> dict[str, Json]:
        """Everything but the pipeline and the recording, as plain values that JSON can hold."""
        left_out = ("pipeline", "recording")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined, never NaN."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, default=_plain)

    def to_arrow(self, what: str = "metrics") -> "pa.Table":
        """One part of the result as an Arrow table.

        Args:
            what: "metrics" (a row a metric; cumulative, windowed, fading, and each baseline),
                "curve" (a row a bin of events; each metric, and `baseline.metric`), "per_class",
                or "by_group".
        Raises: UserError for another word.
        """
        import pyarrow as pa

        parts: dict[str, Callable[[], list[dict[str, Json]]]] = {
            "metrics": self._metric_rows,
            "curve": self._curve_rows,
            "per_class": lambda: _named_rows("class", self.per_class),
            "by_group": lambda: _named_rows("group", self.by_group),
        }
        if what not in parts:
            raise UserError(f"Result: what must be one of {', '.join(parts)}, got {what!r}")
        return pa.Table.from_pylist(parts[what]())

    def to_pandas(self, what: str = "metrics") -> "pd.DataFrame":
        """`to_arrow` as a pandas data frame; pandas must be there."""
        frame: pd.DataFrame = self.to_arrow(what).to_pandas()
        return frame

    def _metric_rows(self) -> list[dict[str, Json]]:
        views = {"cumulative": self.metrics, "windowed": self.windowed, "fading": self.fading}
        views |= self.baselines
        return [
            {"metric": metric} | {view: values.get(metric) for view, values in views.items()}
            for metric in self.metrics
        ]

    def _curve_rows(self) -> list[dict[str, Json]]:
        columns = {name: values for name, values in self.curve.items() if isinstance(values, list)}
        for who, metrics in self.curve.get("baselines", {}).items():
            columns |= {f"{who}.{metric}": values for metric, values in metrics.items()}
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _repr_html_(self) -> str:
        """The report, for a notebook; a table where bokeh is not there."""
        from streamlearn.report import notebook_html

        return notebook_html(self)

    def __repr__(self) -> str:
        rate = f"{self.events:,} events, {self.events_per_second:,.0f}/s"
        lines = [
            f"Result: {self.task} of {self.target!r}, {rate}, {counted(self.n_alarms, 'alarm')}"
        ]
        for name, value in self.metrics.items():
            beside = ", ".join(f"{who} {_shown(b.get(name))}" for who, b in self.baselines.items())
            lines.append(f"  {name:<9} {_shown(value)}  ({beside})")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _named_rows(key: str, table: Mapping[str, Mapping[str, Json]]) -> list[dict[str, Json]]:
    """A table of tables as rows that begin with its key; what is no plain value is left out."""
    plain = (bool, int, float, str, type(None))
    return [
        {key: name} | {column: v for column, v in row.items() if isinstance(v, plain)}
        for name, row in table.items()
    ]


def _plain(value: Any) -> Json:
    """A numpy scalar (a class name of the data, say) as Python's own, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
