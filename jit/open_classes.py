"""What classifiers share whose classes come with the stream: softmax, balance, calibration.

K is a capacity: a class is known where seen[k] > 0; what is not known yet has probability 0.
"""

import math

from streamlearn.jit._compile import F8, part

LOG_ALPHA_MIN, LOG_ALPHA_MAX = math.log(0.1), math.log(100.0)
LEAST_INFORMATION = 0.01  # Fisher information of log alpha below which it is known too badly


@part
def softmax(score: F8, seen: F8, factor: float, prob: F8) -> int:
    """prob <- softmax(factor score) over the known classes. Returns argmax score, or -1. O(K)."""
    K = seen.shape[0]
    best = -1
    for k in range(K):
        if seen[k] > 0.0 and (best < 0 or score[k] > score[best]):
            best = k
    total = 0.0
    for k in range(K):
        prob[k] = 0.0
        if seen[k] > 0.0:
            prob[k] = math.exp(factor * (score[k] - score[best]))
            total += prob[k]
    for k in range(K):
        if best >= 0:
            prob[k] /= total
    return best


@part
def step(value: float, slope: float, rate: float, low: float, high: float) -> float:
    """value + rate clip(slope, -1, 1), clipped to [low, high]; a slope that is NaN is no step."""
    if slope != slope:
        return value
    return min(max(value + rate * min(max(slope, -1.0), 1.0), low), high)


@part
def step_log_alpha(log_alpha: float, score: F8, prob: F8, c: int, rate: float) -> float:
    """log alpha after one step up the log probability of class c; p = softmax(alpha score). O(K).

    d log p_c / d log alpha = alpha (score_c - p'score).
    """
    lead = score[c]
    for k in range(prob.shape[0]):
        lead -= prob[k] * score[k] if prob[k] > 0.0 else 0.0
    slope = math.exp(log_alpha) * lead
    return step(log_alpha, slope, rate, LOG_ALPHA_MIN, LOG_ALPHA_MAX)


@part
def natural_step(
    log_alpha: float, information: float, slope: float, variance: float, rate: float
) -> tuple[float, float]:
    """log alpha and its information after one natural-gradient step up a log probability.

    slope = d log p_c / d log alpha = z_c - p'z, variance = Var_p(z), of the scaled scores z. The
    slope is over the running Fisher information, so it needs no clipping to be safe; clipped slopes
    cut the rare errors of a sure model and leave it too sure. A slope that is NaN is no step.
    """
    information += rate * (variance - information)
    move = rate * (slope / (information + LEAST_INFORMATION))
    return step(log_alpha, move, 1.0, LOG_ALPHA_MIN, LOG_ALPHA_MAX), information


@part
def calibrate(
    log_alpha: float, information: float, score: F8, prob: F8, c: int, rate: float
) -> tuple[float, float]:
    """`natural_step` for a label c, where p = softmax(alpha score). O(K)."""
    mean, square = 0.0, 0.0
    for k in range(prob.shape[0]):
        if prob[k] > 0.0:
            mean += prob[k] * score[k]
            square += prob[k] * score[k] * score[k]
    alpha = math.exp(log_alpha)
    variance = alpha * alpha * max(square - mean * mean, 0.0)
    return natural_step(log_alpha, information, alpha * (score[c] - mean), variance, rate)


@part
def balanced(seen: F8, c: int) -> float:
    """N / (C n_c): the factor by which a row of class c counts if all classes are to weigh alike.

    seen (K,): rows, or weight, learnt of each class, this row among them. O(K).
    """
    total = 0.0
    known = 0.0
    for k in range(seen.shape[0]):
        if seen[k] > 0.0:
            total += seen[k]
            known += 1.0
    return float(total / (known * seen[c]))
