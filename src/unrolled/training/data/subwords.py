"""Subwords learned from a text, by the library that most people use for it."""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from unrolled.processing.text.subword import BPETokenizer, SubwordTokenizer, UnigramTokenizer, words
from unrolled.wording import article

_log = logging.getLogger(__name__)
_SPECIAL = ["<start>", "<unknown>"]
_BORDER = "\n"  # between words; no word contains it


def train_subwords(texts: Iterable[str], size: int, *, kind: str = "bpe") -> SubwordTokenizer:
    """Finds the pieces of words that spell these texts best.

    Byte-pair merges are the same each time; a unigram model's scores may differ in the fourth digit, since the library
    sums them in no fixed order.

    Args:
        texts: of the training split alone. They are read twice and not kept.
        size: ids of the codec, <start> and <unknown> included; fewer if the texts don't have as many pieces, which is
            said once.
        kind: "bpe" or "unigram".

    Raises:
        ValueError: an unknown kind, texts that can be read only once, empty texts, a size below the number of
            characters, or no `tokenizers` here.
    """
    if kind not in ("bpe", "unigram"):
        raise ValueError(f"subwords={kind!r}: bpe or unigram")
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise ValueError("training subwords needs tokenizers: pip install 'unrolled[text]'") from None
    if isinstance(texts, Iterator):
        raise ValueError(
            f"texts are read twice, and {article(type(texts).__name__)} can be read only once; give a list"
        )
    alphabet = {character for text in texts for word in words(text) for character in word}
    if not alphabet:
        raise ValueError("cannot find subwords in an empty text")
    if size < len(alphabet) + len(_SPECIAL):
        raise ValueError(
            f"vocabulary_size={size} is too small: the text has {len(alphabet)} different characters, so it takes "
            f"{len(alphabet) + len(_SPECIAL)} or more"
        )
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL[1]))
        trainer: Any = trainers.BpeTrainer(vocab_size=size, special_tokens=_SPECIAL, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=_SPECIAL,
            unk_token=_SPECIAL[1],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_BORDER), behavior="removed")
    tokenizer.train_from_iterator((_BORDER.join(words(text)) for text in texts), trainer)
    codec = _codec(json.loads(tokenizer.to_str())["model"])
    if codec.size < size:
        _log.warning("the text has pieces for a vocabulary of %d, not of %d", codec.size, size)
    return codec


def _codec(model: Any) -> SubwordTokenizer:
    if model["type"] == "BPE":
        numbered = sorted((index, piece) for piece, index in model["vocab"].items())
        pieces = [piece for _, piece in numbered if piece not in _SPECIAL]
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        return BPETokenizer(pieces, merges)
    scored = [(piece, score) for piece, score in model["vocab"] if piece not in _SPECIAL]
    return UnigramTokenizer([piece for piece, _ in scored], [score for _, score in scored])
