"""A sweep runs all of its runs, whatever becomes of one, and its table holds what each of them wrote down."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.run_dir import in_run_dir
from unrolled.training.run.sweep_command import SweepCommand, with_recorded
from unrolled.training.run.sweeps import Sweep

Process = Callable[..., subprocess.CompletedProcess[str]]

Begin = Callable[..., "subprocess.Popen[str]"]
WaitFor = Callable[[Callable[[], bool], "subprocess.Popen[str]"], None]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_run_that_fails_ends_no_other(folder: Path, python: Process, train_script: str, small: list[str]) -> None:
    before = files(folder)
    rates = "optimizer.lr=-1,1e30,1e-3"  # refused, breaks down in training, trains
    done = python(train_script, "-m", *small, rates, "trainer.max_epochs=1", "run_dir=all", "logger=csv")

    assert done.returncode == 1, done.stderr
    first, second, third = rows(folder / "all" / "results.csv")
    assert [row["optimizer.lr"] for row in (first, second, third)] == ["-1", "1e+30", "0.001"]
    assert "learning rate" in first["error"]
    assert "nonfinite" in second["error"] or "finite" in second["error"]
    assert third["error"] == ""
    written = json.loads((folder / "all" / third["folder"] / "summary.json").read_text())
    for name in ("test/loss", "test/bits_per_character", "best_validation"):
        assert (float(third[name]) if third[name] else None) == written[name], name
    assert f"{written['test/loss']:.4f}" in done.stdout
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("failed: ")] == [
        "optimizer.lr=-1:",
        "optimizer.lr=1e+30:",
    ]
    outside = {name for name in files(folder) - before if not name.startswith(("all/", "cache/"))}
    assert outside == set()
    assert not (folder / "all" / "0").exists()


def test_a_sweep_of_wrong_input_leaves_nothing_and_ends_like_it(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    before = files(folder)
    done = python(train_script, "-m", *small, "model.hidden_size=0,-1")

    assert done.returncode == 2, done.stdout
    assert done.stderr.count("failed: model.hidden_size=") == 2
    assert "Traceback" not in done.stderr
    assert files(folder) == before
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("given", "arranged"),
    [
        (["run_dir=a"], ["hydra.run.dir=a"]),
        (["seed=1", "run_dir='a b'"], ["seed=1", "hydra.run.dir='a b'"]),
        (["-m", "run_dir=a"], ["-m", "hydra.sweep.dir=a"]),
        (["-m", "run_dir=a/b-${seed}/c"], ["-m", "hydra.sweep.dir=a", "hydra.sweep.subdir=b-${seed}/c"]),
        (["-m", 'run_dir="a b/${seed}"'], ["-m", 'hydra.sweep.dir="a b"', 'hydra.sweep.subdir="${seed}"']),
        (["seed=1"], ["seed=1"]),
    ],
)
def test_run_dir_is_hydras_own_folder(given: list[str], arranged: list[str]) -> None:
    assert in_run_dir(given) == arranged


def test_a_sweep_has_one_folder() -> None:
    with pytest.raises(ConfigurationError, match="a sweep has one folder"):
        in_run_dir(["-m", "run_dir=a,b"])


def test_a_run_leaves_nothing_beside_its_folder(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    before = files(folder)
    done = python(train_script, *small, "trainer.max_steps=1", "test=false", "run_dir=of mine/x")

    assert done.returncode == 0, done.stderr
    outside = {name for name in files(folder) - before if not name.startswith(("of mine/x/", "cache/"))}
    assert outside == set()
    assert (folder / "of mine" / "x" / "config.yaml").is_file()


def test_runs_of_a_sweep_lie_where_their_values_say(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    few = ["trainer.max_steps=1", "test=false", "logger=csv"]
    done = python(train_script, "-m", *small, *few, "seed=3,4", "run_dir=runs/seed-${seed}")

    assert done.returncode == 0, done.stderr
    assert [row["folder"] for row in rows(folder / "runs" / "results.csv")] == ["seed-3", "seed-4"]
    assert (folder / "runs" / "seed-4" / "summary.json").is_file()
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run_dir=rhyme.txt/x"], "run_dir=rhyme.txt/x: nothing can be written there (Not a directory"),
        (["-m", "seed=1,2", "run_dir=rhyme.txt/${seed}"], "run_dir=rhyme.txt: nothing can be written there"),
        (["run_dir=/proc/x"], "run_dir=/proc/x: nothing can be written there"),
        (["--model=gru"], "--model=gru: choices and settings are written without dashes: model=gru"),
        (["--model", "gru"], "--model: no such option"),
        (["-m", "seed=1", "--cfg", "job"], "--cfg: prints the configuration of one run; leave out -m"),
    ],
)
def test_such_a_command_is_answered_in_a_line(
    folder: Path, python: Process, train_script: str, arguments: list[str], said: str
) -> None:
    done = python(train_script, *arguments)

    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


PAGE = Path(__file__).resolve().parents[3] / "docs" / "sweeps.md"
LIGHT = str(Path(__file__).with_name("light_sweep.py"))


def starts(sweep: Path, number: int) -> int:
    return len((sweep / ".sweep" / f"{number}.json.starts").read_text())


def test_a_finished_sweep_runs_no_job_again(folder: Path, python: Process) -> None:
    sweep = folder / "runs" / "rates"
    command = [LIGHT, "-m", "optimizer.lr=0.1,2,-1,0.3", "seed=2", "run_dir=runs/rates"]
    done = python(*command)
    table = (sweep / "results.csv").read_bytes()

    assert done.returncode == 1, done.stderr
    assert [row["state"] for row in rows(sweep / "results.csv")] == [
        "complete",
        "failed",
        "refused",
        "complete",
    ]
    assert "best: job 3: optimizer.lr=0.3 validation/loss 0.0000" in done.stdout
    assert "continue " in done.stdout.partition("best: ")[2]
    assert (sweep / "results.png").read_bytes().startswith(b"\x89PNG")

    for again in (command, [LIGHT, "-m", "resume=runs/rates"]):
        done = python(*again)
        assert done.returncode == 1, done.stderr
        assert done.stdout.count("has finished before") == 3
        assert (sweep / "results.csv").read_bytes() == table
    assert [starts(sweep, number) for number in range(4)] == [
        1,
        1,
        3,
        1,
    ]  # wrong input may be right by now

    (folder / "page.py").write_text(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    shown = python("page.py").stdout
    assert "(1, 'failed', nan)" in shown
    assert "(3, 'complete', 0.0)" in shown


@pytest.mark.parametrize("kill", [pytest.param("sweep", marks=pytest.mark.slow), "both"])
def test_a_sweep_that_is_killed_goes_on(
    folder: Path, python: Process, begin: Begin, wait_for: WaitFor, kill: str
) -> None:
    done = python(LIGHT, "-m", "optimizer.lr=0.1,2,0.3", "seed=2", "run_dir=whole")
    assert done.returncode == 1, done.stderr
    random = Random(kill)

    command = [LIGHT, "-m", "optimizer.lr=0.1,2,0.3", "seed=40", "run_dir=all"]
    for job in range(3):  # killed once in each job
        process = begin(command)
        record = folder / "all" / ".sweep" / f"{job}.json.starts"
        wait_for(record.is_file, process)
        time.sleep(random.random())
        jobs = children(process.pid)
        process.kill()
        for child in jobs if kill == "both" else ():  # otherwise it ends by itself
            os.kill(child, signal.SIGKILL)
        process.wait()
        command = [LIGHT, "-m", "resume=all"]
    done = python(*command)

    assert done.returncode == 1, done.stderr
    assert (folder / "all" / "results.csv").read_text() == (folder / "whole" / "results.csv").read_text()
    assert sum(starts(folder / "all", job) for job in range(3)) > 3
    assert not list((folder / "all").rglob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_the_job_and_the_sweep_in_order(
    folder: Path, begin: Begin, wait_for: WaitFor, number: signal.Signals
) -> None:
    process = begin([LIGHT, "-m", "optimizer.lr=0.1,0.3", "seed=200", "run_dir=all"])
    wait_for(lambda: (folder / "all" / "0" / "checkpoints" / "last.ckpt").is_file(), process)
    (job,) = children(process.pid)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 128 + number, output
    assert not Path(f"/proc/{job}").exists()
    step = json.loads((folder / "all" / "0" / "checkpoints" / "last.ckpt").read_text())["step"]
    assert 0 < step < 200
    assert "go on with this sweep: -m resume=all" in output
    assert "failed" not in output
    assert not (folder / "all" / "1").exists()


def test_a_job_that_is_killed_is_named_and_ends_no_other(
    folder: Path, begin: Begin, wait_for: WaitFor, python: Process
) -> None:
    process = begin([LIGHT, "-m", "optimizer.lr=0.1,0.2,0.3", "seed=100", "run_dir=all"])
    for job, number in enumerate((signal.SIGKILL, signal.SIGTERM)):
        wait_for(lambda job=job: (folder / "all" / str(job) / "checkpoints" / "last.ckpt").is_file(), process)
        (child,) = children(process.pid)
        os.kill(child, number)
        wait_for(lambda child=child: child not in children(process.pid), process)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 1
    assert "failed: optimizer.lr=0.1: its process ended without a message: killed by SIGKILL" in output
    assert "failed: optimizer.lr=0.2: ended by SIGTERM" in output
    assert "best: job 2" in output
    assert "go on with this sweep: -m resume=all" in output

    done = python(LIGHT, "-m", "resume=all")
    assert [row["state"] for row in rows(folder / "all" / "results.csv")] == ["failed", "complete", "complete"]
    assert done.returncode == 1
    assert json.loads((folder / "all" / "1" / "checkpoints" / "last.ckpt").read_text()) == {"step": 100, "starts": 2}


def test_a_sweep_is_run_by_one_process_at_a_time(
    folder: Path, begin: Begin, wait_for: WaitFor, python: Process
) -> None:
    process = begin([LIGHT, "-m", "optimizer.lr=0.1", "seed=1000", "run_dir=all"])
    wait_for(lambda: (folder / "all" / "0" / "checkpoints" / "last.ckpt").is_file(), process)
    done = python(LIGHT, "-m", "resume=all")
    process.terminate()
    process.communicate(timeout=300)

    assert done.returncode == 2
    assert "another process is running this sweep" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lr=0.1,0.3", "hydra.sweep.dir=all"], "another sweep, which differs in optimizer.lr=0.1,0.3"),
        (["optimizer.lr=interval(0.1,1)"], "hydra/sweeper=optuna"),
        (["seed=1,2", "hydra/sweeper=optunna"], "optunna"),
        (["seed=1,2", "hydra.sweeper.n_trials=3"], "n_trials"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(folder: Path, overrides: list[str], said: str) -> None:
    SweepCommand(("python",), (), ("optimizer.lr=0.1,0.2", "hydra.sweep.dir=all"), ("optimizer.lr",)).write(Path("all"))
    with pytest.raises(ConfigurationError) as refusal:
        Sweep.begin("train", ["python"], [], overrides)

    assert said in str(refusal.value)
    assert not (folder / "outputs").exists()


def test_a_sweep_goes_on_as_it_was_asked(folder: Path) -> None:
    asked = ("optimizer.lr=0.1,0.2", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=here")
    SweepCommand(("python",), ("--config-dir", "mine"), asked, ("optimizer.lr",)).write(Path("a b"))
    given = ["-m", "resume='a b'", "hydra.sweeper.n_trials=5"]

    assert with_recorded(given) == [
        *("-m", "--config-dir", "mine", "optimizer.lr=0.1,0.2"),
        *("hydra.sweeper.n_trials=5", "hydra.sweep.dir='a b'"),
    ]
    assert with_recorded(["-m", "resume=elsewhere", "seed=1,2"]) == ["-m", "resume=elsewhere", "seed=1,2"]  # a run's
    with pytest.raises(ConfigurationError, match="model=gru: resume='a b' goes on with a sweep as it was asked"):
        with_recorded([*given, "model=gru"])
    with pytest.raises(ConfigurationError, match="go on with it: -m resume='a b'"):
        with_recorded(["resume='a b'"])


@pytest.mark.slow
def test_runs_of_a_sweep_that_was_killed_end_as_if_it_had_not_been(
    folder: Path, python: Process, begin: Begin, wait_for: WaitFor, train_script: str, small: list[str]
) -> None:
    command = [train_script, "-m", *small, "optimizer.lr=1e-3,1e-2", "trainer.max_epochs=3", "logger=csv"]
    assert python(*command, "run_dir=whole").returncode == 0

    process = begin([*command, "run_dir=all"])
    wait_for((folder / "all" / "1" / "checkpoints" / "last.ckpt").is_file, process)
    (job,) = children(process.pid)
    process.kill()
    os.kill(job, signal.SIGKILL)
    process.wait()
    assert not (folder / "all" / "1" / "summary.json").exists()
    done = python(*command, "run_dir=all")

    assert done.returncode == 0, done.stderr
    assert "job 0 has finished before" in done.stdout
    assert "resume=auto: going on from" in done.stdout
    assert (folder / "all" / "results.csv").read_text() == (folder / "whole" / "results.csv").read_text()


PROBE = """
import hashlib
from pathlib import Path
from lightning.pytorch import Callback


