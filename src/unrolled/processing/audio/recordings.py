"""Reading of audio files, and resampling."""

import io
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from os import SEEK_END, PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.processing.frames import as_values

_ZEROS = 8  # zero crossings of the sinc on each side
_LARGEST_FILTERS = 1 << 24  # coefficients of all filters together: 128 MB


def resample(samples: Tensor, rate: int, new_rate: int, *, zeros: int = _ZEROS) -> Tensor:
    """Resample (..., samples) with a windowed sinc (Smith 2002, "Digital audio resampling").

    Args:
        samples: (..., samples).
        rate: sampling rate of the samples in hertz.
        new_rate: sampling rate of the result, which has ⌈samples × new_rate / rate⌉ samples.
        zeros: number of zero crossings of the sinc on each side.

    Raises:
        ValueError: a rate below 1, or a ratio of rates that needs too many filters.
    """
    old, new = _ratio(rate, new_rate)
    if old == new or samples.shape[-1] == 0:
        return samples
    kernels, width = _sinc_kernels(old, new, zeros)
    flat = samples.reshape(-1, 1, samples.shape[-1])
    padded = nn.functional.pad(flat, (width, width + old))
    found = nn.functional.conv1d(padded, kernels.to(flat), stride=old).transpose(1, 2).flatten(1)
    length = math.ceil(samples.shape[-1] * new / old)
    return found[:, :length].reshape(*samples.shape[:-1], length)


def _ratio(rate: int, new_rate: int) -> tuple[int, int]:
    """Return two rates divided by their greatest common divisor."""
    if min(rate, new_rate) < 1:
        raise ValueError(f"the rates are {rate} and {new_rate}, expected 1 hertz or more")
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    if old * new > _LARGEST_FILTERS:
        raise ValueError(
            f"the ratio of the rates {rate} and {new_rate} is {old} to {new}, which needs too many filters; resample "
            "to a common rate first, for example with sox"
        )
    return old, new


