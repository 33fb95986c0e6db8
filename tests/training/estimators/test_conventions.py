"""scikit-learn's own checks of estimators."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from unrolled.training.estimators import RecurrentClassifier, RecurrentRegressor

SMALL: dict[str, Any] = {"model": "gru", "hidden_size": 8, "max_epochs": 40, "learning_rate": 0.03, "random_state": 0}
SMALL |= {"n_iter_no_change": 5}

_ROUNDING = "products of float32 differ in their last digits with the number of rows; the check allows 1e-7"
EXPECTED = {
    "check_methods_subset_invariance": _ROUNDING,
    "check_methods_sample_order_invariance": _ROUNDING,
}


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    return EXPECTED


@pytest.mark.slow
@parametrize_with_checks(
    [RecurrentClassifier(**SMALL), RecurrentRegressor(**SMALL)], expected_failed_checks=expected_failed_checks
)
def test_an_estimator_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
