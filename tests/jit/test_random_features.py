"""Counter-based draws and tanh features."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.jit._compile import F8, kernel
from streamlearn.jit.counter import bits, key_of, normals, uniforms
from streamlearn.jit.random_features import hidden_features, random_weights, tanh_inplace


@kernel
def tanh_of(z: F8, scratch: F8) -> None:
    tanh_inplace(z, scratch)


@kernel
def hidden_of(x: F8, W: F8, h: F8, scratch: F8) -> None:
    hidden_features(x, W, h, scratch)


def splitmix64(key: int, n: int) -> list[int]:
    """The published recursion, in Python's integers."""
    mask, state, out = 2**64 - 1, key, []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_bits_are_splitmix64() -> None:
    for key in (0, 1234567, 2**64 - 1):
        assert bits(key, 20).tolist() == splitmix64(key, 20)
    assert bits(1234567, 1)[0] == 6457827717110365317  # the first value of the author's test vector


def test_a_draw_depends_on_its_key_and_place_alone() -> None:
    key = key_of(3, "a")
    assert_array_equal(normals(key, 5), normals(key, 50)[:5])
    assert key_of(3, "a") == key
    assert len({key_of(3, "a"), key_of(3, "b"), key_of(4, "a"), key_of(34, "a")}) == 4


def test_draws_have_the_right_distribution() -> None:
    u, z = uniforms(key_of(0, "u"), 4000), normals(key_of(0, "z"), 4000)
    assert u.min() > 0.0
    assert u.max() < 1.0
    assert_allclose(np.quantile(u, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert_allclose([z.mean(), z.std(), (z**3).mean()], [0.0, 1.0, 0.0], atol=0.1)


def test_tanh_equals_that_of_numpy() -> None:
    z = np.concatenate([np.linspace(-25, 25, 401), [0.0, -0.0, 1e-300, 1e3, np.inf, -np.inf]])
    h = z.copy()
    tanh_of(h, np.empty_like(h))
    assert_allclose(h, np.tanh(z), rtol=0, atol=4e-16)


def test_hidden_features_are_tanh_of_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    W, x, h = random_weights(5, ("a", "b", "c"), 40, 2.0), rng.normal(size=3), np.empty(40)
    hidden_of(x, W, h, np.empty(40))
    assert_allclose(h, np.tanh(x @ W[1:] + W[0]), rtol=0, atol=1e-14)
    hidden_of(np.array([1e308, -1e308, 1e300]), W, h, np.empty(40))
    assert np.isfinite(h).all()


def test_weights_of_a_feature_depend_on_its_name_alone() -> None:
    one, other = random_weights(5, ("a", "b"), 10, 2.0), random_weights(5, ("b", "c", "a"), 10, 2.0)
    assert_array_equal(one[[0, 1, 2]], other[[0, 3, 1]])
    assert_array_equal(random_weights(5, ("a",), 10, 3.0), 1.5 * one[:2])
