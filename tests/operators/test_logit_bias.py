"""LogitBias: the acceptance tests of its specification, and a twin with autograd by differences."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, LEARN, OBSERVE, PREDICT, SCORED, Block, Columns, Vocabulary
from streamlearn.jit.logit_bias import NOW, TRAIN
from streamlearn.operators import KalmanClassifier, LogitBias
from streamlearn.operators._base import Classifier
from streamlearn.pipeline import Pipeline
from streamlearn.testing import assert_same_state, labelled


class SaysProbabilities(Classifier):
    """A model that learns nothing: its features are the probabilities of the classes."""

    def _run(self, block: Block) -> Columns:
        known = block.X.shape[1] > 0
        said = block.X.argmax(axis=1).astype(np.float64) if known else np.full(block.n, np.nan)
        return {"prediction": said, "proba": block.X.copy()}


def softmax(z: F8) -> F8:
    """Row by row."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def drawn(z: F8, seed: int) -> F8:
    """Labels from the probabilities softmax(z); every class occurs first once."""
    n: int = z.shape[0]
    u = np.random.default_rng(seed).random(n)
    above = (u[:, None] > np.cumsum(softmax(z), axis=1)).sum(axis=1)
    y = np.minimum(above, z.shape[1] - 1)
    y[: z.shape[1]] = range(z.shape[1])
    return np.asarray(y, dtype=np.float64)


def block(P: F8, y: F8) -> Block:
    """Labelled rows with all classes in the table."""
    return labelled(P, y, "classification").replace(y=y, labels=Vocabulary(range(P.shape[1])))


def log_loss(P: F8, y: F8) -> float:
    """Mean over the rows."""
    return float(-np.mean(np.log(P[np.arange(y.shape[0]), y.astype(int)])))


def test_a_posterior_moved_to_other_priors_is_that_of_bayes() -> None:
    """Two unit Gaussians, posterior of priors (0.5, 0.5), asked where they are (0.9, 0.1)."""
    x = np.linspace(-4.0, 4.0, 101)
    likelihood = np.exp(-0.5 * (x[:, None] - np.array([-1.0, 1.0])) ** 2)
    P = likelihood / likelihood.sum(axis=1, keepdims=True)
    bayes = likelihood * [0.9, 0.1]
    model = LogitBias(SaysProbabilities(), lr=0.0, prior="labels", a=1e-12)
    model.run(block(P[:2], np.array([0.0, 1.0])))
    model.table_[TRAIN], model.table_[NOW] = [500.0, 500.0], [900.0, 100.0]
    asked = block(P, np.zeros(101)).replace(mode=np.full(101, PREDICT, np.uint8))
    got = model.run(asked)["proba"]
    assert_allclose(got, bayes / bayes.sum(axis=1, keepdims=True), rtol=1e-12, atol=1e-12)


def test_logits_three_times_too_large_are_found_out() -> None:
    """T within 5 % of 3 after 20,000 samples."""
    z = np.random.default_rng(0).normal(size=(20_000, 3))
    y = drawn(z, 1)
    model = LogitBias(SaysProbabilities())
    P = softmax(3.0 * z)
    got = model.run(block(P, y))["proba"]
    assert_allclose(model.temperature_, 3.0, rtol=0.05)
    assert log_loss(got[10_000:], y[10_000:]) < log_loss(P[10_000:], y[10_000:]) - 0.3
    assert model.calibration_error_ < 0.05


def test_calibrated_probabilities_stay_as_they_are() -> None:
    """|log T| < 0.05, and a log loss not worse by more than 0.1 %."""
    z = np.random.default_rng(2).normal(size=(20_000, 3))
    y = drawn(z, 3)
    model = LogitBias(SaysProbabilities())
    P = softmax(z)
    got = model.run(block(P, y))["proba"]
    assert abs(math.log(model.temperature_)) < 0.05
    assert log_loss(got[3:], y[3:]) < 1.001 * log_loss(P[3:], y[3:])


def naive(P: F8, y: F8, lr: float) -> tuple[F8, float, F8]:
    """What is said before each label; the slopes of the loss by central differences."""
    n, C = P.shape
    theta, squares, out = np.zeros(1 + C), np.zeros(1 + C), np.empty((n, C))
    for t in range(n):
        z = np.log(np.maximum(P[t], 1e-15))

        def said(at: F8, z: F8 = z) -> F8:
            return np.asarray(softmax((z / np.exp(at[0]) + at[1:])[None])[0])

        out[t] = said(theta)
        h, label = 1e-6, int(y[t])
        slopes = np.array(
            [
                (math.log(said(theta - h * e)[label]) - math.log(said(theta + h * e)[label]))
                / (2.0 * h)
                for e in np.eye(1 + C)
            ]
        )
        if C == 2:
            slopes[1] = 0.0
        squares += slopes**2
        moves = np.divide(slopes, np.sqrt(squares), out=np.zeros(1 + C), where=squares > 0)
        theta = theta - lr * moves
        theta[1:] *= 1.0 - 1e-4
        theta[0] = min(max(theta[0], -math.log(20.0)), math.log(20.0))
    return out, float(theta[0]), theta[1:]


