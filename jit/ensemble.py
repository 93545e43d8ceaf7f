"""Mixtures and votes of experts: exponentiated gradient in log space, row by row.

Letters as in Zhang et al. (2023), arXiv 2309.12659 (OneNet): u long-term weights on the simplex,
b short-term bias of their logits. n rows, J experts, K classes, M targets
(one for classes); an answer that is NaN is none: that expert sleeps for the row.

A walker takes four tuples of arrays, float64 and C-contiguous unless said:
    rows  = P (n, J, K) probabilities | y (n,) | weight (n,) | mode (n,) uint8
            F (n, J, M) answers | V (n, J, M) variances, NaN: none | y (n, M) | weight | mode
    state = log u (M, J) | running (3, M, J): loss, weight seen, rows slept | b (M, J)
            target (3, M): weight seen, mean, variance | net (3, N): weights and Adam's two moments
            | s (N_SCALARS,)
    fixed = settings p (N_SETTINGS,) | work `work_shape(J, …)` scratch
    out   = answer (n, K or M) | side (n, 1 or M): probabilities and class, or mean and variance
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.feature_drift import unit_draw
from streamlearn.jit.open_classes import LOG_ALPHA_MAX, LOG_ALPHA_MIN, balanced
from streamlearn.jit.random_features import tanh_inplace

LOG_ALPHA, LEARNT, STEPS, REJECTED, N_SCALARS = range(5)  # places in s
(ETA, SHARE, DISCOUNT, LOG_SCORE, SCALE, CORRECT, LR_ALPHA, N_SETTINGS) = range(8)  # places in p
HIDDEN = 32  # units of each of the two hidden layers of the short-term network
_PREDICT, _LEARN = 1, 2
_MEMORY = 0.01  # rate of the running loss
_TARGET_MEMORY = 0.001  # rate of a target's running mean and variance
_PULL = 10.0  # root mean squared errors of the leader that another may move the mixture by
_CAP = 10.0  # a scaled loss beyond it counts as this
_WILD = 100.0  # a loss beyond so many times the running one moves that one as this
_LEAST_PART = 1e-6  # of a target's variance: losses below are as good as none
_LEAST_LOG = 0.01  # the same for log losses
_LEAST_P = 1e-3  # a probability below it counts as this in a loss
_WORST = 1e9  # a loss that is not scaled and beyond it counts as this
_RATE, _B1, _B2, _EPS = 1e-3, 0.9, 0.999, 1e-8  # of Adam
_REACH = 10.0  # inputs of the short-term network are clipped to it
_HUGE = 1e150  # a target beyond it counts as infinite, an answer as none: their squares are
# slope of log alpha; a narrower clip makes mixtures of noisy labels too sharp, and natural steps as
# in `open_classes` were no better (mean log loss over seven tuning streams 0.2370 against 0.2356)
_STEEPEST = -20.0
CODES = 100_000.0  # a label beyond it is no class code
# rows of work: shares, losses, scratch, slopes of both hidden layers, and of the network
_V, _L, _Z, _G1, _G2, _H1, _H2, INPUT, ANSWERS, BIAS, GRADIENT, _ROWS = range(12)

Rows = tuple[F8, F8, F8, U1]
NumberRows = tuple[F8, F8, F8, F8, U1]
State = tuple[F8, F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8]
Out = tuple[F8, F8]


def network_size(J: int) -> int:
    """Weights of the short-term network: J + 1 inputs, two hidden layers, J outputs."""
    return (J + 2) * HIDDEN + (HIDDEN + 1) * HIDDEN + (HIDDEN + 1) * J


def work_shape(J: int, correct: bool) -> tuple[int, int]:
    """Scratch that a walker needs."""
    return _ROWS, max(J + 1, HIDDEN, network_size(J) if correct else 0)


# -- weights of experts ----------------------------------------------------------------------------


@part
def log_sum(logu: F8, m: int, awake: F8, everyone: bool) -> float:
    """log sum exp of channel m's log weights, of the experts that are awake (not NaN) or all."""
    top = -np.inf
    for j in range(logu.shape[1]):
        if everyone or awake[j] == awake[j]:
            top = max(top, logu[m, j])
    total = 0.0
    for j in range(logu.shape[1]):
        if everyone or awake[j] == awake[j]:
            total += math.exp(logu[m, j] - top)
    return top + math.log(total)


