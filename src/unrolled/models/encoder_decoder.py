"""Networks of an encoder and a decoder."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.models.decoders.base import Decoded, Decoder, DecoderState
from unrolled.models.embeddings import TokenEmbedding
from unrolled.models.encoders import Encoder


class EncoderDecoder(nn.Module):
    """Predicts a text, or frames, from a source (Sutskever et al. 2014; Cho et al. 2014).

    Args:
        encoder: encodes the source.
        decoder: a partial `Decoder`, called with source_size, the encoder's output_size.
        shared_embedding: whether encoder and decoder share one embedding, for a joint vocabulary. A tied decoder shares
            it with its output layer, too (Press & Wolf 2017, "three-way weight tying").

    Raises:
        ValueError: shared embeddings with different shapes, or that don't exist; a copying decoder with fewer token ids
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
        self,
        source: Tensor,
        source_lengths: Tensor | None,
        inputs: Tensor,
        lengths: Tensor | None = None,
        conditions: Tensor | None = None,
    ) -> Decoded:
        """Predict the input after each input of a given sequence (teacher forcing).

        Args:
            source: the encoder's input, batch first.
            source_lengths: (batch,); None without padding.
            inputs: (batch, time) token ids, the start symbol first; or (batch, time, features) frames.
            lengths: (batch,) numbers of valid inputs; None without padding.
            conditions: (batch, time, condition_size); see `Decoder.forward`.
        """
        state, memory = self.start(source, source_lengths)
        return self.decoder(inputs, state, memory, lengths, conditions)

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Encode the source."""
        return self.encoder(source, lengths)

    def start(self, source: Tensor, lengths: Tensor | None = None) -> tuple[DecoderState, Any]:
        """Encode the source; return the decoder's state before the first token and its memory, for a search."""
        return self.decoder.start(source.shape[0], self.encode(source, lengths))


def _share(encoder: nn.Module, decoder: nn.Module) -> None:
    read, written = (getattr(part, "embedding", None) for part in (encoder, decoder))
    if not isinstance(read, nn.Embedding) or not isinstance(written, nn.Embedding):
        raise ValueError("shared_embedding=True needs an encoder and a decoder that have an `embedding`")
    if read.weight.shape != written.weight.shape:
        raise ValueError(
            f"shared_embedding=True needs embeddings of equal shape, got {tuple(read.weight.shape)} in the encoder "
            f"and {tuple(written.weight.shape)} in the decoder; use one vocabulary and one size for both"
        )
    read.weight = written.weight  # the decoder's weight, since its output layer may share it already
    if isinstance(read, TokenEmbedding) and isinstance(written, TokenEmbedding):
        read.scale = written.scale


def _check_copying(source_vocabulary: int, vocabulary: int) -> None:
    if source_vocabulary > vocabulary:
        raise ValueError(
            f"copy=True copies token ids of the source, which has {source_vocabulary}, and the decoder has "
            f"{vocabulary}; use one vocabulary for both"
        )
