"""The live page: who may see it, what it tells, that it stays small; and the page in Chromium."""

import asyncio
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamlearn import cli, dashboard, runner
from streamlearn.config import check
from streamlearn.config_serving import DashboardSection
from streamlearn.dashboard import Dashboard, Feed
from streamlearn.errors import UserError
from streamlearn.history import TIERS, History, Tier
from tests import test_screenshots

TOKEN = "0123456789abcdef-streamlearn"
browser = test_screenshots.browser


def told(events: int = 10, alarms: int = 0, **more: Any) -> dict[str, Any]:
    """What a snapshot tells of a lineage."""
    last = range(max(0, alarms - 50), alarms)
    records = [{"alert": k, "kind": "drift", "event": 100 * k, "findings": []} for k in last]
    standing = {"window": 1000, "baselines": {"no_change": {"accuracy": 0.5}, "majority": {}}}
    return {
        "assigned": True, "events": events, "dead_letters": 1, "alarms": alarms,
        "rolling": {"accuracy": 0.75}, "standing": standing, "lag": {}, "in_flight": 0,
        "last_alarms": records, "last_dead_letters": [], "dead_letters_by_reason": {},
    } | more  # fmt: skip


def status(**lineages: dict[str, Any]) -> dict[str, Any]:
    return {"live": True, "ready": True, "why": [], "connected": True, "lineages": lineages}


def section(**given: Any) -> DashboardSection:
    return DashboardSection.model_validate({"port": 0} | given)