@part
def step_weights(logu: F8, m: int, losses: F8, p: F8, eta: float) -> None:
    """log u <- discount log u - eta losses, normalised, then fixed share. O(J).

    losses (J,): NaN for an expert that sleeps: those awake share what they had before.
    """
    J = logu.shape[1]
    best = np.inf
    for j in range(J):
        if losses[j] < best:
            best = losses[j]
    if best < np.inf:
        if p[LOG_SCORE] > 0.0:
            for j in range(J):
                logu[m, j] *= p[DISCOUNT]
        before = log_sum(logu, m, losses, False)
        for j in range(J):
            if losses[j] == losses[j]:
                logu[m, j] -= eta * (losses[j] - best)
        gain = before - log_sum(logu, m, losses, False)
        for j in range(J):
            if losses[j] == losses[j]:
                logu[m, j] += gain
    total = log_sum(logu, m, losses, True)
    for j in range(J):
        logu[m, j] -= total
        if p[SHARE] > 0.0:
            logu[m, j] = math.log((1.0 - p[SHARE]) * math.exp(logu[m, j]) + p[SHARE] / J)


@part
def shares(logu: F8, b: F8, m: int, awake: F8, v: F8) -> bool:
    """v <- exp(log u + b), normalised over the experts awake, else 0; whether any is. O(J)."""
    J = logu.shape[1]
    top = -np.inf
    for j in range(J):
        if awake[j] == awake[j]:
            top = max(top, logu[m, j] + b[m, j])
    total = 0.0
    for j in range(J):
        v[j] = math.exp(logu[m, j] + b[m, j] - top) if awake[j] == awake[j] else 0.0
        total += v[j]
    for j in range(J):
        v[j] /= total if total > 0.0 else 1.0
    return total > 0.0


@part
def scale_losses(running: F8, m: int, losses: F8, weight: float, floor: float, p: F8) -> None:
    """Learn the running losses of channel m, then losses <- min(losses / their mean, 10). O(J).

    floor: what a running mean is at least; an expert that sleeps (NaN) learns nothing.
    """
    J = losses.shape[0]
    before = mean_loss(running, m, J)
    for j in range(J):
        loss = min(losses[j], _WILD * max(before, floor)) if before > 0.0 else losses[j]
        if loss < np.inf and losses[j] == losses[j]:
            running[1, m, j] += weight
            slow = 1.0 - math.exp(weight * math.log1p(-_MEMORY))
            rate = max(slow, weight / running[1, m, j])
            running[0, m, j] += rate * (loss - running[0, m, j])
    scale = max(mean_loss(running, m, J), floor)
    for j in range(J):
        if losses[j] != losses[j]:
            running[2, m, j] += 1.0
        elif p[SCALE] == 0.0:
            losses[j] = min(losses[j], _WORST)
        else:
            losses[j] = min(losses[j] / scale, _CAP) if scale > 0.0 else 0.0


@part
def mean_loss(running: F8, m: int, J: int) -> float:
    """Mean running loss of the experts of channel m that have one, else 0."""
    total, count = 0.0, 0.0
    for j in range(J):
        if running[1, m, j] > 0.0:
            total += running[0, m, j]
            count += 1.0
    return total / count if count > 0.0 else 0.0


# -- the short-term correction ---------------------------------------------------------------------


