"""The benchmarks' own machinery: tables, marks, medians; and one operator measured for real."""

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import clock, costs, marginal, measuring, per_operator, streams, tables
from benchmarks.families import Cost
from streamlearn import operators
from streamlearn.connectors import as_source


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
    assert 0 < found.one_event_us_p50 <= found.one_event_us_p99
    assert found.ns_per_event > 0


@pytest.mark.jit
@pytest.mark.parametrize(("groups", "name"), [(0, "Evaluation"), (4, "Evaluation, by group")])
def test_the_evaluation_is_measured(groups: int, name: str) -> None:
    found = per_operator.evaluation_figure(groups, 8, seconds=0.0)
    assert (found.operator, found.d) == (name, 8)
    assert found.ns_per_event > 0


@pytest.mark.jit
def test_what_measuring_costs_is_a_row_per_case(tmp_path: Path) -> None:
    paths = streams.write(streams.table(600), tmp_path, 10)
    cases = list(measuring.measure(paths["Parquet"], 600, rounds=1, seconds=0.0))
    names = [case.what for case in cases]
    assert len(set(names)) == len(cases) == 10
    assert {"replay, report", "comparison of three", "replay, labels 100 rows late"} <= set(names)
    assert all(0 < case.least <= case.ns_per_event <= case.most for case in cases)
    assert (tmp_path / "report.html").exists()


def test_growth_is_told_within_a_series_alone() -> None:
    made = Cost("A", "", operators.MeanRegressor, None, 8, 10, grows="width")
    series = [
        (made, 1.0),
        (made._replace(wide=100), 100.0),
        (made._replace(classes=10, grows="classes"), 3.0),
        (made._replace(classes=50, grows="classes"), 15.0),
        (made._replace(operator="B", grows=""), 7.0),
        (made._replace(operator="B", grows=""), 8.0),
    ]
    assert costs.growth(series) == [
        ("A", "width", "10 to 100", "10.0", "100.0", "2.00"),
        ("A", "classes", "10 to 50", "5.0", "5.0", "1.00"),
    ]


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


def test_a_marginal_event_is_what_the_longer_stream_takes_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = {"longer": (9.0, 7.0), "shorter": (4.0, 3.0)}
    monkeypatch.setattr(marginal, "_seconds", lambda command: taken[command[0]])
    one = marginal._Contestant("ours", ["longer"], ["shorter"], 2_000_000)
    assert marginal._marginal(one) == (2.5, 2.0)
    pairs = [(2.5, 2.0), (3.5, 2.5), (1.0, 9.0)]
    assert marginal._figure("ours", pairs) == marginal.Marginal("ours", 2.5, 1.0, 3.5, 2.5)


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