@pytest.mark.parametrize("C", [2, 3, 5])
def test_every_answer_is_that_of_a_descent_by_differences(C: int) -> None:
    """After the first labels, by which all classes are known."""
    z = np.random.default_rng(C).normal(size=(300, C))
    y, P = drawn(z, C), softmax(2.0 * z + np.arange(C))
    model = LogitBias(SaysProbabilities(), lr=0.1)
    got = model.run(block(P, y))["proba"]
    expected, log_t, bias = naive(P, y, 0.1)
    assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert_allclose(math.log(model.temperature_), log_t, atol=1e-4)
    assert_allclose(model.bias_, bias, atol=1e-4)


@pytest.mark.parametrize("prior", ["labels", "predictions"])
def test_shares_are_faded_sums_of_labels_or_of_answers(prior: str) -> None:
    """Every answer; a row that only asks moves no share, one that only brings a label no answer."""
    rng = np.random.default_rng(6)
    z = rng.normal(size=(80, 3))
    P, y, weight = softmax(z), drawn(z, 7), rng.choice([0.5, 1.0, 2.0], 80)
    mode = rng.choice(np.array([7, 5, 1, 2], np.uint8), 80)
    mode[:3] = 7
    model = LogitBias(SaysProbabilities(), lr=0.0, prior=prior, lam=0.9)
    got = model.run(block(P, y).replace(mode=mode, weight=weight))["proba"]
    train, now = np.zeros(3), np.zeros(3)
    for t in range(80):
        said = P[t] * (now + 1.0) / (train + 1.0)
        said /= said.sum()
        if mode[t] & PREDICT:
            assert_allclose(got[t], said, rtol=1e-12)
        if prior == "predictions" and mode[t] & OBSERVE and t > 0:
            now = 0.9 * now + weight[t] * said
        if mode[t] & LEARN:
            label = np.eye(3)[int(y[t])] * weight[t]
            train = train + label
            now = 0.9 * now + label if prior == "labels" else now


def test_shares_that_move_are_followed_without_labels() -> None:
    """A model of even shares; 9 in 10 rows are of class 0, and no label tells."""
    rng = np.random.default_rng(0)
    begun = rng.integers(0, 2, 2000)
    begun[:2] = 0, 1
    kinds = np.concatenate([begun, (rng.random(6000) < 0.1).astype(int)])
    x = rng.normal(size=kinds.shape[0]) + 2.0 * kinds - 1.0
    P = softmax(np.stack([-x, x], axis=1))
    whole = block(P, kinds.astype(np.float64))
    live = np.full(whole.n, PREDICT | OBSERVE, np.uint8)
    live[:2000] = whole.mode[:2000]
    model = LogitBias(SaysProbabilities(), lr=0.0, prior="predictions")
    got = model.run(whole.replace(mode=live))["proba"]
    bayes = P * [0.9, 0.1]
    bayes /= bayes.sum(axis=1, keepdims=True)
    assert np.abs(got - bayes)[6000:].mean() < 0.02
    assert np.abs(P - bayes)[6000:].mean() > 0.1


def test_hard_input_leaves_sound_probabilities() -> None:
    """Probabilities of 0 and 1 that are wrong, one class, a new class, labels that are none."""
    P = np.tile([1.0, 0.0, 0.0], (300, 1))
    y = np.zeros(300)
    y[100:200], y[200:] = 1.0, 2.0
    y[50:53] = -1.0, np.inf, np.nan
    model = LogitBias(SaysProbabilities(), prior="labels")
    got = Pipeline(model).run(block(P, y))["proba"]
    assert_allclose(got.sum(axis=1), 1.0)
    assert_array_equal(got[:101, 1:], 0.0)  # not known yet
    assert (got[102:200, 1] > 0.0).all()
    assert 0.05 <= model.temperature_ <= 20.0
    assert model.n_rejected == 2
    assert model.n_samples_ == 297


def test_labels_of_events_from_before_the_first_class_come_after_a_restart() -> None:
    """What was logged of such events is missing, and a saved state holds no columns of it."""
    given, wrapped = block(np.eye(2), np.array([0.0, 1.0])), LogitBias(KalmanClassifier())
    asked = given.replace(mode=np.full(2, SCORED, np.uint8), ids=np.arange(2))
    going, resumed = Pipeline(wrapped), Pipeline(wrapped.clone())
    going.run(asked)
    resumed.load(going.state())
    late = asked.replace(mode=np.full(2, LEARN, np.uint8))
    for pipe in (going, resumed):
        pipe.run(late)
        assert pipe.pending == 0
    assert_same_state(resumed.state(), going.state())


def test_the_prior_is_one_of_three() -> None:
    """Owner, rule, value."""
    with pytest.raises(
        ValueError, match=r"^LogitBias: prior must be one of off, labels, predictions, got 'on'$"
    ):
        LogitBias(SaysProbabilities(), prior="on")
