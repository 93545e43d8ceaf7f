"""What wrappers and ensembles do with members: ask them, keep apart their logs, hear alarms."""

import numpy as np

from streamlearn.block import F8, Block, Columns
from streamlearn.operators import _prequential
from streamlearn.operators._base import Detector, Operator


def ask(member: Operator, number: int, block: Block) -> Columns:
    """Run one member over the block, with its own share of the log, which goes by its number.

    A number belongs to one model for ever: what a model logged before it came to serve is still its
    own, and what its predecessor logged is not. Each member logs `here` where it has been asked.
    """
    prefix = f"{number}/"
    if block.logged is not None:
        logged = block.logged.under(prefix)
        block = _prequential.recalled(block, logged, member.takes_nan)
    outputs = member.run(block)
    if not block.log_wanted:
        return dict(outputs)
    cut = len("log:")
    there = {f"log:{prefix}here": np.ones(block.n, dtype=np.uint8)}
    return there | {
        f"log:{prefix}{name[cut:]}" if name.startswith("log:") else name: column
        for name, column in outputs.items()
    }


def first_rise(detector: Detector, errors: F8) -> int:
    """Feed errors up to and including the first that alarms by rising; its index, or -1."""
    start = 0
    while (at := detector.first_alarm(errors[start:])) >= 0:
        if getattr(detector, "rose", True):
            return start + at
        start += at + 1
    return -1
