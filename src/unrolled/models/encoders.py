"""Encoders of tokens and of feature frames."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unrolled.layers.convolution import CausalConvolution
from unrolled.layers.dropout import EmbeddingDropout, SequenceDropout, TokenDropout
from unrolled.layers.encoded import Encoded
from unrolled.layers.feedforward import FeedForward
from unrolled.layers.recurrent import Recurrent
from unrolled.models.embeddings import InputEmbedding, TokenEmbedding, checked_embedding, without_padding
from unrolled.resets import Stretches
from unrolled.sequences import last_valid, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, outline
from unrolled.wording import article

Core = Recurrent | FeedForward
C = TypeVar("C", bound=Core)


class Encoder(nn.Module, ABC):
    """Base class of encoders. `output_size` is the number of features of `Encoded.values`."""

    output_size: int

    @abstractmethod
    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Encode a source (batch, source) or (batch, source, features) with lengths (batch,)."""


def complete(
    core: Callable[..., C],
    input_size: int,
    *,
    hidden_size: int | None,
    num_layers: int | None,
    bidirectional: bool = False,
) -> C:
    """Complete a partial `Recurrent` or `FeedForward` (Hydra's `core: ${model}`) with the caller's arguments.

    Sizes that are None keep the value of the partial. The direction is always set by the caller.
    """
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers}
    given = {name: size for name, size in sizes.items() if size is not None}
    return core(input_size=input_size, bidirectional=bidirectional, **given)


def summarized(values: Tensor, lengths: Tensor | None, *, bidirectional: bool) -> Tensor:
    """Return (batch, features), the output after each direction's last step, which is the first one backwards.

    Args:
        values: (batch, time, features) outputs of a core, those of the forward direction first.
        lengths: (batch,) numbers of valid steps; None without padding.
        bidirectional: whether the second half of the features is that of the backward direction.
    """
    batch, time, features = values.shape
    if lengths is None:
        lengths = torch.full((batch,), time, device=values.device)
    nothing = values.new_zeros(batch, features)
    final = last_valid(values, lengths, nothing)
    if not bidirectional:
        return final
    half = features // 2
    first = values[:, 0] if time else nothing
    return torch.cat([final[:, :half], first[:, half:]], dim=-1)


