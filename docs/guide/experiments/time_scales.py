"""Many time scales: which units follow which period of a mixed series, and which cell learns it how fast."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments._drawing import Picture, line, panels
from unrolled import ClockworkCell, ElmanCell, GatedFeedbackCell, LSTMCell, Recurrent
from unrolled.inspection import record, time_constants

PERIODS = (6, 24, 96)  # steps
TIME, BATCH, AHEAD, PARAMETERS = 288, 16, 12, 4000
CELLS: dict[str, Any] = {
    "elman": ElmanCell,
    "lstm": LSTMCell,
    "clockwork": partial(ClockworkCell, periods=(1, 4, 16, 64)),
    "gated_feedback": partial(GatedFeedbackCell, feedback_layers=2, unit="lstm"),
}


class Forecaster(nn.Module):
    """Predicts the value of a series some steps ahead, at each step."""

    def __init__(self, cell: Any, size: int) -> None:
        super().__init__()
        self.core = Recurrent(cell, input_size=1, hidden_size=size)
        self.output = nn.Linear(self.core.output_size, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(self.core(inputs)[0])


def phases(generator: torch.Generator, batch: int) -> Tensor:
    """Draw the phase of each period in each series, (batch, periods), from 0 to 1."""
    return torch.rand(batch, len(PERIODS), generator=generator)


def waves(phase: Tensor) -> Tensor:
    """Return the waves of each series, (batch, time, periods); their sum is the series."""
    time = torch.arange(TIME + AHEAD)[None, :, None] / torch.tensor(PERIODS)
    return torch.sin(2 * torch.pi * (time + phase[:, None]))


def network(cell: Any) -> Forecaster:
    """Return the network with the number of parameters closest to the wanted one; sizes are multiples of 4."""
    sizes = range(4, 80, 4)
    made = [Forecaster(cell, size) for size in sizes]
    return min(made, key=lambda one: abs(sum(p.numel() for p in one.parameters()) - PARAMETERS))


def train(model: Forecaster, steps: int) -> list[float]:
    """Train on new series at each step, and return the mean squared error of each step."""
    generator = torch.Generator().manual_seed(2)
    optimizer, errors = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        series = waves(phases(generator, BATCH)).sum(-1, keepdim=True)
        noisy = series[:, :TIME] + 0.3 * torch.randn(BATCH, TIME, 1, generator=generator)
        error = (model(noisy) - series[:, AHEAD:])[:, TIME // 3 :].square().mean()
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
    return errors


def followed(values: Tensor, phase: Tensor) -> list[list[float]]:
    """Return the share of each unit's variance that a wave of each period explains, whatever its phase."""
    late = slice(TIME // 3, TIME)
    centered = values[:, late] - values[:, late].mean(1, keepdim=True)
    sines, cosines = waves(phase)[:, late], waves(phase + 0.25)[:, late]
    shares = []
    for basis in torch.stack([sines, cosines], dim=-1).unbind(2):
        fitted = basis @ torch.linalg.lstsq(basis, centered).solution
        shares.append(fitted.square().sum((0, 1)) / centered.square().sum((0, 1)))
    return torch.stack(shares, dim=-1).tolist()


def measure(short: bool) -> dict[str, Any]:
    """Return errors of training, what each unit follows, and the time constants of the LSTM's forget gates."""
    data: dict[str, Any] = {"periods": PERIODS, "errors": {}, "parameters": {}, "followed": {}}
    for name, cell in CELLS.items():
        torch.manual_seed(1)
        model = network(cell)
        errors = train(model, 60 if short else 800)
        data["errors"][name] = [sum(errors[i : i + 20]) / 20 for i in range(0, len(errors), 20)]
        data["parameters"][name] = sum(p.numel() for p in model.parameters())
        if name not in ("lstm", "clockwork"):
            continue
        phase = phases(torch.Generator().manual_seed(3), 8)
        with torch.no_grad(), record(model.core) as recording:
            model(waves(phase)[:, :TIME].sum(-1, keepdim=True))
        (found,) = recording.values()
        data["followed"][name] = followed(found["c" if "c" in found else "output"], phase)
        if name == "lstm":
            data["time_constants"] = time_constants(found["f"]).tolist()
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the errors of training, and what each unit follows."""
    figure, (axis,) = panels(1, height=2.8)
    for number, (name, errors) in enumerate(data["errors"].items()):
        steps = [20 * (place + 1) for place in range(len(errors))]
        axis.semilogy(steps, errors, **line(number), label=f"{name}, {data['parameters'][name]:,} parameters")
    axis.set(xlabel="training step", ylabel="squared error")
    axis.legend()
    yield "time_scales", Picture([figure])

    figure, axes = panels(2, height=3.4)
    for panel, (name, shares) in zip(axes, data["followed"].items(), strict=True):
        order = range(len(shares))  # of the clockwork network: from the fastest module to the slowest
        if name == "lstm":
            order = sorted(order, key=lambda unit: shares[unit].index(max(shares[unit])))
        panel.imshow([shares[unit] for unit in order], vmin=0, vmax=1, cmap="Blues", aspect="auto")
        panel.set(title=name, xlabel="period, steps", ylabel="unit")
        panel.set_xticks(range(len(data["periods"])), list(map(str, data["periods"])))
        panel.grid(visible=False)
    yield "time_scales_units", Picture([figure])
