"""Decoding ahead: what is not taken yet was never read, whatever a thread has done with it."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors import (
    _decode_lines,
    _partitions,
    jsonl_files,
    open_source,
    parquet_files,
)
from streamlearn.connectors._partitions import Ahead, Chunk, ahead
from streamlearn.connectors.compressed import PIPE, PipeBytes
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from tests.recorder import Recorder

ROWS, EVERY = 400, 37
TABLE = {
    "target": "y",
    "task": "classification",
    "features": {"x": "number", "colour": "category"},
}


@pytest.fixture(autouse=True)
def small_pieces_and_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 20 rows a chunk; every reader of a file reads ahead."""
    monkeypatch.setattr(_decode_lines, "PIECE", 256)
    monkeypatch.setattr(jsonl_files, "PIECE", 256)
    monkeypatch.setattr(parquet_files, "rows_at_once", lambda columns: 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def rows(n: int = ROWS) -> list[dict[str, Any]]:
    """A new colour every 25 rows, a new class every 90."""
    return [
        {"x": (t * 37 % 101) / 8, "colour": f"c{t // 25}", "y": f"k{t // 90}"} for t in range(n)
    ]


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows()), path)
        return path
    header = "x,colour,y\n" if path.suffix == ".csv" else ""
    form = "{x},{colour},{y}\n" if header else '{{"x":{x},"colour":"{colour}","y":"{y}"}}\n'
    path.write_text(header + "".join(form.format(**row) for row in rows()))
    return path


def engine(path: Path, folder: Path, fuse: int = 10**9) -> Engine:
    source = open_source(str(path), Schema.from_config(TABLE))
    store = CheckpointStore(folder)
    return Engine(source, Recorder(fuse), checkpoints=store, every_events=EVERY, block_rows=9)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_checkpoint_knows_nothing_of_what_was_read_ahead(name: str, tmp_path: Path) -> None:
    """Positions and tables are those of the last block, and the run goes on from there."""
    path = written(tmp_path, name)
    crashed = engine(path, tmp_path / "checkpoints", fuse=5 * EVERY + 3)
    with pytest.raises(ZeroDivisionError):
        crashed.run()
    with CheckpointStore(tmp_path / "checkpoints") as store:
        unit = store.latest()
    assert unit is not None
    assert unit.schema is not None
    assert unit.events == 5 * EVERY
    known = unit.schema.table
    assert f"c{5 * EVERY // 25}" in str(known)
    assert f"c{5 * EVERY // 25 + 1}" not in str(known)
    resumed = engine(path, tmp_path / "checkpoints")
    assert resumed.run().resumed_at == 5 * EVERY
    quiet = engine(path, tmp_path / "quiet")
    quiet.run()
    assert resumed.pipeline.rows == quiet.pipeline.rows  # type: ignore[attr-defined]
    assert len(quiet.pipeline.rows) == ROWS  # type: ignore[attr-defined]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of every reading of lines."""
    found: list[str] = []
    real = _decode_lines.LineReader.read

    def read(self: Any, max_wait: float) -> Chunk | None:
        found.append(threading.current_thread().name)
        return real(self, max_wait)

    monkeypatch.setattr(_decode_lines.LineReader, "read", read)
    return found


