"""Chapter on gradients: their norms by lag, before and after training, and by spectral radius."""

from collections.abc import Iterator
from typing import Any

import torch

from experiments._drawing import Picture, line, panels
from experiments._gradients import state_gradients
from experiments._training import train
from unrolled import ElmanCell, GRUCell, LSTMCell

CELLS = {"elman": ElmanCell, "gru": GRUCell, "lstm": LSTMCell}
RADII = [0.5, 0.9, 1.0, 1.1, 1.5, 2.0]
SIZE, TIME, BATCH = 64, 64, 32


def with_radius(radius: float, inputs: torch.Tensor, activation: str) -> list[float]:
    """Return the gradient by lag of Elman's network whose recurrent matrix is normal with this spectral radius."""
    cell = ElmanCell(inputs.shape[-1], SIZE, activation=activation)
    with torch.no_grad():
        cell.weight_hh.normal_()
        cell.weight_hh.mul_(radius / torch.linalg.eigvals(cell.weight_hh).abs().max())
    return state_gradients(cell, inputs)


def measure(short: bool) -> dict[str, Any]:
    """Return gradients by lag, and the accuracy that the trained networks reach."""
    torch.manual_seed(1)
    inputs = 0.1 * torch.randn(BATCH, TIME, 1)
    data: dict[str, Any] = {
        "radius": {radius: with_radius(radius, inputs, "tanh") for radius in RADII},
        "radius_linear": {radius: with_radius(radius, inputs, "identity") for radius in RADII},
        "before": {},
        "after": {},
        "accuracy": {},
    }
    for name, cell in CELLS.items():
        data["before"][name] = state_gradients(cell(1, SIZE), inputs)
        trained = train("experiment=guide/gradients", f"model={name}", *["trainer.max_epochs=2"] * short)
        (core,) = [module for module in trained.bundle.network.modules() if isinstance(module, cell)]
        data["after"][name] = state_gradients(core, inputs)
        data["accuracy"][name] = trained.metrics["test/accuracy"]
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield gradients by lag for the three cells, and by spectral radius."""
    figure, axes = panels(2, sharey=True)
    for panel, when in zip(axes, ("before", "after"), strict=True):
        for number, (name, norms) in enumerate(data[when].items()):
            panel.semilogy(range(1, len(norms) + 1), norms, **line(number), label=name)
        panel.set(title=f"{when} training", xlabel="lag T − t", ylim=(1e-12, 1e2))
    axes[0].set(ylabel="‖∂L/∂ state‖")
    axes[0].legend()
    yield "gradients", Picture([figure])

    figure, axes = panels(2, sharey=True)
    for panel, kind in zip(axes, ("radius_linear", "radius"), strict=True):
        for number, (radius, norms) in enumerate(data[kind].items()):
            panel.semilogy(range(1, len(norms) + 1), norms, **line(number), label=f"ρ = {radius}")
        panel.set(xlabel="lag T − t", ylim=(1e-12, 1e12))
    axes[0].set(title="φ(x) = x", ylabel="‖∂L/∂h‖")
    axes[1].set(title="φ = tanh")
    axes[1].legend(fontsize=8)
    yield "spectral_radius", Picture([figure])
