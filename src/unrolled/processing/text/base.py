"""The base class of tokenizers, which convert text to ids and back."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from unrolled.processing.transform import Transform

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = 1
"""The id of unknown tokens, in every tokenizer that has one; 0 is <start>."""


class Tokenizer(Transform):
    """Converts text to ids of a fixed vocabulary and back.

    Args:
        lowercase: whether text is read in lower case.
        max_length: number of tokens after which `encode` truncates a text; None for no limit.

    Attributes:
        unit: the kind of token: "character", "byte", "word" or "subword".
        size: number of ids; every id is in 0 … size − 1.
        start: id that a decoder reads before the first token, and that ends a text. It decodes to nothing.
        unknown: id of tokens outside of the vocabulary, or None if there are none.
        pattern: a regular expression whose matches in a text are its tokens, for programs without this package; "" if
            there is none.
        joined: what `decode` puts between the symbols of a text.

    Raises:
        ValueError: a max_length below 1.
    """

    unit: str
    size: int
    start: int
    unknown: int | None
    pattern: str = ""
    joined: str = ""

    def __init__(self, lowercase: bool = False, max_length: int | None = None) -> None:
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length={max_length}: expected 1 or more, or None")
        self.lowercase, self.max_length = lowercase, max_length

    @abstractmethod
    def _ids_of(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Yield the ids of a text in pieces, which are already in the right case."""

    def encode(self, value: str) -> list[int]:
        """Return the ids of a text, without `start`, truncated to `max_length`."""
        return self._whole(value)[: self.max_length]

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Yield the ids of a text that is split into pieces anywhere: together those of the whole text, all of them."""
        return self._ids_of((piece.lower() for piece in pieces) if self.lowercase else pieces)

    def settled(self, text: str) -> int:
        """Return the length of a beginning of the text whose ids later text doesn't change: by default, whole words."""
        return next((place for place in range(len(text), 0, -1) if text[place - 1].isspace()), 0)

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the ids of words joined by spaces, and the position of each word's first id.

        For one label per word: a network reads all ids, and the outputs at these positions count. The ids are those of
        `encode(" ".join(words))`, but that a word of which the tokenizer knows nothing is one unknown token. Words that
        don't fit into `max_length` as a whole are dropped together with all later ones.

        Raises:
            ValueError: a word that is empty or contains white space, or has no id.
        """
        ids: list[int] = []
        starts: list[int] = []
        blank = len(self._whole(" "))
        for word in words:
            if word.split() != [word]:
                raise ValueError(f"{word!r} is not a word: words are not empty and have no white space")
            before = blank if starts else 0
            own = self._whole(f" {word}" if starts else word)
            if len(own) == before:
                if self.unknown is None:
                    raise ValueError(f"this tokenizer has no id for the word {word!r}")
                own.append(self.unknown)
            if self.max_length is not None and len(ids) + len(own) > self.max_length:
                break
            starts.append(len(ids) + before)
            ids += own
        return ids, starts

    def _whole(self, text: str) -> list[int]:
        return [index for ids in self.encode_pieces([text]) for index in ids]

    @abstractmethod
    def decode(self, encoded: Iterable[int], given: str | None = None) -> str:
        """Return the text of these ids.

        Raises:
            ValueError: an id outside 0 … size − 1.
        """

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id, for tables and figures."""
        return [self.decode([index]) for index in ids]

    def collate(self, encoded: Sequence[Sequence[int]]) -> "tuple[Tensor, Tensor]":
        import torch  # tokenizers themselves do without

        rows = [torch.tensor(list(ids), dtype=torch.int64) for ids in encoded]
        padded: Any = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return cast("Tensor", padded), torch.tensor([len(row) for row in rows])

    def _options(self) -> dict[str, Any]:
        """The options of every tokenizer for `to_dict`, without those that have their default."""
        return {
            **({"lowercase": True} if self.lowercase else {}),
            **({} if self.max_length is None else {"max_length": self.max_length}),
        }

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for index in map(int, ids):
            if not 0 <= index < self.size:
                raise ValueError(
                    f"id {index} is outside this tokenizer's 0 … {self.size - 1}: "
                    "was the text encoded by another tokenizer?"
                )
            yield index


def numbered(name: str, symbols: Sequence[str]) -> dict[str, int]:
    """Number symbols from 2 on; 0 and 1 are <start> and <unknown>.

    Raises:
        ValueError: no symbols, or duplicates.
    """
    if not symbols:
        raise ValueError(f"a tokenizer needs at least one of its {name}, got none")
    ids = {symbol: index for index, symbol in enumerate(symbols, start=2)}
    if len(ids) != len(symbols):
        twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
        raise ValueError(f"a tokenizer's {name} are distinct, got {twice!r} twice")
    return ids
