"""From a source to `Encoded`: words, frames and image regions look alike from here on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.dropout import SequenceDropout, TokenDropout
from unrolled.recurrent import Recurrent
from unrolled.sequences import last_valid
from unrolled.shapes import expect


class Encoded(NamedTuple):
    """A source as a decoder or a classifier sees it."""

    values: Tensor  # (batch, source, features)
    lengths: Tensor | None  # (batch,), None when every row is full
    summary: Tensor  # (batch, features)
    tokens: Tensor | None = None  # (batch, source): ids, where the source has any


class Encoder(nn.Module, ABC):
    """Turns a source into `Encoded`; `output_size` is the number of its features."""

    output_size: int

    @abstractmethod
    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """(batch, source) or (batch, source, features) and lengths (batch,) -> Encoded."""


def complete(
    core: Callable[..., Recurrent],
    input_size: int,
    *,
    hidden_size: int | None,
    num_layers: int | None,
    bidirectional: bool = False,
) -> Recurrent:
    """Finishes a partial `Recurrent` (Hydra's `core: ${model}`) with what only its user knows.

    Sizes that are None stay as the model has them. Direction is the user's to say, never the model's.
    """
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers}
    given = {name: size for name, size in sizes.items() if size is not None}
    return core(input_size=input_size, bidirectional=bidirectional, **given)


class RecurrentEncoder(Encoder):
    """Tokens through an embedding and a recurrent net.

    The summary is what each direction has read in full: forwards at the last valid step, backwards at the first.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: features of a token.
        core: a partial `Recurrent`, to be completed with input size and direction.
        hidden_size: overrides the core's own.
        num_layers: overrides the core's own.
        bidirectional: read in both directions.
        token_dropout: share of the tokens whose embedding is zeroed as a whole.
        input_dropout: dropout on the embedded tokens.
        variational_dropout: input_dropout with one mask for all steps of a sequence, or a new one at each.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        core: Callable[..., Recurrent],
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        bidirectional: bool = True,
        token_dropout: float = 0.0,
        input_dropout: float = 0.0,
        variational_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.token_dropout = TokenDropout(token_dropout)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.core = complete(
            core, embedding_size, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        self.output_size = self.core.output_size

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Token ids (batch, source) -> Encoded with (batch, source, output_size) values."""
        expect(source, "batch source", name="source")
        embedded = self.input_dropout(self.token_dropout(self.embedding(source)))
        values, _ = self.core(embedded, lengths=lengths)
        return Encoded(values, lengths, self._summary(values, lengths), source)

    def _summary(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        batch, source, features = values.shape
        if lengths is None:
            lengths = torch.full((batch,), source, device=values.device)
        nothing = values.new_zeros(batch, features)
        final = last_valid(values, lengths, nothing)
        if not self.core.bidirectional:
            return final
        half = features // 2
        first = values[:, 0] if source else nothing
        return torch.cat([final[:, :half], first[:, half:]], dim=-1)
