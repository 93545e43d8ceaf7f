"""Metrics of a run: what Prometheus scrapes at `/metrics`, and what OpenTelemetry exports.

One table says what there is; both are read off the finished dicts of `health.Watch`. Labels are
`pipeline`, `partition` and names that the configuration or this program gives: never an id, a key
or a value of a record.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.health import Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
_FATES = (  # of labels, as sources report them
    "labelled", "early", "expired", "evicted", "replaced", "assumed", "contradicted",
    "duplicates", "unknown", "late", "empty", "unlabelled",
)  # fmt: skip
Sample = tuple[tuple[str, ...], Json]  # values of the labels behind `pipeline`, and the number


class Family(NamedTuple):
    """One metric. labels: behind `pipeline`. read: its samples, of the status of a lineage.

    A counter begins with the process at 0. A sample of None is left out.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Status], Iterable[Sample]]


def _at(*path: str) -> Callable[[Status], Iterator[Sample]]:
    """The one number at the end of a path; none where something on it is None or not there."""

    def read(told: Status) -> Iterator[Sample]:
        value: Json = told
        for step in path:
            value = None if value is None else value.get(step)
        yield (), value

    return read


def _each(*path: str) -> Callable[[Status], Iterator[Sample]]:
    """A number for each key at the end of a path."""

    def read(told: Status) -> Iterator[Sample]:
        for _, found in _at(*path)(told):
            for name, value in (found or {}).items():
                yield (str(name),), value

    return read


def _lag(unit: str) -> Callable[[Status], Iterator[Sample]]:
    return lambda told: (((name,), lag[unit]) for name, lag in told["lag"].items())


def _baselines(told: Status) -> Iterator[Sample]:
    for baseline, values in ((told.get("standing") or {}).get("baselines") or {}).items():
        for name, value in values.items():
            yield (baseline, name), value


def _fates(told: Status) -> Iterator[Sample]:
    report = told.get("labels") or {}
    return (((fate,), report[fate]) for fate in _FATES if fate in report)


def _delay(unit: str) -> Callable[[Status], Iterator[Sample]]:
    def read(told: Status) -> Iterator[Sample]:
        found = (told.get("labels") or {}).get(unit) or {}
        for share in ("p50", "p99", "max"):
            yield (share,), found.get(share)

    return read


def _detectors(told: Status) -> Iterator[tuple[tuple[str, str], Status]]:
    """What each detector stands at; of two alike the first."""
    seen = set()
    for found in told.get("drift") or ():
        key = (f"{found['stage']}/{found['detector']}", str(found["watches"]))
        if key not in seen:
            seen.add(key)
            yield key, found


def _standing(name: str) -> Callable[[Status], Iterator[Sample]]:
    return lambda told: ((key, _number(found.get(name))) for key, found in _detectors(told))


def _features(name: str) -> Callable[[Status], Iterator[Sample]]:
    """Of features of the schema alone: what is made of a category has its value in its name."""

    def read(told: Status) -> Iterator[Sample]:
        named = (told.get("about") or {}).get("features") or ()
        for (detector, _), found in _detectors(told):
            for feature in found.get("features") or ():
                if feature["name"] in named:
                    yield (detector, feature["name"]), _number(feature.get(name))

    return read


def _number(value: Json) -> Json:
    return value if isinstance(value, (int, float)) else None


def _model(told: Status) -> Iterator[Sample]:
    about = told.get("about") or {}
    yield (str(about.get("model", "")), str(about.get("task", ""))), 1


