"""What a decoder's predictions share with its other parts: tied weights, copying, and sums over alignments."""

from typing import Any

from torch import nn

from unrolled.heads.base import Head
from unrolled.heads.categorical import CategoricalHead
from unrolled.models.decoders.attentive import AttentiveCore
from unrolled.models.decoders.copying import CopyMixture
from unrolled.models.embeddings import TokenEmbedding
from unrolled.wording import article


def expect_no_attention(**options: Any) -> None:
    """Check that a decoder without attention has no options of attention.

    Raises:
        ValueError: an option is set.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise ValueError(f"{' and '.join(given)}: for a decoder with attention, and attention is None")


def aligned_classes(head: Head, embedding: nn.Module, *, copy: bool) -> int:
    """Return the number of classes of a decoder that sums over alignments, which predicts what it reads: tokens.

    Raises:
        ValueError: no embedding or head of tokens, more tokens than classes, or copying.
    """
    if not isinstance(head, CategoricalHead) or not isinstance(embedding, TokenEmbedding):
        raise ValueError(
            f"HardMonotonicAttention needs a TokenEmbedding and a CategoricalHead, got "
            f"{article(type(embedding).__name__)} and {article(type(head).__name__)}"
        )
    if embedding.num_embeddings > head.num_classes:
        raise ValueError(
            f"HardMonotonicAttention follows the tokens that the decoder reads, {embedding.num_embeddings}, and it "
            f"predicts {head.num_classes}; use one vocabulary for both"
        )
    if copy:
        raise ValueError("copy=True needs soft attention, and HardMonotonicAttention sums over alignments")
    return head.num_classes


def tie(head: Head, embedding: nn.Module, *, scaled: bool) -> None:
    """Share an embedding's weights with the head, and scale the embedding by √size if `scaled`.

    Raises:
        ValueError: no embedding or head of tokens, or sizes that don't match.
    """
    if not isinstance(head, CategoricalHead) or not isinstance(embedding, TokenEmbedding):
        raise ValueError(
            f"tied=True needs a TokenEmbedding and a CategoricalHead, got {article(type(embedding).__name__)} and "
            f"{article(type(head).__name__)}"
        )
    if embedding.embedding_dim != head.input_size:
        raise ValueError(
            f"tied=True needs embedding.size equal to the size of the head's input, {head.input_size}, got "
            f"{embedding.embedding_dim}"
        )
    head.tie(embedding)
    embedding.scale = embedding.embedding_dim**0.5 if scaled else 1.0


def copy_mixture(steps: nn.Module, head: Head) -> CopyMixture:
    """Return the layer that lets a decoder copy tokens of the source.

    Raises:
        ValueError: no attention weights, or no head of tokens.
    """
    if not isinstance(steps, AttentiveCore) or not steps.attention.has_weights:
        name = type(steps.attention).__name__ if isinstance(steps, AttentiveCore) else "no attention"
        raise ValueError(f"copy=True needs attention weights, and {name} has none")
    if not isinstance(head, CategoricalHead):
        raise ValueError(f"copy=True needs a CategoricalHead, got {article(type(head).__name__)}")
    return CopyMixture(steps.features_size)
