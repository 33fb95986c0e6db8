"""Recordings: read from files, and brought to another rate."""

import math
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor, nn


def resample(samples: Tensor, rate: int, new_rate: int, *, zeros: int = 8) -> Tensor:
    """(..., samples) at another rate, by a windowed sinc (Smith 2002, "Digital audio resampling").

    Args:
        samples: at `rate`.
        rate: samples a second.
        new_rate: samples a second of the result, which has ⌈samples × new_rate / rate⌉ of them.
        zeros: crossings of the sinc to either side of its middle.

    Raises:
        ValueError: a rate below 1.
    """
    if min(rate, new_rate) < 1:
        raise ValueError(f"rates are 1 hertz or more, got {rate} and {new_rate}")
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    if old == new:
        return samples
    kernels, width = _sinc_kernels(old, new, zeros)
    flat = samples.reshape(-1, 1, samples.shape[-1])
    padded = nn.functional.pad(flat, (width, width + old))
    found = nn.functional.conv1d(padded, kernels.to(flat), stride=old).transpose(1, 2).flatten(1)
    length = math.ceil(samples.shape[-1] * new / old)
    return found[:, :length].reshape(*samples.shape[:-1], length)


@lru_cache(maxsize=64)
def _sinc_kernels(old: int, new: int, zeros: int) -> tuple[Tensor, int]:
    cutoff = 0.97 * min(old, new)  # below half the lower rate, where the window's slope ends
    width = math.ceil(zeros * old / cutoff)
    offsets = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = -torch.arange(new, dtype=torch.float64) / new
    time = ((phases.unsqueeze(1) + offsets) * cutoff).clamp(-zeros, zeros)
    kernels = torch.special.sinc(time) * torch.cos(time * math.pi / zeros / 2).square() * cutoff / old
    return kernels.unsqueeze(1).float(), width


class Recording(NamedTuple):
    """Samples (time,) from −1 to 1, how many a second, and how many channels were mixed into one."""

    samples: Tensor
    rate: int
    channels: int


def read_recording(file: str | PathLike[str] | BinaryIO, name: str | None = None) -> Recording:
    """A WAV, FLAC, OGG or MP3 file, mixed to one channel, by the library soundfile.

    Args:
        file: its path, or an open file.
        name: what errors call it; the path by default.

    Raises:
        ValueError: a file that cannot be read, without a sample or with one that is not finite; no soundfile here.
    """
    try:
        import soundfile
    except (ModuleNotFoundError, OSError):  # OSError: its library is missing
        raise ValueError("reading sound needs soundfile: pip install 'unrolled[audio]'") from None
    name = name or str(file)
    if isinstance(file, str | PathLike) and not Path(file).is_file():
        raise ValueError(f"{name}: {'a folder; name the files in it' if Path(file).is_dir() else 'no such file'}")
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise ValueError(f"{name} cannot be read as sound: {error}") from None
    if len(samples) == 0:
        raise ValueError(f"{name} holds no sample")
    found = torch.from_numpy(samples)
    if not bool(found.isfinite().all()):
        place = int((~found.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{name}: sample {place} ({place / rate:.3f} s) is not finite")
    return Recording(found.mean(1), int(rate), found.shape[1])
