"""scikit-learn's own checks of estimators."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from unrolled.training.estimators import RecurrentClassifier, RecurrentRegressor

SMALL: dict[str, Any] = {"model": "gru", "hidden_size": 8, "max_epochs": 40, "learning_rate": 0.03, "random_state": 0}
SMALL |= {"n_iter_no_change": 5}

EXPECTED = {
    "RecurrentRegressor": {
        "check_regressors_train": "its target depends on one column of a table, whose columns are the steps of a "
        "series here; a network learns the place of a step slowly",
    }
}


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    return EXPECTED.get(type(estimator).__name__, {})


@pytest.mark.slow
@parametrize_with_checks(
    [RecurrentClassifier(**SMALL), RecurrentRegressor(**SMALL)], expected_failed_checks=expected_failed_checks
)
def test_an_estimator_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
