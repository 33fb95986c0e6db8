"""Word vectors from a text file in the format of GloVe and fastText."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unrolled.processing.text.spaced import SpacedTokenizer
from unrolled.processing.text.tokenizers import WordTokenizer
from unrolled.training.data.base import DataError
from unrolled.training.data.files import find_files, read_lines
from unrolled.wording import counted


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """The initial word embeddings.

    Attributes:
        vectors: a text file of word vectors (GloVe, fastText) that initialize the word embeddings.
        frozen: do not train the embeddings.
    """

    vectors: str | None = None
    frozen: bool = False

    def freeze(self, embedding: nn.Module | None) -> None:
        """Stops the training of an embedding if asked to.

        Raises:
            ValueError: vectors or frozen without an embedding of words.
        """
        if (self.vectors is not None or self.frozen) and not hasattr(embedding, "weight"):
            raise ValueError("vectors and frozen need an embedding of words, and this network has none")
        if self.frozen and embedding is not None:
            embedding.requires_grad_(False)

    def load(self, tokenizer: Any, embedding: Any) -> dict[str, str]:
        """Initializes an embedding if asked to; returns a note on how many words have a vector, see `load_vectors`."""
        return {} if self.vectors is None else {"vectors": load_vectors(self.vectors, tokenizer, embedding.weight)}


def load_vectors(file: str | Path, tokenizer: Any, weight: torch.Tensor) -> str:
    """Initializes word embeddings with word vectors, and returns a sentence on how many words have one.

    A line contains a word and its numbers, separated by spaces; fastText's first line, with two counts, is skipped.
    Words without a vector keep their random weights, scaled to the vectors' standard deviation. The unknown word gets
    the mean of the vectors.

    Args:
        file: the vectors.
        tokenizer: the tokenizer of words.
        weight: (vocabulary, size), the embeddings of the tokenizer's ids.

    Raises:
        DataError: no such file, vectors of another size than the embedding's, an invalid line, no common word, or a
            tokenizer without words.
    """
    if not isinstance(tokenizer, WordTokenizer | SpacedTokenizer):
        raise DataError(
            f"vectors={file}: word vectors are for words, not for {tokenizer.unit}s; change the data's unit"
        )
    (path,) = find_files(file, "word vectors")
    wanted = {word: index for index, word in enumerate(tokenizer.words, start=2)}
    found: dict[int, torch.Tensor] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.rstrip().split(" ")
        if number == 1 and len(fields) == 2:
            continue
        if len(fields) != weight.shape[1] + 1:
            raise DataError(
                f"{path}, line {number} has {counted(len(fields) - 1, 'number')}, and "
                f"the embedding size is {weight.shape[1]}; "
                f"set the size of the embedding to {len(fields) - 1}"
            )
        index = wanted.get(fields[0])
        if index is not None and index not in found:
            try:
                found[index] = torch.tensor([float(field) for field in fields[1:]])
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            if not bool(found[index].isfinite().all()):
                raise DataError(f"{path}, line {number}: a number of {fields[0]!r:.80} is not finite, or too large")
    if not found:
        raise DataError(f"{path} has a vector for none of the {len(wanted)} words; check upper and lower case")
    with torch.no_grad():
        vectors = torch.stack(list(found.values())).to(weight)
        weight.mul_(vectors.std() / weight.std())
        weight[torch.tensor(list(found), device=weight.device)] = vectors
        weight[tokenizer.unknown] = vectors.mean(0)
    return f"{path.name} has a vector for {len(found):,} of {len(wanted):,} words"
