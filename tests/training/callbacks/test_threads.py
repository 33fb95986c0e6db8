"""The faster number of threads is found among noise, kept, and given back."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor, nn

from unrolled.training.callbacks.threads import Threads, Trial, fair_shares
from unrolled.training.configuration.overrides import ConfigurationError
from unrolled.training.run.assembly import assemble
from unrolled.training.run.runner import run

Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # whatever a run took is given back
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("factor", "best"), [(6.0, 1), (1.3, 1), (0.75, 4), (0.3, 4)])
@pytest.mark.parametrize("seconds", [0.004, 0.2, 3.0])
def test_the_faster_is_found_though_steps_differ_and_other_programs_interrupt(
    seed: int, factor: float, best: int, seconds: float
) -> None:
    trial, draw = Trial(4), random.Random(seed)
    taken = 0.0
    for step in range(2000):
        units = draw.randrange(200, 4000)
        slow_machine = 1 + step / 50  # it gets slower all the time, and the first step takes long in any case
        interrupted = 5.0 if draw.random() < 0.1 or step < 2 else 1.0
        cost = seconds * units / 2000 * slow_machine * interrupted * draw.uniform(0.97, 1.03)
        cost *= factor if trial.threads == 4 else 1
        taken += cost
        trial.add(cost, units)
        if trial.finished:
            break

    assert trial.finished
    assert trial.best == best
    assert step < 20 or taken < 3  # long steps are few, short ones take no time together


def test_a_plain_difference_in_long_steps_is_seen_at_once() -> None:
    trial, steps = Trial(4), 0
    while not trial.finished:
        trial.add(1.0 if trial.threads == 1 else 20.0, 100)
        steps += 1

    assert trial.best == 1
    assert steps == 6  # two of them to warm up


def test_cores_that_gain_nothing_are_left_to_others() -> None:
    trial = Trial(4)
    while not trial.finished:
        trial.add(0.2 if trial.threads == 1 else 0.197, 100)

    assert trial.best == 1


class Slow(LightningModule):
    """A step takes ten milliseconds for each thread beyond what suits it."""

    def __init__(self, suits: int) -> None:
        super().__init__()
        self.weight, self.suits = nn.Parameter(torch.ones(())), suits
        self.taken: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.taken.append(torch.get_num_threads())
        time.sleep(0.02 + 0.1 * (torch.get_num_threads() != self.suits))
        return self.weight.square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Slow, threads: Threads, folder: Path, steps: int, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[threads],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(range(100)), ckpt_path=module.__dict__.get("resumed"))  # pyright: ignore
    return trainer


@pytest.mark.parametrize("suits", [1, 2])
def test_a_run_goes_on_with_what_suits_it_and_says_so(suits: int, tmp_path: Path, capsys: Any) -> None:
    module, threads = Slow(suits), Threads()

    trainer = fit(module, threads, tmp_path, 24)

    assert module.taken[:6] == [1, 2, 2, 1, 1, 2]
    assert set(module.taken[20:]) == {suits}
    said = capsys.readouterr().out
    assert said.startswith("device  1 of 2 threads: a step takes" if suits == 1 else "device  2 threads: a step takes")
    assert "threads=N" in said
    assert Threads.of(trainer).count == suits


def test_gradients_that_are_accumulated_make_one_step(tmp_path: Path) -> None:
    module = Slow(1)

    fit(module, Threads(), tmp_path, 4, accumulate_grad_batches=2)

    assert module.taken == [1, 1, 2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_number_that_is_given_is_taken(number: int, tmp_path: Path) -> None:
    module = Slow(1)

    fit(module, Threads(number), tmp_path, 3)

    assert module.taken == [number] * 3


def test_a_resumed_run_takes_what_the_first_part_found(tmp_path: Path) -> None:
    first = fit(Slow(1), Threads(1), tmp_path, 2)
    first.save_checkpoint(tmp_path / "here.ckpt")

    resumed, asked = Slow(2), Slow(2)
    resumed.resumed = asked.resumed = tmp_path / "here.ckpt"
    fit(resumed, Threads(), tmp_path, 5)
    fit(asked, Threads(2), tmp_path, 5)

    assert resumed.taken == [1, 1, 1]
    assert asked.taken == [2, 2, 2]


def test_more_than_there_are_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(Slow(1), Threads(3), tmp_path, 2).save_checkpoint(tmp_path / "here.ckpt")

    resumed = Slow(2)
    resumed.resumed = tmp_path / "here.ckpt"
    fit(resumed, Threads(), tmp_path, 4)

    assert resumed.taken == [1, 2]  # it measures anew
    assert "used 3 threads, this machine has 2" in caplog.text


def test_threads_are_given_back_after_an_error(tmp_path: Path) -> None:
    class Failing(Slow):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fit(Failing(1), Threads(1), tmp_path, 2)


def test_measuring_changes_no_number(folder: Path, configure: Callable[..., DictConfig]) -> None:
    steps = ["trainer.max_steps=14", "trainer.max_epochs=-1", "test=false"]
    for name, threads in {"measured": "null", "one": "1", "two": "2"}.items():
        run(configure(name, *steps, f"threads={threads}"))

    found = [
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("measured", "one", "two")
    ]
    for name, value in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)  # sums in another order


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_threads_is_refused(configure: Callable[..., DictConfig], number: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"threads=.*(1 or more|whole number), or null|threads=.*a whole number or null"
    ):
        assemble(configure("run", f"threads={number}"))


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([("a", range(8), 8)], [8]),
        ([("a", range(8), 8)] * 2, [4, 4]),
        ([("a", range(8), 8)] * 3, [2, 2, 2]),
        ([("a", range(8), 8), ("b", range(8), 8)], [8, 8]),  # two machines
        ([("a", range(4), 4), ("a", range(4, 8), 4)], [4, 4]),  # each has been given cores of its own
        ([("a", range(8), 1)] * 2, [1, 1]),  # asked for already
        ([("a", range(2), 2)] * 4, [1, 1, 1, 1]),
    ],
)
def test_processes_share_the_cores_that_they_may_run_on(processes: list[Any], expected: list[int]) -> None:
    assert fair_shares(processes) == expected


@pytest.mark.distributed
def test_ranks_on_one_machine_share_its_cores(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    cores = len(os.sched_getaffinity(0))
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2", "trainer.max_steps=2"]

    done = python(train_script, *small, *two, "test=false", OMP_NUM_THREADS=str(cores))

    assert done.returncode == 0, done.stderr
    each = max(1, cores // 2)
    assert f"{each} thread{'s' * (each > 1)} in each process" in done.stdout
