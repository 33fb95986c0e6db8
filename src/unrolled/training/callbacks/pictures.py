"""Pictures of what the network generates, after every validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from unrolled.training.callbacks.samples import generate
from unrolled.training.console.outputs import save_figure, write_bytes, write_text
from unrolled.training.console.terminal import warn_disabled


class _Drawer(Protocol):
    def pictures(self, generator: torch.Generator) -> Mapping[str, Figure | str | bytes]: ...


class Pictures(Callback):
    """Draws what the network generates after every validation, as files and in TensorBoard.

    Calls `task.pictures(generator)` on rank 0 only, without gradients; the task must not communicate with other
    processes there. It returns files by name: a figure, which is saved as PNG, a text, such as SVG, or the
    bytes of any other file, such as sound. As for `Samples`, a resumed run draws the same, and the random state of
    torch is restored. If the module has no `pictures` method, the callback logs one warning and does nothing.

    Args:
        folder: the run's folder; files go to `pictures/` in it and replace those of the previous validation.
        seed: seed of the generator.
    """

    def __init__(self, folder: str | Path, *, seed: int = 0) -> None:
        self.folder = Path(folder) / "pictures"
        self.seed = seed
        self._enabled = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._enabled = callable(getattr(pl_module, "pictures", None))
        if stage == "fit" and not self._enabled:
            warn_disabled(self, f"{type(pl_module).__name__} has no pictures(generator)")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        step = trainer.global_step
        for name, picture in generate(pl_module, cast("_Drawer", pl_module).pictures, self.seed + step).items():
            if isinstance(picture, str):
                write_text(self.folder / name, picture)
                continue
            if isinstance(picture, bytes):
                write_bytes(self.folder / name, picture)
                continue
            save_figure(self.folder / name, picture, dpi=120)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"pictures/{Path(name).stem}", picture, step)
