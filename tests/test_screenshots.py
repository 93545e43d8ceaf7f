"""The report in headless Chromium: wide, on a phone, dark, and on paper."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamlearn.report import write_report
from tests import report_results

FOLDER = os.environ.get("STREAMLEARN_SCREENSHOTS")  # where the pictures are kept, to look at
CHROMIUM = os.environ.get("STREAMLEARN_CHROMIUM") or shutil.which("chromium")
VIEWS = {
    "wide": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "wide-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
# the share of pixels of a plot's canvas that were drawn, and the brightest and darkest of them
DRAWN = """plot => {
  const seen = [];
  const walk = root => {
    seen.push(...root.querySelectorAll("canvas"));
    root.querySelectorAll("*").forEach(e => e.shadowRoot && walk(e.shadowRoot));
  };
  walk(plot);
  let most = 0;
  for (const canvas of seen) {
    if (!canvas.width || !canvas.height) continue;
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let drawn = 0;
    for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0;
    most = Math.max(most, drawn / (canvas.width * canvas.height));
  }
  return most;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium through playwright; must be there in CI, a visible skip elsewhere."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None  # type: ignore[assignment]
    if CHROMIUM is None or sync_playwright is None:
        missing = "needs chromium and playwright: apt-get install chromium, pip install playwright"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each kind, by name."""
    folder = tmp_path_factory.mktemp("reports")
    results, comparison = report_results.compared()
    made: dict[str, Any] = {"late": report_results.late(), "regression": report_results.regressed()}
    found = {name: folder / f"{name}.html" for name in (*made, "comparison")}
    for name, result in made.items():
        write_report(found[name], result)
    write_report(found["comparison"], results, comparison=comparison)
    return found


def opened(browser: Any, path: Path, **view: Any) -> tuple[Any, list[str]]:
    """The page, drawn to the end, and what went wrong: requests, errors, what the console says."""
    page = browser.new_context(offline=True, **view).new_page()
    wrong: list[str] = []
    local = path.as_uri()

    def unless(fine: bool, text: str) -> None:
        if not fine:
            wrong.append(text)

    page.on("request", lambda r: unless(r.url == local or r.url.startswith("data:"), r.url))
    page.on("pageerror", lambda error: unless(False, str(error)))
    page.on("console", lambda m: unless(m.type not in ("error", "warning"), m.text))
    page.goto(local)
    page.wait_for_selector("body[data-paper=yes]", timeout=60_000)
    page.wait_for_timeout(400)  # the last frame of the last plot
    return page, wrong


def kept(page: Any, name: str) -> None:
    if FOLDER:
        Path(FOLDER).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(FOLDER) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["late", "regression", "comparison"])
def test_the_page_is_whole(browser: Any, reports: dict[str, Path], name: str, view: str) -> None:
    """All plots are drawn, nothing sticks out, nothing is fetched, nobody complains."""
    page, wrong = opened(browser, reports[name], **VIEWS[view])
    kept(page, f"{name}-{view}")
    assert wrong == []
    plots = page.query_selector_all("figure .plot")
    assert len(plots) == {"late": 11, "regression": 4, "comparison": 13}[name]
    for plot in plots:
        box = plot.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= VIEWS[view]["viewport"]["width"]  # type: ignore[index]
        assert plot.evaluate(DRAWN) > 0.002
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for table in page.query_selector_all(".table"):
        assert table.evaluate("t => t.getBoundingClientRect().right <= innerWidth + 1")
    headline = page.inner_text(".lead").replace("\u00a0", " ")
    if name == "late":
        assert headline.startswith("KalmanClassifier was right on 89.6 % of 11,999 events")
    page.context.close()


def ink(page: Any) -> str:
    """The colour of the axis labels of the first plot."""
    models = "[...Bokeh.documents[0].roots()[0].references()]"
    axis = f"{models}.find(m => m.type === 'LinearAxis')"
    found: str = page.evaluate(f"{axis}.major_label_text_color")
    return found


def test_plots_follow_a_change_of_the_colour_scheme(browser: Any, reports: dict[str, Path]) -> None:
    page, wrong = opened(browser, reports["regression"], **VIEWS["wide"])
    light = ink(page), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    dark = ink(page), page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == ("#5a6675", "rgb(255, 255, 255)")
    assert dark == ("#a5b1c0", "rgb(22, 28, 36)")
    assert wrong == []
    page.context.close()


def test_names_stand_beside_lines_but_not_on_a_phone(
    browser: Any, reports: dict[str, Path]
) -> None:
    """There a legend above takes their place."""
    script = """[...Bokeh.documents[0].roots()[0].references()]
        .filter(m => m.type === "Label" && m.tags.includes("name")).map(m => m.visible)"""
    for view, shown in (("wide", True), ("phone", False)):
        page, _ = opened(browser, reports["late"], **VIEWS[view])
        assert page.evaluate(script) == [shown] * 3
        assert page.is_visible("figure .key >> nth=0") is not shown
        page.context.close()


def test_on_paper_everything_is_light_and_drawn(
    browser: Any, reports: dict[str, Path], tmp_path: Path
) -> None:
    """Vectors as wide as the paper, from a dark screen."""
    page, wrong = opened(browser, reports["late"], **VIEWS["wide-dark"])
    file = Path(FOLDER or tmp_path) / "late.pdf"
    page.pdf(path=str(file), prefer_css_page_size=True, print_background=True)
    assert file.read_bytes().startswith(b"%PDF")
    assert file.stat().st_size > 60_000
    page.set_viewport_size({"width": 680, "height": 900})
    page.emulate_media(media="print", color_scheme="dark")
    kept(page, "late-print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.is_hidden("#plot-0")
    box = page.query_selector("#plot-0-paper").bounding_box()
    assert box["width"] == 680
    assert box["height"] > 200
    assert not page.is_visible("nav")
    assert wrong == []
    page.context.close()
