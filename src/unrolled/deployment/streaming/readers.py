"""What arrives of a stream, as steps of a network: text, words, samples, frames, rows of a series.

A reader is a function of what arrived and of a state, which is plain data: strings, numbers and tensors. The steps of
all pieces together are those of the whole.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled.deployment.sampling import encode_prompt
from unrolled.processing.audio.features import AudioFeatures, StreamState
from unrolled.processing.audio.recordings import StreamingResampler, as_samples
from unrolled.processing.frames import SeriesScaler
from unrolled.processing.notes.roll import PianoRoll
from unrolled.processing.series.table import TimeSeries
from unrolled.processing.series.times import Time
from unrolled.processing.series.transform import SeriesTransform
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.words import SpelledWords, WordTransform
from unrolled.wording import article

Memory = dict[str, Any]
_BLANKS = re.compile(r"\s+")


class Chunk(NamedTuple):
    """Steps of a stream.

    Attributes:
        inputs: (steps, …), on the CPU.
        words: of a stream of words, the number of the step that predicts for each word, and the word.
    """

    inputs: Tensor
    words: tuple[tuple[int, str], ...] = ()


class Reader(ABC):
    """Base class of readers."""

    @abstractmethod
    def begin(self) -> Memory:
        """Return the state of a stream of which nothing has arrived."""

    @abstractmethod
    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        """Return the steps that new data complete, and the next state.

        Raises:
            ValueError: data that the network can't read.
        """

    def finish(self, memory: Memory) -> Chunk:
        """Return the last steps of a stream."""
        return self.feed(self.nothing, memory)[0]

    nothing: Any = ()


class TextReader(Reader):
    """Text, as the ids of a tokenizer.

    Args:
        tokenizer: the tokenizer.
        continued: whether the text is that of a language model, which reads its start symbol first and every blank, and
            refuses unknown symbols. Other networks read single blanks.
    """

    nothing = ""

    def __init__(self, tokenizer: Tokenizer, *, continued: bool) -> None:
        self.tokenizer, self.continued = tokenizer, continued
        self._blank = bool(self._ids(" "))  # whether it is a token

    def begin(self) -> Memory:
        return {"held": "", "begun": False, "count": 0}

    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        if not isinstance(data, str):
            raise ValueError(f"{article(type(data).__name__)} arrived; this network reads text")
        text, begun = memory["held"] + data, memory["begun"]
        if self.continued:
            cut, begun = self.tokenizer.settled(text), True
        else:
            text = _BLANKS.sub(" ", text)
            text = text if begun else text.lstrip()
            cut, begun = self.tokenizer.settled(text), begun or bool(text)
            if self._blank and cut == len(text):
                cut = len(text.rstrip())  # a blank at the end of the whole text is not read
        return self._chunk(text[:cut], memory, {**memory, "held": text[cut:], "begun": begun})

    def finish(self, memory: Memory) -> Chunk:
        return self.flush(memory)[0]

    def flush(self, memory: Memory) -> tuple[Chunk, Memory]:
        """Return the steps of text that later text could have changed, as if it were complete, and the next state."""
        held = memory["held"] if self.continued else memory["held"].rstrip()
        return self._chunk(held, memory, {**memory, "held": "", "begun": True})

    def _chunk(self, text: str, before: Memory, after: Memory) -> tuple[Chunk, Memory]:
        ids = self._ids(text)
        if self.continued and self.tokenizer.unknown is not None and self.tokenizer.unknown in ids:
            encode_prompt(self.tokenizer, text, "the text")  # raises an error that names them
        if self.tokenizer.max_length is not None and not self.continued:
            ids = ids[: self.tokenizer.max_length - before["count"]]
        count = before["count"] + len(ids)
        if self.continued and after["begun"] and not before["begun"]:
            ids = [self.tokenizer.start, *ids]
        return Chunk(torch.tensor(ids, dtype=torch.int64)), {**after, "count": count}

    def _ids(self, text: str) -> list[int]:
        return [index for ids in self.tokenizer.encode_pieces([text]) for index in ids] if text else []


class WordReader(Reader):
    """Words, given as text with white space after each word, or as lists of words.

    Args:
        transform: the transform of words.
    """

    nothing = ""

    def __init__(self, transform: WordTransform) -> None:
        self.transform = transform

    def begin(self) -> Memory:
        return {"held": "", "previous": ""}

    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        if isinstance(data, str):
            text = memory["held"] + data
            held = "" if text[-1:].isspace() else "".join(text.split()[-1:])
            words = text.split()[: -1 if held else None]
        else:
            words, held = [*memory["held"].split(), *data], ""
        return self._chunk(words, memory["previous"]), {
            "held": held,
            "previous": words[-1] if words else memory["previous"],
        }

    def finish(self, memory: Memory) -> Chunk:
        return self._chunk(memory["held"].split(), memory["previous"])

    def _chunk(self, words: list[str], previous: str) -> Chunk:
        """Encode words after another one, whose ids are left out."""
        before = [previous] if previous else []
        ids, starts = self.transform.encode_words([*before, *words])
        if len(starts) < len(words) + len(before):
            raise ValueError(
                f"{' '.join(words)!r:.80} is longer than the network's max_length; feed fewer words at once"
            )
        skipped = len(self.transform.encode_words(before)[0])
        rows = torch.as_tensor(ids)[skipped:]
        if isinstance(self.transform, SpelledWords):  # words of one stream are as wide as those of another
            width = 1 + self.transform.max_characters
            rows = torch.nn.functional.pad(rows, (0, width - rows.shape[1]))
        places = [start - skipped for start in starts[len(before) :]]
        return Chunk(rows.long(), tuple(zip(places, words, strict=True)))


class FrameReader(Reader):
    """Frames that are read one by one: measurements, or chords of a piano roll.

    Args:
        transform: converts frames to rows of numbers.
    """

    def __init__(self, transform: SeriesScaler | PianoRoll) -> None:
        self.transform = transform
        self._width = transform.size if isinstance(transform, PianoRoll) else transform.output_size

    def begin(self) -> Memory:
        return {"begun": False}

    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        rows = self.transform.encode(data) if len(data) else torch.zeros(0, self._width)
        if isinstance(self.transform, PianoRoll) and not memory["begun"]:
            rows = torch.cat([torch.zeros(1, self._width), rows])  # the decoder reads a silent frame first
        return Chunk(rows), {"begun": True}


class SampleReader(Reader):
    """Samples of sound, as frames of features.

    Args:
        features: the features, which don't depend on later samples.
        rate: sampling rate of the stream in hertz; it is resampled to the rate of the features.

    Raises:
        ValueError: features that need whole recordings, or an invalid rate.
    """

    def __init__(self, features: AudioFeatures, rate: int) -> None:
        self.features, self.rate = features, rate
        self.begin()

    def begin(self) -> Memory:
        resampler = StreamingResampler(self.rate, self.features.rate)
        state = self.features.initial_state(1, like=torch.zeros(1))
        return {"resampler": resampler.state(), "features": list(state), "frames": 0}

    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        resampler = self._resampler(memory)
        chunk, state = self._frames(resampler.feed(as_samples(data).cpu()), memory["features"])
        frames = memory["frames"] + len(chunk.inputs)
        return chunk, {"resampler": resampler.state(), "features": state, "frames": frames}

    def finish(self, memory: Memory) -> Chunk:
        """Return the last frames. A stream shorter than a frame is padded with silence."""
        resampler = self._resampler(memory)
        begun = resampler.count > 0
        chunk, state = self._frames(resampler.flush(), memory["features"])
        if memory["frames"] or len(chunk.inputs) or not begun:
            return chunk
        return self._frames(torch.zeros(self.features.window_samples - state[0].shape[1]), state)[0]

    def _resampler(self, memory: Memory) -> StreamingResampler:
        resampler = StreamingResampler(self.rate, self.features.rate)
        resampler.restore(memory["resampler"])
        return resampler

    def _frames(self, samples: Tensor, state: list[Tensor]) -> tuple[Chunk, list[Tensor]]:
        frames, after = self.features.step(samples.float().unsqueeze(0), StreamState(*state))
        return Chunk(frames[0]), list(after)


class SeriesReader(Reader):
    """Rows of a time series, as the inputs of an `AutoregressiveForecaster`.

    Args:
        transform: the transform of the series, without columns that are known beforehand or that are static.
        series: name of the series, one of training, by which it is scaled.
        start: the time of the first row; needed if the network reads the calendar.

    Raises:
        ValueError: an unknown series, columns that a stream doesn't have, no start.
    """

    def __init__(self, transform: SeriesTransform, series: str, start: Time | None) -> None:
        columns = transform.columns
        if columns.future or columns.static:
            raise ValueError(
                f"this network reads {', '.join((*columns.future, *columns.static))} of steps that are yet to come, "
                "which a stream doesn't have; use forecast, or train without these columns"
            )
        if series not in transform.scales:
            known = ", ".join(map(repr, list(transform.scales)[:5]))
            raise ValueError(f"series={series!r} is not one of training, by which rows are scaled: {known}")
        if transform.calendar and start is None:
            raise ValueError("this network reads the calendar: pass start, the time of the first row")
        self.transform, self.series, self.start = transform, series, 0 if start is None else start

    def begin(self) -> Memory:
        return {"steps": 0}

    def feed(self, data: Any, memory: Memory) -> tuple[Chunk, Memory]:
        targets = self._targets(data)
        steps, columns = len(targets), self.transform.columns
        empty = torch.zeros(steps + 1, 0, dtype=torch.float64)
        past = torch.full((steps, len(columns.past)), torch.nan, dtype=torch.float64)
        begin = self.transform.frequency.after(self.start, memory["steps"]) if self.transform.calendar else self.start
        rows = TimeSeries(self.series, begin, targets, past, empty, (), "the stream")
        encoded = self.transform.encode(rows)
        inputs = torch.cat([encoded.past[:, : 2 * len(columns.target)], encoded.future[1:]], -1)
        return Chunk(inputs), {"steps": memory["steps"] + steps}

    def restored(self, targets: Tensor) -> Tensor:
        """Return scaled numbers (…, targets) in their own units, in float64."""
        return self.transform.scales[self.series].restore(targets)

    def _targets(self, data: Any) -> Tensor:
        """Return rows, as mappings or as an array, as (steps, targets) float64; a missing number is NaN."""
        names = list(self.transform.columns.target)
        if isinstance(data, list | tuple):
            rows = cast("Sequence[Any]", data)
            for row in rows:
                if isinstance(row, Mapping) and not set(names) & set(cast("Mapping[str, Any]", row)):
                    raise ValueError(f"the row {row!r:.80} has none of the targets {', '.join(names)}")
            data = [[row.get(name) for name in names] if isinstance(row, Mapping) else row for row in rows]
            data = [[torch.nan if cell is None else float(cell) for cell in row] for row in data]
        values = torch.as_tensor(data, dtype=torch.float64).reshape(-1, len(names)) if len(data) == 0 else data
        values = torch.as_tensor(values, dtype=torch.float64)
        if values.dim() != 2 or values.shape[1] != len(names):
            raise ValueError(f"rows are {tuple(values.shape)}, expected (steps, {len(names)}): {', '.join(names)}")
        return values
