"""The learning-rate range test: the loss at each learning rate, and a suggestion."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.optim import Optimizer

from unrolled.training.callbacks.curves import GRID, TRAINING, VALIDATION
from unrolled.training.console.outputs import save_figure, write_rows


class LearningRateRange(Callback):
    """Records the training loss while `Range` raises the learning rate, and stops when the loss diverges (Smith 2017).

    Writes lr_range.csv and lr_range.png to the run's folder and notes a suggestion: the rate at which the smoothed loss
    falls fastest. Above the rate of the smallest loss, training is unstable.

    Args:
        folder: folder of the run.
        diverged: training stops when the smoothed loss exceeds this many times its minimum, or is not finite.
        smoothing: decay of the moving average of the loss, from 0 to below 1.

    Raises:
        ValueError: `diverged` of at most 1, or `smoothing` outside [0, 1).
    """

    def __init__(self, folder: str | Path, *, diverged: float = 3.0, smoothing: float = 0.9) -> None:
        if diverged <= 1 or not 0 <= smoothing < 1:
            raise ValueError(f"diverged={diverged} must be above 1, and smoothing={smoothing} at least 0 and below 1")
        self.folder, self.diverged, self.smoothing = Path(folder), diverged, smoothing
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.rates.append(float(optimizer.param_groups[0]["lr"]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(self.rates) > len(self.losses):  # once for each optimizer step
            self.losses.append(float(trainer.callback_metrics.get("train/loss", math.nan)))
            smooth = smoothed(self.losses, self.smoothing)
            stop = not math.isfinite(smooth[-1]) or smooth[-1] > self.diverged * min(smooth)
            if trainer.strategy.reduce_boolean_decision(stop, all=False):
                trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"rates": list(self.rates), "losses": list(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rates, self.losses = list(state_dict["rates"]), list(state_dict["losses"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        finite = [pair for pair in zip(self.rates, self.losses, strict=True) if math.isfinite(pair[1])]
        if not trainer.is_global_zero or len(finite) < 3:
            return
        rates, losses = [rate for rate, _ in finite], [loss for _, loss in finite]
        smooth = smoothed(losses, self.smoothing)
        best = suggestion(rates, smooth)
        write_rows(self.folder / "lr_range.csv", [("learning_rate", "loss"), *finite])
        save_figure(self.folder / "lr_range.png", draw_range(rates, losses, smooth, best), dpi=150)
        lowest = rates[smooth.index(min(smooth))]
        note = f"optimizer.lr={best:.2g}, where the loss falls fastest; it is smallest at {lowest:.2g} and rises above"
        notes: Any = getattr(pl_module, "notes", None)  # of a task of this package, printed with its results
        if notes is None:
            print(f"suggested: {note}")
        else:
            notes["suggested"] = note


def smoothed(losses: list[float], decay: float) -> list[float]:
    """Returns the exponential moving average of losses, corrected for its start at 0 (Kingma and Ba 2015)."""
    average, found = 0.0, list[float]()
    for step, loss in enumerate(losses, start=1):
        average = decay * average + (1 - decay) * loss
        found.append(average / (1 - decay**step))
    return found


def suggestion(rates: list[float], losses: list[float]) -> float:
    """Returns the rate at which smoothed losses fall fastest over the logarithm of the rate, before their minimum.

    The first tenth of the steps before the minimum is left out: its averages are of few losses, whose noise has slopes.

    Args:
        rates: increasing learning rates, three or more.
        losses: smoothed losses.
    """
    end = max(losses.index(min(losses)), 2)
    begin = 1 + end // 10
    logs = [math.log(rate) for rate in rates]
    slopes = [(losses[i + 1] - losses[i - 1]) / (logs[i + 1] - logs[i - 1]) for i in range(begin, end)]
    return rates[begin + slopes.index(min(slopes))]


def draw_range(rates: list[float], losses: list[float], smooth: list[float], best: float) -> Figure:
    """Draws the loss over the learning rate, with the suggestion."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(rates, losses, color=TRAINING, linewidth=0.8, alpha=0.3)
    axis.plot(rates, smooth, color=TRAINING, linewidth=1.8, label="training loss, smoothed")
    axis.axvline(best, color=VALIDATION, linestyle="--", label=f"falls fastest: {best:.2g}")
    axis.set_xscale("log")
    low, start = min(smooth), smooth[0]
    margin = max(start - low, 1e-9)
    axis.set_ylim(low - 0.15 * margin, start + 0.5 * margin)
    axis.set_xlabel("learning rate")
    axis.set_ylabel("loss (nats per prediction)")
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure
