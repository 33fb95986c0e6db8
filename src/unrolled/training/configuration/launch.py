"""What launched a run: names its folder such that a requeued job, or one that torchrun restarts, finds it again."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from unrolled.training.configuration.run_dir import (
    OUTPUTS,
    RUN,
    files_of_run,
    is_sweep,
    starts_run,
    uses_own_configuration,
)

_TASK = "${hydra:runtime.choices.task}"


def slurm_job() -> str | None:
    """Returns the number of the SLURM job, in an array with its index: 77, 77_3; None outside of SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def torchrun_id() -> str | None:
    """Returns `torchrun/ID`, the --rdzv-id or else what tells this torchrun from others; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None:
        return None
    return f"torchrun/{_parent_process() if name == 'none' else re.sub('[^a-zA-Z0-9._-]', '_', name)}"


def default_folder(arguments: Sequence[str]) -> list[str]:
    """Returns the argument that sets the folder of a run which SLURM or torchrun started.

    It is `outputs/TASK/slurm/JOB-COMMAND` or `outputs/TASK/torchrun/ID-COMMAND`, where COMMAND is a digest of the
    arguments, since a job may have several runs. Another run of the same command gets `-2`, `-3`, ….

    Args:
        arguments: those of the command. If they give a folder, nothing is returned.
    """
    job = slurm_job()
    launch = torchrun_id() if job is None else f"slurm/{job}"
    given = any(argument.startswith(f"{RUN}=") for argument in arguments)
    if launch is None or given or is_sweep(arguments) or not starts_run(arguments):
        return []
    if uses_own_configuration(arguments):
        return []
    name = f"{launch}-{hashlib.sha256(chr(0).join(arguments).encode()).hexdigest()[:6]}"
    number, newest = 1, None
    while found := next(Path(OUTPUTS).glob(f"*/{_numbered(name, number)}"), None):
        number, newest = number + 1, found
    if newest is not None and (is_restarted(newest) or not files_of_run(newest)):
        number -= 1
    return [f"{RUN}={OUTPUTS}/{_TASK}/{_numbered(name, number)}"]


def is_restarted(folder: Path) -> bool:
    """Whether a run in this folder goes on with what is there: its job, or torchrun, has started its processes again.

    torchrun doesn't count a restart after a change of nodes. There, an unfinished run of the same launch is a restart.
    """
    if any(os.environ.get(f"{name}_RESTART_COUNT", "0") not in ("", "0") for name in ("SLURM", "TORCHELASTIC")):
        return True
    launch, path = torchrun_id(), folder / "config.yaml"
    if launch is None or not path.is_file() or (folder / "summary.json").is_file():
        return False
    return OmegaConf.select(OmegaConf.load(path), "launch") == launch


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _parent_process() -> str:
    """Returns the number of the parent process, with the tick at which it started where /proc tells it."""
    parent = os.getppid()
    try:
        return f"{parent}-{Path(f'/proc/{parent}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return str(parent)
