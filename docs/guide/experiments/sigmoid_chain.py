"""Chapter on gradients: the sigmoid applied once to four times, and its slope."""

from collections.abc import Iterator
from typing import Any

import torch

from experiments._drawing import Picture, line, panels


def measure(short: bool) -> dict[str, Any]:
    """Return the values and the slopes of the sigmoid, applied one to four times."""
    x = torch.linspace(-6, 6, 121, dtype=torch.float64, requires_grad=True)
    values, slopes, y = [], [], x
    for _ in range(4):
        y = torch.sigmoid(y)
        (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        values.append(y.tolist())
        slopes.append(slope.tolist())
    return {"x": x.tolist(), "values": values, "slopes": slopes, "steepest": [max(slope) for slope in slopes]}


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the curves beside their slopes on a logarithmic axis."""
    figure, (left, right) = panels(2)
    for number, (values, slopes) in enumerate(zip(data["values"], data["slopes"], strict=True)):
        left.plot(data["x"], values, **line(number), label=f"{number + 1} ×")
        right.semilogy(data["x"], slopes, **line(number))
    left.set(title="the sigmoid of the sigmoid of …", xlabel="x", ylim=(0, 1))
    right.set(title="slope", xlabel="x", ylim=(1e-5, 1))
    left.legend()
    yield "sigmoid_chain", Picture([figure])
