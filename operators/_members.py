"""What wrappers and ensembles do with members: ask them, and keep apart what each one logs."""

import numpy as np

from streamlearn.block import Block, Columns
from streamlearn.operators import _prequential
from streamlearn.operators._base import Operator


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