@part
def layer(net: F8, at: int, x: F8, n_in: int, out: F8, n_out: int) -> int:
    """out <- W x + bias, of the layer whose biases, then weights (n_in, n_out), begin at `at`."""
    for i in range(n_out):
        out[i] = net[0, at + i]
    at += n_out
    for k in range(n_in):
        for i in range(n_out):
            out[i] += net[0, at + k * n_out + i] * x[k]
    return at + n_in * n_out


@part
def layer_gradient(
    net: F8, at: int, x: F8, n_in: int, slope: F8, n_out: int, G: F8, below: F8
) -> None:
    """Add d loss / d weights of a layer to G; below <- d loss / d x. slope: d loss / d output."""
    for i in range(n_out):
        G[at + i] += slope[i]
    at += n_out
    for k in range(n_in):
        total = 0.0
        for i in range(n_out):
            G[at + k * n_out + i] += x[k] * slope[i]
            total += net[0, at + k * n_out + i] * slope[i]
        below[k] = total


@kernel
def bias_gradient(net: F8, logu: F8, m: int, target: float, M: int, work: F8) -> float:
    """Bias of channel m and the gradient of its squared error by the network's weights.

    work rows: R (J + 1,) input | Y (J,) answers, NaN: asleep | B (J,) bias, out | G gradient, added
    to. The error is (v'Y - target)^2 / M with v = softmax(log u + bias). Returns it.
    O(J HIDDEN + HIDDEN^2), allocates nothing.
    """
    J = logu.shape[1]
    r, h1, h2, b, y, v = work[INPUT], work[_H1], work[_H2], work[BIAS], work[ANSWERS], work[_V]
    second = layer(net, 0, r, J + 1, h1, HIDDEN)
    tanh_inplace(h1[:HIDDEN], work[_Z])
    third = layer(net, second, h1, HIDDEN, h2, HIDDEN)
    tanh_inplace(h2[:HIDDEN], work[_Z])
    layer(net, third, h2, HIDDEN, b, J)
    top, total, o = -np.inf, 0.0, 0.0
    for j in range(J):
        if y[j] == y[j]:
            top = max(top, logu[m, j] + b[j])
    for j in range(J):
        v[j] = math.exp(logu[m, j] + b[j] - top) if y[j] == y[j] else 0.0
        total += v[j]
    for j in range(J):
        v[j] /= total
        o += v[j] * y[j] if v[j] > 0.0 else 0.0
    g2, g1 = work[_G2], work[_G1]
    for j in range(J):
        slope = 2.0 * (o - target) * v[j] * (y[j] - o) / M if v[j] > 0.0 else 0.0
        work[_Z, j] = min(max(slope, -1.0), 1.0)
    layer_gradient(net, third, h2, HIDDEN, work[_Z], J, work[GRADIENT], g2)
    for i in range(HIDDEN):
        g2[i] *= 1.0 - h2[i] * h2[i]
    layer_gradient(net, second, h1, HIDDEN, g2, HIDDEN, work[GRADIENT], g1)
    for i in range(HIDDEN):
        g1[i] *= 1.0 - h1[i] * h1[i]
    layer_gradient(net, 0, r, J + 1, g1, HIDDEN, work[GRADIENT], work[_Z])
    return (o - target) * (o - target) / M


@part
def adam(net: F8, gradient: F8, s: F8) -> None:
    """One step of Adam (Kingma and Ba 2015); the gradient is cleared. O(network)."""
    s[STEPS] += 1.0
    first = 1.0 / (1.0 - math.exp(s[STEPS] * math.log(_B1)))
    second = 1.0 / (1.0 - math.exp(s[STEPS] * math.log(_B2)))
    for i in range(net.shape[1]):
        g = gradient[i]
        net[1, i] = _B1 * net[1, i] + (1.0 - _B1) * g
        net[2, i] = _B2 * net[2, i] + (1.0 - _B2) * g * g
        net[0, i] -= _RATE * net[1, i] * first / (math.sqrt(net[2, i] * second) + _EPS)
        gradient[i] = 0.0


