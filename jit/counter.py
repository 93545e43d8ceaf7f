"""Counter-based random numbers: a draw depends on its key and its place alone."""

import hashlib
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from streamlearn.jit._compile import F8

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the counter's stride in SplitMix64
_STANDARD = NormalDist()


def key_of(seed: int, name: str) -> int:
    """64-bit key of a named stream of draws; equal names share it, whatever stands around them."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def bits(key: int, n: int) -> NDArray[np.uint64]:
    """The first n 64-bit words of a key: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    return bits_at(np.uint64(key), np.arange(n, dtype=np.uint64))


def bits_at(key: np.uint64 | NDArray[np.uint64], place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Words number `place`, from 0, of these keys (uint64; one, or an array to broadcast)."""
    z = key + _GOLDEN * (place + np.uint64(1))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(key: int, n: int) -> F8:
    """The first n uniform draws of a key, in the open interval (0, 1): 52 bits and a half."""
    return unit(bits(key, n))


def unit(words: NDArray[np.uint64]) -> F8:
    """Words as numbers in the open interval (0, 1): their upper 52 bits and a half."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normals(key: int, n: int) -> F8:
    """The first n standard normal draws of a key, by the inverse distribution.

    One scalar at a time, because logarithms of an array may differ in the last bit between the
    body of a vector and its tail.
    """
    return np.array([_STANDARD.inv_cdf(u) for u in uniforms(key, n).tolist()])
