"""Output folders of commands: one for a run, or one for a sweep with a subfolder for each run."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unrolled.training.configuration.options import ConfigurationError

RUN, SWEEP, EACH = "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"
PRINTING = {"--help", "-h", "--hydra-help", "--version", "--info", "-i", "--cfg", "-c", "--shell-completion", "-sc"}
PRIMARY = {"--config-name", "-cn", "--config-path", "-cp"}
OUTPUTS = "outputs"  # parent of the default folders of runs


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command starts a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def starts_run(arguments: Sequence[str]) -> bool:
    """Whether a command starts a run: it has no option that prints something instead."""
    return not PRINTING & {argument.partition("=")[0] for argument in arguments}


def uses_own_configuration(arguments: Sequence[str]) -> bool:
    """Whether a command names another primary configuration than those of this package."""
    return bool(PRIMARY & {argument.partition("=")[0] for argument in arguments})


def files_of_run(folder: Path) -> list[Path]:
    """Returns the files in a folder that another run must not overwrite: its summary and its checkpoints."""
    return [*folder.glob("summary.json"), *sorted(folder.glob("checkpoints/*.ckpt"))]


def in_run_dir(arguments: Sequence[str]) -> list[str]:
    """Replaces `run_dir=X` in a command's arguments by Hydra's own folder, so that all files are written to it.

    In a sweep, X is the parent folder; the part that differs between runs (`run_dir=runs/${seed}`) names subfolders.

    Raises:
        ConfigurationError: several folders for one sweep.
    """
    arranged: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") != "run_dir":
            arranged.append(argument)
        elif not is_sweep(arguments):
            arranged.append(f"{RUN}={value}")
        else:
            arranged += _of_sweep(argument, value)
    return arranged


def refuse_unwritable(arguments: Sequence[str]) -> None:
    """Checks that the output folder of a command is writable.

    Raises:
        ConfigurationError: names the folder and the reason.
    """
    key = SWEEP if is_sweep(arguments) else RUN
    if not starts_run(arguments) or uses_own_configuration(arguments):
        return
    given = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith(f"{key}=")]
    folder = Path(_fixed(given[-1].strip("'\"") if given else OUTPUTS)[0])
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"run_dir={folder}: nothing can be written there ({error.strerror}: {there}); name another folder"
        ) from None


def _of_sweep(argument: str, value: str) -> list[str]:
    if re.search(r",(?![^{]*\})", value):
        raise ConfigurationError(
            f"{argument}: a sweep has one folder, with a numbered one for each run; give one, or what differs: "
            "'run_dir=runs/${seed}'"
        )
    quote = value[0] if value[:1] in ("'", '"') else ""
    folder, each = _fixed(value.strip("'\""))
    return [f"{SWEEP}={quote}{folder}{quote}", *([f"{EACH}={quote}{each}{quote}"] if each else [])]


def _fixed(path: str) -> tuple[str, str]:
    """Divides a path before its first component with an interpolation."""
    parts = Path(path).parts
    cut = next((place for place, part in enumerate(parts) if "${" in part), len(parts))
    return str(Path(*parts[:cut])), "/".join(parts[cut:])
