"""From arguments or a configuration to labels that come late: how they are read and joined."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from streamlearn import config as configs
from streamlearn import connectors, topics
from streamlearn.config import Config, LabelsSection
from streamlearn.connectors.kafka.location import Topics
from streamlearn.contracts import LanedSource, Source
from streamlearn.errors import UserError
from streamlearn.label_delay import parse_delay
from streamlearn.labels import DelayedLabels, JoinedLabels
from streamlearn.merging import MergedEvents, has_lanes
from streamlearn.order_log import OrderLog
from streamlearn.schema import LabelSchema, Schema
from streamlearn.schema_infer import target_of

Late = DelayedLabels | JoinedLabels


def section_of(config: Config, **given: Any) -> LabelsSection | None:
    """How labels come late, or None; what is given goes before the configuration.

    given: delay, source, timeout, assume; None where it is not given.
    Raises: UserError for a combination that cannot be.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if not named:
        return config.labels
    before = {} if config.labels is None else config.labels.model_dump(exclude_unset=True)
    if "delay" in named or "source" in named:
        before.pop("delay", None)
        before.pop("source", None)
    elif not before:
        name = min(named)
        raise UserError(
            f"{name}: is for labels with a source of their own; name one (--labels FILE), got none"
        )
    broker = {} if config.kafka is None else {"kafka": config.kafka}
    section = topics.bounded(configs.check({"labels": before | named} | broker)).labels
    if section is not None and section.delay is not None and str(section.delay).strip() == "0":
        return None  # labels come with their events: no delay, to the same bits
    return section


def label_time(section: LabelsSection | None) -> str | None:
    """The column with the time at which each label became known, where the delay is one."""
    if section is None or section.delay is None:
        return None
    delay = parse_delay(section.delay, "labels.delay")
    return delay.column if delay.kind == "column" else None


def without_target(data: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of events whose labels come from elsewhere: a label among them is left out."""
    if not isinstance(data, (str, Path, Topics)) and iter(data) is data:
        raise UserError("data: must be a path, a frame or a list where labels come from elsewhere")
    ignore = list(asked["ignore"] or ())
    target = asked["target"]
    if target is not None and target in connectors.sample_columns(data):
        ignore = list(dict.fromkeys([*ignore, target]))
    return {**asked, "target": None, "task": None, "ignore": ignore or None}


def without_labels(declared: Schema) -> Schema:
    """A declared schema as that of the events alone."""
    table = declared.to_config()
    return Schema.from_config({k: v for k, v in table.items() if k not in _OF_LABELS})


_OF_LABELS = ("target", "task", "classes")


def label_schema(
    section: LabelsSection,
    place: Any,
    events: Schema,
    declared: Schema | None,
    target: str | None,
    task: str | None,
) -> LabelSchema:
    """How the records of the label stream are read: declared, or as its first rows suggest.

    place: the source that the section names. Raises: UserError where a column has no name, or is
    not there.
    """
    by = events.key if section.by == "key" else events.id
    if by is None:
        what = f"{section.by}: must name the column of the events that labels are joined by"
        raise UserError(what)
    names: dict[str, str | None] = {"id": section.id or by}
    if declared is not None:
        names["target"] = section.target or target or declared.target
        names["time"] = section.time or declared.time
        found: dict[str, Any] = {"task": task or declared.task, "classes": declared.classes}
    else:
        sample = connectors.sample_columns(place)
        names["target"] = section.target or target
        names["time"] = section.time or (events.time if events.time in sample else None)
        _check_names(names, sample, str(place))
        found = target_of(str(names["target"]), sample[str(names["target"])], task, {})
    known = declared or events
    unit = known.time_unit
    if isinstance(place, Topics) and section.time in (None, topics.TIMESTAMP):
        names["time"], unit = topics.TIMESTAMP, "ms"
    table = found | names | {"time_unit": unit, "missing": known.missing}
    return LabelSchema.from_config(
        {name: value for name, value in table.items() if value}, "labels"
    )


def _check_names(names: Mapping[str, Any], sample: Mapping[str, Any], source: str) -> None:
    """Refuse an id or a target that is not named, or not among the columns."""
    there = f"the columns are {', '.join(map(str, list(sample)[:30]))}"
    for role in ("id", "target"):
        if names[role] is None:
            raise UserError(f"labels.{role}: must name a column of {source}; {there}")
        if names[role] not in sample:
            raise UserError(
                f"labels.{role}: there is no column {names[role]!r} in {source}; {there}"
            )


def whole(events: Schema, labels: LabelSchema) -> Schema:
    """The schema of the events with the target that comes later: what a pipeline learns."""
    table = events.to_config() | {"target": labels.target, "task": labels.task}
    if "ignore" in table:  # the events' own column of that name, which `without_target` left out
        table["ignore"] = [name for name in table["ignore"] if name != labels.target]
    return Schema.from_config(table | {"classes": labels.classes})


def opened(place: Any, labels: LabelSchema | None) -> Source | LanedSource | None:
    """The source of a label stream: topics, or a path; None where there is none."""
    if place is None or labels is None:
        return None
    if isinstance(place, Topics):
        return connectors.open_topics(place, labels)
    return connectors.open_source(place, labels)


def late(
    source: Source | LanedSource,
    schema: Schema,
    labels: LabelSchema | None,
    section: LabelsSection,
    order: OrderLog | None,
    told: Source | LanedSource | None = None,
) -> Late:
    """The source whose labels come as the section says.

    Args:
        source: of the events. schema: theirs. labels: how the label stream is read, if there is
            one. order: where the order of a merge is logged. told: the source of the label stream.
    Raises: UserError for a delay that the schema cannot give.
    """
    if labels is None or told is None:
        return DelayedLabels(in_one(source, schema, order), schema, section.delay)
    waits = has_lanes(source) and has_lanes(told) and "idle" not in section.model_fields_set
    try:
        return JoinedLabels(
            source,
            told,
            schema,
            labels,
            timeout=section.timeout,
            assume=section.assume,
            max_pending=section.max_pending,
            idle=math.inf if waits else section.idle,
            by=section.by,
            order_log=order,
        )
    except UserError as error:
        named = str(error).partition(":")[0] in LabelsSection.model_fields  # an argument, as a key
        raise UserError(f"labels.{error}" if named else str(error)) from None


def in_one(source: Source | LanedSource, schema: Schema, order: OrderLog | None) -> Source:
    """The source itself, or its lanes as one stream. order: where the order is logged."""
    if not has_lanes(source):
        return cast(Source, source)
    return MergedEvents(cast(LanedSource, source), schema, order_log=order)


def doubt(found: Mapping[str, Any] | None, timed: bool) -> str | None:
    """What the counts of a label stream suggest has gone wrong, if anything.

    found: what a source of late labels reports. timed: its records have times.
    """
    if found is None:
        return None
    lost = found.get("unknown", 0) + found.get("late", 0)
    if lost and not found["labelled"]:
        return (
            f"none of {lost:,} labels met its event ({found['unknown']:,} unknown, "
            f"{found['late']:,} late); compare the ids and the times of both"
        )
    if timed and 2 * found.get("early", 0) > found["labelled"]:
        return (
            f"{found['early']:,} of {found['labelled']:,} came before their event, by their times; "
            "compare the times of both: one unit, one time zone"
        )
    return None
