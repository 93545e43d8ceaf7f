"""A River model as a stage of a pipeline, and an operator of ours inside a River pipeline.

Run it: python examples/river_stage.py
"""

from river import compose, linear_model, metrics, preprocessing, stream
from river.datasets import Phishing

from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline, replay


def river_in_ours() -> None:
    """Any River estimator is a stage; it walks row by row, which costs what River costs."""
    pipe = Pipeline(Normalizer(), linear_model.LogisticRegression(), ADWIN())
    result = replay(pipe, "river:Phishing", target="target")
    print(result)
    assert result.metrics["accuracy"] > result.baselines["majority"]["accuracy"]


def ours_in_river() -> None:
    """Every operator of ours has River's methods and passes River's own checks."""
    model = compose.Pipeline(preprocessing.StandardScaler(), KalmanClassifier())
    accuracy = metrics.Accuracy()
    for x, y in stream.shuffle(Phishing(), buffer_size=100, seed=1):
        accuracy.update(y, model.predict_one(x))
        model.learn_one(x, y)
    print(f"in River's pipeline: {accuracy}")
    assert accuracy.get() > 0.85


if __name__ == "__main__":
    river_in_ours()
    ours_in_river()
