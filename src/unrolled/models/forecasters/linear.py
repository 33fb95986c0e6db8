"""Linear forecasts after a decomposition (Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?").

t = moving average of x          the trend, with the ends repeated
y = W_t t + W_s (x − t) + b      the same weights for all targets
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unrolled.heads.base import VectorHead
from unrolled.models.forecasters.base import Forecaster
from unrolled.models.forecasters.segments import last_steps


class LinearForecaster(Forecaster):
    """DLinear: two linear maps from the past to the horizon, of the trend and of the rest. The baseline of networks.

    Args:
        past_covariates: see `Forecaster` for this and the next four.
        future_size: number of features of the future.
        num_targets: number of targets.
        horizon: number of steps to predict.
        head: a partial `VectorHead`.
        context: number of steps of the past that are read; a shorter past is filled with zeros at its start.
        kernel_size: number of steps of the moving average, odd.
        normalization: see `Forecaster`.

    Raises:
        ValueError: a size below one, an even kernel_size, or an unknown normalization.
    """

    def __init__(
        self,
        past_covariates: int,
        future_size: int,
        num_targets: int,
        horizon: int,
        head: Callable[..., VectorHead],
        *,
        context: int,
        kernel_size: int = 25,
        normalization: str = "none",
    ) -> None:
        if context < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"context={context}, kernel_size={kernel_size}: expected 1 or more, and an odd kernel_size"
            )
        super().__init__(
            past_covariates,
            future_size,
            num_targets,
            horizon,
            head,
            head_size=2 * context,
            head_width=horizon,
            normalization=normalization,
        )
        self.context, self.kernel_size = context, kernel_size
        with torch.no_grad():
            self.head.linear.weight.fill_(1.0 / context)  # all means, as published

    def decode(self, past: Tensor, future: Tensor, lengths: Tensor | None, targets: Tensor | None) -> Tensor:
        """See `Forecaster.decode`."""
        numbers = last_steps(past[..., : self.num_targets], lengths, self.context).mT
        padding = self.kernel_size // 2
        padded = nn.functional.pad(numbers, (padding, padding), mode="replicate")
        trend = nn.functional.avg_pool1d(padded, self.kernel_size, stride=1)
        outputs = self.head(torch.cat([trend, numbers - trend], -1))
        return outputs.unflatten(-1, (self.horizon, -1)).transpose(1, 2)
