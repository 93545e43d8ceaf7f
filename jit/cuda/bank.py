"""Banks on the device: a block of events over many keys in one launch, order within a key kept.

A key's record (see `jit.bank`, whose steps these are) stands at its key's place in a hash table. A
launch enters new keys and finds each row's place; sorts the rows by place, stably; and gives each
key's rows, in order, to one thread. Where a record stands depends on which thread came first, what
it holds does not. Rows without a record, which only ask, share the blank one.

    rows  = X (n, d) | y (n, 1) | weight (n,) | mode (n,) uint8 | keys (n,) int64, none of them FREE
    table = keys (2^i,) int64, FREE where there is none | records (2^i + 1, stride), the last blank
    sort  = places and rows, twice (n,) int64 | counts (BINS (tiles + 1),) int64
    fixed = settings p | s counters of `jit.bank`, then ENTERED and KNOWN; COUNT is of rows
    out   = mean (n, 1) | variance (n, 1) | seen (n or 0, d); or prob (n, K) | class (n, 1) | seen
"""

import math
from typing import Any

import numpy as np

from streamlearn.jit import bank, lift, rls, triangle
from streamlearn.jit._compile import F8, I8
from streamlearn.jit.bank import HEAD
from streamlearn.jit.cuda._compile import SIMULATED, cuda, kernel, part

FREE = int(np.iinfo(np.int64).min) + 1  # in a table: no key
THREADS = 4 if SIMULATED else 128
RUN = 2 if SIMULATED else 16  # rows in a row that a thread sorts
TILE = THREADS * RUN
BITS = 4  # of a place, sorted by at a time
BINS = 1 << BITS
MAX_D, MAX_K = 33, 32  # coordinates and outputs that the scratch of a thread has room for
ENTERED, KNOWN = bank.N_COUNTERS, bank.N_COUNTERS + 1  # places in s: keys, classes
_WORK = 2 * MAX_D + 3 * MAX_K
_PREDICT, _LEARN, _ACTIVE = 1, 2, 6


# -- places ----------------------------------------------------------------------------------------


@part
def find(keys: I8, key: int, enters: bool, s: F8) -> Any:
    """The place of a key, which is entered if it may be; else that of the blank record."""
    size = keys.shape[0]
    at = np.int64(bank.home(key, size))
    while True:
        found = keys[at]
        if found == FREE:
            if not enters:
                return size
            found = cuda.atomic.cas(keys, at, FREE, key)
            if found == FREE:
                cuda.atomic.add(s, ENTERED, 1.0)
                return at
        if found == key:
            return at
        at = (at + 1) & (size - 1)


@part
def tally(tile: int, places: I8, shift: int, counts: Any) -> None:
    """counts (BINS, THREADS) <- rows of the tile with a digit in runs before a thread's own."""
    own, n = cuda.threadIdx.x, places.shape[0]
    for b in range(BINS):
        counts[b, own] = 0
    first = tile * TILE + own * RUN
    for i in range(first, min(first + RUN, n)):
        counts[(places[i] >> shift) & (BINS - 1), own] += 1
    cuda.syncthreads()


@part
def sort_once(shift: int, places: I8, rows: I8, to_places: I8, to_rows: I8, counts: I8) -> None:
    """Sort rows by BITS bits of their places, stably. All blocks."""
    mine = cuda.shared.array((BINS, THREADS), np.int32)
    n, own, grid = places.shape[0], cuda.threadIdx.x, cuda.cg.this_grid()
    tiles = (n + TILE - 1) // TILE
    for tile in range(cuda.blockIdx.x, tiles, cuda.gridDim.x):
        tally(tile, places, shift, mine)
        for b in range(own, BINS, THREADS):
            total = 0
            for i in range(THREADS):
                total += mine[b, i]
            counts[b * tiles + tile] = total
        cuda.syncthreads()
    grid.sync()
    if cuda.blockIdx.x == 0:
        for b in range(own, BINS, THREADS):
            total = 0
            for tile in range(tiles):
                here = counts[b * tiles + tile]
                counts[b * tiles + tile] = total
                total += here
            counts[BINS * tiles + b] = total
        cuda.syncthreads()
        if own == 0:
            total = 0
            for b in range(BINS):
                here = counts[BINS * tiles + b]
                counts[BINS * tiles + b] = total
                total += here
    grid.sync()
    for tile in range(cuda.blockIdx.x, tiles, cuda.gridDim.x):
        tally(tile, places, shift, mine)
        for b in range(own, BINS, THREADS):
            at = counts[BINS * tiles + b] + counts[b * tiles + tile]
            for i in range(THREADS):
                here = mine[b, i]
                mine[b, i] = at
                at += here
        cuda.syncthreads()
        first = tile * TILE + own * RUN
        for i in range(first, min(first + RUN, n)):
            b = (places[i] >> shift) & (BINS - 1)
            to_places[mine[b, own]], to_rows[mine[b, own]] = places[i], rows[i]
            mine[b, own] += 1
        cuda.syncthreads()
    grid.sync()


