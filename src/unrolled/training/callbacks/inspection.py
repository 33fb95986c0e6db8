"""A look inside the network during training, as pictures and scalars."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from unrolled.cells.base import Cell
from unrolled.inspection.figures import (
    activity_figure,
    gate_names,
    gradient_figure,
    layer_name,
    retention_name,
    saturation_figure,
    time_constant_figure,
)
from unrolled.inspection.gates import time_constants
from unrolled.inspection.gradients import by_lag, final_state, state_gradients
from unrolled.inspection.panels import Figure
from unrolled.inspection.recorder import CellRecord, record
from unrolled.training.callbacks.drawing import draw
from unrolled.training.console.outputs import save_figure
from unrolled.training.console.terminal import warn_disabled


class _Task(Protocol):
    network: nn.Module
    state_store: Any
    training: bool

    def loss(self, batch: Any, loader: str) -> Any: ...


class Inspection(Callback):
    """Draws gates, states, time constants and gradients of every layer at an interval, as PNG files and in TensorBoard.

    After a due step, `task.loss` runs once more on the step's batch, in evaluation mode, while the network is recorded.
    The training isn't changed: random state, carried states and gradients are as before. On rank 0 only. If the network
    has no recurrent cell, the callback logs one warning and does nothing. A batch whose values aren't finite is left
    out. TensorBoard also gets scalars: for each layer the shares at which its gates are open and closed, the median
    time constant, and the norm of the gradient of the last state with respect to that half a sequence before.

    With `python train.py callbacks/inspection=figures` on one thread of a CPU, recording takes as long as 2 training
    steps, and drawing as 30: together 3.5 % of the training with the default interval, less for a larger network.
    TensorBoard has the seconds of each inspection.

    Args:
        folder: the run's folder; pictures go to `inspection/` in it and replace those of the previous inspection.
        every_n_steps: number of optimizer steps between two inspections.

    Raises:
        ValueError: an interval below 1.
    """

    def __init__(self, folder: str | Path, *, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: 1 or more, or leave it out: callbacks/inspection=none")
        self.folder = Path(folder) / "inspection"
        self.every_n_steps = every_n_steps
        self._enabled = False
        self._last = 0  # step of the last inspection; several batches can belong to one step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        network = getattr(pl_module, "network", None)
        has_cells = isinstance(network, nn.Module) and any(isinstance(part, Cell) for part in network.modules())
        self._enabled = has_cells and callable(getattr(pl_module, "loss", None))
        if stage == "fit" and not self._enabled:
            warn_disabled(self, f"{type(pl_module).__name__} has no network with recurrent cells and a loss")
        if stage == "fit" and self._enabled and isinstance(trainer.strategy, ModelParallelStrategy):
            self._enabled = False  # rank 0 alone would wait for weights of the other ranks
            warn_disabled(self, "it runs the network on one process, and trainer=fsdp shards the network over all")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self._enabled or step == self._last or step % self.every_n_steps or not trainer.is_global_zero:
            return
        self._last, begin = step, time.monotonic()
        records = _inspected(cast("_Task", pl_module), batch)
        if not records:
            return
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for name, figure in _figures(records).items():
            picture = draw(figure)
            save_figure(self.folder / f"{name}.png", picture, dpi=110)
            for logger in loggers:
                logger.experiment.add_figure(f"inspection/{name}", picture, step)
        for name, value in (*_scalars(records), ("seconds", time.monotonic() - begin)):
            for logger in loggers:
                logger.experiment.add_scalar(f"inspection/{name}", value, step)


def _inspected(task: _Task, batch: Any) -> list[tuple[CellRecord, Tensor]]:
    """Return the record of the last pass of each cell, with norms by lag of the gradient of its last state."""
    modes = {part: part.training for part in task.network.modules()}
    devices = [p.device for p in task.network.parameters() if p.device.type == "cuda"][:1]
    task.network.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), record(task.network, graph=True) as recording:
            task.loss(batch, "inspection")
        known = (one for one in recording.values() if bool(one["output"][one.mask].isfinite().all() & one.mask.any()))
        return [(one, _lags(one)) for one in known]
    finally:
        task.state_store.drop("inspection")
        for part, training in modes.items():
            part.training = training


def _lags(one: CellRecord) -> Tensor:
    name = "h" if "h" in one.states else one.states[-1]
    last = final_state(one, name)
    signs = torch.ones_like(last)
    signs[..., ::2] = -1.0  # some direction, the same at each inspection
    norms = state_gradients(one, (last * signs).sum() / last[0].numel() ** 0.5, name).flatten(2).norm(dim=-1)
    valid = one.mask.sum(1)
    steps = torch.zeros_like(valid) if one.reverse else valid - 1
    lags = by_lag(norms[valid > 0], steps[valid > 0], reverse=one.reverse)
    return lags[lags.isfinite()].cpu()


def _figures(records: list[tuple[CellRecord, Tensor]]) -> Mapping[str, Figure]:
    found: dict[str, Figure | None] = {}
    for one, _ in records:
        found[f"activity, {layer_name(one)}"] = activity_figure(one, row=int(one.mask.sum(1).argmax()))
        found[f"saturation, {layer_name(one)}"] = saturation_figure(one)
    found["time constants"] = time_constant_figure([one for one, _ in records])
    curves = {layer_name(one): lags for one, lags in records}
    found["gradient through time"] = gradient_figure(curves, loss="a weighted sum of the last state")
    return {name.replace(", ", "_").replace(" ", "_"): figure for name, figure in found.items() if figure is not None}


def _scalars(records: list[tuple[CellRecord, Tensor]]) -> Iterator[tuple[str, float]]:
    for one, lags in records:
        layer = layer_name(one).replace(", ", "_").replace(" ", "_")
        for name in gate_names(one):
            values = one[name]
            known = values[values.isfinite()]
            yield f"{layer}/{name}_open", float((known > 0.9).double().mean())
            yield f"{layer}/{name}_closed", float((known < 0.1).double().mean())
        kept = retention_name(one)
        if kept is not None:
            yield f"{layer}/median_time_constant", float(time_constants(one[kept].flatten(2)).median())
        yield f"{layer}/gradient_half_way", float(lags[len(lags) // 2])
