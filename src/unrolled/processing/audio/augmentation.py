"""Random augmentation of recordings in training: speed, pitch, voice, noise, masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import resample

_GRID = 20  # speeds are multiples of 1/20, so that few resampling filters are needed
_REGIONS = 4  # between five frequencies whose gain is drawn


class AudioAugmentation:
    """Random augmentation of a recording. Each option is drawn independently; 0 disables it.

    All random numbers of a recording come from its own seed, so they don't depend on the number of processes.

    Args:
        speed: s of a factor from 1 − s to 1 + s for speed and pitch together, in steps of 0.05 (Ko et al. 2015).
        warp: w of a factor from 1 − w to 1 + w for the frequencies of the bands (vocal tract length perturbation,
            Jaitly & Hinton 2013).
        stretch: s of a factor from 1 − s to 1 + s for the length; frames are interpolated.
        shift: maximum seconds of silence added before a recording, or removed from its start.
        trim: probability that quiet ends are removed, as a recorder with a level threshold does.
        min_trim: minimum of the threshold for quiet ends, in decibels below the loudest 1/50 second.
        max_trim: maximum of this threshold.
        padding: maximum seconds of silence added before and, drawn separately, after a recording, before noise is
            added.
        noise: probability that noise is added.
        min_snr: minimum signal-to-noise ratio in decibels.
        max_snr: maximum signal-to-noise ratio in decibels.
        gain: maximum gain or attenuation in decibels.
        tilt: maximum difference in decibels between the gains of the highest and the lowest frequency.
        equalizer: maximum gain or attenuation in decibels at each of five frequencies, with linear interpolation.
        band_masks: number of masks over bands (SpecAugment, Park et al. 2019).
        band_width: maximum number of bands in a mask.
        time_masks: number of masks over frames.
        time_width: maximum fraction of the frames in a mask.

    Raises:
        ValueError: a value below 0, or a factor that could reach 0.
    """

    def __init__(
        self,
        *,
        speed: float = 0.0,
        warp: float = 0.0,
        stretch: float = 0.0,
        shift: float = 0.0,
        trim: float = 0.0,
        min_trim: float = 15.0,
        max_trim: float = 45.0,
        padding: float = 0.0,
        noise: float = 0.0,
        min_snr: float = 5.0,
        max_snr: float = 30.0,
        gain: float = 0.0,
        tilt: float = 0.0,
        equalizer: float = 0.0,
        band_masks: int = 0,
        band_width: int = 8,
        time_masks: int = 0,
        time_width: float = 0.15,
    ) -> None:
        shares = {"speed": speed, "warp": warp, "stretch": stretch, "time_width": time_width}
        chances = {"trim": trim, "noise": noise}
        amounts = {"shift": shift, "padding": padding, "gain": gain, "tilt": tilt, "equalizer": equalizer}
        amounts |= {"band_masks": band_masks, "time_masks": time_masks}
        amounts |= {"min_trim": min_trim, "band_width": band_width}
        for name, value in {**shares, **chances, **amounts}.items():
            if not 0 <= value < float("inf") or (name in shares and value >= 1) or (name in chances and value > 1):
                raise ValueError(f"augmentation: {name}={value}: 0 or more, and below 1 where it is a share")
        for name, least, most in (("snr", min_snr, max_snr), ("trim", min_trim, max_trim)):
            if least > most:
                raise ValueError(f"augmentation: min_{name}={least} is above max_{name}={most}")
        self.speed, self.warp, self.stretch, self.shift = speed, warp, stretch, shift
        self.trim, self.min_trim, self.max_trim, self.padding = trim, min_trim, max_trim, padding
        self.noise, self.min_snr, self.max_snr, self.gain = noise, min_snr, max_snr, gain
        self.tilt, self.equalizer = tilt, equalizer
        self.band_masks, self.band_width = band_masks, band_width
        self.time_masks, self.time_width = time_masks, time_width

    def __call__(self, recordings: Sequence[Tensor], features: AudioFeatures, seeds: Sequence[int]) -> list[Tensor]:
        """Return frames (time, features) of augmented recordings (samples,), each with its own seed."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        changed = [self._sound(r, features.rate, g) for r, g in zip(recordings, generators, strict=True)]
        lengths = torch.tensor([len(samples) for samples in changed])
        samples = torch.nn.utils.rnn.pad_sequence(changed, batch_first=True)
        warps = [1 + self.warp * _between(g) for g in generators] if self.warp else None
        values, counts = features.features(samples, lengths, warps)
        rows = zip(values, counts.tolist(), generators, strict=True)
        return [self._frames(row[:count], features, g) for row, count, g in rows]

    def _sound(self, samples: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        if self.speed:
            steps = round(_GRID * (1 + self.speed * _between(generator)))
            samples = resample(samples, max(1, steps), _GRID)
        if self.shift:
            moved = round(self.shift * rate * _between(generator))
            kept = samples[max(0, -moved) :] if len(samples) + moved > 1 else samples
            samples = torch.nn.functional.pad(kept, (max(0, moved), 0))
        if self.trim and _uniform(generator) < self.trim:
            depth = self.min_trim + (self.max_trim - self.min_trim) * _uniform(generator)
            samples = _trimmed(samples, rate // 50, depth)
        if self.padding:
            before, after = (round(self.padding * rate * _uniform(generator)) for _ in range(2))
            samples = torch.nn.functional.pad(samples, (before, after))
        if self.tilt or self.equalizer:
            samples = self._filtered(samples, rate, generator)
        if self.noise and _uniform(generator) < self.noise:
            samples = samples + self._noise(samples, generator)
        if self.gain:
            samples = samples * 10 ** (self.gain * _between(generator) / 20)
        return samples

    def _filtered(self, samples: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        """Apply random gains along the mel scale, without a delay."""
        length = len(samples) + rate // 50  # padding for the filter's response, to avoid circular wrap-around
        spectrum = torch.fft.rfft(samples, length)
        mel = torch.log1p(torch.linspace(0, rate / 2, len(spectrum)) / 700)
        place = mel / mel[-1]
        knots = self.equalizer * (2 * torch.rand(_REGIONS + 1, generator=generator) - 1)
        left = (place * _REGIONS).long().clamp(max=_REGIONS - 1)
        curve = torch.lerp(knots[left], knots[left + 1], place * _REGIONS - left)
        decibels = curve + self.tilt * _between(generator) * (place - 0.5)
        return torch.fft.irfft(spectrum * 10 ** (decibels / 20), length)[: len(samples)]

    def _noise(self, samples: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise between white and pink, with a power relative to that of the recording."""
        white = torch.fft.rfft(torch.randn(len(samples), generator=generator))
        bins = torch.arange(1, len(white) + 1, dtype=torch.float32)
        noise = torch.fft.irfft(white * bins ** (-0.5 * _uniform(generator)), len(samples))
        decibels = self.min_snr + (self.max_snr - self.min_snr) * _uniform(generator)
        power = samples.square().mean() * 10 ** (-decibels / 10)
        return noise * (power / noise.square().mean().clamp(min=1e-12)).sqrt()

    def _frames(self, frames: Tensor, features: AudioFeatures, generator: torch.Generator) -> Tensor:
        if self.stretch and len(frames) > 1:
            length = max(1, round(len(frames) * (1 + self.stretch * _between(generator))))
            frames = torch.nn.functional.interpolate(frames.T[None], length, mode="linear", align_corners=True)[0].T
        if self.band_masks or self.time_masks:
            frames = self._masked(frames, features.base_size, generator)
        return frames

    def _masked(self, frames: Tensor, bands: int, generator: torch.Generator) -> Tensor:
        frames = frames.clone()
        mean = frames.mean(0)
        for _ in range(self.time_masks):
            width = int(len(frames) * self.time_width * _uniform(generator))
            start = int((len(frames) - width + 1) * _uniform(generator))
            frames[start : start + width] = mean
        for _ in range(self.band_masks):
            width = int((min(self.band_width, bands) + 1) * _uniform(generator))
            start = int((bands - width + 1) * _uniform(generator))
            for first in range(0, frames.shape[1], bands):  # deltas have the same masks
                frames[:, first + start : first + start + width] = mean[first + start : first + start + width]
        return frames


def _trimmed(samples: Tensor, size: int, depth: float) -> Tensor:
    """Remove frames of `size` samples at both ends that are more than `depth` decibels below the loudest frame."""
    power = torch.nn.functional.pad(samples, (0, -len(samples) % size)).view(-1, size).square().mean(1)
    loud = (power >= power.max() * 10 ** (-depth / 10)).nonzero()
    return samples[int(loud[0]) * size : (int(loud[-1]) + 1) * size]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(generator: torch.Generator) -> float:
    """Draw a number from −1 to 1."""
    return 2 * _uniform(generator) - 1
