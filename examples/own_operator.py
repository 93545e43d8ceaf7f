"""Your own operator: a kernel, a class, and every law of the engine checked in one call.

CONTRIBUTING.md walks through this file. Run it: python examples/own_operator.py
"""

import numpy as np
from river import base

from streamlearn.block import F8, LEARN, PREDICT, U1, Block, Columns, Features
from streamlearn.jit._compile import kernel
from streamlearn.operators import _checks
from streamlearn.operators._base import Regressor
from streamlearn.testing import check_operator, labelled


@kernel
def nlms_run(  # jit/nlms.py
    w: F8, X: F8, y: F8, weight: F8, mode: U1, mu: float, prediction: F8
) -> int:
    """Walk a block row by row: answer, then step against the error; a missing feature is 0.

    w (d,) in/out | X (n, d) | y, weight (n,) | mode (n,) | mu >= 0 | prediction (n,) written.
    Returns the number of rows refused because a number is too large. O(n d), allocates nothing.
    """
    refused = 0
    for t in range(X.shape[0]):
        answer, power = 0.0, 1.0
        for j in range(w.shape[0]):
            x = X[t, j] if X[t, j] == X[t, j] else 0.0
            answer += w[j] * x
            power += x * x
        fits = power < np.inf
        prediction[t] = answer if (mode[t] & PREDICT) != 0 and fits else np.nan
        if (mode[t] & LEARN) == 0 or not weight[t] > 0.0 or y[t] != y[t]:
            continue
        error = y[t] - answer
        if not fits or not abs(error) < np.inf:
            refused += 1
            continue
        step = mu * min(weight[t], 1.0) * error / power
        for j in range(w.shape[0]):
            w[j] += step * X[t, j] if X[t, j] == X[t, j] else 0.0
    return refused


class NLMSRegressor(Regressor, base.Regressor):  # operators/nlms.py
    """Linear regression by normalised least mean squares, the step divided by the input's power.

    Model: y_t = w . x_t. A missing feature counts as 0. A row with a feature whose square is not
    finite gets no answer; such a row, and one with an infinite target, is not learnt and is counted
    in `n_rejected`. A weight below 1 shortens the step.
    Args:
        mu: step size, in [0, 2]; 1 corrects the whole error of a long input.
    State:
        w_: (d,) float64, weights.
    Cost: O(d) time an event, no allocation in the kernel; 8 d bytes.
    Raises: ValueError for a parameter out of range, and for rows of several targets.
    Reference: Haykin (2014), Adaptive Filter Theory, section 7.1.
    >>> model = NLMSRegressor(mu=1.0)
    >>> model.learn_one({"a": 1.0}, 2.0)
    >>> model.predict_one({"a": 1.0})
    1.0
    """

    _arrays = ("w_",)
    _counters = ("n_rejected",)
    recalls_input = True

    def __init__(self, mu: float = 0.5) -> None:
        self.mu = _checks.between("NLMSRegressor", "mu", mu, 0.0, 2.0)
        self.w_: F8 = np.zeros(0)
        self.n_rejected = 0

    def grow(self, features: Features) -> None:
        """A new feature has weight 0, exact for one that was always 0."""
        self.w_ = _checks.padded(self.w_, (len(features),))

    def _run(self, block: Block) -> Columns:
        _checks.one_target("NLMSRegressor", block.y)
        prediction = np.empty(block.n)
        self.n_rejected += nlms_run(
            self.w_, block.X, block.y, block.weight, block.mode, self.mu, prediction
        )
        return {"prediction": prediction}


def naive(X: F8, y: F8, mu: float) -> tuple[F8, F8]:
    """The textbook's formula, in numpy: a route that shares nothing with the kernel."""
    w, answers = np.zeros(X.shape[1]), []
    for x, target in zip(X, y, strict=True):
        answers.append(w @ x)
        w = w + mu * (target - w @ x) * x / (1 + x @ x)
    return np.array(answers), w


def main() -> None:  # tests/operators/test_nlms.py
    """Compare with the naive twin, then hold the operator to every law."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    y = X @ np.array([1.0, -2.0, 0.5])
    model = NLMSRegressor(mu=0.5)
    outputs = model.run(labelled(X, y))
    answers, w = naive(X, y, mu=0.5)
    np.testing.assert_allclose(outputs["prediction"], answers, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.w_, w, rtol=1e-10, atol=1e-12)
    print(f"weights after 500 events: {model.w_.round(3)}")
    for law, streams in check_operator(NLMSRegressor).items():
        print(f"law {law:<9} held on {streams} streams")


if __name__ == "__main__":
    main()
