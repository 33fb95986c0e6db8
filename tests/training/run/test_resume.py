"""Every checkpoint that a run ever writes leads to the same end."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled.training.run.runner import run
from unrolled.training.run.storage import DurableCheckpointIO
from unrolled_tasks.char_lm import CharLM

Configure = Callable[..., DictConfig]
Unequal = Callable[..., list[str]]

ACCUMULATION = {"each": "1", "three": "3"}
VALIDATION = {
    "inside": ["trainer.val_check_interval=2"],  # in the midst of an accumulation, too
    "end": ["trainer.val_check_interval=1.0"],
    "never": ["++trainer.limit_val_batches=0"],
}
SCHEDULE = ("none", "cosine", "step", "plateau")
AVERAGING = ("none", "ema")
CLIPPING = ("norm", "percentile")
TINY = [
    "data.batch_size=4",
    "data.window=16",
    "model.hidden_size=4",
    "model.num_layers=1",
    "network.embedding.size=3",
    "model.dropout=0.3",
    "trainer.max_epochs=2",
    "++trainer.limit_train_batches=5",
    "++trainer.num_sanity_val_steps=0",
    "callbacks.last.minutes=0",  # after each step
    "callbacks.samples=null",
    "callbacks.curves=null",
    "callbacks.throughput=null",  # counts seconds
    "logger=none",
    "test=false",
    "optimizer.lr=0.05",
]
CASES = list(itertools.product(ACCUMULATION, VALIDATION, SCHEDULE, AVERAGING, CLIPPING))
CASES = [case for case in CASES if case[1:3] != ("never", "plateau")]  # which is refused


def pairwise() -> list[tuple[str, ...]]:
    """Eleven of the cases, with every pair of two options in one of them."""
    chosen: list[tuple[str, ...]] = []
    for i, validation in enumerate(VALIDATION):
        for j, schedule in enumerate(SCHEDULE):
            averaging, clipping = AVERAGING[(j // 2 + i) % 2], CLIPPING[(j + j // 2 + (i == 1)) % 2]
            chosen.append((list(ACCUMULATION)[(i + j) % 2], validation, schedule, averaging, clipping))
    return [case for case in chosen if case in CASES]


def options(case: tuple[str, ...]) -> list[str]:
    accumulation, validation, schedule, averaging, clipping = case
    chosen = [f"scheduler={schedule}", f"callbacks/averaging={averaging}", f"callbacks/gradient_clip={clipping}"]
    if averaging == "ema":
        chosen.append("callbacks.averaging.decay=0.8")
    if schedule == "plateau":
        chosen.append("scheduler.patience=0")
    if schedule == "cosine":
        chosen.append("scheduler.warmup=0.3")
    if clipping == "percentile":
        chosen.append("++callbacks.gradient_clip.min_history=1")
    return [*TINY, f"trainer.accumulate_grad_batches={ACCUMULATION[accumulation]}", *VALIDATION[validation], *chosen]


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that gets the checkpoints of a run as they are after each write, before the next takes their place."""
    kept = tmp_path / "versions"
    kept.mkdir()
    written = DurableCheckpointIO.save_checkpoint

    def save(self: DurableCheckpointIO, checkpoint: Any, path: str | Path, storage_options: Any = None) -> None:
        written(self, checkpoint, path, storage_options)
        if "whole" in str(path):
            place = kept / f"{len(list(kept.iterdir())):03}"
            shutil.copytree(Path(path).parent, place)
            (place / "written").write_text(Path(path).name)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", save)
    return kept


def leads_to_the_same_end(
    folder: Path, configure: Configure, versions: Path, unequal: Unequal, case: tuple[str, ...]
) -> None:
    run(configure("whole", *options(case)))
    written = [place for place in sorted(versions.iterdir()) if (place / "written").read_text() == "last.ckpt"]
    assert len(written) >= 3

    failed: list[str] = []
    for number, place in enumerate(written):
        path = place / "last.ckpt"
        run(configure(f"resumed-{number}", *options(case), f"resume={path}"))
        step = torch.load(path, weights_only=True)["global_step"]
        failed += [f"{number}: {each}" for each in unequal(folder / "whole", folder / f"resumed-{number}", path, step)]
    assert not failed, "\n".join(failed[:40])


def test_the_chosen_cases_have_every_pair_of_options() -> None:
    for one, other in itertools.combinations(range(5), 2):
        assert {(case[one], case[other]) for case in pairwise()} == {(case[one], case[other]) for case in CASES}


@pytest.mark.parametrize("case", pairwise(), ids="-".join)
def test_every_checkpoint_leads_to_the_same_end(
    folder: Path, configure: Configure, versions: Path, unequal: Unequal, case: tuple[str, ...]
) -> None:
    leads_to_the_same_end(folder, configure, versions, unequal, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in pairwise()], ids="-".join)
def test_every_checkpoint_leads_to_the_same_end_with_all_options(
    folder: Path, configure: Configure, versions: Path, unequal: Unequal, case: tuple[str, ...]
) -> None:
    leads_to_the_same_end(folder, configure, versions, unequal, case)


def test_a_run_that_rolled_back_resumes_exactly(
    folder: Path, configure: Configure, unequal: Unequal, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = CharLM.training_step

    def spiking(self: Any, batch: Any, batch_idx: int) -> Any:
        return trained(self, batch, batch_idx) * (1e3 if self.global_step in (11, 17) else 1.0)

    monkeypatch.setattr(CharLM, "training_step", spiking)
    tiny = ["model.hidden_size=4", "model.dropout=0.3", "trainer.max_epochs=1", "++trainer.limit_train_batches=24"]
    tiny += [
        "callbacks.samples=null",
        "callbacks.curves=null",
        "callbacks.throughput=null",
        "logger=none",
        "test=false",
    ]
    tiny += [
        "++trainer.limit_val_batches=0",
        "++trainer.num_sanity_val_steps=0",
        "callbacks/averaging=ema",
        "threads=1",
    ]
    tiny += ["callbacks/rollback=spike", "callbacks.rollback.every=3", "++callbacks.rollback.history=6"]
    tiny += ["++callbacks.rollback.patience=1", "scheduler=none"]
    run(configure("whole", *tiny))
    content = torch.load(folder / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["callbacks"]["Rollback"]["rollbacks"] == 2
    for step in (10, 12, 16):  # before, between and after the two
        run(configure(f"at-{step}", *tiny, f"+trainer.max_steps={step}"))
        last = folder / f"at-{step}" / "checkpoints" / "last.ckpt"
        run(configure(f"at-{step}", *tiny, "resume=auto"))
        assert unequal(folder / "whole", folder / f"at-{step}", last, step) == []


def test_a_range_test_that_was_interrupted_has_all_its_losses(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["debug=lr_range", "model.hidden_size=4", "logger=none", "threads=1", "resume=auto"]
    options += ["++trainer.max_steps=12", "callbacks.last.minutes=0"]
    run(configure("whole", *options))
    trained = CharLM.training_step

    def interrupted(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 7:
            raise RuntimeError("interrupted")
        return trained(self, batch, batch_idx)

    monkeypatch.setattr(CharLM, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="interrupted"):
        run(configure("other", *options))
    monkeypatch.setattr(CharLM, "training_step", trained)
    run(configure("other", *options))
    assert (folder / "other" / "lr_range.csv").read_text() == (folder / "whole" / "lr_range.csv").read_text()
