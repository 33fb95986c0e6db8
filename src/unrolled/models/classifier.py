"""Many to one: a sequence goes in, a label or a number comes out."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.layers.encoded import Encoded
from unrolled.layers.pooling import Pooling
from unrolled.models.encoders import SteppedEncoder
from unrolled.sequences import last_valid
from unrolled.shapes import expect
from unrolled.wording import article


class ClassifierState(NamedTuple):
    """What a classifier remembers of the steps so far."""

    core: Any
    pooled: Any


class SequenceClassifier(nn.Module):
    """Reads a sequence, keeps one vector of it, and says what it is.

    Args:
        encoder: from the source to `Encoded`.
        num_outputs: classes, labels or numbers to be predicted.
        pooling: a partial `Pooling`, to be completed with the encoder's output_size.
        output_dropout: dropout on the pooled vector.
        hidden_size: units of a layer with ReLU in front of the outputs; None for none.

    Raises:
        ValueError: a size below one, a probability outside [0, 1).
    """

    def __init__(
        self,
        encoder: SteppedEncoder,
        num_outputs: int,
        pooling: Callable[..., Pooling],
        *,
        output_dropout: float = 0.0,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        if num_outputs < 1 or (hidden_size is not None and hidden_size < 1):
            raise ValueError(f"num_outputs={num_outputs} and hidden_size={hidden_size} are 1 or more")
        if not 0.0 <= output_dropout < 1.0:
            raise ValueError(f"output_dropout is {output_dropout}, expected a probability in [0, 1)")
        self.encoder = encoder
        self.num_outputs = num_outputs
        self.pooling = pooling(encoder.output_size)
        self.dropout = nn.Dropout(output_dropout)
        size = self.pooling.output_size
        if hidden_size is None:
            self.output: nn.Module = nn.Linear(size, num_outputs)
        else:
            layers = (nn.Linear(size, hidden_size), nn.ReLU(), nn.Dropout(output_dropout))
            self.output = nn.Sequential(*layers, nn.Linear(hidden_size, num_outputs))

    @property
    def streams(self) -> bool:
        """Whether it can be fed step by step: what reads backwards has to wait for the end."""
        return not self.encoder.core.bidirectional

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, time) ids or (batch, time, features), of which lengths (batch,) are valid -> (batch, outputs)."""
        return self.read_out(self.encoder(source, lengths))

    def read_out(self, encoded: Encoded) -> Tensor:
        """What is said about a source that was encoded: (batch, outputs), not normalized."""
        return self.output(self.dropout(self.pooling(encoded)))

    def initial_state(self, batch: int) -> ClassifierState:
        """The state before the first step."""
        like = next(self.parameters())
        pooled = self.pooling.initial_state(batch, like=like)
        return ClassifierState(self.encoder.initial_state(batch, like=like), pooled)

    def step(self, source: Tensor, state: ClassifierState) -> tuple[Tensor, ClassifierState]:
        """One step of the source, (batch,) ids or (batch, features): what is said now, and the next state.

        In evaluation mode it is behind each step what `forward` says about the steps so far.

        Raises:
            ShapeError: a state of other sizes.
            ValueError: a state of another structure, dtype or device; two directions, which know no next step.
        """
        if not isinstance(state, ClassifierState):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"the state is {article(type(state).__name__)}, expected the ClassifierState of `initial_state`"
            )
        values, core = self.encoder.step(source, state.core)
        vector, pooled = self.pooling.step(values, state.pooled)
        return self.output(self.dropout(vector)), ClassifierState(core, pooled)

    def early(self, source: Tensor, lengths: Tensor, shares: Sequence[float]) -> Tensor:
        """What is said after a share of each sequence, rounded up to whole steps: (batch, shares, outputs).

        What reads forwards needs one pass for all shares. In two directions each beginning is read by itself, since
        the backward direction begins where the hearing stopped.

        Raises:
            ValueError: a share outside (0, 1].
        """
        expect(lengths, "batch", batch=len(source), name="lengths")
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"shares={list(shares)}: numbers above 0 and at most 1")
        # Rounded before it is rounded up: 0.1 × 10 is a little more than 1 in some arithmetic.
        heard = [torch.ceil((lengths.double() * share).round(decimals=9)).long() for share in shares]
        if not self.streams:
            return torch.stack([self(source, some) for some in heard], dim=1)
        values = self.encoder(source, lengths).values
        state = self.pooling.initial_state(len(source), like=values)
        vectors: list[Tensor] = []
        for step in range(values.shape[1]):
            vector, state = self.pooling.step(values[:, step], state)
            vectors.append(vector)
        nothing = values.new_zeros(len(source), self.pooling.output_size)
        pooled = torch.stack(vectors, dim=1) if vectors else nothing.unsqueeze(1)[:, :0]
        return torch.stack([self.output(last_valid(pooled, some, nothing)) for some in heard], dim=1)