@part
def network_input(logu: F8, m: int, target: float, work: F8) -> bool:
    """R <- (u_j Y_j, target), clipped; whether any expert has answered."""
    J = logu.shape[1]
    any_awake = False
    for j in range(J):
        value = work[ANSWERS, j]
        awake = value == value
        any_awake = any_awake or awake
        scaled = math.exp(logu[m, j]) * value if awake else 0.0
        work[INPUT, j] = min(max(scaled, -_REACH), _REACH)
    work[INPUT, J] = min(max(target, -_REACH), _REACH)
    return any_awake


# -- classes ---------------------------------------------------------------------------------------


@part
def mix_row(P: F8, v: F8, alpha: float, prob: F8) -> int:
    """prob <- (sum_j v_j P_j)^alpha, normalised. P (J, K), v (J,), prob (K,). Returns its argmax,
    or -1 where it is empty. O(J K)."""
    J, K = P.shape
    best, top = -1, 0.0
    for k in range(K):
        prob[k] = 0.0
        for j in range(J):
            if v[j] > 0.0:
                prob[k] += v[j] * P[j, k]
        if prob[k] > top:
            best, top = k, prob[k]
    total = 0.0
    for k in range(K):
        if alpha != 1.0 and prob[k] > 0.0:
            prob[k] = math.exp(alpha * math.log(prob[k] / top))
        total += prob[k]
    for k in range(K):
        prob[k] /= total if best >= 0 else 1.0
    return best


@part
def step_alpha(s: F8, p: F8, prob: F8, c: int, weight: float) -> None:
    """One step of log alpha up the log probability of class c; prob = q^alpha / sum, so that
    d log prob_c / d log alpha = log prob_c - sum_k prob_k log prob_k. O(K)."""
    K = prob.shape[0]
    if c >= K or not prob[c] > 0.0:
        return
    slope = math.log(prob[c])
    for k in range(K):
        if prob[k] > 0.0:
            slope -= prob[k] * math.log(prob[k])
    move = p[LR_ALPHA] * min(weight, 1.0) * max(slope, _STEEPEST)
    s[LOG_ALPHA] = min(max(s[LOG_ALPHA] + move, LOG_ALPHA_MIN), LOG_ALPHA_MAX)


@part
def correct_class(P: F8, c: int, state: State, work: F8) -> None:
    """The short-term bias from the probabilities of the true class, whose target is 1."""
    logu, _, b, _, net, s = state
    J = P.shape[0]
    for j in range(J):
        work[ANSWERS, j] = np.nan if P[j, 0] != P[j, 0] else (P[j, c] if c < P.shape[1] else 0.0)
    if network_input(logu, 0, 1.0, work):
        bias_gradient(net, logu, 0, 1.0, 1, work)
        for j in range(J):
            b[0, j] = work[BIAS, j]
        adam(net, work[GRADIENT], s)


@part
def learn_class(P: F8, c: int, weight: float, state: State, fixed: Fixed) -> None:
    """One label: losses -log P_jc of the experts, weights, then the short-term bias. O(J)."""
    logu, running, _, _, _, s = state
    p, work = fixed
    J = P.shape[0]
    losses, scores = work[_L, :J], work[_V, :J]
    for j in range(J):
        truth = P[j, c] if c < P.shape[1] else 0.0
        scores[j] = -math.log(max(truth, _LEAST_P)) if P[j, 0] == P[j, 0] else np.nan
        losses[j] = scores[j]
    scale_losses(running, 0, losses, weight, _LEAST_LOG, p)
    if p[LOG_SCORE] > 0.0:
        step_weights(logu, 0, scores, p, weight)
    else:
        step_weights(logu, 0, losses, p, weight * p[ETA])
    s[LEARNT] += 1.0
    if p[CORRECT] > 0.0:
        correct_class(P, c, state, work)


