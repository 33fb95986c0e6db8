"""Recordings changed at random in training, so that a net learns what stays: speed, pitch, voice, noise, gaps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import resample

_GRID = 20  # speeds are twentieths, so that few filters do for all
_REGIONS = 4  # between five places whose level is drawn


class AudioAugmentation:
    """What may happen to a recording, each by itself; 0 leaves a thing out.

    Everything is drawn from one seed for each recording, so it is the same on one process as on several.

    Args:
        speed: s of a factor from 1 − s to 1 + s on speed and pitch together, in steps of 0.05 (Ko et al. 2015).
        warp: w of a factor from 1 − w to 1 + w on the frequencies of the bands, as another vocal tract would have
            (Jaitly & Hinton 2013).
        stretch: s of a factor from 1 − s to 1 + s on the length alone: frames are interpolated.
        shift: seconds of silence at most in front of a recording, or cut off it.
        trim: probability that the ends are cut off, as by a recorder that waits for loudness: an s may go.
        min_trim: decibels below the loudest fiftieth of a second under which ends are cut off, at least.
        max_trim: likewise, at most.
        padding: seconds of silence at most in front of a recording and, drawn by itself, behind it, before there is
            noise: how much silence there is says nothing about a word.
        noise: probability that noise is added.
        min_snr: of the noise, in decibels below the recording.
        max_snr: likewise.
        gain: decibels at most, louder or softer.
        tilt: decibels at most by which the highest frequency is raised over the lowest, or lowered: another voice.
        equalizer: decibels at most by which each of five frequencies is raised or lowered, with straight lines between
            them: another microphone and room.
        band_masks: runs of bands that are blanked (Park et al. 2019, SpecAugment).
        band_width: bands at most in each.
        time_masks: runs of frames that are blanked.
        time_width: share of the frames at most in each.

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
        """Samples (samples,) -> frames (time, features) of changed recordings, each by its own seed."""
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
            before, behind = (round(self.padding * rate * _uniform(generator)) for _ in range(2))
            samples = torch.nn.functional.pad(samples, (before, behind))
        if self.tilt or self.equalizer:
            samples = self._filtered(samples, rate, generator)
        if self.noise and _uniform(generator) < self.noise:
            samples = samples + self._noise(samples, generator)
        if self.gain:
            samples = samples * 10 ** (self.gain * _between(generator) / 20)
        return samples

    def _filtered(self, samples: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        """Louder here and softer there along the frequencies as they are heard, without a shift in time."""
        length = len(samples) + rate // 50  # room for what the filter spreads: nothing wraps round to the other end
        spectrum = torch.fft.rfft(samples, length)
        heard = torch.log1p(torch.linspace(0, rate / 2, len(spectrum)) / 700)
        place = heard / heard[-1]
        knots = self.equalizer * (2 * torch.rand(_REGIONS + 1, generator=generator) - 1)
        left = (place * _REGIONS).long().clamp(max=_REGIONS - 1)
        curve = torch.lerp(knots[left], knots[left + 1], place * _REGIONS - left)
        decibels = curve + self.tilt * _between(generator) * (place - 0.5)
        return torch.fft.irfft(spectrum * 10 ** (decibels / 20), length)[: len(samples)]

    def _noise(self, samples: Tensor, generator: torch.Generator) -> Tensor:
        """Noise between white and pink, so many decibels below the recording's own power."""
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
            for first in range(0, frames.shape[1], bands):  # deltas lose the same bands
                frames[:, first + start : first + start + width] = mean[first + start : first + start + width]
        return frames


def _trimmed(samples: Tensor, size: int, depth: float) -> Tensor:
    """From the first to the last frame of so many samples that is at most `depth` decibels below the loudest."""
    power = torch.nn.functional.pad(samples, (0, -len(samples) % size)).view(-1, size).square().mean(1)
    loud = (power >= power.max() * 10 ** (-depth / 10)).nonzero()
    return samples[int(loud[0]) * size : (int(loud[-1]) + 1) * size]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(generator: torch.Generator) -> float:
    """From −1 to 1."""
    return 2 * _uniform(generator) - 1
