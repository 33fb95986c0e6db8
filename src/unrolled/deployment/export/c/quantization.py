"""Weights as 8-bit integers: what the exported network computes, and how far that is from the exact one."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from unrolled.cells.base import AffineCell
from unrolled.deployment.export.c.networks import inputs_of
from unrolled.deployment.export.int8 import ROWS, STEPS, cost_of, quantized
from unrolled.models.decoders.autoregressive import AutoregressiveDecoder
from unrolled.models.forecasters.base import Forecaster
from unrolled.models.forecasters.segments import SegmentForecaster


def quantize(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose matrices are 8-bit integers times a scale for each row.

    These are the matrices of cells, linear layers and embeddings.
    """
    found = copy.deepcopy(network)
    with torch.no_grad():
        for module in found.modules():
            if isinstance(module, AffineCell | nn.Linear | nn.Embedding):
                for parameter in module.parameters(recurse=False):
                    if parameter.dim() == 2:
                        parameter.copy_(_rounded(parameter))
            if isinstance(module, SegmentForecaster):
                for parameter in (module.positions, module.targets):
                    if parameter is not None:
                        parameter.copy_(_rounded(parameter))
            if isinstance(module, AffineCell) and type(module).recurrent_weight is not AffineCell.recurrent_weight:
                _fix_recurrent_weight(cast("AffineCell[Any]", module))
    return found


def _fix_recurrent_weight(cell: AffineCell[Any]) -> None:
    """Round the matrix that a cell computes of its parameters."""
    if cell.has_recurrent_product:
        weight = _rounded(cell.recurrent_weight())
        cell.recurrent_weight = lambda: weight


def _rounded(weight: Tensor) -> Tensor:
    integers, scales = quantized(weight)
    return integers.float() * scales.unsqueeze(1)


def quantization_cost(exact: nn.Module, rounded: nn.Module) -> str:
    """Return a sentence on how far the outputs of two networks are apart, for random tokens or normal frames."""
    return cost_of(exact, _outputs(exact), _outputs(rounded))


def _outputs(network: nn.Module) -> Tensor:
    """Return what a network predicts of random inputs, the same for all networks of one kind."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(network, Forecaster):
        past = torch.randn(ROWS, STEPS, network.past_size, generator=generator)
        past[..., network.num_targets : 2 * network.num_targets] = 1.0  # all are observed
        return network(past, torch.randn(ROWS, network.horizon, network.future_size, generator=generator))
    kind = inputs_of(network)
    if kind.tokens is not None:
        inputs = torch.randint(kind.tokens, (ROWS, STEPS), generator=generator)
    else:
        inputs = torch.randn(ROWS, STEPS, kind.features, generator=generator)
    if isinstance(network, AutoregressiveDecoder):
        conditions = torch.randn(ROWS, STEPS, kind.conditions, generator=generator) if kind.conditions else None
        return network(inputs, conditions=conditions).parameters
    return network(inputs)
