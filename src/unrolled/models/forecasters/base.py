"""The base class of forecasters: reversible normalization of each window, and quantiles of what is predicted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.heads.base import VectorHead
from unrolled.heads.quantile import QuantileHead
from unrolled.losses import Loss
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import expect

NORMALIZATIONS = ("none", "last", "standard")


class Forecast(NamedTuple):
    """What is predicted of the steps of a horizon.

    Attributes:
        values: (batch, horizon, targets), the mean or median of each number.
        quantiles: (batch, horizon, targets, levels).
    """

    values: Tensor
    quantiles: Tensor


class WindowScale(NamedTuple):
    """Center and scale of each row's targets, (batch, 1, targets) each."""

    center: Tensor
    scale: Tensor

    def apply(self, targets: Tensor) -> Tensor:
        """Normalize targets (batch, time, targets)."""
        return (targets - self.center) / self.scale


class Forecaster(nn.Module, ABC):
    """Base class of networks that predict the next steps of a series from its last ones.

    The past is (batch, time, features): first the targets, then 1 for each that is observed and 0 for each that is
    missing, then past covariates, and at the end `future_size` covariates that are known of the future, too. The future
    is (batch, horizon, future_size). Parameters are (batch, horizon, targets, outputs of the head), a prediction of one
    number each, in the units of the normalized window.

    Args:
        past_covariates: number of features that are known of the past alone, besides the targets and their mask.
        future_size: number of features of the future.
        num_targets: number of targets.
        horizon: number of steps to predict.
        head: a partial `VectorHead`, called with its input size and one output.
        head_size: number of features that the head reads.
        head_width: number of predictions that the head makes at once.
        normalization: how the targets of each window are normalized, and the predictions restored (Kim et al. 2022):
            "none"; "last" subtracts the last observed number; "standard" subtracts the mean and divides by the
            deviation of the observed numbers.

    Raises:
        ValueError: a size below one, sizes that don't match, or an unknown normalization.
    """

    def __init__(
        self,
        past_covariates: int,
        future_size: int,
        num_targets: int,
        horizon: int,
        head: Callable[..., VectorHead],
        *,
        head_size: int,
        head_width: int,
        normalization: str,
    ) -> None:
        super().__init__()
        if min(num_targets, horizon, head_size, head_width) < 1 or min(past_covariates, future_size) < 0:
            raise ValueError(
                f"past_covariates={past_covariates}, future_size={future_size}, num_targets={num_targets}, "
                f"horizon={horizon}: expected 0 or more of the first two, and 1 or more of the others"
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization is {normalization!r}, expected one of {', '.join(NORMALIZATIONS)}")
        self.past_size = 2 * num_targets + past_covariates + future_size
        self.future_size = future_size
        self.num_targets, self.horizon, self.normalization = num_targets, horizon, normalization
        self.head = head(input_size=head_size, num_outputs=1)
        # One product for all predictions that are made from the same features.
        self.head.linear = nn.Linear(head_size, head_width * self.head.output_size)

    @abstractmethod
    def decode(self, past: Tensor, future: Tensor, lengths: Tensor | None, targets: Tensor | None) -> Tensor:
        """Compute parameters (batch, horizon, targets, outputs) from a normalized past.

        Args:
            past: (batch, time, features).
            future: (batch, horizon, future_size).
            lengths: (batch,) numbers of steps of the past; None without padding.
            targets: (batch, horizon, targets) the numbers to predict, normalized, which only networks that read their
                own predictions use.
        """

    def forward(
        self, past: Tensor, future: Tensor, lengths: Tensor | None = None, targets: Tensor | None = None
    ) -> Tensor:
        """Return the head's parameters (batch, horizon, targets, outputs); see `decode` for the arguments.

        The parameters are those of normalized numbers: see `loss` and `forecast`.
        """
        past, scale = self.normalized(past, lengths)
        self._check(past, future)
        return self.decode(past, future, lengths, None if targets is None else scale.apply(targets))

    def loss(self, past: Tensor, future: Tensor, targets: Tensor, mask: Tensor, lengths: Tensor | None = None) -> Loss:
        """Compute the sum of the losses of normalized numbers, and the number of them.

        Args:
            past: see `decode`, not normalized.
            future: see `decode`.
            targets: (batch, horizon, targets); where the mask is false, anything.
            mask: (batch, horizon, targets) bool, true where a number is observed.
            lengths: see `decode`.
        """
        past, scale = self.normalized(past, lengths)
        self._check(past, future)
        wanted = scale.apply(targets).masked_fill(~mask, 0.0)
        parameters = self.decode(past, future, lengths, wanted)
        return self.head.loss(parameters, wanted.unsqueeze(-1), mask)

    @torch.no_grad()
    def forecast(
        self,
        past: Tensor,
        future: Tensor,
        lengths: Tensor | None = None,
        *,
        levels: Sequence[float] = (),
        num_samples: int = 100,
        generator: torch.Generator | None = None,
    ) -> Forecast:
        """Predict the steps of a horizon, in the units of the past.

        Args:
            past: see `decode`, not normalized.
            future: see `decode`.
            lengths: see `decode`.
            levels: probabilities of quantiles; () for none.
            num_samples: number of samples of networks that read their own predictions.
            generator: random number generator on the network's device; torch's global generator by default.

        Raises:
            NotImplementedError: quantiles of a head that predicts none.
            ValueError: a quantile that the head can't predict, or quantiles of fewer than one sample.
        """
        past, scale = self.normalized(past, lengths)
        self._check(past, future)
        found = self._normalized_forecast(past, future, lengths, levels, num_samples, generator)
        center, width = scale
        return Forecast(found.values * width + center, found.quantiles * width.unsqueeze(-1) + center.unsqueeze(-1))

    def _normalized_forecast(
        self,
        past: Tensor,
        future: Tensor,
        lengths: Tensor | None,
        levels: Sequence[float],
        num_samples: int,
        generator: torch.Generator | None,
    ) -> Forecast:
        """Return the forecast of a normalized past, in its units; see `forecast` for the arguments."""
        parameters = self.decode(past, future, lengths, None)
        middle = self.head.predict(parameters)
        if isinstance(self.head, QuantileHead):  # in order with the other quantiles, also where they cross
            middle = self.head.quantiles_at(parameters, (0.5,)).squeeze(-1)
        values = middle.squeeze(-1)
        if not levels:
            return Forecast(values, values.new_zeros(*values.shape, 0))
        return Forecast(values, self.head.quantiles_at(parameters, levels).squeeze(-2))

    def normalized(self, past: Tensor, lengths: Tensor | None) -> tuple[Tensor, WindowScale]:
        """Return a past with normalized targets, 0 where they are missing or after `lengths`, and their scale."""
        expect(past, "batch time features", features=self.past_size, name="past")
        batch, time = past.shape[:2]
        if lengths is not None:
            valid = mask_from_lengths(lengths.to(past.device), time)
            past = past.masked_fill(~valid.unsqueeze(-1), 0.0)
        targets, observed, rest = past.split(
            [self.num_targets, self.num_targets, self.past_size - 2 * self.num_targets], -1
        )
        center = targets.new_zeros(batch, 1, self.num_targets)
        scale = torch.ones_like(center)
        if self.normalization == "last" and time:
            steps = torch.arange(1, time + 1, device=past.device).view(1, -1, 1) * (observed > 0)
            last = steps.amax(1, keepdim=True)
            center = targets.gather(1, (last - 1).clamp(min=0)) * (last > 0)
        elif self.normalization == "standard" and time:
            count = observed.sum(1, keepdim=True).clamp(min=1.0)
            center = (targets * observed).sum(1, keepdim=True) / count
            variance = ((targets - center).square() * observed).sum(1, keepdim=True) / count
            scale = (variance + 1e-5).sqrt()  # Kim et al.'s ε
        found = WindowScale(center, scale)
        return torch.cat([found.apply(targets) * observed, observed, rest], -1), found

    def _check(self, past: Tensor, future: Tensor) -> None:
        sizes = {"batch": past.shape[0], "horizon": self.horizon, "features": self.future_size}
        expect(future, "batch horizon features", **sizes, name="future")
