"""The estimator of texts: it predicts their next symbols, and writes more of them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from unrolled.checkpoint import Bundle
from unrolled.deployment.sampling import encode_prompt, sample_text
from unrolled.heads.categorical import CategoricalHead
from unrolled.models.decoders.autoregressive import AutoregressiveDecoder
from unrolled.processing.text.base import Tokenizer
from unrolled.training.estimators.base import SequenceEstimator, mismatch
from unrolled.wording import counted

Floats = NDArray[np.float64]


class RecurrentLanguageModel(SequenceEstimator):
    """Predicts the next symbol of texts, and writes texts.

    Attributes:
        symbols_: the symbols, in the order of `predict_proba`.
        bundle_, history_, n_iter_, best_epoch_: see `SequenceEstimator`.
    """

    kind: ClassVar[str] = "language_model"
    learned: ClassVar[tuple[str, ...]] = SequenceEstimator.learned

    def __init__(
        self,
        model: str = "lstm",
        *,
        unit: str = "character",
        window: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.1,
        max_epochs: int = 30,
        batch_size: int | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        device: str = "auto",
        n_jobs: int | None = None,
        overrides: Sequence[str] = (),
        trusted: Sequence[str] = (),
        random_state: Any = None,
        verbose: int | bool = False,
    ) -> None:
        """Stores the parameters; `fit` checks them.

        Args:
            model: the kind of network; see `RecurrentClassifier`.
            unit: what a symbol is: character, byte, word.
            window: steps of truncated backpropagation through time.
            hidden_size: number of units of a layer.
            num_layers: number of layers.
            dropout: dropout probability of the output.
            max_epochs: maximum number of passes over the text.
            batch_size: parallel streams of the text; "auto" for up to 32.
            learning_rate: greatest learning rate of AdamW.
            weight_decay: decoupled weight decay.
            early_stopping: hold out the end of the text for validation; see `RecurrentClassifier`.
            validation_fraction: share of the text for validation, below 0.5.
            n_iter_no_change: epochs without a lower validation loss before training stops.
            device: see `RecurrentClassifier`.
            n_jobs: number of CPU threads; None for one, -1 for all.
            overrides: further options of the configuration, as on a command line.
            trusted: packages of your own cells that `overrides` names.
            random_state: seed of weights, windows and dropout, or a generator.
            verbose: whether to show a progress bar and the result.
        """
        self.model = model
        self.unit = unit
        self.window = window
        self.hidden_size = hidden_size
        self.num_layers = num_layers
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
        self.overrides = overrides
        self.trusted = trusted
        self.random_state = random_state
        self.verbose = verbose

    @property
    def symbols_(self) -> list[str]:
        """The symbols of the vocabulary, in the order of `predict_proba`."""
        tokenizer = self._tokenizer()
        return [tokenizer.decode([number]) for number in range(tokenizer.size)]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network.

        Args:
            X: a text, or a list of texts, which are read one after the other, each with a line feed at its end.
            y: not used.

        Raises:
            ValueError: no text, or one that is shorter than two windows.
        """
        texts = _texts(X)
        self._check_counts("window")
        symbols = sum(len(text.split()) if self.unit == "word" else len(text) + 1 for text in texts)
        training = int(symbols * (1 - self.validation_fraction * bool(self.early_stopping)))
        if training < self.window + 1:
            raise ValueError(
                f"X has {counted(symbols, self.unit)}, of which {training} are for training: too few for "
                f"window={self.window}; give more text, or lower window"
            )
        streams = max(1, min(32, training // (4 * self.window))) if self.batch_size == "auto" else self.batch_size
        rows = [{"text": text} for text in texts]
        return self._train({"train": rows}, symbols, [f"data.batch_size={streams}"], caches=True)

    def predict_proba(self, X: Any) -> Floats:
        """Returns the probability of each symbol after each text, (n, symbols), in the order of `symbols_`.

        Args:
            X: a list of texts, which may be empty texts.

        Raises:
            ValueError: symbols that training did not contain.
        """
        network, rows = self._network(), []
        with self._computing():
            for text in _texts(X):
                logits = network(self._read(text)).parameters[:, -1]
                rows.append(cast("CategoricalHead", network.head).probabilities(logits)[0].tolist())
        return np.array(rows, dtype=np.float64)

    def predict(self, X: Any) -> list[str]:
        """Returns the most probable symbol after each text."""
        symbols = self.symbols_
        return [symbols[number] for number in self.predict_proba(X).argmax(1)]

    def sample(
        self, prompt: str = "", *, length: int = 200, temperature: float = 0.8, random_state: int | None = None
    ) -> str:
        """Returns a prompt with more text; see `sample_text`.

        Args:
            prompt: the start of the text; may be empty.
            length: number of symbols to generate.
            temperature: 1 for the model's distribution, less for more probable symbols, 0 for the most probable one.
            random_state: seed; None for another text at each call.
        """
        check_is_fitted(self, "bundle_")
        generator = torch.Generator(next(self.bundle_.network.parameters()).device)
        if random_state is None:
            generator.seed()
        else:
            generator.manual_seed(random_state)
        with self._computing():
            return sample_text(self.bundle_, prompt, length=length, temperature=temperature, generator=generator)

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the mean logarithm of the probability of each symbol of the texts, each read from its start.

        Args:
            X: a text, or a list of texts.
            y: not used.

        Raises:
            ValueError: symbols that training did not contain.
        """
        network, total, count = self._network(), 0.0, 0
        with self._computing():
            for text in _texts(X):
                ids = self._read(text)
                if ids.shape[1] < 2:
                    continue
                chances = network(ids[:, :-1]).parameters.double().log_softmax(-1)
                total += float(chances.gather(-1, ids[:, 1:, None]).sum())
                count += ids.shape[1] - 1
        if count == 0:
            raise ValueError("X has no symbol to score")
        return total / count

    def _composed(self) -> list[str]:
        return [
            "task=char_lm",
            "data=text",
            "data.files=null",
            f"data.unit={self.unit}",
            f"data.window={self.window}",
            "data.random_windows=null",
            "validation_interval=1.0",
            f"model.hidden_size={self.hidden_size}",
            f"model.num_layers={self.num_layers}",
            f"network.output_dropout={self.dropout}",
        ]

    def _read(self, text: str) -> torch.Tensor:
        tokenizer = self._tokenizer()
        device = next(self.bundle_.network.parameters()).device
        return torch.tensor([[tokenizer.start, *encode_prompt(tokenizer, text, "a text")]], device=device)

    def _network(self) -> AutoregressiveDecoder:
        check_is_fitted(self, "bundle_")
        return cast("AutoregressiveDecoder", self.bundle_.network)

    def _tokenizer(self) -> Tokenizer:
        check_is_fitted(self, "bundle_")
        return cast("Tokenizer", self.bundle_.processor.source)

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        network, (source, target) = bundle.network, bundle.processor
        language = isinstance(network, AutoregressiveDecoder) and isinstance(network.head, CategoricalHead)
        if not language or not isinstance(source, Tokenizer) or target is not None:
            raise mismatch(cls, bundle)

    def _restore(self, learned: Mapping[str, Any]) -> None:
        self.unit = self._tokenizer().unit
        super()._restore(learned)


def _texts(X: Any) -> list[str]:
    texts: list[Any] = [X] if isinstance(X, str) else list(X) if X is not None else []
    wrong = next((number for number, text in enumerate(texts) if not isinstance(text, str)), None)
    if not texts or wrong is not None:
        what = "empty" if not texts else f"not texts: X[{wrong}] is {texts[cast('int', wrong)]!r:.40}"
        raise ValueError(f"X is {what}; give a text, or a list of texts")
    return texts
