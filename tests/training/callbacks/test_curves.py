"""The picture of a run: which points it shows, and that a half-written one never lies about."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib import image
from matplotlib._pylab_helpers import Gcf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from unrolled.training.callbacks import curves
from unrolled.training.callbacks.clip import GradientClip
from unrolled.training.callbacks.curves import Curves, plot_curves

CSV = """epoch,gradient/norm_after,gradient/norm_before,learning_rate,step,train/loss,validation/loss
0,1.0,3.0,0.01,0,4.0,
0,,,,1,,3.5
0,1.0,2.0,0.02,2,3.0,
0,,,,3,nan,2.5
1,0.5,0.5,0.01,4,2.0,
1,,,,5,,2.75
"""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, on top of saving them."""
    kept: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: (kept.append(self), save(self, *args, **options))
    )
    return kept


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    return path


def points(axis: Axes, label: str) -> list[tuple[float, float]]:
    (line,) = [line for line in axis.get_lines() if str(line.get_label()).startswith(label)]
    return list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))  # pyright: ignore


def test_the_curves_hold_the_logged_points(metrics: Path, figures: list[Figure]) -> None:
    plot_curves(metrics, metrics.with_name("curves.png"))

    loss, norm, rate = figures[0].axes
    assert points(loss, "training") == [(1, 4.0), (3, 3.0), (5, 2.0)]
    assert points(loss, "validation") == [(2, 3.5), (4, 2.5), (6, 2.75)]
    assert points(norm, "before clipping") == [(1, 3.0), (3, 2.0), (5, 0.5)]
    assert points(norm, "after clipping") == [(1, 1.0), (3, 1.0), (5, 0.5)]
    assert points(rate, "") == [(1, 0.01), (3, 0.02), (5, 0.01)]
    assert [axis.get_ylabel() for axis in figures[0].axes] == [
        "loss (nats per prediction)",
        "gradient norm",
        "learning rate",
    ]
    assert rate.get_xlabel() == "optimizer step"


def test_the_best_validation_is_marked(metrics: Path, figures: list[Figure]) -> None:
    plot_curves(metrics, metrics.with_name("curves.png"))

    assert points(figures[0].axes[0], "best: 2.5 at step 4") == [(4, 2.5)]


def test_what_was_not_logged_is_left_out(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/bits_per_character_step\n0,4.0\n1,3.0\n")

    plot_curves(path, tmp_path / "curves.png", metric="bits_per_character")

    (axis,) = figures[0].axes
    assert points(axis, "training") == [(1, 4.0), (2, 3.0)]
    assert axis.get_ylabel() == "bits per character"


def test_an_empty_log_makes_an_empty_picture(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch\n")

    plot_curves(path, tmp_path / "curves.png")

    assert (tmp_path / "curves.png").is_file()


def test_the_trend_is_a_mean_over_a_fiftieth() -> None:
    values = [float(index % 2) for index in range(200)]

    smooth = curves._smooth(values)

    assert len(smooth) == 200
    assert smooth[0] == pytest.approx(1 / 3)  # 0, 1, 0
    assert smooth[100] == pytest.approx(2 / 5)  # 0, 1, 0, 1, 0
    assert curves._smooth([3.0, 5.0]) == [3.0, 5.0]


def test_the_picture_is_sharp_and_nothing_else_is_left_behind(metrics: Path) -> None:
    target = metrics.parent / "pictures" / "curves.png"

    plot_curves(metrics, target)

    height, width, _ = image.imread(target).shape
    assert width >= 1200
    assert height >= 1000
    assert [path.name for path in target.parent.iterdir()] == ["curves.png"]
    assert not Gcf.figs  # pyplot would keep every figure until the end of the run


def test_a_failed_drawing_leaves_the_old_picture(metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = metrics.with_name("curves.png")
    plot_curves(metrics, target)
    before = target.read_bytes()

    def fail(figure: Figure, path: Path, **options: Any) -> None:
        Path(path).write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)

    with pytest.raises(OSError, match="No space left"):
        plot_curves(metrics, target)

    assert target.read_bytes() == before


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.weight**2
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("validation/loss", self.weight**2, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(*callbacks: Any, logger: Any) -> None:
    data: Any = torch.utils.data.DataLoader([torch.ones(())] * 3, batch_size=None)
    Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
        log_every_n_steps=1,
        logger=logger,
        callbacks=list(callbacks),
    ).fit(Learner(), data, data)


def test_a_run_redraws_its_curves_after_each_validation(tmp_path: Path, figures: list[Figure]) -> None:
    logger = CSVLogger(tmp_path, name="", version="")

    fit(Curves(), GradientClip(norm=1.0), logger=logger)

    assert (tmp_path / "curves.png").is_file()
    assert len(figures) == 3  # two validations and the end
    assert [len(points(figure.axes[0], "validation")) for figure in figures] == [1, 2, 2]
    assert [len(points(figure.axes[0], "training")) for figure in figures] == [3, 6, 6]
    assert [step for step, _ in points(figures[2].axes[0], "validation")] == [3, 6]  # as checkpoints are named
    assert len(figures[0].axes) == 2


def test_a_run_without_a_csv_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a CSVLogger"):
        fit(Curves(tmp_path / "curves.png"), logger=False)
