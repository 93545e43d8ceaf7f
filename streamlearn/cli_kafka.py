"""Commands for topics: play a file into one, record what a run consumed."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.connectors.kafka.wire import Connection


def produce(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="CSV, JSON Lines or Parquet (also .gz, .zst, folder)."),
    ],
    topic: Annotated[str, typer.Option(help="Topic to send to.")],
    bootstrap: Annotated[
        str, typer.Option(help="Broker, as HOST:PORT.", metavar="HOST:PORT")
    ] = "localhost:9092",
    pace: Annotated[
        str,
        typer.Option(
            help="By the times of the records: realtime, or a factor (60: a minute in a second); "
            "max: as fast as it goes.",
            metavar="realtime|FACTOR|max",
        ),
    ] = "max",
    time_column: Annotated[
        str | None,
        typer.Option(
            "--time", help="Column with the time, which the records then carry.", metavar="NAME"
        ),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="Of times that are numbers: s, ms, us, ns.", metavar="UNIT")
    ] = "s",
    key: Annotated[
        str | None, typer.Option(help="Column whose text is the key.", metavar="NAME")
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(help="Make the topic with so many, if it is not there.", min=1),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many records.", min=1)] = None,
    client: Annotated[str, typer.Option(help="kafka-python or confluent.")] = "kafka-python",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            help="Option of the client (security_protocol=SSL); ${env:NAME} and ${file:PATH} stand "
            "for secrets; repeatable.",
            metavar="NAME=VALUE",
        ),
    ] = None,
) -> None:
    """Play a file into a topic, as JSON.

    At its own pace, a multiple of it, or as fast as possible; ends when the broker has it all.
    """
    from streamlearn.connectors.kafka import produce as playing

    connection = _connection(bootstrap, client, options or ())
    done = playing.produce(
        file,
        topic,
        connection,
        pace=pace,
        time=time_column,
        unit=unit,
        key=key,
        partitions=partitions,
        limit=limit,
    )
    where = f"{topic} ({done.partitions} partition{'s' if done.partitions != 1 else ''})"
    typer.echo(f"sent {done.records:,} records to {where} in {done.seconds:.1f} s")


def record(
    config: Annotated[str, typer.Argument(help="YAML file of the run.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder of the recording.", metavar="FOLDER")
    ],
    partition: Annotated[
        int | None,
        typer.Option(help="Of a run with a model for each partition: which one.", min=0),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until it is stopped (Ctrl-C, SIGTERM).")
    ] = False,
    every: Annotated[
        float, typer.Option(help="With --follow: seconds between two parts.", min=0.1)
    ] = 60.0,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A path in the YAML (kafka.bootstrap=HOST:PORT); repeatable.",
            metavar="NAME=VALUE",
        ),
    ] = None,
) -> None:
    """Record what a run on topics consumed, in its order.

    Follows the order log beside the checkpoints, during the run or after it, and goes on where it
    stood. `streamlearn replay FOLDER --model CONFIG` gives the same bits.
    """
    from streamlearn import tape
    from streamlearn.config import load_config

    loaded = load_config(config, assignments)
    done = tape.record(loaded, output, partition=partition)
    typer.echo(f"recorded {done.records:,} records, {done.rows:,} of them rows, to {output}")
    while follow:
        time.sleep(every)
        done = tape.record(loaded, output, partition=partition)
        if done.records:
            typer.echo(f"recorded {done.records:,} records, {done.rows:,} of them rows")


def _connection(bootstrap: str, client: str, options: Sequence[str]) -> "Connection":
    """How to reach the broker, with the client's options."""
    from streamlearn.connectors.kafka.wire import Connection
    from streamlearn.yaml12 import parse

    given: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise UserError(f"option: must be NAME=VALUE, got {option!r}")
        given[name] = parse(value, f"option {name}").value
    return Connection(bootstrap, client, given)


def mount(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(produce)
    app.command()(record)
