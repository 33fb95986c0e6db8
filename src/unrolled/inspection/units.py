"""The search for units that follow a property of the input, such as being inside a quotation."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.shapes import expect


class FoundUnits(NamedTuple):
    """Units in descending order of their absolute correlation with a property."""

    units: Tensor  # (units,) int64
    correlations: Tensor  # (units,), from −1 to 1, in this order


def find_units(values: Tensor, holds: Tensor) -> FoundUnits:
    """Search for units whose activity follows a property of each step.

        r_j = Σ_t (v_tj − v̄_j)(m_t − m̄) / √(Σ_t (v_tj − v̄_j)² Σ_t (m_t − m̄)²)

    Pearson's correlation with the mask of the property, over all valid steps. Karpathy, Johnson & Fei-Fei 2015,
    "Visualizing and Understanding Recurrent Networks", section 4.1, found a cell that is on inside quotations by eye.

    Args:
        values: (batch, time, units), NaN in the padding, such as `CellRecord["c"]`.
        holds: (batch, time) bool or numbers: where the property holds, or how much.

    Returns:
        All units, the best first; a constant unit has the correlation 0.

    Raises:
        ShapeError: another shape.
        ValueError: a property that is the same at all valid steps, so that no unit can follow it.
    """
    expect(values, "batch time units", name="values")
    expect(holds, "batch time", batch=values.shape[0], time=values.shape[1], name="holds")
    valid = values.isfinite().all(-1)
    known, wanted = values[valid].double(), holds[valid].double()
    if len(wanted) == 0 or bool((wanted == wanted[0]).all()):
        raise ValueError("the property is the same at all valid steps; give steps where it holds and where it doesn't")
    known, wanted = known - known.mean(0), wanted - wanted.mean()
    scale = (known.square().sum(0) * wanted.square().sum()).sqrt()
    constant = known.abs().amax(0) == 0
    correlations = torch.where(constant, 0.0, wanted @ known / scale.masked_fill(constant, 1.0))
    units = correlations.abs().argsort(descending=True, stable=True)
    return FoundUnits(units, correlations[units].to(values.dtype))
