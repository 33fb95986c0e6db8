"""The average of the weights: who sees it, and that a resumed run is exact."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from unrolled.training.callbacks.averaging import WeightAveraging
from unrolled.training.callbacks.clip import GradientClip


class Slope(LightningModule):
    """Its gradient is the batch; it remembers the weight after each step and the weight that each validation saw."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.network.weight)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.weights: list[float] = []
        self.validated: list[float] = []
        self.tested: list[float] = []

    @property
    def weight(self) -> float:
        return self.network.weight.item()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.count += 1
        return (self.network.weight * batch).sum()

    def on_train_batch_end(self, *args: Any) -> None:
        self.weights.append(self.weight)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(self.weight)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.tested.append(self.weight)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def loader(*batches: float) -> Any:
    return torch.utils.data.DataLoader([torch.tensor(batch) for batch in batches], batch_size=None)  # pyright: ignore


def make_trainer(*callbacks: Callback, epochs: int = 1, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        max_epochs=epochs,
        **{"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks), **options},
    )


def averages(weights: list[float], decay: float, start: int) -> list[float]:
    """The recurrence, written out."""
    done = [weights[0]]
    for index, weight in enumerate(weights[1:], start=1):
        done.append(weight if index < start else decay * done[-1] + (1 - decay) * weight)
    return done


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("start", [0, 3, 100])
def test_validation_runs_on_the_average_and_training_on_the_weights(start: int) -> None:
    module, plain = Slope(), Slope()
    batches = (1.0, -3.0, 2.0, 0.5, 4.0)

    trainer = make_trainer(WeightAveraging(0.8, start=start), val_check_interval=1)
    trainer.fit(module, loader(*batches), loader(0.0))
    make_trainer().fit(plain, loader(*batches))

    assert module.weights == plain.weights
    assert module.validated == pytest.approx(averages(module.weights, 0.8, start), rel=1e-6)  # float32
    assert module.weight == pytest.approx(module.validated[-1])  # what training leaves behind
    assert start == 100 or module.validated != module.weights


def test_statistics_of_a_batch_norm_are_averaged_with_the_weights_and_counters_are_not() -> None:
    class Normed(Slope):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, momentum=0.5)
            self.means: list[float] = []

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            normed = self.norm(torch.stack([batch, batch + 2]).unsqueeze(1) * self.network.weight)
            return normed.sum() + super().training_step(batch, batch_idx)

        def on_train_batch_end(self, *args: Any) -> None:
            self.means.append(self.norm.running_mean.item())  # pyright: ignore[reportOptionalMemberAccess]

    module = Normed()
    make_trainer(WeightAveraging(0.8)).fit(module, loader(1.0, -3.0, 2.0, 0.5, 4.0))

    assert module.norm.running_mean is not None
    assert module.norm.running_mean.item() == pytest.approx(averages(module.means, 0.8, 0)[-1], rel=1e-6)
    assert module.norm.num_batches_tracked == 5
    assert abs(module.norm.running_mean.item() - module.means[-1]) > 0.1


def test_a_checkpoint_holds_the_average_under_the_modules_own_keys(tmp_path: Path) -> None:
    module = Slope()
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)

    make_trainer(WeightAveraging(0.5), saving).fit(module, loader(1.0, 2.0, -4.0))

    for step, average in enumerate(averages(module.weights, 0.5, 0), start=1):
        content = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        assert content["state_dict"].keys() == module.state_dict().keys()
        assert content["state_dict"]["network.weight"].item() == pytest.approx(average)
        assert content["state_dict"]["count"] == step
        assert content["current_model_state"]["network.weight"].item() == module.weights[step - 1]


def test_a_resumed_run_is_exact(tmp_path: Path) -> None:
    whole, first, second = Slope(), Slope(), Slope()
    batches = (1.0, 2.0, -4.0, 1.0)

    def train(module: Slope, epochs: int, name: str, **options: Any) -> None:
        saving = ModelCheckpoint(tmp_path, filename=name)
        trainer = make_trainer(WeightAveraging(0.7, start=2), saving, epochs=epochs)
        trainer.fit(module, loader(*batches), loader(0.0), **options)

    train(whole, 2, "whole")
    train(first, 1, "first")
    train(second, 2, "second", ckpt_path=str(tmp_path / "first.ckpt"))

    left, right = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "second"))
    assert second.weights == whole.weights[4:]
    assert second.validated == whole.validated[1:]
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert left[part].keys() == right[part].keys()
        assert all(torch.equal(left[part][key], right[part][key]) for key in left[part])


