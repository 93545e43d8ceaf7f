"""What a report draws: moments of sampled rows, and counts of their codes, by bin of events."""

import math

from streamlearn.jit._compile import F8, I8, kernel

SEEN, MEAN, MOMENT, MISSING = 0, 1, 2, 3  # columns of moments
HUGE = 1e150  # what is larger counts as missing: its square would not stay finite


def sampled_run_body(
    number: I8, at: int, first: int, last: int, rows: I8, answer: F8, y: F8, X: F8, width: int,
    slots: I8, moments: F8, codes: I8,
) -> int:  # fmt: skip
    """Add every sampled event before `last` to its bin, in order; the next one to sample.

    number (m,): of the events to sample, ascending, from place `at` on; event `first` stands in row
    0, or in row rows[0] where rows (n,) are given | answer, y (n,), or (0,) for none | X (n, d)
    slots (c,), of answer, y and the columns of X: where codes are counted, -1 for a number
    moments (B, c, 4) in/out: values, their mean, their sum of squares around it (Welford), missing
    codes (B, s, k) in/out: rows by code; codes from k - 1 on are counted together. O(m c)
    """
    top, known = codes.shape[2] - 1, min(X.shape[1], slots.shape[0] - 2)
    while at < number.shape[0] and number[at] < last:
        t = number[at] - first
        t = rows[t] if rows.shape[0] > 0 else t
        b = number[at] // width
        for j in range(slots.shape[0]):
            x = math.nan
            if j >= 2:
                x = X[t, j - 2] if j - 2 < known else x
            elif j == 0:
                x = answer[t] if answer.shape[0] > 0 else x
            elif y.shape[0] > 0:
                x = y[t]
            if not abs(x) <= HUGE:
                moments[b, j, MISSING] += 1.0
                continue
            moments[b, j, SEEN] += 1.0
            if slots[j] >= 0:
                if x >= 0.0:
                    codes[b, slots[j], top if x >= top else int(x)] += 1
                continue
            e = x - moments[b, j, MEAN]
            moments[b, j, MEAN] += e / moments[b, j, SEEN]
            moments[b, j, MOMENT] += e * (x - moments[b, j, MEAN])
        at += 1
    return at


sampled_run = kernel(sampled_run_body)
