"""Cells of CSV and JSON Lines to numbers and codes, straight from the bytes.

Plain text alone: decimal numbers of at most 18 digits, cells without quotes or line ends in them,
objects without nesting. Whatever else is met, nothing is read: the caller has slower ways that know
it all. Numbers are correctly rounded (Clinger 1990; Lemire 2021, Number parsing at a gigabyte per
second), so their bits are those of any other correct parser.

A text is uint8 and ends with a line end. Records come out as rows of
    out = table (n, m) float64, NaN: missing | codes (n, k) int64, -1: missing | stamps (m + k,)
of which text column j has the values number 0, 1, … in order of first appearance in
    words = slots (k, S) int64, 0: free, else value + 1 | starts, lengths (k, S / 2) | counts (k,)
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.jit._compile import F8, I8, U1, kernel, part

U8 = NDArray[np.uint64]
SLOTS = 1024
LEAST, MOST = -290, 270  # powers of ten whose table is kept
Words = tuple[I8, I8, I8, I8]
Missing = tuple[U1, I8, int]
Powers = tuple[F8, U8, U8]
Out = tuple[F8, I8, I8]

_LINE, _RETURN, _QUOTE, _BACKSLASH = 10, 13, 34, 92
_MINUS, _PLUS, _POINT, _ZERO, _NINE = 45, 43, 46, 48, 57
_32, _1, _LOW = np.uint64(32), np.uint64(1), np.uint64(0xFFFFFFFF)


def powers() -> Powers:
    """10^0 … 10^22 as floats; upper and lower halves of 10^LEAST … 10^MOST in 128 bits."""
    upper, lower = [], []
    for q in range(LEAST, MOST + 1):
        five = 5 ** abs(q)
        if q >= 0:
            shift = 128 - five.bit_length()
            digits = five << shift if shift >= 0 else five >> -shift
        else:  # rounded up
            digits = (1 << (five.bit_length() + 127)) // five + 1
            digits >>= digits.bit_length() - 128
        upper.append(digits >> 64)
        lower.append(digits & (2**64 - 1))
    tens = np.array([float(10**q) for q in range(23)])
    return tens, np.array(upper, dtype=np.uint64), np.array(lower, dtype=np.uint64)


@part
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Upper and lower half of a product of 64 by 64 bits."""
    a1, a0, b1, b0 = a >> _32, a & _LOW, b >> _32, b & _LOW
    low, middle, other = a0 * b0, a1 * b0, a0 * b1
    carry = (low >> _32) + (middle & _LOW) + (other & _LOW)
    return a1 * b1 + (middle >> _32) + (other >> _32) + (carry >> _32), a * b


@part
def _rounded(w: int, q: int, upper: U8, lower: U8) -> float:
    """w 10^q, 0 < w < 2^63, correctly rounded."""
    lz, m = 0, np.uint64(w)
    for step in (32, 16, 8, 4, 2, 1):
        if m >> np.uint64(64 - step) == np.uint64(0):
            m, lz = m << np.uint64(step), lz + step
    high, low = _product(m, upper[q - LEAST])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _product(m, lower[q - LEAST])
        low = low + more
        if more > low:
            high = high + _1
    top = high >> np.uint64(63)
    shift = top + np.uint64(9)
    kept = high >> shift
    exact = low <= _1 and -4 <= q <= 23 and kept & np.uint64(3) == _1
    if exact and kept << shift == high:  # half way: to even
        kept = kept & ~_1
    kept = (kept + (kept & _1)) >> _1
    power = ((217706 * q) >> 16) + 63 + np.int64(top) - lz
    return math.ldexp(np.float64(np.int64(kept)), int(power) - 52)


@part
def _number(text: U1, at: int, by: Powers, strict: bool) -> tuple[float, int]:
    """The decimal number that begins here, and where it ends; -1 where there is none of ours.

    strict: as JSON has it, without zeros at its beginning; -0 is an integer there, which has no
    sign.
    """
    tens, upper, lower = by
    i, q = at, 0
    w: Any = 0
    negative = text[i] == _MINUS
    i += 1 if negative else 0
    first = i
    while _ZERO <= text[i] <= _NINE:
        w = w * 10 + (np.int64(text[i]) - _ZERO)
        i += 1
    digits = i - first
    if digits == 0 or (strict and digits > 1 and text[first] == _ZERO):
        return 0.0, -1
    if text[i] == _POINT:
        point = i + 1
        i = point
        while _ZERO <= text[i] <= _NINE:
            w = w * 10 + (np.int64(text[i]) - _ZERO)
            i += 1
        q = point - i
        digits -= q
        if q == 0:
            return 0.0, -1
    if digits > 18:
        k = first
        while digits > 18 and (text[k] == _ZERO or text[k] == _POINT):
            digits -= 1 if text[k] == _ZERO else 0
            k += 1
        if digits > 18:
            return 0.0, -1
    if text[i] == 101 or text[i] == 69:
        i += 1
        less = text[i] == _MINUS
        i += 1 if less or text[i] == _PLUS else 0
        begun = i
        e: Any = 0
        while _ZERO <= text[i] <= _NINE and e < 10_000:
            e = e * 10 + (np.int64(text[i]) - _ZERO)
            i += 1
        if i == begun:
            return 0.0, -1
        q += -e if less else e
    value = 0.0
    if w < 2**53 and -22 <= q <= 22:
        value = np.float64(w) * tens[q] if q >= 0 else np.float64(w) / tens[-q]
    elif w > 0:
        if not LEAST <= q <= MOST:
            return 0.0, -1
        value = _rounded(w, q, upper, lower)
    if strict and w == 0 and i == first + 1:
        return 0.0, i
    return -value if negative else value, i


