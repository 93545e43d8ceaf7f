"""The report as text: what it says, that data cannot break it, and one line for every mistake."""

import builtins
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import UserError, replay, report_sections, wording
from streamlearn.report import check_path, notebook_html, report_html, write_report
from tests import report_results
from tests.report_results import NASTY, classified, late, regressed


def words(page: str) -> str:
    """The visible text of a page, blanks as one space."""
    body = page.partition("<body>")[2].partition("<script")[0]
    text = unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")
    return " ".join(text.split())


class Elements(HTMLParser):
    """Names of elements and attributes, and addresses that are no anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {v for name, v in attrs if name == "href" and not (v or "").startswith("#")}


def plots(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', page)
    assert found is not None
    items: list[dict[str, Any]] = json.loads(found[1])
    return items


def test_the_first_sentence_sets_the_metric_beside_the_baselines() -> None:
    text = words(report_html(classified()))
    assert "KalmanClassifier was right on 89.6 % of 11,999 events" in text
    assert "always repeating the last label: 85.3 %" in text
    assert "always saying the most frequent class: 57.5 %" in text
    assert "better than both baselines" in text


def test_a_model_that_is_no_better_is_said_to_be_so() -> None:
    assert "better than one baseline only" in words(report_html(classified(level=0.8)))
    assert "not better than the baselines" in words(report_html(classified(level=0.5)))


def test_everything_measured_has_its_place() -> None:
    """A section each, a figure with a caption and a description each."""
    page = report_html(late())
    text = words(page)
    sections = ["At a glance", "Over time", "All metrics", "Drift and alarms", "Features"]
    sections += ["Answers", "Calibration", "By group", "Label delay", "Speed and size"]
    for section in [*sections, "How it was made"]:
        assert f">{section}</h2>" in page
        assert f">{section}</a></li>" in page
    assert "Triangles: 2 drift alarms. Dashed lines: 2 known drifts." in text
    assert "Of 2 alarms, 1 was false; 1 drift missed" in text
    assert "recovered from 1 of 2 known drifts, after 312 events on average" in text
    assert "drift 2 9,000\u20139,500 90.0 % 50.0 % 40.0 % not recovered" in text
    assert "11,199 of 11,999 events lie on the diagonal" in text
    assert "said 95.0 %, right 90.0 %" in text
    assert "surer than it was right, by 5.0 %" in text
    assert "Accuracy lies between 20.0 % (b) and 90.0 %" in text
    assert "Labels came 30 events after their event (median)" in text
    assert "median 1.0 h, mean 2.0 h, at most 1.0 d" in text
    assert "did not fit (dead letters) 3" in text
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == len(plots(page)) == 11
    for figure in figures:
        label = re.search(r'aria-label="([^"]+)"', figure)
        caption = re.search(r"<figcaption>(.+)</figcaption>", figure)
        assert label is not None
        assert caption is not None
        assert label[1] == caption[1]
        assert re.search(r"\d", caption[1])


def test_a_regression_says_how_far_off_it_was() -> None:
    text = words(report_html(regressed()))
    assert "KalmanRegressor was off by 4.894 on average over 11,999 events" in text
    assert "always repeating the last value: 7.878" in text
    assert "No drift alarm was raised" in text
    assert (
        "Target minus answer on 150 of the last events: mean 0.6667 (answers were too low" in text
    )
    assert "Calibration" not in text


@pytest.mark.parametrize(
    ("residuals", "says"),
    [
        ([1.0, 1.0 + 2**-52] * 50, "mean 1.000 (answers were too low on average), median 1.000"),
        ([-1e17] * 9, "mean -1.000e+17 (answers were too high on average), median -1.000e+17"),
        ([5e-324 * k for k in range(-9, 10)], "mean 0 (answers were right on average), median 0"),
        ([1.7e308, -1.7e308] * 9, "median 0, standard deviation"),
        ([0.0] * 9, "mean 0 (answers were right on average), median 0, standard deviation 0"),
    ],
)
def test_residuals_of_any_size_are_drawn(residuals: list[float], says: str) -> None:
    page = report_html(regressed(residuals=residuals))
    assert says in words(page)
    assert plots(page)


def test_text_from_data_is_never_markup() -> None:
    """Class, group, feature and pipeline names, and settings, may hold HTML."""
    results, comparison = report_results.compared()
    for page in (report_html(late()), report_html(results, comparison=comparison)):
        assert NASTY in unescape(page)
        assert page.count("</script>") == page.count("<script")
        parsed = Elements()
        parsed.feed(page)
        assert not parsed.names & {"img", "iframe", "object", "embed"}
        assert not {a for a in parsed.attributes if a == "src" or a.startswith("on")}
        assert parsed.links <= {"data:,"}


def test_a_comparison_ranks_and_says_what_is_certain() -> None:
    results, comparison = report_results.compared()
    page = report_html(results, comparison=comparison)
    text = words(page)
    assert "fast was right on 89.6 % of 11,999 events" in text
    assert "beyond chance" in text
    assert f"fast against {NASTY} +6.00 points +3.00 to +9.00 points better 20 2" in text
    assert f"{NASTY} against fast" not in text
    assert f"broken ValueError: {NASTY}" in text
    assert text.index("fast") < text.index(NASTY)
    assert "2 pipelines predicting class" in text
    assert page.count("<section") == 7


def test_two_reports_of_one_result_are_the_same_bytes(tmp_path: Path) -> None:
    """Whatever was drawn before in this process."""
    first = report_html(classified())
    report_html(regressed())
    write_report(tmp_path / "again.html", classified())
    assert (tmp_path / "again.html").read_text("utf-8") == first
    assert len(first) < 1_600_000


@pytest.mark.jit
def test_two_replays_differ_in_their_times_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = [{"x": float(x), "y": "ab"[int(x > 0)]} for x in rng.normal(size=3000)]
    pages = []
    for name in "12":
        found = replay(data=data, target="y", report=tmp_path / name)
        assert found.recording is not None
        recording = found.recording | {"seconds": [0.0] * len(found.recording["row"])}
        timeless = vars(found) | {"recording": recording, "seconds": 1.0, "events_per_second": 1.0}
        pages.append(report_html(type(found)(**timeless)))
        assert "was right on" in words((tmp_path / name).read_text("utf-8"))
    assert pages[0] == pages[1]


def test_a_stream_without_scores_has_a_report() -> None:
    """Nothing to draw is said; nothing is divided by."""
    none = dict.fromkeys(("accuracy",))
    bare = classified(
        events=1, scored=0, metrics=none, windowed=none, fading=none, curve={}, calibration=None,
        baselines={"no_change": none}, confusion=None, by_group={}, drift=None, recording=None,
        per_class={}, alarms=[], n_alarms=0, known_drifts=[],
    )  # fmt: skip
    text = words(report_html(bare))
    assert "KalmanClassifier was scored on no events" in text
    assert "Nothing was scored, so there is nothing to draw" in text


def test_a_notebook_gets_the_page_in_a_frame() -> None:
    shown = notebook_html(classified())
    assert shown.startswith("<iframe srcdoc=")
    assert unescape(shown.partition('srcdoc="')[2].partition('"')[0]) == report_html(classified())
    assert classified()._repr_html_() == shown


def test_without_bokeh_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the stream starts; a notebook gets a table."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "bokeh":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'pip install "streamlearn\[report\]"$'):
        check_path("report.html")
    table = notebook_html(classified())
    assert "<th>Accuracy</th><td>89.6\u00a0%</td><td>85.3\u00a0%</td>" in table
    assert "script" not in table


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", r"^report: .* is a folder; name a file"),
        ("nowhere/report.html", r"^report: .*: there is no such folder; make it"),
    ],
)
def test_a_path_that_cannot_be_written_is_found_first(
    tmp_path: Path, path: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_path(tmp_path / path)
    with pytest.raises(UserError, match=message):
        replay(data=iter([{"x": 1.0, "y": "a"}]), target="y", report=tmp_path / path)


def test_an_unwritable_file_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"^report: .*: cannot be written; check the path"):
        check_path(tmp_path / "report.html")


def test_an_empty_comparison_is_refused() -> None:
    with pytest.raises(UserError, match=r"^report: needs a result at least, got none$"):
        report_html([])


def test_numbers_read_well() -> None:
    assert wording.percent(0.8958).replace("\u00a0", " ") == "89.6 %"
    assert wording.percent(0.99954).replace("\u00a0", " ") == "99.95 %"
    found = [wording.plain(x) for x in (4.8941, 182470.3, 0.00012, 1e-9, None, float("nan"), 0.0)]
    assert found == ["4.894", "182,470", "0.0001", "1.000e-09", "\u2013", "\u2013", "0"]
    assert wording.size(6554) == "6.4 KiB"
    assert [wording.seconds(s) for s in (0.0123, 90.0, 7200.0)] == ["12.3 ms", "1.5 min", "2.0 h"]
    assert [wording.counted(n, "alarm") for n in (0, 1, 2)] == ["no alarms", "1 alarm", "2 alarms"]
    for detector in ("ADWIN()", "KSWIN(alpha=0.005)", "HDDM_W(), PageHinkley()"):
        text = f"Pipeline(Normalizer(), KalmanClassifier(r=1.0), {detector})"
        assert wording.model_name(text) == "KalmanClassifier"


def test_rolled_means_hold_at_least_so_many_events() -> None:
    """Against sums written out; a gap is passed over."""
    found = wording.rolled([1.0, 0.0, None, 0.5, 1.0], [10, 10, 10, 10, 20], 20)
    assert found == [1.0, 0.5, 0.5, 0.25, 1.0]


def test_a_ranking_metric_holds_until_it_is_measured_again() -> None:
    """It is known at every 1,000th event: between, a line goes on, and does not break off."""
    curve = {"row": [1, 2, 3, 4], "n": [2, 2, 2, 2], "roc_auc": [None, 0.5, None, 0.75]}
    assert report_sections.curve_line(curve, "roc_auc", 1.0) == [None, 0.5, 0.5, 0.75]
