"""Autoregressive forecasts: a network that predicts the next step, and reads what it drew.

Salinas et al. 2020, "DeepAR":

    s_t = core([y_{t-1}; z_t], s_{t-1})
    y_t ~ head(s_t)

where z_t is known beforehand. Quantiles are those of sampled continuations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.heads.base import VectorHead
from unrolled.heads.quantile import QuantileHead
from unrolled.layers.dropout import SequenceDropout
from unrolled.layers.recurrent import Recurrent
from unrolled.models.encoders import complete
from unrolled.models.forecasters.base import Forecast, Forecaster, WindowScale
from unrolled.sequences import at_steps
from unrolled.state import select


class AutoregressiveForecaster(Forecaster):
    """Reads a series step by step, and continues it with its own samples.

    Past covariates are not read: they are unknown of the steps that it has to read of the future. Training reads the
    true numbers of the horizon. Forecasts with quantiles are sampled: their values are the means of the samples, or
    the medians with a `QuantileHead`.

    Args:
        past_covariates: see `Forecaster` for this and the next four.
        future_size: number of features of the future.
        num_targets: number of targets.
        horizon: number of steps to predict.
        head: a partial `VectorHead`.
        core: a partial `Recurrent`, called with its input size.
        hidden_size: overrides the core's hidden_size.
        num_layers: overrides the core's num_layers.
        output_dropout: dropout probability of the core's outputs.
        normalization: see `Forecaster`.

    Raises:
        ValueError: a size below one, a probability outside [0, 1), or an unknown normalization.
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
        hidden_size: int | None = None,
        num_layers: int | None = None,
        output_dropout: float = 0.0,
        normalization: str = "none",
    ) -> None:
        made = complete(core, 2 * num_targets + future_size, hidden_size=hidden_size, num_layers=num_layers)
        super().__init__(
            past_covariates,
            future_size,
            num_targets,
            horizon,
            head,
            head_size=made.output_size,
            head_width=num_targets,
            normalization=normalization,
        )
        self.core = made
        self.dropout = SequenceDropout(output_dropout)

    def decode(self, past: Tensor, future: Tensor, lengths: Tensor | None, targets: Tensor | None) -> Tensor:
        """See `Forecaster.decode`. Without targets, each step reads what the head predicts of the step before."""
        if targets is None:
            return self._continued(past, future, lengths, None)[0]
        batch, time = past.shape[:2]
        lengths = torch.full((batch,), time, device=past.device) if lengths is None else lengths.to(past.device)
        both = torch.cat([targets, torch.ones_like(targets)], -1).to(past.dtype)
        whole = _after(past[..., : 2 * self.num_targets], both, lengths)[:, : time + self.horizon - 1]
        known = _after(past[..., past.shape[-1] - self.future_size :], future, lengths)[:, 1:]
        outputs, _ = self.core(torch.cat([whole, known], -1), None, lengths + self.horizon - 1)
        steps = (lengths - 1).unsqueeze(1) + torch.arange(self.horizon, device=past.device)
        return self._predicted(self.dropout(at_steps(outputs, steps)))

    def start(self, past: Tensor, future: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Any, WindowScale]:
        """Read a past: parameters (batch, targets, outputs) of its next row, the core's state, and the window's scale.

        To continue with `step`, draw the next row with the head, and read it. The numbers are normalized.

        Args:
            past: see `decode`, not normalized.
            future: see `decode`.
            lengths: see `decode`.
        """
        past, scale = self.normalized(past, lengths)
        self._check(past, future)
        output, state = self._read(past, future, lengths)
        return self._predicted(self.dropout(output.unsqueeze(1)).squeeze(1)), state, scale

    def step(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one row, and predict the next one: parameters (batch, targets, outputs), and the core's next state.

        Args:
            inputs: (batch, 2 × targets + future_size): normalized targets, 0 where missing; 1 where they are observed;
                what is known of the next row.
            state: the core's state before the row.

        Raises:
            ShapeError: inputs or a state of another shape.
        """
        output, state = self.core.step(inputs, state)
        return self._predicted(self.dropout(output.unsqueeze(1)).squeeze(1)), state

    def _normalized_forecast(
        self,
        past: Tensor,
        future: Tensor,
        lengths: Tensor | None,
        levels: Sequence[float],
        num_samples: int,
        generator: torch.Generator | None,
    ) -> Forecast:
        if not levels:
            return super()._normalized_forecast(past, future, lengths, levels, num_samples, generator)
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: expected 1 or more")
        self.head.quantiles_at(past.new_zeros(self.head.output_size), (0.5,))  # a head of means draws means alone
        drawn = self._continued(past, future, lengths, (num_samples, generator))[1]
        drawn = drawn.unflatten(0, (len(past), num_samples)).movedim(1, -1)
        values = drawn.median(-1).values if isinstance(self.head, QuantileHead) else drawn.mean(-1)
        quantiles = drawn.quantile(drawn.new_tensor(levels), dim=-1).movedim(0, -1)
        return Forecast(values, quantiles)

    def _continued(
        self,
        past: Tensor,
        future: Tensor,
        lengths: Tensor | None,
        samples: tuple[int, torch.Generator | None] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return parameters (rows, horizon, targets, outputs), and numbers (rows, horizon, targets) that are fed back.

        Rows are those of the batch, each as often as it is sampled.
        """
        output, state = self._read(past, future, lengths)
        if samples is not None:
            rows = torch.arange(past.shape[0], device=past.device).repeat_interleave(samples[0])
            output, state, future = output[rows], select(state, rows), future[rows]
        found: list[Tensor] = []
        fed: list[Tensor] = []
        for step in range(self.horizon):
            parameters = self._predicted(self.dropout(output.unsqueeze(1)).squeeze(1))
            draw = self.head.predict(parameters) if samples is None else self.head.sample(parameters, samples[1])
            found.append(parameters)
            fed.append(draw.squeeze(-1).to(past.dtype))
            if step + 1 < self.horizon:
                joined = torch.cat([fed[-1], torch.ones_like(fed[-1]), future[:, step + 1].to(past.dtype)], -1)
                output, state = self.core.step(joined, state)
        return torch.stack(found, 1), torch.stack(fed, 1)

    def _read(self, past: Tensor, future: Tensor, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """Read a normalized past: the core's output (batch, features) at the last valid step, and its state."""
        batch, time = past.shape[:2]
        ends = torch.full((batch,), time, device=past.device) if lengths is None else lengths.to(past.device)
        known = _after(past[..., past.shape[-1] - self.future_size :], future, ends)[:, 1:]
        inputs = torch.cat([past[..., : 2 * self.num_targets], known[:, :time]], -1)
        outputs, state = self.core(inputs, None, ends)
        return at_steps(outputs, ends.unsqueeze(1) - 1).squeeze(1), state

    def _predicted(self, features: Tensor) -> Tensor:
        return self.head(features).unflatten(-1, (self.num_targets, -1))


def _after(past: Tensor, future: Tensor, lengths: Tensor) -> Tensor:
    """Return (batch, time + horizon, features): the valid steps of the past, then the future, then padding."""
    batch, time = past.shape[:2]
    joined = torch.cat([past, future.to(past.dtype), past.new_zeros(batch, 1, past.shape[-1])], 1)
    places = torch.arange(time + future.shape[1], device=past.device).expand(batch, -1)
    ends = lengths.unsqueeze(1)
    moved = torch.where(places < ends, places, time + places - ends).clamp(max=joined.shape[1] - 1)
    return at_steps(joined, moved)
