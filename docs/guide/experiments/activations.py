"""Chapter on the equation: the activation φ, and what W and U do, on a network of one unit; then φ on a task."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from experiments._drawing import INK, Picture, line, panels
from experiments._training import train
from unrolled import ElmanCell, Recurrent
from unrolled.cells.activations import ACTIVATIONS

FUNCTIONS = ["sigmoid", "tanh", "softsign", "relu"]
INPUT_WEIGHTS = [0.5, 2, 20]
RECURRENT_WEIGHTS = [0.5, 0.9, 1.0, 1.5]


def one_unit(w: float, u: float, inputs: Tensor, activation: str = "tanh") -> list[float]:
    """Return h_t of Elman's network with one unit, the weights w and u, and no bias."""
    network = Recurrent(lambda i, h: ElmanCell(i, h, activation=activation), 1, 1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(w if "weight_ih" in name else u if "weight_hh" in name else 0.0)
        return network(inputs.view(1, -1, 1))[0].flatten().tolist()


def measure(short: bool) -> dict[str, Any]:
    """Return curves of φ, states of single units, and validation accuracy by epoch with each φ."""
    x = torch.linspace(-4, 4, 81, requires_grad=True)
    functions = {}
    for name in FUNCTIONS:
        y = ACTIVATIONS[name](x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        functions[name] = {"value": y.tolist(), "slope": slope.tolist()}
    wave = torch.sin(torch.arange(40) * math.tau / 20)
    pulse = torch.eye(1, 30)[0]
    runs = {}
    for name in FUNCTIONS:
        given = ["experiment=guide/activations", f"model.cell.activation={name}"]
        trained = train(*given, *["trainer.max_epochs=4"] * short)
        runs[name] = trained.curve("validation/accuracy")[1]
    return {
        "x": x.tolist(),
        "functions": functions,
        "wave": wave.tolist(),
        "input_weights": {w: one_unit(w, 0.0, wave) for w in INPUT_WEIGHTS},
        "recurrent_weights": {u: one_unit(1.0, u, pulse) for u in RECURRENT_WEIGHTS},
        "accuracy": runs,
    }


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield φ with its slope, the effect of large weights, and the learning curves."""
    figure, (left, right) = panels(2)
    for number, (name, curve) in enumerate(data["functions"].items()):
        left.plot(data["x"], curve["value"], **line(number), label=name)
        right.plot(data["x"], curve["slope"], **line(number))
    left.set(title="φ(x)", xlabel="x", ylim=(-1.3, 2.2))
    right.set(title="slope φ′(x)", xlabel="x", ylim=(-0.1, 1.2))
    left.legend()
    yield "activations", Picture([figure])

    figure, (left, right) = panels(2)
    left.plot(data["wave"], color=INK, linewidth=1, label="input")
    for number, (w, states) in enumerate(data["input_weights"].items()):
        left.plot(states, **line(number), label=f"W = {w}")
    for number, (u, states) in enumerate(data["recurrent_weights"].items()):
        right.plot(states, **line(number), marker="o", markersize=2.5, label=f"U = {u}")
    left.set(title="a wave, no memory (U = 0)", xlabel="step t", ylabel="$h_t$", ylim=(-1.1, 1.9))
    right.set(title="one pulse at t = 0 (W = 1)", xlabel="step t", ylim=(-0.05, 1))
    left.legend(loc="upper center", ncols=2, fontsize=8)
    right.legend()
    yield "weights", Picture([figure])

    figure, (axes,) = panels(1, width=5)
    for number, (name, values) in enumerate(data["accuracy"].items()):
        axes.plot(range(1, len(values) + 1), values, **line(number), label=name)
    axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1))
    axes.legend()
    yield "activations_digits", Picture([figure])
