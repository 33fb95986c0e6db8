"""What the network writes, after every validation."""

import re
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich import get_console
from rich.panel import Panel
from rich.text import Text

from unrolled.training.console.terminal import draws, leave_out


class _Sampler(Protocol):
    def sample(self, generator: torch.Generator) -> str: ...


class Samples(Callback):
    """Shows a text by the network after every validation: on the console, in `samples.md` and in TensorBoard.

    Calls `task.sample(generator) -> str` in process 0 alone, so the task must not talk to other processes there, and
    without gradients. The generator is seeded anew with `seed` and the step, so that a resumed run writes the same
    texts; the random state of torch is put back behind it, whatever the task draws from. Under WeightAveraging the
    network is the averaged one. With a module that has no `sample` it does nothing, and says so once.

    Args:
        folder: where `samples.md` lies; made if need be, appended to if it is there.
        seed: of the generator.
    """

    def __init__(self, folder: str | Path, *, seed: int = 0) -> None:
        self.path = Path(folder) / "samples.md"
        self.seed = seed
        self._able = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._able = callable(getattr(pl_module, "sample", None))
        if stage == "fit" and not self._able:
            leave_out(self, f"{type(pl_module).__name__} has no sample(generator) -> str")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._able or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        step = trainer.global_step
        text = self._sample(pl_module, step)
        _show(text, step)
        fenced = _fenced(text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"## Step {step}\n\n{fenced}\n\n")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", fenced, step)

    def _sample(self, module: LightningModule, step: int) -> str:
        generator = torch.Generator(device=module.device)
        generator.manual_seed(self.seed + step)
        devices = [module.device] if module.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            return cast("_Sampler", module).sample(generator)


def _show(text: str, step: int) -> None:
    title = f"sample at step {step}"
    if draws():
        # The console of the progress bar, which stays below. Text, since brackets would be markup.
        get_console().print(Panel(Text(text), title=title, title_align="left", border_style="dim"))
    else:
        print(f"--- {title} ---\n{text}\n---", flush=True)


def _fenced(text: str) -> str:
    """A Markdown block that shows the text as it is, with a fence longer than any inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
