"""Adaptive conformal intervals and sets: a rank among recent scores, at a level that moves.

W = scores remembered, M = targets, C = classes. A score says how strange a label was, >= 0; the
answer covers all labels whose score is at most a radius: the score of rank 1 - alpha among the
last W, where alpha follows the errors.
"""

import math

from streamlearn.jit._compile import F8, U1, kernel, part

PREDICT, LEARN = 1, 2
HUGE = 1e150  # a score beyond it is none
DAMPING = 0.5  # rate times delay: measured stable up to 10, with ever wider intervals
CREDIT = 50.0  # rows covered beyond what was asked for that are given back: 1 % of 5,000
MOST = 1000.0  # doublings, more than any number stands
SEEN, LEVEL, LAG, KNOWN, REJECTED, JUDGED, COVERED, BOUNDLESS, SIZE = range(9)
N_SCALARS = 9
COVERAGE, GAMMA, EXACT, MAKE_UP = range(4)
RADIUS, WHEN, AIM, N_SET, CLASSES = range(5)
"""Logged at scoring: the radius, labels learnt by then, and the share of errors expected of the
answer; of sets their size, and known classes."""
N_NUMBERS, N_CLASSES = 3, 5  # of these are logged for a target, and for a set
CODES = 100_000.0  # a label beyond it is no class code


@part
def radius_of(scores: F8, s: F8, p: F8) -> float:
    """The radius of now: scores (W,) ascending as far as known, s (N_SCALARS,), p settings.

    Infinite until so many scores are known that the rank exists. At a level below 0 the largest
    score is doubled for each error that brought the level there. Where labels are late it grows to
    twice itself at most, at level -2 alpha: the scores themselves say soon enough how far to go,
    and doublings without a label in between were measured to reach a million times the largest.
    """
    m = min(int(s[SEEN]), scores.shape[0])
    if (m + 1) * p[COVERAGE] > m:
        return math.inf
    if s[LEVEL] < 0.0:
        unit, most = p[GAMMA] * p[COVERAGE], MOST
        if s[LAG] > 0.0:
            unit, most = 2.0 * (1.0 - p[COVERAGE]), 1.0
        largest = scores[m - 1]
        return largest * 2.0 ** min(-s[LEVEL] / unit, most) if largest > 0.0 else math.inf
    rank = math.ceil((m + 1) * (1.0 - s[LEVEL]))
    return scores[min(rank, m) - 1] if rank >= 1 else 0.0


@part
def place_of(scores: F8, m: int, score: float) -> int:
    """How many of the first m scores, ascending, are smaller than this one."""
    low, high = 0, m
    while low < high:
        middle = (low + high) // 2
        if scores[middle] < score:
            low = middle + 1
        else:
            high = middle
    return low


@part
def remember(ring: F8, scores: F8, s: F8, score: float) -> None:
    """Put a score in the place of the oldest: ring (W,) in order of time, scores (W,) ascending."""
    W, seen = ring.shape[0], int(s[SEEN])
    slot = seen % W
    full = seen >= W
    hole = place_of(scores, W, ring[slot]) if full else seen
    while hole > 0 and scores[hole - 1] > score:
        scores[hole] = scores[hole - 1]
        hole -= 1
    while full and hole < W - 1 and scores[hole + 1] < score:
        scores[hole] = scores[hole + 1]
        hole += 1
    scores[hole] = score
    ring[slot] = score
    s[SEEN] += 1.0


@part
def aim_of(s: F8) -> float:
    """Share of errors that is expected of what is answered now."""
    return float(min(max(s[LEVEL], 0.0), 1.0))


@part
def adapt(ring: F8, scores: F8, s: F8, p: F8, score: float, issued: F8, covered: bool) -> None:
    """Move the level by one label, judged by what was issued at its scoring; remember its score.

    issued (3,): radius, labels learnt by then, and aim; whether it covered the label. A late label
    is set against the aim of its own answer, and answers whose label is still to come against the
    aim asked for: what they are expected to make up for is not asked for again (a Smith predictor),
    so the loop does not swing though errors come late. What is to be made up for is bounded, and
    what is given back by less: errors that shrink, as of a model that learns, are no debt.
    """
    radius, alpha = issued[RADIUS], 1.0 - p[COVERAGE]
    s[LAG] = max(s[SEEN] - issued[WHEN], s[LAG] - 1.0, 0.0)  # missing labels shorten no delay
    s[JUDGED] += 1.0
    if radius == math.inf:
        s[BOUNDLESS] += 1.0
    elif not (radius == 0.0 and score == 0.0):  # a point cannot be made narrower
        rate, owed = p[GAMMA], alpha - (0.0 if covered else 1.0)
        if s[LAG] > 0.0:
            rate = min(rate, DAMPING / s[LAG])
            owed += issued[AIM] - aim_of(s)
        moved = s[LEVEL] + rate * owed
        if s[LAG] > 0.0:
            reach = p[MAKE_UP] * rate
            moved = min(max(moved, alpha - reach), alpha + min(reach, CREDIT * rate))
        s[LEVEL] = min(moved, 1.0)
    remember(ring, scores, s, score)


