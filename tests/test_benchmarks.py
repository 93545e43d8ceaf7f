"""The benchmarks' own machinery: tables, medians, pages; and some parts measured for real."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks import (
    allocations,
    calibrate_detectors,
    clock,
    costs,
    detector_limits,
    figures,
    latency,
    live_page,
    machine,
    marginal,
    measuring,
    pages,
    peers,
    per_operator,
    rates,
    streams,
    suite,
    tables,
    turns,
)
from benchmarks.families import Cost, triangle
from streamlearn import operators
from streamlearn.connectors import as_source
from streamlearn.operators import _calibrated


def test_tables_are_aligned_markdown() -> None:
    text = tables.markdown(("name", "ns"), [("a", "1"), ("longer", "1,000")])
    assert text.splitlines() == [
        "| name   |    ns |",
        "| ------ | ----: |",
        "| a      |     1 |",
        "| longer | 1,000 |",
    ]


def test_tables_replace_only_what_stands_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    for _ in range(2):  # again: the marks are still there
        tables.put(readme, "new")
        assert readme.read_text() == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"


@pytest.mark.parametrize("text", ["", tables.BEGIN, f"{tables.END}\n{tables.BEGIN}"])
def test_a_file_without_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match=r"README\.md: must hold the lines <!-- bench:begin -->"):
        tables.put(readme, "new")
    assert readme.read_text() == text


def test_rounds_go_by_turns_and_give_medians() -> None:
    order: list[str] = []
    given = {"a": iter([3.0, 1.0, 2.0]), "b": iter([6.0, 4.0, 5.0])}

    def runner(name: str) -> float:
        order.append(name)
        return next(given[name])

    found = clock.by_turns({"a": lambda: runner("a"), "b": lambda: runner("b")}, 3)
    assert "".join(order) == "ababab"
    assert found == {"a": (2.0, 1.0, 3.0), "b": (5.0, 4.0, 6.0)}


def test_repeated_calls_are_bounded_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(clock.repeated(lambda: None, seconds=0.0, at_least=7)) == 7
    monkeypatch.setattr(clock, "MOST_CALLS", 11)
    assert len(clock.repeated(lambda: None, seconds=60.0)) == 11


@pytest.mark.parametrize(("share", "value"), [(0.5, 51.0), (0.99, 100.0), (0.0, 1.0), (1.0, 100.0)])
def test_percentiles_of_one_to_a_hundred(share: float, value: float) -> None:
    assert clock.percentile(list(range(100, 0, -1)), share) == value


def test_every_operator_is_built_and_given_a_block_it_takes() -> None:
    names = per_operator.measurable()
    assert {"KalmanClassifier", "GaussianMixtureImputer", "ExpertMixtureRegressor"} <= set(names)
    for name in names:
        operator = per_operator.make(name)
        block = per_operator.block_for(operator, 8).rows(0, 2)
        assert {len(column) for column in operator.run(block).values()} == {2}


@pytest.mark.jit
def test_an_operator_is_measured() -> None:
    found = per_operator.figure("MeanRegressor", 8, seconds=0.0)
    assert (found.operator, found.d) == ("MeanRegressor", 8)
    assert 0 < found.p50_us <= found.p99_us <= found.p999_us
    assert min(found.predict_ns, found.learn_ns, found.both_ns, found.state_bytes) > 0
    (table,) = per_operator.tables([found._asdict()])
    assert table.splitlines()[2].startswith("| MeanRegressor ")


@pytest.mark.jit
@pytest.mark.parametrize(("groups", "name"), [(0, "Evaluation"), (4, "Evaluation, by group")])
def test_the_evaluation_is_measured(groups: int, name: str) -> None:
    found = per_operator.evaluation_figure(groups, 8, seconds=0.0)
    assert (found.operator, found.d) == (name, 8)
    assert found.both_ns > 0


@pytest.mark.jit
def test_what_measuring_costs_is_a_row_per_case(tmp_path: Path) -> None:
    paths = streams.write(streams.table(600), tmp_path, 10)
    cases = list(measuring.cases(paths["Parquet"], 600, rounds=1, seconds=0.0))
    names = [case.what for case in cases]
    assert len(set(names)) == len(cases) == 10
    assert {"replay, report", "comparison of three", "replay, labels 100 rows late"} <= set(names)
    assert all(0 < case.least <= case.ns_per_event <= case.most for case in cases)
    assert (tmp_path / "report.html").exists()


def rows_of(grows: str, exponent: float, *at: int, **more: Any) -> list[dict[str, Any]]:
    """Figures of a series whose cost and count have a known exponent."""
    return [
        {"operator": "A", "size": "", "grows": grows, "at": x, "both": float(x) ** exponent,
         "flops": 3.0 * x * x, "bytes": 8.0 * x, "spec": "3 D^2", "width": x, "numpy": None,
         "predict": 1.0, "learn": 1.0, "of_dgemm": 0.5, "of_copy": 0.5} | more for x in at
    ]  # fmt: skip


def test_growth_is_fitted_above_128_and_beside_the_count() -> None:
    """Small sizes are left out where there are two large ones."""
    small = rows_of("width", 0.0, 4, 8)
    rows = [*small, *rows_of("width", 2.0, 128, 256, 1024), *rows_of("classes", 1.0, 2, 10, 50)]
    assert costs.growth(rows) == [
        ("A", "width", "128 to 1,024", "3 D^2", "2.00", "2.00", "+0.00"),
        ("A", "classes", "2 to 50", "3 D^2", "1.00", "2.00", "-1.00"),
    ]
    assert costs.growth(rows_of("width", 1.0, 256)) == []


def test_shares_are_of_the_rates_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "timed", lambda cost, seconds: {"both": 4.0})
    found = rates.Rates(10.0, {1: 100.0, 1000: 5.0})
    cost = Cost("A", "", operators.MeanRegressor, None, 8, 10, flops=2e4, bytes=1000.0)
    within, beyond = (costs.row(c, found, 0.0) for c in (cost, cost._replace(bytes=1e4)))
    assert (within["of_dgemm"], within["of_copy"]) == (0.5, 0.0025)  # of 10 a ns; of 100 a ns
    assert beyond["of_copy"] == 0.5  # as copies beyond the cache
    assert costs.row(cost._replace(flops=0.0), found, 0.0)["of_dgemm"] is None
    assert rates.Rates.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_counts_of_a_head_are_those_of_its_loops() -> None:
    """Counted one by one: the product, the triangle with its diagonal, K rows of weights."""
    D, K = 7, 3
    product = sum(2 for _ in range(D) for _ in range(D))
    below = sum(2 for i in range(D) for _ in range(i))
    weights = sum(4 for _ in range(K) for _ in range(D))
    counts = triangle(D, K)
    assert counts["flops"] == product + below + D + weights
    assert counts["bytes"] == 16 * (D * (D + 1) // 2 + K * D)


def test_an_exponent_is_a_slope() -> None:
    assert rates.exponent([(x, 5.0 * x**1.5) for x in (2, 30, 400)]) == pytest.approx(1.5)
    assert math.isnan(rates.exponent([(2.0, 1.0), (2.0, 3.0)]))


@pytest.mark.jit
def test_kernels_allocate_nothing_by_the_event() -> None:
    """In a process of its own; `make bench` looks at all operators."""
    found = allocations.measure(quick=True)
    assert {one["operator"]: allocations.by_event(one) for one in found} == {
        "Normalizer": 0.0, "KalmanRegressor": 0.0, "ADWIN": 0.0
    }  # fmt: skip
    assert all(one["twice"][1] > 0 for one in found)  # calls were seen


@pytest.mark.soak
def test_no_kernel_of_any_operator_allocates_by_the_event() -> None:
    found = allocations.measure(quick=False)
    assert len(found) == len(per_operator.measurable())
    assert [one["operator"] for one in found if allocations.by_event(one)] == []


def test_an_allocation_by_the_event_is_told() -> None:
    found = [{"operator": "A", "rows": 400, "once": [400, 1], "twice": [800, 1]},
             {"operator": "B", "rows": 400, "once": [1, 1], "twice": [1, 2]}]  # fmt: skip
    assert [allocations.by_event(one) for one in found] == [1.0, 0.0]
    assert allocations.tables(found)[0] == "Of 2 operators, 1 allocate by the event: A."


def test_other_packages_that_are_missing_are_skipped_with_the_reason() -> None:
    gone = FileNotFoundError(2, "No such file or directory", "python")
    assert "`make bench-peers`" in peers.reason(gone)
    no_java = subprocess.CalledProcessError(1, "x", stderr="Traceback ...\nNo JVM shared library.")
    assert peers.reason(no_java) == "No JVM shared library"
    shown = peers.tables({"rows": [], "skipped": {"CapyMOA: NaiveBayes": "No JVM"}})
    assert shown[-1] == "Skipped: CapyMOA: NaiveBayes: No JVM."


# -- limits of detectors ---------------------------------------------------------------------------


def test_limits_are_those_of_their_plans_and_were_checked_as_far_as_they_go() -> None:
    plans = detector_limits.PLANS
    assert sorted(plans) == [path.stem for path in sorted(calibrate_detectors.FOLDER.glob("*"))]
    for name, plan in plans.items():
        found = _calibrated.table(name)
        assert (found["warm_up"], tuple(found["jitter"])) == (plan.warm_up, plan.jitter)
        assert _calibrated.longest(name) == plan.longest
        kept = json.loads((calibrate_detectors.MEASURED / f"{name}.json").read_text("utf-8"))
        assert sorted(map(int, kept)) == calibrate_detectors.lengths_of(name)
        assert all(set(cells) == set(calibrate_detectors.sources_of(name))
                   for cells in kept.values())  # fmt: skip


def test_the_page_of_detectors_tells_what_was_measured() -> None:
    page = (pages.ROOT / "docs" / "models" / "detectors.md").read_text("utf-8")
    found = calibrate_detectors.kept()
    for part in (calibrate_detectors.far_off(found), calibrate_detectors.table(found)):
        assert "\n".join(part) + "\n" in page
    cells = [
        ratio
        for path in calibrate_detectors.MEASURED.glob("*.json")
        for sources in json.loads(path.read_text("utf-8")).values()
        for source, bands in sources.items()
        for alarms, ratio in bands
        if alarms and (path.stem, source) != ("EDDM", "bits 0.05")
    ]
    off = sum(abs(ratio - 1.0) > 0.2 for ratio in cells)
    apart = "(those of EDDM at a rate of 0.05 apart)"
    assert f"Of {len(cells):,} cells {apart} {off} are more than 20 % off" in page


# -- the pages -------------------------------------------------------------------------------------


def a_run() -> dict[str, Any]:
    """What the suite keeps, of two parts."""
    about = machine.describe() | {"rates": rates.Rates(10.0, {32: 50.0}).to_json(), "quick": False}
    lone = {"what": "a pipeline", "p50": 1.0, "p99": 2.0, "p99.9": 3.0, "calls": 20_000}
    rows = rows_of("width", 2.0, 128, 256)
    measured = {"rows": rows, "rates": about["rates"]}
    return {"latency": {"machine": about, "measured": [lone]},
            "costs": {"machine": about, "measured": measured}}  # fmt: skip


def test_pages_are_made_of_what_was_kept(tmp_path: Path) -> None:
    readme, store = tmp_path / "README.md", tmp_path / "kept.json"
    readme.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    suite.keep(a_run(), store)
    for path in pages.write_all(suite.load(store), tmp_path, readme):
        assert machine.describe()["cpu"] in path.read_text("utf-8")
    shown = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert f"## {latency.TITLE}" in shown
    assert "| a pipeline " in shown
    assert "dgemm 10.0 Gflop/s" in shown
    assert "| a pipeline " in readme.read_text("utf-8")


def test_pages_of_the_documentation_are_those_of_the_figures_kept(tmp_path: Path) -> None:
    """They are generated: `python -m benchmarks --pages` writes them anew."""
    if not suite.STORE.exists():
        pytest.skip("nothing has been measured yet")
    readme = tmp_path / "README.md"
    readme.write_text((pages.ROOT / "README.md").read_text("utf-8"), "utf-8")
    for path in pages.write_all(suite.load(), tmp_path, readme):
        kept = pages.ROOT / "README.md" if path == readme else pages.DOCS / path.name
        assert path.read_text("utf-8") == kept.read_text("utf-8"), path.name


def test_the_page_with_plots_draws_each_series_and_a_roofline() -> None:
    text = figures.html(a_run())
    for said in ("Cost by width", "Roofline", "A: as its count", "dgemm, copies of 32 KiB"):
        assert said in text
    assert text.count('class="plot"') == 2


def test_figures_are_kept_with_few_digits_and_without_nan() -> None:
    kept = suite.rounded({"a": (1.23456789, math.nan), 3: [True, 5, "x"]})
    assert kept == {"a": [1.2346, None], "3": [True, 5, "x"]}


@pytest.mark.parametrize("K", [2, 5])
def test_classes_of_a_block_are_equally_frequent(K: int) -> None:
    y = streams.block(100, 3, classes=True, category=False, K=K).y
    assert set(y) == set(range(K))
    assert K == 2 or {int((y == c).sum()) for c in range(K)} == {20}


def test_the_stream_turns_over_in_the_middle() -> None:
    """The class follows the same score before, and its negative after."""
    X, score = streams.numbers(400, 3, seed=0)
    first, second = X[:200].T @ score[:200], X[200:].T @ score[200:]
    assert first @ second < -0.9 * abs(first @ first) ** 0.5 * abs(second @ second) ** 0.5


def test_a_marginal_event_is_what_the_longer_stream_takes_more() -> None:
    entered = [marginal._Contestant(name, "", "", "", "", "", 2_000_000) for name in ("a", "b")]
    took = [(9.0, 7.0), (4.0, 3.0), (3.0, 2.5), (1.0, 1.5)]
    assert marginal._round(entered, took) == [(2.5, 2.0), (1.0, 0.5)]


def test_marks_of_the_marginal_event_are_judged_round_by_round() -> None:
    """Quotients are of the same round: River's third is twice as slow, as is Parquet's."""
    names = {"Parquet: x": [0.3, 0.39, 0.8], "CSV: x": [0.5, 0.6, 1.0],
             marginal.RIVER: [9.0, 9.0, 20.0], marginal.VW: [0.5, 0.5, 2.0]}  # fmt: skip
    found = [marginal.Marginal(n, us, us)._asdict() for n, us in names.items()]
    table, marks = marginal.tables(found)
    assert table.splitlines()[2].endswith(" 25.0 |")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in marks.splitlines()[2:]]
    assert rows == [
        ["Parquet: x: at most 0.4 us", "0.390", "0.300", "0.800", "2 of 3"],
        ["Parquet: x: at least 25 times River", "25.000", "23.077", "30.000", "2 of 3"],
        ["CSV: x: over Vowpal Wabbit, at most 1", "1.000", "0.500", "1.200", "2 of 3"],
    ]


_BUSY = """
import time
def work(seconds):
    end = time.process_time() + float(seconds)
    while time.process_time() < end: pass
