"""Forecasters: padding, missing numbers, normalization, and the published networks written again."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AutoregressiveForecaster,
    DirectForecaster,
    Forecaster,
    GRUCell,
    LinearForecaster,
    LSTMCell,
    NormalHead,
    NumbersHead,
    QuantileHead,
    Recurrent,
    SegmentForecaster,
    StudentTHead,
)

CORE = partial(Recurrent, GRUCell, hidden_size=8, backend="loop")
MAKE: dict[str, Any] = {
    "direct": partial(DirectForecaster, core=CORE),
    "autoregressive": partial(AutoregressiveForecaster, core=CORE),
    "segments": partial(SegmentForecaster, core=CORE, context=10, segment_size=4, hidden_size=8),
    "linear": partial(LinearForecaster, context=10, kernel_size=3),
}
HEADS: dict[str, Any] = {
    "quantile": partial(QuantileHead, quantiles=(0.1, 0.5, 0.9)),
    "normal": NormalHead,
    "student_t": StudentTHead,
    "mean": NumbersHead,
}
SIZES: Any = {"past_covariates": 1, "future_size": 3, "num_targets": 2, "horizon": 6}
LENGTHS = torch.tensor([12, 7, 1])


def windows(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    past = torch.randn(3, 12, 8, generator=generator)
    past[..., 2:4] = (past[..., 2:4] > -0.8).float()
    past[..., :2] *= past[..., 2:4]
    future, targets = torch.randn(3, 6, 3, generator=generator), torch.randn(3, 6, 2, generator=generator)
    return past, future, targets, torch.rand(3, 6, 2, generator=generator) > 0.3


def made(kind: str, head: str = "normal", **options: Any) -> Forecaster:
    torch.manual_seed(0)
    return MAKE[kind](**SIZES, head=HEADS[head], **options).eval()


@pytest.mark.parametrize("normalization", ["none", "last", "standard"])
@pytest.mark.parametrize("kind", MAKE)
def test_padding_and_missing_targets_never_matter(kind: str, normalization: str) -> None:
    network = made(kind, normalization=normalization)
    past, future, targets, mask = windows()
    broken = targets.masked_fill(~mask, torch.nan)
    for row, length in enumerate(LENGTHS.tolist()):
        past[row, length:] = torch.nan

    loss = network.loss(past, future, broken, mask, LENGTHS)
    loss.total.backward()

    alone = [
        network.loss(past[n : n + 1, :length], future[n : n + 1], targets[n : n + 1], mask[n : n + 1]).total
        for n, length in enumerate(LENGTHS.tolist())
    ]
    torch.testing.assert_close(loss.total, torch.stack(alone).sum(), rtol=1e-5, atol=1e-5)
    assert int(loss.count) == int(mask.sum())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", MAKE)
def test_a_forecast_follows_the_units_of_its_window(kind: str, head: str) -> None:
    network = made(kind, head, normalization="standard").double()
    past, future, *_ = (each.double() for each in windows()[:2])
    observed = past[..., 2:4]
    moved = torch.cat([(past[..., :2] * 50 + 1000) * observed, past[..., 2:]], -1)
    levels = () if head == "mean" else (0.1, 0.5, 0.9)
    options: Any = {"levels": levels, "num_samples": 20}

    one, other = (
        network.forecast(
            each, future, LENGTHS[:2].repeat(2)[:3] * 0 + 12, generator=torch.Generator().manual_seed(1), **options
        )
        for each in (past, moved)
    )

    assert one.values.shape == (3, 6, 2)
    assert one.quantiles.shape == (3, 6, 2, len(levels))
    torch.testing.assert_close(other.values, one.values * 50 + 1000, rtol=1e-3, atol=0.1)  # ε of the deviation
    torch.testing.assert_close(other.quantiles, one.quantiles * 50 + 1000, rtol=1e-3, atol=0.1)
    assert bool((one.quantiles.diff(dim=-1) >= 0).all())


def test_forecasts_of_an_autoregressive_network_are_those_of_its_parameters_step_by_step() -> None:
    network = made("autoregressive", "mean")
    past, future, *_ = windows()
    found = network.forecast(past, future, LENGTHS).values

    read: list[Tensor] = []  # teacher forcing on its own predictions gives the same predictions
    for step in range(6):
        fed = torch.stack([*read, *[torch.zeros(3, 2)] * (6 - step)], 1)
        parameters = network(past, future, LENGTHS, targets=fed)
        read.append(network.head.predict(parameters)[:, step].squeeze(-1).detach())
    torch.testing.assert_close(found, torch.stack(read, 1), rtol=1e-5, atol=1e-5)


def test_samples_of_one_step_have_the_predicted_quantiles() -> None:
    network = MAKE["autoregressive"](**{**SIZES, "horizon": 1}, head=NormalHead).eval()
    past, future, *_ = windows()
    parameters = network(past, future[:, :1], LENGTHS)
    expected = network.head.quantiles_at(parameters, (0.1, 0.5, 0.9)).squeeze(-2)

    generator = torch.Generator().manual_seed(0)
    found = network.forecast(
        past, future[:, :1], LENGTHS, levels=(0.1, 0.5, 0.9), num_samples=8000, generator=generator
    )

    torch.testing.assert_close(found.quantiles, expected.detach(), rtol=0, atol=0.08)


def test_the_segment_forecaster_is_the_published_network() -> None:
    """SegRNN as its authors' text defines it, with torch.nn.GRU, on whole segments."""
    network = SegmentForecaster(
        0, 0, 3, 8, NumbersHead, partial(Recurrent, GRUCell), context=12, segment_size=4, hidden_size=6
    ).eval()
    x = torch.randn(5, 12, 3)
    gru, state = nn.GRU(6, 6, batch_first=True), network.core.state_dict()
    gru.load_state_dict({f"{name.rpartition('.')[2]}_l0": value for name, value in state.items()})

    last = x[:, -1:]
    rows = (x - last).permute(0, 2, 1).reshape(15, 3, 4)
    _, h = gru(torch.relu(network.embedding(rows)))
    assert network.targets is not None
    queries = torch.cat([network.positions.repeat(3, 1), network.targets.repeat_interleave(2, 0)], -1).repeat(5, 1)
    outputs, _ = gru(queries.unsqueeze(1), h.repeat_interleave(2, 1))
    y = network.head.linear(outputs.squeeze(1)).view(5, 3, 8).permute(0, 2, 1) + last

    past = torch.cat([x, torch.ones_like(x)], -1)
    found = network.forecast(past, x.new_zeros(5, 8, 0)).values
    torch.testing.assert_close(found, y.detach(), rtol=1e-5, atol=1e-5)


