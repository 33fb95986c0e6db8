"""Embeddings: from a step's input, a token id or a frame of numbers, to the features that a network reads."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unrolled.sequences import mask_from_lengths
from unrolled.shapes import ShapeError, expect
from unrolled.wording import article, counted


class InputEmbedding(nn.Module):
    """Base class of embeddings, which map inputs (…, *input_axes) to features (…, output_size).

    Attributes:
        input_axes: names of the axes after batch and time: "" for token ids, "features" for frames.
        output_size: number of features.
    """

    input_axes: ClassVar[str]
    output_size: int


def checked_embedding(embedding: Any) -> InputEmbedding:
    """Check that a network was given an embedding, and return it.

    Raises:
        ValueError: another value.
    """
    if not isinstance(embedding, InputEmbedding):
        raise ValueError(
            f"embedding is {article(type(embedding).__name__)}, expected an InputEmbedding, such as "
            "TokenEmbedding(vocabulary_size, size)"
        )
    return embedding


class TokenEmbedding(nn.Embedding, InputEmbedding):
    """Embeds token ids. The vectors are multiplied by `scale`, which is 1 by default.

    Args:
        vocabulary_size: number of token ids.
        size: number of features of a token.
        init_std: standard deviation of the initial weights, which are normal.

    Raises:
        ValueError: an init_std that isn't above 0.
    """

    input_axes: ClassVar[str] = ""
    scale = 1.0

    def __init__(self, vocabulary_size: int, size: int, *, init_std: float = 1.0) -> None:
        if not 0.0 < init_std < float("inf"):
            raise ValueError(f"init_std is {init_std}, expected a number above 0")
        super().__init__(vocabulary_size, size)
        self.output_size = size
        if init_std != 1.0:
            with torch.no_grad():
                self.weight.mul_(init_std)

    def forward(self, input: Tensor) -> Tensor:  # nn.Embedding's name
        """Embed token ids of any shape (…) as vectors (…, size)."""
        vectors = super().forward(input)
        return vectors if self.scale == 1.0 else vectors * self.scale


class OneHotEmbedding(InputEmbedding):
    """Represents token ids by vectors with a single 1, without parameters: the "local representation" of symbols.

    Args:
        vocabulary_size: number of token ids, and of features.

    Raises:
        ValueError: a size below one.
    """

    input_axes: ClassVar[str] = ""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        if vocabulary_size < 1:
            raise ValueError(f"vocabulary_size={vocabulary_size}: expected 1 or more")
        self.output_size = vocabulary_size
        self.register_buffer("vectors", torch.eye(vocabulary_size), persistent=False)
        self.vectors: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Represent token ids of any shape (…) as vectors (…, vocabulary_size)."""
        return nn.functional.embedding(inputs, self.vectors)


class FrameEmbedding(InputEmbedding):
    """Passes on frames of numbers, such as measurements, piano keys or pen offsets, or projects them.

    Args:
        input_size: number of features of a frame.
        size: number of features after a linear layer; None for no layer.

    Raises:
        ValueError: a size below one.
    """

    input_axes: ClassVar[str] = "features"

    def __init__(self, input_size: int, size: int | None = None) -> None:
        super().__init__()
        if input_size < 1 or (size is not None and size < 1):
            raise ValueError(f"input_size={input_size}, size={size}: expected 1 or more")
        self.input_size = input_size
        self.output_size = input_size if size is None else size
        self.linear = None if size is None else nn.Linear(input_size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed frames (…, input_size) as (…, output_size)."""
        expect(inputs, "... features", features=self.input_size, name="inputs")
        return inputs if self.linear is None else self.linear(inputs)


def without_padding(frames: Tensor, lengths: Tensor | None) -> Tensor:
    """Return frames (batch, time, …) with zeros after `lengths`: NaN there would reach the weights' gradients."""
    if lengths is None or not frames.is_floating_point():
        return frames
    valid = mask_from_lengths(lengths.to(frames.device), frames.shape[1])
    return frames.masked_fill(~valid.view(*valid.shape, *[1] * (frames.dim() - 2)), 0.0)


def check_conditions(conditions: Tensor | None, size: int, *axes: int) -> None:
    """Check the conditions of a decoder's inputs.

    Args:
        conditions: (batch, time, features), or (batch, features) of one step; None for a decoder without conditions.
        size: number of features that the decoder was built for.
        axes: number of rows and, for several steps, number of steps.

    Raises:
        ShapeError: another shape.
        ValueError: conditions that are missing, or of a decoder without them.
    """
    if size == 0 and conditions is not None:
        raise ValueError("this decoder was built with condition_size=0, so it reads no conditions")
    if size > 0 and conditions is None:
        raise ValueError(f"this decoder reads {counted(size, 'feature')} beside each input: pass `conditions`")
    if conditions is not None and conditions.shape != (*axes, size):
        raise ShapeError(f"conditions has the shape {tuple(conditions.shape)}, expected {(*axes, size)}")


def join_conditions(embedded: Tensor, conditions: Tensor | None) -> Tensor:
    """Return embedded inputs (…, embedding) followed by conditions (…, features), if there are any."""
    return embedded if conditions is None else torch.cat([embedded, conditions.to(embedded.dtype)], dim=-1)
