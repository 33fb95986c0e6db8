"""Chapter on long lags: a cell that counts, made visible."""

from collections.abc import Iterator
from typing import Any

import torch

from experiments._drawing import INK, Picture, line, panels
from experiments._training import train
from unrolled.inspection import record

COUNTS = [10, 40]  # strings aⁿbⁿ; training ends at 10


def measure(short: bool) -> dict[str, Any]:
    """Return the cell states along strings aⁿbⁿ, and the greatest n up to which all strings of the test are right."""
    trained = train("experiment=counting/anbn", *["data.train_size=3000"] * short)
    encoder, network = trained.bundle.processor.source, trained.bundle.network.eval()
    cells = {}
    for count in COUNTS:
        ids = torch.tensor([list(encoder.encode(list("S" + "a" * count + "b" * count)))])
        with torch.no_grad(), record(network) as recording:
            network(ids)
        (found,) = recording.values()
        cells[count] = found["c"][0].T.tolist()
    return {"cells": cells, "largest_n": trained.metrics["test/largest_n"]}


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the cell states of both strings."""
    figure, axes = panels(len(data["cells"]))
    for panel, (count, units) in zip(axes, data["cells"].items(), strict=True):
        for number, values in enumerate(units):
            panel.plot(values, **line(number), label=f"unit {number + 1}")
        panel.axvline(int(count), color=INK, linestyle=":", linewidth=1)
        panel.set(title=f"n = {count}", xlabel="symbols that were read")
    axes[0].set(ylabel="cell state c")
    axes[0].legend()
    yield "counting", Picture([figure])