@part
def _value(text: U1, start: int, stop: int, column: int, words: Words) -> int:
    """The number of a value of a text column; -1 where there are too many."""
    slots, starts, lengths, counts = words
    place: Any = 0
    for i in range(start, stop):
        place = (place * 31 + np.int64(text[i])) & 0xFFFFFFFF
    place = (place ^ (place >> 10)) % SLOTS
    while slots[column, place] > 0:
        found: int = slots[column, place] - 1
        if lengths[column, found] == stop - start:
            k, first = 0, starts[column, found]
            while k < stop - start and text[first + k] == text[start + k]:
                k += 1
            if k == stop - start:
                return found
        place = place + 1 if place + 1 < SLOTS else 0
    new: int = counts[column]
    if new >= SLOTS // 2:
        return -1
    counts[column] = new + 1
    slots[column, place] = new + 1
    starts[column, new], lengths[column, new] = start, stop - start
    return new


# -- CSV -------------------------------------------------------------------------------------------


@part
def _cell(text: U1, at: int, delimiter: int) -> tuple[int, int, int]:
    """Begin and end of what a cell says, and where the cell ends; -1 where it is not plain."""
    i = at
    if text[at] == _QUOTE:
        i += 1
        while text[i] != _QUOTE and text[i] != _LINE:
            i += 1
        return at + 1, i, i + 1 if text[i] == _QUOTE else -1
    while text[i] != delimiter and text[i] != _LINE and text[i] != _RETURN:
        i += 1
    return at, i, i


@part
def _is_one_of(text: U1, start: int, stop: int, tokens: U1, ends: I8) -> bool:
    """Whether a cell is one of the tokens, which stand one after the other."""
    first = 0
    for t in range(ends.shape[0]):
        if ends[t] - first == stop - start:
            k = 0
            while k < stop - start and tokens[first + k] == text[start + k]:
                k += 1
            if k == stop - start:
                return True
        first = ends[t]
    return False


@kernel
def csv_cells(
    text: U1, roles: I8, delimiter: int, missing: Missing, by: Powers, words: Words, out: Out
) -> int:
    """Records of a CSV text into the rows of out. Returns how many, or -1.

    roles (fields,): j for column j of the table, -2 - j for column j of the codes, -1: not wanted.
    missing: the cells that say that there is no number, one after the other; their ends; how many
    of them, the first, may be numbers themselves.
    """
    table, codes, _ = out
    numbers = missing[1][: missing[2]]
    n, i, t = text.shape[0], 0, 0
    while i < n:
        if text[i] == _LINE or (text[i] == _RETURN and text[i + 1] == _LINE):
            i += 1 if text[i] == _LINE else 2
            continue
        for c in range(roles.shape[0]):
            end = -1
            if roles[c] >= 0:
                table[t, roles[c]], end = _number(text, i, by, False)
                if end >= 0 and _is_one_of(text, i, end, missing[0], numbers):
                    table[t, roles[c]] = math.nan
            if end < 0 or (text[end] != delimiter and text[end] > _RETURN):
                start, stop, end = _cell(text, i, delimiter)
                if end < 0:
                    return -1
                if roles[c] >= 0:
                    if not _is_one_of(text, start, stop, missing[0], missing[1]):
                        return -1
                    table[t, roles[c]] = math.nan
                elif roles[c] < -1:
                    j = -2 - roles[c]
                    codes[t, j] = _value(text, start, stop, j, words)
                    if codes[t, j] < 0:
                        return -1
            i = end
            if c + 1 == roles.shape[0]:
                i += 1 if text[i] == _RETURN else 0
                if text[i] != _LINE:
                    return -1
            elif text[i] != delimiter:
                return -1
            i += 1
        t += 1
    return t


# -- JSON Lines ------------------------------------------------------------------------------------


@part
def _blanks(text: U1, at: int) -> int:
    i = at
    while text[i] == 32 or text[i] == 9:
        i += 1
    return i


