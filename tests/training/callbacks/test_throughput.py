"""Units per second, on a clock that the test turns."""

from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from unrolled.training.callbacks import throughput
from unrolled.training.callbacks.throughput import Throughput


class Batch(NamedTuple):
    lengths: Tensor


class Timed(LightningModule):
    """A training step takes a second, a validation step a hundred."""

    def __init__(self, clock: "Clock") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.clock = clock

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.clock.now += 1.0
        return self.weight

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.now += 100.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Log(Callback):
    def __init__(self) -> None:
        self.rates: list[float | None] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        rate = trainer.callback_metrics.get("words_per_second")
        self.rates.append(None if rate is None else float(rate))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def fit(clock: Clock, batches: Any, *callbacks: Callback, **options: Any) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **{"max_epochs": 1, "log_every_n_steps": 2, **options},
    )
    data: Any = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer.fit(Timed(clock), data, data)


class Waited(Callback):
    """The logged shares of waiting and efficiencies."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.efficiencies: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if "data_wait_share" in trainer.callback_metrics:
            self.shares.append(float(trainer.callback_metrics["data_wait_share"]))
            self.efficiencies.append(float(trainer.callback_metrics.get("scaling_efficiency", 0.0)))


class Slow(torch.utils.data.Dataset[Batch]):
    """Reading a batch takes three seconds, while a step takes one."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count = clock, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        self.clock.now += 3.0
        return lengths(8)


def lengths(*values: int) -> Batch:
    return Batch(torch.tensor(values))


def test_the_rate_is_that_of_the_steps_since_it_was_read_last(clock: Clock) -> None:
    counter, log = Throughput("word"), Log()

    fit(clock, [lengths(3, 5), lengths(4, 0), lengths(10), lengths(20), lengths(7)], counter, log)

    assert log.rates == [None, 6.0, 6.0, 15.0, 15.0]


def test_the_totals_hold_every_batch_and_no_validation(clock: Clock) -> None:
    counter = Throughput()

    fit(clock, [lengths(3, 5), lengths(4, 0), lengths(10)], counter, max_epochs=2, val_check_interval=1)

    assert (counter.total, counter.seconds) == (44, 6.0)
    assert counter.rate == pytest.approx(44 / 6)


def test_accumulated_batches_all_count(clock: Clock) -> None:
    counter, log = Throughput("word"), Log()

    fit(clock, [lengths(index) for index in range(1, 9)], counter, log, accumulate_grad_batches=2)

    assert log.rates == [None, None, None, 2.5, 2.5, 2.5, 2.5, 6.5]
    assert counter.total == 36


def test_batches_without_lengths_are_said_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    counter = Throughput()

    fit(clock, [torch.ones(3)] * 4, counter)

    assert [record.message for record in caplog.records if "Throughput" in record.message] == [
        "Throughput is disabled: a Tensor has no lengths"
    ]
    assert counter.rate == 0.0


def test_the_share_of_waiting_is_that_of_reading(clock: Clock) -> None:
    counter, waited = Throughput("word", single_process_rate=4.0), Waited()

    fit(clock, Slow(clock, 7), counter, waited, max_steps=7, limit_val_batches=0)

    # The first batches are read before the clock starts, and Lightning reads one batch ahead.
    assert waited.shares[-1] == pytest.approx(3 / 4)
    assert counter.wait_share == pytest.approx(counter._waited / counter.seconds)
    assert counter.rate == pytest.approx(counter.total / counter.seconds)
    assert waited.efficiencies[-1] == pytest.approx(2.0 / 4.0)


def test_a_profiler_of_the_user_stays(clock: Clock) -> None:
    waited = Waited()

    fit(clock, [lengths(1)] * 4, Throughput("word"), waited, profiler="simple")

    assert waited.shares == []


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_the_rate_of_one_process_is_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="single_process_rate"):
        Throughput(single_process_rate=rate)
