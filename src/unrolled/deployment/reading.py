"""Sources of networks that read whole sources: opened, and passed to the network in batches of similar length."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.deployment.forecasting import csv_rows
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.audio.recordings import MAX_SECONDS, open_recording, resample
from unrolled.processing.frames import ImageSequence, SeriesScaler
from unrolled.processing.images import MAX_PIXELS
from unrolled.processing.lines import LineColumns
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.transform import Transform
from unrolled.wording import article

T = TypeVar("T")

MAX_LENGTH = 10_000
"""Default maximum number of steps of a text."""


class Limits(NamedTuple):
    """Maximum sizes of a source.

    Attributes:
        pixels: pixels of an image.
        seconds: seconds of a recording.
        steps: steps of a text, which is truncated.
    """

    pixels: int = MAX_PIXELS
    seconds: float = MAX_SECONDS
    steps: int = MAX_LENGTH


class Notices:
    """Passes messages to a function, some of them only once per kind."""

    def __init__(self, notice: Callable[[str], None] | None) -> None:
        self._notice, self._kinds = notice, set[str]()

    def once(self, kind: str, message: str) -> None:
        """Pass a message if it is the first of its kind."""
        if self._notice is not None and kind not in self._kinds:
            self._notice(f"{message} (reported once, others may follow)")
        self._kinds.add(kind)

    def each(self, message: str) -> None:
        """Pass a message."""
        if self._notice is not None:
            self._notice(message)


def read_in_batches(
    transform: Transform,
    function: Callable[[Tensor, Tensor], Sequence[T]],
    sources: Iterable[Any],
    *,
    batch_size: int = 32,
    ahead: int = 256,
    limits: Limits = Limits(),  # immutable
    notice: Callable[[str], None] | None = None,
    on_error: Callable[[ValueError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[T | None]:
    """Yield the result for each source, in order; None for one that can't be read, after a call of `on_error`.

    Args:
        transform: converts a source to the network's input (time, …).
        function: returns the results for a padded batch (batch, time, …) with lengths (batch,).
        sources: see `read_source`.
        batch_size: number of sources in a batch.
        ahead: number of sources that are read before the first result, to batch sources of similar length.
        limits: maximum sizes of a source.
        notice: called with a message where a source is changed.
        on_error: called with the error of each source that can't be read; by default the error is raised.
        progress: called regularly with the numbers of finished sources and of sources that were read.

    Raises:
        ValueError: an invalid option; a source that can't be read, without `on_error`.
    """
    if isinstance(sources, str | bytes):
        raise ValueError(f"sources is {sources!r:.60}, expected a list of sources")
    if min(batch_size, ahead, *limits) <= 0:
        raise ValueError(f"batch_size={batch_size}, ahead={ahead}, {limits}: expected 1 or more")
    read = _read_all(transform, sources, limits, Notices(notice), on_error)
    return _in_batches(function, read, batch_size, ahead, progress)


def _in_batches(
    function: Callable[[Tensor, Tensor], Sequence[T]],
    sources: Iterator[Tensor | None],
    batch_size: int,
    ahead: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[T | None]:
    done = 0
    while taken := list(islice(sources, ahead)):
        read = {place: source for place, source in enumerate(taken) if source is not None}
        found: dict[int, T] = {}
        order = sorted(read, key=lambda place: len(read[place]))
        for begin in range(0, len(order), batch_size):
            if progress is not None:
                progress(done + begin, done + len(taken))
            places = order[begin : begin + batch_size]
            lengths = torch.tensor([len(read[place]) for place in places])
            results = function(pad_sequence([read[place] for place in places], batch_first=True), lengths)
            found |= dict(zip(places, results, strict=True))
        done += len(taken)
        if progress is not None:
            progress(done, done)
        yield from (found.get(place) for place in range(len(taken)))


def _read_all(
    transform: Transform,
    sources: Iterable[Any],
    limits: Limits,
    notices: Notices,
    on_error: Callable[[ValueError], None] | None,
) -> Iterator[Tensor | None]:
    for number, source in enumerate(sources, start=1):
        try:
            tensor = read_source(transform, source, number, limits, notices)
        except ValueError as error:
            if on_error is None:
                raise
            on_error(error)
            tensor = None
        yield tensor


def read_source(transform: Transform, source: Any, number: int, limits: Limits, notices: Notices) -> Tensor:
    """Convert a source to the network's input, (time,) ids or (time, features).

    Args:
        transform: of the network's sources.
        source: see `classify` and `transcribe`.
        number: its number, for messages.
        limits: maximum sizes.
        notices: receives a message where the source is changed.

    Raises:
        ValueError: a source that can't be read.
    """
    if isinstance(transform, Tokenizer):
        return _text(transform, source, number, limits, notices)
    name = str(source) if isinstance(source, (str, PathLike)) else f"source {number}"
    try:
        if isinstance(transform, AudioFeatures):
            read = transform(_samples(source, name, transform.rate, limits, notices))
        elif isinstance(transform, ImageSequence | LineColumns):
            read = transform.encode(source, max_pixels=limits.pixels)
        elif isinstance(transform, SeriesScaler) and isinstance(source, (str, PathLike)):
            read = transform.encode(_steps(Path(source), transform.channels))
        else:
            read = transform.encode(source)
    except (ValueError, OSError) as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    if len(read) == 0:
        raise ValueError(f"{name} has no steps")
    if not bool(read.isfinite().all()):
        raise ValueError(f"{name} has numbers that are not finite, or too large for float32")
    return read


def _text(tokenizer: Tokenizer, source: Any, number: int, limits: Limits, notices: Notices) -> Tensor:
    if not isinstance(source, str):
        raise ValueError(f"source {number} is {article(type(source).__name__)}; this network reads text")
    ids = tokenizer.encode(" ".join(source.split()))
    if not ids:
        raise ValueError(f"source {number}: the text {source!r:.60} has no known {tokenizer.unit}")
    if len(ids) > limits.steps:
        notices.each(
            f"source {number} has {len(ids):,} {tokenizer.unit}s, more than max_length={limits.steps}: it is truncated"
        )
    return torch.tensor(ids[: limits.steps])


def _steps(path: Path, channels: Sequence[str]) -> Tensor:
    """Read a series from a .csv file with a row for each step, and a column for each channel."""
    steps: list[list[float]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for place, cells in csv_rows(file, str(path)):
            missing = next((name for name in channels if name not in cells), None)
            if missing is not None:
                raise ValueError(
                    f"{place}: no column {missing!r}; this network reads {', '.join(channels)}, and the columns are "
                    f"{', '.join(cells)}"
                )
            try:
                steps.append([float(cells[name]) for name in channels])
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
    return torch.tensor(steps, dtype=torch.float64).reshape(-1, len(channels))


def _samples(source: Any, name: str, rate: int, limits: Limits, notices: Notices) -> Tensor:
    recording = open_recording(source, name, max_seconds=limits.seconds)
    for kind, message in recording.notices(name, rate).items():
        notices.once(kind, message)
    return resample(recording.samples, recording.rate, rate)
