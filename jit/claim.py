"""Numbers that threads take in turn: each is given once, whoever asks."""

from typing import TYPE_CHECKING, Any

import numba

from streamlearn.jit._compile import I8

if TYPE_CHECKING or numba.config.DISABLE_JIT:
    import threading

    _alone = threading.Lock()

    def claim(taken: I8) -> int:
        """taken[0], and one more for the next who asks. taken (1,) in/out, shared by threads."""
        with _alone:
            taken[0] += 1
            return int(taken[0]) - 1

else:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def claim(context: Any, taken: Any) -> Any:
        """taken[0], and one more for the next who asks. taken (1,) in/out, shared by threads."""

        def emit(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = target.make_array(signature.args[0])(target, builder, arguments[0])
            word = ir.IntType(64)
            place = cgutils.get_item_pointer(
                target, builder, signature.args[0], made, [word(0)], wraparound=False
            )
            return builder.atomic_rmw("add", place, word(1), "monotonic")

        return types.int64(taken), emit
