"""Random features: h = tanh(W x + b), with an exponential that vectorises and has the same bits
everywhere.

d inputs, m hidden features. The scale is already inside W and b.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, part
from streamlearn.jit.counter import key_of, normals

TANH, SIGMOID, RELU, IDENTITY = range(4)  # activations

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts: k * _LN2_HIGH is exact for |k| < 2^20
_LN2_LOW = 1.90821492927058770002e-10
_SHIFT = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the low bits
_SATURATED = 20.0  # |tanh z| = 1 in float64 from 19.1 on
_HUGE = 1e150  # inputs are cut here, so that sums of products stay finite


def random_weights(seed: int, names: tuple[str, ...], m: int, scale: float) -> F8:
    """Biases (row 0) and weights (a row for each feature), (1 + d, m), ~ N(0, scale^2).

    A row depends on (seed, feature name) alone, so the order of features does not matter.
    """
    keys = [key_of(seed, "bias"), *(key_of(seed, f"feature {name}") for name in names)]
    return scale * np.array([normals(key, m) for key in keys])


@part
def _exp_taylor(r: float) -> float:
    """exp(r) for |r| <= ln(2) / 2, by its series to r^13; the next term is below 5e-18."""
    p = 1.0 + r * (1.0 / 13.0)
    p = 1.0 + r * (1.0 / 12.0) * p
    p = 1.0 + r * (1.0 / 11.0) * p
    p = 1.0 + r * (1.0 / 10.0) * p
    p = 1.0 + r * (1.0 / 9.0) * p
    p = 1.0 + r * (1.0 / 8.0) * p
    p = 1.0 + r * (1.0 / 7.0) * p
    p = 1.0 + r * (1.0 / 6.0) * p
    p = 1.0 + r * (1.0 / 5.0) * p
    p = 1.0 + r * (1.0 / 4.0) * p
    p = 1.0 + r * (1.0 / 3.0) * p
    p = 1.0 + r * (1.0 / 2.0) * p
    return 1.0 + r * p


@part
def tanh_inplace(z: F8, scratch: F8) -> None:
    """z <- tanh(z). z (m,) in/out, not NaN | scratch (m,). Absolute error below 4e-16, allocates
    nothing.

    tanh|z| = (1 - t) / (1 + t) with t = exp(-2|z|) = 2^k exp(r), |r| <= ln(2) / 2; 2^k is made
    of its exponent bits, which is why there are three loops: each of them vectorises.
    """
    m = z.shape[0]
    powers = scratch.view(np.int64)
    for j in range(m):
        scratch[j] = -2.0 * min(abs(z[j]), _SATURATED) * _LOG2_E + _SHIFT
    for j in range(m):
        powers[j] = (powers[j] + 1023) << 52
    for j in range(m):
        a = -2.0 * min(abs(z[j]), _SATURATED)
        k = (a * _LOG2_E + _SHIFT) - _SHIFT
        t = scratch[j] * _exp_taylor((a - k * _LN2_HIGH) - k * _LN2_LOW)
        z[j] = math.copysign((1.0 - t) / (1.0 + t), z[j])


@part
def mix_inputs(x: F8, W: F8, h: F8) -> None:
    """h <- W x + b. x (d,) finite | W (1 + d, m), biases first | h (m,) out.

    O(d m), vectorised across m: each h is one chain of sums over x in order.
    """
    m = h.shape[0]
    for j in range(m):
        h[j] = W[0, j]
    for i in range(x.shape[0]):
        value = min(max(x[i], -_HUGE), _HUGE)
        for j in range(m):
            h[j] += W[i + 1, j] * value


@part
def hidden_features(x: F8, W: F8, h: F8, scratch: F8) -> None:
    """h <- tanh(W x + b). x (d,) finite | W (1 + d, m), biases first | h (m,) out | scratch (m,).

    O(d m).
    """
    mix_inputs(x, W, h)
    tanh_inplace(h, scratch)


@part
def activate(h: F8, kind: float, scratch: F8) -> None:
    """h <- the activation of h (m,), one of the four above. 1 / (1 + exp(-z)) is a tanh of z / 2.

    A sigmoid is 0 or 1 beyond |z| = 40, where its tanh is -1 or 1 to the last bit.
    """
    m = h.shape[0]
    if kind == SIGMOID:
        for j in range(m):
            h[j] *= 0.5
    if kind in (SIGMOID, TANH):
        tanh_inplace(h, scratch)
    if kind == SIGMOID:
        for j in range(m):
            h[j] = 0.5 + 0.5 * h[j]
    if kind == RELU:
        for j in range(m):
            h[j] = max(h[j], 0.0)
