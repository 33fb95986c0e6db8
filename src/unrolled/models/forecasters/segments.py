"""Segment-wise forecasts (Lin et al. 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
Forecasting", arXiv 2308.11200).

Each target of a series is a row of its own. A step of the recurrent network is a segment of w numbers, not one number:

    e_i = relu(W x_i + b)             x_i the i-th segment of the past, w numbers
    h = core(e_1 … e_n)               n segments
    o_j = core.step([p_j; c], h)      for each segment j of the horizon, in parallel from the same state
    y_j ~ head(dropout(o_j))          w numbers

with learned embeddings p_j of the segment's position and c of the target. The last number of the past is subtracted
from the window, and added to the prediction.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unrolled.heads.base import VectorHead
from unrolled.layers.recurrent import Recurrent
from unrolled.models.encoders import complete
from unrolled.models.forecasters.base import Forecaster
from unrolled.sequences import at_steps
from unrolled.state import select


class SegmentForecaster(Forecaster):
    """SegRNN with any recurrent cell and any head. It reads the targets alone, no covariates.

    A past that is shorter than `context`, or than a whole number of segments, is filled with zeros at its start, as are
    missing numbers.

    Args:
        past_covariates: see `Forecaster` for this and the next four.
        future_size: number of features of the future.
        num_targets: number of targets.
        horizon: number of steps to predict.
        head: a partial `VectorHead`.
        core: a partial `Recurrent`, called with its input size. The published network has one layer of GRU cells.
        context: number of steps of the past that are read.
        segment_size: number of steps of a segment.
        hidden_size: number of features of an embedded segment, even; it overrides the core's hidden_size, too.
        num_layers: overrides the core's num_layers.
        output_dropout: dropout probability of the head's input.
        target_embedding: whether the targets have embeddings, which tell the network which one it predicts.
        normalization: see `Forecaster`.

    Raises:
        ValueError: a size below one, an odd hidden_size, a probability outside [0, 1), or an unknown normalization.
    """

    def __init__(
        self,
        past_covariates: int,
        future_size: int,
        num_targets: int,
        horizon: int,
        head: Callable[..., VectorHead],
        core: Callable[..., Recurrent],
        *,
        context: int,
        segment_size: int,
        hidden_size: int = 128,
        num_layers: int | None = 1,
        output_dropout: float = 0.0,
        target_embedding: bool = True,
        normalization: str = "last",
    ) -> None:
        if min(context, segment_size) < 1 or hidden_size < 2 or hidden_size % 2:
            raise ValueError(
                f"context={context}, segment_size={segment_size}, hidden_size={hidden_size}: expected 1 or more, and "
                "an even hidden_size, half of which is the position"
            )
        made = complete(core, hidden_size, hidden_size=hidden_size, num_layers=num_layers)
        super().__init__(
            past_covariates,
            future_size,
            num_targets,
            horizon,
            head,
            head_size=made.output_size,
            head_width=segment_size,
            normalization=normalization,
        )
        self.core = made
        self.context, self.segment_size = context, segment_size
        self.num_segments = -(-horizon // segment_size)
        self.embedding = nn.Linear(segment_size, hidden_size)
        half = hidden_size // 2 if target_embedding else hidden_size
        self.positions = nn.Parameter(torch.randn(self.num_segments, half))
        self.targets = nn.Parameter(torch.randn(num_targets, half)) if target_embedding else None
        self.dropout = nn.Dropout(output_dropout)

    def decode(self, past: Tensor, future: Tensor, lengths: Tensor | None, targets: Tensor | None) -> Tensor:
        """See `Forecaster.decode`."""
        batch, rows = past.shape[0], past.shape[0] * self.num_targets
        numbers = last_steps(past[..., : self.num_targets], lengths, self._read)
        segments = numbers.mT.reshape(rows, -1, self.segment_size)
        _, state = self.core(torch.relu(self.embedding(segments)))
        queries = self.positions.expand(self.num_targets, -1, -1)
        if self.targets is not None:
            queries = torch.cat([queries, self.targets.unsqueeze(1).expand(-1, self.num_segments, -1)], -1)
        queries = queries.expand(batch, -1, -1, -1).reshape(rows * self.num_segments, -1)
        repeated = torch.arange(rows, device=past.device).repeat_interleave(self.num_segments)
        outputs, _ = self.core.step(queries.to(segments.dtype), select(state, repeated))
        parameters = self.head(self.dropout(outputs)).view(
            batch, self.num_targets, self.num_segments * self.segment_size, -1
        )
        return parameters[:, :, : self.horizon].transpose(1, 2)

    @property
    def _read(self) -> int:
        """Number of steps that are read: whole segments."""
        return -(-self.context // self.segment_size) * self.segment_size


def last_steps(values: Tensor, lengths: Tensor | None, count: int) -> Tensor:
    """Return the last valid steps (batch, count, features), with zeros before the first one."""
    batch, time = values.shape[:2]
    ends = torch.full((batch,), time, device=values.device) if lengths is None else lengths.to(values.device)
    places = torch.arange(count, device=values.device) - count + ends.unsqueeze(1)
    if time == 0:
        return values.new_zeros(batch, count, values.shape[-1])
    found = at_steps(values, places.clamp(0, time - 1))
    return found.masked_fill((places < 0).unsqueeze(-1), 0.0)
