"""Labels and numbers for sources of any kind, by a trained network."""

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
"""Steps of a text that are read unless another length is asked for."""


class Prediction(NamedTuple):
    """What a network says about one source.

    Attributes:
        label: the likeliest label; of several independent ones those with more than one half, between commas; empty
            for numbers.
        values: the probability of each label, the likeliest first; or numbers by their names.
    """

    label: str
    values: dict[str, float]

    @property
    def probability(self) -> float:
        """Of the likeliest label."""
        return next(iter(self.values.values()))


class Limits(NamedTuple):
    """How much is read of one file.

    Attributes:
        pixels: of a picture.
        seconds: of a recording.
        steps: of a text, which is cut after them.
    """

    pixels: int = MAX_PIXELS
    seconds: float = MAX_SECONDS
    steps: int = MAX_LENGTH


def predicted_values(outputs: Tensor, codec: TargetCodec) -> Tensor:
    """What a classifier's outputs (…, outputs) mean: probabilities of the labels, or numbers in their own units.

    Numbers are float64 on the CPU: a float32 far from zero has few places left for what was predicted.
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
    """One prediction for each source, in order.

    Args:
        bundle: a classifier from `load_bundle`.
        sources: for words, texts; for sound, paths of recordings or pairs (samples (time,), rate); for pictures,
            tensors (channels, height, width) of bytes or from 0 to 1, or whatever `processing.images.read_image` takes;
            for series, tensors or arrays (time, channels).
        batch_size: sources that are read at once.
        ahead: sources taken before the first of them is answered, so that those of similar length go together.
        max_pixels: a file with a larger picture is refused before it is decoded.
        max_seconds: a longer recording is refused.
        max_length: steps of a text that are read; what is longer is cut after them.
        notice: is told, once for each kind, that recordings are resampled, mixed or silent, and of each text that is
            cut.

    Raises:
        ValueError: a network that classifies nothing; a source that cannot be read, which is named.
    """
    limits = Limits(max_pixels, max_seconds, max_length)
    found = predictions(bundle, sources, batch_size=batch_size, ahead=ahead, limits=limits, notice=notice)
    return (said for said in found if said is not None)


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
    """As `classify`, going on behind a source that cannot be read.

    Args:
        bundle: see `classify`.
        sources: see `classify`.
        batch_size: see `classify`.
        ahead: see `classify`.
        limits: see `classify`.
        notice: see `classify`.
        on_error: is told of each source that cannot be read, in whose place None is given; None raises the error.
        progress: is told, time and again, how many of the sources that were taken are answered.

    Raises:
        ValueError: see `classify`.
    """
    network, codec = classifier_of(bundle)
    if isinstance(sources, str | bytes):
        raise ValueError(f"sources={sources!r:.60} is one; give a list of them")
    if min(batch_size, ahead, *limits) <= 0:
        raise ValueError(f"batch_size={batch_size}, ahead={ahead} and all {limits} are 1 or more")
    tensors = _tensors(sources, codec, limits, Once(notice), on_error)
    return _stream(network, codec, tensors, batch_size, ahead, progress)


class Once:
    """Says each kind of thing once, unless it is said of each source."""

    def __init__(self, notice: Callable[[str], None] | None) -> None:
        self._notice, self._said = notice, set[str]()

    def __call__(self, kind: str, said: str) -> None:
        if self._notice is not None and kind not in self._said:
            self._notice(f"{said} (said once, others may follow)")
        self._said.add(kind)

    def each(self, said: str) -> None:
        """Says this in any case."""
        if self._notice is not None:
            self._notice(said)


def reads(bundle: Bundle) -> str:
    """What a classifier wants: "text", "sound", "pictures" or "series"."""
    source = classifier_of(bundle)[1].source
    if isinstance(source, Codec):
        return "text"
    return {AudioFeatures: "sound", ImageSequence: "pictures"}.get(type(source), "series")


def prediction(values: Tensor, codec: TargetCodec) -> Prediction:
    """A row of `predicted_values` with its names."""
    if isinstance(codec, NumberCodec):
        return Prediction("", dict(zip(codec.names, values.tolist(), strict=True)))
    order = values.argsort(descending=True, stable=True).tolist()
    named = {codec.labels[index]: float(values[index]) for index in order}
    if codec.multiple:
        return Prediction(", ".join(label for label, sure in named.items() if sure > 0.5), named)
    return Prediction(codec.labels[order[0]], named)


def classifier_of(bundle: Bundle) -> tuple[SequenceClassifier, TargetCodec]:
    """The network and the codec of a classifier.

    Raises:
        ValueError: the checkpoint holds something else.
    """
    network, codec = bundle.network, bundle.codec
    if not isinstance(network, SequenceClassifier) or not isinstance(codec, LabelCodec | NumberCodec):
        raise ValueError(f"only a SequenceClassifier classifies; this checkpoint holds {type(network).__name__}")
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
                said = predicted_values(network(padded, lengths), codec)
            found |= {place: prediction(row, codec) for place, row in zip(places, said, strict=True)}
        done += len(taken)
        if progress is not None:
            progress(done, done)
        yield from (found.get(place) for place in range(len(taken)))


def _tensors(
    sources: Iterable[Any],
    codec: TargetCodec,
    limits: Limits,
    once: Once,
    on_error: Callable[[ValueError], None] | None,
) -> Iterator[Tensor | None]:
    for number, source in enumerate(sources, start=1):
        try:
            tensor = _read(source, codec, number, limits, once)
        except ValueError as error:
            if on_error is None:
                raise
            on_error(error)
            tensor = None
        yield tensor


def _read(source: Any, codec: TargetCodec, number: int, limits: Limits, once: Once) -> Tensor:
    """What the network reads of a source: (time,) ids or (time, features)."""
    extractor = codec.source
    if isinstance(extractor, Codec):
        if not isinstance(source, str):
            raise ValueError(f"source {number} is {article(type(source).__name__)}; this network reads text")
        ids = codec.encode(" ".join(source.split()))
        if not ids:
            raise ValueError(f"source {number}: the text {source!r:.60} has no {extractor.unit} that can be read")
        if len(ids) > limits.steps:
            once.each(
                f"source {number} has {len(ids):,} {extractor.unit}s, more than max_length={limits.steps}: it is cut "
                "after them"
            )
        return torch.tensor(ids[: limits.steps])
    name = str(source) if isinstance(source, (str, PathLike)) else f"source {number}"
    try:
        if isinstance(extractor, AudioFeatures):
            read = extractor(_samples(source, name, extractor.rate, limits, once))
        elif isinstance(extractor, ImageSequence):
            read = extractor(_picture(source, extractor.channels, limits))
        else:
            read = extractor(_values(source, f"{article(_kind(extractor))} takes tensors and arrays"))
    except (ValueError, OSError) as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    if len(read) == 0:
        raise ValueError(f"{name} has no step")
    if not bool(read.isfinite().all()):
        raise ValueError(f"{name} holds numbers that are not finite, or too large to be read")
    return read


def _values(source: Any, wanted: str) -> Tensor:
    """A tensor, or an array as one; text and other objects are none."""
    if isinstance(source, str | bytes) or not (isinstance(source, Tensor) or hasattr(source, "__array__")):
        raise ValueError(f"it is {article(type(source).__name__)}; {wanted}")
    try:
        # A copy, since an array over somebody else's memory may be read-only, which a tensor cannot be.
        values = source if isinstance(source, Tensor) else torch.tensor(source.__array__())
    except (TypeError, ValueError, RuntimeError) as error:  # of objects, of text, of rows of unequal length
        raise ValueError(
            f"it is {article(type(source).__name__)} that holds other things than numbers: {error}"
        ) from None
    if values.is_complex():
        raise ValueError(f"it holds complex numbers; {wanted}")
    return values


def _samples(source: Any, name: str, rate: int, limits: Limits, once: Once) -> Tensor:
    if isinstance(source, (str, PathLike)):
        recording = read_recording(name, max_seconds=limits.seconds)
        if recording.channels > 1:
            once("channels", f"{name} has {recording.channels} channels, which are mixed into one")
        samples, own = recording.samples, recording.rate
    else:
        pair: Any = source if isinstance(source, tuple | list) and len(source) == 2 else (None, None)
        if not isinstance(pair[1], int | float) or pair[1] < 1 or pair[1] != int(pair[1]):
            raise ValueError(f"{name} is neither a path nor a pair (samples, rate), as in (samples, {rate})")
        samples, own = as_samples(pair[0]), int(pair[1])
    if len(samples) == 0:
        raise ValueError(f"{name} holds no sample")
    if own != rate:
        once("rate", f"{name} has {own} samples a second; it is resampled to {rate}")
    if not bool(samples.any()):
        once("silence", f"{name} is silent throughout")
    return resample(samples, own, rate)


def as_samples(samples: Any) -> Tensor:
    """Samples (time,) as a tensor of floats.

    Raises:
        ValueError: other than one channel of floats, or one that is not finite, with its place.
    """
    values = _values(samples, "samples are a tensor or an array (time,)")
    if values.dim() != 1 or not values.is_floating_point():
        raise ValueError(f"samples {tuple(values.shape)} of {values.dtype}; floats (time,) from -1 to 1 are read")
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(f"sample {int(wrong[0])} of {len(values)} is not finite")
    return values.float()


def _picture(source: Any, channels: int, limits: Limits) -> Tensor:
    """A picture (channels, height, width) from 0 to 1."""
    if not isinstance(source, Tensor):
        image = read_image(source, max_pixels=limits.pixels)
        picture = image if channels == 3 else image.convert("L")
        flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return flat.view(picture.height, picture.width, channels).permute(2, 0, 1) / 255
    picture = source / 255 if source.dtype == torch.uint8 else source
    if picture.numel() and not bool(((picture >= 0) & (picture <= 1)).all()):
        raise ValueError("a picture's values are bytes, or go from 0 to 1")
    return picture


def _kind(extractor: Any) -> str:
    return type(extractor).__name__
