"""Recordings: a modality, read as frames of mel bands or cepstral coefficients."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor

from unrolled.processing.audio.augmentation import AudioAugmentation
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS, open_recording, resample
from unrolled.processing.transform import Transform
from unrolled.training.data.base import DataError
from unrolled.training.data.examples import Example
from unrolled.training.data.modalities import Modality, located
from unrolled.wording import counted

_log = logging.getLogger(__name__)


class Audio(Modality):
    """WAV, FLAC, OGG and MP3 recordings from folders, tables and data sets of the hub, mixed to one channel.

    Args:
        features: a partial of `AudioFeatures`, called with the sampling rate.
        rate: sampling rate in Hz to which recordings are resampled; None for that of the first recording.
        augmentation: augmentation of training recordings; None to compute the features only once.
        max_seconds: maximum length of a recording, checked before decoding if the header contains the length.

    Raises:
        DataError: invalid options of the features, or a limit of 0 or less.
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
            raise DataError(f"max_seconds={max_seconds}: must be above 0")
        self._features = features
        self.rate = rate
        self.augmentation = augmentation
        self.max_seconds = max_seconds
        self._truncated: list[str] = []
        self._warned: set[str] = set()
        try:
            features(rate=rate or 16000)
        except ValueError as error:
            raise DataError(f"features: {error}") from error

    @property
    def augments(self) -> bool:
        return self.augmentation is not None

    @property
    def truncated(self) -> Sequence[str]:
        return self._truncated

    def open(self, example: Example) -> Tensor:
        source = located(example)
        if not isinstance(source, bytes | Path):
            raise ValueError(f"its source is {example.source!r:.80}, not a recording")
        name = str(source) if isinstance(source, Path) else example.place
        recording = open_recording(source, name, max_seconds=self.max_seconds, partial=self.partial)
        if recording.cut_off:
            self._truncated.append(f"{name}: {recording.cut_off}")
        if self.rate is None:
            self.rate = recording.rate
        for kind, message in recording.notices(example.place, self.rate).items():
            self._warn_once(kind, message)
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

    def restore(self, transform: Transform) -> None:
        super().restore(transform)
        self.rate = cast("AudioFeatures", transform).rate

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

    def display_name(self, example: Example, source: Tensor) -> str:
        return example.source if isinstance(example.source, str) else example.place

    def describe(self, extractor: AudioFeatures) -> str:
        kind = f"{extractor.kind}, {extractor.normalization}"
        return f"{counted(extractor.output_size, 'feature')} ({kind}) at {extractor.rate} Hz"

    def _warn_once(self, kind: str, message: str) -> None:
        """Logs the first warning of each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s (logged once, other recordings may be affected)", message)
