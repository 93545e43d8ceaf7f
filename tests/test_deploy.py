"""The files for Compose and Kubernetes: their configurations are valid, their parts agree."""

from pathlib import Path
from typing import Any

import yaml

import streamlearn
from streamlearn.config import Config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "deploy"


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"])


def kubernetes() -> dict[str, Any]:
    documents = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


def loaded(text: str, folder: Path) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return streamlearn.load_config(path)


def test_compose_runs_the_configuration_beside_it(tmp_path: Path) -> None:
    services = compose()
    config = loaded((FOLDER / "parcels.yaml").read_text("utf-8"), tmp_path)
    assert config.kafka is not None
    assert config.health is not None
    run = services["streamlearn"]
    assert (
        f"{config.kafka.bootstrap}"
        in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert run["ports"] == [f"{config.health.port}:{config.health.port}"]
    assert str(config.health.port) in run["healthcheck"]["test"][-1]
    assert int(run["stop_grace_period"].removesuffix("s")) > config.engine.shutdown_timeout
    assert run["command"][1] == run["volumes"][0].split(":")[1]
    assert config.checkpoint is not None
    assert config.checkpoint.path.startswith(run["volumes"][1].split(":")[1])
    assert (ROOT / run["build"]["dockerfile"]).exists()


def test_compose_makes_the_topics_that_the_run_writes_to(tmp_path: Path) -> None:
    config = loaded((FOLDER / "parcels.yaml").read_text("utf-8"), tmp_path)
    made = compose()["topics"]["command"][0]
    outputs = (config.sink, config.alerts, config.dead_letters)
    assert all(output is not None for output in outputs)
    topics = [output.topic for output in outputs if output is not None]
    assert all(f" {topic}:" in made for topic in topics)
    assert " parcels:2 predictions:2 " in made  # answers keep the partition of their event


def test_kubernetes_waits_for_the_run_and_asks_where_it_answers(tmp_path: Path) -> None:
    found = kubernetes()
    config = loaded(found["ConfigMap"]["data"]["parcels.yaml"], tmp_path)
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert config.health is not None
    assert container["ports"][0]["containerPort"] == config.health.port
    assert config.health.host == "0.0.0.0"
    assert pod["terminationGracePeriodSeconds"] > config.engine.shutdown_timeout
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["args"][1].startswith(mounts["config"])
    assert config.checkpoint is not None
    assert config.checkpoint.path.startswith(mounts["state"])
    assert config.kafka is not None
    secrets = [value for value in config.kafka.options.values() if "/run/secrets" in str(value)]
    assert len(secrets) == 2
    assert all(mounts["kafka"] in str(secret) for secret in secrets)


def test_kubernetes_never_has_two_writers_of_one_volume() -> None:
    spec = kubernetes()["StatefulSet"]["spec"]
    assert spec["replicas"] == 1
    assert spec["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOnce"]
