"""Whole networks: an encoder and what reads it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState
from unrolled.models.encoders import Encoder, TokenEmbedding


class EncoderDecoder(nn.Module):
    """A source goes in, a text comes out (Sutskever et al. 2014; Cho et al. 2014).

    Args:
        encoder: from the source to `Encoded`.
        decoder: a partial `Decoder`, to be completed with source_size, the encoder's output_size.
        shared_embedding: encoder and decoder share one embedding, and with a tied decoder one with the output layer
            too (Press & Wolf 2017, "three-way weight tying"); for a joint vocabulary.

    Raises:
        ValueError: embeddings to be shared that have unequal shapes or don't exist; a copying decoder with fewer ids
            than its encoder.
    """

    def __init__(self, encoder: Encoder, decoder: Callable[..., Decoder], *, shared_embedding: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder(source_size=encoder.output_size)
        if shared_embedding:
            _share(self.encoder, self.decoder)
        read = getattr(encoder, "embedding", None)
        if getattr(self.decoder, "copy", False) and isinstance(read, nn.Embedding):
            _check_copying(read.num_embeddings, self.decoder.vocabulary_size)

    def forward(
        self, source: Tensor, source_lengths: Tensor | None, inputs: Tensor, lengths: Tensor | None = None
    ) -> Decoded:
        """What is predicted behind each token of a given text (teacher forcing).

        Args:
            source: what the encoder reads, batch first.
            source_lengths: (batch,); None where every row is full.
            inputs: (batch, time) token ids, the start symbol first.
            lengths: (batch,) valid inputs; None where every row is full.
        """
        state, memory = self.start(source, source_lengths)
        return self.decoder(inputs, state, memory, lengths)

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """The source as the decoder sees it."""
        return self.encoder(source, lengths)

    def start(self, source: Tensor, lengths: Tensor | None = None) -> tuple[DecoderState, Any]:
        """The decoder's state before the first token, and its memory of the source: what a search wants."""
        return self.decoder.start(len(source), self.encode(source, lengths))


def _share(encoder: nn.Module, decoder: nn.Module) -> None:
    read, written = (getattr(part, "embedding", None) for part in (encoder, decoder))
    if not isinstance(read, nn.Embedding) or not isinstance(written, nn.Embedding):
        raise ValueError("shared_embedding=True needs an encoder and a decoder that have an `embedding`")
    if read.weight.shape != written.weight.shape:
        raise ValueError(
            f"shared_embedding=True needs embeddings of equal shape, got {tuple(read.weight.shape)} in the encoder "
            f"and {tuple(written.weight.shape)} in the decoder; take one vocabulary for both and one embedding_size"
        )
    read.weight = written.weight  # the decoder's, since its output layer may share it already
    if isinstance(read, TokenEmbedding) and isinstance(written, TokenEmbedding):
        read.scale = written.scale


def _check_copying(source_vocabulary: int, vocabulary: int) -> None:
    if source_vocabulary > vocabulary:
        raise ValueError(
            f"copy=True writes ids of the source, which has {source_vocabulary} of them, and the decoder knows "
            f"{vocabulary}; take one vocabulary for both"
        )
