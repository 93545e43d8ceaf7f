"""Marks by which threads tell each other what is taken."""

from typing import TYPE_CHECKING, Any

import numba

from streamlearn.jit._compile import I8

if TYPE_CHECKING or numba.config.DISABLE_JIT:
    import threading

    _alone = threading.Lock()

    def exchange(marks: I8, place: int, mark: int) -> int:
        """Put a mark at a place and return what stood there, in one step.

        Who finds a mark sees all that was written before it. marks (m,) in/out, shared by threads.
        """
        with _alone:
            before, marks[place] = int(marks[place]), mark
            return before

else:
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def exchange(context: Any, marks: Any, place: Any, mark: Any) -> Any:
        """Put a mark at a place and return what stood there, in one step.

        Who finds a mark sees all that was written before it. marks (m,) in/out, shared by threads.
        """

        def emit(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = target.make_array(signature.args[0])(target, builder, arguments[0])
            at = cgutils.get_item_pointer(
                target, builder, signature.args[0], made, [arguments[1]], wraparound=False
            )
            return builder.atomic_rmw("xchg", at, arguments[2], "acq_rel")

        return types.int64(marks, types.int64, types.int64), emit