# -- one row ---------------------------------------------------------------------------------------


@part
def begin(t: int, rows: Any, record: F8, K: int, p: F8, s: F8, f: F8, seen: F8) -> int:
    """What all walks share of row t, up to its features: the code of its lesson."""
    X, y, weight, mode, _ = rows
    bits = mode[t]
    label = lift.read_label(t, y, K) if bits & _LEARN else lift.EMPTY
    if bits & _ACTIVE:
        record[bank.SEEN] = s[bank.COUNT] + t + 1.0
    bank.show_seen(t, X, record, max(K, 1), seen)
    code = bank.lift_row(record, X[t], f, label, weight[t], bits, max(K, 1), p)
    if bits & _LEARN and (code == lift.SKIP or code == lift.REJECT):
        cuda.atomic.add(s, bank.REFUSED, 1.0)
    if code >= 0 or code == lift.TARGET:
        cuda.atomic.add(s, bank.LESSONS, 1.0)
    return code


@part
def project(record: F8, f: F8, K: int, work: F8) -> None:
    """u = A f and W f, in work. O(D^2 + K D)."""
    D = f.shape[0]
    bank.weigh(record, f, K, work)
    triangle.rows_product(record[HEAD + 3 * K + 2 * (D - 1) + K * D :], 0, D, f, work)


@part
def kalman_learn(record: F8, f: F8, noise: float, K: int, p: F8, work: F8) -> None:
    """A lesson to which the record has adapted. O(D^2 + K D)."""
    D = f.shape[0]
    root, g2, floor = bank.kalman_correct(record, f, noise, K, p, work)
    A = record[HEAD + 3 * K + 2 * (D - 1) + K * D :]
    triangle.rows_update(A, 0, D, work, root, g2, 1.0)
    bank.kalman_floor(record, D, K, floor, p)


@part
def rls_learn(record: F8, D: int, K: int, root: float, p: F8, work: F8) -> None:
    """What is left of a lesson of least squares when the weights have had it. O(D^2)."""
    A = record[HEAD + 3 * K + 2 * (D - 1) + K * D :]
    triangle.rows_update(A, 0, D, work, root, 1.0, 1.0 / p[rls.LAM])
    bank.rls_keep(record, D, K, p, work)


def _step_number(least: bool) -> Any:
    """The step of a number: by recursive least squares, or else by a Kalman head."""

    @part
    def step(t: int, rows: Any, record: F8, p: F8, s: F8, f: F8, work: F8, out: Any) -> None:
        """Row t."""
        code, bits = begin(t, rows, record, 0, p, s, f, out[2]), rows[3][t]
        y, weight = rows[1][t, 0], rows[2][t]
        mean, variance = math.nan, math.nan
        if code != lift.SKIP:
            project(record, f, 1, work)
            if least:
                mean, variance, root = bank.rls_target(record, f, y, weight, bits, code, p, work)
                if code == lift.TARGET:
                    rls_learn(record, f.shape[0], 1, root, p, work)
            else:
                mean, variance, noise = bank.kalman_target(
                    record, f, y, weight, bits, code, p, work
                )
                if noise > 0.0:
                    kalman_learn(record, f, noise, 1, p, work)
        out[0][t, 0] = mean if bits & _PREDICT else math.nan
        out[1][t, 0] = variance if bits & _PREDICT else math.nan

    return step


