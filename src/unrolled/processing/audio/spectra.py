"""Spectra, mel bands, cepstra and deltas, as librosa defines them."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from unrolled.shapes import expect


def power_spectrum(frames: Tensor, fft_size: int) -> Tensor:
    """Compute |DFT|² (..., fft_size / 2 + 1) of frames (..., window), zero-padded to fft_size."""
    return torch.view_as_real(torch.fft.rfft(frames, fft_size)).square().sum(-1)


def cosine_transform(num_mels: int, num_coefficients: int) -> Tensor:
    """Return the matrix (mels, coefficients) of the orthonormal discrete cosine transform, type 2."""
    band = torch.arange(num_mels, dtype=torch.float64) + 0.5
    order = torch.arange(num_coefficients, dtype=torch.float64)
    cosines = torch.cos(math.pi / num_mels * band.unsqueeze(1) * order) * math.sqrt(2 / num_mels)
    cosines[:, 0] /= math.sqrt(2)
    return cosines.float()


@lru_cache(maxsize=256)
def mel_filter_bank(
    num_mels: int, fft_size: int, rate: int, low: float = 0.0, high: float | None = None, warp: float = 1.0
) -> Tensor:
    """Return a matrix (fft_size / 2 + 1, mels) of triangles of equal area, evenly spaced on Slaney's mel scale.

    Args:
        num_mels: number of bands.
        fft_size: size of the Fourier transform.
        rate: sampling rate in hertz.
        low: lowest frequency of the first band in hertz.
        high: highest frequency of the last band in hertz; half the rate by default.
        warp: factor for the triangles' frequencies, which leaves the Nyquist frequency unchanged (Jaitly & Hinton 2013,
            "Vocal Tract Length Perturbation improves speech recognition", section 3).
    """
    nyquist = rate / 2
    edges = torch.linspace(_mel(low), _mel(high or nyquist), num_mels + 2, dtype=torch.float64)
    places = torch.tensor([_warped(_hertz(mel), warp, nyquist) for mel in edges.tolist()], dtype=torch.float64)
    bins = torch.linspace(0, nyquist, fft_size // 2 + 1, dtype=torch.float64)
    distance = bins.unsqueeze(1) - places
    width = places.diff()
    rising, falling = distance[:, :-2] / width[:-1], -distance[:, 2:] / width[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2 / (places[2:] - places[:-2]))).float()


def _warped(hertz: float, warp: float, nyquist: float) -> float:
    border = 0.6 * nyquist * min(warp, 1.0) / warp  # 4.8 of 8 kHz in the paper
    if hertz <= border:
        return hertz * warp
    kept = border * warp
    return nyquist - (nyquist - kept) / (nyquist - border) * (nyquist - hertz)


def _mel(hertz: float) -> float:
    """Convert hertz to Slaney's mel scale, which is linear up to 1 kHz and logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def delta(values: Tensor, lengths: Tensor | None = None, *, reach: int = 2) -> Tensor:
    """Compute the derivative Σ n (x_{t+n} − x_{t−n}) / (2 Σ n²) over n = 1 … reach.

    The first and last valid frames are repeated at the borders.

    Args:
        values: (batch, time, features).
        lengths: (batch,) numbers of valid frames; all by default.
        reach: number of frames on each side.
    """
    expect(values, "batch time features", name="values")
    batch, time, _ = values.shape
    last = torch.full((batch,), time, device=values.device) if lengths is None else lengths.to(values.device)
    last = (last - 1).clamp(min=0).view(batch, 1)
    steps = torch.arange(time, device=values.device)

    def moved(by: int) -> Tensor:
        places = torch.minimum((steps + by).clamp(min=0).expand(batch, time), last)
        return values.gather(1, places.unsqueeze(-1).expand_as(values))

    slope = sum((n * (moved(n) - moved(-n)) for n in range(1, reach + 1)), torch.zeros_like(values))
    return slope / (2 * sum(n * n for n in range(1, reach + 1)))
