"""Classification and regression of sources of any kind with a trained network."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.checkpoint import Bundle
from unrolled.models.classifier import SequenceClassifier
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS, read_recording, resample
from unrolled.processing.frames import ImageSequence
from unrolled.processing.images import MAX_PIXELS, read_image
from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.processing.text.base import Codec
from unrolled.wording import article

TargetCodec = LabelCodec | NumberCodec
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


def predicted_values(outputs: Tensor, codec: TargetCodec) -> Tensor:
    """Convert a classifier's outputs (…, outputs) to probabilities of labels, or to numbers in their own units.

    Numbers are float64 on the CPU, since float32 is too coarse for small changes of large numbers.
    """
    if isinstance(codec, LabelCodec):
        return outputs.sigmoid() if codec.multiple else outputs.softmax(-1)
    if codec.bounded:
        return outputs.sigmoid()
    centers, scales = (torch.tensor(each, dtype=torch.float64) for each in (codec.centers, codec.scales))
    return outputs.cpu().double() * scales + centers


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
    limits: Limits = Limits(),  # noqa: B008  # immutable
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
    network, codec = classifier_of(bundle)
    if isinstance(sources, str | bytes):
        raise ValueError(f"sources is {sources!r:.60}, expected a list of sources")
    if min(batch_size, ahead, *limits) <= 0:
        raise ValueError(f"batch_size={batch_size}, ahead={ahead}, {limits}: expected 1 or more")
    tensors = _tensors(sources, codec, limits, Notices(notice), on_error)
    return _stream(network, codec, tensors, batch_size, ahead, progress)


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
    source = classifier_of(bundle)[1].source
    if isinstance(source, Codec):
        return "text"
    return {AudioFeatures: "sound", ImageSequence: "pictures"}.get(type(source), "series")


def prediction(values: Tensor, codec: TargetCodec) -> Prediction:
    """Return the prediction of a row of `predicted_values`."""
    if isinstance(codec, NumberCodec):
        return Prediction("", dict(zip(codec.names, values.tolist(), strict=True)))
    order = values.argsort(descending=True, stable=True).tolist()
    named = {codec.labels[index]: float(values[index]) for index in order}
    if codec.multiple:
        return Prediction(", ".join(label for label, sure in named.items() if sure > 0.5), named)
    return Prediction(codec.labels[order[0]], named)


def classifier_of(bundle: Bundle) -> tuple[SequenceClassifier, TargetCodec]:
    """Return the network and the codec of a classifier.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, codec = bundle.network, bundle.codec
    if not isinstance(network, SequenceClassifier) or not isinstance(codec, LabelCodec | NumberCodec):
        raise ValueError(
            f"classification needs a SequenceClassifier; this checkpoint contains {article(type(network).__name__)}"
        )
    return network, codec


