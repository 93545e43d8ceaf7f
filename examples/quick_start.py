"""Quick start: events one by one, a whole stream at once, and a model that is saved and goes on.

Run it: python examples/quick_start.py
"""

import tempfile
from pathlib import Path

from river import datasets

from streamlearn import KalmanClassifier, Normalizer, Pipeline, load, replay


def main() -> None:
    """Score and learn river's phishing data twice: as dicts, and as a stream of blocks."""
    pipe = Pipeline(Normalizer(), KalmanClassifier())
    correct = 0
    for x, y in datasets.Phishing():
        correct += pipe.predict_one(x) == y  # answer first: a label is never seen before its answer
        pipe.learn_one(x, y)
    print(f"one by one: {correct} of 1250 right")
    assert correct > 1080

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phishing.model"
        pipe.save(path)  # one file, no pickle
        again = load(path)
    x, y = next(iter(datasets.Phishing()))
    assert again.predict_proba_one(x) == pipe.predict_proba_one(x)  # the same bits

    result = replay(Pipeline(Normalizer(), KalmanClassifier()), "river:Phishing", target="target")
    print(result)
    right = (result.metrics["accuracy"] or 0.0) * result.scored
    assert round(right) == correct  # in blocks or one by one: the same answers


if __name__ == "__main__":
    main()
