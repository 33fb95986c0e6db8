"""Audio features of whole recordings or of streams of samples, with torch alone.

Spectra, mel bands, cepstra and deltas are defined as in librosa, without padding at the borders: a frame depends only
on its own samples, so it can be computed as soon as they arrive.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.processing.audio.recordings import MAX_SECONDS, open_recording, resample
from unrolled.processing.audio.spectra import cosine_transform, delta, mel_filter_bank, power_spectrum
from unrolled.processing.frames import FeatureExtractor, Moments
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import expect
from unrolled.wording import counted

KINDS = ("log_mel", "mfcc")
NORMALIZATIONS = ("none", "mean", "utterance", "level", "fitted", "running")
_NEED_FIT = ("level", "fitted", "running")
_WHOLE = ("mean", "utterance", "level")
_FLOOR = 1e-5  # minimum variance, so that silence becomes zeros
_LEAST_SCALE = 0.1  # relative to the median scale: features that hardly vary in training are not amplified


class Frames(NamedTuple):
    """Features of several recordings."""

    values: Tensor  # (batch, time, features), zero in the padding
    lengths: Tensor  # (batch,)


class StreamState(NamedTuple):
    """The state of streaming features between samples."""

    samples: Tensor  # (batch, fewer than a window): samples that later frames need
    num_frames: Tensor  # (batch, 1): number of frames so far
    total: Tensor  # (batch, features): their sum, in units of the training split
    square: Tensor  # (batch, features): the sum of their squares


class AudioFeatures(FeatureExtractor):
    """Log mel bands or mel-frequency cepstral coefficients of a recording, with optional deltas and normalization.

    Args:
        rate: sampling rate in hertz; other recordings must be resampled.
        kind: "log_mel" or "mfcc".
        num_mels: number of mel bands between `low` and `high`.
        num_coefficients: number of cepstral coefficients, including the first.
        window: length of a frame in seconds.
        hop: seconds from one frame to the next.
        low: lowest frequency in hertz.
        high: highest frequency in hertz; None for half the rate.
        preemphasis: a of x_t − a x_{t−1} within a frame; 0 for none.
        floor: minimum power of a band, relative to full scale.
        depth: dynamic range in decibels: power is clamped to this much below the loudest band of a whole recording, so
            that the noise of rooms and microphones has no effect; None for `floor` alone.
        trim: decibels below the loudest frame of a whole recording; quieter frames at the start and the end are
            removed, except one on each side. None to keep all frames.
        deltas: number of derivatives that are added to the features, 0, 1 or 2.
        normalization: "none" for no normalization. "mean" subtracts the mean of each feature over the recording, and
            "utterance" also divides by the standard deviation. "fitted" uses mean and standard deviation of the
            training split. "level" subtracts the loudest frame's level from all bands alike, which keeps the spectral
            shape of a short word, and then normalizes as "fitted". "running" uses the frames so far and the training
            split with the weight of `prior` frames. "mean", "utterance" and "level" need the whole recording.
        centers: mean of each feature over the training split, for "level", "fitted" and "running".
        scales: standard deviation of each feature over the training split.
        prior: weight of the training split for "running", in frames.

    Raises:
        ValueError: options outside their ranges.
    """

    bank: Tensor
    taper: Tensor
    cosines: Tensor
    centers: Tensor
    scales: Tensor

    def __init__(
        self,
        rate: int,
        kind: str = "log_mel",
        num_mels: int = 40,
        num_coefficients: int = 13,
        window: float = 0.025,
        hop: float = 0.010,
        low: float = 20.0,
        high: float | None = None,
        preemphasis: float = 0.0,
        floor: float = 1e-8,
        depth: float | None = None,
        trim: float | None = None,
        deltas: int = 0,
        normalization: str = "utterance",
        centers: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
        prior: int = 50,
    ) -> None:
        super().__init__()
        if kind not in KINDS or normalization not in NORMALIZATIONS or deltas not in (0, 1, 2):
            raise ValueError(
                f"kind={kind!r}, normalization={normalization!r}, deltas={deltas}: expected a kind of "
                f"{', '.join(KINDS)}, a normalization of {', '.join(NORMALIZATIONS)}, and 0, 1 or 2 deltas"
            )
        if (
            min(rate, num_mels, num_coefficients, prior, floor) <= 0
            or any(each is not None and not each > 0 for each in (depth, trim))
            or not hop * rate > 0
            or window * rate < 2
        ):
            raise ValueError(
                f"rate={rate}, num_mels={num_mels}, num_coefficients={num_coefficients}, window={window}, hop={hop}, "
                f"floor={floor}, depth={depth}, trim={trim}, prior={prior}: expected values above 0, and two or more "
                "samples in a window"
            )
        if not 0 <= low < (high or rate / 2) <= rate / 2 or (kind == "mfcc" and num_coefficients > num_mels):
            raise ValueError(
                f"low={low}, high={high}, num_coefficients={num_coefficients}: expected frequencies from 0 to half of "
                f"rate={rate}, and at most num_mels={num_mels} coefficients"
            )
        self.rate, self.kind, self.num_mels, self.num_coefficients = rate, kind, num_mels, num_coefficients
        self.window, self.hop, self.low, self.high = window, hop, low, high
        self.preemphasis, self.floor, self.deltas = preemphasis, floor, deltas
        self.normalization, self.prior = normalization, prior
        self.window_samples, self.hop_samples = round(window * rate), max(1, round(hop * rate))
        self.depth, self.trim = depth, trim
        self.fft_size = 1 << (self.window_samples - 1).bit_length()
        self.base_size = num_mels if kind == "log_mel" else num_coefficients
        self.output_size = self.base_size * (1 + deltas)
        self.register_buffer("bank", self._bank(1.0), persistent=False)
        self.register_buffer("taper", torch.hann_window(self.window_samples), persistent=False)
        self.register_buffer("cosines", cosine_transform(num_mels, num_coefficients), persistent=False)
        for name, given, default in (("centers", centers, 0.0), ("scales", scales, 1.0)):
            if given is not None and len(given) != self.output_size:
                raise ValueError(f"{name} has {counted(len(given), 'number')}, expected {self.output_size}")
            self.register_buffer(
                name, torch.tensor([default] * self.output_size if given is None else list(given)), persistent=False
            )
        self.fitted = centers is not None and scales is not None

    @property
    def streams(self) -> bool:
        """Whether frames can be computed from a stream: none depends on later samples, or leaves samples out."""
        whole = self.deltas > 0 or self.depth is not None or self.trim is not None or self.normalization in _WHOLE
        return not whole and self.hop_samples <= self.window_samples

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` must be called with the training split before features can be computed."""
        return self.normalization in _NEED_FIT

    def forward(self, source: Tensor) -> Tensor:
        """Compute features (frames, features) of samples (time,) from −1 to 1."""
        expect(source, "samples", name="samples")
        return self.features(source.unsqueeze(0), torch.tensor([len(source)])).values[0]

    def features(self, samples: Tensor, lengths: Tensor, warps: Sequence[float] | None = None) -> Frames:
        """Compute features of several recordings at once.

        Args:
            samples: (batch, samples), padded.
            lengths: (batch,) numbers of valid samples, 1 or more.
            warps: for each recording, a factor for its frequencies (vocal tract length perturbation, Jaitly & Hinton
                2013).

        Raises:
            ValueError: an empty recording, or features that aren't fitted yet.
        """
        expect(samples, "batch samples", name="samples")
        expect(lengths, "batch", batch=len(samples), name="lengths")
        if len(lengths) and int(lengths.min()) < 1:
            raise ValueError("a recording without a sample has no features")
        samples = samples.masked_fill(~mask_from_lengths(lengths, samples.shape[1]), 0.0)
        frames = self.num_frames(lengths)
        mels = self._mels(_framed(samples, self.window_samples, self.hop_samples), warps)
        if self.trim is not None:
            mels, frames = _trimmed(mels, frames, self.trim)
        return Frames(self._normalized(self._with_deltas(self._base(mels, frames), frames), frames), frames)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Return numbers of frames (batch,), before trimming, for numbers of samples (batch,): 1 or more each."""
        return ((lengths - self.window_samples).clamp(min=0) // self.hop_samples + 1).long()

    def fit(self, recordings: Sequence[Tensor]) -> "AudioFeatures":
        """Return the same features with centers and scales of the training split's recordings (samples,).

        Scales are at least a tenth of the median scale, separately for the features and their derivatives.
        """
        kept: dict[str, Any] = {k: v for k, v in self.to_dict().items() if k not in ("_target_", "centers", "scales")}
        count = len(self.centers)
        unscaled: dict[str, Any] = {**kept, "centers": [0.0] * count, "scales": [1.0] * count}
        unscaled["normalization"] = self.normalization if self.normalization == "level" else "none"
        plain = AudioFeatures(**unscaled)
        moments = Moments()
        for recording in recordings:
            moments.update(plain(recording))
        centers, scales = moments.result()
        blocks = [scales[first : first + self.base_size] for first in range(0, count, self.base_size)]
        scales = [max(scale, _LEAST_SCALE * median(block)) for block in blocks for scale in block]
        return AudioFeatures(**kept, centers=centers, scales=scales)

    def encode(self, value: Any, *, max_seconds: float = MAX_SECONDS) -> Tensor:
        """Open a recording, see `open_recording`, and return its frames (time, output_size)."""
        recording = open_recording(value, max_seconds=max_seconds)
        return self(resample(recording.samples, recording.rate, self.rate))

    def initial_state(self, batch: int, *, like: Tensor) -> StreamState:
        """Return the state before the first sample.

        Raises:
            ValueError: features that depend on later samples, or a hop longer than the window.
        """
        if self.hop_samples > self.window_samples:
            raise ValueError(
                f"hop={self.hop} is longer than window={self.window}, so frames leave out samples; for streaming, "
                "train with a hop of at most the window"
            )
        if not self.streams:
            raise ValueError(
                f"normalization={self.normalization}, deltas={self.deltas}, depth={self.depth} or trim={self.trim} "
                "needs later samples; for streaming, train with normalization=running (or fitted), deltas=0, "
                "depth=null and trim=null"
            )
        nothing = like.new_zeros(batch, self.output_size)
        return StreamState(like.new_zeros(batch, 0), like.new_zeros(batch, 1), nothing, nothing)

    def step(self, samples: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Process new samples (batch, samples), and return the frames (batch, frames, features) that they complete.

        All frames together equal the result of `forward` for a recording of one window or more.
        """
        expect(samples, "batch samples", batch=len(state.samples), name="samples")
        buffered = torch.cat([state.samples, samples], dim=1)
        count = (buffered.shape[1] - self.window_samples) // self.hop_samples + 1
        if count < 1:
            return buffered.new_zeros(len(buffered), 0, self.output_size), state._replace(samples=buffered)
        base = self._base(self._mels(_framed(buffered, self.window_samples, self.hop_samples), None), None)
        state = state._replace(samples=buffered[:, count * self.hop_samples :])
        if self.normalization == "running":
            return self._running(base, state)
        return (base - self.centers) / self.scales if self.normalization == "fitted" else base, state

    def to_dict(self) -> dict[str, Any]:
        names = "rate kind num_mels num_coefficients window hop low high preemphasis floor depth trim deltas"
        names += " normalization prior"
        fitted = {"centers": self.centers.tolist(), "scales": self.scales.tolist()} if self.fitted else {}
        plain = {name: getattr(self, name) for name in names.split()}
        return {"_target_": "unrolled.AudioFeatures", **plain, **fitted}

    def _mels(self, frames: Tensor, warps: Sequence[float] | None) -> Tensor:
        """Compute mel power (batch, time, mels), relative to full scale, of frames (batch, time, window)."""
        if self.preemphasis:
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = frames - self.preemphasis * before
        power = power_spectrum(frames * self.taper, self.fft_size)
        if warps is None or all(warp == 1.0 for warp in warps):
            mels = power @ self.bank
        else:
            mels = power @ torch.stack([self._bank(round(warp, 2)) for warp in warps])
        return mels / self.window_samples  # relative to a full-scale tone, for any window length

    def _base(self, mels: Tensor, counts: Tensor | None) -> Tensor:
        """Compute the features without derivatives (batch, time, base) of mels with `counts` valid frames."""
        logs = mels.clamp(min=self.floor).log()
        if counts is not None and (self.depth is not None or self.normalization == "level"):
            padding = ~mask_from_lengths(counts, logs.shape[1]).unsqueeze(-1)
            if self.depth is not None:
                loudest = logs.masked_fill(padding, -torch.inf).amax((1, 2), keepdim=True)
                logs = torch.maximum(logs, loudest - self.depth * math.log(10) / 10)
            if self.normalization == "level":
                power = mels.masked_fill(padding, 0.0).mean(-1, keepdim=True).amax(1, keepdim=True)
                logs = logs - power.clamp(min=self.floor).log()
        return logs if self.kind == "log_mel" else logs @ self.cosines

    def _bank(self, warp: float) -> Tensor:
        return mel_filter_bank(self.num_mels, self.fft_size, self.rate, self.low, self.high, warp)

    def _with_deltas(self, base: Tensor, lengths: Tensor) -> Tensor:
        parts = [base]
        for _ in range(self.deltas):
            parts.append(delta(parts[-1], lengths))
        return torch.cat(parts, dim=-1)

    def _normalized(self, values: Tensor, lengths: Tensor) -> Tensor:
        mask = mask_from_lengths(lengths, values.shape[1]).unsqueeze(-1)
        values = values.masked_fill(~mask, 0.0)
        if self.needs_fit and not self.fitted:
            raise ValueError(
                f"normalization={self.normalization} needs centers and scales of the training split: call fit()"
            )
        if self.normalization in ("mean", "utterance"):
            count = lengths.view(-1, 1, 1)
            values = values - values.sum(1, keepdim=True) / count
            if self.normalization == "utterance":
                variance = values.square().masked_fill(~mask, 0.0).sum(1, keepdim=True) / count
                values = values / (variance + _FLOOR).sqrt()
        elif self.normalization in ("level", "fitted"):
            values = (values - self.centers) / self.scales
        elif self.normalization == "running":
            nothing = values.new_zeros(len(values), self.output_size)
            start = StreamState(values.new_zeros(len(values), 0), values.new_zeros(len(values), 1), nothing, nothing)
            values, _ = self._running(values, start)
        return values.masked_fill(~mask, 0.0)

    def _running(self, values: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        values = (values - self.centers) / self.scales
        total = state.total.unsqueeze(1) + values.cumsum(1)
        square = state.square.unsqueeze(1) + values.square().cumsum(1)
        steps = torch.arange(1, values.shape[1] + 1, device=values.device, dtype=values.dtype).view(1, -1, 1)
        count = state.num_frames.unsqueeze(1) + steps
        mean = total / (self.prior + count)
        variance = (self.prior + square) / (self.prior + count) - mean.square()  # at least prior / (prior + count)
        state = state._replace(num_frames=count[:, -1], total=total[:, -1], square=square[:, -1])
        return (values - mean) / variance.sqrt(), state


def _framed(samples: Tensor, window: int, hop: int) -> Tensor:
    """Split samples (batch, samples) into frames (batch, frames, window), padding with zeros to one window."""
    if samples.shape[1] < window:
        samples = nn.functional.pad(samples, (0, window - samples.shape[1]))
    return samples.unfold(1, window, hop)


def _trimmed(mels: Tensor, counts: Tensor, trim: float) -> tuple[Tensor, Tensor]:
    """Remove frames at both ends of (batch, time, mels) that are more than `trim` decibels below the loudest frame."""
    _, time, bands = mels.shape
    steps = torch.arange(time, device=mels.device)
    power = mels.sum(-1).masked_fill(~mask_from_lengths(counts, time), -1.0)
    loud = power >= power.amax(1, keepdim=True) * 10 ** (
        -trim / 10
    )  # includes the loudest frame, so at least one remains
    first = (torch.where(loud, steps, time).amin(1) - 1).clamp(min=0)
    last = torch.minimum(torch.where(loud, steps, -1).amax(1) + 1, counts.to(steps) - 1)
    lengths = last - first + 1
    places = torch.minimum(first.unsqueeze(1) + steps[: int(lengths.max())], last.unsqueeze(1))
    return mels.gather(1, places.unsqueeze(-1).expand(-1, -1, bands)), lengths
