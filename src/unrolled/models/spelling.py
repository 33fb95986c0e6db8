"""Embeddings of words by a vector of their own and by their spelling."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from unrolled.models.embeddings import InputEmbedding, TokenEmbedding
from unrolled.models.encoders import Core, complete, summarized
from unrolled.shapes import expect


class SpelledWordEmbedding(InputEmbedding):
    """Embeds words: a vector of the word, followed by an encoding of its characters, which unknown words have, too.

    The characters are encoded by a recurrent network that reads them in both directions (Lample et al. 2016, "Neural
    Architectures for Named Entity Recognition", section 4.1), or by a convolution and a maximum over the word (Ma &
    Hovy 2016, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF", section 2.1).

    Args:
        vocabulary_size: number of word ids.
        size: number of features of a word's own vector.
        alphabet_size: number of character ids; 0 is the padding.
        character_size: number of features of a character.
        spelling_size: number of features of the encoded characters: the units of both directions, or the channels of
            the convolution.
        core: a partial `Recurrent`, called with sizes and direction; None for the convolution.
        dropout: dropout probability of embedded characters.
        init_std: standard deviation of the initial word vectors.

    Raises:
        ValueError: a size below one, an odd spelling_size for a core, a probability outside [0, 1).
    """

    input_axes: ClassVar[str] = "symbols"

    def __init__(
        self,
        vocabulary_size: int,
        size: int,
        alphabet_size: int,
        *,
        character_size: int = 32,
        spelling_size: int = 64,
        core: Callable[..., Core] | None = None,
        dropout: float = 0.0,
        init_std: float = 1.0,
    ) -> None:
        super().__init__()
        if min(vocabulary_size, size, alphabet_size, character_size, spelling_size) < 1 or not 0.0 <= dropout < 1.0:
            raise ValueError(
                f"vocabulary_size={vocabulary_size}, size={size}, alphabet_size={alphabet_size}, "
                f"character_size={character_size} and spelling_size={spelling_size} must be 1 or more, and "
                f"dropout={dropout} in [0, 1)"
            )
        if core is not None and spelling_size % 2:
            raise ValueError(f"spelling_size={spelling_size}: expected an even number, half for each direction")
        self.words = TokenEmbedding(vocabulary_size, size, init_std=init_std)
        self.characters = nn.Embedding(alphabet_size, character_size, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.core: Core | None = None
        self.convolution: nn.Conv1d | None = None
        if core is None:
            self.convolution = nn.Conv1d(character_size, spelling_size, 3, padding=1)
        else:
            half = spelling_size // 2
            self.core = complete(core, character_size, hidden_size=half, num_layers=1, bidirectional=True)
        self.output_size = size + (spelling_size if self.core is None else self.core.output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed words (…, 1 + characters), the id of each word before its characters, as (…, output_size)."""
        expect(inputs, "... symbols", name="inputs")
        words, spellings = self.words(inputs[..., 0]), inputs[..., 1:].flatten(0, -2)
        if torch.compiler.is_exporting() or spellings.numel() == 0:  # the number of distinct words isn't known there
            encoded = self._encode(spellings)
        else:  # most words occur often
            distinct, places = spellings.unique(dim=0, return_inverse=True)
            encoded = self._encode(distinct)[places]
        return torch.cat([words, encoded.view(*words.shape[:-1], encoded.shape[-1])], dim=-1)

    def _encode(self, spellings: Tensor) -> Tensor:
        """Encode distinct spellings (words, characters)."""
        lengths = (spellings != 0).sum(-1)
        embedded = self.dropout(self.characters(spellings))
        if self.core is None:
            return self._convolved(embedded, lengths)
        values, _ = self.core(embedded, lengths=lengths)
        return summarized(values, lengths, bidirectional=self.core.bidirectional)

    def _convolved(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        if embedded.shape[1] == 0:
            return embedded.new_zeros(embedded.shape[0], self.output_size - self.words.embedding_dim)
        found = torch.relu(self.convolution(embedded.transpose(1, 2)))  # pyright: ignore[reportOptionalCall]
        padding = torch.arange(embedded.shape[1], device=lengths.device) >= lengths.unsqueeze(1)
        return found.masked_fill(padding.unsqueeze(1), 0.0).amax(-1)
