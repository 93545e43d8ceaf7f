"""Categories to numbers: one column a value, or hashed into buckets. m = columns of the output.

cats (c,) are the columns of X that hold codes; slots (c, widest) the output column of each code, -1
for a code without one; room (c,) how many more columns a category may open; shared (c,) the column
of the codes that found no room, -1 before the first.
"""

import numpy as np

from streamlearn.jit._compile import F8, I8, U1, kernel
from streamlearn.jit.scale import any_infinite

PASSED = -1  # in `layout`: no code, a number that is passed on


@kernel
def slot_of(slots: I8, c: int, code: float) -> int:
    """Output column of a code that is not NaN, or -1; what is no code has none."""
    return slots[c, int(code)] if 0.0 <= code < slots.shape[1] else -1


@kernel
def opens(x: F8, first: F8, cats: I8, slots: I8, room: I8, shared: I8) -> bool:
    """Whether the row x (d,) opens a column after the row first (d,), NaN for none, did so."""
    for c in range(cats.shape[0]):
        code, before = x[cats[c]], first[cats[c]]
        if np.isnan(code) or code == before or slot_of(slots, c, code) >= 0:
            continue
        left, sharing = room[c], shared[c] >= 0
        if not np.isnan(before) and slot_of(slots, c, before) < 0:
            left, sharing = left - 1, sharing or left == 0
        if left > 0 or not sharing:
            return True
    return False


@kernel
def next_opening(
    X: F8, weight: F8, mode: U1, cats: I8, slots: I8, room: I8, shared: I8, start: int
) -> tuple[bool, int]:
    """Whether row `start` opens a column, and the next row that opens a further one, or n.

    X (n, d) | weight, mode (n,). Rows that are not learnt open none. O(rows walked * (c + d)).
    """
    none = np.full(X.shape[1], np.nan)
    fresh = False
    for t in range(start, X.shape[0]):
        if (mode[t] & 4) == 0 or not weight[t] > 0.0:
            continue
        first = X[start] if fresh else none
        if opens(X[t], first, cats, slots, room, shared) and not any_infinite(X[t]):
            if t > start:
                return fresh, t
            fresh = True
    return fresh, X.shape[0]


@kernel
def one_hot_run(X: F8, layout: I8, cats: I8, slots: I8, shared: I8, out: F8) -> None:
    """Numbers passed on, and 1 in the column of each code; a code without a column leaves zeros.

    X (n, d) | layout (m, 2): column of X, code or PASSED | out (n, m) written. O(n m).
    """
    for t in range(X.shape[0]):
        for k in range(layout.shape[0]):
            out[t, k] = X[t, layout[k, 0]] if layout[k, 1] == PASSED else 0.0
        for c in range(cats.shape[0]):
            code = X[t, cats[c]]
            if not np.isnan(code):
                slot = slot_of(slots, c, code)
                slot = shared[c] if slot < 0 else slot
                if slot >= 0:
                    out[t, slot] = 1.0


@kernel
def hash_run(X: F8, targets: I8, buckets: I8, signs: F8, first: int, out: F8) -> None:
    """Numbers passed on, and the sign of each code added to its bucket.

    X (n, d) | targets (d,) the output column of a number, or -1 - c for the c-th category |
    buckets, signs (c, codes) | first, the column of bucket 0 | out (n, m) written. O(n m).
    """
    for t in range(X.shape[0]):
        out[t] = 0.0
        for j in range(X.shape[1]):
            if targets[j] >= 0:
                out[t, targets[j]] = X[t, j]
            elif 0.0 <= X[t, j] < buckets.shape[1]:  # false for NaN, and for what is no code
                c, code = -1 - targets[j], int(X[t, j])
                out[t, first + buckets[c, code]] += signs[c, code]
