"""A classifier that reads samples as they arrive."""

from typing import Any

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import Prediction, as_samples, classifier_of, predicted_values, prediction
from unrolled.models.classifier import ClassifierState
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import StreamingResampler
from unrolled.wording import article


class StreamingClassifier:
    """A classifier that reads samples as they arrive, as from a microphone: `feed` pieces of any length, then `finish`.

    Args:
        bundle: a classifier of sound that was trained with `encoder.frame.bidirectional=false` and features that need
            nothing that comes later.
        rate: samples a second of what arrives, in hertz; where the network's features have another, it is resampled.

    Raises:
        ValueError: a classifier that needs the end of a recording, or a rate that is none.
    """

    def __init__(self, bundle: Bundle, rate: int) -> None:
        self.network, self.codec = classifier_of(bundle)
        source = self.codec.source
        if not isinstance(source, AudioFeatures):
            raise ValueError(
                f"only a classifier of sound listens; this one reads with {article(type(source).__name__)}"
            )
        if not self.network.streams:
            raise ValueError(
                "this network reads backwards too; train it with encoder.frame.bidirectional=false to listen"
            )
        self.features, self.rate = source, rate
        self._like = next(self.network.parameters())
        self.restart()

    def restart(self) -> None:
        """Forgets all that was fed."""
        self._arriving = StreamingResampler(self.rate, self.features.rate)
        self._ears = self.features.initial_state(1, like=self._like)
        self._memory: ClassifierState = self.network.initial_state(1)
        self._said: Prediction | None = None

    def feed(self, samples: Any) -> Prediction | None:
        """New samples (time,) from −1 to 1: what is said now, or None while no further frame is whole.

        Raises:
            ValueError: other than one channel of floats, or one that is not finite, with its place.
        """
        return self._read(self._arriving.feed(as_samples(samples)))

    def finish(self) -> Prediction:
        """The end: what is said about all that was fed, which is then forgotten.

        It is what `classify` says about the whole recording. What is shorter than a frame is filled with silence.

        Raises:
            ValueError: nothing was fed.
        """
        if self._arriving.count:
            self._read(self._arriving.flush())
            if self._said is None:
                self._read(torch.zeros(self.features.window_samples - self._ears.samples.shape[1]))
        said = self._said
        self.restart()
        if said is None:
            raise ValueError("no sample was fed: there is nothing to answer")
        return said

    @torch.no_grad()
    def _read(self, samples: Tensor) -> Prediction | None:
        """Samples at the features' rate: what is said after the last frame that they complete."""
        frames, self._ears = self.features.step(samples.to(self._like).unsqueeze(0), self._ears)
        outputs = None
        for frame in frames.unbind(1):
            outputs, self._memory = self.network.step(frame, self._memory)
        if outputs is None:
            return None
        self._said = prediction(predicted_values(outputs, self.codec)[0], self.codec)
        return self._said
