"""A loss that spikes: training returns to earlier weights and goes on with the data that come next."""

import copy
import logging
import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unrolled.training.callbacks.averaging import WeightAveraging
from unrolled.training.callbacks.clip import GradientClip
from unrolled.training.callbacks.nonfinite import Diverged
from unrolled.training.callbacks.rollback import Rollback


class Line(LightningModule):
    """Follows the values of the batches; a value far away is a spike."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.drops: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().mean()

    def drop_carried_state(self) -> None:
        self.drops.append(self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5), "interval": "step"}]


class Seen(Callback):
    """Weights, average and learning rate after each step."""

    def __init__(self) -> None:
        self.weights: list[list[float]] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append(pl_module.state_dict()["weight"].tolist())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def batches(*spikes: int, value: float = 1e4, count: int = 40) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(3, dtype=torch.float64, generator=generator) for _ in range(count)]
    return [torch.full((3,), value, dtype=torch.float64) if k in spikes else each for k, each in enumerate(drawn)]


def fit(data: list[torch.Tensor], *callbacks: Callback, **options: Any) -> tuple[Line, Seen]:
    module, seen = Line(), Seen()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, seen],
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=None))
    return module, seen


def by_hand(data: list[torch.Tensor], copies: dict[int, int]) -> list[list[float]]:
    """The weights after each step, of a loop in plain torch that returns at a step to those after another one."""
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    states: list[tuple[torch.Tensor, Any]] = []
    after: list[list[float]] = []
    for number, value in enumerate(data):
        states.append((weight.detach().clone(), copy.deepcopy(optimizer.state_dict())))
        rate = 0.1 * 0.5 ** (number // 10)
        if number in copies:
            kept, state = states[copies[number]]
            weight.data.copy_(kept)
            optimizer.load_state_dict(state)
        else:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            (weight - value).square().mean().backward()
            optimizer.step()
        after.append(weight.tolist())
    return after


def rollback(**options: Any) -> Rollback:
    return Rollback(**{"every": 4, "history": 8, "patience": 1, **options})


@pytest.mark.parametrize("value", [1e4, math.nan, math.inf])
def test_the_weights_are_those_before_and_the_data_go_on(value: float, caplog: pytest.LogCaptureFixture) -> None:
    data, callback = batches(22, value=value), rollback()
    with caplog.at_level(logging.WARNING):
        module, seen = fit(data, callback, GradientClip(norm=1e9))

    assert seen.weights == by_hand(data, {22: 16})  # copies after 16 and 20 steps; the one before the latest
    assert seen.rates == [0.1 * 0.5 ** ((number + 1) // 10) for number in range(40)]
    assert (callback.rollbacks, module.drops) == (1, [23])
    assert "step 23 (epoch 0): the loss is" in caplog.text
    assert "the weights of step 16; the data of steps 17 to 23 are skipped (rollback 1 of 3)" in caplog.text


def test_single_losses_are_no_spike_if_more_are_asked_for() -> None:
    callback = rollback(patience=2)
    fit(batches(20), callback)
    assert callback.rollbacks == 0

    _, seen = fit(data := batches(20, 21), callback := rollback(patience=2))
    assert callback.rollbacks == 1
    assert seen.weights == by_hand(data, {21: 16})


def test_the_losses_of_a_step_are_one_loss() -> None:
    data = batches(24, 25, count=60)
    module, _ = fit(data, callback := rollback(), accumulate_grad_batches=2)
    assert (callback.rollbacks, module.drops) == (1, [13])
    assert len(callback.losses) == 8


def test_an_average_and_a_history_of_norms_return_too() -> None:
    clip, average = GradientClip(percentile=50, history=100, min_history=1), WeightAveraging(decay=0.5)
    module, _ = fit(batches(22, count=23), rollback(), clip, average)
    other_clip, other_average = GradientClip(percentile=50, history=100, min_history=1), WeightAveraging(decay=0.5)
    other, _ = fit(batches(count=16), other_clip, other_average)

    assert torch.equal(module.weight, other.weight)  # the averages
    assert clip.history == other_clip.history


def test_one_spike_too_many_ends_the_run_with_the_weights_before() -> None:
    data, seen = batches(20, 25), Seen()
    said = r"step 25 .*the loss is 9.999e\+07, above .* after 1 rollback \(max_rollbacks\)"
    with pytest.raises(Diverged, match=said):
        fit(data, rollback(max_rollbacks=1), seen)
    assert seen.weights == by_hand(data[:25], {20: 16})


def test_wrong_options_are_refused() -> None:
    for options in ({"every": 0}, {"history": 1}, {"patience": 0}, {"max_rollbacks": 0}, {"deviations": math.nan}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Rollback(**options)
    with pytest.raises(ValueError, match="give Rollback first"):
        fit(batches(), GradientClip(), Rollback())
