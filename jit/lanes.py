"""Vector code by explicit lanes: the only place that emits LLVM instead of leaving it to Numba.

LLVM vectorises neither a dot product (its order of additions is fixed) nor a tile that is to stay
in registers. Here a piece of a kernel is written once more as instructions on vectors of 8 float64:
`emitted` makes of it what other kernels call. Each lane of a vector is one chain of fused
multiply-adds in a written order, so its bits depend on neither its place nor its neighbours. Where
vectors are narrower than 8, LLVM splits them, which changes no bit.

With NUMBA_DISABLE_JIT=1 the twin in plain Python is what is called.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba.core.cgutils
from numba.core import types
from numba.extending import intrinsic

WIDE = 8  # lanes: one cache line of float64, one register with AVX-512

cgutils: Any = numba.core.cgutils
ir: Any = cgutils.ir
config: Any = numba.config
_NUMBER = ir.DoubleType()
_INDEX = ir.IntType(64)
_PLACE = ir.IntType(32)

Value = Any  # an LLVM value
Twin = TypeVar("Twin", bound=Callable[..., Any])


class Lanes:
    """Instructions on vectors, written one after the other."""

    def __init__(self, builder: Any, wide: int = WIDE) -> None:
        self._builder = builder
        self.wide = wide
        self._vector = ir.VectorType(_NUMBER, wide)

    # -- numbers and places ------------------------------------------------------------------------

    def index(self, i: int) -> Value:
        """A constant index."""
        return ir.Constant(_INDEX, i)

    def plus(self, i: Value, j: Value | int) -> Value:
        """i + j."""
        return self._builder.add(i, self.index(j) if isinstance(j, int) else j)

    def times(self, i: Value, j: Value | int) -> Value:
        """i j."""
        return self._builder.mul(i, self.index(j) if isinstance(j, int) else j)

    def minus_index(self, i: Value, j: Value) -> Value:
        """i - j."""
        return self._builder.sub(i, j)

    def over(self, i: Value, n: int) -> Value:
        """i / n, rounded down; i >= 0."""
        return self._builder.udiv(i, self.index(n))

    def at(self, pointer: Value, i: Value | int) -> Value:
        """The place of element i from a place on."""
        return self._builder.gep(pointer, [self.index(i) if isinstance(i, int) else i])

    @contextmanager
    def loop(self, start: Value, stop: Value) -> Iterator[Value]:
        """What is written within is repeated for every index."""
        with cgutils.for_range_slice(self._builder, start, stop, self.index(1), intp=_INDEX) as (
            i,
            _,
        ):
            yield i

    # -- vectors -----------------------------------------------------------------------------------

    def load(self, place: Value) -> Value:
        """8 elements from a place on."""
        return self._builder.load(self._builder.bitcast(place, self._vector.as_pointer()), align=8)

    def store(self, vector: Value, place: Value) -> None:
        """8 elements to a place."""
        place = self._builder.bitcast(place, self._vector.as_pointer())
        self._builder.store(vector, place, align=8)

    def load_first(self, place: Value, n: int) -> Value:
        """The first n elements from a place on, 0 in the other lanes."""
        vector = self.zero()
        for i, some, mask in self._pieces(n):
            kind = ir.VectorType(_NUMBER, some)
            piece = self._builder.load(
                self._builder.bitcast(self.at(place, i), kind.as_pointer()), align=8
            )
            wide = self._shuffle(piece, piece, [*range(some)] + [0] * (self.wide - some))
            vector = self._shuffle(vector, wide, mask)
        return vector

    def store_first(self, vector: Value, place: Value, n: int) -> None:
        """The first n elements to a place: what stands behind them is not touched."""
        for i, some, _ in self._pieces(n):
            piece = self._shuffle(vector, vector, [*range(i, i + some)])
            kind = ir.VectorType(_NUMBER, some)
            to = self._builder.bitcast(self.at(place, i), kind.as_pointer())
            self._builder.store(piece, to, align=8)

    def _pieces(self, n: int) -> Iterator[tuple[int, int, list[int]]]:
        """Powers of 2 that make n: begin, length, lanes of a vector with them put in."""
        i = 0
        while i < n:
            some = 1 << ((n - i).bit_length() - 1)
            new = range(i, i + some)
            yield i, some, [self.wide + k - i if k in new else k for k in range(self.wide)]
            i += some

    def _shuffle(self, a: Value, b: Value, lanes: list[int]) -> Value:
        mask = ir.Constant(ir.VectorType(_PLACE, len(lanes)), lanes)
        return self._builder.shuffle_vector(a, b, mask)

    def transposed(self, rows: list[Value]) -> list[Value]:
        """The columns of a square tile."""
        step = 1
        while step < self.wide:
            for i in range(self.wide):
                if not i & step:
                    a, b = rows[i], rows[i + step]
                    low = [k if not k & step else self.wide + k - step for k in range(self.wide)]
                    high = [k + step if not k & step else self.wide + k for k in range(self.wide)]
                    rows = [*rows]
                    rows[i], rows[i + step] = self._shuffle(a, b, low), self._shuffle(a, b, high)
            step *= 2
        return rows

    def mirrored(self, lower: list[Value]) -> list[Value]:
        """The rows of a symmetric tile, of which only those up to the diagonal are given."""
        upper = self.transposed(lower)
        lanes = range(self.wide)
        return [
            self._shuffle(lower[r], upper[r], [k if k <= r else self.wide + k for k in lanes])
            for r in lanes
        ]

    def store_total(self, vector: Value, place: Value) -> None:
        """The sum of all lanes, by pairs, to a place."""
        total = self.totals([vector] + [self.zero()] * (self.wide - 1))
        self._builder.store(
            self._builder.extract_element(total, ir.Constant(_PLACE, 0)), place, align=8
        )

    def spread(self, number: Value) -> Value:
        """One number in all lanes."""
        b = self._builder
        none = ir.Constant(self._vector, ir.Undefined)
        first = b.insert_element(none, number, ir.Constant(_PLACE, 0))
        return self._shuffle(first, none, [0] * self.wide)

    def spread_from(self, place: Value) -> Value:
        """The element at a place in all lanes."""
        return self.spread(self._builder.load(place))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """A b + c, rounded once."""
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        function = cgutils.get_or_insert_function(
            self._builder.module, kind, f"llvm.fma.v{self.wide}f64"
        )
        return self._builder.call(function, [a, b, c])

    def multiply(self, a: Value, b: Value) -> Value:
        """A b."""
        return self._builder.fmul(a, b)

    def minus(self, a: Value) -> Value:
        """-a."""
        return self._builder.fneg(a)

    def zero(self) -> Value:
        """0 in all lanes."""
        return ir.Constant(self._vector, [ir.Constant(_NUMBER, 0.0)] * self.wide)

    def variable(self, vector: Value | None = None) -> "Variable":
        """A vector that changes in a loop, 0 at first."""
        return Variable(self._builder, self.zero() if vector is None else vector)

    def totals(self, vectors: list[Value]) -> Value:
        """Lane j of the result: the sum of the lanes of vector j, by pairs in a fixed tree."""
        step = 1
        while len(vectors) > 1:
            vectors = [
                self._folded(vectors[i], vectors[i + 1], step) for i in range(0, len(vectors), 2)
            ]
            step *= 2
        return vectors[0]

    def _folded(self, a: Value, b: Value, step: int) -> Value:
        """Sums of neighbouring groups of `step` lanes: of a and of b by turns."""
        first = [
            side + i
            for group in range(0, self.wide, 2 * step)
            for side in (0, self.wide)
            for i in range(group, group + step)
        ]
        left, right = self._shuffle(a, b, first), self._shuffle(a, b, [i + step for i in first])
        return self._builder.fadd(left, right)

    def add(self, a: Value, b: Value) -> Value:
        """A + b."""
        return self._builder.fadd(a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        """A - b."""
        return self._builder.fsub(a, b)


class Variable:
    """A vector that changes in a loop."""

    def __init__(self, builder: Any, vector: Value) -> None:
        self._builder = builder
        self._place = cgutils.alloca_once(builder, vector.type)
        self.set(vector)

    def get(self) -> Value:
        """What it is now."""
        return self._builder.load(self._place)

    def set(self, vector: Value) -> None:
        """Change it."""
        self._builder.store(vector, self._place)


def emitted(write: Callable[..., None], wide: int = WIDE) -> Callable[[Twin], Twin]:
    """The twin, for kernels to call as the instructions that `write(lanes, *arguments)` writes.

    Arguments: arrays of float64, C-contiguous, which `write` gets as the place of their first
    element; whole numbers (int64) and floats. What is called returns nothing.
    """

    def typed(typing: Any, *given: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            plain = [
                context.make_array(kind)(context, builder, value).data
                if isinstance(kind, types.Array)
                else context.cast(builder, value, kind, _as_word(kind))
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            write(Lanes(builder, wide), *plain)
            return context.get_dummy_value()

        return types.void(*given), generate

    def decorate(twin: Twin) -> Twin:
        if config.DISABLE_JIT:
            return twin
        own = inspect.signature(twin)
        named = [inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        cast(Any, typed).__signature__ = own.replace(
            parameters=named + list(own.parameters.values())
        )
        typed.__name__ = twin.__name__
        return cast(Twin, intrinsic(typed))

    return decorate


def _as_word(kind: Any) -> Any:
    """A whole number as int64."""
    return types.int64 if isinstance(kind, types.Integer) else kind
