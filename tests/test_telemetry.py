"""OpenTelemetry: the metrics of /metrics, through the official SDK, to a collector."""

import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from streamlearn.config_telemetry import TelemetrySection
from streamlearn.errors import UserError
from streamlearn.telemetry import exported, observe

STATUS = {
    "live": True, "ready": True, "lineages": {"all": {
        "events": 12, "since_start": {"events": 7, "alarms": 1, "dead_letters": 0},
        "lag": {"t/0": {"records": 3, "seconds": None}},
        "standing": {"windowed": {"accuracy": 0.75, "kappa": None}, "baselines": {}},
        "blocks": {"bounds": [1.0], "counts": [2, 1], "sum": 4.5, "n": 3},
    }},
}  # fmt: skip
EXPECTED = {
    ("streamlearn.events", "all", None): 7,
    ("streamlearn.stream_events", "all", None): 12,
    ("streamlearn.lag_records", "all", "t/0"): 3,
    ("streamlearn.metric", "all", "accuracy"): 0.75,
    ("streamlearn.block_seconds.count", "all", None): 3,
    ("streamlearn.block_seconds.sum", "all", None): 4.5,
}


def test_instruments_observe_what_the_status_says() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe(provider.get_meter("test"), lambda: STATUS)
    data: Any = reader.get_metrics_data()
    found = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            labels = dict(point.attributes)
            pipeline, other = labels.pop("pipeline"), next(iter(labels.values()), None)
            found[metric.name, pipeline, other] = point.value
    provider.shutdown()
    assert EXPECTED.items() <= found.items()
    assert ("streamlearn.metric", "all", "kappa") not in found
    assert ("streamlearn.lag_seconds", "all", "t/0") not in found


class Collector(HTTPServer):
    """Takes one export."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.tokens.append(self.headers.get("x-token"))
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_collector_gets_the_metrics_at_the_end_at_the_latest(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/metrics"
    section = TelemetrySection.model_validate(
        {"endpoint": endpoint, "headers": {"x-token": "${env:TOKEN}"}, "period": 60.0}
    )
    assert "TOKEN" not in repr(section)
    with exported(section, lambda: STATUS):
        pass
    assert collector.tokens == ["secret"]
    body = collector.bodies[0]
    plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    told = ExportMetricsServiceRequest.FromString(plain)
    names = {m.name for m in told.resource_metrics[0].scope_metrics[0].metrics}
    assert {name for name, _, _ in EXPECTED} <= names
    attributes = {a.key: a.value.string_value for a in told.resource_metrics[0].resource.attributes}
    assert attributes["service.name"] == "streamlearn"


def test_without_the_library_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    section = TelemetrySection.model_validate("http://127.0.0.1:9/v1/metrics")
    with (
        pytest.raises(UserError, match=r"^telemetry: needs the SDK of OpenTelemetry"),
        exported(section, lambda: STATUS),
    ):
        pass
