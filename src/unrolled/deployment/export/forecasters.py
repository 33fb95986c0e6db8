"""Which graphs a forecaster is exported as."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.backends.scan import scanned
from unrolled.checkpoint import Bundle
from unrolled.deployment.export.graphs import (
    BATCH,
    TIME,
    Carried,
    Graph,
    Part,
    Port,
    Read,
    step_port,
    stepping,
    steps_port,
)
from unrolled.heads.base import VectorHead
from unrolled.heads.location_scale import LocationScaleHead
from unrolled.heads.quantile import QuantileHead
from unrolled.models.forecasters.autoregressive import AutoregressiveForecaster
from unrolled.models.forecasters.base import Forecaster, WindowScale
from unrolled.state import leaves, rebuild


def forecaster_graphs(network: Any, bundle: Bundle) -> list[Graph]:
    """Return the graph of a whole window, and two graphs for sampling, if the network reads what it predicts.

    "sequence" predicts all steps of the horizon, in the units of the past: values, and the distribution of each. A
    network that reads what it predicts is given its own means or medians there, which have no distribution: to sample
    continuations, "start" reads the past, and "step" a row that was drawn.
    """
    forecaster: Forecaster = network
    like = next(forecaster.parameters())
    inputs = (
        steps_port("past", Read(forecaster.past_size, like.dtype)),
        Port("lengths", torch.tensor([TIME, 2, 1]), ("batch",)),  # there is nothing to continue in an empty past
    )
    if forecaster.future_size:
        future = torch.zeros(BATCH, forecaster.horizon, forecaster.future_size, dtype=like.dtype)
        inputs += (Port("future", future, ("batch",)),)
    reads_own = isinstance(forecaster, AutoregressiveForecaster)
    outputs = ("values", *(() if reads_own else _distribution(forecaster.head)))

    def sequence(past: Tensor, lengths: Tensor, *future: Tensor) -> list[Tensor]:
        known = _future(forecaster, past, future)
        if isinstance(forecaster, AutoregressiveForecaster) and torch.compiler.is_exporting():
            parameters, scale = _continued(forecaster, past, known, lengths)
        else:
            normalized, scale = forecaster.normalized(past, lengths)
            parameters = forecaster.decode(normalized, known, lengths, None)
        return _restored(forecaster.head, parameters, scale)[: len(outputs)]

    whole = Graph("sequence", Part(forecaster, sequence), inputs, outputs, {})
    return [whole, *_sampling(forecaster, inputs)] if reads_own else [whole]


def _sampling(forecaster: AutoregressiveForecaster, inputs: tuple[Port, ...]) -> list[Graph]:
    """Return the graph that reads the past, and that which reads a row; parameters are those of normalized numbers."""
    like = next(forecaster.parameters())
    state = Carried.of(forecaster.core.initial_state(1, like=like))

    def start(past: Tensor, lengths: Tensor, *future: Tensor) -> list[Tensor]:
        parameters, after, scale = forecaster.start(past, _future(forecaster, past, future), lengths)
        return [parameters, *(each.squeeze(1) for each in scale), *leaves(after)]

    def step(row: Tensor, *given: Tensor) -> list[Tensor]:
        parameters, after = forecaster.step(row, state.rebuild(given))
        return [parameters, *leaves(after)]

    row = step_port("inputs", Read(2 * forecaster.num_targets + forecaster.future_size, like.dtype))
    return [
        Graph("start", Part(forecaster, start), inputs, ("parameters", "center", "scale", *state.names), {}),
        stepping(forecaster, state, ("parameters",), (row,), step),
    ]


def _continued(
    forecaster: AutoregressiveForecaster, past: Tensor, future: Tensor, lengths: Tensor
) -> tuple[Tensor, WindowScale]:
    """Return what `decode` returns, and the scale: one scan, where a loop would record each step of the horizon."""
    first, state, scale = forecaster.start(past, future, lengths)
    if forecaster.horizon == 1:
        return first.unsqueeze(1), scale
    rows = future[:, 1:].transpose(0, 1).to(past.dtype)
    _, found = scanned(_Fed(forecaster, state), [first, *leaves(state)], [rows])
    return torch.cat([first.unsqueeze(1), found.transpose(0, 1)], 1), scale


class _Fed(nn.Module):
    """A step that reads what the parameters before it predict, and what is known of its row."""

    def __init__(self, forecaster: AutoregressiveForecaster, like: Any) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._like = like

    def forward(self, parameters: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        *before, known = given
        fed = self.forecaster.head.predict(parameters).squeeze(-1).to(known.dtype)
        row = torch.cat([fed, torch.ones_like(fed), known], -1)
        found, after = self.forecaster.step(row, rebuild(self._like, before))
        return found, *leaves(after), found


def _future(forecaster: Forecaster, past: Tensor, given: tuple[Tensor, ...]) -> Tensor:
    return given[0] if given else past.new_zeros(past.shape[0], forecaster.horizon, 0)


def _distribution(head: VectorHead) -> tuple[str, ...]:
    """Return the names of what a head tells of each number's distribution."""
    if isinstance(head, QuantileHead):
        return ("quantiles",)
    return ("scale", "freedom")[: head.entry_size - 1] if isinstance(head, LocationScaleHead) else ()


def _restored(head: VectorHead, parameters: Tensor, scale: WindowScale) -> list[Tensor]:
    """Return values (batch, horizon, targets) in the units of the past, and what `_distribution` names."""
    center, width = scale
    if isinstance(head, QuantileHead):
        ordered = head.values(parameters).squeeze(-2).sort(-1).values
        restored = ordered * width.unsqueeze(-1) + center.unsqueeze(-1)
        return [restored[..., head.quantiles.index(0.5)], restored]
    values = head.predict(parameters).squeeze(-1) * width + center
    if not isinstance(head, LocationScaleHead):
        return [values]
    _, deviation, *shape = (each.squeeze(-1) for each in head.entries(parameters))
    return [values, deviation * width, *shape]
