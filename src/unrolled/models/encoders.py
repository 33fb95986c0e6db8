"""From a source to `Encoded`: words, frames and image regions look alike from here on."""

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
from unrolled.sequences import last_valid, mask_from_lengths
from unrolled.shapes import expect
from unrolled.state import check, outline
from unrolled.wording import article

Core = Recurrent | FeedForward
C = TypeVar("C", bound=Core)


class Encoder(nn.Module, ABC):
    """Turns a source into `Encoded`; `output_size` is the number of its features."""

    output_size: int

    @abstractmethod
    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """(batch, source) or (batch, source, features) and lengths (batch,) -> Encoded."""


def complete(
    core: Callable[..., C],
    input_size: int,
    *,
    hidden_size: int | None,
    num_layers: int | None,
    bidirectional: bool = False,
) -> C:
    """Finishes a partial `Recurrent` or `FeedForward` (Hydra's `core: ${model}`) with what only its user knows.

    Sizes that are None stay as the model has them. Direction is the user's to say, never the model's.
    """
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers}
    given = {name: size for name, size in sizes.items() if size is not None}
    return core(input_size=input_size, bidirectional=bidirectional, **given)


class TokenEmbedding(nn.Embedding):
    """Token ids (…) -> vectors (…, size), which are the weights times `scale`, 1 unless somebody sets it."""

    scale = 1.0

    def forward(self, input: Tensor) -> Tensor:  # nn.Embedding's name
        """Ids of any shape -> their vectors."""
        vectors = super().forward(input)
        return vectors if self.scale == 1.0 else vectors * self.scale


