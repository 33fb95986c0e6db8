"""What a run says at its beginning and at its end, on the screen and in its folder."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from unrolled.training.data import SequenceData
from unrolled.training.progress import Throughput
from unrolled.training.task import SequenceTask

WIDTH = 110  # of lines that go into a file rather than onto a terminal


def console() -> Console:
    """Standard output, with colours only on a terminal."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def write_configuration(config: DictConfig, folder: Path) -> None:
    """config.yaml: every choice of the run, resolved, sizes included."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")


def announce(config: DictConfig, data: SequenceData, task: SequenceTask, trainer: Trainer) -> None:
    """What is about to be trained, on what, by what means."""
    table = _table()
    table.add_row("data", data.describe())
    table.add_row("network", f"{type(task.network).__name__}, {_parameters(task):,} parameters")
    for layer, choice in enumerate(_backends(task)):
        table.add_row("" if layer else "backend", f"layer {layer}: {choice.backend} ({choice.reason})")
    devices = f"{trainer.world_size} × {trainer.strategy.root_device.type}, {torch.get_num_threads()} threads"
    table.add_row("device", devices)
    table.add_row("folder", str(config.run_dir))
    console().print(table)


def conclude(
    config: DictConfig,
    folder: Path,
    trainer: Trainer,
    task: SequenceTask,
    numbers: Mapping[str, float],
    seconds: float,
) -> None:
    """summary.json, then the numbers, the files and what to type next."""
    summary = _summary(config, trainer, task, numbers, seconds)
    partial = folder / "summary.json.part"
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "summary.json")

    table = _table()
    for name, value in numbers.items():
        table.add_row(name, f"{value:.4f}")
    table.add_row("trained", f"{seconds:,.0f} seconds, {trainer.global_step:,} optimizer steps")
    names = {"config.yaml": "every choice", "metrics.csv": "numbers over time", "curves.png": "the same as a picture"}
    names |= {"samples.md": "samples", "summary.json": "what is said here"}
    files = [f"{name} ({what})" for name, what in names.items() if (folder / name).exists()]
    table.add_row("folder", str(folder))
    table.add_row("", ", ".join(files))
    best = _shown(summary["checkpoint"])
    if best:
        table.add_row("next", f'python -m unrolled sample {best} --prompt "ROMEO:" --length 400')
        table.add_row("", f"python evaluate.py checkpoint={best}")
        table.add_row("", f"tensorboard --logdir {_shown(folder)}")
    console().print(table)


def print_scores(config: DictConfig, data: SequenceData, numbers: Mapping[str, float]) -> None:
    """The numbers of an evaluation."""
    table = _table()
    table.add_row("checkpoint", str(config.checkpoint))
    table.add_row("data", data.describe())
    for name, value in numbers.items():
        table.add_row(name, f"{value:.4f}")
    console().print(table)


def _summary(
    config: DictConfig, trainer: Trainer, task: SequenceTask, numbers: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # pyright: ignore
    monitor = trainer.checkpoint_callback
    return {
        **{name: float(value) for name, value in numbers.items()},
        "parameters": _parameters(task),
        "seconds": round(seconds, 1),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        f"{throughput.unit}s_per_second" if throughput else "units_per_second": throughput.rate if throughput else None,
        "checkpoint": str(getattr(monitor, "best_model_path", "") or getattr(monitor, "last_model_path", "")),
        "best_validation": _number(getattr(monitor, "best_model_score", None)),
        "processes": trainer.world_size,
        "seed": int(config.seed),
        "data": task.info.get("data"),
        "versions": task.info.get("versions"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _parameters(task: SequenceTask) -> int:
    return sum(parameter.numel() for parameter in task.network.parameters())


def _backends(task: SequenceTask) -> list[Any]:
    core = getattr(task.network, "core", None)
    if core is None:
        return []
    like = next(core.parameters())
    return core.choices(like.new_zeros(1, 2, core.input_size))


def _shown(path: str | Path) -> str:
    """A path as one would type it from here."""
    if not str(path):
        return ""
    absolute = Path(path).resolve()
    here = Path.cwd().resolve()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))


def _table() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