def test_a_checkpoint_written_after_training_can_be_resumed(tmp_path: Path) -> None:
    whole, first, second = Slope(), Slope(), Slope()
    batches = (1.0, 2.0, -4.0)

    make_trainer(WeightAveraging(0.7), epochs=2).fit(whole, loader(*batches))
    trainer = make_trainer(WeightAveraging(0.7), epochs=1, enable_checkpointing=True)
    trainer.fit(first, loader(*batches))
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    make_trainer(WeightAveraging(0.7), epochs=2).fit(second, loader(*batches), ckpt_path=str(tmp_path / "after.ckpt"))

    content = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert content["state_dict"]["network.weight"].item() == first.weight
    assert second.weights == whole.weights[3:]
    assert second.weight == whole.weight


def test_testing_a_checkpoint_after_training_takes_the_average(tmp_path: Path) -> None:
    module = Slope()
    trainer = make_trainer(WeightAveraging(0.5), ModelCheckpoint(tmp_path, filename="best"))
    trainer.fit(module, loader(1.0, 2.0, -4.0))
    average = module.weight

    trainer.test(module, loader(0.0), ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    trainer.validate(module, loader(0.0), verbose=False)

    assert average != module.weights[-1]
    assert module.tested == module.validated == [average]


class Stop(Callback):
    def on_validation_batch_end(self, *args: Any) -> None:
        raise RuntimeError("the cluster wants its machine back")


def test_a_checkpoint_written_while_validation_breaks_off_is_right(tmp_path: Path) -> None:
    module = Slope()
    saving = ModelCheckpoint(tmp_path, filename="broken", save_on_exception=True)

    with pytest.raises(RuntimeError, match="wants its machine back"):
        make_trainer(WeightAveraging(0.5), Stop(), saving).fit(module, loader(1.0, 2.0), loader(0.0))

    content = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    assert content["state_dict"]["network.weight"].item() == pytest.approx(averages(module.weights, 0.5, 0)[-1])
    assert content["current_model_state"]["network.weight"].item() == module.weights[-1] == module.weight


def test_a_checkpoint_written_during_validation_is_right(tmp_path: Path) -> None:
    module = Slope()

    class Save(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "during.ckpt")

    make_trainer(WeightAveraging(0.5), Save(), enable_checkpointing=True).fit(module, loader(1.0, 2.0), loader(0.0))

    content = torch.load(tmp_path / "during.ckpt", weights_only=True)
    assert content["state_dict"]["network.weight"].item() == pytest.approx(averages(module.weights, 0.5, 0)[-1])
    assert content["current_model_state"]["network.weight"].item() == module.weights[-1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_leaves_the_average_alone(accumulate: int) -> None:
    batches = [value for value in (1.0, 2.0, math.nan, -4.0) for _ in range(accumulate)]
    with_it, without = Slope(), Slope()

    for module, data in ((with_it, batches), (without, [b for b in batches if not math.isnan(b)])):
        callbacks = [GradientClip(nonfinite="skip"), WeightAveraging(0.5)]
        make_trainer(*callbacks, accumulate_grad_batches=accumulate).fit(module, loader(*data))

    assert with_it.weight == without.weight


@pytest.mark.parametrize(("options", "match"), [({"decay": 1.0}, "decay=1.0"), ({"start": -1}, "start=-1")])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        WeightAveraging(**options)


def test_sharded_weights_are_refused() -> None:
    class StandIn:
        strategy = ModelParallelStrategy()

    with pytest.raises(ValueError, match="ModelParallelStrategy shards the weights"):
        WeightAveraging().setup(StandIn(), Slope(), "fit")  # pyright: ignore[reportArgumentType]


def test_the_callback_serves_a_second_run(tmp_path: Path) -> None:
    averaging = WeightAveraging(0.5)
    make_trainer(averaging).fit(Slope(), loader(1.0, 2.0))
    module = Slope()

    make_trainer(averaging, ModelCheckpoint(tmp_path, filename="second")).fit(module, loader(1.0, 2.0))

    content = torch.load(tmp_path / "second.ckpt", weights_only=True)
    assert content["current_model_state"]["network.weight"].item() == module.weights[-1]