class StreamingResampler:
    """Resamples a stream. All results together equal the result of `resample` for the whole.

    Args:
        rate: sampling rate of the input in hertz.
        new_rate: sampling rate of the output in hertz.

    Raises:
        ValueError: see `resample`.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        self._old, self._new = _ratio(rate, new_rate)
        self.count = 0  # number of samples so far
        self._given = 0
        if self._old != self._new:
            self._kernels, self._width = _sinc_kernels(self._old, self._new, _ZEROS)
            self._held = torch.zeros(self._width)  # samples that later results need

    def state(self) -> list[Any]:
        """Return what is known of the stream, as plain data."""
        return [self.count, self._given, *([] if self._old == self._new else [self._held])]

    def restore(self, state: Sequence[Any]) -> None:
        """Continue a stream of the same rates from its `state`."""
        self.count, self._given, *held = state
        if held:
            (self._held,) = held

    def feed(self, samples: Tensor) -> Tensor:
        """Process new samples (time,), and return the resampled ones that can be computed."""
        self.count += len(samples)
        if self._old == self._new:
            return samples
        self._held = torch.cat([self._held.to(samples), samples])
        steps = (len(self._held) - 2 * self._width - self._old) // self._old + 1
        if steps < 1:
            return samples[:0]
        taken = self._held[: (steps - 1) * self._old + 2 * self._width + self._old]
        found = nn.functional.conv1d(taken.view(1, 1, -1), self._kernels.to(samples), stride=self._old)[0].T.flatten()
        self._held = self._held[steps * self._old :]
        self._given += len(found)
        return found

    def flush(self) -> Tensor:
        """Return the last resampled samples (time,), as if silence followed. The next samples start a new stream."""
        if self._old == self._new:
            return torch.zeros(0)
        count, given = self.count, self._given
        found = self.feed(self._held.new_zeros(2 * self._width + 2 * self._old))
        return found[: math.ceil(count * self._new / self._old) - given]


@lru_cache(maxsize=64)
def _sinc_kernels(old: int, new: int, zeros: int) -> tuple[Tensor, int]:
    cutoff = 0.97 * min(old, new)  # below half the lower rate, because of the window's transition band
    width = math.ceil(zeros * old / cutoff)
    offsets = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = -torch.arange(new, dtype=torch.float64) / new
    time = ((phases.unsqueeze(1) + offsets) * cutoff).clamp(-zeros, zeros)
    kernels = torch.special.sinc(time) * torch.cos(time * math.pi / zeros / 2).square() * cutoff / old
    return kernels.unsqueeze(1).float(), width


MAX_SECONDS = 3600.0
"""Default maximum length of a recording in seconds."""

_BLOCK = 1 << 14  # samples per channel that are decoded at a time
_SHORT_CHUNK = re.compile(r"^\s*data\s*:\s*(\d+) \(should be \d+\)", re.MULTILINE)  # in libsndfile's log of a WAV file
_ENDLESS = 0x7FF00000  # size in the header of a stream of unknown length
_EDGE = 1 << 16  # bytes at a file's end that contain the start of an Ogg page


class CutOffError(ValueError):
    """A recording that is shorter than its header or its format requires."""


class Recording(NamedTuple):
    """A recording, mixed to one channel.

    Attributes:
        samples: (time,) from −1 to 1.
        rate: sampling rate in hertz.
        channels: number of channels in the file.
        cut_off: description of what is missing at the end; empty for a complete file.
    """

    samples: Tensor
    rate: int
    channels: int
    cut_off: str = ""

    def notices(self, name: str, rate: int) -> dict[str, str]:
        """What a user should know of a recording that is used at a rate, by kind of notice."""
        found: dict[str, str] = {}
        if self.channels > 1:
            found["channels"] = f"{name} has {self.channels} channels, which are mixed to one"
        if self.rate != rate:
            found["rate"] = f"{name} has a rate of {self.rate} Hz; it is resampled to {rate} Hz"
        if not bool(self.samples.any()):
            found["silence"] = f"{name} is silent throughout"
        return found


def open_recording(
    source: Any, name: str | None = None, *, max_seconds: float = MAX_SECONDS, partial: bool = False
) -> Recording:
    """Open a recording as it is found.

    Args:
        source: a path, the bytes of a file, or a pair (samples (time,) as floats from −1 to 1, rate in hertz).
        name: name in error messages; the path by default.
        max_seconds: see `read_recording`.
        partial: see `read_recording`.

    Raises:
        ValueError: see `read_recording`; another type, or samples that are not one channel of finite floats.
    """
    if isinstance(source, bytes):
        return read_recording(io.BytesIO(source), name or "a recording", max_seconds=max_seconds, partial=partial)
    if isinstance(source, str | PathLike):
        path = cast("str | PathLike[str]", source)
        return read_recording(path, name, max_seconds=max_seconds, partial=partial)
    pair = cast("Sequence[Any]", source) if isinstance(source, tuple | list) else (None, None)
    rate: Any = pair[1] if len(pair) == 2 else None
    if not isinstance(rate, int | float) or rate < 1 or rate != int(rate):
        raise ValueError(
            f"{name or 'a recording'} is neither a path nor a pair (samples, rate), as in (samples, 16000)"
        )
    samples = as_samples(pair[0])
    if len(samples) == 0:
        raise ValueError(f"{name or 'a recording'} has no samples")
    return Recording(samples, int(rate), 1)


def as_samples(samples: Any) -> Tensor:
    """Return samples (time,) as a tensor of floats.

    Raises:
        ValueError: not one channel of floats, or samples that aren't finite.
    """
    values = as_values(samples, "samples must be a tensor or an array (time,)")
    if values.dim() != 1 or not values.is_floating_point():
        raise ValueError(f"samples are {tuple(values.shape)} of {values.dtype}, expected floats (time,) from -1 to 1")
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(f"sample {int(wrong[0])} of {len(values)} is not finite")
    return values.float()


def read_recording(
    file: str | PathLike[str] | BinaryIO,
    name: str | None = None,
    *,
    max_seconds: float = MAX_SECONDS,
    partial: bool = False,
) -> Recording:
    """Read a WAV, FLAC, OGG or MP3 file with the library soundfile, and mix it to one channel.

    Args:
        file: a path or an open file.
        name: name in error messages; the path by default.
        max_seconds: maximum length; a longer recording is an error, before it is decoded if its header has the length.
        partial: whether a truncated file is read as far as possible; see `Recording.cut_off`.

    Raises:
        CutOffError: a truncated file, without `partial`.
        ValueError: a file that can't be read or is too long, or has no samples or samples that aren't finite; soundfile
            is not installed.
    """
    try:
        import soundfile
    except (ModuleNotFoundError, OSError):  # OSError: its library is missing
        raise ValueError("reading audio files needs soundfile: pip install 'unrolled[audio]'") from None
    name = name or str(file)
    if not max_seconds > 0:
        raise ValueError(f"max_seconds is {max_seconds}, expected a value above 0")
    try:
        if isinstance(file, str | PathLike):
            if not Path(file).is_file():
                raise ValueError(
                    f"{name}: {'a folder; name the files in it' if Path(file).is_dir() else 'no such file'}"
                )
            with Path(file).open("rb") as bytes_of_it:
                return _read(bytes_of_it, name, max_seconds, partial)
        return _read(file, name, max_seconds, partial)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise ValueError(f"{name} cannot be read as audio: {error}") from None


def _read(file: BinaryIO, name: str, max_seconds: float, partial: bool) -> Recording:
    import soundfile

    with soundfile.SoundFile(file) as opened:
        rate, claimed = int(opened.samplerate), int(opened.frames)
        if opened.format != "MP3" and claimed > max_seconds * rate:  # the length of an MP3 file is an estimate
            raise ValueError(_too_long(name, claimed / rate, max_seconds))
        parts, failed = _blocks(opened, name, max_seconds * rate)
        cut_off, channels = failed or _what_is_missing(opened, sum(map(len, parts)), file), int(opened.channels)
    if cut_off and not partial:
        raise CutOffError(f"{name} is cut off: {cut_off}")
    if not parts:
        raise ValueError(f"{name} has no samples")
    return Recording(torch.cat(parts), rate, channels, cut_off)


def _blocks(opened: Any, name: str, most: float) -> tuple[list[Tensor], str]:
    """Decode all samples in blocks (time,), regardless of the header; return them with the error that ended them."""
    import soundfile

    parts: list[Tensor] = []
    count, rate = 0, opened.samplerate
    try:
        while len(block := opened.read(_BLOCK, dtype="float32", always_2d=True)):
            found = torch.from_numpy(block)
            if not bool(found.isfinite().all()):
                place = count + int((~found.isfinite()).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {place} ({place / rate:.3f} s) is not finite")
            count += len(block)
            if count > most:
                raise ValueError(_too_long(name, count / rate, most / rate))
            parts.append(found.mean(1))
    except soundfile.LibsndfileError as error:
        if not parts:
            raise
        return parts, f"it cannot be decoded after sample {count} ({str(error).rstrip('.')})"
    return parts, ""


def _what_is_missing(opened: Any, count: int, file: BinaryIO) -> str:
    short = _SHORT_CHUNK.search(opened.extra_info)
    if short is not None and int(short[1]) < _ENDLESS:
        return f"its header promises {int(short[1]):,} bytes of samples, and it has {count:,} samples"
    if count < opened.frames and (opened.format != "MP3" or _counts_frames(file)):
        return f"its header promises {opened.frames:,} samples, and it has {count:,}"
    return "it has no last page" if opened.format == "OGG" and not _ends(file) else ""


def _counts_frames(file: BinaryIO) -> bool:
    """Return whether the first frame of an MP3 file contains its length."""
    file.seek(0)
    begin = file.read(_EDGE)
    return b"Xing" in begin or b"Info" in begin


def _ends(file: BinaryIO) -> bool:
    """Return whether an Ogg file ends with a page that is marked as the last."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - _EDGE))
    _, page, header = file.read().rpartition(b"OggS")
    return not page or (len(header) > 1 and bool(header[1] & 4))


def _too_long(name: str, seconds: float, max_seconds: float) -> str:
    return (
        f"{name} is {seconds:,.0f} s long or more, and max_seconds={max_seconds:g}: split it, or raise max_seconds if "
        "its header is right and there is enough memory"
    )