@part
def _end_of_string(text: U1, at: int, plain: bool) -> int:
    """Behind the string that begins here; -1 where there is none. plain: of ASCII, unescaped."""
    if text[at] != _QUOTE:
        return -1
    i = at + 1
    while text[i] != _QUOTE:
        if text[i] < 32 or (plain and (text[i] == _BACKSLASH or text[i] > 126)):
            return -1
        if text[i] == _BACKSLASH:
            i += 1
            if text[i] < 32:
                return -1
        i += 1
    return i + 1


@part
def _end_of_word(text: U1, at: int) -> int:
    """Behind true, false or null; -1 where there is none."""
    for word in ((116, 114, 117, 101, 0), (110, 117, 108, 108, 0), (102, 97, 108, 115, 101)):
        length = 5 if word[4] > 0 else 4
        k = 0
        while k < length and text[at + k] == word[k]:
            k += 1
        if k == length:
            return at + length
    return -1


@part
def _end_of_scalar(text: U1, at: int, by: Powers, plain: bool) -> int:
    """Behind the string, number, true, false or null that begins here; -1 where there is none."""
    if text[at] == _QUOTE:
        return _end_of_string(text, at, plain)
    if text[at] > 96:
        return _end_of_word(text, at)
    _, stop = _number(text, at, by, True)
    return stop


@part
def _same(text: U1, at: int, names: U1, first: int, last: int) -> bool:
    """Whether the string that begins here is a name."""
    k = 0
    while first + k < last and text[at + 1 + k] == names[first + k]:
        k += 1
    return first + k == last and text[at + 1 + k] == _QUOTE


@part
def _member(text: U1, at: int, names: U1, ends: I8, guess: int) -> int:
    """Which name the key that begins here is; -1: none of them."""
    if guess >= 0 and _same(text, at, names, ends[guess - 1] if guess > 0 else 0, ends[guess]):
        return guess
    for j in range(ends.shape[0]):
        if j != guess and _same(text, at, names, ends[j - 1] if j > 0 else 0, ends[j]):
            return j
    return -1


@part
def _take(text: U1, at: int, j: int, t: int, by: Powers, words: Words, out: Out) -> int:
    """A value of column j into row t; returns where it ends, or -1."""
    table, codes, stamps = out
    m = table.shape[1]
    if stamps[j] == t + 1:
        return -1  # a key that comes twice
    stamps[j] = t + 1
    if text[at] == 110:  # null
        return _end_of_word(text, at)
    if j < m:
        table[t, j], stop = _number(text, at, by, True)
        return stop
    stop = _end_of_scalar(text, at, by, False)
    if stop >= 0:
        codes[t, j - m] = _value(text, at, stop, j - m, words)
        if codes[t, j - m] < 0:
            return -1
    return stop


@part
def _object(
    text: U1, at: int, t: int, names: U1, ends: I8, order: I8, by: Powers, words: Words, out: Out
) -> int:
    """The members of an object, from behind its brace, into row t. Returns where it ends, or -1."""
    i, p = _blanks(text, at), 0
    if text[i] == 125:
        return i + 1
    while True:
        guess = order[p] if p < order.shape[0] else -1
        j = _member(text, i, names, ends, guess) if text[i] == _QUOTE else -1
        if p < order.shape[0]:
            order[p] = j
        stop = i + (ends[j] - (ends[j - 1] if j > 0 else 0)) + 2 if j >= 0 else -1
        if j < 0:
            stop = _end_of_string(text, i, True)
        if stop < 0:
            return -1
        i = _blanks(text, stop)
        if text[i] != 58:
            return -1
        i = _blanks(text, i + 1)
        i = _take(text, i, j, t, by, words, out) if j >= 0 else _end_of_scalar(text, i, by, True)
        if i < 0:
            return -1
        i, p = _blanks(text, i), p + 1
        if text[i] == 125:
            return i + 1
        if text[i] != 44:
            return -1
        i = _blanks(text, i + 1)


@kernel
def json_cells(text: U1, names: tuple[U1, I8, I8], by: Powers, words: Words, out: Out) -> int:
    """Objects, one a line, into the rows of out. Returns how many, or -1.

    names: those of the table's columns, then those of the codes', one after the other; their ends;
    order (P,), in/out, which of them was the p-th of an object. table and codes come in as missing.
    """
    n, i, t = text.shape[0], 0, 0
    while i < n:
        if text[i] == _LINE or (text[i] == _RETURN and text[i + 1] == _LINE):
            i += 1 if text[i] == _LINE else 2
            continue
        if text[i] != 123:
            return -1
        i = _object(text, i + 1, t, names[0], names[1], names[2], by, words, out)
        if i < 0:
            return -1
        i = _blanks(text, i)
        i += 1 if text[i] == _RETURN else 0
        if text[i] != _LINE:
            return -1
        i, t = i + 1, t + 1
    return t
