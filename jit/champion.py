"""Evidence that one of two models is the better one: a bet on every row on which they differ.

Both sides are bet on at once. A wealth is a non-negative martingale, or less, while its side is not
the better one, so by Ville's inequality the chance that it ever reaches 1/alpha is at most alpha.
"""

import math

from streamlearn.jit._compile import F8, kernel

# places in `evidence`: log wealth of the bets on the challenger and on the champion; rows since the
# restart on which only the champion, only the challenger was right; sum and number of the losses
# that scale a difference
BETTER, WORSE, NEGATIVE, POSITIVE, TOTAL, ROWS = 0, 1, 2, 3, 4, 5
N_EVIDENCE = 6


@kernel
def weigh(
    champion: F8, challenger: F8, evidence: F8, bet: float, bound: float, scaled: bool
) -> int:
    """Take rows up to and including the first after which a wealth has reached its bound.

    champion, challenger (n,) losses, NaN where a row says nothing | evidence (N_EVIDENCE,) in/out |
    bound: of the log wealth. scaled: differences are divided by the mean loss of the rows before
    and cut off at 1 in size; else losses are 0 or 1. Returns the row or -1. O(n), no allocation.
    """
    for t in range(champion.shape[0]):
        difference = champion[t] - challenger[t]
        if not math.isfinite(difference):
            continue
        if scaled:
            mean = evidence[TOTAL] / evidence[ROWS] if evidence[ROWS] > 0.0 else 0.0
            evidence[TOTAL] += 0.5 * champion[t] + 0.5 * challenger[t]
            evidence[ROWS] += 1.0
            difference = difference / mean if mean > 0.0 else 0.0
            difference = min(1.0, max(-1.0, difference))
        if difference == 0.0:
            continue
        evidence[POSITIVE if difference > 0.0 else NEGATIVE] += 1.0
        evidence[BETTER] += math.log1p(bet * difference)
        evidence[WORSE] += math.log1p(-bet * difference)
        if evidence[BETTER] >= bound or evidence[WORSE] >= bound:
            return t
    return -1
