"""Buckets: nothing lost or doubled, equal counts everywhere, the mean of a step is one over its predictions."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from unrolled.training.data.buckets import BatchSpec, BucketPlan, Ints
from unrolled.training.data.loader import PlannedLoader

SIDES = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=4, max_size=60)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(sides=SIDES, ranks=st.integers(1, 4), tokens=st.integers(1, 60), epoch=st.integers(0, 3), shuffle=st.booleans())
def test_every_epoch_deals_every_example_once(
    sides: list[tuple[int, int]], ranks: int, tokens: int, epoch: int, shuffle: bool
) -> None:
    plan = BucketPlan(sides, batch_tokens=tokens, ranks=ranks, shuffle=shuffle, seed=3)

    batches = plan.batches(epoch)

    assert len(batches) == plan.num_batches == len(plan.batches(epoch + 1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(sides)))
    longest = np.asarray(sides).max(axis=1)
    for index, batch in enumerate(batches):
        rows = [plan.item(epoch, index, rank).rows for rank in range(ranks)]
        assert plan.predictions(epoch, index) == len(batch)
        assert all(len(row) for row in rows)
        assert sorted(np.concatenate(rows).tolist()) == sorted(batch.tolist())
        assert len(rows[0]) == 1 or len(rows[0]) * longest[rows[0]].max() <= tokens or len(batch) < 3 * ranks


@settings(deadline=None, derandomize=True)
@given(sides=SIDES, planned=st.integers(1, 4), ranks=st.integers(1, 4), tokens=st.integers(1, 60))
def test_other_processes_divide_the_batches_that_were_planned(
    sides: list[tuple[int, int]], planned: int, ranks: int, tokens: int
) -> None:
    before = BucketPlan(sides, batch_tokens=tokens, ranks=planned, seed=3)
    if min(map(len, before.batches(0))) < ranks and ranks != planned:
        with pytest.raises(ValueError, match="cannot be divided among"):
            BucketPlan(sides, batch_tokens=tokens, ranks=ranks, planned_ranks=planned, seed=3)
        return
    now = BucketPlan(sides, batch_tokens=tokens, ranks=ranks, planned_ranks=planned, seed=3)

    assert now.num_batches == before.num_batches
    for epoch in range(2):
        for index, batch in enumerate(before.batches(epoch)):
            rows = [now.item(epoch, index, rank).rows for rank in range(ranks)]
            assert all(len(each) for each in rows)
            assert sorted(np.concatenate(rows).tolist()) == sorted(batch.tolist())


@settings(deadline=None, derandomize=True)
@given(sides=SIDES, ranks=st.integers(2, 3), size=st.integers(1, 5), epoch=st.integers(0, 2))
def test_several_processes_share_the_batches_of_one_with_their_joint_budget(
    sides: list[tuple[int, int]], ranks: int, size: int, epoch: int
) -> None:
    several = BucketPlan(sides, batch_size=size, ranks=ranks)
    one = BucketPlan(sides, batch_size=size * ranks)

    if len(sides) % (size * ranks) >= ranks or len(sides) % (size * ranks) == 0:  # else the last two are joined
        assert [b.tolist() for b in several.batches(epoch)] == [b.tolist() for b in one.batches(epoch)]


def test_epochs_differ_batches_are_of_similar_length_and_seeds_decide() -> None:
    generator = np.random.default_rng(0)
    sides = generator.integers(1, 50, size=(2000, 2))
    sides[:, 0] = sides[:, 1] + generator.integers(0, 5, size=2000)
    plan = BucketPlan(sides, batch_tokens=500, seed=1)

    first, again, second = plan.batches(0), BucketPlan(sides, batch_tokens=500, seed=1).batches(0), plan.batches(1)

    assert [b.tolist() for b in first] == [b.tolist() for b in again]
    assert {tuple(sorted(b)) for b in map(list, first)} != {tuple(sorted(b)) for b in map(list, second)}
    padded = sum(len(b) * sides[b].max() for b in first)
    assert sides.max(axis=1).sum() / padded > 0.85
    assert [sides[b].max() for b in first] != sorted(sides[b].max() for b in first)


class Recorder(LightningModule):
    """One weight; keeps what it saw and the gradient of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []
        self.gradients: list[float] = []

    def training_step(self, batch: tuple[Ints, float], batch_idx: int) -> torch.Tensor:
        rows, scale = batch
        self.seen.append(rows.tolist())
        # Each example's loss is its number times the weight, its predictions as many as its number.
        return (self.weight * float(rows.sum())).sum() * scale

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.weight.grad is not None
        self.gradients.append(float(self.weight.grad))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Any, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **options,
    )


def rows_and_scale(_: None, spec: BatchSpec, scale: float) -> tuple[Ints, float]:
    return spec.rows + 1, scale


def loader(accumulate: int = 1) -> PlannedLoader[None, BatchSpec, tuple[Ints, float]]:
    lengths = np.arange(1, 24)
    plan = BucketPlan(lengths, batch_size=4, counts=lengths, seed=2)
    return PlannedLoader(plan, None, rows_and_scale, accumulate=accumulate)


def test_a_step_takes_the_mean_over_all_its_predictions(tmp_path: Any) -> None:
    task = Recorder()

    trainer(tmp_path, max_epochs=2, accumulate_grad_batches=4, enable_checkpointing=False).fit(task, loader(4))

    # Loss and predictions are equal, so their ratio is 1 whatever the batches and however short the last group.
    assert len(task.gradients) == 4
    assert task.gradients == pytest.approx([1.0] * 4)


def test_a_run_interrupted_in_an_epoch_goes_on_with_the_next_batch(tmp_path: Any) -> None:
    whole, begun, resumed = Recorder(), Recorder(), Recorder()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(whole, loader())

    saving = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_on_train_epoch_end=False)
    trainer(tmp_path, max_steps=9, callbacks=[saving]).fit(begun, loader())
    (path,) = tmp_path.rglob("*step=8.ckpt")
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed, loader(), ckpt_path=str(path), weights_only=True
    )

    assert begun.seen[:8] + resumed.seen == whole.seen
    assert len(whole.seen) == 18


def test_budgets_and_ranks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="one of batch_tokens and batch_size"):
        BucketPlan([1, 2], batch_tokens=3, batch_size=4)
    with pytest.raises(ValueError, match="1 example cannot be distributed to 2"):
        BucketPlan([1], batch_size=1, ranks=2)
    with pytest.raises(ValueError, match="rank=1"):
        PlannedLoader(BucketPlan([1], batch_size=1), None, rows_and_scale, rank=1)
    with pytest.raises(ValueError, match="after batch 99"):
        loader().load_state_dict({"epoch": 0, "position": 99})
