"""Learning curves, drawn from the file of Lightning's CSVLogger."""

import csv
import math
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from unrolled.training.console.outputs import save_figure

# Okabe and Ito 2008, "Color universal design": distinguishable with color blindness.
TRAINING, VALIDATION, NORM, RATE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GRID = "#333333", "#DDDDDD"


class Curve(NamedTuple):
    steps: list[int]
    values: list[float]


class Curves(Callback):
    """Calls `plot_curves` on the run's metrics.csv after each validation and at the end of training, on rank 0.

    Args:
        path: path of the figure; by default curves.png in the folder of metrics.csv.
        metric: name of the metric to draw, as logged under train/ and validation/.

    Raises:
        ValueError: at the start of training, if the Trainer has no CSVLogger.
    """

    def __init__(self, path: str | Path | None = None, *, metric: str = "loss") -> None:
        self.path = None if path is None else Path(path)
        self.metric = metric

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's fast_dev_run removes the loggers on purpose.
        if stage == "fit" and _csv_logger(trainer) is None and not getattr(trainer, "fast_dev_run", False):
            raise ValueError("Curves needs a CSVLogger, and the Trainer has none; add one, or callbacks.curves=null")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        logger = _csv_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        metrics = Path(logger.log_dir) / "metrics.csv"
        if metrics.is_file():
            plot_curves(metrics, self.path or metrics.with_name("curves.png"), metric=self.metric)


def plot_curves(csv_path: str | Path, png_path: str | Path, *, metric: str = "loss") -> None:
    """Plots training and validation `metric` over the steps and, below, the gradient's norm and the learning rate.

    Columns: train/<metric>, validation/<metric>, gradient/norm_before, gradient/norm_after and learning_rate. Columns
    that were not logged are omitted. The file is replaced atomically.

    Args:
        csv_path: metrics.csv of a CSVLogger.
        png_path: path of the figure; its folder is created if needed.
        metric: "loss" (nats per prediction), "bits_per_character", …: lower is better.
    """
    curves = _read(Path(csv_path))
    small = [
        draw
        for draw, wanted in ((_draw_norm, "gradient/norm"), (_draw_rate, "learning_rate"))
        if _has_column(curves, wanted)
    ]
    figure = Figure(figsize=(8.0, 4.6 + 1.5 * len(small)), layout="constrained")
    FigureCanvasAgg(figure)
    rows: Any = figure.subplots(
        1 + len(small), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3.2] + [1.0] * len(small)}
    )
    axes: list[Axes] = list(rows[:, 0])
    _draw_metric(axes[0], curves, metric)
    for axis, draw in zip(axes[1:], small, strict=True):
        draw(axis, curves)
    for axis in axes:
        _style_axis(axis)
    axes[-1].set_xlabel("optimizer step")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.align_ylabels(axes)
    save_figure(Path(png_path), figure, dpi=150)


def _draw_metric(axis: Axes, curves: dict[str, Curve], metric: str) -> None:
    training = _find(curves, f"train/{metric}")
    validation = _find(curves, f"validation/{metric}")
    if training is not None:
        # The loss of single batches is noisy: a moving average is drawn over it.
        axis.plot(*training, color=TRAINING, linewidth=0.8, alpha=0.3)
        axis.plot(training.steps, _smooth(training.values), color=TRAINING, linewidth=1.8, label="training")
    if validation is not None:
        axis.plot(*validation, color=VALIDATION, linewidth=1.8, marker="o", markersize=3.5, label="validation")
        _mark_best(axis, validation)
    axis.set_ylabel("loss (nats per prediction)" if metric == "loss" else metric.replace("_", " "))
    if training is not None or validation is not None:
        _limit_view(axis, [curve for curve in (training, validation) if curve is not None])
        axis.legend(loc="upper right", frameon=False)


def _mark_best(axis: Axes, curve: Curve) -> None:
    value = min(curve.values)
    step = curve.steps[curve.values.index(value)]
    axis.axhline(value, color=VALIDATION, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.6)
    style: dict[str, Any] = {"marker": "*", "markersize": 14, "markeredgecolor": "white", "linestyle": "none"}
    axis.plot([step], [value], color=VALIDATION, zorder=5, label=f"best: {value:.4g} at step {step:,}", **style)


def _draw_norm(axis: Axes, curves: dict[str, Curve]) -> None:
    before, after = curves.get("gradient/norm_before"), curves.get("gradient/norm_after")
    clipped = before is not None and after is not None and before.values != after.values
    if before is not None:
        style: dict[str, Any] = {"alpha": 0.35, "label": "before clipping"} if clipped else {}
        axis.plot(*before, color=NORM, linewidth=1.0, **style)
    if after is not None and (clipped or before is None):
        axis.plot(*after, color=NORM, linewidth=1.2, label="after clipping")
    if clipped:
        _legend_above(axis)
    values = [value for curve in (before, after) if curve is not None for value in curve.values]
    if min(values) > 0 and max(values) > 30 * min(values):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_ylabel("gradient norm")


def _draw_rate(axis: Axes, curves: dict[str, Curve]) -> None:
    axis.plot(*curves["learning_rate"], color=RATE, linewidth=1.4)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylabel("learning rate")


def _legend_above(axis: Axes) -> None:
    """Places the legend above the axis, which is too low for a legend inside."""
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.95), frameon=False, ncols=3, fontsize=8)


def _style_axis(axis: Axes) -> None:
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(INK)
    axis.tick_params(colors=INK)
    axis.yaxis.label.set_color(INK)
    axis.margins(x=0.01)


def _limit_view(axis: Axes, curves: list[Curve]) -> None:
    """Limits the y axis to the values after the first 5 %, whose loss is much larger than the rest."""
    values = sorted(value for curve in curves for value in curve.values[len(curve.values) // 20 :])
    low, high = values[0], values[-1]
    if high > low:
        axis.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


def _smooth(values: list[float]) -> list[float]:
    """Returns a centered moving average over a fiftieth of the points, over fewer at the ends."""
    reach = len(values) // 100
    sums = [0.0, *accumulate(values)]
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in spans]


def _read(path: Path) -> dict[str, Curve]:
    """Returns the finite values of every column. A step that occurs twice keeps both values."""
    curves: dict[str, Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = int(row["step"]) + 1  # Lightning counts steps from 0 here, and completed steps in checkpoints
            for name, text in row.items():
                value = float(text) if text else math.nan
                if math.isfinite(value):
                    curve = curves.setdefault(name, Curve([], []))
                    curve.steps.append(step)
                    curve.values.append(value)
    return curves


def _find(curves: dict[str, Curve], name: str) -> Curve | None:
    """Returns a metric by its name, or by the names that Lightning uses when it is logged by step and by epoch."""
    return next((curves[full] for full in (name, f"{name}_step", f"{name}_epoch") if full in curves), None)


def _has_column(curves: dict[str, Curve], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in curves)


def _csv_logger(trainer: Trainer) -> CSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)