def test_the_file_is_read_by_a_thread_and_gives_the_same_rows(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_threads = engine(written(tmp_path, "a.csv"), tmp_path / "one")
    with_threads.run()
    assert threads[0] == threading.main_thread().name
    assert len(threads) > 10
    assert all(name.startswith("streamlearn-decode") for name in threads[1:])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    threads.clear()
    alone = engine(tmp_path / "a.csv", tmp_path / "two")
    alone.run()
    assert set(threads) == {threading.main_thread().name}
    assert alone.pipeline.rows == with_threads.pipeline.rows  # type: ignore[attr-defined]


# -- pipes -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much a pipe holds")
def test_a_pipe_is_read_ahead_where_a_whole_piece_waits(threads: list[str]) -> None:
    """And what comes alone is there as soon as it came; positions are those of the bytes."""
    out, into = os.pipe()
    reader = jsonl_files.open_pipe(out, Schema.from_config({"features": {"x": "number"}}), None)
    lines = [b'{"x": %d}\n' % i for i in range(1000, 1060)]  # 12 bytes each, 21 to a piece
    os.write(into, b"".join(lines))
    found, ends = [], []
    for _ in range(3):
        chunk = reader.read(0.0)
        assert chunk is not None
        found += chunk.decoded.take(0, chunk.decoded.n).X[:, 0].tolist()
        ends.append(chunk.end["offset"] // 12)
    assert found == list(range(1000, 1060))
    assert ends == [21, 42, 60]
    assert [name.startswith("streamlearn-decode") for name in threads] == [False, True, False]
    assert reader.read(0.0) is None
    os.write(into, b'{"x": 7}\n')
    alone = reader.read(0.0)
    assert alone is not None
    assert alone.decoded.X.tolist() == [[7.0]]
    os.close(into)
    assert reader.read(0.0) is None
    assert reader.finished
    reader.close()
    os.close(out)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux widens pipes")
def test_the_writer_of_a_pipe_goes_on_while_nobody_reads() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    stream = PipeBytes(out)
    assert os.write(into, bytes(2 * PIPE)) == PIPE
    assert stream.holds(PIPE)
    assert not stream.holds(PIPE + 1)
    assert stream.read(2 * PIPE, 0.0) == bytes(PIPE)
    assert not stream.holds(1)
    os.close(into)
    os.close(out)


# -- any reader ------------------------------------------------------------------------------------


class Made:
    """A reader of chunks that say their number; the one numbered `bad` cannot be read."""

    finished = False

    def __init__(self, n: int, bad: int = -2) -> None:
        self.numbers, self.bad = iter(range(n)), bad
        self.may_go_on, self.begun = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.closed_at = -1
        self.last = -1

    def read(self, max_wait: float) -> Any:
        self.last = next(self.numbers, -1)
        self.finished = self.last < 0
        if self.last > 0:
            self.begun.set()
            self.may_go_on.wait()
        if self.last == self.bad:
            raise UserError(f"chunk {self.last} is damaged")
        return None if self.finished else self.last

    def close(self) -> None:
        self.closed_at = self.last


def taken(reader: Any) -> Iterator[Any]:
    while not reader.finished:
        yield reader.read(0.0)


def test_every_chunk_comes_once_and_in_order() -> None:
    reader = Ahead(Made(5))
    assert list(taken(reader)) == [0, 1, 2, 3, 4, None]
    reader.close()
    assert list(taken(Ahead(Made(0)))) == [None]


def test_what_is_wrong_with_a_chunk_is_raised_when_its_turn_comes() -> None:
    reader: Any = Ahead(Made(5, bad=2))
    assert [reader.read(0.0), reader.read(0.0)] == [0, 1]
    with pytest.raises(UserError, match="chunk 2 is damaged"):
        reader.read(0.0)
    reader.close()


def test_the_file_is_closed_after_the_chunk_in_hand_and_nothing_is_read_after() -> None:
    made = Made(5)
    reader: Any = Ahead(made)
    made.may_go_on.clear()
    assert reader.read(0.0) == 0
    assert made.begun.wait(10.0)
    closing = threading.Thread(target=reader.close)
    closing.start()
    closing.join(0.05)
    assert made.closed_at == -1  # the thread is still at chunk 1
    made.may_go_on.set()
    closing.join(10.0)
    assert made.closed_at == made.last == 1
    assert not any(t.name.startswith("streamlearn-decode") for t in threading.enumerate())


def test_one_core_decodes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = Made(1)
    assert isinstance(ahead(made), _partitions.Ahead)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert ahead(made) is made
