"""Chapter on Shakespeare: what a language model writes as it learns, and a unit that knows who is speaking."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from matplotlib import colormaps

from experiments._drawing import Picture, line, panels
from experiments._training import train
from unrolled.inspection import find_units, record

PASSAGE = """HAMLET.
To be, or not to be, that is the question.

OPHELIA.
Good my lord, how does your honour?

HAMLET.
I humbly thank you; well, well, well.
"""


def measure(short: bool) -> dict[str, Any]:
    """Return validation losses, the samples after each validation, and the unit that follows the names of speakers."""
    shortened = ["trainer.max_steps=40", "trainer.val_check_interval=20", "task.sample_length=20"]
    trained = train("experiment=guide/shakespeare", *shortened * short)
    tokenizer, network = trained.bundle.processor.source, trained.bundle.network
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode(PASSAGE)]])
    with torch.no_grad(), record(network) as recording:
        network.eval()(ids)
    (found,) = recording.values()
    activity = torch.tanh(found["c"][:, 1:])
    lines = PASSAGE.splitlines(keepends=True)
    speakers = torch.tensor([[bool(re.match(r"[A-Z]+\.$", text)) for text in lines for _ in text]])
    units = find_units(activity, speakers)
    return {
        "validation": trained.curve("validation/loss"),
        "test": trained.metrics["test/bits_per_character"],
        "samples": trained.samples,
        "passage": PASSAGE,
        "unit": units.units[0].item(),
        "correlation": units.correlations[0].item(),
        "activity": activity[0, :, units.units[0]].tolist(),
    }


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the learning curve, and the passage coloured by the unit."""
    figure, (axes,) = panels(1, width=5, height=2.6)
    axes.plot(*data["validation"], **line(0), marker="o", markersize=3)
    axes.set(xlabel="step", ylabel="validation loss")
    yield "shakespeare", Picture([figure])

    figure, (axes,) = panels(1, height=2.6)
    axes.axis("off")
    row, column = 0, 0
    for letter, value in zip(data["passage"], data["activity"], strict=True):
        strength = (1 + (value if data["correlation"] > 0 else -value)) / 2
        color, ink = colormaps["Blues"](0.9 * strength), "white" if strength > 0.6 else "#1a1a1a"
        box = {"facecolor": color, "edgecolor": "none", "pad": 1.5}
        shown = "⏎" if letter == "\n" else letter
        axes.text(column, -row, shown, family="DejaVu Sans Mono", fontsize=10, color=ink, bbox=box)
        row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)
    axes.set(xlim=(-0.5, 46), ylim=(-row + 0.4, 1))
    yield "shakespeare_unit", Picture([figure])
