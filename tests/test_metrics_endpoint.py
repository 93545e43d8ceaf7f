"""Metrics: what Prometheus and OpenTelemetry get is what the run knows, and nothing of a record."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from streamlearn import health, metrics
from streamlearn.config import load_config
from streamlearn.errors import UserError
from streamlearn.health import HealthServer, Status, Watch
from streamlearn.job import lineage
from streamlearn.metrics import FAMILIES, PREFIX, exposition
from streamlearn.rehearsal import rehearse
from streamlearn.runner import engine_of, vitals_of

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "deploy"
CONFIG = """
source: {folder}/data.csv
schema:
  id: id
  target: y
  features: {{x: number, shop: category}}
  task: classification
  classes: integer
labels: {{delay: 50}}
pipeline: [OneHotEncoder, Normalizer, {{AdaptiveClassifier: {{model: Kalman, detector: ADWIN}}}}]
dead_letters: {folder}/dead.jsonl
checkpoint: {{path: {folder}/state, every_events: 1000}}
"""


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> Status:
    """The status of a run over everything: late labels, alarms, dead letters, checkpoints."""
    folder = tmp_path_factory.mktemp("metrics")
    rows = [f"secret-{k},{k % 7},s{k % 3},{int((k % 7 > 3) ^ (k > 2000))}" for k in range(4000)]
    bad = [f"secret-bad-{k},no-number-{k},s0,1" for k in range(5)]
    (folder / "data.csv").write_text("\n".join(["id,x,shop,y", *rows, *bad]) + "\n")
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder))
    job = lineage(load_config(folder / "run.yaml"))
    rehearse(job)
    watch = Watch()
    engine = engine_of(job, beat=watch.beat, vitals=vitals_of(job))
    watch.add("all", engine, job.outputs)
    engine.run()
    watch.look()
    return watch.status()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(text: str) -> Samples:
    """What Prometheus' own parser reads."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[PREFIX + name, frozenset({"pipeline": "all", **labels}.items())]


def test_what_is_scraped_is_what_the_run_knows(status: Status) -> None:
    text, kind = exposition(lambda: status)
    assert kind.startswith("text/plain")
    found, told = scraped(text.decode()), status["lineages"]["all"]
    assert value(found, "events_total") == value(found, "stream_events") == 4000
    assert value(found, "alarms_total") == told["alarms"] >= 1
    assert value(found, "detector_alarms_total", detector="ADWIN") == told["alarms"]
    assert value(found, "dead_letters_total") == 5
    reason = "feature 'x' must be a number"
    assert value(found, "dead_letters_by_reason_total", reason=reason) == 5
    accuracy = told["standing"]["windowed"]["accuracy"]
    assert value(found, "metric", metric="accuracy") == accuracy
    baseline = told["standing"]["baselines"]["majority"]["accuracy"]
    assert value(found, "baseline_metric", baseline="majority", metric="accuracy") == baseline
    assert value(found, "label_backlog") == told["labels"]["pending"]
    assert value(found, "labels", fate="labelled") == told["labels"]["labelled"]
    assert value(found, "label_delay_rows", share="p50") == 50
    assert value(found, "checkpoint_number") == told["checkpoint"]["number"]
    assert value(found, "checkpoint_bytes") == told["checkpoint"]["bytes"]
    assert value(found, "state_bytes") == told["state_bytes"] > 0
    mean = told["drift"][0]["mean"]
    detector = "AdaptiveClassifier/ADWIN"
    assert value(found, "drift_mean", detector=detector, watches="error") == mean
    assert value(found, "block_seconds_count") == told["blocks"]["n"] >= 4
    assert value(found, "block_seconds_bucket", le="+Inf") == told["blocks"]["n"]
    assert found[PREFIX + "live", frozenset()] == 1
    below = [value(found, "block_seconds_bucket", le=str(le)) for le in told["blocks"]["bounds"]]
    assert below == sorted(below)


def test_nothing_of_a_record_is_in_the_metrics_or_in_health(status: Status) -> None:
    text, _ = exposition(lambda: status)
    for shown in (text.decode(), json.dumps(health.brief(status))):
        for part in ("secret", "no-number", "shop=s", "='s1'"):
            assert part not in shown


def test_features_made_of_categories_have_no_metric_of_their_own() -> None:
    features = [{"name": "x", "statistic": 0.5, "limit": 0.2}, {"name": "shop=42", "statistic": 1}]
    drift = [{"stage": "F", "detector": "F", "watches": "features", "features": features}]
    told = {"about": {"features": ["x", "shop"]}, "drift": drift, "lag": {}}
    status = {"live": True, "ready": True, "lineages": {"all": told}}
    found = scraped(exposition(lambda: status)[0].decode())
    assert value(found, "feature_drift_statistic", detector="F/F", feature="x") == 0.5
    assert value(found, "feature_drift_limit", detector="F/F", feature="x") == 0.2
    assert sum("feature_drift" in name for name, _ in found) == 2


