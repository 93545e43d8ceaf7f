"""The command line. Nothing heavy is imported before a command runs: `--help` answers at once."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from streamlearn import cli_kafka, logs
from streamlearn.errors import UserError

USAGE = 2  # exit status for every mistake of a user
INTERRUPTED = 130

app = typer.Typer(
    name="streamlearn",
    help="Score and learn from every event of a stream, adapt to drift, lose nothing.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Target = Annotated[str | None, typer.Option(help="Column to predict.", metavar="NAME")]
FeatureNames = Annotated[
    str | None, typer.Option("--features", help="Columns to learn from, as a,b,c.", metavar="A,B")
]
Ignored = Annotated[
    str | None, typer.Option("--ignore", help="Columns to leave out, as a,b,c.", metavar="A,B")
]
Task = Annotated[
    str | None,
    typer.Option(help="classification or regression; guessed and said if absent.", metavar="TASK"),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Argument of the operator (r=0.1), or a path in the YAML (pipeline[2].r=0.1); "
        "repeatable.",
        metavar="NAME=VALUE",
    ),
]
Delay = Annotated[
    str | None,
    typer.Option(
        help="Labels come later: by so many rows, a duration (30min), or the column with the time "
        "at which each one became known.",
        metavar="N|DURATION|COLUMN",
    ),
]
TimeColumn = Annotated[
    str | None, typer.Option("--time", help="Column with the time of the event.", metavar="NAME")
]
IdColumn = Annotated[
    str | None, typer.Option("--id", help="Column that names the event.", metavar="NAME")
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="Write a report: one HTML file that needs no network."),
]
Limit = Annotated[int | None, typer.Option(help="Stop after so many events.", min=1)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="YAML file with source, schema and pipeline.")],
    assignments: Assignments = None,
    limit: Limit = None,
    json: JsonFile = None,
    report: ReportFile = None,
    log: Annotated[
        str, typer.Option(help="Form of the log lines: text, or json.", metavar="FORM")
    ] = "text",
    dashboard: Annotated[
        str | None,
        typer.Option(
            help="Show the run live in a browser, at this port of this machine; more under "
            "`dashboard` in the YAML.",
            metavar="[HOST:]PORT",
        ),
    ] = None,
    behind_proxy: Annotated[
        bool,
        typer.Option("--behind-proxy", help="With --dashboard: a proxy speaks TLS in front of it."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share the partitions of a topic out, each partition with a model "
            "of its own.",
            min=1,
        ),
    ] = None,
) -> None:
    """Run a config live, resuming.

    Goes on from the last checkpoint; SIGINT and SIGTERM stop it gracefully, with a checkpoint.
    """
    from streamlearn import display_lineages, runner
    from streamlearn.config import load_config

    if log not in logs.FORMS:
        raise UserError(f"--log: must be {' or '.join(logs.FORMS)}, got {log!r}")
    logs.to_stderr(log)
    where = _place_of_dashboard(dashboard, behind_proxy)
    loaded = load_config(config, assignments, {"--dashboard": where})
    if workers is not None or (loaded.kafka is not None and loaded.kafka.mode == "group"):
        if limit is not None or report is not None:
            name = "--report" if limit is None else "--limit"
            raise UserError(f"{name}: is for one model; leave it out where each partition has one")
        display_lineages.run_shown(loaded, workers, json, log)
        return
    result = runner.run(loaded, limit=limit, json=json, report=report, progress=True, log=log)
    _print(result, apart=loaded.sink is not None and loaded.sink.path == "-")


@app.command()
def serve(
    config: Annotated[str, typer.Argument(help="YAML file with schema, pipeline, checkpoint.")],
    assignments: Assignments = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of this machine; more under `serve` in the YAML.", min=0, max=65535
        ),
    ] = None,
    log: Annotated[
        str, typer.Option(help="Form of the log lines: text, or json.", metavar="FORM")
    ] = "text",
) -> None:
    """Serve a model over HTTP: ask it by POST /predict, teach it by POST /learn.

    Goes on from the last checkpoint and the requests after it; SIGINT and SIGTERM stop it
    gracefully. GET /openapi.json describes it.
    """
    from streamlearn import serve as served
    from streamlearn.config import load_config

    if log not in logs.FORMS:
        raise UserError(f"--log: must be {' or '.join(logs.FORMS)}, got {log!r}")
    logs.to_stderr(log)
    where = [] if port is None else [f"serve.port={port}"]
    loaded = load_config(config, assignments, {"--port": where})
    result = served.serve(loaded)
    _print(result, apart=loaded.sink is not None and loaded.sink.path == "-")


def _place_of_dashboard(given: str | None, behind_proxy: bool) -> list[str]:
    """What the options say of the live page, as assignments."""
    found = ["dashboard.behind_proxy=true"] if behind_proxy else []
    if given is None:
        return found
    host, colon, port = given.rpartition(":")
    if not port.isdecimal() or not port.isascii() or (colon and not host):
        raise UserError(f"--dashboard: must be PORT or HOST:PORT, got {given!r}")
    found.insert(0, f"dashboard.port={int(port)}")
    return [*found, f'dashboard.host="{host.strip("[]")}"'] if host else found


@app.command()
def replay(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA|CONFIG",
            help="CSV, JSON Lines or Parquet (also .gz, .zst, a folder), - for JSON Lines on "
            "stdin, river:NAME, kafka:TOPIC, a recording, or a YAML file with a source.",
        ),
    ],
    target: Target = None,
    features: FeatureNames = None,
    ignore: Ignored = None,
    task: Task = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Operator, family (LiteRVFL, ExpertMixture), river.module.Class, or a pipeline "
            "YAML; default KalmanHead; `streamlearn operators` lists them."
        ),
    ] = None,
    assignments: Assignments = None,
    limit: Limit = None,
    predictions: Annotated[
        str | None, typer.Option(help="File for the answers: .csv, .jsonl, .parquet (.gz, .zst).")
    ] = None,
    json: JsonFile = None,
    dead_letters: Annotated[
        str | None, typer.Option(help="File for records that do not fit, with the reason.")
    ] = None,
    pace: Annotated[
        float | None, typer.Option(help="Events a second; as fast as it goes if absent.")
    ] = None,
    delay: Delay = None,
    labels: Annotated[
        str | None,
        typer.Option(help="A second source with the labels, joined by id (needs --id)."),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            help="With --labels: wait for a label so many rows, or so long in event time (7d).",
            metavar="N|DURATION",
        ),
    ] = None,
    assume: Annotated[
        str | None,
        typer.Option(help="With --timeout: the label of events whose own did not come."),
    ] = None,
    id: IdColumn = None,
    time: TimeColumn = None,
    by: Annotated[
        str | None,
        typer.Option(help="Column by whose values metrics are also shown.", metavar="NAME"),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="Order log of a run, or its checkpoint folder: its topics are replayed along it.",
            metavar="PATH",
        ),
    ] = None,
    drifts: Annotated[
        str | None,
        typer.Option(
            help="Known drifts, as rows (10000,20000) or ranges (9000-10500): dips, recoveries and "
            "alarms are judged by them.",
            metavar="ROWS",
        ),
    ] = None,
    probes: Annotated[
        int,
        typer.Option(help="With --drifts: rows of each concept held out as probes.", min=0),
    ] = 0,
    report: ReportFile = None,
) -> None:
    """Score and learn recorded events in order.

    Every event is scored, then learnt from; metrics, baselines and drift alarms are printed.
    """
    from streamlearn import runner

    result = runner.replay(
        data=data,
        target=target,
        features=features,
        ignore=ignore,
        task=task,
        model=model,
        set=assignments,
        limit=limit,
        predictions=predictions,
        json=json,
        dead_letters=dead_letters,
        pace=pace,
        delay=delay,
        labels=labels,
        timeout=timeout,
        assume=assume,
        id=id,
        time=time,
        by=by,
        order=order,
        drifts=drifts,
        probes=probes,
        report=report,
        progress=True,
    )
    _print(result, apart=predictions == "-")


@app.command()
def compare(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Data as for replay; more with --also.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B ...", help="Operators, families, river.module.Class, or pipeline YAMLs."
        ),
    ] = None,
    target: Target = None,
    features: FeatureNames = None,
    ignore: Ignored = None,
    task: Task = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another data set of the same target; repeatable. Shows average ranks."),
    ] = None,
    delay: Delay = None,
    time: TimeColumn = None,
    limit: Limit = None,
    json: JsonFile = None,
    report: ReportFile = None,
) -> None:
    """Compare pipelines in one pass.

    Metrics, baselines, microseconds an event, bytes of state, and paired differences with an
    interval that holds whenever one looks.
    """
    from streamlearn import comparison
    from streamlearn.display import print_comparison

    options: dict[str, Any] = {
        "target": target,
        "features": features,
        "ignore": ignore,
        "task": task,
        "delay": delay,
        "time": time,
        "limit": limit,
    }
    found = comparison.compare_sets(
        [data, *(also or ())], models or [], json=json, report=report, progress=True, **options
    )
    print_comparison(found)


@app.command()
def tune(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Data as for replay.")],
    ranges: Annotated[
        list[str],
        typer.Option(
            "--range",
            help="Range of an argument: r=0.01..10:log, n=1..100, or a=x,y,z; repeatable.",
            metavar="NAME=RANGE",
        ),
    ],
    target: Target = None,
    features: FeatureNames = None,
    ignore: Ignored = None,
    task: Task = None,
    model: Annotated[
        str | None, typer.Option(help="Operator, or a pipeline YAML (ranges are paths then).")
    ] = None,
    assignments: Assignments = None,
    first: Annotated[
        float,
        typer.Option(help="Part of the stream to search on; the rest alone is scored."),
    ] = 0.15,
    trials: Annotated[int, typer.Option(help="Settings to try at most.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of the random search.", min=0)] = 0,
    limit: Limit = None,
    json: JsonFile = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the pipeline with the best settings as YAML."),
    ] = None,
) -> None:
    """Search settings on the first part, score on the rest.

    The settings are frozen before the first event that counts; the part that is scored is never
    searched on.
    """
    from streamlearn import tuning
    from streamlearn.display import print_tuning

    if output is not None:
        _require_new(output)  # before the hours of a search
    found = tuning.tune(
        data=data,
        ranges=ranges,
        target=target,
        features=features,
        ignore=ignore,
        task=task,
        model=model,
        set=assignments,
        first=first,
        trials=trials,
        seed=seed,
        limit=limit,
        json=json,
        progress=True,
    )
    if output is not None:
        _write_new(output, found.to_yaml())
    print_tuning(found)


@app.command()
def forecast(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Recorded series, a row a moment: a file or folder."),
    ],
    target: Annotated[
        str,
        typer.Option(help="Columns to forecast, as a,b,c; all: every number.", metavar="A,B|all"),
    ] = "all",
    horizon: Annotated[int, typer.Option(help="Rows ahead.", min=1)] = 1,
    season: Annotated[
        int | None,
        typer.Option(help="Rows of a period; 0 for none, looked for if absent.", min=0),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option("--features", help="Further columns that inform, as a,b,c.", metavar="A,B"),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Argument of OnlineForecaster (lags=168); repeatable.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    train: Annotated[
        float, typer.Option(help="Rows, or share of them, whose deviations scale the errors.")
    ] = 0.2,
    start: Annotated[
        float, typer.Option(help="Row, or share of the rows, from which on targets count.")
    ] = 0.25,
    time: TimeColumn = None,
    limit: Limit = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="File for the forecasts: .csv, .jsonl, .parquet.", metavar="FILE"
        ),
    ] = None,
    json: JsonFile = None,
    report: ReportFile = None,
) -> None:
    """Forecast recorded series, and say how good it was.

    After every row the next ones are forecast with intervals; each is learnt once it has come.
    Beside the model stand the last value and the value of one season ago.
    """
    from streamlearn import forecasting
    from streamlearn.display_forecast import print_forecast

    found = forecasting.forecast(
        data,
        target,
        horizon,
        season=season,
        features=features,
        set=assignments,
        train=train,
        start=start,
        time=time,
        limit=limit,
        output=output,
        json=json,
        report=report,
    )
    print_forecast(found)


@app.command()
def operators(
    name: Annotated[str | None, typer.Argument(help="Show one in full.")] = None,
) -> None:
    """List the operators, or show one.

    A NAME is a class or a family (LiteRVFL, KalmanHead), and shows its whole documentation.
    """
    import inspect

    from streamlearn import registry
    from streamlearn.display import print_operators

    if name is None:
        print_operators(registry.entries())
        return
    for found in registry.members(name):
        entry = registry.describe(found)
        print(f"{entry.name}({entry.parameters})\n\n{inspect.getdoc(found)}\n")


@app.command("benchmark-detectors")
def benchmark_detectors(
    runs: Annotated[int, typer.Option(help="Streams of each kind of drift.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the streams.", min=0)] = 0,
    average_run_length: Annotated[
        int,
        typer.Option(
            help="Events between false alarms, of calibrated detectors.", min=1_000, max=100_000
        ),
    ] = 10_000,
    peers: Annotated[
        bool, typer.Option(help="Run the detectors of River and frouros, too.")
    ] = True,
    json: JsonFile = None,
) -> None:
    """Compare drift detectors: delay, misses, false alarms, run length, time per update.

    On seeded streams with abrupt, gradual, incremental, recurring drift and with none. Each of ours
    runs as published and calibrated; those of frouros where it is installed.
    """
    from streamlearn.durable import write_text
    from streamlearn.job import check_outputs
    from streamlearn.scoreboard import scoreboard

    check_outputs(None, {"json": json})
    shown = (lambda name: typer.echo(name, err=True)) if sys.stderr.isatty() else None
    found = scoreboard(runs, seed, average_run_length, peers, shown)
    if json is not None:
        write_text(json, found.to_json() + "\n")
    typer.echo("\n".join(found.lines()))


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="Data to infer the schema from.")],
    target: Target = None,
    features: FeatureNames = None,
    ignore: Ignored = None,
    task: Task = None,
    model: Annotated[str, typer.Option(help="Operator of the pipeline.")] = "KalmanHead",
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "streamlearn.yaml"
    ),
) -> None:
    """Write a config for DATA.

    The schema is inferred and declared in it. A file that is there is never overwritten.
    """
    from streamlearn.config import starter

    _write_new(output, starter(data, target, features, ignore, task, model))
    print(f"wrote {output}; check its schema, then: streamlearn run {output}")


@app.command()
def validate(
    config: Annotated[str, typer.Argument(help="YAML file.")],
    assignments: Assignments = None,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also ask the broker for its topics.")
    ] = False,
) -> None:
    """Check a config without reading an event.

    Names, arguments, files, columns, and that every stage takes what the one before it gives.
    """
    from streamlearn import runner
    from streamlearn import serve as served
    from streamlearn.config import ConfigError, load_config

    try:
        loaded = load_config(config, assignments)
        if loaded.source is None and loaded.serve is not None:
            job = served.validated(loaded)
        else:
            job = runner.validated(loaded, connect=connect)
    except ConfigError as error:
        raise UserError("\n".join(error.problems)) from None
    print(f"{config}: is valid\n{job.schema.describe()}\n{job.pipeline!r}")
    if job.config.labels is not None:
        given = job.config.labels.in_words(unset=False)
        print("labels: " + ", ".join(f"{name} {value}" for name, value in given.items()))


@app.command()
def inspect(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or a folder of them.")],
) -> None:
    """Show what a checkpoint holds.

    Positions, metrics, features and arrays; no code from the file is run.
    """
    from streamlearn.checkpoint import describe
    from streamlearn.display import print_checkpoint

    print_checkpoint(describe(checkpoint))


@app.command()
def versions(
    checkpoints: Annotated[str, typer.Argument(help="A checkpoint, or a folder of them.")],
) -> None:
    """Show the versions of a champion: which one serves, and which are kept."""
    from streamlearn.controls import versions as found_in

    found = found_in(checkpoints)
    for entry in found.history:
        print(f"version {entry['version']}: {entry['how']}, after {entry['labels']:,} labels")
    kept = ", ".join(map(str, found.kept)) or "none"
    print(f"version {found.serving} serves; kept as they were when replaced: {kept}")
    for control in found.waiting:
        print(f"version {control.version} serves from the next start on, by hand")


@app.command()
def rollback(
    checkpoints: Annotated[str, typer.Argument(help="The checkpoints of a run that has stopped.")],
    to: Annotated[int | None, typer.Option(help="Version; default: the last one replaced.")] = None,
) -> None:
    """Have the next start of a run serve an earlier version of its champion.

    Positions, labels and metrics stay. Replays along the run's order repeat it at the same event.
    """
    from streamlearn.controls import roll_back

    done = roll_back(checkpoints, to)
    print(f"version {done.version} serves from the next start on, after {done.events:,} events")


cli_kafka.mount(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 for a user's mistake (one line on stderr), 130 on Ctrl-C.

    Args:
        arguments: instead of those of the process.
    """
    sys.exit(_status(arguments))


_ClickException: Any = typer.BadParameter.__mro__[2]  # click's, or the copy in newer typers


def _status(arguments: Sequence[str] | None) -> int:
    """Run one command and turn whatever is the user's mistake into one line and a status."""
    logs.to_stderr()
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        done: Any = app(given or ["--help"], prog_name="streamlearn", standalone_mode=False)
        return done if isinstance(done, int) else 0
    except UserError as error:
        return _failed(error)
    except _ClickException as error:
        return _failed(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `streamlearn operators | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        return _failed(_system_error(error))


def _failed(message: object) -> int:
    for line in str(message).splitlines():
        logs.fail(line)
    return USAGE


def _system_error(error: OSError) -> str:
    """Where it failed, why, and what to do."""
    advice = "make room on the disk" if error.errno == errno.ENOSPC else "check the path"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}; {advice}"


def _require_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path}: is there already; choose another with --output")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no such folder; make it, or correct the path")


def _write_new(path: Path, text: str) -> None:
    _require_new(path)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _print(result: Any, apart: bool) -> None:
    """Print a result, on stderr where stdout holds the answers."""
    from streamlearn.display import print_result

    print_result(result.to_dict(), on_stderr=apart)
