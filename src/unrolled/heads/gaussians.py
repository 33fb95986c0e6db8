"""Mixtures of normal distributions over one or two coordinates, computed in logarithms."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily, MultivariateNormal

# tanh(8) is 1 − 2.3e-7, and nothing above it is far from 1 in float32.
MAX_CORRELATION = 8.0


class Gaussians(NamedTuple):
    """The parameters of a mixture for each prediction.

    weights: (..., components), logits.
    means: (..., components, coordinates).
    log_scales: (..., components, coordinates), logarithms of standard deviations.
    correlations: (..., components), inverse tanh of the correlation of two coordinates; None for one coordinate.
    """

    weights: Tensor
    means: Tensor
    log_scales: Tensor
    correlations: Tensor | None

    def limited(self, min_scale: float) -> "Gaussians":
        """Return the mixture with standard deviations of at least `min_scale` and correlations within tanh(±8).

        A component that collapses to a target, or two equal coordinates, would make the density infinite (Bishop 2006,
        section 9.2.1). Outside of a limit, only gradients that lead back into it are passed; others are 0.
        """
        log_scales = _Limit.apply(self.log_scales, math.log(min_scale), math.inf)
        if self.correlations is None:
            return self._replace(log_scales=log_scales)
        correlations = _Limit.apply(self.correlations, -MAX_CORRELATION, MAX_CORRELATION)
        return self._replace(log_scales=log_scales, correlations=correlations)

    def log_prob(self, points: Tensor) -> Tensor:
        """Compute the logarithm of the density (...) of points (..., coordinates).

        With ρ = tanh r, neither 1 − ρ² nor a quotient by it is computed: √(1 − ρ²) is 1 / cosh r, and the exponent of
        Graves's eq. 24-25, Z / 2(1 − ρ²), is ((x − y)² (1 + e^2r) + (x + y)² (1 + e^−2r)) / 8 for x and y in standard
        deviations from the mean. Both terms are positive, so nothing cancels.
        """
        offsets = (points.unsqueeze(-2) - self.means) * torch.exp(-self.log_scales)
        log_volumes = self.log_scales.sum(-1) + 0.5 * self.means.shape[-1] * math.log(2 * math.pi)
        if self.correlations is None:
            exponents = 0.5 * offsets.square().sum(-1)
        else:
            r, (x, y) = self.correlations, offsets.unbind(-1)
            apart, together = (x - y).square() * (1 + torch.exp(2 * r)), (x + y).square() * (1 + torch.exp(-2 * r))
            exponents = 0.125 * (apart + together)
            log_volumes = log_volumes - _log_cosh(r)
        return torch.logsumexp(self.weights.log_softmax(-1) - exponents - log_volumes, -1)

    def likeliest(self) -> Tensor:
        """Return the mean (..., coordinates) of the component with the greatest weight."""
        return self._mean_of(self.weights.argmax(-1))

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Draw a point (..., coordinates) from each mixture."""
        shares = self.weights.softmax(-1)
        chosen = torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1, generator=generator)
        chosen = chosen.reshape(shares.shape[:-1])
        mean = self._mean_of(chosen)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        if self.correlations is not None:
            r = self.correlations.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            x, y = noise.unbind(-1)
            noise = torch.stack([x, torch.tanh(r) * x + torch.exp(-_log_cosh(r)) * y], -1)
        index = chosen[..., None, None].expand(*chosen.shape, 1, mean.shape[-1])
        return mean + self.log_scales.exp().gather(-2, index).squeeze(-2) * noise

    def distribution(self) -> MixtureSameFamily:
        """Return the mixture as one of torch.distributions, built without a Cholesky decomposition."""
        scales = self.log_scales.exp()
        factors = torch.diag_embed(scales)
        if self.correlations is not None:
            x, y = scales.unbind(-1)
            below = torch.stack([torch.tanh(self.correlations) * y, torch.exp(-_log_cosh(self.correlations)) * y], -1)
            factors = torch.stack([torch.stack([x, torch.zeros_like(x)], -1), below], -2)
        components = MultivariateNormal(self.means, scale_tril=factors, validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.weights, validate_args=False), components, validate_args=False)

    def _mean_of(self, component: Tensor) -> Tensor:
        index = component[..., None, None].expand(*component.shape, 1, self.means.shape[-1])
        return self.means.gather(-2, index).squeeze(-2)


class WithEnd(Distribution):
    """The joint distribution of a mixture's point and of the end of a stroke, (..., coordinates + 1)."""

    def __init__(self, points: MixtureSameFamily, end: Bernoulli) -> None:
        self.points, self.end = points, end
        super().__init__(points.batch_shape, torch.Size([points.event_shape[0] + 1]), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        return {}  # it has no parameters but those of its two parts

    def log_prob(self, value: Tensor) -> Tensor:
        return self.points.log_prob(value[..., :-1]) + self.end.log_prob(value[..., -1])

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return torch.cat([self.points.sample(sample_shape), self.end.sample(sample_shape).unsqueeze(-1)], -1)

    @property
    def mean(self) -> Tensor:
        return torch.cat([self.points.mean, self.end.mean.unsqueeze(-1)], -1)


def _log_cosh(values: Tensor) -> Tensor:
    return torch.logaddexp(values, -values) - math.log(2)


class _Limit(torch.autograd.Function):
    """Clamps values. Gradients are passed inside the limits, and outside if a descent step leads back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, low: float, high: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return values.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        values, ctx.low, ctx.high = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (values,) = ctx.saved_tensors
        outward = ((values < ctx.low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
        return gradient.masked_fill(outward, 0.0), None, None
