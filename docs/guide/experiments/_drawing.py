"""How the pictures of the guide look: readable on a light and on a dark page, and without colour."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from unrolled.deployment.inspecting.page import page
from unrolled.inspection.panels import Figure as Panel

INK = "#7d7d7d"  # contrast of 4 to 1 on white and on black
COLORS = [
    "#2f86c5",
    "#d9662b",
    "#2d9d78",
    "#b0708f",
    "#b58900",
    INK,
]  # of like lightness
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]

matplotlib.use("Agg")
matplotlib.rcParams.update(
    {
        "font.size": 10,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "axes.grid": True,
        "grid.color": INK,
        "grid.alpha": 0.25,
        "lines.linewidth": 1.8,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "image.cmap": "viridis",
    }
)


class Picture(NamedTuple):
    """A picture; several frames are an animation with `seconds` for each."""

    frames: list[Figure]
    seconds: float = 1.0
    suffix: str = ".png"

    def save(self, path: Path) -> None:
        """Write a PNG of few colours; its bytes depend on nothing but the figure."""
        first, *others = [_image(figure, 144 if len(self.frames) == 1 else 90) for figure in self.frames]
        more: dict[str, Any] = {}
        if others:  # an animation has one palette for all frames: it keeps its colours instead
            time = {"duration": int(1000 * self.seconds), "loop": 0, "disposal": 1, "blend": 0}
            more = {"save_all": True, "append_images": others, **time}
        else:
            first = first.quantize(128, method=Image.Quantize.FASTOCTREE)
        first.save(path, optimize=True, **more)


class Page(NamedTuple):
    """A page for a browser, as `python -m unrolled inspect` makes them: its title, facts at the top, and figures."""

    title: str
    facts: Mapping[str, str]
    figures: Sequence[Panel]
    suffix: str = ".html"

    def save(self, path: Path) -> None:
        """Write the page."""
        path.write_text(page(self.title, self.facts, self.figures), encoding="utf-8")


def _image(figure: Figure, dpi: int) -> Image.Image:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=dpi, transparent=True, metadata={"Software": None})
    return Image.open(written).convert("RGBA")


def panels(count: int = 1, *, height: float = 3.0, width: float = 7.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels beside each other, as wide as the text of a page."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, **options)[0]
    return figure, list(axes)


def line(number: int) -> dict[str, Any]:
    """Return colour and dashes of the line with a number, so that lines differ without colour as well."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": LINES[number % len(LINES)]}
