"""The files of the live page: one document, its scripts and its styles, all from this server.

What comes from data is put into the page by its script, as text; nothing of it is HTML.
"""

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources

from streamlearn import wording
from streamlearn.report_page import embedded, file_text

FILES = ("bokeh.js", "figures.js", "dashboard.js", "dashboard.css")
_STYLES = ("report.css", "dashboard.css")


def file(name: str) -> tuple[bytes, str]:
    """A file that the document asks for, and its kind."""
    if name == "bokeh.js":  # without widgets, tables and the like; 1.3 MB
        found = resources.files("bokeh").joinpath("server/static/js/bokeh.min.js")
        return found.read_bytes(), "text/javascript; charset=utf-8"
    if name == "dashboard.css":
        return "\n".join(map(file_text, _STYLES)).encode(), "text/css; charset=utf-8"
    return file_text(name).encode(), "text/javascript; charset=utf-8"


@cache
def page(build: str) -> str:
    """The document. build: of the files."""
    scripts = "\n".join(
        f'<script src="/{name}?{build}" defer></script>' for name in FILES if name.endswith(".js")
    )
    return _document(
        f'<link rel="stylesheet" href="/dashboard.css?{build}">',
        f"""{_BODY}
{_data("setup", _setup(build))}
{_data("palettes", _palettes())}
{_data("plots", _plots())}
{scripts}""",
    )


@cache
def login(wrong: bool) -> str:
    """The document that asks for the token. wrong: whether one was given that is not it."""
    said = '<p class="bad" role="alert">That is not the token.</p>' if wrong else ""
    styles = "\n".join(map(file_text, _STYLES))
    return _document(
        f"<style>\n{styles}\n</style>",
        f"""<main class="login"><h1>streamlearn</h1>
<p>This page shows how a run goes. It needs the token of the run's configuration.</p>{said}
<form method="post" action="/login"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button></form></main>""",
    )


def _document(head: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>streamlearn</title>
<link rel="icon" href="data:,">
{head}
</head>
<body class="live">
{body}
</body>
</html>
"""


def _data(name: str, value: object) -> str:
    return f'<script type="application/json" id="{name}">{embedded(value)}</script>'


def _palettes() -> object:
    from streamlearn.plots import PALETTES

    return PALETTES


def _setup(build: str) -> object:
    """Words and sizes that the script needs."""
    from streamlearn.history import TIERS

    return {
        "build": build,
        "tiers": [tier._asdict() for tier in TIERS],
        "metrics": {name: metric._asdict() for name, metric in wording.METRICS.items()},
        "baselines": wording.SHORT_BASELINES,
    }


def _plots() -> list[object]:
    """The figures, empty."""
    from streamlearn import plots

    def line(name: str, role: str, dash: str = "solid", width: float = 2.4) -> plots.Line:
        return plots.Line(name, role, (), (), dash, width)

    metric = [line("model", "s0", width=3.0)]
    metric += [
        line(name, role, dash, 1.8)._replace(labelled=False)
        for name, role, dash in (("baseline 0", "s1", "6 3"), ("baseline 1", "s2", "2 3"))
    ]
    figures = {"metric": plots.live(metric, shaded=("model", "best"))}
    for name, role in (("rate", "s2"), ("behind", "s4"), ("backlog", "s3")):
        figures[name] = plots.live([line(name, role)], shaded=(name, "zero"))
    return [plots.plot_json(figure, f"plot-{name}") for name, figure in figures.items()]


def _tiles(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(
        f'<div id="tile-{name}"><dt>{escape(text)}</dt><dd>\u2013</dd><p></p></div>'
        for name, text in pairs
    )


_TILES = (
    ("events", "Events"),
    ("rate", "Events a second"),
    ("behind", "Behind"),
    ("backlog", "Waiting for labels"),
    ("alarms", "Alarms"),
    ("dead", "Dead letters"),
    ("checkpoint", "Last checkpoint"),
    ("model", "Model"),
)
_BODY = f"""<header class="top">
<div><p class="kicker" id="kicker">streamlearn</p><h1 id="title">\u2013</h1></div>
<p id="state" role="status" aria-live="polite">Connecting \u2026</p>
</header>
<main>
<section id="lineages" class="card" aria-label="Pipelines" hidden><div class="table" tabindex="0"
role="region" aria-label="Pipelines"><table><thead><tr><th scope="col">Pipeline</th>
<th scope="col" id="lineages-metric">Metric</th><th scope="col">Events</th>
<th scope="col">a second</th><th scope="col">Behind</th><th scope="col">Alarms</th>
<th scope="col">Dead letters</th></tr></thead><tbody></tbody></table></div></section>
<dl class="tiles">{_tiles(_TILES)}</dl>
<section id="metric" class="card hero" aria-labelledby="metric-name">
<div class="head"><div><h2 id="metric-name">Metric</h2><p class="big" id="metric-value">\u2013</p>
<p id="metric-verdict"></p></div><div class="choice" role="group" aria-label="Stretch shown">
<button data-tier="0" aria-pressed="true">10 min</button><button data-tier="1">2 h</button><button
data-tier="2">24 h</button></div></div>
<ul class="key always" id="metric-key"></ul>
<div class="plot" id="plot-metric" role="img" aria-label="The rolling metric over time"></div>
</section>
<section id="alarms" class="card" aria-labelledby="alarms-name"><h2 id="alarms-name">Alarms</h2>
<ol></ol><p class="none">None so far.</p></section>
<section id="rate" class="card small" aria-labelledby="rate-name">
<h2 id="rate-name">Throughput, events a second</h2>
<div class="plot" id="plot-rate" role="img" aria-label="Events a second over time"></div></section>
<section id="behind" class="card small" aria-labelledby="behind-name">
<h2 id="behind-name">Lag, records behind</h2>
<div class="plot" id="plot-behind" role="img" aria-label="Records behind over time"></div></section>
<section id="backlog" class="card small" aria-labelledby="backlog-name">
<h2 id="backlog-name">Events that wait for their labels</h2>
<div class="plot" id="plot-backlog" role="img" aria-label="Waiting events over time"></div>
</section>
<section id="features" class="card" aria-labelledby="features-name">
<h2 id="features-name">Drift, statistics beside their limits</h2><div class="scores"></div>
<p class="caption"></p><ul class="words"></ul></section>
<section id="dead" class="card" aria-labelledby="dead-name">
<h2 id="dead-name">Last dead letters</h2>
<ul class="words"></ul><ol></ol><p class="none">None so far.</p></section>
</main>
<noscript><p class="login">This page needs its script.</p></noscript>"""
