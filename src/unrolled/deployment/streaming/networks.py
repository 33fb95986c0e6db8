"""Networks that read a stream: how each kind steps, what it predicts, and which networks need whole inputs instead."""

from abc import ABC, abstractmethod
from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import Prediction, classifier_of, predicted_values, prediction
from unrolled.deployment.streaming.readers import (
    Chunk,
    FrameReader,
    Memory,
    Reader,
    SampleReader,
    SeriesReader,
    TextReader,
    WordReader,
)
from unrolled.deployment.tagging import TaggedWord
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.ctc import BLANK, CTCHead
from unrolled.heads.labels import LabelsHead
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.decoders.base import Decoder
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.forecasters.autoregressive import AutoregressiveForecaster
from unrolled.models.forecasters.base import Forecaster
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.labels import LabelEncoder, LabelSequenceEncoder
from unrolled.processing.notes.roll import PianoRoll
from unrolled.processing.series.times import Time
from unrolled.processing.series.transform import SeriesTransform
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.words import WordTransform
from unrolled.processing.transform import Transform
from unrolled.wording import article


class StreamOptions:
    """What a stream is, besides the network that reads it.

    Args:
        rate: of sound: its sampling rate in hertz.
        series: of rows of a time series: its name; "" for the only series of training.
        start: of rows of a time series: the time of the first row, for a network that reads the calendar.
        top: number of tokens that a language model's prediction lists.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, rate: int | None = None, series: str = "", start: Time | None = None, top: int = 10) -> None:
        if top < 1:
            raise ValueError(f"top={top}: expected 1 or more")
        self.rate, self.series, self.start, self.top = rate, series, start, top


class StreamedNetwork(ABC):
    """Base class: a network in evaluation mode, the reader of its inputs, and what its outputs mean.

    Attributes:
        each: whether every step is a prediction; otherwise the last one is that for the stream so far.
    """

    each = False

    def __init__(self, network: nn.Module, reader: Reader) -> None:
        self.network, self.reader = network.eval(), reader
        self.like = next(network.parameters())
        self.outputs: int = cast(Any, network).head.output_size

    @abstractmethod
    def start(self, batch: int) -> Any:
        """Return the network's state before the first step."""

    @abstractmethod
    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Compute the head's parameters (batch, outputs) for inputs (batch, …), and the next state."""

    @abstractmethod
    def predictions(self, parameters: Tensor) -> list[Any]:
        """Return what parameters (rows, outputs) predict."""

    def begin(self) -> Memory:
        """Return what a network of `each` step remembers of its predictions."""
        return {}

    def report(self, chunk: Chunk, parameters: Tensor, memory: Memory) -> tuple[Any, Memory]:
        """Return what parameters (steps, outputs) of each step predict, for a network of `each` step."""
        return self.predictions(parameters), memory


class _Classifier(StreamedNetwork):
    def __init__(self, bundle: Bundle, options: StreamOptions) -> None:
        network, source, self.target = classifier_of(bundle)
        super().__init__(network, _reader_of(source, options))
        if not network.streams:
            key = "encoder.token" if isinstance(source, Tokenizer) else "encoder.frame"
            raise ValueError(_bidirectional(f"{key}.bidirectional"))

    def start(self, batch: int) -> Any:
        return self._own.initial_state(batch)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self._own.step(inputs, state)

    def predictions(self, parameters: Tensor) -> list[Prediction]:
        return [prediction(row, self.target) for row in predicted_values(self._own, parameters, self.target).cpu()]

    @property
    def _own(self) -> SequenceClassifier:
        return cast(SequenceClassifier, self.network)


class _Tagger(StreamedNetwork):
    each = True

    def __init__(self, bundle: Bundle, options: StreamOptions) -> None:
        network, (source, self.target) = cast(SequenceTagger, bundle.network), bundle.processor
        super().__init__(network, _reader_of(source, options))
        if not network.streams:
            raise ValueError(_bidirectional("network.encoder.bidirectional"))
        self.head = network.head

    def start(self, batch: int) -> Any:
        return cast(SequenceTagger, self.network).initial_state(batch)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cast(SequenceTagger, self.network).step(inputs, state)

    def predictions(self, parameters: Tensor) -> list[Prediction]:
        values = cast("CategoricalHead", self.head).probabilities(parameters).cpu()
        return [prediction(row, cast(LabelEncoder, self.target)) for row in values]

    def report(self, chunk: Chunk, parameters: Tensor, memory: Memory) -> tuple[Any, Memory]:
        if not isinstance(self.reader, WordReader):
            return self.predictions(parameters), memory
        found = self.predictions(parameters[[place for place, _ in chunk.words]])
        pairs = zip(chunk.words, found, strict=True)
        return [TaggedWord(word, one.label, one.probability) for (_, word), one in pairs], memory


class _Transcriber(_Tagger):
    """Its labels are those of a greedy search, each as soon as the frame is complete at which it begins."""

    def begin(self) -> Memory:
        return {"previous": BLANK, "labels": [], "written": 0}

    def report(self, chunk: Chunk, parameters: Tensor, memory: Memory) -> tuple[str, Memory]:
        if len(parameters) == 0:
            return "", memory
        previous = torch.tensor([memory["previous"]], device=parameters.device)
        started = cast(CTCHead, self.head).started(parameters.unsqueeze(0), previous=previous)[0].tolist()
        labels = [*memory["labels"], *(label for label in started if label != BLANK)]
        text = cast(Tokenizer, self.target).decode(labels)
        after = {"previous": int(parameters[-1].argmax()), "labels": labels, "written": len(text)}
        return text[memory["written"] :], after


