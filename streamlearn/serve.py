"""`streamlearn serve`: one model, asked and taught over HTTP, with everything that a run has."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from streamlearn import config as configs
from streamlearn import topics
from streamlearn.answers import AnswerBook, Outputs
from streamlearn.config import Config
from streamlearn.config_serve import REQUESTS, ServeSection, served
from streamlearn.contracts import Positions
from streamlearn.engine import Engine, Summary, frozen_objects, stopped_by_signals
from streamlearn.errors import UserError
from streamlearn.http_learning import Learning
from streamlearn.job import (
    Job,
    Stream,
    check_outputs,
    evaluation_of,
    fresh,
    output_paths,
    pipeline_of,
    result_of,
    store_of,
    user_errors,
    version_of,
)
from streamlearn.journal import Journal
from streamlearn.label_join import JoinedLabels
from streamlearn.label_sources import label_schema, whole, without_labels
from streamlearn.logs import tell
from streamlearn.metrics import exposition
from streamlearn.observers import observers_of
from streamlearn.rehearsal import rehearse
from streamlearn.request_checks import Checks
from streamlearn.requests import Requests
from streamlearn.result import Result
from streamlearn.runner import engine_of, vitals_of, watched
from streamlearn.schema import LabelSchema, Schema
from streamlearn.serving import Guard, Server
from streamlearn.spill import Spill

_log = logging.getLogger(__name__)
OWNER = "serve"


class Retention:
    """Drops the segments of the journal that none of the checkpoints needs that are kept."""

    def __init__(self, journal: Journal, keep: int) -> None:
        self._journal = journal
        self._saved: deque[int] = deque(maxlen=keep)

    def begin(self) -> int | None:
        """The newest checkpoint counts."""
        return None

    def saved(self, number: int, positions: Positions) -> None:
        """A checkpoint is durable; once all that are kept are known, what is before them goes."""
        self._saved.append(int(positions.get(REQUESTS, 0)))
        if len(self._saved) == self._saved.maxlen:
            self._journal.drop(self._saved[0])

    def close(self) -> None:
        """Nothing is held."""


class Served(NamedTuple):
    """A job whose events are requests, and what stands between it and the server."""

    job: Job
    journal: Journal
    requests: Requests
    book: AnswerBook
    checks: Checks
    section: ServeSection


def planned(given: Config) -> Served:
    """Everything that a configuration asks for, built and checked, nothing opened.

    Raises: UserError with the path of what is wrong or not there.
    """
    config = served(given)
    section, labels = config.serve, config.labels
    assert section is not None
    assert labels is not None
    assert config.checkpoint is not None
    assert config.schema_ is not None
    check_outputs(None, output_paths(config))
    declared = topics.timed(fresh(config.schema_))
    events = without_labels(declared)
    told = label_schema(labels, REQUESTS, events, declared, None, None)
    schema = whole(events, told)
    pipeline = pipeline_of(None, config, None, {}, schema)
    told.bind(None, pipeline.labels)
    folder = Path(config.checkpoint.path)
    journal = Journal(folder / "requests")
    book = AnswerBook(folder / "answers", pipeline.labels, section.remember, config.checkpoint.keep)
    requests = Requests(journal, events, told, book)
    late = joined(requests, events, told, config)
    stream = Stream(late, schema, config, REQUESTS, told)
    job = stream.job(pipeline, evaluation_of(config, schema, task=pipeline.task))
    job = _with_outputs(job._replace(labels=late), book)
    job = job._replace(delivery=Retention(journal, config.checkpoint.keep))
    return Served(job, journal, requests, book, Checks(events, told, section.max_batch), section)


def validated(config: Config) -> Job:
    """`planned`, and whether every stage takes what the one before it gives; nothing is opened.

    Raises: UserError for the first mistake.
    """
    plan = planned(config)
    plan.job.config.check_secrets(OWNER, "dashboard")
    rehearse(plan.job)
    return plan.job


def joined(requests: Requests, events: Schema, labels: LabelSchema, config: Config) -> JoinedLabels:
    """Requests as events with the labels that come for them."""
    section = config.labels
    assert section is not None
    try:
        return JoinedLabels(
            requests,  # type: ignore[arg-type]
            requests,  # type: ignore[arg-type]
            events,
            labels,
            timeout=section.timeout,
            assume=section.assume,
            max_pending=section.max_pending,
        )
    except UserError as error:  # it names the argument
        raise UserError(f"{OWNER}.{error}") from None


def _with_outputs(job: Job, book: AnswerBook) -> Job:
    """The job with its store, what spills beside it, and where its outputs go."""
    config = job.config
    assert config.checkpoint is not None
    assert config.labels is not None
    store = store_of(job, config.checkpoint, config.allow_pickle)
    spill, memory = Spill(store.path / "spill", store.keep), config.labels.memory_mb << 20
    assert isinstance(job.labels, JoinedLabels)
    job.labels.spill_to(spill, memory // 4)
    job.pipeline.spill_to(spill, memory)
    job.evaluation.spill_to(spill, memory)
    version = version_of(job)
    found = topics.written(config, topics.ALL, job.labels, version, {})
    webhook = None
    if config.webhook is not None:
        webhook = config.webhook.opened(store.path, job.labels, version)
    return job._replace(
        checkpoints=store,
        spill=spill,
        sink=Outputs(book, found.sink),
        alerts=found.alerts,
        dead_letters=found.dead_letters,
        webhook=webhook,
    )


def serve(config: Config | str | Path, *, started: Callable[[str], None] | None = None) -> Result:
    """Serve a configuration over HTTP, from its last checkpoint, until a signal comes.

    Args:
        config: a Config, or the path of its YAML file; needs `schema` with `id` and `target`,
            `pipeline` and `checkpoint`; `serve` says where (loopback, port 8000).
        started: told the address once requests are taken.

    Raises: UserError of one line for whatever is wrong with the configuration, the port or a disk.
    """
    plan = planned(config if isinstance(config, Config) else configs.load_config(config))
    with opened(plan) as (engine, app, server):
        summary = run(engine, app, server.address, started)
    return result_of(plan.job, summary)


@contextlib.contextmanager
def opened(plan: Served) -> Iterator[tuple[Engine, Learning, Server]]:
    """The engine, not begun, and the server, which answers that it starts until `run`."""
    job = plan.job
    with watched(job.config) as watch:
        rehearse(job)
        engine = engine_of(job, observers_of(job, None), beat=watch.beat, vitals=vitals_of(job))
        watch.add(job.name, engine)
        app = Learning(
            plan.section,
            plan.checks,
            plan.journal,
            plan.requests,
            plan.book,
            watch.status,
            lambda accept: exposition(watch.status, accept),
        )
        guarded = Guard(app, plan.section, plan.section.secret(OWNER))
        with Server(OWNER, plan.section, guarded) as server, contextlib.closing(app):
            yield engine, app, server


def run(
    engine: Engine, app: Learning, address: str, started: Callable[[str], None] | None
) -> Summary:
    """As `Engine.run`; a signal ends the requests, and what was taken of them is worked off."""
    signals = stopped_by_signals(app.stop, lambda: app.stopping, engine.shutdown_timeout)
    with signals, frozen_objects(), contextlib.closing(engine), user_errors("pipeline: "):
        engine.begin()
        waits = True
        while engine.step():
            if waits and app.open:
                waits = False
                tell(_log, "serving", address=address)
                if started is not None:
                    started(address)
        return engine.end()
