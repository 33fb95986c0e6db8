"""Mixture density networks, for pen strokes and other numbers."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.heads.base import Head
from unrolled.heads.checks import check_shares, check_sizes
from unrolled.heads.gaussians import Gaussians, WithEnd
from unrolled.heads.labels import bernoulli
from unrolled.heads.temperature import check_temperature, sharpened, sharpened_signs, widened


class MixtureHead(Head):
    """Predicts the offset of a pen and the end of its stroke (Graves 2013, "Generating Sequences With Recurrent Neural
    Networks", eq. 18-26) with a mixture of bivariate normal distributions and a Bernoulli distribution.

    A target is (..., 3): two offsets, and the probability that the stroke ends, usually 0 or 1. Losses are in nats.
    With one coordinate and no end it is a mixture over numbers, for forecasts.

    The parameters of a prediction are, in this order: a logit for each component; means; logarithms of standard
    deviations; inverse tanh of correlations, for two coordinates; the logit of the end. In losses and distributions
    a standard deviation is at least `min_scale` and a correlation within tanh(±8), which is 1 − 2.3e-7. Values and
    gradients are then finite in float32 for any parameters and targets up to 1e15 × min_scale from the means.

    Args:
        input_size: number of input features.
        num_components: number of components of the mixture.
        num_coordinates: 2 or 1.
        end_of_stroke: whether the last entry of a target is the end of a stroke.
        min_scale: minimum standard deviation, in the units of the targets.
        bias: whether parameters have a bias.

    Raises:
        ValueError: a size below one, more than two coordinates, a min_scale that isn't above 0.
    """

    def __init__(
        self,
        input_size: int,
        num_components: int,
        *,
        num_coordinates: int = 2,
        end_of_stroke: bool = True,
        min_scale: float = 1e-4,
        bias: bool = True,
    ) -> None:
        check_sizes(num_components=num_components)
        if num_coordinates not in (1, 2):
            raise ValueError(f"num_coordinates is {num_coordinates}, expected 1 or 2")
        if not 0.0 < min_scale < float("inf"):
            raise ValueError(f"min_scale is {min_scale}, expected a number above 0")
        n, d = num_components, num_coordinates
        sizes = (n, n * d, n * d, n if d == 2 else 0, int(end_of_stroke))
        super().__init__(input_size, sum(sizes), bias=bias)
        self._sizes = sizes
        self.num_components, self.num_coordinates = num_components, num_coordinates
        self.end_of_stroke = end_of_stroke
        self.min_scale = min_scale
        self.target_size = num_coordinates + end_of_stroke

    def mixture(self, parameters: Tensor) -> Gaussians:
        """Return the mixture of each prediction, without limits."""
        weights, means, log_scales, correlations, _ = widened(parameters).split(self._sizes, -1)
        shape = (self.num_components, self.num_coordinates)
        means, log_scales = means.unflatten(-1, shape), log_scales.unflatten(-1, shape)
        return Gaussians(weights, means, log_scales, correlations if self.num_coordinates == 2 else None)

    def losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log density of the point, plus the negative log probability of the end, (...) in nats.

        Raises:
            ValueError: ends outside [0, 1]; checked only on the CPU.
        """
        self.check(parameters, targets)
        mixture = self.mixture(parameters).limited(self.min_scale)
        targets = targets.to(mixture.means.dtype)
        losses = -mixture.log_prob(targets[..., : self.num_coordinates])
        if not self.end_of_stroke:
            return losses
        end = targets[..., -1]
        check_shares(end)
        return losses + binary_cross_entropy_with_logits(widened(parameters[..., -1]), end, reduction="none")

    def predict(self, parameters: Tensor) -> Tensor:
        """Return the mean of the component with the greatest weight, and 1.0 for a probable end, (..., target_size).

        The mean over all components, which is often far from all targets, is `distribution(parameters).mean`.
        """
        return self._with_end(self.mixture(parameters).likeliest(), parameters[..., -1:] > 0)

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Apply Graves's bias b = 1 / temperature − 1: log σ − b, weights' logits × (1 + b) (eq. 61-62).

        The logit of the end is also divided by the temperature (Ha & Eck 2018, eq. 8), so that with 0 sampling is
        deterministic.
        """
        check_temperature(temperature)
        bias = (1.0 / temperature if temperature else float("inf")) - 1.0
        weights, means, log_scales, correlations, end = widened(parameters).split(self._sizes, -1)
        weights, end = sharpened(weights, temperature), sharpened_signs(end, temperature)
        return torch.cat([weights, means, log_scales - bias, correlations, end], -1)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample a point, and 1.0 or 0.0 for the end, (..., target_size). `min_scale` is not applied."""
        parameters = parameters.detach()
        points = self.mixture(parameters).draw(generator)
        return self._with_end(points, bernoulli(parameters[..., -1:], generator)) if self.end_of_stroke else points

    def distribution(self, parameters: Tensor) -> Distribution:
        points = self.mixture(parameters).limited(self.min_scale).distribution()
        if not self.end_of_stroke:
            return points
        return WithEnd(points, Bernoulli(logits=widened(parameters[..., -1]), validate_args=False))

    def _with_end(self, points: Tensor, end: Tensor) -> Tensor:
        return torch.cat([points, end.to(points)], -1) if self.end_of_stroke else points