class _Decoder(StreamedNetwork):
    """A language model, or a model of piano rolls: it predicts the next token or frame."""

    def __init__(self, bundle: Bundle, options: StreamOptions) -> None:
        network, source = cast(Decoder, bundle.network), bundle.processor.source
        try:
            network.start(1)
        except ValueError as error:
            raise ValueError(f"{error}; a stream needs a decoder that was built without source_size") from None
        super().__init__(network, _reader_of(source, options, continued=True))
        self.top = options.top
        self.names = names_of(source) if isinstance(source, Tokenizer) else []
        self.source = source

    def start(self, batch: int) -> Any:
        return cast(Decoder, self.network).start(batch)[0]

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        decoded = cast(Decoder, self.network).step(inputs, state)
        return decoded.parameters, decoded.state

    def predictions(self, parameters: Tensor) -> list[Prediction]:
        head = cast("CategoricalHead | LabelsHead", cast(Decoder, self.network).head)
        values = head.probabilities(parameters).cpu()
        if isinstance(self.source, PianoRoll):
            low = self.source.low
            rows = [{str(low + key): chance for key, chance in enumerate(row)} for row in values.tolist()]
            return [Prediction(", ".join(k for k, chance in row.items() if chance > 0.5), row) for row in rows]
        best = values.sort(dim=-1, descending=True, stable=True)
        top = min(self.top, values.shape[1])
        chances, ids = (part.narrow(1, 0, top).tolist() for part in best)
        rows = [
            {self.names[i]: chance for i, chance in zip(*row, strict=True)} for row in zip(ids, chances, strict=True)
        ]
        return [Prediction(next(iter(row)), row) for row in rows]


class _Forecaster(StreamedNetwork):
    """It predicts the next row."""

    def __init__(self, bundle: Bundle, options: StreamOptions) -> None:
        network, source = bundle.network, bundle.processor.source
        if not isinstance(network, AutoregressiveForecaster):
            raise ValueError(
                f"{article(type(network).__name__)} reads a whole window at once; use forecast, or train with "
                "forecaster=autoregressive"
            )
        if network.normalization != "none":
            raise ValueError(
                f"normalization={network.normalization} normalizes each window by its own numbers; use forecast, or "
                "train with forecaster.normalization=none"
            )
        super().__init__(network, _reader_of(source, options))

    def start(self, batch: int) -> Any:
        return cast(AutoregressiveForecaster, self.network).core.initial_state(batch, like=self.like)

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        parameters, state = cast(AutoregressiveForecaster, self.network).step(inputs, state)
        return parameters.flatten(1), state

    def predictions(self, parameters: Tensor) -> list[Prediction]:
        network, reader = cast(AutoregressiveForecaster, self.network), cast(SeriesReader, self.reader)
        values = network.head.predict(parameters.unflatten(-1, (network.num_targets, -1))).squeeze(-1)
        names = reader.transform.columns.target
        return [Prediction("", dict(zip(names, row, strict=True))) for row in reader.restored(values).tolist()]


def streamed(bundle: Bundle, options: StreamOptions) -> StreamedNetwork:
    """Return a bundle's network as one that reads a stream.

    Raises:
        ValueError: a network that needs whole inputs, or an option that is missing; the message says what to change.
    """
    network, (_, target) = bundle.network, bundle.processor
    if isinstance(network, SequenceClassifier):
        return _Classifier(bundle, options)
    if isinstance(network, SequenceTagger) and isinstance(network.head, CTCHead) and isinstance(target, Tokenizer):
        return _Transcriber(bundle, options)
    if isinstance(network, SequenceTagger) and isinstance(target, LabelSequenceEncoder):
        return _Tagger(bundle, options)
    if isinstance(network, Decoder):
        return _Decoder(bundle, options)
    if isinstance(network, Forecaster):
        return _Forecaster(bundle, options)
    whole = " reads its whole source before it writes, so it" if isinstance(network, EncoderDecoder) else ""
    raise ValueError(
        f"{article(type(network).__name__)}{whole} can't read a stream; a stream needs a language model, a classifier, "
        "a tagger, a transcriber, or an autoregressive forecaster"
    )


def names_of(tokenizer: Tokenizer) -> list[str]:
    """Return a name of each id: its text; or the id, for the start symbol and for bytes that are no text alone."""
    symbols = tokenizer.symbols(range(tokenizer.size))
    number = Counter(symbols)
    return [text if text and number[text] == 1 else f"<{index}>" for index, text in enumerate(symbols)]


def _reader_of(source: Transform, options: StreamOptions, *, continued: bool = False) -> Reader:
    if isinstance(source, Tokenizer):
        return TextReader(source, continued=continued)
    if isinstance(source, WordTransform):
        return WordReader(source)
    if isinstance(source, AudioFeatures):
        if options.rate is None:
            raise ValueError("this network reads sound: pass rate, the sampling rate of the stream in hertz")
        return SampleReader(source, options.rate)
    if isinstance(source, SeriesScaler | PianoRoll):
        return FrameReader(source)
    if isinstance(source, SeriesTransform):
        return SeriesReader(source, options.series, options.start)
    raise ValueError(
        f"the sources of this network are read as a whole by {article(type(source).__name__)}; a stream has text, "
        "words, samples of sound, frames of notes, or rows of numbers"
    )


def _bidirectional(key: str) -> str:
    return f"this network is bidirectional; for streaming, train it with {key}=false"
