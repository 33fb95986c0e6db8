"""Chapter on gradients: their norms by lag, before and after training, and by spectral radius."""

from collections.abc import Iterator
from typing import Any

import torch

from experiments._drawing import Picture, line, panels
from experiments._training import train
from unrolled import Cell, ElmanCell, GRUCell, LSTMCell
from unrolled.inspection import by_lag, record, state_gradients

CELLS = {"elman": ElmanCell, "gru": GRUCell, "lstm": LSTMCell}
RADII = [0.5, 0.9, 1.0, 1.1, 1.5, 2.0]
SIZE, TIME, BATCH = 64, 64, 32


def reach(cell: Cell[Any], inputs: torch.Tensor) -> list[float]:
    """Return ‖∂L/∂state_t‖ by lag T − t = 1, 2, …: the mean over the batch, for L = a random direction · output_T.

    The gradient with respect to the output at T has norm 1. An LSTM has two tensors in its state, h and c; the norm is
    that of both.
    """
    output, state = inputs, None
    with record(cell, graph=True) as recording:
        for now in inputs.unbind(1):
            output, state = cell(now, state)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    loss = (output * torch.nn.functional.normalize(direction, dim=-1)).sum()
    found = recording["cell"]
    norms = torch.cat([state_gradients(found, loss, name) for name in found.states], dim=-1).norm(dim=-1)
    return by_lag(norms, torch.full((len(inputs),), inputs.shape[1] - 1))[1:].tolist()


def with_radius(radius: float, inputs: torch.Tensor, activation: str) -> list[float]:
    """Return the gradient by lag of Elman's network whose recurrent matrix is normal with this spectral radius."""
    cell = ElmanCell(inputs.shape[-1], SIZE, activation=activation)
    with torch.no_grad():
        cell.weight_hh.normal_()
        cell.weight_hh.mul_(radius / torch.linalg.eigvals(cell.weight_hh).abs().max())
    return reach(cell, inputs)


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
        data["before"][name] = reach(cell(1, SIZE), inputs)
        trained = train("experiment=guide/gradients", f"model={name}", *["trainer.max_epochs=2"] * short)
        (core,) = [module for module in trained.bundle.network.modules() if isinstance(module, cell)]
        data["after"][name] = reach(core, inputs)
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
