"""The encoders against dictionaries in plain Python."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from streamlearn.block import (
    CATEGORY,
    F8,
    LABELLED,
    LEARN,
    NUMBER,
    OBSERVE,
    PREDICT,
    Block,
    Csr,
    Features,
    Vocabulary,
    concatenate,
)
from streamlearn.operators.encode import (
    Densifier,
    HashEncoder,
    OneHotEncoder,
    OrdinalEncoder,
)
from streamlearn.testing import block_of, labelled

Record = dict[str, Any]


def block(records: list[Record], mode: Any = LABELLED, weight: F8 | None = None) -> Block:
    """Records with two categories and a number, decoded as a schema does: codes as they appear."""
    names, kinds = ["colour", "size", "shape"], [CATEGORY, NUMBER, CATEGORY]
    tables = {"colour": Vocabulary(), "shape": Vocabulary()}
    X = np.full((len(records), 3), np.nan)
    for t, record in enumerate(records):
        for name, value in record.items():
            X[t, names.index(name)] = tables[name].code(value) if name in tables else value
    n = len(records)
    modes = np.broadcast_to(np.asarray(mode, dtype=np.uint8), (n,)).copy()
    ones = np.ones(n) if weight is None else weight
    return Block(X, np.full(n, np.nan), ones, modes, Features(names, kinds, tables))


def through(encoder: Any, rows: Block, cuts: list[int] | None = None) -> tuple[F8, Features]:
    """Run as a pipeline does: in blocks, and these in pieces; and the columns at the end."""
    ends = [*sorted(cuts or []), rows.n]
    parts, lengths = [], []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        for piece in encoder.pieces(rows.rows(start, end)):
            parts.append(encoder.run(piece))
            lengths.append(piece.n)
            assert parts[-1]["X"].shape[1] == len(encoder.output_features(piece.features))
    return concatenate(parts, lengths)["X"], encoder.output_features(rows.features)


def naive_one_hot(rows: list[Record], learnt: list[bool], cap: int) -> list[Record]:
    """Each row as a dict of the columns that exist when it is answered."""
    columns: list[str] = []
    out = []
    for record, learns in zip(rows, learnt, strict=True):
        finite = np.isfinite(record.get("size", 0.0)) or np.isnan(record["size"])
        for name in ("colour", "shape"):
            value = record.get(name)
            own = [c for c in columns if c.startswith(f"{name}=") and c != f"{name}=other"]
            if value is not None and learns and finite and f"{name}={value}" not in columns:
                column = f"{name}={value if len(own) < cap else 'other'}"
                columns += [column] if column not in columns else []
        row = {"size": record.get("size", np.nan)} | dict.fromkeys(columns, 0.0)
        for name in ("colour", "shape"):
            value = record.get(name)
            if value is not None and f"{name}={value}" in columns:
                row[f"{name}={value}"] = 1.0
            elif value is not None and f"{name}=other" in columns:
                row[f"{name}=other"] = 1.0
        out.append(row)
    return out


RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "colour": st.sampled_from(["red", "blue", "green", "black", "pink"]),
            "shape": st.sampled_from(["round", "flat", "long"]),
            "size": st.sampled_from([1.0, 2.5, np.inf]),
        },
    ),
    min_size=1,
    max_size=15,
)


@given(records=RECORDS, seed=st.integers(0, 99), cap=st.integers(1, 4), data=st.data())
def test_one_hot_columns_equal_the_definition_under_any_cut(
    records: list[Record], seed: int, cap: int, data: st.DataObject
) -> None:
    rng, n = np.random.default_rng(seed), len(records)
    mode, weight = rng.integers(0, 8, n), rng.choice([0.0, 1.0, 2.0], n)
    rows = block(records, mode, weight)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    encoder = OneHotEncoder(cap)
    out, features = through(encoder, rows, cuts)
    learnt = [bool(m & OBSERVE) and w > 0 for m, w in zip(mode, weight, strict=True)]
    for row, expected in zip(out, naive_one_hot(records, learnt, cap), strict=True):
        full = dict.fromkeys(features.names, np.nan) | expected
        assert_array_equal(row, [full[name] for name in features.names])
    whole = OneHotEncoder(cap)
    assert_array_equal(whole.run(rows)["X"], out)
    assert_array_equal(whole.layout_, encoder.layout_)


def test_pieces_begin_where_a_column_opens() -> None:
    records = [{"colour": c} for c in ("red", "red", "blue", "red", "green", "green")]
    encoder = OneHotEncoder()
    lengths = []
    for piece in encoder.pieces(block(records)):
        lengths.append(piece.n)
        encoder.run(piece)
    assert lengths == [2, 2, 2]


def test_pieces_are_no_shorter_than_they_must_be() -> None:
    """The second row opens the shared column, in which the rest finds room."""
    encoder = OneHotEncoder(cap=1)
    rows = block([{"colour": c} for c in ("red", "blue", "green", "pink")])
    lengths = []
    for piece in encoder.pieces(rows):
        lengths.append(piece.n)
        encoder.run(piece)
    assert lengths == [1, 3]


def test_a_value_called_other_takes_no_others_while_there_is_room() -> None:
    encoder = OneHotEncoder(cap=2)
    encoder.learn_one({"colour": "other"})
    assert encoder.transform_one({"colour": "red"}) == {"colour=other": 0.0}


def test_a_value_called_other_takes_the_values_without_room() -> None:
    records = [{"colour": c} for c in ("other", "red", "blue", "green", "other")]
    out, features = through(OneHotEncoder(cap=2), block(records))
    assert features.names == ("size", "colour=other", "colour=red")
    assert_array_equal(out[2:, 1:], [[1.0, 0.0]] * 3)


def test_values_without_room_share_a_column_that_opens_with_the_first_of_them() -> None:
    records = [{"colour": c} for c in ("red", "blue", "green", "other", "red")]
    out, features = through(OneHotEncoder(cap=1), block(records))
    assert features.names == ("size", "colour=red", "colour=other")
    assert_array_equal(out[:, 2], [np.nan, 1.0, 1.0, 1.0, 0.0])


def test_rows_that_only_ask_open_no_column() -> None:
    encoder = OneHotEncoder()
    through(encoder, block([{"colour": "red"}]))
    for mode in (PREDICT, LEARN, PREDICT | LEARN):
        through(encoder, block([{"colour": "red"}, {"colour": "blue"}], mode))
    assert encoder.transform_one({"colour": "blue"}) == {"colour=red": 0.0}
    assert encoder.layout_.tolist() == [[1, -1], [0, 0]]


@pytest.mark.parametrize("make", [OneHotEncoder, HashEncoder])
def test_without_a_category_the_block_is_handed_on(make: Any) -> None:
    X = np.array([[1.0, np.nan]])
    plain = Block(X, np.zeros(1), np.ones(1), np.full(1, 7, np.uint8), Features(["a", "b"]))
    encoder = make()
    assert [encoder.run(piece)["X"] is X for piece in encoder.pieces(plain)] == [True]
    assert encoder.output_features(plain.features) is plain.features


def test_one_hot_on_dicts_whose_features_come_and_go() -> None:
    encoder = OneHotEncoder()
    encoder.learn_one({"colour": "red"})
    encoder.learn_one({"size": 2.0, "colour": "blue"})
    encoder.learn_one({"big": True})
    seen = {"colour=red": 1.0, "colour=blue": 0.0, "size": 5.0}
    assert encoder.transform_one({"colour": "red", "size": 5.0}) == seen
    assert encoder.transform_one({"big": False}) == {
        "colour=red": 0.0,
        "colour=blue": 0.0,
        "big": 0,
    }


def test_a_number_may_have_the_name_of_a_column() -> None:
    encoder = OneHotEncoder()
    encoder.learn_one({"colour=red": 3.0, "colour": "red"})
    answer = encoder.transform_one({"colour=red": 3.0, "colour": "red"})
    assert answer == {"colour=red": 3.0, "colour=red_": 1.0}


def test_a_number_may_come_later_with_the_name_of_a_column() -> None:
    encoder = OneHotEncoder()
    encoder.learn_one({"c": "red"})
    encoder.learn_one({"c": "red", "c=red": 5.0})
    assert encoder.transform_one({"c": "red", "c=red": 4.0}) == {"c=red": 1.0, "c=red_": 4.0}


def test_nan_is_a_missing_category_on_dicts() -> None:
    encoder = OneHotEncoder()
    for value in ("red", float("nan"), float("nan")):
        encoder.learn_one({"c": value})
    assert encoder.transform_one({"c": float("nan")}) == {"c=red": 0.0}


def test_one_hot_resumes_and_restores() -> None:
    encoder, other = OneHotEncoder(cap=2), OneHotEncoder(cap=2)
    encoder.learn_one({"colour": "red", "shape": "flat"})
    before = encoder.snapshot()
    other.load(encoder.state())
    x = {"colour": "blue", "shape": "flat"}
    for each in (encoder, other):
        each.learn_one(x)
    assert encoder.transform_one(x) == other.transform_one(x) == {
        "colour=red": 0.0, "shape=flat": 1.0, "colour=blue": 1.0,
    }  # fmt: skip
    encoder.restore(before)
    assert encoder.transform_one(x) == {"colour=red": 0.0, "shape=flat": 1.0}
    encoder.reset()  # columns are names, and names stay: what comes after has learnt on them
    assert encoder.transform_one(x) == {"colour=red": 0.0, "shape=flat": 1.0}


def test_ordinal_codes_are_in_order_of_appearance() -> None:
    rows = block([{"colour": "red"}, {"colour": "blue", "size": 2.0}, {"colour": "red"}])
    encoder = OrdinalEncoder()
    assert encoder.run(rows)["X"] is rows.X
    features = encoder.output_features(rows.features)
    assert (features.names, features.kinds) == (("colour", "size", "shape"), (NUMBER,) * 3)
    assert_array_equal(rows.X[:, 0], [0.0, 1.0, 0.0])


def naive_hash(record: Record, buckets: int, seed: int) -> list[float]:
    """The documented hash, straight from the standard library."""
    out = [0.0] * buckets
    for name in ("colour", "shape"):
        if name in record:
            text = f"{name}={record[name]}".encode()
            salt = seed.to_bytes(16, "little")
            low = hashlib.blake2b(text, digest_size=8, salt=salt).digest()
            bits = sum(byte << (8 * i) for i, byte in enumerate(low))
            out[bits % 2**63 % buckets] += -1.0 if bits >= 2**63 else 1.0
    return out


@given(records=RECORDS, buckets=st.integers(1, 9), seed=st.integers(0, 5))
def test_hashed_columns_equal_the_documented_hash(
    records: list[Record], buckets: int, seed: int
) -> None:
    out, features = through(HashEncoder(buckets, seed), block(records))
    assert features.names == (*(f"hash_{b}" for b in range(buckets)), "size")
    expected = [[*naive_hash(r, buckets, seed), r.get("size", np.nan)] for r in records]
    assert_array_equal(out, expected)


def test_a_number_before_the_categories_keeps_its_place() -> None:
    encoder = HashEncoder(3, 5)
    answer = encoder.transform_one({"age": 2.0, "shape": "round", "size": 4.0})
    hashed = naive_hash({"shape": "round"}, 3, 5)
    expected = {"age": 2.0, **{f"hash_{b}": hashed[b] for b in range(3)}, "size": 4.0}
    assert answer == expected


def test_hashing_needs_no_value_to_have_been_seen_and_remembers_none() -> None:
    """Two unseen values in turn, which stand under the same code while they are asked for."""
    encoder = HashEncoder(buckets=5)
    encoder.learn_one({"size": 1.0})
    encoder.learn_one({"colour": "red", "shape": "flat"})
    for colour in ("blue", "green", "black", "red", "pink"):
        answer = encoder.transform_one({"colour": colour})
        hashed = [answer[f"hash_{b}"] for b in range(5)]
        assert hashed == naive_hash({"colour": colour}, 5, 0)
    assert encoder.output_features(encoder._features).names[0] == "size"


def sparse_block(width: int) -> Block:
    """Two rows: 2 at column 1; nothing but the dense number."""
    rows = block([{"size": 1.0}, {"size": 2.0}])
    features = Features(["size"])
    csr = Csr(np.array([2.0]), np.array([1]), np.array([0, 1, 1]), width)
    return Block(rows.X[:, 1:2].copy(), rows.y, rows.weight, rows.mode, features, sparse=csr)


@pytest.mark.parametrize("code", [-1.0, -1e300, 3.0, 1e18])
def test_what_is_no_code_of_a_category_is_kept_out_of_the_tables(code: float) -> None:
    """Negative ones were looked up before the tables, and the answer written beside the row."""
    known = {"c": Vocabulary(["a", "b", "c"])}
    good = block_of([[0.0], [1.0], [2.0]], names=["c"], kinds=[CATEGORY], categories=known)
    one_hot, hashed = OneHotEncoder(), HashEncoder(buckets=4)
    one_hot.run(good)
    hashed.run(good)
    bad = good.replace(X=np.full((3, 1), code))
    asked = bad.replace(mode=np.full(3, PREDICT, np.uint8))
    assert not one_hot.run(asked)["X"].any()
    assert not hashed.run(bad)["X"].any()
    with pytest.raises(ValueError, match=r"^OneHotEncoder: the code of category 'c' must be one"):
        one_hot.run(bad)


def test_densifier_puts_sparse_columns_behind_the_dense_ones() -> None:
    rows, stage = sparse_block(3), Densifier()
    assert_array_equal(stage.run(rows)["X"], [[1.0, 0.0, 2.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    assert stage.output_features(rows.features).names == ("size", "text_0", "text_1", "text_2")
    stage.learn_one({"size": 3.0, "late": 4.0})
    expected = {"size": 3.0, "text_0": 0.0, "text_1": 0.0, "text_2": 0.0, "late": 4.0}
    assert stage.transform_one({"size": 3.0, "late": 4.0}) == expected


def test_densifier_hands_on_what_has_no_sparse_columns() -> None:
    rows, stage = sparse_block(3).replace(sparse=None), Densifier()
    assert stage.run(rows)["X"] is rows.X
    assert stage.output_features(rows.features) is rows.features


def test_densifier_keeps_the_places_of_its_columns_at_a_reset() -> None:
    """Columns that came after the sparse ones stay behind them: places are names."""
    sparse = Csr(np.array([7.0]), np.array([0]), np.array([0, 1]), 1)
    densifier = Densifier()
    one, both = (labelled(X, [0.0]).replace(sparse=sparse) for X in ([[1.0]], [[1.0, 2.0]]))
    densifier.run(one)
    assert_array_equal(densifier.run(both)["X"], [[1.0, 7.0, 2.0]])
    densifier.reset()
    assert_array_equal(densifier.run(both)["X"], [[1.0, 7.0, 2.0]])


def test_densifier_folds_what_is_too_wide() -> None:
    """Column j goes to j modulo max_width, so that a count that was hashed stays hashed."""
    wide = sparse_block(65)
    assert wide.sparse is not None
    plain = wide.sparse.dense()
    expected = np.zeros((plain.shape[0], 8))
    for j in range(65):
        expected[:, j % 8] += plain[:, j]
    assert_array_equal(Densifier(max_width=8).run(wide)["X"][:, wide.d :], expected)


def test_densifier_says_when_the_number_of_columns_changes() -> None:
    stage = Densifier()
    stage.run(sparse_block(3))
    with pytest.raises(ValueError, match=r"^Densifier: the number .* must stay 3, got 4$"):
        stage.run(sparse_block(4))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: OneHotEncoder(0), "OneHotEncoder: cap must be a whole number >= 1, got 0"),
        (lambda: HashEncoder(0), "HashEncoder: buckets must be a whole number >= 1, got 0"),
        (lambda: HashEncoder(2, -1), "HashEncoder: seed must be a whole number >= 0, got -1"),
        (lambda: Densifier(0), "Densifier: max_width must be a whole number >= 1, got 0"),
    ],
)
def test_arguments_are_checked(make: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}$"):
        make()