class Answer:
    """Status, headers and text of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, dict(response.getheaders())
        self.text = response.read().decode()


def ask(
    port: int, path: str = "/", method: str = "GET", body: str | None = None, **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def port_of(page: Dashboard) -> int:
    return int(page.address.rstrip("/").rpartition(":")[2])


@pytest.fixture(scope="module")
def guarded() -> Iterator[int]:
    """The port of a page with a token, also known as stream.example."""
    shown = section(token=TOKEN, hosts=["stream.example"])
    with Dashboard(shown, lambda: status(all=told()), "t") as page:
        yield port_of(page)


# -- the past --------------------------------------------------------------------------------------


def test_a_history_keeps_the_last_points_of_every_tier_and_no_more() -> None:
    """Against lists from the definition, over a time in which both rings went round."""
    history = History(["a"], [Tier(1.0, 5), Tier(10.0, 3)])
    for t in range(100):
        history.add(float(t), [None if t % 2 else t / 2])
    fine, coarse = history.plain()
    assert fine == {"t": [95.0, 96.0, 97.0, 98.0, 99.0], "a": [None, 48.0, None, 49.0, None]}
    assert coarse == {"t": [70.0, 80.0, 90.0], "a": [35.0, 40.0, 45.0]}


def test_a_clock_that_goes_back_stops_no_history() -> None:
    history = History(["a"], [Tier(10.0, 4)])
    for t in (100.0, 50.0, 55.0, 60.0):
        history.add(t, [t])
    assert history.plain() == [{"t": [100.0, 50.0, 60.0], "a": [100.0, 50.0, 60.0]}]


def test_a_page_that_is_left_open_for_two_days_stays_small() -> None:
    """Messages and memory are bounded by the tiers, the kept alarms and the shown lineages."""
    clock, now = [0.0], {"events": 0}
    feed = Feed(lambda: status(all=told(now["events"], now["events"])), "t", lambda: clock[0])
    sizes = []
    for second in range(0, 180_000, 60):
        clock[0], now["events"] = float(second), second
        feed.look()
        if second in (100_020, 179_940):
            sizes.append(len(feed.whole("")))
    lineage = feed.lineages["all"]
    assert [len(lineage.history.points(k)) for k in range(3)] == [t.points for t in TIERS]
    assert len(lineage.alarms) == 50
    assert sizes[0] < 400_000
    assert sizes[1] < 1.05 * sizes[0]
    assert len(feed.step("")) < 12_000


def test_lineages_that_are_gone_leave_and_too_many_are_counted() -> None:
    clock = [0.0]
    many = {f"p{k}": told() for k in range(dashboard.MOST_LINEAGES + 7)}
    found = [status(**many)]
    feed = Feed(lambda: found[0], "t", lambda: clock[0])
    feed.look()
    assert len(feed.lineages) == dashboard.MOST_LINEAGES
    assert json.loads(feed.step(""))["health"]["left_out"] == 7
    found[0], clock[0] = status(p1=told()), 61.0
    feed.look()
    assert list(feed.lineages) == ["p1"]
    assert json.loads(feed.whole("p5"))["shown"] == "p1"


def test_an_alarm_is_dated_when_it_is_first_seen_and_never_twice() -> None:
    clock, found = [5.0], [status(all=told(alarms=2))]
    feed = Feed(lambda: found[0], "t", lambda: clock[0])
    feed.look()
    found[0], clock[0] = status(all=told(alarms=3)), 7.0
    feed.look()
    assert len(json.loads(feed.step("all"))["detail"]["alarms"]) == 3
    feed.look()
    assert "alarms" not in json.loads(feed.step("all"))["detail"]  # nothing new
    alarms = json.loads(feed.whole("all"))["detail"]["alarms"]
    assert [(a["alert"], a["seen"]) for a in alarms] == [(0, None), (1, None), (2, 7.0)]


def test_what_is_not_a_number_is_null() -> None:
    broken = told(
        rolling={"rmse": float("nan")},
        standing=None,
        lag={"t/0": {"records": None, "seconds": None}},
    )
    feed = Feed(lambda: status(all=broken), "t")
    feed.look()
    values = json.loads(feed.whole("all"))["lineages"]["all"]["values"]
    assert values["metric"] is None
    assert values["behind"] is None


# -- who may see it --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/events", "/dashboard.js", "/bokeh.js", "/login", "/no"])
def test_every_route_needs_the_token(guarded: int, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "streamlearn-0=wrong"}):
        found = ask(guarded, path, **headers)
        assert found.status == 401
        assert found.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in found.text


def test_the_token_opens_the_page_which_lets_nothing_in_from_elsewhere(guarded: int) -> None:
    found = ask(guarded, Authorization=f"Bearer {TOKEN}")
    assert found.status == 200
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert found.headers["x-frame-options"] == "DENY"
    assert "https://" not in found.text
    assert ask(guarded, "/no", Authorization=f"Bearer {TOKEN}").status == 404
    assert ask(guarded, "/", "POST", Authorization=f"Bearer {TOKEN}").status == 405


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "stream.example.evil.example"}, 421),
        ({"Host": "evil.example:80@localhost"}, 421),
        ({"Host": "localhost:x"}, 421),
        ({"Host": "stream.example"}, 200),
        ({"Host": "STREAM.example:8443"}, 200),
        ({"Host": "localhost:9000"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost.evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_host_and_origin_are_checked_with_the_right_token_too(
    guarded: int, given: dict[str, str], status: int
) -> None:
    assert ask(guarded, Authorization=f"Bearer {TOKEN}", **given).status == status


def test_a_form_takes_the_token_for_a_cookie(guarded: int) -> None:
    assert 'type="password"' in ask(guarded).text
    wrong = ask(guarded, "/login", "POST", "token=wrong")
    assert wrong.status == 401
    assert "not the token" in wrong.text
    assert ask(guarded, "/login", "POST", "token=" + "x" * 5000 + TOKEN).status == 401
    for found in (
        ask(guarded, "/login", "POST", f"token={TOKEN}"),
        ask(guarded, f"/?token={TOKEN}"),
    ):
        assert found.status == 303
        assert found.headers["location"] == "/"
        cookie, _, flags = found.headers["set-cookie"].partition(";")
        assert TOKEN not in cookie
        assert "HttpOnly" in flags
        assert ask(guarded, "/", Cookie=cookie).status == 200


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"host": "10.0.0.5"}, "token must be there with host 10.0.0.5"),
        ({"behind_proxy": True}, "token must be there with behind_proxy"),
        ({"host": "10.0.0.5", "token": TOKEN}, "tls_cert and tls_key must be there with host"),
        ({"tls_cert": "a.pem"}, "tls_cert and tls_key must be given together"),
        ({"host": "0.0.0.0", "token": TOKEN, "behind_proxy": True}, "hosts must name"),
        ({"hosts": ["http://a"]}, "must be names without scheme"),
        ({"port": 65536}, "less than or equal to 65535"),
    ],
)
def test_what_would_be_open_to_others_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=f"^dashboard.*{problem}"):
        check({"dashboard": {"port": 8080} | given})


def test_a_token_is_a_secret_of_some_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_TOKEN", TOKEN)
    shown = section(token="${env:PAGE_TOKEN}")
    assert shown.secret("dashboard") == TOKEN
    assert "PAGE_TOKEN" not in repr(shown)
    with pytest.raises(UserError, match=r"^dashboard\.token: .* NO_SUCH is not set"):
        section(token="${env:NO_SUCH}").secret("dashboard")
    with pytest.raises(UserError, match=r"^dashboard\.token: must have at least 16 characters"):
        section(token="short").secret("dashboard")


def test_a_token_that_the_run_would_refuse_does_not_validate(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,y\n1,2\n")
    given: dict[str, Any] = {"source": str(tmp_path / "data.csv"), "pipeline": ["KalmanRegressor"]}
    given |= {"schema": {"features": {"a": "number"}, "target": "y", "task": "regression"}}
    given |= {"dashboard": {"port": 0, "token": "abc"}}
    with pytest.raises(UserError, match=r"^dashboard\.token: must have at least 16 characters"):
        runner.validated(check(given))


def test_a_port_in_use_is_said_before_anything_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                UserError, match=rf"^dashboard: cannot listen on 127.0.0.1:{port}: [\w ]+; choose"
            ),
            Dashboard(section(port=port), status, "t"),
        ):
            pass


def test_tls_files_are_used_and_checked(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-keyout {key} -out {cert} -subj /CN=localhost -addext subjectAltName=DNS:localhost",
        shell=True,
        check=True,
        capture_output=True,
    )
    with Dashboard(section(token=TOKEN, tls_cert=cert, tls_key=key), status, "t") as page:
        assert page.address.startswith("https://")
        context = ssl.create_default_context(cafile=cert)
        secure = http.client.HTTPSConnection("localhost", port_of(page), context=context)
        secure.request("POST", "/login", f"token={TOKEN}")
        found = Answer(secure.getresponse())
        secure.close()
        assert found.status == 303
        assert "; Secure" in found.headers["set-cookie"]
    with (
        pytest.raises(UserError, match=r"^dashboard\.tls_cert: cannot use"),
        Dashboard(section(tls_cert=key, tls_key=cert), status, "t"),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("8080", ["dashboard.port=8080"]),
        ("10.0.0.5:80", ["dashboard.port=80", 'dashboard.host="10.0.0.5"']),
        ("[::1]:80", ["dashboard.port=80", 'dashboard.host="::1"']),
    ],
)
def test_the_option_says_where(given: str, found: list[str]) -> None:
    assert cli._place_of_dashboard(given, False) == found
    for wrong in ("", "x", ":80", "80:", "-1"):
        with pytest.raises(UserError, match="--dashboard: must be PORT or HOST:PORT"):
            cli._place_of_dashboard(wrong, False)


# -- messages --------------------------------------------------------------------------------------


class Stream:
    """Server-sent events, read as they come."""

    def __init__(self, port: int, show: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.request("GET", f"/events?show={show}")
        self._response = self._connection.getresponse()
        assert self._response.getheader("content-type", "").startswith("text/event-stream")

    def next(self) -> tuple[str, dict[str, Any]]:
        kind, data, _ = (self._response.readline().decode().rstrip() for _ in range(3))
        return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def test_a_browser_gets_everything_then_what_is_new_and_is_told_of_the_end() -> None:
    with Dashboard(section(), lambda: status(a=told(1), b=told(2)), "two") as page:
        stream = Stream(port_of(page), "b")
        kind, whole = stream.next()
        assert (kind, whole["shown"], whole["title"]) == ("whole", "b", "two")
        assert whole["history"][0]["events"][-1] == 2.0
        kind, step = stream.next()
        assert (kind, step["number"]) == ("step", whole["number"] + 1)
        assert "history" not in step
        began = time.monotonic()
    assert time.monotonic() - began < 3.0  # the stream does not hold the end of the run
    assert stream.next()[0] == "end"
    stream.close()


def test_browsers_that_go_or_take_nothing_are_let_go() -> None:
    """One that never takes a byte: its connection ends while `send` waits; one that goes."""
    page = Dashboard(section(), lambda: status(a=told()), "t")
    page.feed.look()

    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    async def taken(_: Any) -> None:
        assert page.browsers == 1

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def both() -> None:
        for send in (never, taken):
            await dashboard._Stream(page, "")({}, gone, send)

    asyncio.run(asyncio.wait_for(both(), 5.0))
    assert page.browsers == 0


def test_no_more_than_so_many_browsers_are_told() -> None:
    with Dashboard(section(), lambda: status(a=told()), "t") as page:
        page.browsers = dashboard.MOST_BROWSERS
        assert ask(port_of(page), "/events").status == 503
        page.browsers = 0


# -- the page in Chromium --------------------------------------------------------------------------


def a_run(folder: Path, port: int) -> dict[str, Any]:
    """A configuration whose data drift after 9,000 events."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(50_000, 3))
    y = (X.sum(axis=1) * np.where(np.arange(50_000) < 9000, 1, -1) > 0).astype(int)
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{k}" for (a, b, c), k in zip(X, y, strict=True)]
    lines[20] = "<b>x</b>,0,0,1"
    (folder / "orders.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    features = dict.fromkeys("abc", "number")
    return {
        "source": str(folder / "orders.csv"),
        "schema": {"target": "y", "task": "classification", "features": features},
        "pipeline": ["KalmanClassifier", "ADWIN"],
        "checkpoint": {"path": str(folder / "ck")},
        "dashboard": {"port": port},
    }


class Live(NamedTuple):
    """The address of the page of a run, which waits before the drift until it is told to go on."""

    address: str
    go: threading.Event


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engines: list[Any] = []
    made = runner.engine_of

    go = threading.Event()

    def kept(*given: Any, beat: Callable[[], None], **more: Any) -> Any:
        def held() -> None:
            beat()
            if engine.pace is None and engine.events >= 8000:
                while not go.wait(0.05):
                    beat()
                engine.pace, engine._origin, engine._first = 1000.0, engine.clock(), engine.events

        engine = made(*given, beat=held, **more)
        engines.append(engine)
        return engine

    monkeypatch.setattr(runner, "engine_of", kept)
    served = threading.Event()
    entered = Dashboard.__enter__

    def entering(page: Dashboard) -> Dashboard:
        entered(page)
        served.set()
        return page

    monkeypatch.setattr(Dashboard, "__enter__", entering)
    running = threading.Thread(target=runner.run, args=(check(a_run(tmp_path, port)),))
    running.start()
    assert served.wait(60)
    yield Live(f"http://localhost:{port}/", go)
    go.set()
    while not engines and running.is_alive():
        time.sleep(0.01)
    for engine in engines:
        engine.stop()
    running.join(30)
    assert not running.is_alive()


def test_a_browser_is_asked_for_the_token_and_shows_the_pipeline_one_clicks_on(
    browser: Any,
) -> None:
    lag = {"t/0": {"records": 5, "seconds": 1.0}}
    adwin = {"detector": "ADWIN", "watches": "error", "statistic": 2.0, "limit": 4.0}
    drift = [adwin | {"stage": "AdaptiveClassifier"}, adwin | {"stage": "ADWIN", "statistic": 1.0}]
    drift.append(
        {"stage": "P", "detector": "KSWIN", "watches": "error", "statistic": 1, "limit": 9}
    )
    second = told(20_000, 3, lag=lag, version=4, drift=drift)
    both = {"partition-0": told(10), "partition-1": second}
    with Dashboard(section(token=TOKEN), lambda: status(**both), "two") as served:
        page = browser.new_context(**test_screenshots.VIEWS["phone"]).new_page()
        page.goto(f"http://localhost:{port_of(served)}/")
        page.fill("#token", TOKEN)
        page.click("button")
        page.wait_for_selector("#lineages a", timeout=60_000)
        page.click("#lineages a >> text=partition-1")
        page.wait_for_selector("#title >> text='two \u00b7 partition-1'")
        page.wait_for_selector("#tile-events dd >> text='20,000'")
        assert page.inner_text("#tile-model dd") == "Version 4"
        assert page.inner_text("#tile-behind dd") == "5"
        assert len(page.query_selector_all("#alarms li")) == 3
        shown = [row.inner_text() for row in page.query_selector_all(".score .who")]
        assert shown == [
            "ADWIN on error, AdaptiveClassifier",
            "ADWIN on error",
            "KSWIN on error",
        ]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.context.close()


def test_the_page_is_alive_in_a_browser(browser: Any, live: Live) -> None:
    """Values change, an alarm arrives, nothing comes from elsewhere, a phone need not scroll."""
    view = test_screenshots.VIEWS["wide"]
    page = browser.new_context(**view).new_page()
    wrong: list[str] = []

    def unless(fine: bool, text: str) -> None:
        if not fine:
            wrong.append(text)

    page.on("request", lambda r: unless(r.url.startswith((live.address, "data:")), r.url))
    page.on("pageerror", lambda error: unless(False, str(error)))
    page.on("console", lambda m: unless(m.type not in ("error", "warning"), m.text))
    page.goto(live.address)
    page.wait_for_selector("body[data-ready=yes][data-number]", timeout=120_000)
    assert page.inner_text("#title") == "orders.csv"
    before = page.inner_text("#tile-events dd")
    live.go.set()
    page.wait_for_function(
        "was => document.querySelector('#tile-events dd').innerText !== was",
        arg=before,
        timeout=60_000,
    )
    page.wait_for_selector("#alarms li.fresh", timeout=60_000)
    assert "Drift at event 9," in page.inner_text("#alarms li")
    assert "ADWIN on error" in page.inner_text("#alarms li")
    assert page.inner_text("#tile-alarms dd") == "1"
    assert "'<b>x</b>'" in page.inner_text("#dead")
    assert "better than" in page.inner_text("#metric-verdict")
    drawn = page.query_selector("#plot-metric").evaluate(test_screenshots.DRAWN)
    assert drawn > 0.002
    test_screenshots.kept(page, "dashboard-wide")
    page.set_viewport_size(test_screenshots.VIEWS["phone"]["viewport"])
    page.emulate_media(color_scheme="dark")
    page.click("[data-tier='1']")
    page.wait_for_timeout(400)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    test_screenshots.kept(page, "dashboard-phone-dark")
    page.context.close()
    assert wrong == []
