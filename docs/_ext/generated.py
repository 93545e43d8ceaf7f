"""Directives that write pages from the code: operators, commands, sections of the config, sources.

They stand in `{eval-rst}` blocks, as what they write is reStructuredText.
"""

import abc
import contextlib
import inspect
import io
import os
import re
import runpy
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import docstrings
from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import streamlearn
from streamlearn import config, config_topics, connectors, operators, registry, schema
from streamlearn.cli import app as command_line
from streamlearn.metric_readers import BASELINES, METRICS

_log = logging.getLogger(__name__)


class _Generated(SphinxDirective, abc.ABC):
    """Parses the lines that `lines` gives, where it stands."""

    has_content = False

    @abc.abstractmethod
    def lines(self) -> Iterator[str]:
        """reStructuredText."""

    def run(self) -> list[nodes.Node]:
        """Nodes of the parsed lines."""
        self.env.note_reread()  # what it shows is code: no file of docs/ changes with it
        place = nodes.Element()
        self.state.nested_parse(StringList(list(self.lines()), self.name), 0, place)
        return place.children


class Operators(_Generated):
    """All exported operators of some kinds: `.. exported-operators:: classifier regressor`."""

    required_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterator[str]:
        """One autoclass each, the names alone: what all have is shown once."""
        kinds = self.arguments[0].split()
        unknown = set(kinds) - set(registry.KINDS)
        if unknown:
            raise self.error(f"kinds are {registry.KINDS}, got {sorted(unknown)}")
        for name, found in operators.exported().items():
            if registry.describe(found).kind in kinds:
                yield from (f".. autoclass:: streamlearn.{name}", "")


class CommandHelp(_Generated):
    """What `streamlearn NAME --help` prints; without a name that of all commands."""

    optional_arguments = 1

    def lines(self) -> Iterator[str]:
        """The text as it is on a screen of 88 columns."""
        words = [*self.arguments, "--help"]
        yield from (".. code-block:: console", "", f"    $ streamlearn {' '.join(words)}")
        yield from (f"    {line}".rstrip() for line in help_of(words).splitlines())
        yield ""


