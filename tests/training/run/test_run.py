"""Whole runs: what they leave, that they go on exactly, and that two processes are one."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.checkpoint import FORMAT
from unrolled.descriptions import CheckpointError
from unrolled.training.run.assembly import assemble
from unrolled.training.run.runner import run, score

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_leaves_everything_in_its_folder(folder: Path, configure: Configure, capsys: Any) -> None:
    numbers = run(configure("run", "trainer.max_epochs=2"))

    left = {str(path.relative_to(folder / "run")) for path in (folder / "run").rglob("*") if path.is_file()}
    expected = {"config.yaml", "metrics.csv", "curves.png", "samples.md", "summary.json"}
    assert expected | {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= left
    found = summary(folder / "run")
    assert found["test/bits_per_character"] == pytest.approx(numbers["test/loss"] / math.log(2))
    assert found["characters_per_second"] > 0
    assert found["seed"] == 1
    said = capsys.readouterr().out
    assert "python -m unrolled sample" in said
    assert "test/bits_per_character" in said


def test_every_file_that_a_run_writes_is_plain_data(folder: Path, configure: Configure) -> None:
    run(configure("run", "trainer.max_epochs=1", "callbacks/averaging=ema", "callbacks/gradient_clip=percentile"))

    written = list((folder / "run" / "checkpoints").rglob("*.ckpt"))
    assert len(written) >= 2
    for path in written:
        assert torch.load(path, weights_only=True)["unrolled"]["format"] == FORMAT
        assert load_bundle(path).processor.source.size > 10


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_each_cell_learns_a_rhyme(configure: Configure, cell: str) -> None:
    overrides = [f"model={cell}", "model.hidden_size=48", "model.num_layers=1", "model.dropout=0", "optimizer.lr=2e-2"]
    numbers = run(
        configure(
            "run",
            *overrides,
            "network.output_dropout=0",
            "trainer.max_epochs=10",
            "callbacks.samples=null",
            "callbacks.curves=null",
        )
    )

    # Knowing only how often each character occurs costs 4.2 bits; the text's rule leaves a few free digits a line.
    assert numbers["test/bits_per_character"] < 1.0


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("scheduler=step", "optimizer=sgd", "callbacks/gradient_clip=percentile"),
        ("data.window=24", "data.stride=8", "model.cell.weight_drop=0.2", "model.learned_initial_state=true"),
        ("data.random_length=true", "trainer.accumulate_grad_batches=2"),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(folder: Path, configure: Configure, options: tuple[str, ...]) -> None:
    common = [*options, "model.dropout=0.3", "trainer.max_epochs=4", "+callbacks.checkpoint.every_n_train_steps=5"]
    common += ["callbacks.checkpoint.monitor=null", "+callbacks.checkpoint.save_top_k=-1", "test=false"]
    common += ["callbacks.checkpoint.filename='step-{step}'", "+callbacks.checkpoint.auto_insert_metric_name=false"]

    run(configure("whole", *common))
    run(configure("resumed", *common, f"resume={folder}/whole/checkpoints/step-5.ckpt"))

    whole, resumed = (weights(folder / name / "checkpoints" / "last.ckpt") for name in ("whole", "resumed"))
    first = weights(folder / "whole" / "checkpoints" / "step-5.ckpt")
    assert not torch.equal(first["network.head.linear.weight"], whole["network.head.linear.weight"])
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_run_goes_on_from_its_end_though_that_was_not_validated(folder: Path, configure: Configure) -> None:
    common = ["model.dropout=0.3", "++trainer.check_val_every_n_epoch=2", "callbacks/averaging=ema", "test=false"]
    common += ["scheduler=none"]
    run(configure("whole", *common, "trainer.max_epochs=4"))
    run(configure("begun", *common, "trainer.max_epochs=3"))
    last = folder / "begun" / "checkpoints" / "last.ckpt"
    run(configure("resumed", *common, "trainer.max_epochs=4", f"resume={last}"))

    assert summary(folder / "begun")["steps"] == torch.load(last, weights_only=True)["global_step"]
    whole, resumed = (weights(folder / name / "checkpoints" / "last.ckpt") for name in ("whole", "resumed"))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_init_from_starts_from_the_weights_and_the_processor(folder: Path, configure: Configure) -> None:
    run(configure("first", "trainer.max_epochs=1", "test=false"))
    (folder / "rhyme.txt").write_text("a text with other letters: äöü xyz\n" * 50)
    first = folder / "first/checkpoints/last.ckpt"

    run(configure("second", f"init_from={first}", "optimizer.lr=0", "trainer.max_epochs=1", "test=false"))

    second = folder / "second/checkpoints/last.ckpt"
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name])
    assert load_bundle(second).processor.to_dict() == load_bundle(first).processor.to_dict()


def test_other_sizes_are_refused_by_name(folder: Path, configure: Configure) -> None:
    run(configure("first", "trainer.max_steps=1", "test=false"))

    with pytest.raises(CheckpointError, match="the network has"):
        run(configure("second", f"init_from={folder}/first/checkpoints/last.ckpt", "model.hidden_size=9"))


def test_an_evaluation_finds_what_the_run_found(folder: Path, configure: Configure) -> None:
    numbers = run(configure("run", "trainer.max_epochs=2"))
    data = ["data=text", "data.files=rhyme.txt", "trainer=cpu", "data.random_windows={length:16,count:8,batch_size:4}"]
    checkpoint = f"checkpoint={folder}/run/checkpoints/best.ckpt"

    def scored(*overrides: str) -> dict[str, float]:
        return score(configure("score", checkpoint, *data, *overrides, name="evaluate", small=False))

    for batch_size in (1, 7):
        found = scored(f"data.batch_size={batch_size}", "data.window=16")
        assert found["test/loss"] == pytest.approx(numbers["test/loss"], rel=1e-5)
    assert scored("split=train", "data.window=16")["test/loss"] != pytest.approx(numbers["test/loss"], rel=1e-3)


def test_a_task_refuses_what_only_its_own_package_could_load(configure: Configure) -> None:
    config = configure("run", "network._target_=unrolled_tasks.char_lm.CharLM")

    with pytest.raises(ValueError, match=r"unrolled_tasks|network"):
        run(config)


@pytest.mark.distributed
def test_two_processes_are_one_with_the_joined_batch(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    common = [*small, "model.dropout=0", "network.output_dropout=0", "trainer.max_steps=8", "trainer.max_epochs=-1"]
    common += ["data.batch_size=2", "+trainer.limit_val_batches=1"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.run.dir=two", "data.batch_size=2"]

    one_run = python(train_script, *common, "data.batch_size=4", "hydra.run.dir=one")
    two_run = python(train_script, *common, *two)

    assert one_run.returncode == 0, one_run.stderr
    assert two_run.returncode == 0, two_run.stderr
    one, other = (weights(folder / name / "checkpoints" / "last.ckpt") for name in ("one", "two"))
    for name, value in one.items():
        # float32, and sums over four rows against two sums over two
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-5)
    losses = [summary(folder / name)["test/loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    data = [option for option in small if option.startswith(("data=", "data."))]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]
    scored = python("-m", "unrolled", "evaluate", f"checkpoint={folder}/one/checkpoints/last.ckpt", *data, *two)

    assert scored.returncode == 0, scored.stderr
    (shown,) = [line.split()[1] for line in scored.stdout.splitlines() if line.startswith("test/loss")]
    assert float(shown) == pytest.approx(losses[0], abs=1e-4)


def test_a_package_of_ones_own_joins_without_a_fork(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    lab = folder / "mylab"
    (lab / "conf" / "model").mkdir(parents=True)
    (lab / "conf" / "task").mkdir()
    (lab / "conf" / "data").mkdir()
    for name in ("__init__.py", "conf/__init__.py"):
        (lab / name).write_text("")
    (lab / "cells.py").write_text(
        "import torch\nfrom unrolled import ElmanCell, HiddenState\n\n"
        "class LeakyCell(ElmanCell):\n"
        "    def step(self, projected, state, noise=None):\n"
        "        output, new = super().step(projected, state, noise)\n"
        "        h = 0.5 * state.h + 0.5 * new.h\n"
        "        return h, HiddenState(h)\n"
    )
    (lab / "tasks.py").write_text("from unrolled_tasks.char_lm import CharLM\n\nclass Quiet(CharLM):\n    pass\n")
    (lab / "conf/model/leaky.yaml").write_text("defaults: [elman, _self_]\ncell: {_target_: mylab.cells.LeakyCell}\n")
    task = "# @package _global_\ndefaults: [char_lm, _self_]\ntask: {_target_: mylab.tasks.Quiet}\n"
    (lab / "conf/task/quiet.yaml").write_text(task)
    (lab / "conf/data/quiet.yaml").write_text("defaults: [text, _self_]\nfiles: rhyme.txt\n")
    rest = [o for o in small if o not in ("data=text", "data.files=rhyme.txt")]
    asked = [*rest, "task=quiet", "model=leaky", "trainer.max_steps=2"]

    by_folder = python(train_script, "--config-dir", "mylab/conf", *asked, "hydra.run.dir=one")
    by_path = python(train_script, "hydra.searchpath=[pkg://mylab.conf]", *asked, "hydra.run.dir=two")

    for result in (by_folder, by_path):
        assert result.returncode == 0, result.stderr
        assert "loop" in result.stdout  # a subclass may compute anything: no fused kernel stands in for it
    checkpoint = "one/checkpoints/last.ckpt"
    refused = python("-m", "unrolled", "sample", checkpoint)
    assert refused.returncode == 2
    assert "mylab.cells.LeakyCell" in refused.stderr
    assert python("-m", "unrolled", "sample", checkpoint, "--trust", "mylab", "--length", "5").returncode == 0


def test_the_last_checkpoint_is_the_last_whether_or_not_it_is_the_best(folder: Path, configure: Configure) -> None:
    run(configure("run", "trainer.max_epochs=3", "monitor.mode=max", "optimizer.lr=1e-2", "test=false"))

    steps = [
        torch.load(folder / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    ]
    assert steps[0] < steps[1] == summary(folder / "run")["steps"]


def test_a_run_that_writes_no_checkpoint_names_none(folder: Path, configure: Configure, capsys: Any) -> None:
    run(configure("run", "debug=one_batch"))

    assert summary(folder / "run")["checkpoint"] == ""
    assert "next" not in capsys.readouterr().out


def test_lightnings_switches_take_callbacks_away(folder: Path, configure: Configure) -> None:
    run(configure("run", "++trainer.enable_progress_bar=false", "++trainer.enable_checkpointing=false"))

    assert summary(folder / "run")["checkpoint"] == ""
    assert not list(folder.rglob("*.ckpt"))


def test_a_sweep_leaves_a_folder_for_each_run(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    done = python(train_script, "-m", *small, "model=elman,gru", "trainer.max_steps=2")

    assert done.returncode == 0, done.stderr
    (sweep,) = folder.glob("outputs/sweeps/*/*")
    parameters = [summary(sweep / run)["parameters"] for run in ("0", "1")]
    assert parameters[1] > parameters[0]


@pytest.mark.parametrize(
    ("able", "said"),
    [
        ({"architecture": "x86_64", "cpu_name": "an old one", "avx512_bf16": False, "amx_bf16": False}, "an old one"),
        ({"architecture": "x86_64", "cpu_name": "a new one", "avx512_bf16": True, "amx_bf16": False}, ""),
        ({}, ""),
    ],
)
def test_bfloat16_on_a_processor_without_it_is_warned_of(
    configure: Configure, able: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)

    assemble(configure("run", "trainer.precision=bf16-mixed"))
    assert ("trainer.precision=32-true" in caplog.text) == bool(said)
    assert said in caplog.text
    caplog.clear()
    assemble(configure("run"))
    assert "32-true" not in caplog.text
