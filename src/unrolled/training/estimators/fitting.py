"""`unrolled.fit`: one call from data to a trained estimator, which it chooses by the targets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled.training.estimators.base import SequenceEstimator

_PACKAGES = {"lightning", "hydra", "omegaconf", "sklearn", "numpy", "tqdm", "rich", "torchmetrics"}  # of the extra


def fit(
    x: Any,
    y: Any = None,
    *,
    task: str | None = None,
    model: str = "lstm",
    horizon: int | None = None,
    verbose: bool = True,
    **parameters: Any,
) -> "SequenceEstimator":
    """Train a network on sequences in memory, and return the estimator.

    The estimator follows from the targets, and is printed: with `horizon`, a forecaster; without targets, for texts, a
    language model; with sequences of labels, a tagger; with texts, whole numbers or booleans, a classifier; with other
    numbers, a regressor.

    Args:
        x: sequences: arrays, tensors or data frames, see `unrolled.training.estimators.inputs.as_sequences`; series to
            continue, with `horizon`; or texts, with targets or without.
        y: a target for each sequence, or a sequence of labels for each.
        task: "classifier", "regressor", "forecaster", "tagger" or "language_model"; None to choose by the targets.
        model: the kind of network: lstm, gru, elman, …
        horizon: number of steps that a forecaster predicts.
        verbose: whether to print the choice and the result, and to show a progress bar.
        **parameters: parameters of the estimator, such as hidden_size=128, max_epochs=50, random_state=0.

    Raises:
        ModuleNotFoundError: the training dependencies are not installed.
        ValueError: data that can't be used, an unknown task, or a parameter that its estimator doesn't take.
    """
    try:
        from unrolled.training.estimators.choosing import choose
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _PACKAGES:
            raise
        raise ModuleNotFoundError(
            f"unrolled.fit needs {error.name}, which is not installed: pip install 'unrolled[train]'", name=error.name
        ) from None
    if horizon is not None:
        parameters["horizon"] = horizon
    kind, reason = choose(x, y, task, horizon)
    estimator = kind.with_parameters(model=model, verbose=verbose, **parameters)
    if verbose:
        print(f"{kind.__name__}: {reason}", flush=True)
    return estimator.fit(x) if y is None else estimator.fit(x, y)
