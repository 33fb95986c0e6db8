"""Tags of words, by a trained network."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.checkpoint import Bundle
from unrolled.heads.categorical import CategoricalHead
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.labels import LabelSequenceEncoder
from unrolled.processing.text.words import WordTransform
from unrolled.wording import article


class TaggedWord(NamedTuple):
    """A word, its tag, and the tag's probability."""

    word: str
    tag: str
    probability: float


class EncodedSentences(NamedTuple):
    """A batch for a `SequenceTagger`: its source, the lengths, and the steps that predict for words."""

    source: Tensor
    lengths: Tensor
    positions: Tensor  # (batch, words), padded with 0
    words: Tensor  # (batch,) numbers of words


def encode_sentences(transform: WordTransform, sentences: Sequence[Sequence[str]]) -> EncodedSentences:
    """Encode sentences, lists of words, as a batch; words that don't fit into a tokenizer's max_length are left out."""
    return collate_sentences(transform, [transform.encode_words(words) for words in sentences])


def collate_sentences(transform: WordTransform, encoded: Sequence[tuple[object, list[int]]]) -> EncodedSentences:
    """Combine encoded sentences, the results of `encode_words`, to a batch."""
    source, lengths = transform.collate([ids for ids, _ in encoded])
    rows = [torch.tensor(starts, dtype=torch.int64) for _, starts in encoded]
    return EncodedSentences(source, lengths, pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows]))


def tag(
    bundle: Bundle, sentences: Iterable[str | Sequence[str]], *, batch_size: int = 32
) -> Iterator[list[TaggedWord]]:
    """Yield the tagged words of each sentence, in order.

    Args:
        bundle: a tagger from `load_bundle`.
        sentences: lists of words, or texts with spaces between words and punctuation.
        batch_size: number of sentences in a batch.

    Raises:
        ValueError: a network of another kind, a batch_size below 1, a word with white space, a sentence with more words
            than the tokenizer's max_length allows.
    """
    network, source, target = tagger_of(bundle)
    head = cast("CategoricalHead", network.head)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more")
    device = next(network.parameters()).device
    words = (one.split() if isinstance(one, str) else list(one) for one in sentences)
    while several := list(islice(words, batch_size)):
        batch = encode_sentences(source, several)
        short = next((row for row, one in enumerate(several) if len(one) > int(batch.words[row])), None)
        if short is not None:
            raise ValueError(f"{' '.join(several[short])!r:.80} is longer than the network's max_length; split it")
        moved = (batch.source.to(device), batch.lengths.to(device), batch.positions.to(device))
        with torch.no_grad():
            chances = head.probabilities(network(*moved)).cpu()
        best = chances.max(-1)
        for row, one in enumerate(several):
            found = zip(one, best.indices[row].tolist(), best.values[row].tolist(), strict=False)
            yield [TaggedWord(word, target.labels[index], chance) for word, index, chance in found]


def tagger_of(bundle: Bundle) -> tuple[SequenceTagger, WordTransform, LabelSequenceEncoder]:
    """Return the network of a tagger of words, and the transforms of its words and tags.

    Raises:
        ValueError: the bundle contains another network.
    """
    network, (source, target) = bundle.network, bundle.processor
    if not isinstance(network, SequenceTagger) or not isinstance(source, WordTransform):
        raise ValueError(
            f"tagging needs a SequenceTagger of words; this checkpoint has {article(type(network).__name__)}"
        )
    if not isinstance(target, LabelSequenceEncoder) or not isinstance(network.head, CategoricalHead):
        raise ValueError("tagging needs a CategoricalHead and a LabelSequenceEncoder of tags")
    return network, source, target
