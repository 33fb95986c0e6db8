"""Classification and regression of sources of any kind with a trained network."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.checkpoint import Bundle
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.labels import LabelsHead
from unrolled.models.classifier import SequenceClassifier
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS, open_recording, resample
from unrolled.processing.frames import ImageSequence
from unrolled.processing.images import MAX_PIXELS
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Transform
from unrolled.wording import article

MAX_LENGTH = 10_000
"""Default maximum number of steps of a text."""


class Prediction(NamedTuple):
    """The prediction for one source.

    Attributes:
        label: the most probable label; for a multi-label network, those with a probability above one half, separated by
            commas; empty for numbers.
        values: the probability of each label, the most probable first; or the numbers by name.
    """

    label: str
    values: dict[str, float]

    @property
    def probability(self) -> float:
        """The probability of the most probable label."""
        return next(iter(self.values.values()))


class Limits(NamedTuple):
    """Maximum sizes of a source.

    Attributes:
        pixels: pixels of an image.
        seconds: seconds of a recording.
        steps: steps of a text, which is truncated.
    """

    pixels: int = MAX_PIXELS
    seconds: float = MAX_SECONDS
    steps: int = MAX_LENGTH


def predicted_values(network: SequenceClassifier, parameters: Tensor, target: LabelEncoder | Scaler) -> Tensor:
    """Convert the parameters (…, outputs) of a head to probabilities of labels, or to numbers in their own units.

    Numbers are float64 on the CPU, since float32 is too coarse for small changes of large numbers.
    """
    if isinstance(target, LabelEncoder):
        return cast("CategoricalHead | LabelsHead", network.head).probabilities(parameters)
    values = network.head.predict(parameters)
    return values if target.bounded else target.restore(values)


def classify(
    bundle: Bundle,
    sources: Iterable[Any],
    *,
    batch_size: int = 32,
    ahead: int = 256,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float = MAX_SECONDS,
    max_length: int = MAX_LENGTH,
    notice: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction for each source, in order.

    Args:
        bundle: a classifier from `load_bundle`.
        sources: texts; or paths of recordings or pairs (samples (time,), rate); or images as tensors (channels, height,
            width) of bytes or from 0 to 1, or in any form that `processing.images.read_image` supports; or series as
            tensors or arrays (time, channels).
        batch_size: number of sources in a batch.
        ahead: number of sources that are read before the first prediction, to batch sources of similar length.
        max_pixels: maximum number of pixels of an image; a larger file is an error before it is decoded.
        max_seconds: maximum length of a recording; a longer one is an error.
        max_length: maximum number of steps of a text, which is truncated.
        notice: called with a message for the first recording that is resampled, mixed to one channel or silent, and for
            each text that is truncated.

    Raises:
        ValueError: a network of another kind; a source that can't be read.
    """
    limits = Limits(max_pixels, max_seconds, max_length)
    found = predictions(bundle, sources, batch_size=batch_size, ahead=ahead, limits=limits, notice=notice)
    return (each for each in found if each is not None)