def help_of(words: list[str]) -> str:
    """The help of one command, without colours."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "88"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command_line(words, prog_name="streamlearn", standalone_mode=False)
    return printed.getvalue()


def commands() -> list[str]:
    """The names of all commands, in the order of the help."""
    return [c.name or c.callback.__name__ for c in command_line.registered_commands if c.callback]


class Commands(_Generated):
    """The help of every command, one after the other."""

    def lines(self) -> Iterator[str]:
        """A title and the help of each; a command that is added later is here, too."""
        for name in commands():
            yield from (f".. _command-{name}:", "", f".. rubric:: streamlearn {name}", "")
            yield from (f".. command-help:: {name}", "")


class Sections(_Generated):
    """Every section of a configuration, by way of the models that check it."""

    def lines(self) -> Iterator[str]:
        """The top level first, then each section under its keys."""
        by_model: dict[type[BaseModel], list[str]] = {}
        for key, model in config._SECTIONS.items():
            by_model.setdefault(model, []).append(f"``{key}:``")
        yield from _section("The top level", config.Config)
        for model, keys in by_model.items():
            yield from _section(" and ".join(keys), model)
            if model is schema.Schema:
                yield from _section("``schema:``, one of its ``features:``", schema.Feature)
            elif model is config_topics.KafkaSection:
                yield from _section("``kafka:``, its ``registry:``", config_topics.RegistrySection)
            elif model is config_topics.TopicsSection:
                yield from _section("``source:``, its ``format:``", config_topics.FormatSection)


def _section(title: str, model: type[BaseModel]) -> Iterator[str]:
    """Title, what the docstring says of the whole, and a table of the keys."""
    if model is not schema.Schema:  # which has its own place; links to the others lead here
        full = f"{model.__module__}.{model.__name__}"
        public = f"streamlearn.{model.__name__}" if model is config.Config else full
        yield from (f".. py:class:: {public}", f"   :canonical: {full}", "   :no-typesetting:", "")
    yield from (f".. rubric:: {title}", "")
    said, meanings = _told_apart(inspect.getdoc(model) or "", model)
    yield from docstrings.convert(said.splitlines())
    widths, head = ("16 24 16 44", ["meaning"]) if meanings else ("30 40 30", [])
    yield from ("", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    yield from _row("key", "takes", "default", *head)
    for name, field in model.model_fields.items():
        default = "must be there" if field.is_required() else _default(field)
        key = field.alias or name
        kind = docstrings.prose(_kind(field))
        meaning = [docstrings.prose(meanings.get(key, ""))] if meanings else []
        yield from _row(f"``{key}``", kind, default, *meaning)
    yield ""


def _told_apart(text: str, model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """A docstring as what it says of the whole, and of each key (`key: …` or `key, key: …`)."""
    keys = {field.alias or name for name, field in model.model_fields.items()}
    name = "|".join(sorted(keys))
    starts = list(re.finditer(rf"(?:(?<=\. )|(?<=\n)|^) *((?:{name})(?:, (?:{name}))*): ", text))
    ends = [*(m.start() for m in starts[1:]), len(text)][: len(starts)]
    meanings = {}
    for m, end in zip(starts, ends, strict=True):
        for key in m[1].split(", "):
            meanings[key] = " ".join(text[m.end() : end].split())
    said = text[: starts[0].start()] if starts else text
    return said.strip().removesuffix("Args:").strip(), meanings


def _row(*cells: str) -> Iterator[str]:
    for i, cell in enumerate(cells):
        yield f"   {'* -' if i == 0 else '  -'} {cell}"


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def _kind(field: Any) -> str:
    """What a key takes, in words that a reader of YAML knows."""
    limits = ", ".join(_limits(field.metadata))
    return _type(field.annotation) + (f", {limits}" if limits else "")


def _type(found: Any) -> str:
    origin, arguments = typing.get_origin(found), typing.get_args(found)
    if origin is typing.Annotated:
        return ", ".join([_type(arguments[0]), *_limits(arguments[1:])])
    if origin is typing.Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not types.NoneType)
    if origin is dict:
        return f"`key: value` pairs of {_type(arguments[1])}"
    if origin in (list, tuple):
        return f"a list of {_type(arguments[0])}"
    if isinstance(found, type) and issubclass(found, BaseModel):
        short = any(hasattr(found, f"_from_{word}") for word in ("path", "kind", "one"))
        return "a text, or a section" if short else "a section"
    return _WORDS.get(found, getattr(found, "__name__", str(found)))


def _limits(rules: Iterable[Any]) -> Iterator[str]:
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    for rule in rules:
        yield from _limits(getattr(rule, "metadata", ()))
        for name, sign in words.items():
            if getattr(rule, name, None) is not None:
                yield f"{sign} {getattr(rule, name)}"
        if getattr(rule, "min_length", None):
            yield "not empty"


def _default(field: Any) -> str:
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "its own defaults"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, tuple):
        return ", ".join(f"``{v!r}``" for v in value) or "empty"
    return f"``{value}``"


class Metrics(_Generated):
    """The names of all metrics and baselines, by task."""

    def lines(self) -> Iterator[str]:
        """A table from the list that the evaluation itself reads."""
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 18 54 28", "")
        yield from _row("task", "metrics", "baselines")
        for task, readers in METRICS.items():
            names, beside = (", ".join(f"``{n}``" for n in x) for x in (readers, BASELINES[task]))
            yield from _row(task, names, beside)
        yield ""


class Guarantees(_Generated):
    """What each source and each sink says it guarantees: `.. guarantees:: sources`."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """A table of the `guarantee` texts."""
        told = {"sources": source_guarantees, "sinks": sink_guarantees}[self.arguments[0]]()
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 35 65", "")
        yield from _row(self.arguments[0].removesuffix("s"), "its guarantee")
        for what, text in told.items():
            yield from _row(docstrings.prose(what), docstrings.prose(text))
        yield ""


def source_guarantees() -> dict[str, str]:
    """The text of one source of each sort, asked of the source itself."""
    from streamlearn.connectors.kafka.location import topics_at
    from streamlearn.connectors.kafka.source import KafkaSource

    plain = schema.Schema.from_config({"features": {"a": "number"}})
    topics = topics_at("kafka:TOPIC?bootstrap=localhost:9092")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.csv"
        file.write_text("a\n1\n", encoding="utf-8")
        found = {
            "a file or a folder: CSV, JSON Lines, Parquet": connectors.open_source(file, plain),
            "`-`, standard input": connectors.open_source("-", plain),
            "`drift:NAME`": connectors.as_source("drift:abrupt")[0],
            "`river:NAME`": connectors.as_source("river:Phishing", target="target")[0],
            "an iterable of dicts, in Python": connectors.as_source([{"a": 1.0, "y": 1.0}])[0],
            "`kafka:TOPIC`": KafkaSource(topics, plain),
        }
        return {what: source.guarantee for what, source in found.items()}


def sink_guarantees() -> dict[str, str]:
    """The text of every sink class."""
    from streamlearn.connectors import parquet_sink, text_sinks, webhook
    from streamlearn.connectors.kafka import alerts, dead_letters, sinks

    return {
        "CSV": text_sinks.CsvSink.guarantee,
        "JSON Lines": text_sinks.JsonLinesSink.guarantee,
        "`-`, standard output": text_sinks.StreamSink.guarantee,
        "Parquet, in a run with checkpoints: a folder": parquet_sink.ParquetSink.guarantee,
        "Parquet, without checkpoints: one file": parquet_sink.ParquetFileSink.guarantee,
        "dead letters, JSON Lines": text_sinks.DeadLetterSink.guarantee,
        "`kafka:TOPIC`, answers": sinks.PredictionSink.guarantee,
        "`kafka:TOPIC`, alarms": alerts.AlertSink.guarantee,
        "`webhook`, alarms": webhook.Webhook.guarantee,
        "`kafka:TOPIC`, dead letters": dead_letters.DeadLetterSink.guarantee,
    }


def _learn_links(app: Sphinx) -> None:
    """Names that docstrings may link to: what `import streamlearn` gives."""
    for name in [*streamlearn._HOME, *operators.exported()]:
        docstrings.links[name] = f"streamlearn.{name}"


def _example_report(app: Sphinx) -> None:
    """The report that the page on reports links to, drawn anew with every build.

    First of all: autodoc puts texts in the place of the defaults in signatures, by which a
    calibrated detector knows what its limits were measured for.
    """
    if app.builder.name != "html":
        return
    Path(app.outdir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(Path(app.srcdir) / "parcels.py"), run_name="__main__")
        streamlearn.replay(
            data="parcels.csv",
            target="late",
            ignore="parcel",
            time="sent",
            delay="known_at",
            by="depot",
            drifts="4000,8000",
            report=Path(app.outdir) / "example-report.html",
        )


_OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//""")


def _stays_offline(app: Sphinx, error: Exception | None) -> None:
    """A page that loads something from the network is a warning, so an error."""
    if error is not None or app.builder.name != "html":
        return
    for page in sorted(Path(app.outdir).rglob("*.html")):
        for found in _OUTSIDE.findall(page.read_text("utf-8")):
            _log.warning("%s loads something from the network: %s", page.name, found)
    for sheet in sorted(Path(app.outdir).rglob("*.css")):
        if re.search(
            r"""url\(["']?(https?:)?//|@import ["'](https?:)?//""", sheet.read_text("utf-8")
        ):
            _log.warning("%s loads something from the network", sheet.name)


def setup(app: Sphinx) -> dict[str, bool]:
    """The directives, the links, and the look at what was built."""
    directives: dict[str, type[SphinxDirective]] = {
        "exported-operators": Operators,
        "command-help": CommandHelp,
        "all-commands": Commands,
        "config-sections": Sections,
        "guarantees": Guarantees,
        "metrics": Metrics,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("builder-inited", _learn_links)
    app.connect("builder-inited", _example_report)
    app.connect("build-finished", _stays_offline, priority=900)
    return {"parallel_read_safe": True}
