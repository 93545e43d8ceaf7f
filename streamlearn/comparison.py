"""Comparison: several pipelines in one pass, and what can be said of their difference.

`compare` is for one stream, `compare_many` for several, with average ranks.
"""

import json as json_text
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn.block import F8
from streamlearn.contracts import Json
from streamlearn.durable import write_text
from streamlearn.engine import Summary
from streamlearn.errors import UserError
from streamlearn.evaluation import METRICS
from streamlearn.job import Job, check_outputs, name_of
from streamlearn.lineup import anew, labels_of, lineup, require, unknown_label
from streamlearn.paired import CLASSIFICATION, Difference
from streamlearn.race import Entrant, Race, entrants_of, paired_of, raced, stream_of
from streamlearn.ranks import RankTest, diagram, rank_test
from streamlearn.result import Result
from streamlearn.schema import Schema
from streamlearn.text_table import plain
from streamlearn.wording import size

_SHOWN = ("accuracy", "kappa", "kappa_t", "log_loss", "mae", "rmse", "r2", "mase")


@dataclass(frozen=True, repr=False)
class Comparison:
    """How several pipelines did on the same events, in one pass.

    data, task, target: what was read. metric: the one that decides, the first of the task. events:
    of the stream; seconds: for everything; reading_seconds: without the pipelines and their
    measures. alpha: chance that any interval of a difference is ever wrong, all together. best: by
    the metric. against: whom all are compared with, the best if none was named.
    results: by label; `Result.seconds` is of the pipeline alone, without reading. errors: by label,
    of those that failed and when. differences: of every two that did not fail.
    """

    data: str
    task: str
    target: str
    metric: str
    events: int
    seconds: float
    reading_seconds: float
    alpha: float
    best: str
    against: str
    results: dict[str, Result]
    errors: dict[str, str]
    differences: list[Difference]

    def difference(self, name: str, against: str | None = None) -> Difference:
        """How one did against another (against `against` of the comparison if None).

        Raises: UserError for a pair that is not there.
        """
        other = self.against if against is None else against
        for found in self.differences:
            if (found.name, found.against) == (name, other):
                return found
        raise UserError(f"difference: there is none of {name!r} against {other!r}")

    def to_dict(self) -> dict[str, Json]:
        """Everything but the pipelines, as plain values that JSON can hold."""
        own = {k: v for k, v in vars(self).items() if k not in ("results", "differences")}
        return own | {
            "microseconds": {name: microseconds(r) for name, r in self.results.items()},
            "differences": [found._asdict() for found in self.differences],
            "results": {name: result.to_dict() for name, result in self.results.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined, never NaN."""
        return json_text.dumps(self.to_dict(), indent=2, allow_nan=False, default=str)

    def _repr_html_(self) -> str:
        """The report of all, for a notebook; tables where bokeh is not there."""
        from streamlearn.report import notebook_html

        return notebook_html(list(self.results.values()), self)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The table as text: column names, and a row for each pipeline, failure and baseline.

        Best first; a metric that a baseline does not have is left empty.
        """
        shown = [m for m in _SHOWN if any(m in r.metrics for r in self.results.values())]
        header = ["", *shown, "us/event", "state"]
        body = [
            [
                name,
                *(number(result.metrics.get(metric)) for metric in shown),
                f"{microseconds(result):.2f}",
                size(result.state_bytes),
            ]
            for name, result in self._ordered()
        ]
        best = self.results[self.best]
        for name, metrics in best.baselines.items():
            body.append([f"({name})", *(number(metrics.get(m)) for m in shown), "", ""])
        blanks = [""] * (len(shown) + 1)
        return header, body + [[name, *blanks, "failed"] for name in self.errors]

    def facts(self) -> list[str]:
        """What must not be overlooked, a line each."""
        speed = f"{self.seconds:.2f} s, of which {self.reading_seconds:.2f} s for reading"
        lines = [f"{self.events:,} events in one pass: {speed}"]
        if len(self.results) > 1:
            best = ", the best" if self.against == self.best else ""
            others = [name for name, _ in self._ordered() if name != self.against]
            lines.append(f"{self.metric} against {self.against}{best}:")
            lines += plain(["", ""], [[f"  {name}", self._said(name)] for name in others])[1:]
            found = [self.difference(name) for name in others]
            if any(d.difference is not None and d.low is not None for d in found):
                lines.append(
                    f"  (the intervals hold all together, whenever one looks, "
                    f"with a chance of {1 - self.alpha:.0%})"
                )
        elif not self.errors:
            lines.append("one pipeline: there is nothing to compare it with but the baselines")
        return [
            *lines,
            *(f"no pipeline is better than {baseline}" for baseline in self._ahead()),
            *(f"{name}: {error}" for name, error in self.errors.items()),
        ]

    def _ahead(self) -> list[str]:
        """Baselines that no pipeline beats, with what they reach."""
        best = self.results[self.best]
        sign = 1.0 if self.task == CLASSIFICATION else -1.0
        values = {name: b.get(self.metric) for name, b in best.baselines.items()}
        return [
            f"the baseline {name}: {self.metric} {number(value)}"
            for name, value in values.items()
            if value is not None and sign * value >= merit(best, self.metric)
        ]

    def _ordered(self) -> list[tuple[str, Result]]:
        """Best first."""
        worst = [-merit(result, self.metric) for result in self.results.values()]
        order = np.argsort(worst, kind="stable")
        items = list(self.results.items())
        return [items[i] for i in order]

    def _said(self, name: str) -> str:
        """The difference of one against the reference, in words."""
        found = self.difference(name)
        if found.difference is None:
            return "no rows in common"
        if found.low is None or found.high is None:
            return f"{signed(found.difference)}, too few rows on which they differ"
        interval = f"[{signed(found.low)}, {signed(found.high)}]"
        return f"{signed(found.difference)} {interval} {found.verdict}"

    def __repr__(self) -> str:
        title = f"Comparison: {self.task} of {self.target!r} in {self.data}"
        return "\n".join([title, *plain(*self.rows()), *self.facts()])


def compare(
    data: Any = None,
    *pipelines: Any,
    target: str | None = None,
    features: Any = None,
    ignore: Any = None,
    task: str | None = None,
    schema: Schema | Mapping[str, Any] | None = None,
    limit: int | None = None,
    delay: int | str | None = None,
    time: str | None = None,
    by: str | None = None,
    drifts: Any = None,
    window: int | None = None,
    fading: float | None = None,
    alpha: float = 0.05,
    against: str | None = None,
    json: str | Path | None = None,
    report: str | Path | None = None,
    progress: bool = False,
) -> Comparison:
    """Score and learn every event with several pipelines, in one pass over the data.

    `compare("data.csv", "KalmanHead", "river.naive_bayes.GaussianNB", target="y")`. Each pipeline
    answers and learns as in a replay of its own, to the same bits; one that fails is dropped and
    the others go on. Differences are paired, row by row, with intervals that hold whenever one
    looks: empirical-Bernstein for 0/1 loss, asymptotic for absolute errors.

    Args:
        data: as for `replay`; it is read and decoded once.
        pipelines: names (`KalmanHead`, `KalmanHead(r=0.1)`, `river.tree.HoeffdingTreeClassifier`),
            YAML files, {name: arguments}, or objects, which go on learning.
        target, features, ignore, task, schema, limit, delay, time, by, drifts, window, fading: as
            for `replay`.
        alpha: chance that any interval is ever wrong, in (0, 1).
        against: label of the pipeline that all are compared with. It is known before the stream,
            so intervals are narrower than against the best, which only the stream tells.
        json: file for the result. report: file for a report in HTML.
        progress: show a line with events a second on stderr.
    Cost: the sum of the pipelines and of their measures; about 5 ns a row and pair more.
    Raises: UserError for whatever is wrong with an argument, a file or the data, for no pipeline,
        and when every pipeline fails.
    """
    check_alpha("compare", alpha)
    check_outputs(data, {"json": json, "report": report})
    asked = {"target": target, "features": features, "ignore": ignore, "task": task}
    asked |= {"time": time, "group": by}
    require(pipelines)
    stream = stream_of(data, schema, asked, delay, progress)
    built = lineup(pipelines, stream.schema)
    if against is not None and against not in built:
        raise unknown_label(against, list(built))
    racing = entrants_of(stream, built, window, fading, report, drifts)
    family = None if against is None else len(racing) - 1
    race = Race(racing, paired_of(racing, alpha, family))
    job = racing[0].job
    found = concluded(job, race, raced(job, race, limit, progress), against)
    write(found, json, report)
    return found


def concluded(job: Job, race: Race, summary: Summary, against: str | None = None) -> Comparison:
    """What a race that has been run comes to."""
    racing, paired = race.entrants, race.paired
    alive = [i for i, c in enumerate(racing) if not c.error]
    names = [c.name for c in racing]
    results = {names[i]: racing[i].result(summary.rejects) for i in alive}
    task = str(job.schema.task)
    metric = next(iter(METRICS[task]))
    best = max(results, key=lambda name: merit(results[name], metric))
    wanted = [(i, j) for i in alive for j in alive if i != j]
    return Comparison(
        data=job.name,
        task=task,
        target=str(job.schema.target),
        metric=metric,
        events=race.events,
        seconds=summary.seconds,
        reading_seconds=max(summary.seconds - race.seconds, 0.0),
        alpha=paired.alpha if paired is not None else 0.0,
        best=best,
        against=against if against in results else best,
        results=results,
        errors={c.name: _failure(c) for c in racing if c.error},
        differences=[paired.between(i, j, names) for i, j in wanted] if paired is not None else [],
    )


def _failure(c: Entrant) -> str:
    return f"failed after {c.failed_at:,} events: {c.error}"


def write(found: Any, json: str | Path | None, report: str | Path | None) -> None:
    """Write a comparison, a ranking or a tuning to the files that are named."""
    if json is not None:
        write_text(json, found.to_json() + "\n")
    if report is not None:
        from streamlearn.report import write_report

        title = f"Comparison: {found.data}"
        write_report(report, list(found.results.values()), title, comparison=found)


# -- several data sets -----------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Ranking:
    """How several pipelines did on several data sets.

    comparisons: by data set. names: of the pipelines. scores: (data sets, pipelines), the first
    metric of each task; NaN where one failed, which counts as last. ranks: what follows from them
    (Friedman, Iman-Davenport, Nemenyi), None with fewer than two pipelines or data sets.
    """

    comparisons: dict[str, Comparison]
    names: list[str]
    scores: F8
    ranks: RankTest | None

    @property
    def data(self) -> str:
        """The data sets in a line."""
        return ", ".join(self.comparisons)

    @property
    def results(self) -> dict[str, Result]:
        """Every result, by data set and pipeline."""
        pairs = [(d, n, r) for d, c in self.comparisons.items() for n, r in c.results.items()]
        return {f"{d}: {n}": r for d, n, r in pairs}

    @property
    def critical_difference(self) -> float | None:
        """Average ranks that are closer than this cannot be told apart (Nemenyi)."""
        return None if self.ranks is None else self.ranks.critical_difference

    def to_dict(self) -> dict[str, Json]:
        """Everything but the pipelines, as plain values that JSON can hold."""
        out: dict[str, Json] = {
            "pipelines": self.names,
            "scores": [[_json(x) for x in row] for row in self.scores],
            "comparisons": {name: c.to_dict() for name, c in self.comparisons.items()},
            "ranks": None,
        }
        if self.ranks is not None:
            found = self.ranks._asdict()
            found |= {"ranks": self.ranks.ranks.tolist(), "average": self.ranks.average.tolist()}
            found["f"] = _json(self.ranks.f)  # infinite where all data sets agree
            found["groups"] = [[self.names[i] for i in group] for group in self.ranks.groups]
            out["ranks"] = found
        return out

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined, never NaN."""
        return json_text.dumps(self.to_dict(), indent=2, allow_nan=False, default=str)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The table as text: column names, a row for each data set, and the average ranks."""
        header = ["", "metric", *self.names]
        body = [
            [data, c.metric, *(number(_json(x)) for x in row)]
            for (data, c), row in zip(self.comparisons.items(), self.scores, strict=True)
        ]
        if self.ranks is not None:
            body.append(["average rank", "", *(f"{rank:.2f}" for rank in self.ranks.average)])
        return header, body

    def facts(self) -> list[str]:
        """What follows from the ranks, and what failed, a line each."""
        failed = [
            f"{data}: {name}: {error}"
            for data, c in self.comparisons.items()
            for name, error in c.errors.items()
        ]
        if self.ranks is None:
            return ["ranks need at least two pipelines and two data sets", *failed]
        differ = "differ" if self.ranks.p < 0.05 else "cannot be told apart"
        return [
            *diagram(self.names, self.ranks).splitlines(),
            (
                f"Friedman p = {self.ranks.p_chi_square:.3g}, Iman-Davenport p = "
                f"{self.ranks.p:.3g}: the pipelines {differ} over these data sets"
            ),
            *failed,
        ]

    def __repr__(self) -> str:
        title = f"Ranking: {len(self.names)} pipelines on {len(self.comparisons)} data sets"
        return "\n".join([title, *plain(*self.rows()), *self.facts()])


def compare_many(
    datasets: Mapping[str, Any] | Sequence[Any],
    pipelines: Sequence[Any],
    *,
    target: str | Mapping[str, str] | None = None,
    alpha: float = 0.05,
    json: str | Path | None = None,
    report: str | Path | None = None,
    **options: Any,
) -> Ranking:
    """Compare pipelines over several data sets: a comparison of each, and average ranks.

    Args:
        datasets: by name, or a list of paths.
        pipelines: as for `compare`; objects are cloned untrained for every data set.
        target: column to predict, for all, or by the name of the data set.
        alpha: of the intervals of each comparison, and of the critical difference.
        json: file for the result. report: file for a report in HTML; each data set gets one, with
            its name behind that of the file.
        options: what else `compare` takes.
    Raises: UserError as `compare`, with the name of the data set before it.
    Reference: Demsar (2006), Statistical comparisons of classifiers over multiple data sets.
    """
    named = _named(datasets)
    if not named:
        raise UserError("compare: must be given at least one data set")
    for data in named.values():
        check_outputs(data, {"json": json, "report": report})
    found: dict[str, Comparison] = {}
    for name, data in named.items():
        column = target.get(name) if isinstance(target, Mapping) else target
        specs = [anew(spec) for spec in pipelines]
        try:
            own = None if report is None else _beside(Path(report), name)
            found[name] = compare(data, *specs, target=column, alpha=alpha, report=own, **options)
        except UserError as error:
            raise UserError(f"{name}: {error}" if len(named) > 1 else str(error)) from None
    labels = labels_of(pipelines)
    scores = np.array([[_score(c, label) for label in labels] for c in found.values()])
    ranks = None
    if min(scores.shape) >= 2:
        larger = [c.task == CLASSIFICATION for c in found.values()]
        ranks = rank_test(scores, larger, alpha)
    ranking = Ranking(found, labels, scores, ranks)
    write(ranking, json, None)
    return ranking


def _beside(path: Path, name: str) -> Path:
    """`report.html` as `report-name.html`."""
    plain_name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
    return path.with_name(f"{path.stem}-{plain_name}{path.suffix}")


def compare_sets(
    datas: Sequence[Any], models: Sequence[Any], **options: Any
) -> Comparison | Ranking:
    """`compare` for one data set, `compare_many` for several."""
    if len(datas) == 1:
        return compare(datas[0], *models, **options)
    return compare_many(datas, models, **options)


def _named(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Data sets by name: files by theirs without ending, or the whole path where two are alike."""
    if isinstance(datasets, Mapping):
        return dict(datasets)
    if isinstance(datasets, (str, Path)):
        datasets = [datasets]
    short = [_stem(data) for data in datasets]
    names = [s if short.count(s) == 1 else name_of(d) for s, d in zip(short, datasets, strict=True)]
    return {
        name if names.count(name) == 1 else f"{name} {names[: i + 1].count(name)}": data
        for i, (name, data) in enumerate(zip(names, datasets, strict=True))
    }


def _stem(data: Any) -> str:
    if not isinstance(data, (str, Path)) or ":" in str(data):
        return name_of(data)
    return Path(data).name.partition(".")[0] or name_of(data)


def _score(c: Comparison, label: str) -> float:
    value = c.results[label].metrics.get(c.metric) if label in c.results else None
    return math.nan if value is None else value


# -- numbers as text -------------------------------------------------------------------------------


def merit(result: Result, metric: str) -> float:
    """A metric so that more is better; what is undefined is worst."""
    value = result.metrics.get(metric)
    if value is None:
        return -math.inf
    return value if result.task == CLASSIFICATION else -value


def microseconds(result: Result) -> float:
    """Of a pipeline, an event."""
    return 1e6 * result.seconds / max(result.events, 1)


def number(value: float | None) -> str:
    """A metric as text; nothing for one that is not there."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4e}"


def signed(difference: float) -> str:
    """A difference as text, with its sign."""
    return f"{difference:+.4f}" if abs(difference) < 1e6 else f"{difference:+.4e}"


def check_alpha(owner: str, alpha: float) -> None:
    """Refuse what is no level. Raises: UserError."""
    if not isinstance(alpha, (int, float)) or not 0.0 < alpha < 1.0:
        raise UserError(f"{owner}: alpha must be in (0, 1), got {alpha!r}")


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
