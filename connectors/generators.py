"""Our own drifting streams, with known drift points: `drift:abrupt?n=40000&at=9000,20000`."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from streamlearn.block import F8
from streamlearn.connectors._partitions import Partition, PartitionedSource
from streamlearn.connectors.parquet_files import BatchReader
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.schema import Schema

ROWS = 4096  # rows drawn at a time; part of what a seed means
NAMES = ("abrupt", "gradual", "recurring")


@dataclass(frozen=True)
class DriftStream:
    """A stream of d features in [0, 1] whose target rests on a plane that changes at known rows.

    Concept k has unit normal w_k. Classification: y = 1 where w_k . (x - 1/2) > 0, flipped with
    probability `noise`. Regression: y = w_k . x plus normal noise of standard deviation `noise`.
    abrupt: the concept changes from row `at[i]` on. gradual: around at[i], row t follows the new
    one with probability 1 / (1 + exp(-4 (t - at[i]) / width)) (the sigmoid of MOA, Bifet et al.
    2010). recurring: abrupt, between two concepts only.
    Random numbers are counter-based (Philox): row t depends on seed and t alone, whatever n is.
    Cost: about 40 ns a row and feature.
    """

    kind: str = "abrupt"
    n: int = 40_000
    at: tuple[int, ...] = ()
    width: int = 1000
    d: int = 4
    noise: float = 0.0
    seed: int = 0
    task: str = "classification"

    @property
    def drift_points(self) -> tuple[int, ...]:
        """Rows from (gradual: around) which another concept holds; quarters of n by default."""
        return self.at or tuple(self.n * k // 4 for k in (1, 2, 3))

    @property
    def known_drifts(self) -> list[tuple[int, int]]:
        """First and last row of each change: gradual ones reach width // 2 rows to both sides."""
        half = self.width // 2 if self.kind == "gradual" else 0
        return [(max(0, row - half), row + half) for row in self.drift_points]

    def check(self) -> "DriftStream":
        """The stream itself; UserError for a value out of range."""
        rules = [
            ("kind", self.kind in NAMES, f"one of {', '.join(NAMES)}"),
            ("n", self.n >= 1, ">= 1"), ("d", self.d >= 1, ">= 1"),
            ("width", self.width >= 1, ">= 1"),
            ("noise", self.noise >= 0, ">= 0"), ("seed", self.seed >= 0, ">= 0"),
            ("at", list(self.at) == sorted({*self.at}) and min(self.at, default=0) >= 0, "rising"),
            ("task", self.task in ("classification", "regression"), "classification or regression"),
        ]  # fmt: skip
        for name, good, rule in rules:
            if not good:
                raise UserError(
                    f"drift:{self.kind}: {name} must be {rule}, got {getattr(self, name)}"
                )
        return self

    def schema(self) -> Schema:
        """Features x0, x1, …, target y."""
        features = dict.fromkeys((f"x{j}" for j in range(self.d)), "number")
        table = {"target": "y", "task": self.task, "features": features}
        if self.task == "classification":
            table["classes"] = "integer"
        return Schema.from_config(table)

    def weights(self, concept: int) -> F8:
        """The unit normal (d,) of a concept."""
        if self.kind == "recurring":
            concept %= 2
        key = np.random.Philox(key=np.array([self.seed, 1 + concept], dtype=np.uint64))
        w: F8 = np.random.Generator(key).standard_normal(self.d)
        w /= np.sqrt(np.sum(w * w))
        return w

    def rows(self, piece: int) -> tuple[F8, F8]:
        """Features (n, d) and target (n,) of rows piece * ROWS and on."""
        start = piece * ROWS
        bits = np.random.Philox(
            key=np.array([self.seed, 0], dtype=np.uint64), counter=[0, 0, piece, 0]
        )
        random = np.random.Generator(bits)
        X, mix = random.random((ROWS, self.d)), random.random((ROWS, 2))
        noise = random.standard_normal(ROWS)
        concept = self._concepts(np.arange(start, start + ROWS), mix[:, 0])
        table = np.array([self.weights(k) for k in range(len(self.drift_points) + 1)])
        centred = X - 0.5 if self.task == "classification" else X
        score = np.zeros(ROWS)
        for j in range(self.d):  # term by term: the same bits on every machine
            score += table[concept, j] * centred[:, j]
        if self.task == "regression":
            y = score + self.noise * noise
        else:
            y = ((score > 0) ^ (mix[:, 1] < self.noise)).astype(np.float64)
        n = min(ROWS, self.n - start)
        return X[:n], y[:n]

    def _concepts(self, t: Any, mix: F8) -> Any:
        """The concept of each row."""
        points = np.array(self.drift_points)
        if self.kind != "gradual":
            return np.searchsorted(points, t, side="right")
        z = np.clip(4.0 * (t[:, None] - points) / self.width, -700.0, 700.0)
        return (mix[:, None] < 1.0 / (1.0 + np.exp(-z))).sum(axis=1)

    def batches(self, row: int) -> Iterator[pa.RecordBatch]:
        """The rows from a row on, as Arrow batches."""
        for piece in range(row // ROWS, -(-self.n // ROWS)):
            X, y = self.rows(piece)
            target = y.astype(np.int64) if self.task == "classification" else y
            columns = {f"x{j}": np.ascontiguousarray(X[:, j]) for j in range(self.d)} | {
                "y": target
            }
            yield pa.RecordBatch.from_pydict(columns).slice(max(0, row - piece * ROWS))


def drift_stream(name: str, options: dict[str, str]) -> DriftStream:
    """The stream of a name and of options in text; UserError for what it does not take."""
    stream = DriftStream(kind=name)
    known = {f.name: type(getattr(stream, f.name)) for f in fields(stream) if f.name != "kind"}
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in known:
            raise UserError(
                f"drift:{name}: there is no option {key!r}; it takes {', '.join(known)}"
            )
        try:
            values[key] = _numbers(text) if known[key] is tuple else known[key](text)
        except ValueError:
            raise UserError(f"drift:{name}: {key} must be a number, got {text!r}") from None
    return replace(stream, **values).check()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


class DriftSource(PartitionedSource):
    """A `DriftStream` as a source; `drift_points` and `known_drifts` say where concepts change."""

    def __init__(self, stream: DriftStream, schema: Schema | None = None) -> None:
        self.stream = stream.check()
        self.drift_points = stream.drift_points
        self.known_drifts = stream.known_drifts
        schema = schema or stream.schema()
        guarantee = "generated: every row is a function of seed and row number; resumes exactly"
        name = f"drift:{stream.kind}"
        super().__init__(schema, [Partition(name, self._reader_at)], name, guarantee)

    def _reader_at(self, position: Json) -> BatchReader:
        row = 0 if position is None else int(position["row"])
        name = f"drift:{self.stream.kind}"
        return BatchReader(self.stream.batches(row), self.schema, name, row)
