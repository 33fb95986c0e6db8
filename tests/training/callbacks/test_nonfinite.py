"""A NaN ends a run with its name, never reaches a checkpoint over a good one, and is refused where it is read."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import LSTMCell, Recurrent, load_bundle
from unrolled.checkpoint import first_nonfinite, save_tensors
from unrolled.descriptions import CheckpointError
from unrolled.training.callbacks.nonfinite import NonFiniteOutputs, NonFiniteWeights
from unrolled.training.run.runner import run, score
from unrolled.training.tasks.base import SequenceTask

Configure = Callable[..., DictConfig]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
# Weight decay alone multiplies each weight by 1e39, which overflows whatever the gradients are.
DIVERGING = ["callbacks/gradient_clip=none", "optimizer=sgd", "optimizer.lr=1e38", "++optimizer.weight_decay=10"]
DIVERGING += ["scheduler=none", "test=false"]


def last(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("options", [[], ["callbacks.samples=null"], ["callbacks/averaging=ema"]])
def test_a_run_that_diverges_ends_with_the_parameters_name(
    folder: Path, configure: Configure, options: list[str]
) -> None:
    with pytest.raises(NonFiniteWeights, match=r"step \d+ \(epoch 0\): \S+ holds nan or inf.*gradient_clip=norm"):
        run(configure("run", *DIVERGING, *options))
    assert not list((folder / "run").rglob("*.ckpt"))


def test_finite_weights_whose_outputs_are_not_end_a_run(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enlarge(self: Any, optimizer: Any) -> None:
        self.zero_grad()  # which may not be finite
        linear = self.network.head.linear
        linear.bias.data.fill_(3.3e38)
        linear.weight.data.fill_(3e38)[::2].neg_()  # whatever the features are, the logits of one half overflow

    monkeypatch.setattr(SequenceTask, "on_before_optimizer_step", enlarge)
    with pytest.raises(NonFiniteOutputs, match=r"step 50: .* NaN or infinite.*gradient_clip=norm"):
        run(configure("run", "test=false", "callbacks/gradient_clip=none"))


def test_a_good_checkpoint_outlives_the_divergence(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(self: SequenceTask, optimizer: Any) -> None:
        if self.trainer.global_step == 60:
            next(self.network.parameters()).data[0] = torch.nan

    monkeypatch.setattr(SequenceTask, "on_before_optimizer_step", poison)
    with pytest.raises(NonFiniteWeights, match="step 100 "):
        run(configure("run", *DIVERGING, "optimizer.lr=0.1", "trainer.max_epochs=3"))

    assert torch.load(last(folder), weights_only=True)["global_step"] == 50
    load_bundle(last(folder))


def test_the_command_ends_with_one_message_and_status_1(
    folder: Path, python: Process, train_script: str, small: list[str]
) -> None:
    done = python(train_script, *small, *DIVERGING, "run_dir=run")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "holds nan or inf" in done.stderr


def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, configure: Configure, python: Process) -> None:
    run(configure("run", "trainer.max_steps=1", "test=false"))
    content: dict[str, Any] = torch.load(last(folder), weights_only=True)
    content["state_dict"]["network.head.linear.bias"][3] = torch.nan
    save_tensors(content, last(folder))

    data = ["data=text", "data.files=rhyme.txt"]
    for read in (
        lambda: load_bundle(last(folder)),
        lambda: score(configure("score", f"checkpoint={last(folder)}", *data, name="evaluate", small=False)),
        lambda: run(configure("other", f"init_from={last(folder)}")),
    ):
        with pytest.raises(CheckpointError, match=r"head\.linear\.bias holds nan"):
            read()
    done = python("-m", "unrolled", "sample", str(last(folder)))
    assert done.returncode == 2
    assert "head.linear.bias holds nan" in done.stderr


def test_buffers_may_be_infinite_but_not_nan() -> None:
    network = torch.nn.Sequential(Recurrent(LSTMCell, 3, 4), torch.nn.BatchNorm1d(4))
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert first_nonfinite(network) is None
    with torch.no_grad():
        network[1].running_var[2] = torch.nan
    assert first_nonfinite(network) == "1.running_var holds nan or inf"
    with torch.no_grad():
        network[1].running_var[2] = 1
        network[1].weight[0] = torch.inf
    assert first_nonfinite(network) == "1.weight holds nan or inf"
