"""Chapter on Shakespeare: what a language model writes as it learns, and a unit that knows who is speaking."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from matplotlib import colormaps

from experiments._drawing import Page, Picture, line, panels
from experiments._training import Trained, train
from unrolled.inspection import find_units, record
from unrolled.inspection.panels import Figure, Symbols
from unrolled.training.data.shakespeare import documents

EXPERIMENTS = {"200 units": "guide/shakespeare", "GravesLSTM": "char_lm/graves_shakespeare"}
SPEAKER = re.compile(r"^[A-Z][\w' ]*:$", re.MULTILINE)
SEARCHED, SHOWN, DRAWN = 20_000, 1_500, 11  # characters for the search and on the page, lines of the picture


class Found(NamedTuple):
    """The unit that follows the names of speakers best: its place, its correlation, its value at each character."""

    layer: int
    unit: int
    correlation: float
    values: list[float]


def search(trained: Trained, passage: str) -> Found:
    """Search all units of all layers while the network reads a passage."""
    tokenizer, network = trained.bundle.processor.source, trained.bundle.network
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode(passage)]])
    with torch.no_grad(), record(network) as recording:
        network.eval()(ids)
    named = torch.zeros(1, len(passage), dtype=torch.bool)
    for match in SPEAKER.finditer(passage):
        named[0, match.start() : match.end()] = True
    found = []
    for one in recording.values():
        activity = torch.tanh(one["c"][:, 1:])
        units = find_units(activity, named)
        unit = int(units.units[0])
        found.append(Found(one.layer, unit, float(units.correlations[0]), activity[0, :SHOWN, unit].tolist()))
    return max(found, key=lambda each: abs(each.correlation))


def measure(short: bool) -> dict[str, Any]:
    """Return losses and samples after each validation, and the unit that follows the names of speakers."""
    shortened = ["trainer.max_steps=40", "trainer.val_check_interval=20", "task.sample_length=20"]
    data: dict[str, Any] = {"validation": {}, "test": {}, "samples": {}}
    for name, experiment in EXPERIMENTS.items():
        every = "trainer.val_check_interval=" + ("200" if name == "200 units" else "703")
        trained = train(f"experiment={experiment}", every, "task.sample_length=160", *shortened * short)
        data["validation"][name] = trained.curve("validation/loss")
        data["test"][name] = trained.metrics["test/bits_per_character"]
        data["samples"][name] = trained.samples
    *_, play = documents()  # a play of the test: the network has not seen it
    passage = play[play.index("\n\n", play.index("[Enter")) + 2 :][:SEARCHED]
    return {**data, "passage": passage[:SHOWN], **search(trained, passage)._asdict()}


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture | Page]]:
    """Yield the learning curves, and the passage coloured by the unit as a picture and as a page."""
    figure, (axes,) = panels(1, width=5, height=2.6)
    for number, (name, curve) in enumerate(data["validation"].items()):
        axes.plot(*curve, **line(number), marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel="validation loss (nats)")
    axes.legend()
    yield "shakespeare", Picture([figure])

    strengths = [value if data["correlation"] > 0 else -value for value in data["values"]]
    figure, (axes,) = panels(1, height=2.6)
    axes.axis("off")
    row, column = 0, 0
    lines = "".join(data["passage"].splitlines(keepends=True)[:DRAWN])
    for letter, strength in zip(lines, strengths, strict=False):
        share = (1 + strength) / 2
        color, ink = colormaps["Blues"](0.9 * share), "white" if share > 0.6 else "#1a1a1a"
        box = {"facecolor": color, "edgecolor": "none", "pad": 1.5}
        shown = "⏎" if letter == "\n" else letter
        axes.text(column, -row, shown, family="DejaVu Sans Mono", fontsize=10, color=ink, bbox=box)
        row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)
    axes.set(xlim=(-0.5, 50), ylim=(-row + 0.4, 1))
    yield "shakespeare_unit", Picture([figure])

    mean = sum(strengths) / len(strengths)
    sentence = (
        f"Unit {data['unit']} of layer {data['layer'] + 1}. Shade: the unit takes the letter for part of a speaker's "
        "name. Underlined: it takes it for anything else."
    )
    text = Symbols(list(data["passage"]), [strength - mean for strength in strengths])
    facts = {"Network": "GravesLSTM", "Correlation": f"{data['correlation']:+.2f}".replace("-", "−")}
    yield "shakespeare_unit", Page("Who is speaking?", facts, [Figure("Timon of Athens", sentence, text)])
