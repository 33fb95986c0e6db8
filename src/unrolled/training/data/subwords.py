"""Training of subword tokenizers, with the library `tokenizers`."""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from unrolled.processing.text.subword import BPETokenizer, SubwordTokenizer, UnigramTokenizer, words
from unrolled.wording import article

_log = logging.getLogger(__name__)
_SPECIAL = ["<start>", "<unknown>"]
_SEPARATOR = "\n"  # between words; no word contains it


def train_subwords(
    texts: Iterable[str], size: int, *, kind: str = "bpe", lowercase: bool = False, max_length: int | None = None
) -> SubwordTokenizer:
    """Trains a subword tokenizer on texts.

    Byte-pair merges are reproducible. A unigram model's scores may differ in the fourth digit, since the library sums
    them in no fixed order.

    Args:
        texts: the texts of the training split alone. They are iterated twice and not kept.
        size: vocabulary size, including <start> and <unknown>; smaller, with a warning, if the texts don't have as many
            subwords.
        kind: "bpe" or "unigram".
        lowercase: see `unrolled.Tokenizer`; subwords are then trained on texts in lower case.
        max_length: see `unrolled.Tokenizer`.

    Raises:
        ValueError: an unknown kind, texts that can be iterated only once, empty texts, a size below the number of
            characters, or a missing `tokenizers` package.
    """
    if kind not in ("bpe", "unigram"):
        raise ValueError(f"subwords={kind!r}: bpe or unigram")
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise ValueError("training subwords needs tokenizers: pip install 'unrolled[text]'") from None
    if isinstance(texts, Iterator):
        raise ValueError(
            f"texts are iterated twice, and {article(type(texts).__name__)} can be iterated only once; give a list"
        )
    alphabet = {
        character for text in texts for word in words(text.lower() if lowercase else text) for character in word
    }
    if not alphabet:
        raise ValueError("cannot train subwords on an empty text")
    if size < len(alphabet) + len(_SPECIAL):
        raise ValueError(
            f"vocabulary_size={size} is too small: the text has {len(alphabet)} different characters, which need "
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
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_SEPARATOR), behavior="removed")
    tokenizer.train_from_iterator(
        (_SEPARATOR.join(words(text.lower() if lowercase else text)) for text in texts), trainer
    )
    fitted = _of_model(json.loads(tokenizer.to_str())["model"], lowercase, max_length)
    if fitted.size < size:
        _log.warning("the text has subwords for a vocabulary of %d, not of %d", fitted.size, size)
    return fitted


def _of_model(model: Any, lowercase: bool, max_length: int | None) -> SubwordTokenizer:
    if model["type"] == "BPE":
        numbered = sorted((index, piece) for piece, index in model["vocab"].items())
        pieces = [piece for _, piece in numbered if piece not in _SPECIAL]
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        return BPETokenizer(pieces, merges, lowercase, max_length)
    scored = [(piece, score) for piece, score in model["vocab"] if piece not in _SPECIAL]
    pieces, scores = [piece for piece, _ in scored], [score for _, score in scored]
    return UnigramTokenizer(pieces, scores, lowercase, max_length)
