"""A tokenizer of words with tags, such as the lemma and the features of an inflected form."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from unrolled.processing.text.base import UNKNOWN, Tokenizer, numbered

TAB = "\t"
_BETWEEN_TAGS = re.compile(r"[;,|](?![^()]*\))")


class TaggedTokenizer(Tokenizer):
    """Tokenizes a word and its tags, with a tab between them, such as "walk", tab, "V;PST".

    Each character is a token, the tab is one, and each tag is one. ";", "," or "|" separate tags, except within
    parentheses, as in "V;NOM(3,SG)". A text without a tab has no tags. 0 is <start>, 1 is <unknown>, 2 is the tab,
    followed by the characters and the tags. Decoding joins tags with ";". An unknown character decodes to U+FFFD, an
    unknown tag, too.

    Args:
        characters: the characters as one string, without duplicates and without the tab.
        tags: the tags, without duplicates.
        lowercase: see `Tokenizer`; tags are then read in lower case, too.
        max_length: see `Tokenizer`.

    Raises:
        ValueError: no characters, duplicates, or a tag that is empty or contains a separator.
    """

    unit = "character"
    start = 0
    unknown = UNKNOWN

    def __init__(
        self, characters: str, tags: Sequence[str], lowercase: bool = False, max_length: int | None = None
    ) -> None:
        super().__init__(lowercase, max_length)
        numbered("characters", characters)
        wrong = next((tag for tag in tags if split_tags(tag) != [tag]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not a tag: tags are not empty and have no tab, and no ; , | between them")
        self.characters, self.tags = characters, list(tags)
        self._characters = numbered("characters", [TAB, *characters])
        self._tags = {tag: index for index, tag in enumerate(tags, start=2 + len(self._characters))}
        if len(self._tags) != len(self.tags):
            raise ValueError(f"a tokenizer's tags are distinct, got {self.tags}")
        self._symbols = ["", "\N{REPLACEMENT CHARACTER}", TAB, *characters, *tags]
        self.size = len(self._symbols)

    @classmethod
    def fit(cls, texts: Iterable[str], *, lowercase: bool = False, max_length: int | None = None) -> Self:
        """Create a tokenizer with the characters and tags of some texts.

        Raises:
            ValueError: no characters.
        """
        characters: set[str] = set()
        tags: set[str] = set()
        for text in texts:
            word, _, given = (text.lower() if lowercase else text).partition(TAB)
            characters.update(word)
            tags.update(split_tags(given))
        return cls("".join(sorted(characters)), sorted(tags), lowercase, max_length)

    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        word, tab, given = "".join(pieces).partition(TAB)
        ids = [self._characters.get(character, UNKNOWN) for character in word + tab]
        yield [*ids, *(self._tags.get(tag, UNKNOWN) for tag in split_tags(given))]

    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        symbols = [self._symbols[index] for index in self._checked(encoded) if index != self.start]
        end = symbols.index(TAB) if TAB in symbols else len(symbols)
        tags = (tag for tag in symbols[end + 1 :] if tag != TAB)
        return "".join(symbols[: end + 1]) + ";".join(tags)

    def normalize(self, value: str) -> str:
        """Return the text with unknown characters and tags replaced and ";" between tags, truncated to `max_length`."""
        return self.decode(self.encode(value))

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id; that of the tab is "⇥"."""
        return ["⇥" if symbol == TAB else symbol for symbol in super().symbols(ids)]

    def to_dict(self) -> dict[str, Any]:
        about = {"characters": self.characters, "tags": list(self.tags)}
        return {"_target_": "unrolled.TaggedTokenizer", **about, **self._options()}


def split_tags(text: str) -> list[str]:
    """Return the tags of a text such as "V;PST", without white space around them."""
    return [tag for part in _BETWEEN_TAGS.split(text.replace(TAB, ";")) if (tag := part.strip())]
