"""Chapter on the equation: a network of three units, unrolled step by step, drawn with the states that it computes."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from experiments._drawing import INK, Picture, panels
from unrolled import ElmanCell, Recurrent

INPUTS = [1.0, 0.0, 0.0, -1.0, 0.0]


def measure(short: bool) -> dict[str, Any]:
    """Return the inputs and the states after each step."""
    torch.manual_seed(3)
    network = Recurrent(ElmanCell, 1, 3)
    with torch.no_grad():
        next(p for name, p in network.named_parameters() if "weight_ih" in name).mul_(4)
        states = network(torch.tensor(INPUTS).view(1, -1, 1))[0][0]
    return {"inputs": INPUTS, "states": states.tolist()}


def _node(axes: Axes, x: float, y: float, text: str, alpha: float = 1.0) -> None:
    axes.add_patch(Circle((x, y), 0.3, facecolor="none", edgecolor=INK, linewidth=1.5, alpha=alpha))
    axes.text(x, y, text, ha="center", va="center", alpha=alpha, fontsize=11)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str, alpha: float = 1.0) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4, "alpha": alpha})
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    axes.annotate(text, middle, (4, 4), textcoords="offset points", alpha=alpha, fontsize=9)


def _frame(data: dict[str, Any], steps: int) -> Picture:
    count = len(data["inputs"])
    figure, (axes,) = panels(1, height=2.6)
    axes.set(xlim=(-2.9, count * 1.5 - 0.4), ylim=(-0.5, 2.3), aspect="equal")
    axes.axis("off")
    _node(axes, -2.2, 0, "$x_t$")
    _node(axes, -2.2, 1.2, "$h_t$")
    _arrow(axes, (-2.2, 0.3), (-2.2, 0.9), "W")
    loop = {"arrowstyle": "->", "color": INK, "linewidth": 1.4, "connectionstyle": "arc3,rad=-1.9"}
    axes.annotate("", (-2.05, 0.93), (-2.05, 1.47), arrowprops=loop)
    axes.text(-1.3, 1.2, "U", fontsize=9, va="center")
    for step in range(count):
        x, alpha = step * 1.5, 1.0 if step < steps else 0.2
        _node(axes, x, 0, f"{data['inputs'][step]:g}", alpha)
        _node(axes, x, 1.2, f"$h_{step + 1}$", alpha)
        _arrow(axes, (x, 0.3), (x, 0.9), "W", alpha)
        if step:
            _arrow(axes, (x - 1.2, 1.2), (x - 0.3, 1.2), "U", alpha)
        if step < steps:
            values = "  ".join(f"{value:+.2f}" for value in data["states"][step])
            axes.text(x, 1.88, values.replace("  ", "\n"), ha="center", va="center", fontsize=7.5, linespacing=1.1)
    return Picture([figure])


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield an animation, one frame for each step."""
    frames = [_frame(data, steps).frames[0] for steps in range(len(data["inputs"]) + 1)]
    yield "unrolling", Picture([*frames, frames[-1]], seconds=1.2)