@kernel
def mix_classes(rows: Rows, state: State, fixed: Fixed, out: Out) -> None:
    """Answer with the mixture of the experts' probabilities, then learn their weights, row by row.

    See the top of this file for the tuples. A label that is no class code is refused and counted.
    O(J K) an event, with the correction also its network; allocates nothing.
    """
    P, y, weight, mode = rows
    logu, b, s = state[0], state[2], state[5]
    p, work = fixed
    answer, side = out
    J, K = P.shape[1:]
    for t in range(y.shape[0]):
        asked, learns = (mode[t] & _PREDICT) != 0, (mode[t] & _LEARN) != 0 and weight[t] > 0.0
        learns = learns and y[t] == y[t]
        if learns and not (0.0 <= y[t] < CODES and y[t] == math.floor(y[t])):
            s[REJECTED] += 1.0
            learns = False
        best, alpha = -1, math.exp(s[LOG_ALPHA])
        if K > 0 and (asked or learns) and shares(logu, b, 0, P[t, :, 0], work[_V]):
            best = mix_row(P[t], work[_V, :J], alpha, answer[t])
        if learns and best >= 0:
            if p[LR_ALPHA] > 0.0:
                step_alpha(s, p, answer[t], int(y[t]), weight[t])
            learn_class(P[t], int(y[t]), weight[t], state, fixed)
        side[t, 0] = float(best) if best >= 0 and asked else np.nan
        if best < 0 or not asked:
            answer[t] = np.nan


# -- numbers ---------------------------------------------------------------------------------------


@part
def leave_out_wild(F: F8, m: int, v: F8, running: F8) -> None:
    """v_j <- 0 where an expert would pull the mixture 10 root mean squared errors from the leader.

    Without it an expert that diverges takes the mixture along, however small its share. The leader
    has the largest v_j. O(J).
    """
    lead, kept = 0, 0.0
    for j in range(v.shape[0]):
        if v[j] > v[lead]:
            lead = j
    if running[1, m, lead] == 0.0:
        return
    reach = _PULL * math.sqrt(running[0, m, lead])
    for j in range(v.shape[0]):
        if j != lead and v[j] > 0.0 and v[j] * abs(F[j, m] - F[lead, m]) > reach:
            v[j] = 0.0
        kept += v[j]
    for j in range(v.shape[0]):
        v[j] /= kept


@part
def mix_numbers(F: F8, V: F8, m: int, v: F8, running: F8) -> tuple[float, float]:
    """Mean and variance of the mixture of one target, moment matched; O(J).

    An expert without a variance has its running squared error.
    """
    mean, spread = 0.0, 0.0
    for j in range(v.shape[0]):
        if v[j] > 0.0:
            mean += v[j] * F[j, m]
    for j in range(v.shape[0]):
        if v[j] > 0.0:
            gap = F[j, m] - mean
            spread += v[j] * (own_variance(V, running, j, m) + gap * gap)
    return mean, spread


@part
def own_variance(V: F8, running: F8, j: int, m: int) -> float:
    """What expert j says about its variance, else its running squared error, else NaN."""
    if V[j, m] >= 0.0:
        return float(V[j, m])
    return float(running[0, m, j]) if running[1, m, j] > 0.0 else np.nan


@part
def learn_target(target: F8, m: int, y: float, weight: float) -> None:
    """Running mean and variance of a target: exact for 1000 rows, then fading."""
    target[0, m] += weight
    slow = 1.0 - math.exp(weight * math.log1p(-_TARGET_MEMORY))
    rate = max(slow, weight / target[0, m])
    gap = y - target[1, m]
    target[1, m] += rate * gap
    target[2, m] = (1.0 - rate) * (target[2, m] + rate * gap * gap)


@part
def number_losses(F: F8, m: int, y: float, losses: F8) -> None:
    """losses <- (F_j - y)^2, NaN for an expert that sleeps."""
    for j in range(losses.shape[0]):
        gap = F[j, m] - y
        losses[j] = gap * gap


