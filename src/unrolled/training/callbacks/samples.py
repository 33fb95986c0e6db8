"""Generated samples after every validation."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich import get_console
from rich.panel import Panel
from rich.text import Text

from unrolled.generation.limits import RowError
from unrolled.training.callbacks.nonfinite import NonFiniteOutputs
from unrolled.training.console.terminal import is_interactive, warn_disabled

T = TypeVar("T")


class _Sampler(Protocol):
    def sample(self, generator: torch.Generator) -> str: ...


class Samples(Callback):
    """Prints a generated text after every validation and adds it to `samples.md` and TensorBoard.

    Calls `task.sample(generator) -> str` on rank 0 only, without gradients; the task must not communicate with other
    processes there. The generator is seeded with `seed` and the step, so that a resumed run generates the same texts.
    The random state of torch is restored afterwards. With WeightAveraging the averaged network generates. If the module
    has no `sample` method, the callback logs one warning and does nothing.

    Args:
        folder: folder of `samples.md`; created if needed. An existing file is appended to.
        seed: seed of the generator.

    Raises:
        NonFiniteOutputs: nothing can be sampled, since what the network predicts is NaN or infinite.
    """

    def __init__(self, folder: str | Path, *, seed: int = 0) -> None:
        self.path = Path(folder) / "samples.md"
        self.seed = seed
        self._enabled = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._enabled = callable(getattr(pl_module, "sample", None))
        if stage == "fit" and not self._enabled:
            warn_disabled(self, f"{type(pl_module).__name__} has no sample(generator) -> str")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        step = trainer.global_step
        text = generate(pl_module, cast("_Sampler", pl_module).sample, self.seed + step)
        _show(text, step)
        fenced = _fenced(text)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"## Step {step}\n\n{fenced}\n\n")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", fenced, step)


def generate(module: LightningModule, function: Callable[[torch.Generator], T], seed: int) -> T:
    """Calls a function of a module with a seeded generator on its device, and restores the random state of torch.

    Raises:
        NonFiniteOutputs: nothing can be sampled, since what the network predicts is NaN or infinite.
    """
    generator = torch.Generator(device=module.device)
    generator.manual_seed(seed)
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        try:
            return function(generator)
        except RowError as error:
            raise NonFiniteOutputs(
                f"step {module.trainer.global_step}: nothing can be sampled: {error.reason}. Lower the learning rate, "
                "or clip (callbacks/gradient_clip=norm)"
            ) from error


def _show(text: str, step: int) -> None:
    title = f"sample at step {step}"
    if is_interactive():
        # The console of the progress bar, so that the bar stays below. Text, since rich reads brackets as markup.
        get_console().print(Panel(Text(text), title=title, title_align="left", border_style="dim"))
    else:
        print(f"--- {title} ---\n{text}\n---", flush=True)


def _fenced(text: str) -> str:
    """Returns a Markdown code block with the text, and a fence longer than any inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
