"""Which run is gone on with, and on which data."""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from omegaconf import DictConfig

from unrolled.descriptions import CheckpointError
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.folder import FolderError
from unrolled.training.run.resuming import find_checkpoint
from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
SHORT = ["trainer.max_epochs=-1", "scheduler=none", "test=false", "callbacks.samples=null", "callbacks.curves=null"]


def steps(run_folder: Path) -> int:
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_a_folder_and_last_name_a_run(folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / "outputs" / "char_lm" / "2026-01-01"
    run(configure("outputs/char_lm/2026-01-01/one", *SHORT, "trainer.max_steps=1"))
    run(configure("outputs/char_lm/2026-01-01/two", *SHORT, "trainer.max_steps=2"))

    assert find_checkpoint("last", place / "new") == place / "two" / "checkpoints" / "last.ckpt"
    assert find_checkpoint("last", place / "one") == place / "one" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(str(place / "one"), place / "new") == place / "one" / "checkpoints" / "last.ckpt"
    run(configure("outputs/char_lm/2026-01-02/new", *SHORT, "trainer.max_steps=4", "resume=last"))
    assert steps(folder / "outputs" / "char_lm" / "2026-01-02" / "new") == 4
    run(configure("outputs/char_lm/2026-01-01/one", *SHORT, "trainer.max_steps=3", "resume=last"))  # in its own folder
    assert steps(place / "one") == 3
    with pytest.raises(CheckpointError, match="resume=last: neither"):
        find_checkpoint("last", folder / "elsewhere" / "a" / "b")
    with pytest.raises(CheckpointError, match=r"there is no .*last\.ckpt"):
        find_checkpoint(str(folder), folder / "new")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_auto_starts_once_and_then_goes_on(folder: Path, configure: Configure) -> None:
    run(configure("run", *SHORT, "trainer.max_steps=2", "resume=auto"))
    assert steps(folder / "run") == 2
    run(configure("run", *SHORT, "trainer.max_steps=5", "resume=auto"))
    run(configure("whole", *SHORT, "trainer.max_steps=5"))

    one, other = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("run", "whole")
    )
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_auto_takes_the_newest_that_is_whole_and_says_what_it_passed_over(
    folder: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place = folder / "run" / "checkpoints"
    assert find_checkpoint("auto", folder / "run") is None
    assert "there is no checkpoint in" in caplog.text
    run(configure("run", *SHORT, "trainer.max_steps=2"))
    old = place / "old.ckpt"
    shutil.copy(place / "last.ckpt", old)
    os.utime(old, (1, 1))
    assert find_checkpoint("auto", folder / "run") == place / "last.ckpt"

    damage(place / "last.ckpt")
    (place / ".last.ckpt.part").write_bytes(b"half")
    torch.save({"state_dict": {}}, place / "weights.ckpt")
    caplog.clear()
    assert find_checkpoint("auto", folder / "run") == old
    assert re.search(r"passed over \S*last\.ckpt: the file is damaged", caplog.text)
    assert re.search(r"passed over \S*weights\.ckpt: .*not one written by unrolled", caplog.text)
    assert f"going on from {old}" in caplog.text

    os.truncate(old, 1000)
    os.utime(old, (1, 1))
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* can be resumed: .*weights.*last.*old(.|\n)*start anew"
    ):
        find_checkpoint("auto", folder / "run")


def test_auto_leaves_the_start_to_init_from(folder: Path, configure: Configure) -> None:
    run(configure("before", *SHORT, "trainer.max_steps=2"))
    weights = f"init_from={folder}/before/checkpoints/last.ckpt"
    for most in (1, 3):
        run(configure("run", *SHORT, f"trainer.max_steps={most}", "resume=auto", weights, "optimizer.lr=1e-30"))
        assert steps(folder / "run") == most

    one, other = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("run", "before")
    )
    assert all(torch.allclose(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_auto_needs_a_folder_that_stays(folder: Path, python: Process, train_script: str, small: list[str]) -> None:
    done = python(train_script, *small, "resume=auto")
    assert done.returncode == 2
    assert "give run_dir=" in done.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("data.window=8", "data.window was 16, now 8"),
        ("data.batch_size=2", "data.batch_size was 4, now 2"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches was 1, now 2"),
        ("data.random_length=true", "data.random_length was False, now True"),
        ("data.files=other.txt", "the training examples differ"),
    ],
)
def test_other_data_are_refused_with_what_differs(folder: Path, configure: Configure, change: str, named: str) -> None:
    run(configure("run", *SHORT, "trainer.max_steps=2"))
    (folder / "other.txt").write_text((folder / "rhyme.txt").read_text().replace("birds", "dogs!"))

    with pytest.raises(ConfigurationError) as refused:
        run(configure("resumed", *SHORT, "trainer.max_steps=3", f"resume={folder}/run", change))

    assert named in str(refused.value)
    assert "init_from=PATH" in str(refused.value)


def test_the_same_text_in_another_place_goes_on(folder: Path, configure: Configure) -> None:
    run(configure("run", *SHORT, "trainer.max_steps=2"))
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "rhyme.txt", folder / "elsewhere" / "verse.txt")

    moved = ["data.files=elsewhere/verse.txt", f"data.cache={folder}/other"]
    run(configure("resumed", *SHORT, "trainer.max_steps=3", f"resume={folder}/run", *moved))
    assert steps(folder / "resumed") == 3


