"""Files played into topics: every record once, in order, with its key, at its time."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamlearn import cli
from streamlearn.connectors.kafka.produce import pace_of, produce
from streamlearn.connectors.kafka.wire import BrokerError, Connection, Outgoing
from streamlearn.errors import UserError
from tests.kafka.broker import Broker, consume

NOWHERE = Connection("nowhere:1")


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.05
        self.now += seconds


class Sent:
    """A client whose producer notes when it was given what."""

    def __init__(self, clock: Clock | None = None, fails_at: int | None = None) -> None:
        self.clock, self.fails_at = clock or Clock(), fails_at
        self.told: list[tuple[float, Outgoing]] = []
        self.made: list[tuple[str, int, Mapping[str, str]]] = []
        self.flushed = self.closed = False

    def producer(self, connection: Connection, **_: Any) -> Any:
        return self

    admin = producer

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        self.made.append((topic, partitions, config))

    def partitions(self, topic: str, max_wait: float) -> int:
        return 3

    def send(self, records: Outgoing) -> None:
        if self.fails_at is not None and len(self.told) == self.fails_at:
            raise BrokerError("records: are refused")
        self.told.append((self.clock() - 50.0, records))

    def flush(self) -> None:
        self.flushed = True

    def close(self) -> None:
        self.closed = True

    @property
    def values(self) -> list[Any]:
        return [json.loads(value or b"") for _, out in self.told for value in out.values]


def lines(path: Path, times: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps({"n": n, "t": t}) + "\n" for n, t in enumerate(times)))
    return path


def played(path: Path, clock: Clock, **options: Any) -> list[tuple[float, int]]:
    """When each record was sent."""
    client: Any = Sent(clock)
    produce(path, "t", NOWHERE, client=client, clock=clock, sleep=clock.sleep, **options)
    return [
        (when, json.loads(value or b"")["n"]) for when, out in client.told for value in out.values
    ]


def test_records_are_sent_at_their_own_pace(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [100, 100.5, 100.25, 103])
    sent = played(path, Clock(), pace="realtime", time="t")
    assert [n for _, n in sent] == [0, 1, 2, 3]
    assert [when for when, _ in sent] == pytest.approx([0.0, 0.5, 0.5, 3.0], abs=1e-6)


def test_a_factor_is_faster(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", range(0, 6000, 60))
    sent = played(path, Clock(), pace="60", time="t")
    assert [when for when, _ in sent] == pytest.approx(range(100), abs=1e-6)


def test_as_fast_as_possible_never_sleeps(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", range(10_000))
    clock = Clock()
    sent = played(path, clock, time="t")
    assert [n for _, n in sent] == list(range(10_000))
    assert clock.now == 50.0


def test_what_was_sent_before_a_failure_is_waited_for(tmp_path: Path) -> None:
    client: Any = Sent(fails_at=1)
    path = lines(tmp_path / "a.jsonl", range(10_000))
    with pytest.raises(BrokerError, match="are refused"):
        produce(path, "t", NOWHERE, client=client)
    assert client.flushed
    assert client.closed


def test_a_limit_counts_records(tmp_path: Path) -> None:
    client: Any = Sent()
    path = lines(tmp_path / "a.jsonl", range(10_000))
    assert produce(path, "t", NOWHERE, client=client, limit=4097).records == 4097
    assert [value["n"] for value in client.values] == list(range(4097))


def test_old_times_are_kept_in_a_topic_that_is_made(tmp_path: Path) -> None:
    client: Any = Sent()
    path = lines(tmp_path / "a.jsonl", [1])
    produce(path, "new", NOWHERE, client=client, partitions=4, time="t")
    produce(path, "other", NOWHERE, client=client, partitions=1)
    assert client.made == [("new", 4, {"retention.ms": "-1"}), ("other", 1, {})]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pace": "fast"}, "pace: must be realtime, max or a factor > 0, got 'fast'"),
        ({"pace": "0"}, "pace: must be realtime, max or a factor > 0, got '0'"),
        ({"pace": "nan"}, "pace: must be realtime, max or a factor > 0, got 'nan'"),
        ({"pace": "realtime"}, "pace: realtime goes by the times of the records; name their"),
        ({"partitions": 0}, "partitions: must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    client: Any = Sent()
    with pytest.raises(UserError) as told:
        produce(lines(tmp_path / "a.jsonl", [1]), "t", NOWHERE, client=client, **options)
    assert str(told.value).startswith(message)


def test_paces() -> None:
    assert [pace_of(text) for text in ("realtime", "0.5", "max")] == [1.0, 0.5, float("inf")]


# -- with a broker ---------------------------------------------------------------------------------


def test_a_file_is_in_the_topic_record_for_record(
    broker: Broker, connection: Connection, topic: Callable[..., str], tmp_path: Path
) -> None:
    name = topic(2)
    path = tmp_path / "a.csv"
    path.write_text("t,card,x\n" + "".join(f"{1000 + n},c{n % 7},{n}.5\n" for n in range(500)))
    done = produce(path, name, connection, time="t", key="card")
    assert done[:2] == (500, 2)
    got = consume(broker, name)
    read = [json.loads(record.value or b"") for record in got]
    assert sorted(row["x"] for row in read) == [n + 0.5 for n in range(500)]
    assert [record.time for record in got] == [row["t"] * 1000 for row in read]
    assert [record.key for record in got] == [row["card"].encode() for row in read]
    homes = {(row["card"], record.partition) for row, record in zip(read, got, strict=True)}
    assert len(homes) == 7  # a key has one partition
    for number in (0, 1):
        mine = [r["t"] for r, record in zip(read, got, strict=True) if record.partition == number]
        assert mine == sorted(mine)


def test_the_command_makes_the_topic_and_sends(
    broker: Broker, client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "a.jsonl", range(20))
    name = f"made-by-produce-{client}"
    arguments = ["produce", str(path), "--topic", name, "--partitions", "2", "--time", "t"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--bootstrap", broker.bootstrap, "--client", client])
    assert not ended.value.code
    assert f"sent 20 records to {name} (2 partitions)" in capsys.readouterr().out
    got = [json.loads(record.value or b"")["n"] for record in consume(broker, name)]
    assert sorted(got) == list(range(20))
