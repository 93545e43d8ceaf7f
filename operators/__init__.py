"""Learners, feature maps, wrappers, drift detectors. Everything else reads `exported()`.

A new operator adds its one line to the imports; `X as X` exports it, also for type checkers.
"""

from typing import TYPE_CHECKING

from streamlearn.operators._base import Operator as _Operator
from streamlearn.operators.adaptive import Adaptive as Adaptive
from streamlearn.operators.adaptive import AdaptiveClassifier as AdaptiveClassifier
from streamlearn.operators.adaptive import AdaptiveRegressor as AdaptiveRegressor
from streamlearn.operators.adwin import ADWIN as ADWIN
from streamlearn.operators.analytic import AnalyticClassifier as AnalyticClassifier
from streamlearn.operators.analytic import AnalyticRegressor as AnalyticRegressor
from streamlearn.operators.bagging import ADWINBaggingClassifier as ADWINBaggingClassifier
from streamlearn.operators.bagging import ADWINBaggingRegressor as ADWINBaggingRegressor
from streamlearn.operators.bagging import OnlineBaggingClassifier as OnlineBaggingClassifier
from streamlearn.operators.bagging import OnlineBaggingRegressor as OnlineBaggingRegressor
from streamlearn.operators.baselines import MajorityClassifier as MajorityClassifier
from streamlearn.operators.baselines import MeanRegressor as MeanRegressor
from streamlearn.operators.baselines import NoChangeClassifier as NoChangeClassifier
from streamlearn.operators.baselines import NoChangeRegressor as NoChangeRegressor
from streamlearn.operators.champion import ChampionClassifier as ChampionClassifier
from streamlearn.operators.champion import ChampionRegressor as ChampionRegressor
from streamlearn.operators.change_point import BayesianChangePoint as BayesianChangePoint
from streamlearn.operators.change_sums import CUSUM as CUSUM
from streamlearn.operators.change_sums import PageHinkley as PageHinkley
from streamlearn.operators.conformal import ConformalClassifier as ConformalClassifier
from streamlearn.operators.conformal import ConformalRegressor as ConformalRegressor
from streamlearn.operators.encode import Densifier as Densifier
from streamlearn.operators.encode import HashEncoder as HashEncoder
from streamlearn.operators.encode import OneHotEncoder as OneHotEncoder
from streamlearn.operators.encode import OrdinalEncoder as OrdinalEncoder
from streamlearn.operators.error_memory import ErrorMemory as ErrorMemory
from streamlearn.operators.error_memory import ErrorMemoryClassifier as ErrorMemoryClassifier
from streamlearn.operators.error_memory import ErrorMemoryRegressor as ErrorMemoryRegressor
from streamlearn.operators.error_rate import DDM as DDM
from streamlearn.operators.error_rate import ECDD as ECDD
from streamlearn.operators.error_rate import EDDM as EDDM
from streamlearn.operators.error_rate import RDDM as RDDM
from streamlearn.operators.error_windows import FHDDM as FHDDM
from streamlearn.operators.error_windows import STEPD as STEPD
from streamlearn.operators.expert_mixture import (
    ExpertMixtureClassifier as ExpertMixtureClassifier,
)
from streamlearn.operators.expert_mixture import ExpertMixtureRegressor as ExpertMixtureRegressor
from streamlearn.operators.expert_pool import ExpertPoolClassifier as ExpertPoolClassifier
from streamlearn.operators.expert_pool import ExpertPoolRegressor as ExpertPoolRegressor
from streamlearn.operators.feature_drift import FeatureDrift as FeatureDrift
from streamlearn.operators.forecaster import OnlineForecaster as OnlineForecaster
from streamlearn.operators.hedge_mlp import HedgeMLPClassifier as HedgeMLPClassifier
from streamlearn.operators.hedge_mlp import HedgeMLPRegressor as HedgeMLPRegressor
from streamlearn.operators.hoeffding import HDDM_A as HDDM_A
from streamlearn.operators.hoeffding import HDDM_W as HDDM_W
from streamlearn.operators.implicit import ImplicitLinearClassifier as ImplicitLinearClassifier
from streamlearn.operators.implicit import ImplicitLinearRegressor as ImplicitLinearRegressor
from streamlearn.operators.impute import Imputer as Imputer
from streamlearn.operators.kalman import KalmanClassifier as KalmanClassifier
from streamlearn.operators.kalman import KalmanRegressor as KalmanRegressor
from streamlearn.operators.kalman_bank import KalmanBankClassifier as KalmanBankClassifier
from streamlearn.operators.kalman_bank import KalmanBankRegressor as KalmanBankRegressor
from streamlearn.operators.keyed import KeyedClassifier as KeyedClassifier
from streamlearn.operators.keyed import KeyedRegressor as KeyedRegressor
from streamlearn.operators.kswin import KSWIN as KSWIN
from streamlearn.operators.logit_bias import LogitBias as LogitBias
from streamlearn.operators.mixture import (
    GaussianMixtureAnomalyScorer as GaussianMixtureAnomalyScorer,
)
from streamlearn.operators.mixture import GaussianMixtureClassifier as GaussianMixtureClassifier
from streamlearn.operators.mixture import GaussianMixtureImputer as GaussianMixtureImputer
from streamlearn.operators.mixture import GaussianMixtureRegressor as GaussianMixtureRegressor
from streamlearn.operators.mmd_drift import MMDDrift as MMDDrift
from streamlearn.operators.prediction_drift import PredictionDrift as PredictionDrift
from streamlearn.operators.propensity_drift import PropensityDrift as PropensityDrift
from streamlearn.operators.rvfl import LiteRVFLClassifier as LiteRVFLClassifier
from streamlearn.operators.rvfl import LiteRVFLRegressor as LiteRVFLRegressor
from streamlearn.operators.rvfl import RVFLFeatures as RVFLFeatures
from streamlearn.operators.scale import BalancedNormalizer as BalancedNormalizer
from streamlearn.operators.scale import Normalizer as Normalizer
from streamlearn.operators.scale import UnitNorm as UnitNorm
from streamlearn.operators.score_drift import DensityDrift as DensityDrift
from streamlearn.operators.score_drift import NoveltyDrift as NoveltyDrift
from streamlearn.operators.torch_kalman import TorchKalmanClassifier as TorchKalmanClassifier
from streamlearn.operators.torch_kalman import TorchKalmanRegressor as TorchKalmanRegressor


def exported() -> dict[str, type[_Operator]]:
    """Every operator of this room by its name, in alphabetical order."""
    named = sorted(globals().items())
    kinds = {name: value for name, value in named if isinstance(value, type) and name[0] != "_"}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, _Operator)}


if not TYPE_CHECKING:  # type checkers read the imports themselves
    __all__ = list(exported())  # the names are written once, above
