"""The estimator of a label for each step of a series, or for each word of a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.tagging import encode_sentences
from unrolled.heads.categorical import CategoricalHead
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelSequenceEncoder
from unrolled.processing.text.words import WordTransform
from unrolled.training.estimators.base import SequenceEstimator, label_text, mismatch
from unrolled.training.estimators.inputs import as_sequences, check_lengths
from unrolled.wording import counted

Labels = NDArray[Any]


class RecurrentTagger(SequenceEstimator):
    """Predicts a label for each step of series, or for each word of sentences.

    Attributes:
        classes_: the labels.
        n_features_in_: number of features of a step; not set for words.
        bundle_, history_, n_iter_, best_epoch_: see `SequenceEstimator`.
    """

    learned: ClassVar[tuple[str, ...]] = (*SequenceEstimator.learned, "classes_", "n_features_in_")
    kind: ClassVar[str] = "tagger"

    classes_: Labels
    n_features_in_: int

    def __init__(
        self,
        model: str = "lstm",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        max_epochs: int = 50,
        batch_size: int | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 10,
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
            model: the kind of network; see `RecurrentClassifier`.
            hidden_size: number of units of a layer, in each direction.
            num_layers: number of layers.
            bidirectional: whether a label may depend on later steps.
            dropout: dropout probability of inputs and outputs.
            max_epochs: maximum number of passes over the training sequences.
            batch_size: sequences in a batch; "auto" for 4 to 32, an eighth of the training sequences.
            learning_rate: greatest learning rate of AdamW.
            weight_decay: decoupled weight decay.
            early_stopping: hold out sequences for validation; see `RecurrentClassifier`.
            validation_fraction: share of the sequences for validation, below 0.5.
            n_iter_no_change: epochs without a lower validation loss before training stops.
            device: see `RecurrentClassifier`.
            n_jobs: number of CPU threads; None for one, -1 for all.
            padding: a value that fills arrays after the end of a sequence; see `RecurrentClassifier`.
            overrides: further options of the configuration, as on a command line.
            trusted: packages of your own cells that `overrides` names.
            random_state: seed of weights, order, dropout and validation split, or a generator.
            verbose: whether to show a progress bar and the result.
        """
        self.model = model
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network.

        Args:
            X: series, see `as_sequences`, or sentences as lists of words.
            y: for each of them a sequence of labels: texts or whole numbers, one for each step.

        Raises:
            ValueError: sequences or labels that can't be used, or a parameter out of its range.
        """
        if y is None:
            raise ValueError("RecurrentTagger requires y to be passed, but the target y is None: give labels by step")
        sequences = self._sequences(X)
        labels = [_of_tensor(each) for each in y]
        check_lengths(sequences, labels)
        self._check_labels(sequences, labels)
        self.classes_ = np.unique(np.concatenate(labels))
        if len(self.classes_) < 2:
            raise ValueError(f"all steps have the label {str(self.classes_[0])!r}: there must be two or more")
        names = [[label_text(label) for label in each] for each in labels]
        words = _are_words(sequences)
        if words:
            self.__dict__.pop("n_features_in_", None)
        else:
            self.n_features_in_ = sequences[0].shape[1]
        order = check_random_state(self.random_state).permutation(len(sequences))  # the last ones are for validation
        rows = [{"words" if words else "source": sequences[place], "tags": names[place]} for place in order]
        data = ["data=tagged"] if words else ["data=tagged_series"]
        return self._train({"train": rows}, len(rows), [*data, "data.files=null"])

    def predict_proba(self, X: Any) -> list[NDArray[np.float64]]:
        """Returns for each sequence the probabilities of the classes, (time, classes), in the order of `classes_`."""
        check_is_fitted(self, "bundle_")
        network, target = cast("SequenceTagger", self.bundle_.network), self._target()
        head = cast("CategoricalHead", network.head)
        sequences = self._sequences(X)
        trained_on_words = isinstance(self.bundle_.processor.source, WordTransform)
        if _are_words(sequences) != trained_on_words:
            raise ValueError(f"X has {'series' if trained_on_words else 'words'}, but training had the other kind")
        if trained_on_words:
            found = self._of_words(sequences, network, head)
        else:
            self._check_features(sequences)
            found = self._outputs(
                sequences,
                lambda padded, lengths: [
                    row[:length]
                    for row, length in zip(head.probabilities(network(padded, lengths)), lengths.tolist(), strict=True)
                ],
            )
        columns = [target.labels.index(label_text(each)) for each in self.classes_]
        return [np.array(each, dtype=np.float64).reshape(-1, target.size)[:, columns] for each in found]

    def predict(self, X: Any) -> list[Labels]:
        """Returns for each sequence the most probable label of each step, (time,)."""
        return [self.classes_[each.argmax(1)] for each in self.predict_proba(X)]

    def score(self, X: Any, y: Any) -> float:
        """Returns the share of steps whose label is right."""
        predicted, labels = self.predict(X), [_of_tensor(each) for each in y]
        check_lengths(predicted, labels)
        self._check_labels(predicted, labels)
        return float(np.mean(np.concatenate(predicted) == np.concatenate(labels)))

    def _of_words(self, sentences: Sequence[Any], network: SequenceTagger, head: CategoricalHead) -> list[Any]:
        source, device = cast("WordTransform", self.bundle_.processor.source), next(network.parameters()).device
        found: list[Any] = []
        with self._computing():
            for words in sentences:
                batch = encode_sentences(source, [words])
                moved = batch.source.to(device), batch.lengths.to(device), batch.positions.to(device)
                found.append(head.probabilities(network(*moved))[0].tolist())
        return found

    def _composed(self) -> list[str]:
        return [
            "task=tagging",
            "data.scoring_batch_size=256",
            "monitor.metric=validation/loss",
            "monitor.mode=min",
            f"network.encoder.hidden_size={self.hidden_size}",
            f"network.encoder.num_layers={self.num_layers}",
            f"network.encoder.bidirectional={str(self.bidirectional).lower()}",
            f"network.encoder.input_dropout={self.dropout}",
            f"network.output_dropout={self.dropout}",
        ]

    def _sequences(self, X: Any) -> list[Any]:
        if isinstance(X, list | tuple) and X and _are_words(cast("Sequence[Any]", X)):
            sentences = [list(cast("Sequence[Any]", words)) for words in cast("Sequence[Any]", X)]
            wrong = next((n for n, words in enumerate(sentences) if not words or not _are_words([words])), None)
            if wrong is not None:
                raise ValueError(f"X[{wrong}] is {sentences[wrong]!r:.60}: expected one word or more, as texts")
            return sentences
        return cast("list[Any]", as_sequences(X, self.padding).steps)

    def _check_features(self, sequences: Sequence[Tensor]) -> None:
        features = sequences[0].shape[1]
        if features != self.n_features_in_:
            raise ValueError(
                f"X has {counted(features, 'feature')} a step, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )

    @staticmethod
    def _check_labels(sequences: Sequence[Any], labels: Sequence[Labels]) -> None:
        for number, (steps, each) in enumerate(zip(sequences, labels, strict=True)):
            if each.ndim != 1 or len(each) != len(steps):
                raise ValueError(
                    f"y[{number}] has the shape {each.shape}, but X[{number}] has {counted(len(steps), 'step')}: give "
                    "one label for each"
                )
            if each.dtype.kind == "f":
                raise ValueError(f"y[{number}] has numbers with fractions; labels are texts or whole numbers")

    def _target(self) -> LabelSequenceEncoder:
        return cast("LabelSequenceEncoder", self.bundle_.processor.target)

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        network, (source, target) = bundle.network, bundle.processor
        tags = isinstance(network, SequenceTagger) and isinstance(network.head, CategoricalHead)
        if not tags or not isinstance(source, WordTransform | SeriesScaler):
            raise mismatch(cls, bundle)
        if not isinstance(target, LabelSequenceEncoder):
            raise mismatch(cls, bundle)

    def _restore(self, learned: Mapping[str, Any]) -> None:
        self.classes_ = np.array(self._target().labels)
        source = self.bundle_.processor.source
        if isinstance(source, SeriesScaler):
            self.n_features_in_ = source.output_size
        super()._restore(learned)


def _of_tensor(labels: Any) -> Labels:
    return np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)


def _are_words(sequences: Sequence[Any]) -> bool:
    """Returns whether sequences are lists of words, by their first one."""
    first = sequences[0]
    return isinstance(first, list | tuple) and all(isinstance(w, str) for w in cast("Sequence[Any]", first))
