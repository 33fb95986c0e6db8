"""GradientClip against torch's own clipping, and what a non-finite gradient may not change."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from unrolled.training.callbacks.clip import GradientClip, NonFiniteGradient

Batches = list[Tensor]
OptimizerFactory = Callable[..., Optimizer]


class Linear(LightningModule):
    """A loss that is linear in two weights, so that the gradient is the batch itself: (4,), three entries and one."""

    def __init__(self, optimizer: OptimizerFactory = torch.optim.SGD, groups: bool = False, **options: Any) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.second = nn.Parameter(torch.tensor([4.0]))
        self._make, self._groups, self._options = optimizer, groups, {"lr": 0.1, **options}
        self.gradients: list[Tensor] = []
        self.drops = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return batch[:3] @ self.first + batch[3:] @ self.second

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # A module's hook runs after the callbacks': this is what the optimizer gets.
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.gradients.append(torch.cat([g.flatten() for g in gradients]).clone() if gradients else torch.empty(0))

    def drop_carried_state(self) -> None:
        self.drops += 1

    def configure_optimizers(self) -> Any:
        parameters = [{"params": [self.first]}, {"params": [self.second]}] if self._groups else list(self.parameters())
        optimizer = self._make(parameters, **self._options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Watch(Callback):
    """Copies everything that a step may change, after each batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen.append(
            copy.deepcopy(
                {
                    "weights": pl_module.state_dict(),
                    "optimizer": trainer.optimizers[0].state_dict(),
                    "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                }
            )
        )
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(module: LightningModule, batches: Batches, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks),
        **{"max_epochs": 1, **options},
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # pyright: ignore[reportArgumentType]
    return trainer


def same(left: Any, right: Any) -> bool:
    """Deep equality, to the bit."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clipped_by_torch(batch: Tensor, limit: float, norm_type: float = 2.0) -> Tensor:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = batch[:3].clone(), batch[3:].clone()
    nn.utils.clip_grad_norm_(parameters, limit, norm_type)
    return torch.cat([p.grad for p in parameters if p.grad is not None])


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_the_clipped_gradient_is_torchs_to_the_bit(generator: torch.Generator, norm_type: float, groups: bool) -> None:
    batches = [scale * torch.randn(4, generator=generator) for scale in (0.1, 1.0, 30.0)]
    module = Linear(groups=groups)  # the optimizer's; one norm goes over all of them

    fit(module, batches, GradientClip(norm=0.7, norm_type=norm_type))

    for batch, gradient in zip(batches, module.gradients, strict=True):
        assert torch.equal(gradient, clipped_by_torch(batch, 0.7, norm_type))
        assert gradient.norm(norm_type) <= 0.7 * (1 + 1e-6)  # float32 rounds the product


def test_the_logged_norms_are_those_before_and_after() -> None:
    watch = Watch()

    fit(Linear(), [torch.tensor([3.0, 0, 0, 4.0]), torch.tensor([0.3, 0, 0, 0.4])], GradientClip(norm=2.0), watch)

    first, second = watch.logged
    assert first["gradient/norm_before"] == pytest.approx(5.0)
    assert first["gradient/norm_after"] == pytest.approx(2.0)
    assert first["gradient/clipped_share"] == 1.0
    assert second["gradient/norm_before"] == second["gradient/norm_after"] == pytest.approx(0.5)
    assert second["gradient/clipped_share"] == 0.5


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    gradient=st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4),
    limit=st.floats(1e-3, 1e3),
    kind=st.sampled_from(["norm", "value", "percentile"]),
)
def test_clipping_never_raises_a_norm(gradient: list[float], limit: float, kind: str) -> None:
    limits: dict[str, Any] = {kind: min(limit, 100.0)}
    clip = GradientClip(**limits, min_history=1)
    clip.history.append(limit)
    module = Linear()

    stand_in = Recorder(module)
    clip.on_before_optimizer_step(stand_in.trainer, stand_in, stand_in.optimizer(torch.tensor(gradient)))

    assert stand_in.norm() <= torch.tensor(gradient).norm() * (1 + 1e-6)  # float32 rounds the product
    assert stand_in.logged["gradient/norm_after"] <= stand_in.logged["gradient/norm_before"] * (1 + 1e-6)
    assert stand_in.logged["gradient/norm_after"] == pytest.approx(float(stand_in.norm()), rel=1e-5, abs=1e-30)


class Recorder(LightningModule):
    """A module outside any training, for the law above: thousands of Trainers would take minutes."""

    def __init__(self, module: Linear) -> None:
        super().__init__()
        self.module = module
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: Any, **_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.logged[name] = float(value)

    @property
    def trainer(self) -> Any:
        return None

    def optimizer(self, gradient: Tensor) -> Optimizer:
        self.module.first.grad, self.module.second.grad = gradient[:3].clone(), gradient[3:].clone()
        return torch.optim.SGD(self.module.parameters(), lr=0.1)

    def norm(self) -> Tensor:
        return nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])


def test_accumulation_clips_once_on_the_accumulated_gradient() -> None:
    module = Linear()
    clip = GradientClip(norm=1.0)
    batches = [torch.tensor([6.0, 0, 0, 0]), torch.tensor([0, 8.0, 0, 0]), torch.tensor([0.2, 0, 0, 0])]

    fit(module, batches, clip, accumulate_grad_batches=2)

    joined, rest = module.gradients
    assert torch.equal(joined, clipped_by_torch(torch.tensor([3.0, 4.0, 0, 0]), 1.0))  # halves, then summed
    assert torch.equal(rest, torch.tensor([0.1, 0, 0, 0]))
    assert (clip.steps, clip.clipped) == (2, 1)


def test_a_value_limits_each_entry() -> None:
    module = Linear()
    watch = Watch()

    fit(module, [torch.tensor([3.0, -3.0, 0.5, 1.0]), torch.full((4,), 0.1)], GradientClip(value=1.0), watch)

    assert torch.equal(module.gradients[0], torch.tensor([1.0, -1.0, 0.5, 1.0]))
    assert watch.logged[0]["gradient/norm_after"] == pytest.approx(math.sqrt(3.25))
    assert watch.logged[1]["gradient/clipped_share"] == 0.5


def test_groups_are_limited_each_by_itself() -> None:
    module = Linear(groups=True)
    watch = Watch()

    fit(module, [torch.tensor([3.0, 0, 4.0, 0.5])], GradientClip(norm=1.0, groups=True), watch)

    torch.testing.assert_close(module.gradients[0], torch.tensor([0.6, 0.0, 0.8, 0.5]), rtol=0, atol=1e-6)
    assert watch.logged[0]["gradient/norm_before"] == pytest.approx(math.sqrt(25.25))
    assert watch.logged[0]["gradient/norm_after"] == pytest.approx(math.sqrt(1.25))


def test_the_percentile_is_numpys_over_the_window(generator: torch.Generator) -> None:
    batches = [torch.randn(4, generator=generator) for _ in range(12)]
    module = Linear()
    clip = GradientClip(percentile=30, history=5, min_history=3)

    fit(module, batches, clip)

    norms = [float(batch.norm()) for batch in batches]
    for index, (batch, gradient) in enumerate(zip(batches, module.gradients, strict=True)):
        window = norms[max(0, index - 4) : index + 1]
        limit = float(np.percentile(window, 30)) if len(window) >= 3 else math.inf
        torch.testing.assert_close(gradient, clipped_by_torch(batch, limit), rtol=1e-5, atol=0)
    assert list(clip.history) == pytest.approx(norms[-5:])
    assert clip.clipped > 3


def test_a_nan_is_raised_with_the_name_of_its_parameter_and_changes_nothing() -> None:
    module = Linear()
    before = copy.deepcopy(module.state_dict())

    with pytest.raises(NonFiniteGradient, match=r"step 0 .*gradient of second is nan.*nonfinite='skip'"):
        fit(module, [torch.tensor([1.0, 1.0, 1.0, math.nan])], GradientClip(norm=1.0))

    assert same(module.state_dict(), before)
    assert module.drops == 1


def test_an_infinity_is_called_one() -> None:
    with pytest.raises(NonFiniteGradient, match="gradient of first is inf"):
        fit(Linear(), [torch.tensor([1.0, math.inf, 1.0, 1.0])], GradientClip())


def test_a_norm_that_overflows_is_called_so() -> None:
    with pytest.raises(NonFiniteGradient, match="every gradient is finite, but their norm overflows"):
        fit(Linear(), [torch.full((4,), 3e38)], GradientClip(norm=1.0))


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.AdamW, {"weight_decay": 0.1, "fused": True}),
        (torch.optim.RMSprop, {"momentum": 0.9, "weight_decay": 0.1}),
        (torch.optim.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.1}),
    ],
)
def test_a_skipped_step_changes_nothing_to_the_bit(optimizer: OptimizerFactory, options: dict[str, Any]) -> None:
    module = Linear(optimizer, **options)
    clip, watch = GradientClip(norm=1.0, nonfinite="skip"), Watch()
    good, bad = torch.ones(4), torch.tensor([math.nan, 1.0, 1.0, 1.0])

    trainer = fit(module, [good, bad, good, good], clip, watch)

    first, skipped, third, fourth = watch.seen
    assert same(skipped, first)
    assert not same(third["weights"], first["weights"])
    assert not same(third["scheduler"], first["scheduler"])
    assert fourth["scheduler"]["last_epoch"] == 3  # three updates, three moves of the learning rate
    assert clip.skipped == module.drops == 1
    assert trainer.global_step == 4  # attempts


def test_training_goes_on_as_if_the_skipped_batch_had_never_been() -> None:
    good, bad = torch.ones(4), torch.full((4,), math.inf)
    with_it, without = Watch(), Watch()

    fit(Linear(torch.optim.AdamW), [good, bad, 3 * good], GradientClip(norm=1.0, nonfinite="skip"), with_it)
    fit(Linear(torch.optim.AdamW), [good, 3 * good], GradientClip(norm=1.0), without)

    assert same(with_it.seen[-1], without.seen[-1])


def test_too_many_skips_in_a_row_raise() -> None:
    good, bad = torch.ones(4), torch.full((4,), math.nan)
    clip = GradientClip(nonfinite="skip", max_skips=2)

    with pytest.raises(NonFiniteGradient, match=r"step 6 .* 3 such steps in a row, and max_skips=2"):
        fit(Linear(), [bad, bad, good, good, bad, bad, bad], clip)


def test_an_overflow_that_the_scaler_handles_is_counted_and_never_raised() -> None:
    module = Linear()
    clip, watch = GradientClip(norm=1.0, nonfinite="raise"), Watch()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    good, bad = torch.ones(4), torch.full((4,), math.inf)

    fit(module, [good, bad, good], clip, watch, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    first, skipped, third = watch.seen
    assert same(skipped, first)
    assert not same(third["weights"], first["weights"])
    assert (clip.overflows, clip.skipped, clip.steps) == (1, 0, 2)
    assert scaler.get_scale() == 4.0
    # fp16's forward rounds the batch of ones to itself; the norm is that of the unscaled gradient.
    assert watch.logged[0]["gradient/norm_before"] == pytest.approx(2.0)


def test_a_fused_optimizer_under_a_scaler_is_refused() -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))

    with pytest.raises(ValueError, match=r"fused AdamW.*fused=False"):
        fit(Linear(torch.optim.AdamW, fused=True), [torch.ones(4)], GradientClip(norm=1.0), plugins=[plugin])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"norm": 1.0, "value": 1.0}, "norm=1.0, value=1.0: these exclude each other"),
        ({"norm": 0.0}, "norm=0.0 must be positive"),
        ({"norm": math.nan}, "norm=nan must be positive"),
        ({"percentile": 101}, "between 0 and 100"),
        ({"groups": True, "value": 1.0}, "give norm as well"),
        ({"norm_type": 0.0}, "norm_type=0.0 must be 1.0 or more"),
        ({"history": 5}, "history=5 must be 10 or more"),
        ({"max_skips": 0}, "max_skips=0 must be 1 or more"),
        ({"nonfinite": "ignore"}, "nonfinite='ignore' is unknown"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GradientClip(**options)


def test_clipping_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="remove gradient_clip_val"):
        fit(Linear(), [torch.ones(4)], GradientClip(norm=1.0), gradient_clip_val=1.0)
    with pytest.raises(ValueError, match="2 GradientClip callbacks"):
        fit(Linear(), [torch.ones(4)], GradientClip(norm=1.0), Second(value=1.0))


class Second(GradientClip):
    """Lightning itself refuses two callbacks of one class and state; this is how a second one gets by."""


def test_manual_optimization_is_refused() -> None:
    module = Linear()
    module.automatic_optimization = False

    with pytest.raises(ValueError, match="use automatic optimization"):
        fit(module, [torch.ones(4)], GradientClip(norm=1.0))


def test_a_batch_without_a_loss_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = GradientClip(percentile=50, min_history=1)
    monkeypatch.setattr(Linear, "training_step", lambda self, batch, batch_idx: None)

    fit(Linear(), [torch.ones(4)], clip)

    assert clip.steps == 0
    assert not clip.history


def test_a_resumed_run_has_the_same_thresholds(tmp_path: Path, generator: torch.Generator) -> None:
    batches = [torch.randn(4, generator=generator) for _ in range(4)]
    options: dict[str, Any] = {"percentile": 40, "min_history": 2, "history": 6}
    whole, first, second = (GradientClip(**options) for _ in range(3))
    module, resumed = Linear(), Linear()

    fit(module, batches, whole, max_epochs=2)
    fit(Linear(), batches, first, ModelCheckpoint(tmp_path, filename="half"), max_epochs=1)
    content = torch.load(tmp_path / "half.ckpt", weights_only=True)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[second],
        max_epochs=2,
    )
    loader = torch.utils.data.DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer.fit(resumed, loader, ckpt_path=str(tmp_path / "half.ckpt"))

    assert content["callbacks"]["GradientClip"]["history"] == list(first.history)
    assert second.state_dict() == whole.state_dict()
    assert all(map(torch.equal, resumed.gradients, module.gradients[4:]))


def test_strategies_that_hide_the_gradient_are_refused() -> None:
    class StandIn:
        strategy = FSDPStrategy()
        gradient_clip_val = None
        callbacks: ClassVar[list[Callback]] = []

    with pytest.raises(ValueError, match=r"use lightning\.pytorch\.strategies\.ModelParallelStrategy"):
        GradientClip(norm=1.0).setup(StandIn(), Linear(), "fit")  # pyright: ignore[reportArgumentType]


def test_a_lbfgs_is_refused() -> None:
    with pytest.raises(ValueError, match="LBFGS evaluates the gradient several times"):
        fit(Linear(torch.optim.LBFGS), [torch.ones(4)], GradientClip(norm=1.0))