"""


def test_processes_that_take_turns_say_what_the_processor_took() -> None:
    with (
        turns.Worker(sys.executable, _BUSY, "0", "0.4", share=2) as longer,
        turns.Worker(sys.executable, _BUSY, "0", "0.2") as shorter,
    ):
        assert longer.answer() is None
        assert shorter.answer() is None
        for (process, thread), seconds in zip(
            turns.raced([longer, shorter]), (0.4, 0.2), strict=True
        ):
            assert seconds - 1e-3 <= thread <= process + 1e-3 < seconds + 0.1


def test_a_process_whose_turn_is_over_stands_still() -> None:
    with turns.Worker(sys.executable, _BUSY, "0", "60") as worker:
        worker.answer()
        worker.tell()
        assert worker.turn() is None
        command = ["ps", "-o", "stat=", "-p", str(worker.process.pid)]
        assert subprocess.check_output(command, text=True).startswith("T")


def test_a_process_that_fails_ends_the_measurement() -> None:
    with (
        turns.Worker(sys.executable, "work = len", "", "x") as worker,
        turns.Worker(sys.executable, "raise SystemExit(3)", "", "x") as failed,
    ):
        assert worker.answer() is None
        with pytest.raises(RuntimeError, match=r"^a worker ended with status 3$"):
            failed.answer()


def test_every_format_of_the_marginal_stream_repeats_all_rows(tmp_path: Path) -> None:
    data = pa.table({"a": [0.5, 2.0], "class": ["UP", "DOWN"]})
    for suffix, write in marginal._FORMATS.items():
        write(data, 3, tmp_path / f"rows.{suffix}")
    assert (tmp_path / "rows.vw").read_text() == "1 | a:0.5\n-1 | a:2.0\n" * 3
    for suffix in ("csv", "jsonl", "parquet"):
        source, _ = as_source(tmp_path / f"rows.{suffix}", target="class")
        source.open({})
        batch = source.poll(100, 0.0)
        assert batch is not None
        assert batch.block.X.ravel().tolist() == [0.5, 2.0] * 3
        source.close()


# -- the live page ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (50, 18, 33), (100, 40, 61)]
)
def test_medians_lie_between_the_places_of_the_tables_of_the_sign_test(
    n: int, low: int, high: int
) -> None:
    assert live_page.ends_of_median(n) == (low - 1, high - 1)


def test_a_page_is_found_to_cost_what_it_costs_while_the_machine_swings_by_two() -> None:
    draw, slices = random.Random(5), 0
    slower = {live_page.ON: 0.04, live_page.LOAD: 0.03}

    def take(kind: str) -> live_page.Slice:
        nonlocal slices
        slices += 1
        speed = 1.5 + 0.5 * math.sin(slices / 40) + draw.gauss(0.0, 0.01)
        events = round(1e6 * speed * (1.0 - slower.get(kind, 0.0)))
        return live_page.Slice(events, 1.0, 1.1)

    groups = list(live_page.grouped(take, 100, random.Random(1)))
    for kind, cost in (("again", 0.0), ("load", 0.03), ("on", 0.04)):
        lost = [live_page.lost(getattr(group, kind), group.off) for group in groups]
        found = live_page.interval(lost)
        assert found.low < cost < found.high
        assert found.high - found.low < 0.03
    more = [live_page.spent(group.on, group.off) for group in groups]
    assert live_page.interval(more).middle == pytest.approx(1 / 0.96 - 1, abs=0.01)


def test_every_order_of_the_slices_comes_and_the_same_seed_gives_the_same() -> None:
    def orders(seed: int) -> list[tuple[str, ...]]:
        taken: list[str] = []

        def take(kind: str) -> live_page.Slice:
            taken.append(kind)
            return live_page.Slice(1, 1.0, 1.0)

        assert len(list(live_page.grouped(take, 200, random.Random(seed)))) == 200
        return [tuple(taken[k : k + 4]) for k in range(0, 800, 4)]

    assert len(set(orders(1))) == math.factorial(4)
    assert orders(1) == orders(1) != orders(2)


def test_the_clock_of_a_page_goes_by_one_second_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.monotonic", lambda: now + 7.1)
    clock = live_page.PageTime(faster=4.0)
    now = 101.0
    assert clock() == pytest.approx(108.1)  # that of the machine
    clock.stand()
    assert clock() == 108.5
    for slices in range(1, 4):
        now += 3.0
        assert clock() == 107.5 + slices  # stands
        clock.go()
        now += 0.26  # a block more than the slice
        assert clock() == pytest.approx(108.54 + slices - 1 + 1.0)
        clock.stand()


def test_a_page_that_is_off_does_nothing(tmp_path: Path) -> None:
    live_page.written(tmp_path, 20_000, 1_000)
    stream = live_page.Stream(live_page.configured(tmp_path), faster=10.0)
    with stream.running(), stream.watched_by(1):
        for kind in (live_page.OFF, live_page.ON, live_page.LOAD, live_page.ON):
            messages, spent = stream.page.feed.number, stream.thread_seconds()
            taken = [stream.take(kind) for _ in range(2)]
            assert (stream.page.feed.number > messages) == (kind == live_page.ON)
            assert (stream.thread_seconds() - spent > 2e-4) == (kind == live_page.ON)
            assert all(one.events > 0 and one.cpu > 0 for one in taken)
            assert all(one.wall > 0.09 for one in taken)
