"""What a fit shows and remembers: a bar over the epochs, and the metrics of each epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm.auto import tqdm

from unrolled.training.console.terminal import is_interactive


class History(Callback):
    """Remembers the mean loss of each epoch, and the metrics of its validation.

    Attributes:
        epochs: for each epoch, "epoch", "loss" and, with a validation, its metrics, such as "validation_loss".
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._total, self._steps = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._total, self._steps = 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._total = self._total + outputs["loss"].detach()  # a tensor: no wait for the device
        self._steps += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {"epoch": float(trainer.current_epoch + 1), "loss": float(self._total) / max(1, self._steps)}
        for name, value in trainer.callback_metrics.items():
            if name.startswith("validation/"):
                found[name.replace("/", "_")] = float(value)
        self.epochs.append({**found, "epoch": trainer.current_epoch + 1})


class EpochBar(Callback):
    """Shows a bar over the epochs, which disappears at the end, in a terminal or a notebook.

    Args:
        history: the metrics that are shown; its callback must come before this one.
        name: name of what is trained.
    """

    def __init__(self, history: History, name: str) -> None:
        self._history, self._name = history, name
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = tqdm(
            total=trainer.max_epochs, desc=self._name, unit="epoch", leave=False, disable=not is_interactive()
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown = {name: value for name, value in self._history.epochs[-1].items() if name.endswith("loss")}
        self._bar.set_postfix({name.replace("_", " "): f"{value:.3g}" for name, value in shown.items()}, refresh=False)
        self._bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()