class EmbeddingEncoder(Encoder):
    """Encodes each step by its embedding alone; the summary is their mean.

    Attention to it reads the source itself, such as the characters of a text in handwriting synthesis (Graves 2013).

    Args:
        embedding: an `InputEmbedding`, such as OneHotEmbedding(vocabulary_size).

    Raises:
        ValueError: not an `InputEmbedding`.
    """

    def __init__(self, embedding: InputEmbedding) -> None:
        super().__init__()
        self.embedding = checked_embedding(embedding)
        self.output_size = embedding.output_size

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Encode a source, batch first, with values (batch, source, embedding), zero in the padding."""
        expect(source, f"batch source {self.embedding.input_axes}", name="source")
        values = self.embedding(without_padding(source, lengths))
        if lengths is None:
            lengths = torch.full((source.shape[0],), source.shape[1], device=source.device)
        mask = mask_from_lengths(lengths.to(source.device), source.shape[1])
        values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
        summary = values.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return Encoded(values, lengths, summary, source if self.embedding.input_axes == "" else None)


class SteppedEncoder(Encoder, ABC):
    """Base class of encoders that embed each step and run a recurrent core over them.

    The summary is the core's output after each direction's last step, which is the first one backwards.
    """

    core: Core

    @abstractmethod
    def embed(self, source: Tensor) -> Tensor:
        """Embed a source, batch first, as (batch, time, features). A step depends on that and earlier steps only."""

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Encode a source, batch first, with values (batch, time, output_size)."""
        values, _ = self._run(source, None, lengths)
        return Encoded(
            self._dropped(values),
            lengths,
            summarized(values, lengths, bidirectional=self.core.bidirectional),
            self._tokens(source),
        )

    def run(
        self,
        source: Tensor,
        state: tuple[Any, ...] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Encode the next steps of a source; return values (batch, time, output_size) and the state after them.

        Args:
            source: the source, batch first.
            state: the state before it; None for the initial one.
            lengths: (batch,) numbers of valid steps; None without padding.
            resets: (batch, time) bool, true where a new sequence begins; see `Recurrent.forward`.
        """
        values, state = self._run(source, state, lengths, resets)
        return self._dropped(values), state

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """Return the core's state before the first step."""
        return self.core.initial_state(batch, like=like)

    def step(self, source: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Encode one step of a source, (batch,) or (batch, features), as (batch, output_size); return the next state.

        Raises:
            ValueError: a bidirectional encoder.
        """
        return self.core.step(self.embed(source.unsqueeze(1)).squeeze(1), state)

    def _run(
        self, source: Tensor, state: Any, lengths: Tensor | None, resets: Tensor | Stretches | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        return self.core(self.embed(source), state, lengths, resets)

    def _dropped(self, values: Tensor) -> Tensor:
        """Apply the dropout of the values, which doesn't affect the summary."""
        return values

    def _tokens(self, source: Tensor) -> Tensor | None:
        return None


class RecurrentEncoder(SteppedEncoder):
    """Encodes tokens, or another kind of steps, with an embedding and a recurrent network.

    Args:
        embedding: an `InputEmbedding`, such as TokenEmbedding(vocabulary_size, size).
        core: a partial `Recurrent`, called with input size and direction.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        bidirectional: whether the core runs in both directions.
        token_dropout: probability that the whole embedding of a step is zeroed.
        embedding_dropout: probability that all occurrences of a word of the vocabulary are zeroed; for a
            `TokenEmbedding`.
        input_dropout: dropout probability of the embedded steps.
        output_dropout: dropout probability of `Encoded.values`; the summary is not dropped.
        variational_dropout: whether the last two have one mask for all steps of a sequence.

    Raises:
        ValueError: not an `InputEmbedding`, embedding_dropout for something else than tokens, a probability outside
            [0, 1).
    """

    def __init__(
        self,
        embedding: InputEmbedding,
        core: Callable[..., Core],
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        bidirectional: bool = True,
        token_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = checked_embedding(embedding)
        if embedding_dropout > 0 and not isinstance(embedding, TokenEmbedding):
            raise ValueError(
                f"embedding_dropout={embedding_dropout} drops words of a vocabulary, and {type(embedding).__name__} "
                "has none; use token_dropout"
            )
        self.embedding_dropout = EmbeddingDropout(embedding_dropout)
        self.token_dropout = TokenDropout(token_dropout)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.core = complete(
            core, embedding.output_size, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        self.output_size = self.core.output_size

    @classmethod
    def of_tokens(
        cls, vocabulary_size: int, embedding_size: int, core: Callable[..., Core], **options: Any
    ) -> "RecurrentEncoder":
        """Build an encoder of tokens, with a `TokenEmbedding`; see the class for the core and further options."""
        return cls(TokenEmbedding(vocabulary_size, embedding_size), core, **options)

    def embed(self, source: Tensor) -> Tensor:
        """Embed steps (batch, source, …) as (batch, source, embedding)."""
        expect(source, f"batch source {self.embedding.input_axes}", name="source")
        if isinstance(self.embedding, TokenEmbedding):
            embedded = self.embedding_dropout(self.embedding, source)
        else:
            embedded = self.embedding(source)
        return self.input_dropout(self.token_dropout(embedded))

    def _dropped(self, values: Tensor) -> Tensor:
        return self.output_dropout(values)

    def _tokens(self, source: Tensor) -> Tensor | None:
        return source if isinstance(self.embedding, TokenEmbedding) else None


class FrameState(NamedTuple):
    """The state of a `FeatureEncoder` after some frames."""

    core: tuple[Any, ...]
    convolution: tuple[Tensor, Tensor] | None


class FeatureEncoder(SteppedEncoder):
    """Encodes frames of features with a recurrent network: spectra, sensor values, rows or patches of an image.

    Args:
        input_size: number of features of a frame.
        core: a partial `Recurrent`, called with input size and direction.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        bidirectional: whether the core runs in both directions.
        filters: number of units of a ReLU layer that is applied to each frame before the core; for overlapping patches
            of an image it is a convolution. None for no such layer.
        conv_channels: number of channels of a causal convolution over the features and over past frames, before
            `filters`. It has two layers with stride 2 along the features, which must be in a meaningful order such as
            that of frequency. None for no convolution.
        conv_frames: number of frames that a filter of the convolution covers: the current one and past ones.
        conv_norm: whether the convolution has batch normalization.
        input_dropout: dropout probability of the core's input.
        variational_dropout: whether input_dropout has one mask for all steps of a sequence.

    Raises:
        ValueError: a size below one, conv_frames or conv_norm without conv_channels, a probability outside [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        core: Callable[..., Core],
        *,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        bidirectional: bool = True,
        filters: int | None = None,
        conv_channels: int | None = None,
        conv_frames: int = 1,
        conv_norm: bool = False,
        input_dropout: float = 0.0,
        variational_dropout: bool = True,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "filters": filters,
            "conv_channels": conv_channels,
            "conv_frames": conv_frames,
        }
        if any(size is not None and size < 1 for size in sizes.values()):
            raise ValueError(f"{', '.join(f'{name}={size}' for name, size in sizes.items())}: expected 1 or more")
        if conv_channels is None and (conv_frames > 1 or conv_norm):
            raise ValueError(f"conv_frames={conv_frames} and conv_norm={conv_norm} need conv_channels, which is None")
        self.input_size = input_size
        self.convolution = (
            None if conv_channels is None else CausalConvolution(input_size, conv_channels, conv_frames, norm=conv_norm)
        )
        read = input_size if self.convolution is None else self.convolution.output_size
        self.filters = None if filters is None else nn.Linear(read, filters)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.core = complete(
            core, filters or read, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        self.output_size = self.core.output_size

    def _run(
        self, source: Tensor, state: Any, lengths: Tensor | None, resets: Tensor | Stretches | None = None
    ) -> tuple[Tensor, FrameState]:
        """Values in the padding have no effect, not even NaN."""
        if resets is not None and self.convolution is not None and self.convolution.seen:
            raise ValueError(
                f"conv_frames={self.convolution.seen + 1} reads past frames, also those of the sequence before a reset "
                "mark; use conv_frames=1, or a row for each sequence"
            )
        expect(source, "batch time features", features=self.input_size, name="source")
        core, past = (None, None) if state is None else self._checked(state, source)
        valid = None
        if lengths is not None and (self.filters is not None or self.convolution is not None):
            valid = mask_from_lengths(lengths.to(source.device), source.shape[1])
            source = source.masked_fill(~valid.unsqueeze(-1), 0.0)
        if self.convolution is not None:
            if state is not None and valid is not None and not bool(valid.all()):
                raise ValueError("conv_channels with a carried state needs windows without padding; see `step`")
            source, past = self.convolution(source, past, valid)
        values, core = self.core(self._filtered(source), core, lengths, resets)
        return values, FrameState(core, past)

    def embed(self, source: Tensor) -> Tensor:
        """Embed frames (batch, time, features) as the core's inputs."""
        expect(source, "batch time features", features=self.input_size, name="source")
        return self._filtered(source if self.convolution is None else self.convolution(source)[0])

    def initial_state(self, batch: int, *, like: Tensor) -> FrameState:
        """Return the state before the first frame."""
        convolution = None if self.convolution is None else self.convolution.initial_state(batch, like=like)
        return FrameState(super().initial_state(batch, like=like), convolution)

    def step(self, source: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, FrameState]:
        """See `SteppedEncoder.step`."""
        expect(source, "batch features", features=self.input_size, name="source")
        frame, (core, convolution) = source.unsqueeze(1), self._checked(state, source)
        if self.convolution is not None:
            frame, convolution = self.convolution(frame, convolution)
        values, core = self.core.step(self._filtered(frame).squeeze(1), core)
        return values, FrameState(core, convolution)

    def _checked(self, state: Any, source: Tensor) -> FrameState:
        if not isinstance(state, FrameState):
            raise ValueError(
                f"the state is {article(type(state).__name__)}, expected the FrameState of `initial_state`"
            )
        first = None if self.convolution is None else self.convolution.initial_state(1, like=source)
        check(state.convolution, outline(first, like=source), like=source, name="state.convolution")
        return state

    def _filtered(self, frames: Tensor) -> Tensor:
        if self.filters is not None:
            frames = torch.relu(self.filters(frames))
        return self.input_dropout(frames)
