"""Runs of several processes, started by torchrun, by hand and from a file: one configuration and one folder."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from unrolled.training.configuration.launch import default_folder, is_restarted
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.environment import cluster_environment
from unrolled.training.run.job import Job, fix
from unrolled.training.run.ranks import BY_HAND, is_orphan

Begin = Callable[..., "subprocess.Popen[str]"]
Ended = Callable[..., str]
Srun = Callable[..., dict[str, str]]
Process = Callable[..., subprocess.CompletedProcess[str]]

TWO = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "test=false",
    "logger=none",
    "data.batch_size=2",
]
TWO += ["callbacks.curves=null", "callbacks.samples=null"]
LAUNCHERS = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "TORCHELASTIC_RUN_ID")


def check_one_run(folder: Path, processes: int) -> Path:
    """Returns the only run below a folder; its ranks have seen its configuration."""
    (run,) = (path.parent for path in folder.glob("outputs/*/*/*/summary.json"))
    assert len(list(folder.glob("outputs/*/*/*"))) == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["processes"] == processes
    assert summary["configuration"] == hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()
    assert len(list(run.glob("train*.log"))) == processes
    return run


@pytest.mark.distributed
def test_two_nodes_of_torchrun_run_what_rank_0_composed(
    folder: Path, begin: Begin, ended: Ended, free_port: str, small: list[str], train_script: str
) -> None:
    command = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    command += ["--rdzv-id=a b", f"--rdzv-endpoint=127.0.0.1:{free_port}", train_script, *small, *TWO]
    command += ["trainer.devices=1", "trainer.num_nodes=2", "--config-dir", str(folder)]

    nodes = [begin(command) for _ in range(2)]

    for node in nodes:
        ended(node)
    run = check_one_run(folder, 2)
    assert run.parent.name == "torchrun"
    assert run.name.startswith("a_b-")
    assert OmegaConf.load(run / "config.yaml").launch == "torchrun/a_b"


@pytest.mark.distributed
def test_two_nodes_by_hand_run_what_rank_0_composed(
    folder: Path, begin: Begin, ended: Ended, free_port: str, small: list[str], train_script: str
) -> None:
    command = [train_script, *small, *TWO, "trainer.devices=2", "trainer.num_nodes=2", "data.batch_size=1"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port}

    nodes = [begin(command, **address, NODE_RANK=rank) for rank in ("1", "0")]

    for node in nodes:
        ended(node)
    check_one_run(folder, 4)


def test_nodes_that_nothing_tells_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BY_HAND:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NODE_RANK", "0")

    with pytest.raises(ConfigurationError, match=r"num_nodes=2: .*\(MASTER_ADDR and MASTER_PORT missing\)"):
        cluster_environment(2)


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2])
def test_variables_that_another_run_left_change_nothing(
    folder: Path, python: Process, small: list[str], train_script: str, processes: int
) -> None:
    stray = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"}
    stray |= {"NODE_RANK": "3", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1", "UNROLLED_STARTED_BY": "1:1:2"}

    done = python(train_script, *small, *TWO, f"trainer.devices={processes}", **stray)

    assert done.returncode == 0, done.stderr
    check_one_run(folder, processes)


@pytest.mark.distributed
def test_a_process_with_other_arguments_is_refused(
    begin: Begin, ended: Ended, srun: Srun, small: list[str], train_script: str
) -> None:
    command = [train_script, *small, *TWO, "run_dir=run"]
    begin(command, **srun(0))

    said = ended(begin([*command, "seed=3"], **srun(1)), status=2)

    assert "rank 1: rank 0 was started with other arguments" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.distributed
def test_processes_with_other_data_are_refused(
    folder: Path, begin: Begin, ended: Ended, srun: Srun, small: list[str], train_script: str
) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "rhyme.txt").write_text("another text, of other letters" * 50)
    command = [train_script, *small, *TWO, f"run_dir={folder / 'run'}"]

    processes = [begin(command, **srun(0)), begin(command, other, **srun(1), UNROLLED_CACHE=str(other / "cache"))]

    for process in processes:
        assert "sizes.vocabulary is 15 in rank 1 and 26 in rank 0" in ended(process, status=2)
    assert not (folder / "run").exists()


@pytest.mark.distributed
def test_a_script_of_ones_own_starts_its_processes(folder: Path, python: Process, small: list[str]) -> None:
    options = [*small, *TWO, "trainer.devices=2", "callbacks.last.dirpath=${oc.env:PLACE}"]
    (folder / "script.py").write_text(
        "import sys\nfrom unrolled.training.run import compose, run\nrun(compose(*sys.argv[1:]))\n"
    )

    done = python("script.py", *options, PLACE="saved")

    assert done.returncode == 0, done.stderr
    assert (folder / "saved" / "last.ckpt").is_file()
    (summary,) = folder.glob("outputs/*/*/*/summary.json")
    assert json.loads(summary.read_text())["processes"] == 2
    assert len(list(folder.glob("outputs/*/*/*"))) == 1


def test_a_process_whose_parent_has_ended_is_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setenv("LOCAL_RANK", "1")
    for parent, orphan in ((ended.pid, True), (os.getpid(), False), (os.getppid(), False)):
        monkeypatch.setenv("UNROLLED_STARTED_BY", f"{parent}:0:2")
        assert is_orphan() == orphan


def test_a_job_is_the_same_after_it_was_written(folder: Path) -> None:
    values = {"a": [1, 2.5, None, "1e-3", "on", "ü"], "b": "${a}", "c": {"d": "${sizes.x}"}, "sizes": {}, "e": {}}
    config = OmegaConf.create(values)

    job = Job.from_text(Job(config, ["run_dir=runs/${seed}", "x='y'"]).to_text())

    assert OmegaConf.to_container(job.config, resolve=False) == values
    assert job.arguments == ["run_dir=runs/${seed}", "x='y'"]


def test_what_depends_on_the_process_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "here")
    config = OmegaConf.create({"a": ["${oc.env:PLACE}/x"], "b": "${oc.select:c,3}", "d": "${b}"})

    fix(config)

    assert OmegaConf.to_container(config) == {"a": ["here/x"], "b": "${oc.select:c,3}", "d": "${b}"}


def test_a_restarted_run_finds_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    arguments = ["model=gru"]

    def name() -> str:
        (argument,) = default_folder(arguments)
        return argument.rpartition("}/")[2]

    def write(run: Path, launch: str | None) -> None:
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").touch()
        (run / "config.yaml").write_text(f"launch: {launch}\n")

    assert default_folder(arguments) == []
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    first = name()
    assert first.startswith("slurm/78-")
    assert default_folder(["--config-dir", "conf", *arguments]) != []
    assert default_folder([*arguments, "hydra.run.dir=x"]) == default_folder(["--cfg", "job"]) == []
    (folder / "outputs" / "char_lm" / first).mkdir(parents=True)
    assert name() == first  # nothing was saved there
    write(folder / "outputs" / "char_lm" / first, None)
    assert name() == f"{first}-2"  # the same command again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert name() == first
    arguments.append("seed=2")
    assert name() != first
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert name().startswith("slurm/70_3-")

    for variable in [each for each in os.environ if each.startswith("SLURM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x/y")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    run = folder / "outputs" / "char_lm" / name()
    assert name().startswith("torchrun/x_y-")
    write(run, "torchrun/x_y")
    assert is_restarted(run)
    assert name() == f"torchrun/{run.name}"  # unfinished
    (run / "summary.json").touch()
    assert name() == f"torchrun/{run.name}-2"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert name().startswith(f"torchrun/{os.getppid()}-")
    assert name() == name()
