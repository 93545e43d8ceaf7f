"""A hint to the processor: this row of an array will be needed soon."""

from typing import TYPE_CHECKING, Any

import numba

from streamlearn.jit._compile import F8, I8

_LINE = 8  # float64 or int64 in a cache line

if TYPE_CHECKING or numba.config.DISABLE_JIT:

    def prefetch_row(array: F8 | I8, row: int) -> None:
        """Start to load the cache lines of array[row]; row must be one. Changes nothing."""

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch_line(context: Any, array: Any, row: Any, column: Any) -> Any:
        """Start to load the cache line of array[row, column], for writing."""

        def emit(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = target.make_array(signature.args[0])(target, builder, arguments[0])
            place = cgutils.get_item_pointer(
                target, builder, signature.args[0], made, list(arguments[1:]), wraparound=False
            )
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            arguments = [word(1), word(3), word(1)]  # to be written, in all caches, data
            builder.call(hint, [builder.bitcast(place, byte), *arguments])
            return target.get_dummy_value()

        return types.void(array, row, column), emit

    @numba.njit(nogil=True, forceinline=True, no_cpython_wrapper=True, _nrt=False)
    def prefetch_row(array: Any, row: int) -> None:
        """Start to load the cache lines of array[row]; row must be one. Changes nothing."""
        for column in range(0, array.shape[1], _LINE):
            prefetch_line(array, row, column)
        prefetch_line(array, row, array.shape[1] - 1)  # rows need not begin where lines do
