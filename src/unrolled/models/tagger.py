"""Predictions at each step of a source: tags of words, labels of frames, numbers, characters without alignment."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.layers.dropout import SequenceDropout
from unrolled.models.encoders import SteppedEncoder
from unrolled.resets import Stretches
from unrolled.sequences import at_steps
from unrolled.shapes import ShapeError, expect


class SequenceTagger(nn.Module):
    """Encodes a sequence, and predicts with a head at each step, or at given positions.

    With a `CategoricalHead` it assigns a label to each step, with a `CTCHead` it transcribes.

    Args:
        encoder: encodes the source.
        head: a partial `Head`, called with its input size.
        output_dropout: dropout probability of the encoded steps.
        variational_dropout: whether it has one mask for all steps of a sequence.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(
        self,
        encoder: SteppedEncoder,
        head: Callable[..., Head],
        *,
        output_dropout: float = 0.0,
        variational_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = SequenceDropout(output_dropout, variational=variational_dropout)
        self.head = head(input_size=encoder.output_size)

    @property
    def streams(self) -> bool:
        """Whether the network can process a source step by step; a bidirectional encoder needs the whole source."""
        return not self.encoder.core.bidirectional

    def forward(self, source: Tensor, lengths: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Return the head's parameters (batch, time, outputs), or those at the given positions.

        Args:
            source: ids (batch, time) or features (batch, time, features), as the encoder reads them.
            lengths: (batch,) numbers of valid steps; None without padding.
            positions: (batch, words) int64, the steps to predict at, such as the first subword of each word. The
                result is then (batch, words, outputs).

        Raises:
            ShapeError: positions of another shape.
        """
        values = self.dropout(self.encoder(source, lengths).values)
        if positions is not None:
            expect(positions, "batch words", batch=source.shape[0], name="positions")
            if values.shape[1] == 0 and positions.shape[1] > 0:
                raise ShapeError("positions are given, but the source has no step")
            values = at_steps(values, positions)
        return self.head(values)

    def run(
        self,
        source: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | Stretches | None = None,
    ) -> tuple[Tensor, Any]:
        """Return the parameters (batch, time, outputs) of the next steps of a source, and the state after them.

        For truncated backpropagation through time and for streams; see `SteppedEncoder.run`.

        Raises:
            ValueError: a bidirectional encoder, which has to know later steps.
        """
        if not self.streams:
            raise ValueError("a bidirectional encoder needs the whole source; build it with bidirectional=False")
        values, state = self.encoder.run(source, state, lengths, resets)
        return self.head(self.dropout(values)), state

    def initial_state(self, batch: int) -> Any:
        """Return the state before the first step."""
        return self.encoder.initial_state(batch, like=next(self.parameters()))

    def step(self, source: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Process one step of the source, (batch,) ids or (batch, features); return parameters and the next state.

        Raises:
            ValueError: a bidirectional encoder.
        """
        values, state = self.encoder.step(source, state)
        return self.head(self.dropout(values.unsqueeze(1)).squeeze(1)), state
