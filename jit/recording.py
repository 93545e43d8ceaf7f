"""What a report draws: moments of sampled rows, and counts of their codes, by bin of events."""

from streamlearn.jit._compile import F8, I8, kernel

SEEN, MEAN, MOMENT, MISSING = 0, 1, 2, 3  # columns of moments
HUGE = 1e150  # what is larger counts as missing: its square would not stay finite


def sampled_run_body(rows: F8, bins: I8, slots: I8, moments: F8, codes: I8) -> None:
    """Add every row to its bin, in order.

    rows (n, c) | bins (n,) | slots (c,): where a column of codes is counted, -1 for a number
    moments (B, c, 4) in/out: values, their mean, their sum of squares around it (Welford), missing
    codes (B, s, k) in/out: rows by code; codes from k - 1 on are counted together. O(n c).
    """
    last = codes.shape[2] - 1
    for t in range(rows.shape[0]):
        b = bins[t]
        for j in range(rows.shape[1]):
            x = rows[t, j]
            if not abs(x) <= HUGE:
                moments[b, j, MISSING] += 1.0
                continue
            moments[b, j, SEEN] += 1.0
            if slots[j] >= 0:
                if x >= 0.0:
                    codes[b, slots[j], last if x >= last else int(x)] += 1
                continue
            e = x - moments[b, j, MEAN]
            moments[b, j, MEAN] += e / moments[b, j, SEEN]
            moments[b, j, MOMENT] += e * (x - moments[b, j, MEAN])


sampled_run = kernel(sampled_run_body)
