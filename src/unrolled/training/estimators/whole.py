"""Estimators of one target for a whole sequence: classifier and regressor."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import classifier_of, predicted_values
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.training.estimators.base import SequenceEstimator, label_text, mismatch
from unrolled.training.estimators.inputs import Sequences, Texts, as_numbers, as_sequences, as_texts, check_lengths
from unrolled.wording import counted

Floats = NDArray[np.float64]


class WholeSequenceEstimator(SequenceEstimator):
    """Base class of the classifier and the regressor.

    Attributes:
        n_features_in_: number of features of a step or, of a table with a series in each row, number of its columns;
            texts have none.
        feature_names_in_: names of these, if a data frame had names.
    """

    learned: ClassVar[tuple[str, ...]] = (*SequenceEstimator.learned, "n_features_in_", "feature_names_in_", "_width")

    n_features_in_: int
    _width: int | None
    _texts: bool

    def __init__(
        self,
        model: str = "lstm",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        pooling: str = "concat",
        dropout: float = 0.2,
        max_epochs: int = 100,
        batch_size: int | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 20,
        device: str = "auto",
        n_jobs: int | None = None,
        padding: float | None = None,
        overrides: Sequence[str] = (),
        trusted: Sequence[str] = (),
        random_state: Any = None,
        verbose: int | bool = False,
    ) -> None:
        """Stores the parameters; `fit` checks them.

        Args:
            model: the kind of network: lstm, gru, elman, indrnn, … : the choices of the configuration group `model`.
            hidden_size: number of units of a layer, in each direction.
            num_layers: number of layers.
            bidirectional: read sequences in both directions.
            pooling: how steps become one vector: last, mean, max, attention, concat.
            dropout: dropout probability of inputs, between layers, and of the vector.
            max_epochs: maximum number of passes over the training sequences.
            batch_size: sequences in a batch; "auto" for 4 to 32, an eighth of the training sequences.
            learning_rate: greatest learning rate of AdamW.
            weight_decay: decoupled weight decay.
            early_stopping: hold out sequences for validation, stop when its loss no longer falls, and keep the best
                weights. Without, all sequences are for training, and the last weights are kept.
            validation_fraction: share of the sequences for validation, below 0.5.
            n_iter_no_change: epochs without a lower validation loss before training stops.
            device: where it trains: auto, cpu, cuda, mps, or a device such as "cuda:1". Predictions are made where
                `bundle_.network` is, which is the CPU.
            n_jobs: number of CPU threads; None for one, -1 for all. Another number can change the last digits.
            padding: a value that fills arrays after the end of a sequence, such as NaN; None: arrays have no padding.
            overrides: further options of the configuration, as on a command line.
            trusted: packages of your own cells that `overrides` names.
            random_state: seed of weights, order, dropout and validation split, or a generator.
            verbose: whether to show a progress bar and the result.
        """
        self.model = model
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.n_jobs = n_jobs
        self.padding = padding
        self.overrides = overrides
        self.trusted = trusted
        self.random_state = random_state
        self.verbose = verbose

    def _composed(self) -> list[str]:
        return [
            "task=classification",
            "data.files=null",
            "data.min_examples=1",
            "data.scoring_batch_size=256",
            f"pooling={self.pooling}",
            "monitor.metric=validation/loss",
            "monitor.mode=min",
            "task.linear_baseline=false",
            "task.prefix_fractions=[]",
            f"network.output_dropout={self.dropout}",
        ]

    def _fit(self, found: Sequences | Texts, targets: Sequence[Mapping[str, Any]], overrides: Sequence[str]) -> Self:
        encoder = "encoder.token" if self._texts else "encoder.frame"
        overrides = [
            *overrides,
            "data=sentences" if self._texts else "data=series",
            "data.source=source",
            f"{encoder}.hidden_size={self.hidden_size}",
            f"{encoder}.num_layers={self.num_layers}",
            f"{encoder}.bidirectional={str(self.bidirectional).lower()}",
            f"{encoder}.input_dropout={self.dropout}",
        ]
        if isinstance(found, Sequences) and not found.width and found.columns is not None:
            overrides.append(f"data.modality.channels={_listed(found.columns)}")
        rows = [{"source": steps, **target} for steps, target in zip(found.steps, targets, strict=True)]
        return self._train({"train": rows}, len(rows), overrides)

    def _sequences(self, X: Any, *, fits: bool = False) -> Sequences | Texts:
        """Converts sequences or texts, and checks or, in `fit`, sets which of them, the features and their names."""
        texts = as_texts(X)
        if fits:
            self._texts = texts is not None
        elif self._texts != (texts is not None):
            read, given = ("texts", "numbers") if self._texts else ("numbers", "texts")
            raise ValueError(f"X has {given}, but this {type(self).__name__} was trained on {read}")
        if texts is not None:
            return texts
        found = as_sequences(X, self.padding)
        # Of scikit-learn's checks, those of the names and the number of columns.
        validate_data(self, X, reset=fits, skip_check_array=True, ensure_2d=found.width is not None)
        if fits:
            self._width = found.width
            self.n_features_in_ = found.width or found.num_features
        elif found.num_features != (1 if self._width else self.n_features_in_):
            raise ValueError(
                f"X has {counted(found.num_features, 'feature')} a step, but {type(self).__name__} is expecting "
                f"{1 if self._width else self.n_features_in_} features as input"
            )
        return found

    def _parameters(self, X: Any) -> list[Any]:
        """Returns the values that the network predicts for each sequence."""
        check_is_fitted(self, "bundle_")
        network, _, target = classifier_of(self.bundle_)
        steps: list[Any] = list(self._sequences(X).steps)
        return self._outputs(steps, lambda padded, lengths: predicted_values(network, network(padded, lengths), target))

    def _restore(self, learned: Mapping[str, Any]) -> None:
        source = self.bundle_.processor.source
        self._texts = not isinstance(source, SeriesScaler)
        if isinstance(source, SeriesScaler):
            self.n_features_in_, self._width = source.output_size, None
        super()._restore(learned)

    @staticmethod
    def _reads(source: Any) -> bool:
        return isinstance(source, SeriesScaler | Tokenizer)


class RecurrentClassifier(ClassifierMixin, WholeSequenceEstimator):
    """Predicts a label for each sequence or text.

    Attributes:
        classes_: the labels.
        n_features_in_: number of features of a step or, of a table with a series in each row, number of its columns.
        bundle_, history_, n_iter_, best_epoch_: see `SequenceEstimator`.
    """

    learned: ClassVar[tuple[str, ...]] = (*WholeSequenceEstimator.learned, "classes_")
    kind: ClassVar[str] = "classifier"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network.

        Args:
            X: the sequences, see `as_sequences`, or texts.
            y: a label for each: texts, whole numbers, booleans.

        Raises:
            ValueError: sequences, texts or labels that can't be used, or a parameter out of its range.
        """
        given = _given(self, y)
        found = self._sequences(X, fits=True)
        labels = column_or_1d(given, warn=True)
        check_lengths(found.steps, labels)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        names = [label_text(label) for label in self.classes_]
        if len(self.classes_) < 2:
            raise ValueError(
                f"Classifier can't train when only one class is present: all labels are {names[0]!r}; give two or more"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"y has labels that differ in white space alone: {names}")
        return self._fit(found, [{"label": label_text(label)} for label in labels], ["data.target_type=label"])

    def predict_proba(self, X: Any) -> Floats:
        """Returns the probability of each class, (n, classes), in the order of `classes_`."""
        chances = np.array(self._parameters(X), dtype=np.float64)
        labels = cast("LabelEncoder", self.bundle_.processor.target).labels
        found = chances[:, [labels.index(label_text(each)) for each in self.classes_]]
        return found / found.sum(1, keepdims=True)  # sums of float32 differ from 1 in their last digits

    def predict_log_proba(self, X: Any) -> Floats:
        """Returns the logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Returns the most probable class of each sequence, (n,)."""
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        _, source, target = classifier_of(bundle)
        if not cls._reads(source) or not isinstance(target, LabelEncoder) or target.multiple:
            raise mismatch(cls, bundle)

    def _restore(self, learned: Mapping[str, Any]) -> None:
        self.classes_ = np.array(cast("LabelEncoder", self.bundle_.processor.target).labels)
        super()._restore(learned)


