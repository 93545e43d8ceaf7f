"""What operators share that stand around one model and learn from what it answered, and when.

Not exported.
"""

from collections.abc import Sequence

import numpy as np

from streamlearn.block import F8, LEARN, Block, Columns
from streamlearn.operators import _prequential
from streamlearn.operators._ensemble import Ensemble, recalled_answers
from streamlearn.operators._members import ask
from streamlearn.operators._supervised import MAX_CLASSES


class Wrapper(Ensemble):
    """An operator around one member, which hands on what that answers.

    A late label judges the answer of then: what the wrapper learns from is logged with the event.
    """

    def _asked(self, block: Block) -> Block:
        """The block with an answer asked from every row that learns."""
        return _prequential.asked(block)

    def _heard(self, block: Block, names: Sequence[str]) -> tuple[Columns, Columns]:
        """What the model answers and logs, and of it these columns as they were at scoring."""
        outputs = ask(self.members_[0], 0, block)
        then = recalled_answers({k: outputs[k] for k in names if k in outputs}, block, 0)
        return outputs, then

    def _logged(self, block: Block, outputs: Columns, names: Sequence[str]) -> Columns:
        """These columns of the model as they go to the log, if one is wanted."""
        if not block.log_wanted:
            return {}
        return {f"log:0/{name}": outputs[name] for name in names if name in outputs}

    def _logged_then(self, block: Block, name: str, width: int) -> F8:
        """A column of the wrapper's own as it was at scoring, (n, width); NaN where now is then.

        The log hands back what it was told, without the missing values that end all its rows.
        """
        then = np.full((block.n, width), np.nan)
        if block.logged is not None and name in block.logged.columns:
            rows, told = block.logged.held[name], block.logged.columns[name]
            then[rows, : told.shape[1]] = told[rows]
        return then


def with_room(block: Block, P: F8, known: int) -> F8:
    """Probabilities with a column for each class that labels have told of, or will in this block.

    So what depends on them does not depend on which classes the model knows, nor on the cut.
    """
    codes = block.y[(block.mode & LEARN != 0) & (block.y >= 0.0) & (block.y < MAX_CLASSES)]
    told = max(known, 1 + int(codes.max(initial=-1.0)))
    wide = np.zeros((block.n, max(told, P.shape[1])))
    wide[:, : P.shape[1]] = P
    return wide
