"""Sharded runs (`trainer=fsdp`) end as runs with whole weights (`trainer=ddp`) do."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import load_bundle

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).parents[3]


def launch(folder: Path, *cases: str) -> Path:
    """Runs cases with two processes, sharded and whole; returns the folder of their runs."""
    lines = [f"{number} little birds sat in row {number * 7 % 13}\n" for number in range(120)]
    (folder / "rhyme.txt").write_text("".join(lines))
    script = Path(__file__).with_name("sharded_processes.py")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(folder), *cases],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "UNROLLED_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launch(tmp_path_factory.mktemp("runs"), "char_lm", "translation", "classification")


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_end(folder: Path, case: str) -> None:
    sharded, whole = last(folder / f"{case}-fsdp"), last(folder / f"{case}-ddp")
    # Sums over two processes are taken in another order, and Adam divides a difference by a small gradient.
    torch.testing.assert_close(sharded["state_dict"], whole["state_dict"], rtol=0, atol=1e-10)
    torch.testing.assert_close(sharded["optimizer_states"], whole["optimizer_states"], rtol=1e-8, atol=1e-14)
    clips = [next(v for k, v in each["callbacks"].items() if "GradientClip" in k) for each in (sharded, whole)]
    assert clips[0]["clipped"] == clips[1]["clipped"]
    assert clips[0]["history"] == pytest.approx(clips[1]["history"], rel=1e-12)


@pytest.mark.parametrize("case", ["char_lm", "translation", "classification"])
def test_a_sharded_run_ends_as_one_with_whole_weights(runs: Path, case: str) -> None:
    assert_same_end(runs, case)
    clip = next(v for k, v in last(runs / f"{case}-fsdp")["callbacks"].items() if "GradientClip" in k)
    assert clip["clipped"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["captioning", "tagging", "scheduled_sampling", "carried"])
def test_every_task_and_option_ends_alike(tmp_path: Path, case: str) -> None:
    assert_same_end(launch(tmp_path, case), case)


def test_a_resumed_sharded_run_ends_as_an_uninterrupted_one(runs: Path) -> None:
    resumed, uninterrupted = last(runs / "resumed"), last(runs / "char_lm-fsdp")

    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        torch.testing.assert_close(resumed[part], uninterrupted[part], rtol=0, atol=0)
    processes = [each["unrolled"]["resume"]["processes"] for each in (resumed, uninterrupted)]
    for states in zip(*processes, strict=True):
        torch.testing.assert_close(*(state["carried"] for state in states), rtol=0, atol=0)


def test_a_sharded_run_with_an_incomplete_step_resumes_exactly(runs: Path) -> None:
    """The best checkpoint was written at a validation within an accumulation."""
    resumed, uninterrupted = last(runs / "resumed-within"), last(runs / "char_lm-fsdp")

    torch.testing.assert_close(resumed["state_dict"], uninterrupted["state_dict"], rtol=0, atol=0)


def test_the_checkpoint_of_a_sharded_run_loads_with_torch_alone(runs: Path) -> None:
    bundle = load_bundle(runs / "translation-fsdp" / "checkpoints" / "last.ckpt")
    other = load_bundle(runs / "translation-ddp" / "checkpoints" / "last.ckpt")

    assert all(type(parameter) is torch.nn.Parameter for parameter in bundle.network.parameters())
    torch.testing.assert_close(bundle.network.state_dict(), other.network.state_dict(), rtol=0, atol=1e-10)


def test_a_run_with_whole_weights_goes_on_where_a_sharded_one_ended(runs: Path) -> None:
    resumed, uninterrupted = last(runs / "unsharded"), last(runs / "char_lm-ddp")

    torch.testing.assert_close(resumed["state_dict"], uninterrupted["state_dict"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_processes_draw_different_numbers(runs: Path, strategy: str) -> None:
    first, second = last(runs / f"char_lm-{strategy}")["unrolled"]["resume"]["processes"]

    assert not torch.equal(first["random"]["torch"], second["random"]["torch"])
