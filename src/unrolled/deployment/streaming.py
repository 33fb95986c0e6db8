"""Frames of audio streams, and their classification."""

from typing import Any

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import Prediction, classifier_of, predicted_values, prediction
from unrolled.models.classifier import ClassifierState
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import StreamingResampler, as_samples
from unrolled.wording import article


class FrameStream:
    """Converts a stream of audio samples to frames.

    Args:
        features: the frames, which don't depend on later samples.
        rate: sampling rate of the stream in hertz; it is resampled to the rate of the features.
        like: a tensor with the device and dtype of the frames.

    Raises:
        ValueError: features that need whole recordings, or an invalid rate.
    """

    def __init__(self, features: AudioFeatures, rate: int, like: Tensor) -> None:
        self.features, self._like = features, like
        self._resampler = StreamingResampler(rate, features.rate)
        self._state = features.initial_state(1, like=like)
        self._frames = 0

    @property
    def fed(self) -> bool:
        """Whether there were any samples."""
        return self._resampler.count > 0

    def feed(self, samples: Any) -> Tensor:
        """Return the frames (1, frames, features) that new samples (time,) from −1 to 1 complete.

        Raises:
            ValueError: not one channel of floats, or samples that aren't finite.
        """
        return self._process(self._resampler.feed(as_samples(samples)))

    def finish(self) -> Tensor:
        """Return the last frames (1, frames, features). A stream shorter than a frame is padded with silence."""
        frames = self._process(self._resampler.flush())
        if self._frames or not self.fed:
            return frames
        return self._process(torch.zeros(self.features.window_samples - self._state.samples.shape[1]))

    def _process(self, samples: Tensor) -> Tensor:
        frames, self._state = self.features.step(samples.to(self._like).unsqueeze(0), self._state)
        self._frames += frames.shape[1]
        return frames


class StreamingClassifier:
    """Classifies a stream of audio samples, as from a microphone: `feed` pieces of any length, then `finish`.

    Args:
        bundle: an audio classifier that was trained with `encoder.frame.bidirectional=false`, and with features that
            don't depend on later samples.
        rate: sampling rate of the stream in hertz; it is resampled to the rate of the features.

    Raises:
        ValueError: a classifier that needs whole recordings, or an invalid rate.
    """

    def __init__(self, bundle: Bundle, rate: int) -> None:
        self.network, source, self.target = classifier_of(bundle)
        if not isinstance(source, AudioFeatures):
            raise ValueError(
                f"streaming needs an audio classifier; the sources of this one are read by "
                f"{article(type(source).__name__)}"
            )
        if not self.network.streams:
            raise ValueError(
                "this network is bidirectional; for streaming, train it with encoder.frame.bidirectional=false"
            )
        self.features, self.rate = source, rate
        self._like = next(self.network.parameters())
        self.restart()

    def restart(self) -> None:
        """Reset the state: the next samples start a new stream."""
        self._stream = FrameStream(self.features, self.rate, self._like)
        self._state: ClassifierState = self.network.initial_state(1)
        self._prediction: Prediction | None = None

    def feed(self, samples: Any) -> Prediction | None:
        """Process new samples (time,) from −1 to 1; return the prediction, or None if they complete no frame.

        Raises:
            ValueError: not one channel of floats, or samples that aren't finite.
        """
        return self._process(self._stream.feed(samples))

    def finish(self) -> Prediction:
        """Return the prediction for the whole stream, and reset the state.

        The prediction equals that of `classify` for the whole recording. A stream shorter than a frame is padded with
        silence.

        Raises:
            ValueError: no samples were fed.
        """
        if self._stream.fed:
            self._process(self._stream.finish())
        final = self._prediction
        self.restart()
        if final is None:
            raise ValueError("no samples were fed: there is nothing to classify")
        return final

    @torch.no_grad()
    def _process(self, frames: Tensor) -> Prediction | None:
        """Process frames (1, frames, features); return the prediction after the last one."""
        outputs = None
        for frame in frames.unbind(1):
            outputs, self._state = self.network.step(frame, self._state)
        if outputs is None:
            return None
        self._prediction = prediction(predicted_values(self.network, outputs, self.target)[0], self.target)
        return self._prediction
