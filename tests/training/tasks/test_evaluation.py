"""An evaluation depends neither on the batches, nor on their order, nor on the processes that read them."""

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from unrolled import ByteTokenizer, Loss, Processor, squared_error
from unrolled.training.tasks.base import SequenceTask
from unrolled.training.tasks.evaluation import Evaluation, Row, Scored, perplexity

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("evaluation_processes.py")
SHARED = runpy.run_path(str(SCRIPT))  # data that both processes of the script read too
batches, partitions = SHARED["batches"], SHARED["partitions"]
NETWORK = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}


def expected() -> tuple[dict[str, float], list[Row]]:
    """Means and rows of the data of evaluation_processes, from the exact sum of all numbers."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for batch in batches():
        for name, (total, count) in batch.sums.items():
            pairs.setdefault(name, []).append((float(total), float(count)))
    means = {name: math.fsum(t for t, _ in each) / math.fsum(c for _, c in each) for name, each in pairs.items()}
    return means, [(example, f"text {example}") for example in range(12)]


@pytest.mark.distributed
def test_any_partition_over_two_processes_gives_the_same_on_each(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])

    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    means, rows = expected()
    assert first == second
    assert len(first) == len(partitions())
    for found, found_rows in first:
        assert found == pytest.approx(means, rel=1e-14)
        assert list(map(tuple, found_rows)) == rows


@given(st.permutations(range(12)))
def test_the_order_of_batches_does_not_matter(order: list[int]) -> None:
    found, evaluation = batches(), Evaluation()
    for index in order:
        evaluation.add(found[index])
    assert evaluation.rows == expected()[1]

    means, rows = evaluation.gather()

    assert means == pytest.approx(expected()[0], rel=1e-14)
    assert rows == expected()[1]
    assert evaluation.gather() == ({}, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sums_are_added_in_double_precision(dtype: torch.dtype) -> None:
    evaluation = Evaluation()
    evaluation.add(Scored({"loss": (torch.tensor(2.0**15, dtype=dtype), torch.tensor(2**40))}))
    for _ in range(64):
        evaluation.add(Scored({"loss": (torch.tensor(2.0**-12, dtype=dtype), torch.tensor(1))}))

    assert evaluation.gather() == ({"loss": (2**15 + 2**-6) / (2**40 + 64)}, [])


def test_a_mean_over_nothing_is_no_number_and_a_nan_stays() -> None:
    evaluation = Evaluation()
    evaluation.add(Scored({"none": (torch.tensor(0.0), torch.tensor(0)), "bad": (math.nan, 1)}))
    evaluation.add(Scored({"bad": (1.0, 1)}))

    means, _ = evaluation.gather()

    assert list(map(math.isnan, means.values())) == [True, True]


def test_perplexity_is_the_exponential_as_far_as_doubles_go() -> None:
    assert perplexity(1.5) == math.exp(1.5)
    assert perplexity(1000.0) == math.inf
    assert math.isnan(perplexity(math.nan))


class Batch(NamedTuple):
    values: Tensor  # (batch, 2)
    sums: Tensor  # (batch, 1)
    examples: Tensor  # (batch,)


def loader(*, reverse: bool = False) -> DataLoader[Any]:
    """Twelve examples in batches of four, three and five, the last of them first if `reverse`."""
    values = torch.rand(12, 2, generator=torch.Generator().manual_seed(1))
    whole = Batch(values, values.sum(1, keepdim=True), torch.arange(12))
    split = [Batch(*parts) for parts in zip(*(part.split([4, 3, 5]) for part in whole), strict=True)]
    return DataLoader(cast("Any", split[::-1] if reverse else split), batch_size=None)


class OnlyLoss(SequenceTask):
    """A task that defines the loss and nothing else."""

    def loss(self, batch: Batch, loader: str) -> Loss:
        return squared_error(self.network(batch.values), batch.sums)


class WithRows(OnlyLoss):
    """A task with rows, a metric of them, and two loaders in the test."""

    test_loaders = ("near", "far")
    progress_metrics = ("half",)

    def __init__(self) -> None:
        super().__init__(NETWORK, Processor(ByteTokenizer()))
        self.reported: list[tuple[list[Row], Path]] = []

    def score(self, batch: Batch, loader: str) -> Scored:
        name = "far_loss" if loader == "far" else "loss"
        rows = zip(batch.examples.tolist(), batch.sums.flatten().tolist(), strict=True)
        return Scored({name: self.loss(batch, loader)}, list(rows))

    def scores(self, means: Mapping[str, float], rows: Sequence[Row]) -> dict[str, float]:
        return {**means, "half": means["loss"] / 2, "largest": max(row[1] for row in rows)}

    def report(self, rows: Sequence[Row], folder: Path) -> None:
        self.reported.append((list(rows), folder))


class Shown(Callback):
    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.names = set(trainer.progress_bar_metrics)


def trainer(folder: Path, *callbacks: Callback) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def test_a_task_with_a_loss_alone_logs_it(tmp_path: Path) -> None:
    class Unreported(OnlyLoss):
        def report(self, rows: Sequence[Row], folder: Path) -> None:
            raise AssertionError("there are no rows to report")

    task = Unreported(NETWORK, Processor(ByteTokenizer()), None)
    whole = Batch(*map(torch.cat, zip(*loader(), strict=True)))
    right = task.loss(whole, "test").mean.item()

    (validated,) = trainer(tmp_path).validate(task, loader(), verbose=False)
    (tested,) = trainer(tmp_path).test(task, loader(), verbose=False)

    assert validated == pytest.approx({"validation/loss": right})
    assert tested == pytest.approx({"test/loss": right})
    assert list(tmp_path.iterdir()) == []


def test_the_rows_of_a_test_are_reported_in_order_and_once(tmp_path: Path) -> None:
    task = WithRows()
    (validated,) = trainer(tmp_path).validate(task, loader(), verbose=False)
    assert set(validated) == {"validation/loss", "validation/half", "validation/largest"}
    assert task.reported == []

    found = trainer(tmp_path).test(task, [loader(), loader(reverse=True)], verbose=False)

    named = {name: value for each in found for name, value in each.items()}
    assert set(named) == {"test/loss", "test/far_loss", "test/half", "test/largest"}
    assert named["test/loss"] == named["test/far_loss"] == validated["validation/loss"]
    ((rows, folder),) = task.reported
    assert folder == tmp_path
    assert [row[0] for row in rows] == list(range(12))
    assert named["test/largest"] == validated["validation/largest"] == pytest.approx(max(row[1] for row in rows))


@pytest.mark.parametrize("monitor", ["loss", "other"])
def test_a_bar_shows_what_the_task_names_and_what_selects_the_best(tmp_path: Path, monitor: str) -> None:
    class WithOther(WithRows):
        def scores(self, means: Mapping[str, float], rows: Sequence[Row]) -> dict[str, float]:
            return {**super().scores(means, rows), "other": 1.0, "others": 2.0}

    shown = Shown()
    best = ModelCheckpoint(tmp_path, monitor=f"validation/{monitor}")

    trainer(tmp_path, shown, best).validate(WithOther(), loader(), verbose=False)

    assert shown.names == {"validation/half"} | ({"validation/other"} if monitor == "other" else set())


def test_what_an_interrupted_evaluation_left_is_dropped(tmp_path: Path) -> None:
    task = WithRows()
    task.evaluation.add(Scored({"loss": (1e6, 1), "left": (1.0, 1)}, [(99, 1e6)]))

    (validated,) = trainer(tmp_path).validate(task, loader(), verbose=False)

    assert set(validated) == {"validation/loss", "validation/half", "validation/largest"}
    assert validated["validation/loss"] < 10
