"""Real faults in one of several processes: the others end soon, with a message that names it, or start again."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.distributed

Begin = Callable[..., "subprocess.Popen[str]"]
Ended = Callable[..., str]

FAULT = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class Fault(Callback):
    def __init__(self, how, rank, step=3):
        self.how, self.rank, self.step = how, rank, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == self.rank and trainer.global_step == self.step and not Path("done").exists():
            Path("done").touch()
            if self.how == "raise":
                raise ArithmeticError("a fault of this rank alone")
            os.kill(os.getpid(), getattr(signal, self.how))
"""
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2", "trainer.max_epochs=1000"]
TWO += ["test=false", "logger=csv", "callbacks.curves=null", "callbacks.samples=null", "callbacks.last.minutes=0"]


@pytest.fixture
def command(folder: Path, small: list[str], train_script: str) -> Callable[..., list[str]]:
    """The command of a run whose process of a rank has a fault, once, after three steps."""
    (folder / "faults.py").write_text(FAULT)
    (folder / "conf" / "experiment").mkdir(parents=True)
    fault = "# @package _global_\ncallbacks: {fault: {_target_: faults.Fault, how: SIGKILL, rank: 1}}\n"
    (folder / "conf" / "experiment" / "fault.yaml").write_text(fault)

    def made(how: str, rank: int, *more: str) -> list[str]:
        fault = ["experiment=fault", f"callbacks.fault.how={how}", f"callbacks.fault.rank={rank}"]
        return [train_script, "--config-dir", "conf", *small, *TWO, *fault, *more]

    return made


@pytest.mark.parametrize(
    ("how", "rank", "status", "named"),
    [
        ("raise", 1, 1, "ArithmeticError: a fault of this rank alone"),
        ("SIGKILL", 1, 1, ") was killed by SIGKILL"),
        ("raise", 0, 1, "ArithmeticError: a fault of this rank alone"),
        ("SIGKILL", 0, -9, "rank 0 has ended"),
        ("SIGSTOP", 1, 1, "rank 1 ended without a message, or did not answer"),
    ],
)
def test_a_run_ends_with_any_of_its_processes(
    begin: Begin,
    ended: Ended,
    is_gone: Callable[[int], bool],
    command: Callable[..., list[str]],
    how: str,
    rank: int,
    status: int,
    named: str,
) -> None:
    run = begin(command(how, rank, "timeout=10" if how == "SIGSTOP" else "timeout=600"))

    said = ended(run, status)  # long before the timeout of ten minutes

    assert named in said
    if rank == 1:
        assert "rank 1 " in said
    assert is_gone(run.pid)


def test_torchrun_starts_a_run_again_which_goes_on(
    folder: Path, begin: Begin, ended: Ended, is_gone: Callable[[int], bool], command: Callable[..., list[str]]
) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2"]
    again = command("SIGKILL", 1, "trainer.max_steps=6")

    run = begin([*torchrun, "--max-restarts=1", *again])

    said = ended(run)
    (last,) = folder.glob("outputs/char_lm/torchrun/*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 6
    assert f"going on from {last}" in said
    assert is_gone(run.pid)

    (folder / "done").unlink()
    run = begin([*torchrun, *again, "run_dir=other"])
    said = ended(run, status=1)
    assert "rank      : 1" in said  # torchrun's report
    assert is_gone(run.pid)
