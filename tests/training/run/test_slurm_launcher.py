"""hydra/launcher=slurm writes a batch script, sends it, and waits; tests/slurm does the same with a real SLURM."""

import csv
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Process = Callable[..., subprocess.CompletedProcess[str]]

# SLURM's programs for one machine without a queue: a job is a process, and leaves a file with its exit status.
PROGRAMS = {
    "sbatch": r"""
        [ -f refuse ] && { echo "sbatch: error: invalid partition specified: nope" >&2; exit 1; }
        last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
        for task in $(seq 0 ${last:-0}); do
            job=77${last:+_$task}
            touch "jobs/$job"
            export SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
            [ -n "$last" ] && export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task
            (
                bash "$1" < /dev/null
                echo $? > "jobs/$job.status"
                rm "jobs/$job"
            ) > "jobs/$job.log" 2>&1 &
        done
        echo "Submitted batch job 77"
    """,
    "srun": """
        while [ "${1#--}" != "$1" ]; do [ "$1" = --output ] && shift; shift; done
        SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 exec "$@"
    """,
    "squeue": "ls jobs | grep -v '[.]'; exit 0",
    "scontrol": '[ "$1" = show ] && echo "JobId=$4 ExitCode=$(cat jobs/$4.status):0"',
}


@pytest.fixture
def path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A search path with the programs."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    (folder / "jobs").mkdir()
    (folder / "programs").mkdir()
    for name, script in PROGRAMS.items():
        program = folder / "programs" / name
        program.write_text(f"#!/bin/bash\n{script}\n")
        program.chmod(0o755)
    return f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_an_array_of_jobs(
    folder: Path, python: Process, train_script: str, small: list[str], path: str
) -> None:
    asked = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1"]
    asked += ["+hydra.launcher.additional_parameters.reservation=lab", "optimizer.lr=1e-3,-1"]
    few = [*small, "trainer.max_steps=2", "test=false", "logger=csv", "run_dir=sent"]
    done = python(train_script, "-m", *asked, *few, PATH=path)

    assert done.returncode == 2, done.stderr  # as wrong input, of one job
    first, second = rows(folder / "sent" / "results.csv")
    assert (first["state"], second["state"]) == ("complete", "refused")
    assert "learning rate" in second["error"]
    assert (folder / "sent" / first["folder"] / "summary.json").is_file()
    script = (folder / "sent" / ".sweep" / "slurm" / "77_submission.sh").read_text()
    options = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert options >= {"array=0-1%2", "partition=gpu", "gpus-per-node=1", "time=60", "nodes=1", "ntasks-per-node=1"}
    assert options >= {"signal=USR1@300", "requeue", "open-mode=append", "reservation=lab"}
    assert "requeue: true" in (folder / "sent" / first["folder"] / "config.yaml").read_text()

    again = python(train_script, "-m", "resume=sent", PATH=path)

    assert "job 0 has finished before" in again.stdout


def test_a_single_run_is_a_sweep_of_one_job(
    folder: Path, python: Process, train_script: str, small: list[str], path: str
) -> None:
    few = [*small, "trainer.max_steps=2", "test=false", "logger=csv", "run_dir=sent"]
    done = python(train_script, "hydra/launcher=slurm", "hydra.launcher.requeue=false", *few, PATH=path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["state"] for row in rows(folder / "sent" / "results.csv")] == ["complete"]
    script = (folder / "sent" / ".sweep" / "slurm" / "77_submission.sh").read_text()
    assert "--array" not in script
    assert "--requeue" not in script
    assert "requeue: false" in (folder / "sent" / "0" / "config.yaml").read_text()

    (folder / "programs" / "squeue").write_text("#!/bin/bash\nexit 1\n")
    again = python(train_script, "-m", "resume=sent", PATH=path)

    assert again.returncode == 1
    assert "job 0 may be in the queue as 77; squeue does not answer" in again.stdout


@pytest.mark.parametrize(
    ("more", "refuses", "said"),
    [
        ([], True, "hydra/launcher=slurm: invalid partition specified: nope"),
        (["hydra.launcher.time=5"], False, "a job of 5 minutes would be warned at its start"),
        (["+hydra.launcher.partitoin=gpu"], False, "partitoin"),
    ],
)
def test_what_slurm_does_not_take_is_answered(
    folder: Path,
    python: Process,
    train_script: str,
    small: list[str],
    path: str,
    more: list[str],
    refuses: bool,
    said: str,
) -> None:
    if refuses:
        (folder / "refuse").touch()
    done = python(train_script, "hydra/launcher=slurm", *more, *small, "run_dir=sent", PATH=path)

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "sent").exists()


def test_a_machine_without_slurm_is_named(folder: Path, python: Process, train_script: str, small: list[str]) -> None:
    done = python(train_script, "hydra/launcher=slurm", *small, "run_dir=sent", PATH=str(folder))

    assert done.returncode == 2, done.stderr
    assert "srun" in done.stderr
    assert not (folder / "sent").exists()
