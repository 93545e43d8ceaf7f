"""What the command line shows of runs whose partitions have a model each: a row a partition."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamlearn import display, logs
from streamlearn.config import Config
from streamlearn.durable import write_text
from streamlearn.group import LineagesResult, run_lineages
from streamlearn.wording import counted

_SHOWN_METRICS = 3


def run_shown(config: Config, workers: int | None, json: Path | None, log: str) -> None:
    """Run a configuration, here or in so many processes, and show what came of it."""
    progress = logs.Progress() if log == "json" else display.Progress()
    if workers is None:
        found = run_lineages(config, progress=progress)
    else:
        from streamlearn.workers import run_workers

        found = run_workers(config, workers, progress=progress, log=log)
    if json is not None:
        write_text(json, found.to_json() + "\n")
    print_lineages(found)


def print_lineages(found: LineagesResult, console: Console | None = None) -> None:
    """Events, rejects, alarms and the first metrics of each partition, and the sums below."""
    out = console or Console()
    rows = sorted(found.lineages.items())
    metrics = list(rows[0][1]["metrics"])[:_SHOWN_METRICS] if rows else []
    table = Table(box=None, pad_edge=False)
    table.add_column("partition", justify="right")
    for name in ("events", "dead letters", "alarms", *metrics):
        table.add_column(name, justify="right")
    for number, one in rows:
        counts = (one["events"], one["dead_letters"], one["n_alarms"])
        values = (one["metrics"][name] for name in metrics)
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        table.add_row(str(number), *(f"{n:,}" for n in counts), *cells)
    if rows:
        out.print(table)
    of = counted(len(rows), "partition")
    out.print(Text(f"{found.events:,} events of {of} in {found.seconds:.1f} s"), soft_wrap=True)
