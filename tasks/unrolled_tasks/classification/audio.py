"""Recordings, read as frames of mel bands or cepstra."""

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unrolled.processing.audio.augmentation import AudioAugmentation
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS, read_recording, resample
from unrolled.processing.labels import LabelCodec, NumberCodec
from unrolled.training.data.base import DataError
from unrolled.wording import counted
from unrolled_tasks.classification.examples import Example
from unrolled_tasks.classification.modalities import Modality, located

_log = logging.getLogger(__name__)


class Audio(Modality):
    """WAV, FLAC, OGG and MP3 files of folders, tables and data sets of the hub, mixed to one channel.

    Args:
        features: a partial `AudioFeatures`, to be completed with the rate.
        rate: samples a second to which all recordings are brought; None for that of the first.
        augmentation: what training changes at random; None for nothing, and then features are made once.
        max_seconds: a longer recording is refused, before it is decoded where its header tells its length.

    Raises:
        DataError: options that no features can be made with, or a limit that is not above 0.
    """

    reads: ClassVar[type] = AudioFeatures
    data: ClassVar[str] = "speech"
    suffixes: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".ogg", ".mp3")
    what: ClassVar[str] = "recordings (.wav, .flac, .ogg, .mp3)"

    def __init__(
        self,
        features: Callable[..., AudioFeatures],
        rate: int | None = None,
        augmentation: AudioAugmentation | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        if not max_seconds > 0:
            raise DataError(f"max_seconds={max_seconds}: above 0")
        self._features = features
        self.rate = rate
        self.augmentation = augmentation
        self.max_seconds = max_seconds
        self._cut_off: list[str] = []
        self._said: set[str] = set()
        try:
            features(rate=rate or 16000)
        except ValueError as error:
            raise DataError(f"features: {error}") from error

    @property
    def augments(self) -> bool:
        return self.augmentation is not None

    @property
    def cut_off(self) -> Sequence[str]:
        return self._cut_off

    def open(self, example: Example) -> Tensor:
        source = located(example)
        if not isinstance(source, bytes | Path):
            raise ValueError(f"its source is no recording but {example.source!r:.80}")
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        name = str(source) if isinstance(source, Path) else example.place
        recording = read_recording(opened, name, max_seconds=self.max_seconds, partial=self.partial)
        if recording.cut_off:
            self._cut_off.append(f"{name}: {recording.cut_off}")
        if self.rate is None:
            self.rate = recording.rate
        if recording.channels > 1:
            self._say("channels", f"{example.place} has {recording.channels} channels, which are mixed into one")
        if recording.rate != self.rate:
            said = f"{example.place} has {recording.rate} samples a second; it is resampled to {self.rate}"
            self._say("rate", said)
        if not bool(recording.samples.any()):
            self._say("silence", f"{example.place} is silent throughout")
        return resample(recording.samples, recording.rate, self.rate)

    def fit(self, sources: Sequence[Tensor]) -> AudioFeatures:
        try:
            features = self._features(rate=self.rate)
        except ValueError as error:
            raise DataError(f"features: {error}") from error
        return features.fit(sources) if features.needs_fit else features

    def options(self) -> dict[str, Any]:
        features = self._features(rate=self.rate or 16000).to_dict()
        return {"rate": self.rate, "partial": self.partial, "max_seconds": self.max_seconds, "features": features}

    def restore(self, codec: LabelCodec | NumberCodec) -> None:
        super().restore(codec)
        self.rate = codec.source.rate

    def read(self, source: Tensor, extractor: AudioFeatures) -> Tensor:
        return extractor(source)

    def steps(self, source: Tensor, extractor: AudioFeatures) -> int:
        if extractor.trim is not None:
            return len(extractor(source))
        return max(0, len(source) - extractor.window_samples) // extractor.hop_samples + 1

    def augmented(self, sources: Sequence[Tensor], extractor: AudioFeatures, seeds: Sequence[int]) -> list[Tensor]:
        if self.augmentation is None:
            return [extractor(source) for source in sources]
        return self.augmentation(sources, extractor, seeds)

    def shown(self, example: Example, source: Tensor) -> str:
        return example.source if isinstance(example.source, str) else example.place

    def describe(self, extractor: AudioFeatures) -> str:
        kind = f"{extractor.kind}, {extractor.normalize}"
        return f"{counted(extractor.output_size, 'feature')} ({kind}) at {extractor.rate} Hz"

    def _say(self, what: str, said: str) -> None:
        """Once for each kind of thing."""
        if what not in self._said:
            self._said.add(what)
            _log.warning("%s (said once, others may follow)", said)
