"""Sentence pairs for translation, encoded once, in batches of similar length."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.checkpoint import build_processor
from unrolled.descriptions import TRUSTED
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.subword import BPETokenizer
from unrolled.processing.transform import Processor
from unrolled.training.configuration.flat import flat_options
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.bucketed import BucketData, Examples
from unrolled.training.data.buckets import BatchSpec, Ints
from unrolled.training.data.cache import cache_folder, cached
from unrolled.training.data.options import Batching, SourceOptions
from unrolled.training.data.seq2seq import documents, teacher_forcing_batch
from unrolled.training.data.sources import Source
from unrolled.training.data.splitting import Split
from unrolled.training.data.tokens import Tokens, write_tokens
from unrolled.wording import article, tally
from unrolled_tasks.translation.coding import Coding
from unrolled_tasks.translation.sources import Pair, PhraseSource, source_of
from unrolled_tasks.translation.store import PairStore, Texts, stored_pair, write_pairs
from unrolled_tasks.translation.words import WordOptions, WordSource, words_of

_VERSION = 6  # increase it when the same options give other tokens, or `_encode` other entries
_ORIGIN, _SPLIT = SourceOptions(), Split(split_fractions=(0.94, 0.03, 0.03))
_BATCHING, _CODING, _WORDS = Batching(batch_tokens=2048), Coding(), WordOptions()

_SIDES = {"phonemes": ("words", "phonemes"), "form": ("lemmas with tags", "forms")}


class PairBatch(NamedTuple):
    """Sentences of similar length and their translations. Texts and kinds are empty in training."""

    source: Tensor  # (batch, source) int64
    source_lengths: Tensor  # (batch,)
    inputs: Tensor  # (batch, target) int64: the start symbol, then the translation
    targets: Tensor  # (batch, target) int64: the translation, then the stop symbol
    lengths: Tensor  # (batch,) tokens of the translation and its stop symbol
    examples: Tensor  # (batch,) numbers of the pairs within their split
    scale: float  # turns the summed loss into this batch's share of the step's mean
    source_text: tuple[str, ...] = ()
    target_text: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    other_texts: tuple[tuple[str, ...], ...] = ()  # further references of each source


class TranslationData(BucketData[PairBatch]):
    """Sentence pairs for translation.

    Give exactly one of `phrases`, `files` and `dataset`, or none for the pronunciations of CMUdict. The tokenizers are
    fitted on the training split alone. Training pairs with an empty side or with more than `max_length` tokens are
    skipped and counted.

    Args:
        source: locale, column or key of the source language; column of words or lemmas.
        target: locale, column or key of the target language; column of phonemes or forms.
        phrases: number of CLDR phrases in the locales `source` and `target`.
        origin: tables (.jsonl, .csv, .tsv, .parquet; paths, folders, patterns) with the columns `source` and `target`,
            or two text files with a sentence per line (see `source_of`); or a data set.
        words: options of words with phonemes or forms; see `words_of`.
        coding: the tokens of both sides.
        batching: batches of similar length.
        split: fractions for splits without their own pairs. The last pairs are for the test; words and phrases are
            assigned by their hash.
        processor_from: the processor of a trained network, as its `to_dict` wrote it, instead of one for these pairs.
        cache: folder for encoded text; None for $UNROLLED_CACHE or ~/.cache/unrolled.

    Raises:
        DataError: no source or several, or invalid options.
    """

    @flat_options
    def __init__(
        self,
        *,
        source: str | int = "en",
        target: str | int = "de",
        phrases: int | None = None,
        origin: SourceOptions = _ORIGIN,
        words: WordOptions = _WORDS,
        coding: Coding = _CODING,
        batching: Batching = _BATCHING,
        split: Split = _SPLIT,
        processor_from: Mapping[str, Any] | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self._languages, self._split, self.batching = (source, target), split, batching
        if coding.target_type != "text":
            if phrases is not None:
                raise DataError(f"phrases={phrases} are texts, not {coding.target_type}; set phrases=null")
            self._source: Source[Pair] = words_of(origin, source, target, coding.target_type, words, split)
        elif words != _WORDS:
            raise DataError(f"{words}: options of target_type=phonemes and target_type=form, not of text")
        else:
            origin.check_exactly_one("pairs", phrases=phrases)
            if phrases is None:
                self._source = source_of(origin, source, target)
            elif phrases < 1:
                raise DataError(f"phrases={phrases} must be 1 or more")
            else:
                self._source = PhraseSource(str(source), str(target), phrases, batching.seed, split.split_fractions)
        self._coding, self._tags = coding, words.tags
        self._given = None if processor_from is None else _tokenizers(processor_from)
        self._cache = cache_folder(cache)
        self._tokenizers: tuple[Tokenizer, Tokenizer] | None = None
        self._tokens: dict[str, tuple[Tokens, Tokens]] = {}
        self._texts: dict[str, list[Pair]] = {}
        self._skipped = {"empty": 0, "long": 0}

    def prepare(self) -> None:
        """See `SequenceData.prepare`."""
        if self._tokenizers is not None:
            return
        folder, about = cached(self._cache, "pairs", self._key(), self._encode)
        self._tokens = {p: (Tokens(folder / f"{p}.source"), Tokens(folder / f"{p}.target")) for p in about["splits"]}
        self._texts = {p: [stored_pair(row) for row in rows] for p, rows in about["texts"].items()}
        self._skipped = about["skipped"]
        self._tokenizers = _tokenizers(about["processor"])

    def sizes(self) -> dict[str, int]:
        source, target = self.tokenizers
        return {"source_vocabulary": source.size, "vocabulary": target.size}

    def processor(self) -> Processor:
        return Processor(*self.tokenizers)

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """The tokenizers of sources and targets. Call `prepare` first."""
        if self._tokenizers is None:
            raise RuntimeError("the pairs are not encoded yet: call prepare() first")
        return self._tokenizers

    def splits(self) -> Sequence[str]:
        """See `SequenceData.splits`."""
        return tuple(self._tokens)

    def describe(self) -> str:
        """See `SequenceData.describe`."""
        target, sizes = self.tokenizers[1], self.sizes()
        reads, writes = _SIDES.get(self._coding.target_type, self._languages)
        counts = ", ".join(f"{split} {len(pair[0].lengths):,}" for split, pair in self._tokens.items())
        return (
            f"{reads} to {writes}: {counts} pairs; vocabularies of "
            f"{sizes['source_vocabulary']:,} and {sizes['vocabulary']:,} {target.unit}s"
            + tally("skipped", self._skipped)
            + f"; scored: {self.evaluated_split}"
        )

    def fingerprint(self) -> str:
        """See `SequenceData.fingerprint`."""
        return "".join(tokens.digest() for tokens in self._tokens.get("train", ()))

    def example(self, folder: Path) -> str | None:
        """Returns the first sentence of the evaluated split that has at most 80 characters and begins with a letter."""
        sentences = (pair.source for pair in self._texts.get(self.evaluated_split, []))
        return next((text for text in sentences if len(text) <= 80 and text[:1].isalnum()), None)

    def own_files(self) -> str:
        """See `SequenceData.own_files`."""
        source, target = map(str, self._languages)
        name = {"text": "pairs", "phonemes": "pronunciation", "form": "inflection"}[self._coding.target_type]
        tags = "" if self._tags is None else f" data.tags={self._tags}"
        columns = f"data.source={source} data.target={target}{tags}"
        return f"data={name} data.files=FILE {columns} 'data.split_fractions=[0,0,1]'"

    def examples(self, split: str, *, scored: bool) -> Examples:
        """Returns the lengths of a split's pairs."""
        source, target = self._tokens[split]
        return Examples(np.stack([source.lengths, target.lengths + 1], axis=1), target.lengths + 1)

    def batch(self, split: str, spec: BatchSpec, scale: float, *, scored: bool) -> PairBatch:
        """Builds a batch of these pairs, with their texts if it is for scoring."""
        tokenizers, rows = self.tokenizers, spec.rows
        sides = [documents(tokens, rows) for tokens in self._tokens[split]]
        if self._coding.subword_dropout > 0 and not scored:
            # By epoch and example, so that it does not depend on the worker that reads them, or on resuming.
            generator = random.Random(f"{self.batching.seed} {spec.epoch} {int(rows[0])}")
            sides = [self._respelled(side, ids, generator) for side, ids in zip(tokenizers, sides, strict=True)]
        texts = self._scored_texts(split, rows, sides) if scored else []
        return PairBatch(
            source=pad_sequence(sides[0], batch_first=True),
            source_lengths=torch.tensor([len(row) for row in sides[0]]),
            **teacher_forcing_batch(sides[1], tokenizers[1].start)._asdict(),
            examples=torch.as_tensor(rows),
            scale=scale,
            source_text=tuple(pair.source for pair in texts),
            target_text=tuple(pair.target for pair in texts),
            kinds=tuple(pair.kind for pair in texts),
            other_texts=tuple(pair.others for pair in texts),
        )

    def _respelled(self, tokenizer: Tokenizer, rows: Sequence[Tensor], generator: random.Random) -> list[Tensor]:
        """Tokenizes sentences with BPE-dropout."""
        if not isinstance(tokenizer, BPETokenizer):
            raise DataError(
                f"subword_dropout needs a BPETokenizer, and the given tokenizer is {article(type(tokenizer).__name__)}"
            )
        texts = (tokenizer.decode(row.tolist()) for row in rows)
        return [torch.tensor(tokenizer.encode_dropped(text, self._coding.subword_dropout, generator)) for text in texts]

    def _scored_texts(self, split: str, rows: Ints, sides: Sequence[Sequence[Tensor]]) -> list[Pair]:
        if split in self._texts:
            return [self._texts[split][row] for row in rows.tolist()]
        reads, writes = self.tokenizers  # the texts of training pairs are not stored, so they are decoded from tokens
        pairs = zip(sides[0], sides[1], strict=True)
        return [Pair(reads.decode(source.tolist()), writes.decode(target.tolist())) for source, target in pairs]

    def _key(self) -> dict[str, Any]:
        """Returns plain data that differ whenever the tokens do."""
        return {
            "version": _VERSION,
            "source": type(self._source).__name__,
            "pairs": self._source.fingerprint(),
            "split_fractions": list(self._split.split_fractions),
            "processor": Processor(*self._given).to_dict() if self._given else asdict(self._coding),
            "max_length": self._coding.max_length,
        }

    def _encode(self, folder: Path) -> dict[str, Any]:
        """Reads the pairs once. Only lengths and the texts of scored splits are held in memory."""
        with TemporaryDirectory(dir=folder) as temporary:
            splits = self._store_pairs(Path(temporary))
            for split, pairs in splits.items():
                if split != "train":
                    _expect_both_sides(split, pairs)
            train = splits.get("train")
            full = None if train is None else train.where([bool(pair.source and pair.target) for pair in train])
            tokenizers = self._given or self._fitted(full)
            skipped = {"empty": 0, "long": 0}
            if train is not None and full is not None:
                splits["train"] = short = full.where([self._fits(tokenizers, pair) for pair in full])
                skipped = {"empty": len(train) - len(full), "long": len(full) - len(short)}
                if not len(short):
                    raise DataError(
                        f"no training pair is left: {skipped['empty']} have an empty side, {skipped['long']} have "
                        f"more than max_length={self._coding.max_length} tokens"
                    )
            for split, pairs in splits.items():
                write_tokens(folder / f"{split}.source", tokenizers[0], Texts(pairs, "source"))
                write_tokens(folder / f"{split}.target", tokenizers[1], Texts(pairs, "target"))
            texts = {split: list(pairs) for split, pairs in splits.items() if split != "train"}
            return {
                "splits": list(splits),
                "texts": texts,
                "processor": Processor(*tokenizers).to_dict(),
                "skipped": skipped,
            }

    def _store_pairs(self, folder: Path) -> dict[str, PairStore]:
        splits = {
            split: write_pairs(folder / split, self._source.read(split), lowercase=self._coding.lowercase)
            for split in self._source.splits
        }
        if not isinstance(self._source, PhraseSource | WordSource):  # these divide their pairs
            splits = _split_pairs(splits, self._split)
        return {split: splits[split] for split in SPLITS if split in splits and len(splits[split])}

    def _fits(self, tokenizers: tuple[Tokenizer, Tokenizer], pair: Pair) -> bool:
        reads, writes = tokenizers
        return max(len(reads.encode(pair.source)), len(writes.encode(pair.target))) <= self._coding.max_length

    def _fitted(self, pairs: PairStore | None) -> tuple[Tokenizer, Tokenizer]:
        if not pairs:
            raise DataError("tokenizers are fitted on training pairs, and there are none with text on both sides")
        return self._coding.fit(pairs)


def _tokenizers(plain: Mapping[str, Any]) -> tuple[Tokenizer, Tokenizer]:
    source, target = build_processor(plain, trusted=TRUSTED)
    if not isinstance(source, Tokenizer) or not isinstance(target, Tokenizer):
        raise DataError(
            f"the checkpoint's network reads with {article(type(source).__name__)}; translation needs two Tokenizers"
        )
    return source, target


def _expect_both_sides(split: str, pairs: PairStore) -> None:
    empty = [(number, pair) for number, pair in enumerate(pairs, start=1) if not (pair.source and pair.target)]
    if empty:
        number, pair = empty[0]
        place = f" ({pair.place})" if pair.place else ""
        raise DataError(f"{split} pair {number}{place} has an empty side, one of {len(empty)}; remove them")


def _split_pairs(splits: Mapping[str, PairStore], split: Split) -> dict[str, PairStore]:
    """Splits off missing splits from the end of the training pairs."""
    train = splits["train"]
    divided = split.last(len(train), list(splits))
    return {**splits, **{name: train.where(np.isin(np.arange(len(train)), rows)) for name, rows in divided.items()}}