@kernel
def cover_numbers(
    rows: tuple[F8, F8, F8, F8, U1], then: F8, state: tuple[F8, F8, F8], p: F8,
    out: tuple[F8, F8, F8],
) -> None:  # fmt: skip
    """Intervals for rows in order, and what their labels teach.

    rows: answers, scales and targets (n, M), weight and mode (n,) | then (n, 3 M): what was issued,
    NaN where now is then | state: ring and scores (M, W), scalars (M, N_SCALARS), in/out | p |
    out: lower, upper (n, M), issued (n, 3 M), written. O(M (log W + W / 8)), allocates nothing.
    """
    answers, scales, y, weight, mode = rows
    ring, scores, s = state
    lower, upper, issued = out
    n, M = y.shape
    for t in range(n):
        for j in range(M):
            radius = radius_of(scores[j], s[j], p)
            off = radius * scales[t, j] if radius < math.inf else math.nan
            lower[t, j], upper[t, j] = answers[t, j] - off, answers[t, j] + off
            now = issued[t, N_NUMBERS * j : N_NUMBERS * (j + 1)]
            now[RADIUS], now[WHEN], now[AIM] = radius, s[j, SEEN], aim_of(s[j])
        if (mode[t] & LEARN) == 0 or not weight[t] > 0.0:
            continue
        for j in range(M):
            if math.isnan(y[t, j]) or math.isnan(answers[t, j]):
                continue
            score = abs(y[t, j] - answers[t, j]) / scales[t, j]
            if not score < HUGE:
                s[j, REJECTED] += 1.0
                continue
            late = not math.isnan(then[t, N_NUMBERS * j + RADIUS])
            said = (then if late else issued)[t, N_NUMBERS * j : N_NUMBERS * (j + 1)]
            if said[RADIUS] < math.inf:
                s[j, SIZE] += 2.0 * said[RADIUS] * scales[t, j]
            covered = score <= said[RADIUS]
            s[j, COVERED] += covered
            adapt(ring[j], scores[j], s[j], p, score, said, covered)


@part
def cover(P: F8, known: int, p: F8, radius: float, covered: U1) -> int:
    """The set of one row, and its size: P (C,) probabilities, covered (C,) written.

    Never empty, unless that is exact; all known classes where there is no bound; empty where there
    is no answer.
    """
    best, size = 0, 0
    if P.shape[0] == 0 or math.isnan(P[0]):
        covered[:] = 0
        return 0
    for k in range(P.shape[0]):
        covered[k] = 1 if k < known and not 1.0 - P[k] > radius else 0
        size += covered[k]
        best = k if P[k] > P[best] else best
    if size == 0 and known > 0 and p[EXACT] == 0.0:
        covered[best] = 1
        size = 1
    return size


@part
def judge(state: tuple[F8, F8, F8], p: F8, P: F8, label: int, issued: F8) -> None:
    """One label: P (C,) and issued (5,) of then; state ring, scores (1, W), scalars (1, N_SCALARS).

    The score is 1 - P of the label, and 2 for a class that was unknown. What is counted as covered
    is the set as shown; the level goes by the set before it was kept from being empty.
    """
    ring, scores, s = state[0][0], state[1][0], state[2][0]
    score = 1.0 - P[label] if label < issued[CLASSES] else 2.0
    covered = score <= issued[RADIUS] and score <= 1.0
    best = score <= 1.0
    for k in range(P.shape[0]):
        best = best and P[k] <= P[label]
    s[COVERED] += 1.0 if covered or (best and issued[N_SET] == 1.0 and p[EXACT] == 0.0) else 0.0
    s[SIZE] += issued[N_SET]
    adapt(ring, scores, s, p, score, issued, covered)


@kernel
def cover_classes(
    rows: tuple[F8, F8, F8, U1], then: F8, state: tuple[F8, F8, F8], p: F8, out: tuple[U1, F8]
) -> None:
    """Sets for rows in order, and what their labels teach.

    rows: probabilities (n, C), NaN where there was no answer, y, weight and mode (n,) | then
    (n, 5): what was issued, NaN where now is then | state: ring and scores (1, W), scalars
    (1, N_SCALARS), in/out | p | out: sets (n, C), issued (n, 5), written.
    O(C + log W + W / 8), allocates nothing.
    """
    P, y, weight, mode = rows
    s = state[2][0]
    covered, issued = out
    n, C = P.shape
    for t in range(n):
        known = int(s[KNOWN])
        for k in range(known, C):
            known = k + 1 if P[t, k] > 0.0 else known
        issued[t, RADIUS], issued[t, WHEN] = radius_of(state[1][0], s, p), s[SEEN]
        issued[t, AIM] = aim_of(s)
        issued[t, N_SET] = cover(P[t], known, p, issued[t, RADIUS], covered[t])
        issued[t, CLASSES] = known
        if (mode[t] & LEARN) == 0 or not weight[t] > 0.0 or math.isnan(y[t]):
            continue
        if not 0.0 <= y[t] < CODES:
            s[REJECTED] += 1.0
            continue
        if C > 0 and not math.isnan(P[t, 0]):
            judge(state, p, P[t], int(y[t]), issued[t] if math.isnan(then[t, 0]) else then[t])
        s[KNOWN] = max(s[KNOWN], math.floor(y[t]) + 1.0)
