"""Classification and regression of sources of any kind with a trained network."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.reading import MAX_LENGTH, Limits, read_in_batches
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.labels import LabelsHead
from unrolled.models.classifier import SequenceClassifier
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS
from unrolled.processing.frames import ImageSequence
from unrolled.processing.images import MAX_PIXELS
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Transform
from unrolled.wording import article


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
            tensors or arrays (time, channels), or paths of .csv files with a row for each step.
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
    found = read_in_batches(
        *predicting(bundle), sources, batch_size=batch_size, ahead=ahead, limits=limits, notice=notice
    )
    return (each for each in found if each is not None)


def predicting(bundle: Bundle) -> tuple[Transform, Callable[[Tensor, Tensor], list[Prediction]]]:
    """Return the transform of a classifier's sources, and what predicts for a padded batch; see `read_in_batches`.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, source, target = classifier_of(bundle)
    device = next(network.parameters()).device

    def predict(padded: Tensor, lengths: Tensor) -> list[Prediction]:
        with torch.no_grad():
            values = predicted_values(network, network(padded.to(device), lengths), target)
        return [prediction(row, target) for row in values]

    return source, predict


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
