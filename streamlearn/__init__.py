"""streamlearn: score and learn from every event, adapt to drift, lose nothing, replay to the bit.

>>> from streamlearn import KalmanClassifier, Normalizer, Pipeline
>>> pipe = Pipeline(Normalizer(), KalmanClassifier())
>>> pipe.learn_one({"a": 1.0}, "yes")
>>> pipe.predict_one({"a": 1.0})
'yes'

Names are imported when they are first used: `import streamlearn` brings neither numpy nor numba.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlearn.comparison import Comparison as Comparison
    from streamlearn.comparison import Ranking as Ranking
    from streamlearn.comparison import compare as compare
    from streamlearn.comparison import compare_many as compare_many
    from streamlearn.config import Config as Config
    from streamlearn.config import load_config as load_config
    from streamlearn.errors import UserError as UserError
    from streamlearn.forecasting import Forecast as Forecast
    from streamlearn.forecasting import forecast as forecast
    from streamlearn.group import LineagesResult as LineagesResult
    from streamlearn.group import run_lineages as run_lineages
    from streamlearn.operators import *  # noqa: F403  # the list is kept there
    from streamlearn.pipeline import Pipeline as Pipeline
    from streamlearn.pipeline import load as load
    from streamlearn.result import Result as Result
    from streamlearn.runner import replay as replay
    from streamlearn.runner import run as run
    from streamlearn.schema import Schema as Schema
    from streamlearn.tuning import Tuning as Tuning
    from streamlearn.tuning import tune as tune
    from streamlearn.workers import run_workers as run_workers

__version__ = "0.1.0"

_HOME = {
    "Comparison": "comparison",
    "Config": "config",
    "Forecast": "forecasting",
    "LineagesResult": "group",
    "Pipeline": "pipeline",
    "Ranking": "comparison",
    "Result": "result",
    "Schema": "schema",
    "Tuning": "tuning",
    "UserError": "errors",
    "compare": "comparison",
    "compare_many": "comparison",
    "forecast": "forecasting",
    "load": "pipeline",
    "load_config": "config",
    "replay": "runner",
    "run": "runner",
    "run_lineages": "group",
    "run_workers": "workers",
    "tune": "tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME and not name[0].isupper():  # a submodule: `from` imports it itself
        raise AttributeError(f"module 'streamlearn' has no attribute {name!r}")
    home = importlib.import_module(f"streamlearn.{_HOME.get(name, 'operators')}")
    try:
        value = getattr(home, name)
    except AttributeError:
        raise AttributeError(f"module 'streamlearn' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    operators = importlib.import_module("streamlearn.operators")
    return sorted({*globals(), *_HOME, *operators.__all__})