def _stream(
    network: SequenceClassifier,
    codec: TargetCodec,
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
                values = predicted_values(network(padded, lengths), codec)
            found |= {place: prediction(row, codec) for place, row in zip(places, values, strict=True)}
        done += len(taken)
        if progress is not None:
            progress(done, done)
        yield from (found.get(place) for place in range(len(taken)))


def _tensors(
    sources: Iterable[Any],
    codec: TargetCodec,
    limits: Limits,
    notices: Notices,
    on_error: Callable[[ValueError], None] | None,
) -> Iterator[Tensor | None]:
    for number, source in enumerate(sources, start=1):
        try:
            tensor = _read(source, codec, number, limits, notices)
        except ValueError as error:
            if on_error is None:
                raise
            on_error(error)
            tensor = None
        yield tensor


def _read(source: Any, codec: TargetCodec, number: int, limits: Limits, notices: Notices) -> Tensor:
    """Convert a source to the network's input, (time,) ids or (time, features)."""
    extractor = codec.source
    if isinstance(extractor, Codec):
        if not isinstance(source, str):
            raise ValueError(f"source {number} is {article(type(source).__name__)}; this network reads text")
        ids = codec.encode(" ".join(source.split()))
        if not ids:
            raise ValueError(f"source {number}: the text {source!r:.60} has no known {extractor.unit}")
        if len(ids) > limits.steps:
            notices.each(
                f"source {number} has {len(ids):,} {extractor.unit}s, more than max_length={limits.steps}: it is "
                "truncated"
            )
        return torch.tensor(ids[: limits.steps])
    name = str(source) if isinstance(source, (str, PathLike)) else f"source {number}"
    try:
        if isinstance(extractor, AudioFeatures):
            read = extractor(_samples(source, name, extractor.rate, limits, notices))
        elif isinstance(extractor, ImageSequence):
            read = extractor(_picture(source, extractor.channels, limits))
        else:
            read = extractor(_values(source, f"{article(_kind(extractor))} needs a tensor or an array"))
    except (ValueError, OSError) as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    if len(read) == 0:
        raise ValueError(f"{name} has no steps")
    if not bool(read.isfinite().all()):
        raise ValueError(f"{name} has numbers that are not finite, or too large for float32")
    return read


def _values(source: Any, wanted: str) -> Tensor:
    """Convert an array to a tensor, and check that it has real numbers."""
    if isinstance(source, str | bytes) or not (isinstance(source, Tensor) or hasattr(source, "__array__")):
        raise ValueError(f"it is {article(type(source).__name__)}; {wanted}")
    try:
        # A copy, since an array may be read-only, which tensors don't support.
        values = source if isinstance(source, Tensor) else torch.tensor(source.__array__())
    except (TypeError, ValueError, RuntimeError) as error:  # arrays of objects or text, or rows of unequal length
        raise ValueError(f"it is {article(type(source).__name__)} with values other than numbers: {error}") from None
    if values.is_complex():
        raise ValueError(f"it has complex numbers; {wanted}")
    return values


def _samples(source: Any, name: str, rate: int, limits: Limits, notices: Notices) -> Tensor:
    if isinstance(source, (str, PathLike)):
        recording = read_recording(name, max_seconds=limits.seconds)
        if recording.channels > 1:
            notices.once("channels", f"{name} has {recording.channels} channels, which are mixed to one")
        samples, own = recording.samples, recording.rate
    else:
        pair: Any = source if isinstance(source, tuple | list) and len(source) == 2 else (None, None)
        if not isinstance(pair[1], int | float) or pair[1] < 1 or pair[1] != int(pair[1]):
            raise ValueError(f"{name} is neither a path nor a pair (samples, rate), as in (samples, {rate})")
        samples, own = as_samples(pair[0]), int(pair[1])
    if len(samples) == 0:
        raise ValueError(f"{name} has no samples")
    if own != rate:
        notices.once("rate", f"{name} has a rate of {own} Hz; it is resampled to {rate} Hz")
    if not bool(samples.any()):
        notices.once("silence", f"{name} is silent throughout")
    return resample(samples, own, rate)


def as_samples(samples: Any) -> Tensor:
    """Return samples (time,) as a tensor of floats.

    Raises:
        ValueError: not one channel of floats, or samples that aren't finite.
    """
    values = _values(samples, "samples must be a tensor or an array (time,)")
    if values.dim() != 1 or not values.is_floating_point():
        raise ValueError(f"samples are {tuple(values.shape)} of {values.dtype}, expected floats (time,) from -1 to 1")
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(f"sample {int(wrong[0])} of {len(values)} is not finite")
    return values.float()


def _picture(source: Any, channels: int, limits: Limits) -> Tensor:
    """Return an image (channels, height, width) with values from 0 to 1."""
    if not isinstance(source, Tensor):
        image = read_image(source, max_pixels=limits.pixels)
        picture = image if channels == 3 else image.convert("L")
        flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return flat.view(picture.height, picture.width, channels).permute(2, 0, 1) / 255
    picture = source / 255 if source.dtype == torch.uint8 else source
    if picture.numel() and not bool(((picture >= 0) & (picture <= 1)).all()):
        raise ValueError("an image's values must be bytes, or from 0 to 1")
    return picture


def _kind(extractor: Any) -> str:
    return type(extractor).__name__
