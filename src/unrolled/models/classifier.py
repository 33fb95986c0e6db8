"""Sequence classification and regression."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.heads.base import Head
from unrolled.layers.encoded import Encoded
from unrolled.layers.pooling import Pooling
from unrolled.models.embeddings import TokenEmbedding
from unrolled.models.encoders import SteppedEncoder
from unrolled.models.wide import WidePath, WideState
from unrolled.sequences import last_valid
from unrolled.shapes import expect
from unrolled.wording import article


class ClassifierState(NamedTuple):
    """The state of a classifier after some steps."""

    core: Any
    pooled: Any
    wide: Any = None


class SequenceClassifier(nn.Module):
    """Encodes a sequence, pools it over time, and predicts with a head: a class, several labels, or numbers.

    Args:
        encoder: encodes the source.
        head: a partial `Head`, called with its input size.
        pooling: a partial `Pooling`, called with the encoder's output_size.
        output_dropout: dropout probability of the pooled vector.
        hidden_size: number of units of a ReLU layer before the head; None for no such layer.
        wide: a partial `WidePath`, called with the head's output_size, from the tokens straight to the head's
            parameters; None for no such path.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), a wide path for an encoder of frames.
    """

    def __init__(
        self,
        encoder: SteppedEncoder,
        head: Callable[..., Head],
        pooling: Callable[..., Pooling],
        *,
        output_dropout: float = 0.0,
        hidden_size: int | None = None,
        wide: Callable[..., WidePath] | None = None,
    ) -> None:
        super().__init__()
        if hidden_size is not None and hidden_size < 1:
            raise ValueError(f"hidden_size is {hidden_size}, expected 1 or more, or None")
        if not 0.0 <= output_dropout < 1.0:
            raise ValueError(f"output_dropout is {output_dropout}, expected a probability in [0, 1)")
        self.encoder = encoder
        self.pooling = pooling(encoder.output_size)
        self.dropout = nn.Dropout(output_dropout)
        size = self.pooling.output_size
        self.hidden: nn.Module | None = None
        if hidden_size is not None:
            self.hidden = nn.Sequential(nn.Linear(size, hidden_size), nn.ReLU(), nn.Dropout(output_dropout))
        self.head = head(size if hidden_size is None else hidden_size)
        if wide is not None and not isinstance(getattr(encoder, "embedding", None), TokenEmbedding):
            raise ValueError("wide reads token ids, and this encoder has no TokenEmbedding; set wide to None")
        self.wide = None if wide is None else wide(self.head.output_size)

    @property
    def streams(self) -> bool:
        """Whether the network can process a source step by step; a bidirectional encoder needs the whole source."""
        return not self.encoder.core.bidirectional

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the head's parameters (batch, outputs) for ids (batch, time) or features (batch, time, features).

        `lengths` (batch,) are the numbers of valid steps.
        """
        return self.read_out(self.encoder(source, lengths))

    def read_out(self, encoded: Encoded) -> Tensor:
        """Return the head's parameters (batch, outputs) for an encoded source."""
        outputs = self._outputs(self.dropout(self.pooling(encoded)))
        if self.wide is None or encoded.tokens is None:
            return outputs
        return outputs + self.wide(encoded.tokens, encoded.lengths)

    def _outputs(self, vectors: Tensor) -> Tensor:
        return self.head(vectors if self.hidden is None else self.hidden(vectors))

    def initial_state(self, batch: int) -> ClassifierState:
        """Return the state before the first step."""
        like = next(self.parameters())
        pooled = self.pooling.initial_state(batch, like=like)
        wide = None if self.wide is None else self.wide.initial_state(batch, like=like)
        return ClassifierState(self.encoder.initial_state(batch, like=like), pooled, wide)

    def step(self, source: Tensor, state: ClassifierState) -> tuple[Tensor, ClassifierState]:
        """Process one step of the source, (batch,) ids or (batch, features); return the outputs and the next state.

        In evaluation mode the outputs equal those of `forward` for the steps so far.

        Raises:
            ShapeError: a state of other sizes.
            ValueError: a state of another structure, dtype or device; a bidirectional encoder.
        """
        if not isinstance(state, ClassifierState):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"the state is {article(type(state).__name__)}, expected the ClassifierState of `initial_state`"
            )
        if self.wide is None and state.wide is not None:
            raise ValueError("state.wide is of another network: this one has no wide path")
        values, core = self.encoder.step(source, state.core)
        vector, pooled = self.pooling.step(values, state.pooled)
        outputs, wide = self._outputs(self.dropout(vector)), None
        if self.wide is not None:
            added, wide = self.wide.step(source, cast(WideState, state.wide))
            outputs = outputs + added
        return outputs, ClassifierState(core, pooled, wide)

    def predict_prefixes(self, source: Tensor, lengths: Tensor, shares: Sequence[float]) -> Tensor:
        """Predict outputs (batch, shares, outputs) from prefixes of each sequence.

        A prefix has the given fraction of the sequence's steps, rounded up. A forward encoder needs one pass for all
        prefixes. A bidirectional encoder needs a pass for each, since its backward direction starts at the prefix's
        end.

        Raises:
            ValueError: a fraction outside (0, 1].
        """
        expect(lengths, "batch", batch=len(source), name="lengths")
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"shares are {list(shares)}, expected numbers above 0 and at most 1")
        # Rounded to a few digits before rounding up: 0.1 × 10 may be slightly above 1.
        prefixes = [torch.ceil((lengths.double() * share).round(decimals=9)).long() for share in shares]
        if not self.streams:
            return torch.stack([self(source, prefix) for prefix in prefixes], dim=1)
        values = self.encoder(source, lengths).values
        state = self.pooling.initial_state(len(source), like=values)
        vectors: list[Tensor] = []
        for step in range(values.shape[1]):
            vector, state = self.pooling.step(values[:, step], state)
            vectors.append(vector)
        nothing = values.new_zeros(len(source), self.pooling.output_size)
        pooled = torch.stack(vectors, dim=1) if vectors else nothing.unsqueeze(1)[:, :0]
        outputs = torch.stack([self._outputs(last_valid(pooled, prefix, nothing)) for prefix in prefixes], dim=1)
        if self.wide is None:
            return outputs
        return outputs + torch.stack([self.wide(source, prefix) for prefix in prefixes], dim=1)