def test_openmetrics_is_given_where_it_is_accepted(status: Status) -> None:
    text, kind = exposition(lambda: status, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_a_lineage_that_knows_little_has_few_metrics() -> None:
    status = {"live": True, "ready": False, "lineages": {"partition-1": {"events": 3, "lag": {}}}}
    found = scraped(exposition(lambda: status)[0].decode())
    assert {name for name, _ in found} == {
        "streamlearn_live", "streamlearn_ready", "streamlearn_stream_events",
        "streamlearn_model_info",
    }  # fmt: skip


def test_http_gives_metrics_beside_health(status: Status) -> None:
    with (
        HealthServer("127.0.0.1", 0, lambda: status) as server,
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer,
    ):
        assert answer.status == 200
        found = scraped(answer.read().decode())
    assert value(found, "stream_events") == 4000


def test_without_the_library_there_is_one_line(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UserError, match=r"^metrics: need prometheus-client; install it by"):
        exposition(lambda: status)
    with HealthServer("127.0.0.1", 0, lambda: status) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        with pytest.raises(urllib.error.HTTPError, match="501") as caught:
            urllib.request.urlopen(url, timeout=10)
        caught.value.close()


# -- the files for Grafana and Prometheus ----------------------------------------------------------

SUFFIXES = {
    metrics.COUNTER: ["_total"], metrics.GAUGE: [""],
    metrics.HISTOGRAM: ["_bucket", "_count", "_sum"],
}  # fmt: skip
NAMES = {PREFIX + family.name + end for family in FAMILIES for end in SUFFIXES[family.kind]}
NAMES |= {PREFIX + "live", PREFIX + "ready"}
RULES = FOLDER / "prometheus-rules.yaml"
DASHBOARD = FOLDER / "grafana-dashboard.json"


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_exists(where: str, expression: str) -> None:
    named = set(re.findall(r"streamlearn_\w+", expression))
    assert named, where
    assert named <= NAMES
    known = {label for family in FAMILIES for label in family.labels}
    known |= {"pipeline", "instance", "job", "le"}
    asked = re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", expression)
    for listed in re.findall(r"(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)", expression):
        asked += [label.strip() for label in listed.split(",") if label.strip()]
    assert set(asked) <= known


def test_the_dashboard_shows_every_part_of_a_run() -> None:
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    text = DASHBOARD.read_text()
    for part in ("events_total", "lag_records", "block_seconds_bucket", "baseline_metric",
                 "drift_statistic", "alarms_total", "label_backlog", "label_delay",
                 "dead_letters_by_reason_total", "checkpoint_age_seconds", "state_bytes",
                 "model_version", "webhook_waiting"):  # fmt: skip
        assert PREFIX + part in text
    assert "${DS_PROMETHEUS}" in text  # asked for when it is imported


def test_every_rule_says_what_is_wrong_and_how_bad_it_is() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["description"]


WORSE = """
rule_files: ["{rules}"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'streamlearn_metric{{pipeline="a", metric="accuracy"}}', values: '0.6+0x60'}}
      - {{series: 'streamlearn_metric{{pipeline="b", metric="accuracy"}}', values: '0.9+0x60'}}
      - series:
          'streamlearn_baseline_metric{{pipeline="a", metric="accuracy", baseline="majority"}}'
        values: '0.5+0x60'
      - series:
          'streamlearn_baseline_metric{{pipeline="a", metric="accuracy", baseline="no_change"}}'
        values: '0.7+0x60'
      - series:
          'streamlearn_baseline_metric{{pipeline="b", metric="accuracy", baseline="no_change"}}'
        values: '0.7+0x60'
      - {{series: 'streamlearn_webhook_waiting{{pipeline="a"}}', values: '3+0x60'}}
      - {{series: 'streamlearn_webhook_sent_total{{pipeline="a"}}', values: '5+0x60'}}
      - {{series: 'streamlearn_webhook_waiting{{pipeline="b"}}', values: '3+0x60'}}
      - {{series: 'streamlearn_webhook_sent_total{{pipeline="b"}}', values: '5+1x60'}}
    alert_rule_test:
      - eval_time: 40m
        alertname: StreamlearnWorseThanBaseline
        exp_alerts:
          - exp_labels: {{severity: warning, pipeline: a, metric: accuracy}}
            exp_annotations: {worse}
      - eval_time: 40m
        alertname: StreamlearnWebhookDown
        exp_alerts:
          - exp_labels: {{severity: warning, pipeline: a}}
            exp_annotations: {down}
"""


def said(alert: str, **values: str) -> str:
    """The annotations of a rule, filled in."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = next(r for g in groups for r in g["rules"] if r["alert"] == alert)["annotations"]
    text = json.dumps(found)
    for name, value in values.items():
        text = text.replace(f"{{{{ ${name} }}}}", value)
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    return text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_wrong_and_rules_alert_when_they_should(
    status: Status, tmp_path: Path
) -> None:
    """The dashboard's expressions are checked as if each were a recording rule."""
    filled = {"$__rate_interval": "5m", "$pipeline": ".*", "$metric": "accuracy"}
    rules: list[dict[str, Any]] = []
    for _, expression in expressions():
        whole = expression
        for name, text in filled.items():
            whole = whole.replace(name, text)
        rules.append({"record": "checked", "expr": whole, "labels": {"n": str(len(rules))}})
    (tmp_path / "board.yaml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    told = {
        "worse": said("StreamlearnWorseThanBaseline", pipeline="a", metric="accuracy"),
        "down": said("StreamlearnWebhookDown", pipeline="a", value="3"),
    }
    (tmp_path / "tests.yaml").write_text(WORSE.format(rules=RULES, **told))
    shown, _ = exposition(lambda: status)
    for asked, given in (
        (["check", "rules", str(RULES)], b""),
        (["check", "rules", str(tmp_path / "board.yaml")], b""),
        (["check", "metrics"], shown),
        (["test", "rules", str(tmp_path / "tests.yaml")], b""),
    ):
        ran = subprocess.run(["promtool", *asked], input=given, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
