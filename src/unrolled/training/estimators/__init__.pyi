# The public names, each with the module that defines it: __init__.py reads this file, and so do type checkers.

from unrolled.training.estimators.fitting import fit as fit
from unrolled.training.estimators.forecaster import RecurrentForecaster as RecurrentForecaster
from unrolled.training.estimators.language_model import RecurrentLanguageModel as RecurrentLanguageModel
from unrolled.training.estimators.tagger import RecurrentTagger as RecurrentTagger
from unrolled.training.estimators.whole import RecurrentClassifier as RecurrentClassifier
from unrolled.training.estimators.whole import RecurrentRegressor as RecurrentRegressor

__all__: list[str]
