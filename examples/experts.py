"""Several models side by side, an error memory around one, and a file of settings for all of it.

The stream changes its concept at rows 2,500, 5,000 and 7,500.
Run it: python examples/experts.py
"""

import tempfile
from pathlib import Path

from streamlearn import compare

STREAM = "drift:abrupt?n=10000"
EXPERTS = """\
pipeline:
  - Imputer
  - Normalizer
  - ExpertMixture:
      experts:
        - KalmanHead: {lr_delta: 0} # never forgets
        - KalmanHead # learns how fast to forget
        - [RVFLFeatures, Analytic] # a pipeline
        - river.naive_bayes.GaussianNB
"""
NEVER = {"KalmanHead": {"lr_delta": 0}}


def main() -> None:
    """A model that never adapts, the same under an error memory, and the same among others."""
    with tempfile.TemporaryDirectory() as folder:
        mixture = Path(folder) / "experts.yaml"
        mixture.write_text(EXPERTS, encoding="utf-8")
        remembering = {"ErrorMemory": {"model": NEVER}}
        found = compare(STREAM, NEVER, remembering, mixture, target="y")
    print(found)
    never, memory, experts = (r.metrics["accuracy"] or 0.0 for r in found.results.values())
    assert never < min(memory, experts)


if __name__ == "__main__":
    main()
