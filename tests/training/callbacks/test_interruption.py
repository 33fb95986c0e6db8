"""Signals to real runs: they end at a complete step, with the signal's status, and go on exactly."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
LONG = ["trainer.max_epochs=1000", "callbacks.curves=null", "callbacks.samples=null", "test=false", "logger=none"]
LONG += ["scheduler=none", "model.dropout=0.3", "trainer.log_every_n_steps=1", "threads=1"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path, small: list[str], train_script: str) -> Start:
    """Starts train.py in a process group of its own."""

    def started(*overrides: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, train_script, *small, *LONG, *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    return started


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_says_how_to_go_on_and_is_the_status(folder: Path, start: Start, number: int) -> None:
    run = start("run_dir=run")
    last = folder / "run" / "checkpoints" / "last.ckpt"
    wait_for(last, run)
    run.send_signal(number)
    said, warned = run.communicate(timeout=60)

    assert run.returncode == 128 + number, warned
    step = content(last)["global_step"]
    assert (
        f"{signal.Signals(number).name}: ended after step {step}; resume with resume=run/checkpoints/last.ckpt" in said
    )
    assert "a second signal ends at once" in warned
    assert "Traceback" not in warned
    assert not list(folder.rglob("*.part"))

    ends = [f"trainer.max_steps={step + 5}", "trainer.max_epochs=-1"]
    resumed, whole = start("resume=run", "run_dir=resumed", *ends), start("run_dir=whole", *ends)
    assert resumed.wait(timeout=120) == whole.wait(timeout=120) == 0, resumed.communicate()
    one, other = (content(folder / name / "checkpoints" / "last.ckpt") for name in ("whole", "resumed"))
    assert one["global_step"] == other["global_step"] == step + 5
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_second_signal_ends_at_once(folder: Path, start: Start) -> None:
    # Steps of many batches: the first signal is waited on for a long time.
    run = start("run_dir=run", "trainer.accumulate_grad_batches=100000", "+trainer.limit_val_batches=0")
    wait_for(folder / "run" / "config.yaml", run)
    time.sleep(3)
    deadline = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < deadline:
        run.send_signal(signal.SIGTERM)
        time.sleep(0.2)

    assert run.wait(timeout=5) == -signal.SIGTERM


@pytest.mark.distributed
@pytest.mark.parametrize("to", ["group", pytest.param("first", marks=pytest.mark.slow)])
def test_two_processes_end_together(folder: Path, start: Start, is_gone: Callable[[int], bool], to: str) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]
    two += ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=5"] if to == "group" else []
    run = start("run_dir=run", *two)
    wait_for(folder / "run" / "checkpoints" / "last.ckpt", run)
    os.killpg(run.pid, signal.SIGTERM) if to == "group" else run.send_signal(signal.SIGTERM)
    said, warned = run.communicate(timeout=60)

    assert run.returncode == 128 + signal.SIGTERM, warned
    last = content(folder / "run" / "checkpoints" / "last.ckpt")
    assert f"SIGTERM: ended after step {last['global_step']}" in said
    assert is_gone(run.pid)

    ends = ["trainer.max_epochs=-1", f"trainer.max_steps={last['global_step'] + 4}"]
    resumed, whole = start("resume=run", "run_dir=resumed", *two, *ends), start("run_dir=whole", *two, *ends)
    assert resumed.wait(timeout=120) == whole.wait(timeout=120) == 0, resumed.communicate()
    one, other = (content(folder / name / "checkpoints" / "last.ckpt") for name in ("whole", "resumed"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_signal_while_testing_ends_the_process(folder: Path, start: Start) -> None:
    slow = ["data.random_windows.count=500000", "data.random_windows.batch_size=1", "trainer.max_epochs=1", "test=true"]
    run = start("run_dir=run", *slow)
    wait_for(folder / "run" / "checkpoints" / "last.ckpt", run)
    time.sleep(4)
    run.send_signal(signal.SIGTERM)

    assert run.wait(timeout=30) == -signal.SIGTERM
    assert content(folder / "run" / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_without_a_last_checkpoint_it_is_said_that_nothing_was_saved(folder: Path, start: Start) -> None:
    run = start("run_dir=run", "callbacks.last=null")
    wait_for(folder / "run" / "checkpoints" / "best.ckpt", run)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=60)

    assert run.returncode == 128 + signal.SIGTERM
    assert "nothing was saved" in said