FAMILIES = (
    Family("events", COUNTER, "Events, of this process.", (), _at("since_start", "events")),
    Family("stream_events", GAUGE, "Events of the stream so far, those before a restart included.",
           (), _at("events")),
    Family("partition_events", COUNTER, "Events of each partition, by this process.",
           ("partition",), _each("events_by_partition")),
    Family("lag_records", GAUGE, "Records behind the end of a partition.",
           ("partition",), _lag("records")),
    Family("lag_seconds", GAUGE, "Time behind the end of a partition.",
           ("partition",), _lag("seconds")),
    Family("in_flight_records", GAUGE, "Records sent that the broker has not acknowledged yet.",
           (), _at("in_flight")),
    Family("block_seconds", HISTOGRAM, "Time that a block takes through all parts.",
           (), _at("blocks")),
    Family("event_latency_seconds", HISTOGRAM,
           "Time from a record's timestamp until its answer is written.", (), _at("latency")),
    Family("metric", GAUGE, "Prequential metric over the last rows.",
           ("metric",), _each("standing", "windowed")),
    Family("baseline_metric", GAUGE, "The same metric of a baseline on the same rows.",
           ("baseline", "metric"), _baselines),
    Family("scored_rows", GAUGE, "Rows that the metrics are about, of the stream so far.",
           (), _at("standing", "scored")),
    Family("alarms", COUNTER, "Alarms raised in this process.", (), _at("since_start", "alarms")),
    Family("detector_alarms", COUNTER, "Alarms of each kind of detector, in this process.",
           ("detector",), _each("alarms_by_detector")),
    Family("drift_statistic", GAUGE, "What a detector compares with its limit.",
           ("detector", "watches"), _standing("statistic")),
    Family("drift_limit", GAUGE, "The limit of a detector's statistic.",
           ("detector", "watches"), _standing("limit")),
    Family("drift_mean", GAUGE, "Mean of what a detector watches, over its window.",
           ("detector", "watches"), _standing("mean")),
    Family("feature_drift_statistic", GAUGE, "Drift statistic of a feature against its reference.",
           ("detector", "feature"), _features("statistic")),
    Family("feature_drift_limit", GAUGE, "The limit of a feature's drift statistic.",
           ("detector", "feature"), _features("limit")),
    Family("label_backlog", GAUGE, "Events that wait for their label.", (),
           _at("labels", "pending")),
    Family("labels", GAUGE, "Labels and events by what became of them, of the stream so far.",
           ("fate",), _fates),
    Family("label_delay_seconds", GAUGE, "Delay of labels in event time: p50, p99, max.",
           ("share",), _delay("seconds")),
    Family("label_delay_rows", GAUGE, "Delay of labels in events: p50, p99, max.",
           ("share",), _delay("rows")),
    Family("dead_letters", COUNTER, "Records that did not fit, in this process.",
           (), _at("since_start", "dead_letters")),
    Family("dead_letters_by_reason", COUNTER, "Those by the class of their reason.",
           ("reason",), _each("dead_letters_by_reason")),
    Family("checkpoint_age_seconds", GAUGE, "Time since the last checkpoint.",
           (), _at("checkpoint", "age")),
    Family("checkpoint_bytes", GAUGE, "Size of the last checkpoint.", (),
           _at("checkpoint", "bytes")),
    Family("checkpoint_duration_seconds", GAUGE, "Time that the last checkpoint took.",
           (), _at("checkpoint", "seconds")),
    Family("checkpoint_number", GAUGE, "Number of the last checkpoint.",
           (), _at("checkpoint", "number")),
    Family("state_bytes", GAUGE, "Bytes of the arrays of the pipeline's state.",
           (), _at("state_bytes")),
    Family("model_version", GAUGE, "Number of the model that serves, where there are several.",
           (), _at("version")),
    Family("model_info", GAUGE, "Fingerprint of pipeline and schema.", ("model", "task"), _model),
    Family("webhook_waiting", GAUGE, "Alerts that wait to be sent.", (), _at("webhook", "waiting")),
    Family("webhook_sent", COUNTER, "Alerts that the webhook has taken.", (),
           _at("webhook", "sent")),
    Family("webhook_failed", COUNTER, "Attempts to send an alert that failed.", (),
           _at("webhook", "failed")),
    Family("webhook_refused", COUNTER, "Alerts that the webhook will never take.", (),
           _at("webhook", "refused")),
    Family("webhook_dropped", COUNTER, "Alerts for which the outbox had no room.", (),
           _at("webhook", "dropped")),
)  # fmt: skip
PREFIX = "streamlearn_"


class Collector:
    """What a registry of prometheus_client collects: the families, of all lineages of a status.

    Args:
        status: gives the status, as `Watch.status`; called in the thread that asks.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> "Iterator[Metric]":
        """Every family with its samples, those without any left out."""
        from prometheus_client.core import GaugeMetricFamily

        status = self._status()
        for name in ("live", "ready"):
            gauge = GaugeMetricFamily(PREFIX + name, f"Whether the run is {name}.")
            gauge.add_metric([], float(status[name]))
            yield gauge
        for family in FAMILIES:
            metric = _collected(family, status["lineages"])
            if metric.samples:
                yield metric


def _collected(family: Family, lineages: dict[str, Status]) -> Any:
    from prometheus_client import core

    kinds: dict[str, Any] = {
        COUNTER: core.CounterMetricFamily,
        GAUGE: core.GaugeMetricFamily,
        HISTOGRAM: core.HistogramMetricFamily,
    }
    labels = ["pipeline", *family.labels]
    metric: Any = kinds[family.kind](PREFIX + family.name, family.help, labels=labels)
    for name, told in lineages.items():
        for values, number in family.read(told):
            if number is None:
                continue
            if family.kind == HISTOGRAM:
                metric.add_metric([name, *values], *_buckets(number))
            else:
                metric.add_metric([name, *values], float(number))
    return metric


def _buckets(told: Status) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts under upper bounds, and the sum of the values."""
    total, found = 0, []
    for bound, count in zip([*told["bounds"], "+Inf"], told["counts"], strict=True):
        total += count
        found.append((str(bound), float(total)))
    return found, told["sum"]


def exposition(status: Callable[[], Status], accept: str = "") -> tuple[bytes, str]:
    """The metrics as text in the form that a scraper accepts, and its content type.

    Cost: some 2 ms, in the thread that asks.
    Raises: UserError where prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise UserError(
            "metrics: need prometheus-client; install it by `pip install 'streamlearn[metrics]'`"
        ) from None
    registry = CollectorRegistry()
    registry.register(Collector(status))
    encoded, content_type = choose_encoder(accept)
    return encoded(registry), content_type