class RecurrentRegressor(RegressorMixin, WholeSequenceEstimator):
    """Predicts one number or several for each sequence or text.

    Attributes:
        n_features_in_: number of features of a step or, of a table with a series in each row, number of its columns.
        bundle_, history_, n_iter_, best_epoch_: see `SequenceEstimator`.
    """

    learned: ClassVar[tuple[str, ...]] = (*WholeSequenceEstimator.learned, "_flat")
    kind: ClassVar[str] = "regressor"
    _flat: bool  # whether y has one axis

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network.

        Args:
            X: the sequences, see `as_sequences`, or texts.
            y: a number for each, (n,), or several, (n, outputs).

        Raises:
            ValueError: sequences, texts or numbers that can't be used, or a parameter out of its range.
        """
        given = _given(self, y)
        found = self._sequences(X, fits=True)
        numbers = as_numbers(given, "y").astype(np.float64)
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers = column_or_1d(numbers, warn=True)
        if numbers.ndim not in (1, 2) or 0 in numbers.shape:
            raise ValueError(f"y has the shape {numbers.shape}, expected (n,) or (n, outputs)")
        check_lengths(found.steps, numbers)
        if not np.isfinite(numbers).all():
            what = "NaN" if np.isnan(numbers).any() else "infinity"
            raise ValueError(f"Input y contains {what}; fill or remove such targets")
        constant = (numbers == numbers[0]).all(0)
        if constant.any():
            which = "y" if numbers.ndim == 1 else f"column {int(constant.argmax())} of y"
            raise ValueError(
                f"{which} has the same value in all of {counted(len(numbers), 'sample')}: nothing to learn"
            )
        self._flat = numbers.ndim == 1
        names = ["target"] if self._flat else [f"target {number}" for number in range(numbers.shape[1])]
        rows = [dict(zip(names, row, strict=True)) for row in numbers.reshape(len(numbers), -1).tolist()]
        return self._fit(found, rows, ["data.target_type=number", f"data.target={names}"])

    def predict(self, X: Any) -> Floats:
        """Returns the predicted numbers, (n,) or (n, outputs)."""
        found = np.array(self._parameters(X), dtype=np.float64)
        return found[:, 0] if self._flat else found

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        _, source, target = classifier_of(bundle)
        if not cls._reads(source) or not isinstance(target, Scaler):
            raise mismatch(cls, bundle)

    def _restore(self, learned: Mapping[str, Any]) -> None:
        self._flat = cast("Scaler", self.bundle_.processor.target).size == 1
        super()._restore(learned)


def _given(estimator: SequenceEstimator, y: Any) -> Any:
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None: give a target for each "
            "sequence"
        )
    return y.detach().cpu().numpy() if hasattr(y, "detach") else y


def _listed(names: Sequence[str]) -> str:
    """Returns names as a list of the command line's grammar."""
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${") for name in names)
    return "[" + ",".join(f'"{name}"' for name in quoted) + "]"
