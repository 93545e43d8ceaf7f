"""Configurations: what is accepted, and for every mistake one line with its path and its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamlearn import yaml12
from streamlearn.config import (
    Config,
    ConfigError,
    assign,
    build_pipeline,
    check,
    load_config,
    split_assignment,
)
from streamlearn.config_topics import TopicsSection
from streamlearn.errors import UserError
from streamlearn.schema import Feature, Schema

Write = Callable[[str], Path]


def value_of(text: str) -> Any:
    return yaml12.parse(text, "text").value


# -- YAML ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1'", "1"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"^c\.yaml, line 3: the key 'a' stands twice; remove one$"),
        ("a: 1\nb: [1, 2\n", r"^c\.yaml, line 3: expected ',' or '\]'"),
        ("a: b: c", r"^c\.yaml, line 1: mapping values are not allowed here"),
        ("a: 1\n\tb: 2", r"^c\.yaml, line 2: found character '\\t'"),
        ("a: *b", r"^c\.yaml, line 1: found undefined alias"),
        ("a: 1\n---\nb: 1", r"^c\.yaml, line 2: but found another document"),
        ("[1]: 2", r"^c\.yaml, line 1: a key must be a word or a number"),
        ("a: \x00", r"^c\.yaml: unacceptable character"),
        (
            "a: !!python/object/apply:os.getcwd []",
            r"^c\.yaml, line 1: could not determine a constr",
        ),
        ("[" * 5000, r"^c\.yaml: maximum recursion depth"),
    ],
)
def test_broken_yaml_is_one_line_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        yaml12.parse(text, "c.yaml")
    assert "\n" not in str(caught.value)


def test_the_line_of_a_path_looks_through_the_name_of_an_operator() -> None:
    text = "source: a.csv\npipeline:\n- Imputer\n- Normalizer:\n    decay: 0.1\n"
    document = yaml12.parse(text, "c.yaml")
    assert document.line("source") == 1
    assert document.line("pipeline[0]") == 3
    assert document.line("pipeline[1].decay") == 5
    assert document.line("pipeline[1].nothing") == 4
    assert document.line("nothing") == 1
    assert yaml12.parse("", "c.yaml").line("a") is None


# -- sections --------------------------------------------------------------------------------------


def problems_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(data)
    return caught.value.problems


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"sorce": "a.csv"}, "sorce: is an unknown key; did you mean source?"),
        (
            {"checkpoint": {"path": "c", "evry_events": 5}},
            "checkpoint.evry_events: is an unknown key; did you mean every_events?",
        ),
        (
            {"evaluation": {"window": 0}},
            "evaluation.window: must be greater than or equal to 1, got 0",
        ),
        (
            {"evaluation": {"window": "many"}},
            "evaluation.window: must be a whole number, got 'many'",
        ),
        ({"evaluation": {"window": True}}, "evaluation.window: must be a whole number, got True"),
        (
            {"evaluation": {"fading": 1.5}},
            "evaluation.fading: must be less than or equal to 1, got 1.5",
        ),
        ({"engine": {"pace": -1.0}}, "engine.pace: must be greater than 0, got -1.0"),
        ({"checkpoint": {}}, "checkpoint.path: must be there"),
        ({"checkpoint": "folder"}, "checkpoint: must be `key: value` pairs, got 'folder'"),
        ({"pipeline": "KalmanHead"}, "pipeline: must be a list, got 'KalmanHead'"),
        ({"pipeline": []}, "pipeline: must not be empty, got []"),
        ({"schema": {}}, "schema.features: must be there"),
        ({"schema": {"features": {}}}, "schema: features must name at least one column"),
        (
            {"schema": {"features": {"a": "number"}, "tarket": "y"}},
            "schema.tarket: is an unknown key; did you mean target or task?",
        ),
        (
            {"schema": {"features": {"a": {"kind": "time", "part": []}}}},
            "schema.features.a.part: is an unknown key; did you mean parts?",
        ),
        (
            {"schema": {"features": {"a": "number"}, "target": "y"}},
            "schema: target and task must be given together",
        ),
        ({"allow_pickle": "yes"}, "allow_pickle: must be true or false, got 'yes'"),
    ],
)
def test_a_mistake_is_named_with_its_path_rule_and_value(
    data: dict[str, Any], problem: str
) -> None:
    assert problems_of(data) == [problem]


KAFKA = {"bootstrap": "localhost:9092"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"source": "kafka:a"},
            "kafka: must be there for source; say bootstrap: host:port under it",
        ),
        (
            {"source": "a.csv", "sink": "kafka:b"},
            "kafka: must be there for sink; say bootstrap: host:port under it",
        ),
        (
            {"source": "kafka:", "kafka": KAFKA},
            "source: kafka:: must name a topic, as in kafka:transactions",
        ),
        (
            {"source": "kafka:a?form=json", "kafka": KAFKA},
            (
                "source: has the unknown option 'form'; options are start, to, format, and how to "
                "reach the broker stands in the section kafka"
            ),
        ),
        (
            {"source": "kafka:a?start=yesterday", "kafka": KAFKA},
            (
                "source.start: must be earliest, latest, an offset or a time such as "
                "2026-11-01T00:00:00Z, got 'yesterday'"
            ),
        ),
        (
            {"source": {"topics": ["a"], "to": "earliest"}, "kafka": KAFKA},
            (
                "source.to: must be end, an offset or a time such as 2026-11-01T00:00:00Z, "
                "got 'earliest'"
            ),
        ),
        (
            {"source": {"topics": ["a", "a"]}, "kafka": KAFKA},
            "source.topics: 'a' stands twice; name it once",
        ),
        ({"source": {"topics": []}, "kafka": KAFKA}, "source.topics: must not be empty, got []"),
        ({"source": 5}, "source: must be a text, got 5"),
        (
            {"source": {"topic": ["a"]}, "kafka": KAFKA},
            "source.topics: must be there",
        ),
        (
            {"labels": {"source": {"topics": ["a"], "stat": "latest"}}, "kafka": KAFKA},
            "labels.source.stat: is an unknown key; did you mean start?",
        ),
        (
            {"source": {"topics": ["a"], "format": "csv"}, "kafka": KAFKA},
            "source.format: columns must name the columns of csv",
        ),
        (
            {"source": {"topics": ["a"], "format": {"name": "json", "colums": []}}, "kafka": KAFKA},
            "source.format.colums: is an unknown key; did you mean columns?",
        ),
        (
            {
                "source": {"topics": ["a"], "format": {"name": "avro", "message": "b"}},
                "kafka": KAFKA,
            },
            "source.format: descriptors and message must be given together",
        ),
        (
            {"kafka": {"bootstrap": "a:1", "client": "librdkafka"}},
            "kafka.client: must be 'kafka-python' or 'confluent', got 'librdkafka'",
        ),
        (
            {"kafka": {"bootstrap": "a:1,"}},
            "kafka: bootstrap must be host:port[,host:port], got 'a:1,'",
        ),
        (
            {"kafka": KAFKA | {"transactional_id": "t"}},
            "kafka: transactional_id is for delivery: transactions",
        ),
        ({"sink": "kafka:a,b", "kafka": KAFKA}, "sink: must name one topic, got 'kafka:a,b'"),
        ({"sink": {"format": "csv"}}, "sink: must name a path or a topic, got neither"),
        (
            {"sink": "kafka:a?format=csv", "kafka": KAFKA},
            "sink: format must be json or avro, got 'csv'",
        ),
        ({"sink": {"path": "a.csv", "keyed": False}}, "sink: keyed is for topics"),
        ({"dead_letters": {"path": "a", "redact": ["b"]}}, "dead_letters: redact is for topics"),
        (
            {"alerts": {"topic": "a", "overwrite": True}, "kafka": KAFKA},
            "alerts: overwrite is for files; a topic is written on at its end",
        ),
        (
            {"source": "a.csv", "kafka": KAFKA | {"mode": "group"}},
            "kafka.mode: group is for a source of topics, and labels of topics or none",
        ),
        (
            {"source": "kafka:a", "kafka": KAFKA | {"mode": "group"}},
            "checkpoint: must be there for kafka.mode group; all workers share its folder",
        ),
        (
            {"source": "kafka:a", "sink": "p.csv", "kafka": KAFKA | {"delivery": "transactions"}},
            "kafka.delivery: transactions are for a source and outputs that are topics",
        ),
        (
            {"source": "kafka:a", "sink": "kafka:b", "kafka": KAFKA | {"delivery": "transactions"}},
            "checkpoint: must be there for kafka.delivery transactions",
        ),
        (
            {"health": {"port": 70000}},
            "health.port: must be less than or equal to 65535, got 70000",
        ),
        (
            {"engine": {"shutdown_timeout": 30}},
            "engine.shutdown_timeout: must be less than 30, got 30",
        ),
        (
            {"checkpoint": {"path": "c", "keep_order": "none"}},
            "checkpoint.keep_order: must be 'all' or 'needed', got 'none'",
        ),
    ],
)
def test_a_mistake_about_topics_is_named_before_anything_is_connected(
    data: dict[str, Any], problem: str
) -> None:
    assert problems_of(data)[0] == problem


def test_the_short_form_of_topics_is_the_long_one() -> None:
    short = check(
        {
            "source": "kafka:a,b?start=latest&to=end",
            "labels": {"source": "kafka:c"},
            "sink": "kafka:p",
            "kafka": KAFKA | {"registry": "http://r"},
        }
    )
    long = check(
        {
            "source": {"topics": ["a", "b"], "start": "latest", "to": "end", "format": "json"},
            "labels": {"source": {"topics": ["c"]}},
            "sink": {"topic": "p"},
            "kafka": KAFKA | {"registry": {"url": "http://r"}},
        }
    )
    assert short.model_dump() == long.model_dump()


def test_options_of_a_client_are_not_shown() -> None:
    options = {"sasl_plain_password": "s3cret"}
    config = check({"source": "kafka:a", "kafka": KAFKA | {"options": options}})
    assert config.kafka is not None
    assert isinstance(config.source, TopicsSection)
    shown = [config, config.kafka, config.kafka.connection(), config.kafka.topics(config.source)]
    for value in shown:
        assert "s3cret" not in repr(value)
        assert "s3cret" not in str(value)


def test_every_mistake_is_listed_and_the_message_counts_them() -> None:
    data = {"sorce": 1, "evaluation": {"window": 0, "fadin": 1}}
    with pytest.raises(
        ConfigError, match=r"^evaluation\.window: .* \(and 2 more; .*validate"
    ) as caught:
        check(data)
    assert len(caught.value.problems) == 3


def test_a_config_is_frozen_and_has_sober_defaults() -> None:
    config = check({"source": "a.csv", "pipeline": ["KalmanHead"]})
    assert config.evaluation.window == 1000
    assert config.checkpoint is None
    assert not config.allow_pickle
    with pytest.raises(ValueError, match="frozen"):
        config.source = "b.csv"


def test_a_config_can_be_made_in_python_too() -> None:
    schema = Schema(features={"a": Feature(kind="number")})
    config = Config(source="a.csv", schema=schema, pipeline=["ADWIN"])
    read = check(
        {"source": "a.csv", "schema": {"features": {"a": "number"}}, "pipeline": ["ADWIN"]}
    )
    assert config.model_dump() == read.model_dump()


@pytest.mark.parametrize(
    "value",
    [
        *("y", "NO", "on", "~", "=", "1e-3", "12:30", "010", "true", "null", "", " a", "a: b", "é"),
        *("0o7", "-.inf", "1_000", "2020-01-01", 1e-3, 10**20, 1.0, True, None, [], {}),
        [{"a": [1, {"b": "c"}]}],
    ],
)
def test_what_is_written_is_read_back(value: Any) -> None:
    found = value_of(yaml12.dump({"key": value}))["key"]
    assert found == value
    assert type(found) is type(value)


# -- files and --set -------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return path

    return write


def test_an_error_in_a_file_ends_with_its_line(written: Write) -> None:
    path = written("source: a.csv\nevaluation:\n  window: 1000\n  fadng: 0.9\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"evaluation.fadng: is an unknown key; did you mean fading? ({path}, line 4)"
    )


def test_a_file_must_hold_pairs_and_be_readable(tmp_path: Path, written: Write) -> None:
    with pytest.raises(
        UserError, match=r"must be `key: value` pairs, got \['KalmanHead'\]; keys are"
    ):
        load_config(written("- KalmanHead\n"))
    with pytest.raises(UserError, match="must be `key: value` pairs, got None"):
        load_config(written(""))
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"source: \xe9.csv")
    with pytest.raises(UserError, match="must be UTF-8 text, got other bytes at 8"):
        load_config(tmp_path / "latin.yaml")


def test_set_changes_what_the_file_says(written: Write) -> None:
    path = written("pipeline:\n- Imputer\n- KalmanClassifier:\n    a: 1\n- ADWIN\n")
    config = load_config(
        path, ["pipeline[1].b=1e-3", "pipeline[2].delta=0.5", "evaluation.window=7", "source=NO"]
    )
    assert config.pipeline == [
        "Imputer",
        {"KalmanClassifier": {"a": 1, "b": 1e-3}},
        {"ADWIN": {"delta": 0.5}},
    ]
    assert config.evaluation.window == 7
    assert config.source == "NO"


def test_set_reaches_the_members_of_wrappers() -> None:
    data = {"pipeline": [{"Adaptive": {"model": "KalmanClassifier", "detector": {"ADWIN": {}}}}]}
    assign(data, "pipeline[0].model.r", 2)
    assign(data, "pipeline[0].detector.delta", 0.1)
    assert data["pipeline"][0]["Adaptive"] == {
        "model": {"KalmanClassifier": {"r": 2}},
        "detector": {"ADWIN": {"delta": 0.1}},
    }


@pytest.mark.parametrize("path", ["pipeline[3].r", "pipeline.r", "pipeline[0]", "source.x.y"])
def test_set_with_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    with pytest.raises(UserError, match=r"^--set .*: there is no "):
        assign({"pipeline": ["Imputer"], "source": "a.csv"}, path, 1)


def test_an_error_of_a_value_that_was_set_names_no_line_of_the_file(written: Write) -> None:
    """A value of the file beside it keeps its line."""
    path = written("source: a.csv\nevaluation: {window: 10}\npipeline: [KalmanClassifier]\n")
    for given, problem in (
        ("evaluation.window=0", "evaluation.window: must be"),
        ("evaluation.fadng=0.9", "evaluation.fadng: is an unknown key"),
        ("evaluation={window: 0}", "evaluation.window: must be"),
        ("pipeline[0].sigma2=-1", "pipeline[0].sigma2: must be > 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            build_pipeline(load_config(path, [given]), "classification")
        assert str(caught.value).startswith(problem)
        assert str(caught.value).endswith(f"(--set {given.partition('=')[0]})")
    path = written("source: a.csv\nevaluation:\n  window: 0\n")
    with pytest.raises(ConfigError, match=r"line 3\)$"):
        load_config(path, ["evaluation.fading=0.9"])


def test_an_error_of_what_an_option_gave_names_the_option(written: Write) -> None:
    """Of a section that the file has, it names the line."""
    given = {"--dashboard": ["dashboard.port=80", "dashboard.host=0.0.0.0"]}
    for text, problem, place in (
        ("", "dashboard: token must be there", "(--dashboard)"),
        ("dashboard: {token: abc}\n", "dashboard: tls_cert", ", line 2)"),
        ("dashboard: {prt: 5}\n", "dashboard.prt: is an unknown key", ", line 2)"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(written(f"source: a.csv\n{text}"), None, given)
        assert str(caught.value).startswith(problem)
        assert place in str(caught.value)
    with pytest.raises(ConfigError, match=r"^dashboard\.port: .* \(--dashboard\)$"):
        load_config(written("source: a.csv\n"), None, {"--dashboard": ["dashboard.port=99999"]})


def test_set_must_have_a_name_and_a_value() -> None:
    assert split_assignment("a=b=c") == ("a", "b=c")
    assert split_assignment("r=0.5") == ("r", 0.5)
    assert split_assignment("r=") == ("r", None)
    for text in ("r", "=1", " =1"):
        with pytest.raises(UserError, match=r"^--set: must be name=value"):
            split_assignment(text)
    with pytest.raises(UserError, match=r"^--set r, line 1: "):
        split_assignment("r=[1")
