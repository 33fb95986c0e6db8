"""Normal and Student-t distributions of numbers, for forecasts with intervals."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, StudentT
from torch.nn.functional import softplus

from unrolled.heads.base import VectorHead
from unrolled.heads.checks import check_sizes
from unrolled.heads.temperature import check_temperature, widened


class LocationScaleHead(VectorHead):
    """Base class of heads that predict the location, the scale and perhaps the shape of each number's distribution.

    A target is (..., num_outputs). The parameters of a number are adjacent: location, inverse softplus of the scale,
    and what else the distribution has. Losses are in nats. Losses and distributions add `min_scale` to the scale, which
    keeps the density of a number that repeats exactly finite.

    Args:
        input_size: number of input features.
        num_outputs: number of entries of a target.
        min_scale: added to the scale, in the units of the targets.
        bias: whether parameters have a bias.

    Raises:
        ValueError: a size below one, or a min_scale that isn't above 0.
    """

    entry_size: int

    def __init__(self, input_size: int, num_outputs: int, *, min_scale: float = 1e-3, bias: bool = True) -> None:
        check_sizes(num_outputs=num_outputs)
        if not 0.0 < min_scale < float("inf"):
            raise ValueError(f"min_scale is {min_scale}, expected a number above 0")
        super().__init__(input_size, num_outputs * self.entry_size, bias=bias)
        self.num_outputs = self.target_size = num_outputs
        self.min_scale = min_scale

    def entries(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return location, scale and further parameters of each number, (..., num_outputs) each."""
        location, scale, *further = widened(parameters).unflatten(-1, (self.num_outputs, self.entry_size)).unbind(-1)
        return location, softplus(scale), *further

    def limited(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the same as `entries`, with a scale above `min_scale`."""
        location, scale, *further = self.entries(parameters)
        return location, scale + self.min_scale, *further

    @abstractmethod
    def standard_quantiles(self, levels: Tensor, *shape: Tensor) -> Tensor:
        """Return quantiles (..., levels) of the distribution with location 0 and scale 1.

        Args:
            levels: (levels,) probabilities.
            shape: the further parameters of `entries`, (...) each.
        """

    def predict(self, parameters: Tensor) -> Tensor:
        """Return the location of each number, (..., num_outputs): its mean, median and mode."""
        return self.entries(parameters)[0]

    def quantiles_at(self, parameters: Tensor, levels: Sequence[float]) -> Tensor:
        """See `VectorHead.quantiles_at`."""
        location, scale, *shape = self.entries(parameters.detach())
        return location.unsqueeze(-1) + scale.unsqueeze(-1) * self.standard_quantiles(
            location.new_tensor(levels), *shape
        )

    def sharpen(self, parameters: Tensor, temperature: float) -> Tensor:
        """Multiply each scale by the temperature."""
        factor = check_temperature(temperature) if temperature else 0.0
        entries = widened(parameters).unflatten(-1, (self.num_outputs, self.entry_size))
        inner = inverse_softplus(softplus(entries[..., 1:2]) * factor)
        return torch.cat([entries[..., :1], inner, entries[..., 2:]], -1).flatten(-2)


class NormalHead(LocationScaleHead):
    """Predicts a normal distribution of each number; see `LocationScaleHead` for the arguments."""

    entry_size = 2

    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log density of each number, (..., num_outputs)."""
        location, scale = self.limited(parameters)
        return 0.5 * ((targets - location) / scale).square() + scale.log() + 0.5 * math.log(2 * math.pi)

    def standard_quantiles(self, levels: Tensor, *shape: Tensor) -> Tensor:
        """See `LocationScaleHead.standard_quantiles`."""
        return torch.special.ndtri(levels)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw each number, (..., num_outputs)."""
        location, scale = self.entries(parameters.detach())
        return location + scale * torch.randn(
            location.shape, generator=generator, device=location.device, dtype=location.dtype
        )

    def distribution(self, parameters: Tensor) -> Distribution:
        """See `Head.distribution`."""
        return Independent(Normal(*self.limited(parameters), validate_args=False), 1, validate_args=False)


class StudentTHead(LocationScaleHead):
    """Predicts a Student-t distribution of each number, whose tails are heavier than the normal distribution's.

    Its third parameter is the inverse softplus of the degrees of freedom minus 2, so that the variance is finite
    (Salinas et al. 2020, "DeepAR", and its implementation in GluonTS). See `LocationScaleHead` for the arguments.
    """

    entry_size = 3

    def entries(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return location, scale and degrees of freedom of each number, (..., num_outputs) each."""
        location, scale, freedom = super().entries(parameters)
        return location, scale, 2.0 + softplus(freedom)

    def entry_losses(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log density of each number, (..., num_outputs)."""
        location, scale, freedom = self.limited(parameters)
        half = 0.5 * (freedom + 1.0)
        distances = ((targets - location) / scale).square() / freedom
        constant = torch.lgamma(0.5 * freedom) - torch.lgamma(half) + 0.5 * (math.pi * freedom).log()
        return constant + scale.log() + half * torch.log1p(distances)

    def standard_quantiles(self, levels: Tensor, *shape: Tensor) -> Tensor:
        """See `LocationScaleHead.standard_quantiles`."""
        (freedom,) = shape
        return student_t_quantiles(levels, freedom)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw each number, (..., num_outputs), by the polar method of Bailey 1994, without rejection."""
        location, scale, freedom = self.entries(parameters.detach())
        given: Any = {"generator": generator, "device": location.device, "dtype": location.dtype}
        drawn = torch.rand(location.shape, **given).clamp(min=torch.finfo(location.dtype).tiny)
        radius = (freedom * torch.expm1(-2.0 * drawn.log() / freedom)).sqrt()
        return location + scale * radius * torch.cos(2 * math.pi * torch.rand(location.shape, **given))

    def distribution(self, parameters: Tensor) -> Distribution:
        """See `Head.distribution`."""
        location, scale, freedom = self.limited(parameters)
        return Independent(StudentT(freedom, location, scale, validate_args=False), 1, validate_args=False)


_NODES = 48  # of the quadrature; errors are then below 1e-6 for probabilities from 1e-6 to 1 − 1e-6
_HALVINGS = 60
_FARTHEST = 12.0  # nothing is farther in a double precision, except where the whole range is searched anyway


def student_t_quantiles(levels: Tensor, freedom: Tensor) -> Tensor:
    """Return quantiles (..., levels) of Student-t distributions with location 0 and scale 1.

    torch has no inverse of this distribution function. With t = √ν tan θ, the probability between 0 and t is the
    integral of cos^(ν−1) up to θ, times a constant, and θ is found by bisection.

    Args:
        levels: (levels,) or (..., levels) probabilities between 0 and 1.
        freedom: (...) degrees of freedom ν.
    """
    dtype, device = freedom.dtype, freedom.device
    nu = freedom.double().unsqueeze(-1)
    nodes, weights = (each.to(device) for each in _gauss_legendre())
    wanted = (levels.double() - 0.5).abs()
    wanted, nu = torch.broadcast_tensors(wanted, nu)
    constant = torch.exp(torch.lgamma(0.5 * (nu + 1)) - torch.lgamma(0.5 * nu)) / math.sqrt(math.pi)
    low = torch.zeros_like(nu)
    high = (_FARTHEST / nu.sqrt()).clamp(max=0.5 * math.pi)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        angles = middle.unsqueeze(-1) * nodes
        powers = torch.exp((nu - 1).unsqueeze(-1) * torch.log(torch.cos(angles)))
        below = constant * middle * (powers * weights).sum(-1) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    found = nu.sqrt() * torch.tan(0.5 * (low + high)) * torch.sign(levels.double() - 0.5)
    return found.to(dtype)


def _gauss_legendre() -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [0, 1] (Golub & Welsch 1969)."""
    steps = torch.arange(1, _NODES, dtype=torch.float64)
    beside = steps / (4 * steps.square() - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return 0.5 * (values + 1), vectors[0].square()


def inverse_softplus(values: Tensor) -> Tensor:
    """Return x with softplus(x) = values, which are 0 or more."""
    return values + torch.log(-torch.expm1(-values))
