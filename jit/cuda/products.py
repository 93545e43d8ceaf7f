"""Products of matrices by tiles in shared memory: each element one chain of fused additions.

A tile has TILE x TILE elements, MICRO x MICRO of each of the THREADS of a block; DEEP terms are
loaded at a time. Which tile, or place in it, an element falls into does not touch its bits.
"""

import numpy as np

from streamlearn.jit._compile import F8
from streamlearn.jit.cuda._compile import SIMULATED, cuda, part

EDGE = 2 if SIMULATED else 8
MICRO = 2 if SIMULATED else 4
DEEP = 3 if SIMULATED else 16
THREADS = EDGE * EDGE
TILE = EDGE * MICRO


@part
def load(
    M: F8, centre: F8 | None, row: int, rows: int, col: int, cols: int, turned: bool, into: F8
) -> None:
    """into (DEEP, TILE) <- the tile of M that begins at (row, col), 0 outside of rows and cols.

    turned: rows of M run along the tile, its columns are the terms; else the other way around.
    centre: what is taken off every row of M, if anything.
    """
    for at in range(cuda.threadIdx.x, DEEP * TILE, THREADS):
        term, place = (at % DEEP, at // DEEP) if turned else (at // TILE, at % TILE)
        i, j = (row + place, col + term) if turned else (row + term, col + place)
        inside = i < rows and j < cols
        value = M[i, j] if inside else 0.0
        if centre is not None:
            value -= centre[j] if inside else 0.0
        into[term, place] = value


@part
def multiply(left: F8, right: F8, sums: F8) -> None:
    """sums (MICRO, MICRO) of this thread += the DEEP terms of both tiles."""
    r, c = cuda.threadIdx.x // EDGE, cuda.threadIdx.x % EDGE
    for term in range(DEEP):
        for a in range(MICRO):
            x = left[term, r + a * EDGE]
            for b in range(MICRO):
                sums[a, b] = cuda.fma(x, right[term, c + b * EDGE], sums[a, b])


@part
def store(sums: F8, row: int, rows: int, col: int, cols: int, out: F8) -> None:
    """out <- this thread's elements of the tile at (row, col), those within rows and cols."""
    r, c = cuda.threadIdx.x // EDGE, cuda.threadIdx.x % EDGE
    for a in range(MICRO):
        for b in range(MICRO):
            i, j = row + r + a * EDGE, col + c + b * EDGE
            if i < rows and j < cols:
                out[i, j] = sums[a, b]


@part
def tiles(rows: int, cols: int) -> int:
    """Tiles of a (rows, cols) matrix."""
    return ((rows + TILE - 1) // TILE) * ((cols + TILE - 1) // TILE)


@part
def product(
    A: F8, centre: F8 | None, n: int, B: F8, m: int, turned: bool, tile: int, out: F8
) -> None:
    """One tile of out (n, m) <- A[:n] B, or, turned, A[:n] B[:m]'. All threads of a block.

    A (n, k) | centre (k,), taken off every row of A, or None | B (k, m), or (m, k) if turned.
    """
    left = cuda.shared.array((DEEP, TILE), np.float64)
    right = cuda.shared.array((DEEP, TILE), np.float64)
    sums = cuda.local.array((MICRO, MICRO), np.float64)
    across = (m + TILE - 1) // TILE
    row, col, k = tile // across * TILE, tile % across * TILE, A.shape[1]
    for a in range(MICRO):
        for b in range(MICRO):
            sums[a, b] = 0.0
    for term in range(0, k, DEEP):
        load(A, centre, row, n, term, k, True, left)
        if turned:
            load(B, None, col, m, term, k, True, right)
        else:
            load(B, None, term, k, col, m, False, right)
        cuda.syncthreads()
        multiply(left, right, sums)
        cuda.syncthreads()
    store(sums, row, n, col, m, out)
