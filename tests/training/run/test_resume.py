"""Every checkpoint that a run ever writes leads to the same end."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled.training.run.runner import run
from unrolled.training.run.storage import DurableCheckpointIO

Configure = Callable[..., DictConfig]

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
# What differs when the end itself is resumed, which takes no step: whether its last epoch counts as left.
BOOKKEEPING = (".loops.fit_loop.epoch_progress", ".loops.fit_loop.epoch_loop.state_dict", ".epoch", ".callbacks.Model")
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


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Places where two checkpoints differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key not in one or key not in other:
                yield f"{place}.{key} is there once"
            else:
                yield from differences(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield place
    elif one != other:
        yield f"{place}: {one} and {other}"


def end(run_folder: Path, resumed: Path | None = None) -> dict[str, Any]:
    """What a run's last checkpoint holds, but for the names of its folders; that which it resumed if it was the end."""
    last = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(last if resumed is None or last.is_file() else resumed, weights_only=True)
    for name, state in content["callbacks"].items():
        if "ModelCheckpoint" in name:
            # The current score is not restored, nor used before the next one.
            for key in [key for key in state if "path" in key or key in ("best_k_models", "current_score")]:
                del state[key]
    return content


def leads_to_the_same_end(folder: Path, configure: Configure, versions: Path, case: tuple[str, ...]) -> None:
    run(configure("whole", *options(case)))
    expected = end(folder / "whole")
    written = [place for place in sorted(versions.iterdir()) if (place / "written").read_text() == "last.ckpt"]
    assert len(written) >= 3

    failed: list[str] = []
    for number, place in enumerate(written):
        path = place / "last.ckpt"
        run(configure(f"resumed-{number}", *options(case), f"resume={path}"))
        found = differences(expected, end(folder / f"resumed-{number}", path))
        if torch.load(path, weights_only=True)["global_step"] == expected["global_step"]:
            found = (each for each in found if not each.startswith(BOOKKEEPING))
        failed += [f"{number}: {each}" for each in found]
    assert not failed, "\n".join(failed[:40])


def test_the_chosen_cases_have_every_pair_of_options() -> None:
    for one, other in itertools.combinations(range(5), 2):
        assert {(case[one], case[other]) for case in pairwise()} == {(case[one], case[other]) for case in CASES}


@pytest.mark.parametrize("case", pairwise(), ids="-".join)
def test_every_checkpoint_leads_to_the_same_end(
    folder: Path, configure: Configure, versions: Path, case: tuple[str, ...]
) -> None:
    leads_to_the_same_end(folder, configure, versions, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in pairwise()], ids="-".join)
def test_every_checkpoint_leads_to_the_same_end_with_all_options(
    folder: Path, configure: Configure, versions: Path, case: tuple[str, ...]
) -> None:
    leads_to_the_same_end(folder, configure, versions, case)