@part
def log_scores(F: F8, V: F8, m: int, y: float, running: F8, losses: F8) -> None:
    """losses <- -log N(y; F_j, V_j); NaN for an expert that sleeps or has no variance yet."""
    for j in range(losses.shape[0]):
        gap, spread = F[j, m] - y, own_variance(V, running, j, m)
        losses[j] = np.nan
        if spread > 0.0:
            losses[j] = min(0.5 * (math.log(spread) + gap * gap / spread), _WORST)


@part
def correct_number(F: F8, m: int, y: float, state: State, work: F8) -> None:
    """The short-term bias of one target, in units of its running standard deviation."""
    logu, _, b, target, net, _ = state
    J, M = F.shape
    if not target[2, m] > 0.0:
        return
    unit = math.sqrt(target[2, m])
    for j in range(J):
        work[ANSWERS, j] = (F[j, m] - target[1, m]) / unit
    z = (y - target[1, m]) / unit
    if network_input(logu, m, z, work):
        bias_gradient(net, logu, m, z, M, work)
        for j in range(J):
            b[m, j] = work[BIAS, j]


@part
def learn_number(F: F8, V: F8, m: int, y: float, weight: float, state: State, fixed: Fixed) -> None:
    """One target: losses of the experts, their weights, then the short-term bias. O(J)."""
    logu, running, _, target, _, _ = state
    p, work = fixed
    J = F.shape[0]
    losses, scores = work[_L, :J], work[_V, :J]
    learn_target(target, m, y, weight)
    number_losses(F, m, y, losses)
    log_scores(F, V, m, y, running, scores)
    scale_losses(running, m, losses, weight, _LEAST_PART * target[2, m], p)
    if p[LOG_SCORE] > 0.0:
        step_weights(logu, m, scores, p, weight)
    else:
        step_weights(logu, m, losses, p, weight * p[ETA])
    if p[CORRECT] > 0.0:
        correct_number(F, m, y, state, work)


@kernel
def mix_regressions(rows: NumberRows, state: State, fixed: Fixed, out: Out) -> None:
    """Answer with the mixture of the experts' numbers, then learn their weights, row by row.

    See the top of this file for the tuples. Every target has weights of its own; one that is
    missing teaches nothing, one that is infinite is refused and counted. O(J M) an event, with the
    correction also its network; allocates nothing.
    """
    F, V, y, weight, mode = rows
    logu, running, b, _, net, s = state
    p, work = fixed
    answer, side = out
    J, M = F.shape[1:]
    for t in range(mode.shape[0]):
        learns, taught = (mode[t] & _LEARN) != 0 and weight[t] > 0.0, False
        for m in range(M):
            answer[t, m], side[t, m] = np.nan, np.nan
            awake = shares(logu, b, m, F[t, :, m], work[_V])
            if (mode[t] & _PREDICT) != 0 and awake:
                leave_out_wild(F[t], m, work[_V, :J], running)
                answer[t, m], side[t, m] = mix_numbers(F[t], V[t], m, work[_V, :J], running)
            if not learns or y[t, m] != y[t, m]:
                continue
            if not abs(y[t, m]) < _HUGE:
                s[REJECTED] += 1.0
            elif awake:
                learn_number(F[t], V[t], m, y[t, m], weight[t], state, fixed)
                taught = True
        if taught:
            s[LEARNT] += 1.0
            if p[CORRECT] > 0.0:
                adam(net, work[GRADIENT], s)


# -- votes -----------------------------------------------------------------------------------------


