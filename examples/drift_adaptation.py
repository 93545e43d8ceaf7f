"""Concept drift: do nothing, learn how fast to forget, or act when a detector fires.

The stream changes its concept at rows 10,000, 20,000 and 30,000.
Run it: python examples/drift_adaptation.py
"""

from streamlearn import ADWIN, AdaptiveClassifier, KalmanClassifier, Normalizer, Pipeline, replay
from streamlearn.operators._base import Classifier

STREAM = "drift:abrupt?n=40000&at=10000,20000,30000"


def accuracy(name: str, model: Classifier) -> float:
    """Replay the stream with a model, print how it went."""
    result = replay(Pipeline(Normalizer(), model), STREAM, target="y")
    found = result.metrics["accuracy"]
    assert found is not None
    print(f"{name:<32} accuracy {found:.4f}, alarms at rows {result.alarms}")
    return found


def main() -> None:
    """Three answers to the same drift."""
    stationary = KalmanClassifier(lr_delta=0.0)  # its drift coefficient stays 0: it never forgets
    never = accuracy("never forgets", stationary)
    forgets = accuracy("learns how fast to forget", KalmanClassifier())
    resets = accuracy(
        "starts anew when ADWIN fires",
        AdaptiveClassifier(stationary.clone(), ADWIN(), policy="reset"),
    )
    background = accuracy(
        "swaps in a model grown beside it",
        AdaptiveClassifier(stationary.clone(), ADWIN(), policy="background"),
    )
    assert never < 0.8 < 0.95 < min(forgets, resets, background)


if __name__ == "__main__":
    main()