def test_the_linear_forecaster_is_dlinear() -> None:
    network = LinearForecaster(0, 0, 2, 4, NumbersHead, context=9, kernel_size=5).eval()
    nn.init.normal_(network.head.linear.weight)
    x = torch.randn(3, 9, 2)
    front, end = x[:, :1].repeat(1, 2, 1), x[:, -1:].repeat(1, 2, 1)
    trend = torch.stack([torch.cat([front, x, end], 1)[:, t : t + 5].mean(1) for t in range(9)], 1)
    seasonal_weight, trend_weight = network.head.linear.weight[:, 9:], network.head.linear.weight[:, :9]
    y = (x - trend).mT @ seasonal_weight.T + trend.mT @ trend_weight.T + network.head.linear.bias

    found = network.forecast(torch.cat([x, torch.ones_like(x)], -1), x.new_zeros(3, 4, 0)).values

    torch.testing.assert_close(found, y.mT.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["direct", "autoregressive", "segments"])
def test_each_learns_a_wave(kind: str) -> None:
    core = partial(Recurrent, LSTMCell, hidden_size=24, backend="loop")
    sizes: Any = {"past_covariates": 0, "future_size": 0, "num_targets": 1, "horizon": 5, "head": NumbersHead}
    options: Any = {"context": 10, "segment_size": 5, "hidden_size": 24} if kind == "segments" else {}
    make: Any = MAKE[kind].func
    torch.manual_seed(0)
    network = make(**sizes, core=core, **options)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    wave = torch.sin(torch.arange(400) * 0.5)
    rows = torch.stack([wave[n : n + 15] for n in range(0, 300, 3)]).unsqueeze(-1)
    past = torch.cat([rows[:, :10], torch.ones(len(rows), 10, 1)], -1)
    future, targets = rows.new_zeros(len(rows), 5, 0), rows[:, 10:]
    for _ in range(150):
        loss = network.loss(past, future, targets, torch.ones_like(targets, dtype=torch.bool)).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    error = (network.eval().forecast(past, future).values - targets).abs().mean()
    assert float(error) < 0.12


def test_wrong_options_are_answered() -> None:
    with pytest.raises(ValueError, match="normalization is 'first', expected one of none, last, standard"):
        made("direct", normalization="first")
    with pytest.raises(ValueError, match="horizon=0: expected 0 or more of the first two, and 1 or more"):
        MAKE["direct"](**{**SIZES, "horizon": 0}, head=NormalHead)
    with pytest.raises(ValueError, match="an even hidden_size"):
        MAKE["segments"](**SIZES, head=NormalHead, hidden_size=7)
    with pytest.raises(ValueError, match="an odd kernel_size"):
        LinearForecaster(**SIZES, head=NormalHead, context=4, kernel_size=2)
    past, future, *_ = windows()
    with pytest.raises(NotImplementedError, match="NumbersHead predicts no quantiles"):
        made("autoregressive", "mean").forecast(past, future, levels=(0.5,))