@kernel
def bag_weights(key: np.uint64, events: I8, cumulative: F8, weight: F8, out: F8) -> None:
    """Weights times the Poisson draws of one member; without an event as they are.

    key: of the member. events (n,), -1: none; draw number `event` is taken. cumulative (m,):
    P(k <= i). weight (n,). out (n,) written. O(mean draw) a row.
    """
    for t in range(events.shape[0]):
        k = 1
        if events[t] >= 0:
            u, k = unit_draw(key, events[t]), 0
            while k < cumulative.shape[0] and cumulative[k] < u:
                k += 1
        out[t] = weight[t] * k


@part
def _all_answer(said: F8, P: F8) -> bool:
    """Whether a member answers every row. said (n,), P (n, K)."""
    silent = 0
    for t in range(said.shape[0]):
        silent += (said[t] != said[t]) | (P[t, 0] != P[t, 0])
    return silent == 0


@kernel
def vote_classes(said: F8, P: F8, mode: U1, prob: F8, best: F8) -> None:
    """Mean of the probabilities of the members that answer.

    said (J, n) classes, NaN: no answer. P (J, n, K), as each gives it. prob (n, K), best (n,)
    written, NaN where none answers or none asked. O(J K) an event.
    """
    J, n, K = P.shape
    for t in range(n):
        best[t] = 0.0  # how many answer
        for k in range(K):
            prob[t, k] = 0.0
    total = prob.reshape(n * K)
    for j in range(J if K > 0 else 0):  # rows within members: the other way takes 2.5 times as long
        if _all_answer(said[j], P[j]):  # no row asks: 3 us instead of 28 for 10 members, 1,024 rows
            told = P[j].reshape(n * K)
            for i in range(n * K):
                total[i] += told[i]
            for t in range(n):
                best[t] += 1.0
            continue
        for t in range(n):
            if said[j, t] == said[j, t] and P[j, t, 0] == P[j, t, 0]:
                best[t] += 1.0
                for k in range(K):
                    prob[t, k] += P[j, t, k]
    for t in range(n):
        count, top = best[t], -1.0
        best[t], answered = np.nan, count > 0.0 and (mode[t] & _PREDICT) != 0
        for k in range(K):
            prob[t, k] = prob[t, k] / count if answered else np.nan
            if prob[t, k] > top:
                best[t], top = float(k), prob[t, k]


@kernel
def vote_numbers(F: F8, V: F8, mode: U1, mean: F8, variance: F8) -> None:
    """Mean of the answers, and variance of the mixture. F, V (n, J, M), NaN: no answer.

    mean, variance (n, M) written, NaN where none answers or none asked. O(J M) an event.
    """
    n, J, M = F.shape
    for t in range(n):
        for m in range(M):
            count, total, spread = 0.0, 0.0, 0.0
            for j in range(J):
                if F[t, j, m] == F[t, j, m]:
                    count += 1.0
                    total += F[t, j, m]
            mean[t, m], variance[t, m] = np.nan, np.nan
            if count == 0.0 or (mode[t] & _PREDICT) == 0:
                continue
            mean[t, m] = total / count
            for j in range(J):
                if F[t, j, m] == F[t, j, m]:
                    gap = F[t, j, m] - mean[t, m]
                    spread += V[t, j, m] + gap * gap
            variance[t, m] = spread / count


@kernel
def balanced_weights(y: F8, weight: F8, mode: U1, seen: F8, out: F8) -> int:
    """out <- weight N / (C n_c) on rows that learn, so that all classes count alike.

    seen (C,) in/out: weight learnt of each class, this row among them. Rows that do not learn keep
    their weight. Returns 1 + the largest class learnt here. O(C) an event, allocates nothing.
    """
    known = 0
    for t in range(y.shape[0]):
        out[t] = weight[t]
        learns = (mode[t] & _LEARN) != 0 and weight[t] > 0.0
        if learns and y[t] >= 0.0 and y[t] < seen.shape[0] and y[t] == math.floor(y[t]):
            c = int(y[t])
            seen[c] += weight[t]
            out[t] = weight[t] * balanced(seen, c)
            known = max(known, c + 1)
    return known
