"""The direction of imports between the rooms, and how long a function may be."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ("streamlearn.block", "streamlearn.contracts", "streamlearn.errors")
MAY_IMPORT = {  # beside the standard library; a name stands for all below it
    "jit": ("numpy", "streamlearn.jit"),
    "operators": (*CONTRACTS, "numpy", "river.base", "streamlearn.jit", "streamlearn.operators"),
    "connectors": (
        *CONTRACTS,
        *("numpy", "pyarrow", "msgspec", "river"),
        *("streamlearn.connectors", "streamlearn.durable"),
        *("streamlearn.schema", "streamlearn.schema_cells", "streamlearn.schema_columns"),
        "streamlearn.schema_text",
    ),
}
ELSEWHERE = {  # the only files that may import more, and what
    "jit/_compile.py": ("numba",),
    "jit/claim.py": ("numba",),
    "jit/lanes.py": ("numba",),
    "jit/prefetch.py": ("numba", "llvmlite"),
    "jit/cuda/_compile.py": ("numba",),
    "operators/_torch.py": ("torch",),
    "connectors/kafka/kafka_python.py": ("kafka",),
    "connectors/kafka/confluent.py": ("confluent_kafka",),
    "connectors/kafka/member_confluent.py": ("confluent_kafka",),
    "connectors/kafka/member_kafka_python.py": ("kafka",),
    "connectors/kafka/avro.py": ("fastavro",),
    "connectors/kafka/protobuf.py": ("google.protobuf",),
    "connectors/kafka/registry.py": ("confluent_kafka",),
}
MAX_LINES = 60


def sources(room: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def is_below(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == a or name.startswith(f"{a}.") for a in allowed)


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions() -> Iterator[tuple[str, int]]:
    """Place and body length of every function of the package."""
    for room in ("streamlearn", *MAY_IMPORT):
        for path in sources(room):
            for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield f"{path}:{node.lineno} {node.name}", body_lines(node)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    wrong = []
    for path in sources(room):
        allowed = MAY_IMPORT[room] + ELSEWHERE.get(path, ())
        for line, name in imported(ast.parse((ROOT / path).read_text("utf-8"))):
            standard = name.partition(".")[0] in sys.stdlib_module_names
            if not standard and not is_below(name, allowed):
                wrong.append(f"{path}:{line} imports {name}")
    assert not wrong


def test_numba_is_known_to_the_kernels_alone() -> None:
    for path in sources("streamlearn"):
        for line, name in imported(ast.parse((ROOT / path).read_text("utf-8"))):
            assert not is_below(name, ("numba",)), f"{path}:{line} imports {name}"


def test_no_function_is_long() -> None:
    """Median at most 10 lines, nine in ten at most 30, none over 60."""
    lengths = dict(functions())
    assert not {place: n for place, n in lengths.items() if n > MAX_LINES}
    assert statistics.median(lengths.values()) <= 10
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 30
