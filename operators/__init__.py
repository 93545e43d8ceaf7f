"""Learners, feature maps, wrappers, drift detectors. Everything else reads `__all__`.

A new operator adds its one line to the imports; `X as X` exports it, also for type checkers.
"""

from streamlearn.operators._base import Operator as _Operator
from streamlearn.operators.adaptive import Adaptive as Adaptive
from streamlearn.operators.adaptive import AdaptiveClassifier as AdaptiveClassifier
from streamlearn.operators.adaptive import AdaptiveRegressor as AdaptiveRegressor
from streamlearn.operators.adwin import ADWIN as ADWIN
from streamlearn.operators.baselines import MajorityClassifier as MajorityClassifier
from streamlearn.operators.baselines import MeanRegressor as MeanRegressor
from streamlearn.operators.baselines import NoChangeClassifier as NoChangeClassifier
from streamlearn.operators.baselines import NoChangeRegressor as NoChangeRegressor
from streamlearn.operators.encode import Densifier as Densifier
from streamlearn.operators.encode import HashEncoder as HashEncoder
from streamlearn.operators.encode import OneHotEncoder as OneHotEncoder
from streamlearn.operators.encode import OrdinalEncoder as OrdinalEncoder
from streamlearn.operators.impute import Imputer as Imputer
from streamlearn.operators.kalman import KalmanClassifier as KalmanClassifier
from streamlearn.operators.kalman import KalmanRegressor as KalmanRegressor
from streamlearn.operators.scale import BalancedNormalizer as BalancedNormalizer
from streamlearn.operators.scale import Normalizer as Normalizer
from streamlearn.operators.scale import UnitNorm as UnitNorm

__all__ = sorted(  # noqa: PLE0605  # read by the conformance suite, the command line and the docs
    name
    for name, value in globals().items()
    if not name.startswith("_") and isinstance(value, type) and issubclass(value, _Operator)
)
