"""Streams of one number whose drifts are known: what detectors are measured on."""

import numpy as np

from streamlearn.block import F8

LENGTH = 6_000  # events of a stream
FIRST = 2_000  # where its first drift starts
WIDTH = 1_000  # events that a gradual or incremental drift takes
STAY = 500  # events that a recurring concept stays
APART = 2_000  # between the starts of recurring drifts
HORIZON = 1_500  # a drift not found so many events after its start is missed

KINDS = ("abrupt", "gradual", "incremental", "recurring")
INPUTS = ("errors", "numbers")
RATES = (0.1, 0.3)  # of errors, before and after
MEANS = (0.0, 1.0)  # of numbers, in units of their deviation


def shares(kind: str) -> F8:
    """How much of the new concept is in each event, (LENGTH,) in [0, 1]."""
    t = np.arange(LENGTH)
    if kind == "recurring":  # back after STAY, as the errors of a model that learns
        return np.where((t >= FIRST) & ((t - FIRST) % APART < STAY), 1.0, 0.0)
    if kind == "abrupt":
        return np.where(t >= FIRST, 1.0, 0.0)
    return np.asarray(np.clip((t - FIRST + 1) / WIDTH, 0.0, 1.0))


def starts(kind: str) -> list[int]:
    """Events with which a drift starts; HORIZON events of the stream follow each."""
    return list(range(FIRST, LENGTH, APART)) if kind == "recurring" else [FIRST]


def drifting(kind: str, watched: str, seed: int, run: int) -> F8:
    """One stream with drift, (LENGTH,).

    Args:
        kind: one of KINDS. In a gradual drift each event is of one concept or of the other, in an
            incremental one of a concept in between.
        watched: errors, bits with RATES; or numbers, normal with MEANS and deviation 1.
        seed, run: of the generator; one pair, one stream.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind), INPUTS.index(watched), run])
    share = shares(kind)
    if kind == "gradual":
        share = np.where(rng.random(LENGTH) < share, 1.0, 0.0)
    return _drawn(rng, watched, share)


def still(watched: str, seed: int, n: int) -> F8:
    """A stream without drift, (n,)."""
    rng = np.random.default_rng([seed, len(KINDS), INPUTS.index(watched)])
    return _drawn(rng, watched, np.zeros(n))


def _drawn(rng: np.random.Generator, watched: str, share: F8) -> F8:
    low, high = RATES if watched == "errors" else MEANS
    level = low + (high - low) * share
    if watched == "errors":
        return np.where(rng.random(share.size) < level, 1.0, 0.0)
    return np.asarray(rng.normal(level))