class Probe(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer, pl_module) -> None:
        agreement = next(callback for callback in trainer.callbacks if type(callback).__name__ == "Agreement")
        digest = hashlib.sha256(repr(sorted(agreement._values.items())).encode()).hexdigest()
        (self.folder / f"rank-{trainer.global_rank}").write_text(digest)
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_a_job_with_two_processes_has_one_folder_and_one_configuration(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    (folder / "probe.py").write_text(PROBE)
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "probe.yaml").write_text(
        "# @package _global_\ncallbacks:\n  probe: {_target_: probe.Probe, folder: '${run_dir}'}\n"
    )
    two = [*small, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "experiment=probe"]
    rates = ["optimizer.lr=1e-3,1e30,1e-2", "trainer.max_epochs=1", "logger=csv"]  # the second one breaks down
    done = python(train_script, "--config-dir", "mine", "-m", *two, *rates, "run_dir=all")

    assert done.returncode == 1, done.stderr
    table = rows(folder / "all" / "results.csv")
    assert [row["state"] for row in table] == ["complete", "failed", "complete"]
    digests = [{(folder / "all" / str(job) / f"rank-{rank}").read_text() for rank in (0, 1)} for job in range(3)]
    assert [len(each) for each in digests] == [1, 1, 1]
    assert len(set().union(*digests)) == 3
    for job in (0, 2):
        assert json.loads((folder / "all" / str(job) / "summary.json").read_text())["processes"] == 2
    assert sorted(path.name for path in (folder / "all").iterdir() if path.is_dir()) == [".sweep", "0", "1", "2"]
    assert not (folder / "outputs").exists()
