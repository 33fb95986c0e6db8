"""Output at the start and the end of a run: printed rows, config.yaml and summary.json."""

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from unrolled.backends.speeds import SPEEDS
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.attentive import AttentiveCore
from unrolled.training.callbacks.last import LastCheckpoint
from unrolled.training.callbacks.pruning import is_pruned
from unrolled.training.callbacks.threads import Threads
from unrolled.training.callbacks.throughput import Throughput
from unrolled.training.console.outputs import write_text
from unrolled.training.console.terminal import print_rows, quoted_path
from unrolled.training.data.base import SequenceData
from unrolled.training.run.next_commands import next_commands
from unrolled.training.tasks.base import SequenceTask
from unrolled.wording import counted


def write_configuration(config: DictConfig, folder: Path) -> None:
    """Writes config.yaml: the resolved configuration, including the sizes of the data."""
    write_text(folder / "config.yaml", _configuration(config))


def print_overview(config: DictConfig, data: SequenceData, task: SequenceTask, trainer: Trainer) -> None:
    """Prints data, network, backends, device and folder of a run."""
    print_rows(
        ("data", data.describe()),
        ("network", f"{type(task.network).__name__}, {_parameters(task):,} parameters"),
        *(("backend", line) for line in _backends(task, config.data)),
        (
            "device",
            f"{trainer.world_size} × {trainer.strategy.root_device.type}{Threads.of(trainer).startup_note(trainer)}",
        ),
        ("folder", quoted_path(config.run_dir)),
    )


def write_summary(
    config: DictConfig,
    folder: Path,
    data: SequenceData,
    trainer: Trainer,
    task: SequenceTask,
    numbers: Mapping[str, float],
    seconds: float,
) -> None:
    """Writes summary.json and prints the metrics, the files and the next commands."""
    summary = _summary(config, trainer, task, numbers, seconds)
    best = summary["checkpoint"]
    summary["next"] = next_commands(config, data, task, best, folder) if best else []
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")

    names = {"config.yaml": "the configuration", "metrics.csv": "logged metrics", "curves.png": "learning curves"}
    names |= {
        "samples.md": "samples",
        "lr_range.png": "the loss at each learning rate",
        **task.files,
        "summary.json": "this summary",
    }
    rows = [(name, f"{value:.4f}") for name, value in numbers.items()]
    rows += _notes(task)
    trained = f"{counted(round(seconds), 'second')}, {counted(trainer.global_step, 'optimizer step')}"
    rows.append(("trained", trained))
    rows.append(("folder", quoted_path(folder)))
    rows += [(f"  {name}", what) for name, what in names.items() if (folder / name).exists()]
    if best:
        rows.append(("  checkpoint", quoted_path(best)))
        rows += [("" if number else "next", command) for number, command in enumerate(summary["next"])]
    print_rows(*rows)


def print_scores(config: DictConfig, data: SequenceData, task: SequenceTask, numbers: Mapping[str, float]) -> None:
    """Prints the metrics of an evaluation."""
    scores = [(name, f"{value:.4f}") for name, value in numbers.items()]
    scores += _notes(task)
    print_rows(("checkpoint", str(config.checkpoint)), ("data", data.describe()), *scores)


def _summary(
    config: DictConfig, trainer: Trainer, task: SequenceTask, numbers: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    throughput = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)  # pyright: ignore
    monitor = trainer.checkpoint_callback
    last = next((c for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)), None)
    return {
        **{name: float(value) for name, value in numbers.items()},
        **task.notes,
        "parameters": _parameters(task),
        "seconds": round(seconds, 1),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        f"{throughput.unit}s_per_second" if throughput else "units_per_second": throughput.rate if throughput else None,
        "checkpoint": str(
            getattr(monitor, "best_model_path", "") or (last.path if last and last.path.is_file() else "")
        ),
        "best_validation": _number(getattr(monitor, "best_model_score", None)),
        "pruned": is_pruned(trainer),
        "processes": trainer.world_size,
        "threads": Threads.of(trainer).count,
        "backends": SPEEDS.taken,  # of LSTMs on a CPU, where they are chosen by speed
        "configuration": hashlib.sha256(_configuration(config).encode()).hexdigest(),  # that of config.yaml
        "seed": int(config.seed),
        "data": task.info.get("data"),
        "versions": task.info.get("versions"),
        "command": _command_line(),
    }


def _configuration(config: DictConfig) -> str:
    return OmegaConf.to_yaml(config, resolve=True)


def _notes(task: SequenceTask) -> list[tuple[str, str]]:
    return [(name, note if isinstance(note, str) else f"{note:.4f}") for name, note in task.notes.items()]


def _command_line() -> str:
    script = Path(sys.argv[0]).name
    return " ".join(["python -m unrolled" if script == "__main__.py" else script, *map(shlex.quote, sys.argv[1:])])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _parameters(task: SequenceTask) -> int:
    return sum(parameter.numel() for parameter in task.network.parameters())


def _backends(task: SequenceTask, data: DictConfig) -> list[str]:
    """Returns the backends of the network's layers and the reasons, with equal layers of a core in one line."""
    cores = {name: module for name, module in task.network.named_modules() if isinstance(module, Recurrent)}
    lines: list[str] = []
    for name, core in cores.items():
        owner = name.rpartition(".")[0]
        attentive = task.network.get_submodule(owner)
        fed = isinstance(attentive, AttentiveCore) and attentive.input_feeding
        choices = _backends_of_layers(core, data, fed=fed)
        prefix = f"{owner.removesuffix('.steps')}: " if len(cores) > 1 else ""
        lines += [f"{prefix}{choices.count(choice)} × {choice}" for choice in dict.fromkeys(choices)]
    return lines


def _backends_of_layers(core: Recurrent, data: DictConfig, *, fed: bool) -> list[str]:
    if fed:
        return ["step by step: input feeding reads each readout at the next step"] * core.num_layers
    like = next(core.parameters())
    sizes = [data.get(name) for name in ("batch_size", "window")]
    batch, steps = (size if isinstance(size, int) else 64 for size in sizes)
    with SPEEDS.unnoted():  # the sizes of batches may differ
        choices = core.backend_choices(like.new_zeros(batch, steps, core.input_size))
    return [f"{choice.backend}: {choice.reason}" for choice in choices]