def predictions(
    bundle: Bundle,
    sources: Iterable[Any],
    *,
    batch_size: int = 32,
    ahead: int = 256,
    limits: Limits = Limits(),  # immutable
    notice: Callable[[str], None] | None = None,
    on_error: Callable[[ValueError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Prediction | None]:
    """Yield a prediction for each source, as `classify` does, and optionally continue after an unreadable source.

    Args:
        bundle: see `classify`.
        sources: see `classify`.
        batch_size: see `classify`.
        ahead: see `classify`.
        limits: see `classify`.
        notice: see `classify`.
        on_error: called with the error of each source that can't be read, for which None is yielded; by default the
            error is raised.
        progress: called regularly with the numbers of finished sources and of sources that were read.

    Raises:
        ValueError: see `classify`.
    """
    network, source, target = classifier_of(bundle)
    if isinstance(sources, str | bytes):
        raise ValueError(f"sources is {sources!r:.60}, expected a list of sources")
    if min(batch_size, ahead, *limits) <= 0:
        raise ValueError(f"batch_size={batch_size}, ahead={ahead}, {limits}: expected 1 or more")
    tensors = _tensors(source, sources, limits, Notices(notice), on_error)
    return _stream(network, target, tensors, batch_size, ahead, progress)


class Notices:
    """Passes messages to a function, some of them only once per kind."""

    def __init__(self, notice: Callable[[str], None] | None) -> None:
        self._notice, self._kinds = notice, set[str]()

    def once(self, kind: str, message: str) -> None:
        """Pass a message if it is the first of its kind."""
        if self._notice is not None and kind not in self._kinds:
            self._notice(f"{message} (reported once, others may follow)")
        self._kinds.add(kind)

    def each(self, message: str) -> None:
        """Pass a message."""
        if self._notice is not None:
            self._notice(message)


def reads(bundle: Bundle) -> str:
    """Return the kind of a classifier's sources: "text", "sound", "pictures" or "series"."""
    source = classifier_of(bundle)[1]
    if isinstance(source, Tokenizer):
        return "text"
    kinds: dict[type[Transform], str] = {AudioFeatures: "sound", ImageSequence: "pictures"}
    return kinds.get(type(source), "series")


def prediction(values: Tensor, target: LabelEncoder | Scaler) -> Prediction:
    """Return the prediction of a row of `predicted_values`."""
    if isinstance(target, Scaler):
        return Prediction("", dict(zip(target.names, values.tolist(), strict=True)))
    order = values.argsort(descending=True, stable=True).tolist()
    named = {target.labels[index]: float(values[index]) for index in order}
    if target.multiple:
        return Prediction(", ".join(label for label, sure in named.items() if sure > 0.5), named)
    return Prediction(target.labels[order[0]], named)


def classifier_of(bundle: Bundle) -> tuple[SequenceClassifier, Transform, LabelEncoder | Scaler]:
    """Return the network of a classifier, and the transforms of its sources and targets.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, (source, target) = bundle.network, bundle.processor
    if not isinstance(network, SequenceClassifier) or not isinstance(target, LabelEncoder | Scaler):
        raise ValueError(
            f"classification needs a SequenceClassifier; this checkpoint contains {article(type(network).__name__)}"
        )
    if isinstance(target, LabelEncoder) and not isinstance(network.head, CategoricalHead | LabelsHead):
        raise ValueError(
            "labels need a CategoricalHead or a LabelsHead; this checkpoint's network has "
            f"{article(type(network.head).__name__)}"
        )
    return network, source, target


def _stream(
    network: SequenceClassifier,
    target: LabelEncoder | Scaler,
    sources: Iterator[Tensor | None],
    batch_size: int,
    ahead: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction | None]:
    device = next(network.parameters()).device
    done = 0
    while taken := list(islice(sources, ahead)):
        read = {place: source for place, source in enumerate(taken) if source is not None}
        found: dict[int, Prediction] = {}
        order = sorted(read, key=lambda place: len(read[place]))
        for begin in range(0, len(order), batch_size):
            if progress is not None:
                progress(done + begin, done + len(taken))
            places = order[begin : begin + batch_size]
            padded = pad_sequence([read[place] for place in places], batch_first=True).to(device)
            lengths = torch.tensor([len(read[place]) for place in places])
            with torch.no_grad():
                values = predicted_values(network, network(padded, lengths), target)
            found |= {place: prediction(row, target) for place, row in zip(places, values, strict=True)}
        done += len(taken)
        if progress is not None:
            progress(done, done)
        yield from (found.get(place) for place in range(len(taken)))


def _tensors(
    transform: Transform,
    sources: Iterable[Any],
    limits: Limits,
    notices: Notices,
    on_error: Callable[[ValueError], None] | None,
) -> Iterator[Tensor | None]:
    for number, source in enumerate(sources, start=1):
        try:
            tensor = read_source(transform, source, number, limits, notices)
        except ValueError as error:
            if on_error is None:
                raise
            on_error(error)
            tensor = None
        yield tensor


def read_source(transform: Transform, source: Any, number: int, limits: Limits, notices: Notices) -> Tensor:
    """Convert a source to the network's input, (time,) ids or (time, features).

    Args:
        transform: the transform of a classifier's sources.
        source: see `classify`.
        number: its number, for messages.
        limits: maximum sizes.
        notices: receives a message where the source is changed.

    Raises:
        ValueError: a source that can't be read.
    """
    if isinstance(transform, Tokenizer):
        return _text(transform, source, number, limits, notices)
    name = str(source) if isinstance(source, (str, PathLike)) else f"source {number}"
    try:
        if isinstance(transform, AudioFeatures):
            read = transform(_samples(source, name, transform.rate, limits, notices))
        elif isinstance(transform, ImageSequence):
            read = transform.encode(source, max_pixels=limits.pixels)
        else:
            read = transform.encode(source)
    except (ValueError, OSError) as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    if len(read) == 0:
        raise ValueError(f"{name} has no steps")
    if not bool(read.isfinite().all()):
        raise ValueError(f"{name} has numbers that are not finite, or too large for float32")
    return read


def _text(tokenizer: Tokenizer, source: Any, number: int, limits: Limits, notices: Notices) -> Tensor:
    if not isinstance(source, str):
        raise ValueError(f"source {number} is {article(type(source).__name__)}; this network reads text")
    ids = tokenizer.encode(" ".join(source.split()))
    if not ids:
        raise ValueError(f"source {number}: the text {source!r:.60} has no known {tokenizer.unit}")
    if len(ids) > limits.steps:
        notices.each(
            f"source {number} has {len(ids):,} {tokenizer.unit}s, more than max_length={limits.steps}: it is truncated"
        )
    return torch.tensor(ids[: limits.steps])


def _samples(source: Any, name: str, rate: int, limits: Limits, notices: Notices) -> Tensor:
    recording = open_recording(source, name, max_seconds=limits.seconds)
    for kind, message in recording.notices(name, rate).items():
        notices.once(kind, message)
    return resample(recording.samples, recording.rate, rate)
