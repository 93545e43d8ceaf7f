"""What became of the events whose labels were to come: told, assumed, or never known."""

import numpy as np

from streamlearn.block import B1, F8, I8, Columns
from streamlearn.contracts import Json, State
from streamlearn.metric_readers import plain

FATES = ("told", "assumed", "expired")  # its label came; one was put in its place; none came
TOLD, ASSUMED, EXPIRED_FATE = range(3)
_N, _SURE, _ERROR = range(3)  # events answered, sum of confidence or answer, sum of errors


class Fates:
    """Sums by fate of the events that were answered: how sure the model was, and how wrong.

    A stream of labels of which some never come is measured on the others alone, and those may be
    different events. Confidence is known for all of them: the mean of the probability of the class
    that was said. If the model is as badly calibrated on the rest as it is on the events whose
    labels came, its accuracy there is its confidence there plus the difference of accuracy and
    confidence on these (difference of confidences; Guillory et al. 2021). Of numbers the mean
    answer is shown by fate instead: where it differs, labels do not come at random.

    Cost: some 10 ns an event with a late label. Sums are taken row by row: the block law holds.
    Reference: Guillory, Shankar, Ebrahimi, Darrell, Schmidt (2021), Predicting with confidence on
    unseen distributions.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self.sums: F8 = np.zeros((len(FATES), 3))

    def add(self, fates: I8, y: F8, heard: Columns, settled: B1) -> None:
        """Rows of a block, in order.

        fates: (n,) places in FATES. y: (n,) labels, NaN where none came. heard: what was said of
        the events when they were scored, `prediction` (n,) and `proba` (n, K). settled: (n,) rows
        that tell a fate.
        """
        said = heard["prediction"]
        classes = self.task == "classification"
        sure = _confidence(said, heard["proba"]) if classes else said
        wrong = np.where(y == said, 0.0, 1.0) if classes else np.abs(y - said)
        at = np.flatnonzero(settled & np.isfinite(said) & np.isfinite(sure))
        added = np.column_stack([np.ones(at.shape[0]), sure[at], np.nan_to_num(wrong[at])])
        np.add.at(self.sums, fates[at], added)

    def result(self) -> dict[str, Json]:
        """By fate: `events` answered, and mean `confidence` and `accuracy`, or `answer` and `mae`.

        `estimated_accuracy` (classification): of all of these events, as the class docstring says;
        None unless some labels came and some events expired.
        """
        shown: dict[str, Json] = {name: self._shown(name) for name in FATES}
        return shown | {"estimated_accuracy": plain(self._estimated())}

    def _shown(self, name: str) -> dict[str, Json]:
        n, sure, wrong = self.sums[FATES.index(name)].tolist()
        sure, wrong = (sure / n, wrong / n) if n else (np.nan, np.nan)
        wrong = np.nan if name == "expired" else wrong
        if self.task == "classification":
            return {"events": int(n), "confidence": plain(sure), "accuracy": plain(1.0 - wrong)}
        return {"events": int(n), "answer": plain(sure), "mae": plain(wrong)}

    def _estimated(self) -> float:
        told, _, expired = self.sums
        if self.task != "classification" or told[_N] == 0.0 or expired[_N] == 0.0:
            return np.nan
        right = told[_N] - told[_ERROR]
        gap = (right - told[_SURE]) / told[_N]
        unseen = expired[_SURE] + gap * expired[_N]
        return float((right + unseen) / (told[_N] + expired[_N]))

    def state(self) -> State:
        """The sums, as copies."""
        return State({"sums": self.sums.copy()}, {})

    def load(self, state: State) -> None:
        """Take over what `state` gave."""
        self.sums = np.array(state.arrays["sums"])


def _confidence(said: F8, proba: F8) -> F8:
    """Probability of the class that was said, 0 beyond the width; NaN without probabilities."""
    wide = proba.shape[1]
    out = np.full(said.shape[0], 0.0 if wide else np.nan)
    out[~np.isfinite(said)] = np.nan
    at = np.flatnonzero(np.isfinite(said) & (said < wide))
    out[at] = proba[at, said[at].astype(np.int64)]
    return out