def _step_class(least: bool) -> Any:
    """The step of a class: by recursive least squares, or else by a Kalman head."""

    @part
    def step(t: int, rows: Any, record: F8, p: F8, s: F8, f: F8, work: F8, out: Any) -> None:
        """Row t."""
        K, D = out[0].shape[1], f.shape[0]
        code, bits, best = begin(t, rows, record, K, p, s, f, out[2]), rows[3][t], -1
        if code != lift.SKIP:
            project(record, f, K, work)
            if least:
                best = bank.rls_answer(record, D, K, p, work)
            else:
                best = bank.kalman_answer(record, f, K, p, work)
        shown = bits & _PREDICT and code != lift.SKIP
        for k in range(K):
            out[0][t, k] = math.nan
            if shown or record[bank.HEAD + k] == 0.0:
                out[0][t, k] = work[2 * D + 2 * K + k] if shown else 0.0
        out[1][t, 0] = float(best) if shown and best >= 0 else math.nan
        if not least and code == lift.EMPTY and bits & _LEARN:
            record[bank.GAP] += 1.0
        if code < 0:
            return
        cuda.atomic.max(s, KNOWN, code + 1.0)
        if least:
            bank.judge_class(record, f, code, K, work, best)
            root = bank.rls_class(record, f, code, rows[2][t], K, p, work)
            rls_learn(record, D, K, root, p, work)
        else:
            noise = bank.meet_class(record, f, code, rows[2][t], K, p, work, best)
            kalman_learn(record, f, noise, K, p, work)

    return step


# -- a block ---------------------------------------------------------------------------------------


def _walker(step: Any) -> Any:
    """The kernel of one kind of record."""

    @part
    def take(places: I8, order: I8, rows: Any, records: F8, fixed: Any, out: Any) -> None:
        """Each key's rows, in order, by one thread."""
        f, work = cuda.local.array(MAX_D, np.float64), cuda.local.array(_WORK, np.float64)
        n, D, blank = order.shape[0], rows[0].shape[1] + 1, records.shape[0] - 1
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            place = places[i]
            if i > 0 and places[i - 1] == place and place != blank:
                continue
            j = i
            while j < n and places[j] == place and (j == i or place != blank):
                step(order[j], rows, records[place], fixed[0], fixed[1], f[:D], work, out)
                j += 1

    @kernel
    def walk(rows: Any, table: Any, sort: Any, fixed: Any, out: Any) -> None:
        keys, mode, grid, s = rows[4], rows[3], cuda.cg.this_grid(), fixed[1]
        a, to, counts = sort[0], sort[1], sort[4]
        b, other = sort[2], sort[3]
        for t in range(cuda.grid(1), keys.shape[0], cuda.gridsize(1)):
            to[t] = t
            if mode[t] & _ACTIVE:
                a[t] = find(table[0], keys[t], True, s)
        grid.sync()  # who only asks finds all keys, whichever thread was first
        for t in range(cuda.grid(1), keys.shape[0], cuda.gridsize(1)):
            if not mode[t] & _ACTIVE:
                a[t] = find(table[0], keys[t], False, s)
        grid.sync()
        shift = 0
        while table[0].shape[0] >> shift > 0:
            sort_once(shift, a, to, b, other, counts)
            a, to, b, other = b, other, a, to
            shift += BITS
        take(a, to, rows, table[1], fixed, out)
        grid.sync()
        if cuda.grid(1) == 0:
            s[bank.COUNT] += keys.shape[0]

    return walk


walk_kalman = _walker(_step_number(least=False))
walk_rls = _walker(_step_number(least=True))
walk_classes = _walker(_step_class(least=False))
walk_rls_classes = _walker(_step_class(least=True))


@kernel
def clear(keys: I8, records: F8, blank: F8) -> None:
    """An empty table."""
    size, stride = keys.shape[0], blank.shape[0]
    for i in range(cuda.grid(1), (size + 1) * stride, cuda.gridsize(1)):
        records[i // stride, i % stride] = blank[i % stride]
        if i < size:
            keys[i] = FREE


@kernel
def enter(keys: I8, rows: F8, table: I8, records: F8, s: F8) -> None:
    """Records (m, stride) of keys (m,), FREE for none, into a table in which they are new."""
    for i in range(cuda.grid(1), keys.shape[0], cuda.gridsize(1)):
        if keys[i] != FREE:
            at = find(table, keys[i], True, s)
            for k in range(rows.shape[1]):
                records[at, k] = rows[i, k]
