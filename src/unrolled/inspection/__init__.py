"""A look inside trained networks: a recorder of every layer and step, and analyses of what it recorded.

Each analysis is a function of tensors. Drawing belongs in `deployment` (a report as HTML) and in `training` (figures).
"""

from unrolled.inspection.gates import Saturation as Saturation
from unrolled.inspection.gates import saturation as saturation
from unrolled.inspection.gates import time_constants as time_constants
from unrolled.inspection.gradients import by_lag as by_lag
from unrolled.inspection.gradients import final_state as final_state
from unrolled.inspection.gradients import input_gradients as input_gradients
from unrolled.inspection.gradients import saliency as saliency
from unrolled.inspection.gradients import state_gradients as state_gradients
from unrolled.inspection.jacobians import product_norms as product_norms
from unrolled.inspection.jacobians import spectral_norms as spectral_norms
from unrolled.inspection.jacobians import spectral_radii as spectral_radii
from unrolled.inspection.jacobians import state_jacobians as state_jacobians
from unrolled.inspection.memory import effective_context as effective_context
from unrolled.inspection.memory import loss_by_history as loss_by_history
from unrolled.inspection.memory import memory_capacity as memory_capacity
from unrolled.inspection.recorder import CellRecord as CellRecord
from unrolled.inspection.recorder import Recording as Recording
from unrolled.inspection.recorder import record as record
from unrolled.inspection.units import FoundUnits as FoundUnits
from unrolled.inspection.units import find_units as find_units

__all__ = [
    "CellRecord",
    "FoundUnits",
    "Recording",
    "Saturation",
    "by_lag",
    "effective_context",
    "final_state",
    "find_units",
    "input_gradients",
    "loss_by_history",
    "memory_capacity",
    "product_norms",
    "record",
    "saliency",
    "saturation",
    "spectral_norms",
    "spectral_radii",
    "state_gradients",
    "state_jacobians",
    "time_constants",
]