class SteppedEncoder(Encoder, ABC):
    """Each step of a source embedded by itself, then read in order by a core.

    The summary is what each direction has read in full: forwards at the last valid step, backwards at the first.
    """

    core: Core

    @abstractmethod
    def embed(self, source: Tensor) -> Tensor:
        """Steps of a source, batch first -> (batch, time, features), each from its own step and those before it."""

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """A source, batch first -> Encoded with (batch, time, output_size) values."""
        values, _ = self.core(self.embed(source), lengths=lengths)
        return Encoded(values, lengths, self._summary(values, lengths), self._tokens(source))

    def initial_state(self, batch: int, *, like: Tensor) -> tuple[Any, ...]:
        """The core's state before the first step."""
        return self.core.initial_state(batch, like=like)

    def step(self, source: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One step of a source, (batch,) or (batch, features) -> (batch, output_size) and the next state.

        Raises:
            ValueError: two directions, which know no next step.
        """
        return self.core.step(self.embed(source.unsqueeze(1)).squeeze(1), state)

    def _tokens(self, source: Tensor) -> Tensor | None:
        return None

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


class RecurrentEncoder(SteppedEncoder):
    """Tokens through an embedding and a recurrent net.

    Args:
        vocabulary_size: number of token ids.
        embedding_size: features of a token.
        core: a partial `Recurrent`, to be completed with input size and direction.
        hidden_size: overrides the core's own.
        num_layers: overrides the core's own.
        bidirectional: read in both directions.
        token_dropout: share of the tokens whose embedding is zeroed as a whole.
        embedding_dropout: share of the vocabulary that is zeroed, wherever it stands, for a whole pass.
        input_dropout: dropout on the embedded tokens.
        output_dropout: dropout on `Encoded.values`, not on the summary.
        variational_dropout: both dropouts with one mask for all steps of a sequence, or a new one at each.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
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
        self.embedding = TokenEmbedding(vocabulary_size, embedding_size)
        self.embedding_dropout = EmbeddingDropout(embedding_dropout)
        self.token_dropout = TokenDropout(token_dropout)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.output_dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.core = complete(
            core, embedding_size, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        self.output_size = self.core.output_size

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Token ids (batch, source) -> Encoded with (batch, source, output_size) values."""
        encoded = super().forward(source, lengths)
        return encoded._replace(values=self.output_dropout(encoded.values))

    def embed(self, source: Tensor) -> Tensor:
        """Token ids (batch, source) -> (batch, source, embedding)."""
        expect(source, "batch source", name="source")
        embedded = self.embedding_dropout(self.embedding, source)
        return self.input_dropout(self.token_dropout(embedded))

    def _tokens(self, source: Tensor) -> Tensor | None:
        return source


class FrameState(NamedTuple):
    """What a `FeatureEncoder` remembers of the frames so far."""

    core: tuple[Any, ...]
    bands: tuple[Tensor, Tensor] | None


class FeatureEncoder(SteppedEncoder):
    """Frames of numbers through a recurrent net: spectra, sensors, rows or patches of a picture.

    Args:
        input_size: features of a frame.
        core: a partial `Recurrent`, to be completed with input size and direction.
        hidden_size: overrides the core's own.
        num_layers: overrides the core's own.
        bidirectional: read in both directions.
        filters: learned filters, with ReLU, that each frame passes first; on overlapping patches they are a small
            convolution whose places are read in order. None for none.
        conv_channels: learned filters, with ReLU, that move along the features of each frame, which have to be in an
            order such as that of frequency: what is learned of a voice at one place is known at its neighbours. Two
            layers, each of which halves the places. They come before `filters`. None for none.
        conv_frames: how many frames such a filter sees: each and those before it.
        conv_norm: batch normalization of what these filters find.
        input_dropout: dropout on what the core reads.
        variational_dropout: input_dropout with one mask for all steps of a sequence, or a new one at each.

    Raises:
        ValueError: a size below one, options of conv_channels without them, a probability outside [0, 1).
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
            raise ValueError(f"{', '.join(f'{name}={size}' for name, size in sizes.items())}: 1 or more")
        if conv_channels is None and (conv_frames > 1 or conv_norm):
            raise ValueError(f"conv_frames={conv_frames} and conv_norm={conv_norm} are of conv_channels, which is None")
        self.input_size = input_size
        self.bands = (
            None if conv_channels is None else CausalConvolution(input_size, conv_channels, conv_frames, norm=conv_norm)
        )
        read = input_size if self.bands is None else self.bands.output_size
        self.filters = None if filters is None else nn.Linear(read, filters)
        self.input_dropout = SequenceDropout(input_dropout, variational=variational_dropout)
        self.core = complete(
            core, filters or read, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        self.output_size = self.core.output_size

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Frames (batch, time, features) -> Encoded; what lies in the padding never matters, not even NaN."""
        if lengths is None or (self.filters is None and self.bands is None):  # the core sees to the padding
            return super().forward(source, lengths)
        valid = mask_from_lengths(lengths.to(source.device), source.shape[1])
        values, _ = self.core(self.embed(source.masked_fill(~valid.unsqueeze(-1), 0.0), valid), lengths=lengths)
        return Encoded(values, lengths, self._summary(values, lengths))

    def embed(self, source: Tensor, valid: Tensor | None = None) -> Tensor:
        """Frames (batch, time, features) -> (batch, time, what the core reads); see `CausalConvolution` for valid."""
        expect(source, "batch time features", features=self.input_size, name="source")
        return self._filtered(source if self.bands is None else self.bands(source, valid=valid)[0])

    def initial_state(self, batch: int, *, like: Tensor) -> FrameState:
        """What is remembered before the first frame."""
        bands = None if self.bands is None else self.bands.initial_state(batch, like=like)
        return FrameState(super().initial_state(batch, like=like), bands)

    def step(self, source: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, FrameState]:
        """See `SteppedEncoder.step`."""
        expect(source, "batch features", features=self.input_size, name="source")
        if not isinstance(state, FrameState):
            raise ValueError(
                f"the state is {article(type(state).__name__)}, expected the FrameState of `initial_state`"
            )
        frame, (core, bands) = source.unsqueeze(1), state
        first = None if self.bands is None else self.bands.initial_state(1, like=source)
        check(bands, outline(first, like=source), like=source, name="state.bands")
        if self.bands is not None:
            frame, bands = self.bands(frame, bands)
        values, core = self.core.step(self._filtered(frame).squeeze(1), core)
        return values, FrameState(core, bands)

    def _filtered(self, frames: Tensor) -> Tensor:
        if self.filters is not None:
            frames = torch.relu(self.filters(frames))
        return self.input_dropout(frames)
