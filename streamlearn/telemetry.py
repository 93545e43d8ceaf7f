"""Metrics through OpenTelemetry: the families of `metrics.py` as observable instruments."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from streamlearn.errors import UserError
from streamlearn.health import Status
from streamlearn.metrics import COUNTER, FAMILIES, HISTOGRAM, Family

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, Observation

    from streamlearn.config_telemetry import TelemetrySection

_PREFIX = "streamlearn."
_WAIT = 5000  # ms that the end of a run leaves for the last export


def observe(meter: "Meter", status: Callable[[], Status]) -> None:
    """Register every family with a meter; names are those of Prometheus after `streamlearn.`.

    A histogram is two counters, `<name>.count` and `<name>.sum`: its values are counted already.

    Args:
        meter: of any provider. status: gives the status, as `Watch.status`; called in the thread
            that exports.
    """
    for family in FAMILIES:
        if family.kind == HISTOGRAM:
            for part, key in (("count", "n"), ("sum", "sum")):
                name = f"{_PREFIX}{family.name}.{part}"
                callback = _callback(family, status, key)
                meter.create_observable_counter(name, [callback], description=family.help)
            continue
        make: Any = meter.create_observable_gauge
        if family.kind == COUNTER:
            make = meter.create_observable_counter
        make(_PREFIX + family.name, [_callback(family, status)], description=family.help)


def _callback(
    family: Family, status: Callable[[], Status], key: str | None = None
) -> Callable[[Any], Iterable["Observation"]]:
    """What an instrument asks for: the samples of all lineages."""
    from opentelemetry.metrics import Observation

    labels = ("pipeline", *family.labels)

    def observed(_: Any) -> Iterator["Observation"]:
        for name, told in status()["lineages"].items():
            for values, number in family.read(told):
                if number is not None:
                    found = number if key is None else number[key]
                    yield Observation(found, dict(zip(labels, (name, *values), strict=True)))

    return observed


@contextlib.contextmanager
def exported(section: "TelemetrySection", status: Callable[[], Status]) -> Iterator[None]:
    """Export to a collector by OTLP over HTTP, in a thread of the SDK, while it lasts.

    A collector that is away costs a line in the log of the SDK; the stream does not wait for it.
    Raises: UserError where the extra `otel` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        raise UserError(
            "telemetry: needs the SDK of OpenTelemetry; `pip install 'streamlearn[otel]'` brings it"
        ) from None
    headers = {name: str(value) for name, value in section.secrets().items()}
    exporter = OTLPMetricExporter(section.endpoint, headers=headers, timeout=section.timeout)
    reader = PeriodicExportingMetricReader(exporter, section.period * 1000)
    resource = Resource.create({"service.name": section.service})
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    observe(provider.get_meter("streamlearn"), status)
    try:
        yield
    finally:
        provider.shutdown(_WAIT)