def test_a_default_that_is_given_changes_nothing(folder: Path, configure: Configure) -> None:
    run(configure("run", *SHORT, "trainer.max_steps=2"))

    given = ["data.random_length=false", "data.min_count=1"]  # what the class takes when no file says anything
    run(configure("resumed", *SHORT, "trainer.max_steps=3", f"resume={folder}/run", *given))
    assert steps(folder / "resumed") == 3


def test_a_resumed_run_keeps_the_best_that_it_had(folder: Path, configure: Configure) -> None:
    # The loss falls, so the first validation stays the best for mode=max, in either run.
    common = [option for option in SHORT if "max_epochs" not in option] + ["optimizer.lr=0.01", "monitor.mode=max"]
    run(configure("run", *common, "trainer.max_epochs=2"))
    run(configure("resumed", *common, "trainer.max_epochs=3", f"resume={folder}/run"))

    best = [torch.load(folder / name / "checkpoints" / "best.ckpt", weights_only=True) for name in ("run", "resumed")]
    assert best[0]["global_step"] == best[1]["global_step"] == 50
    assert steps(folder / "resumed") == 150
    assert json.loads((folder / "resumed" / "summary.json").read_text())["checkpoint"].endswith(
        "resumed/checkpoints/best.ckpt"
    )


@pytest.mark.parametrize("place", ["run", "elsewhere"])
def test_numbers_over_time_go_on_where_the_run_was(folder: Path, configure: Configure, place: str) -> None:
    def rows(name: str) -> list[tuple[str, str]]:
        with (folder / name / "metrics.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        assert [float(row["seconds"]) for row in read] == sorted(float(row["seconds"]) for row in read)
        return [(row["step"], row["train/loss"]) for row in read if row["train/loss"]]

    common = [option for option in SHORT if "max_epochs" not in option]
    run(configure("whole", *common, "trainer.max_epochs=3"))
    run(configure("run", *common, "trainer.max_epochs=2"))
    run(configure(place, *common, "trainer.max_epochs=3", f"resume={folder}/run"))

    assert rows(place) == rows("whole")
    assert len(rows("whole")) > 10


def test_a_run_does_not_write_over_another(folder: Path, configure: Configure) -> None:
    run(configure("run", *SHORT, "trainer.max_steps=1"))
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}

    with pytest.raises(FolderError, match=r"contains another run \(summary\.json\).*resume="):
        run(configure("run", *SHORT, "trainer.max_steps=1"))

    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before


def test_two_runs_do_not_share_a_folder(folder: Path, python: Process, train_script: str, small: list[str]) -> None:
    (folder / "run").mkdir()
    with FileLock(folder / "run" / ".lock"):
        done = python(train_script, *small, "run_dir=run")
    assert done.returncode == 2
    assert "another run is writing to this folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (folder / "run").iterdir() if path.suffix == ".ckpt"] == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["scheduler=plateau"], "scheduler monitors validation/loss"),
        (["callbacks/early_stopping=patience"], "callbacks.early_stopping monitors validation/loss"),
    ],
)
def test_what_waits_for_a_validation_that_never_comes_is_refused(
    configure: Configure, options: list[str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        run(configure("run", *options, "++trainer.limit_val_batches=0", "data.files=missing.txt"))


def test_a_number_that_nobody_measures_is_refused_before_training(folder: Path, configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match="validation/los, which is not logged; did you mean validation/loss"):
        run(configure("run", "monitor.metric=validation/los", "test=false"))
    assert not list(folder.rglob("*.ckpt"))


def test_a_plateau_is_stepped_whenever_its_number_was_measured(folder: Path, configure: Configure) -> None:
    def rate(name: str, *options: str) -> float:
        plateau = [
            "scheduler=plateau",
            "scheduler.patience=0",
            "optimizer=sgd",
            "optimizer.lr=1e-30",
            "scheduler.factor=0.5",
        ]
        run(configure(name, *plateau, *options, "test=false", "trainer.max_epochs=4"))
        content = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
        return content["optimizer_states"][0]["param_groups"][0]["lr"]

    # Nothing is learned: the first validation is the best, each one after it halves the rate.
    assert rate("each") == pytest.approx(1e-30 * 0.5**3)
    assert rate("second", "++trainer.check_val_every_n_epoch=2") == pytest.approx(1e-30 * 0.5)
    assert rate("half", "trainer.val_check_interval=0.5") == pytest.approx(1e-30 * 0.5**7)
