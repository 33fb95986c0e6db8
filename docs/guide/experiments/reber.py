"""Chapters on nets without memory and on Elman's net: strings of the Reber grammars, symbol by symbol."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from experiments._drawing import INK, Picture, line, panels
from experiments._training import train
from unrolled_tasks.grammar.reber import SYMBOLS, Reber

PLAIN, EMBEDDED = ["feedforward", "elman"], ["elman", "lstm"]
SHOWN = "BTSXXVPSE"  # the string whose predictions are drawn, a Reber string
STRINGS = 200


def probabilities(network: Any, string: str) -> torch.Tensor:
    """Return the probability of each symbol after each symbol of a string but the last, (time, symbols)."""
    ids = torch.tensor([[SYMBOLS.index(symbol) for symbol in string[:-1]]])
    with torch.no_grad():
        return network.eval()(ids)[0].softmax(-1)


def memory(network: Any) -> list[list[float]]:
    """Return, for strings of the embedded grammar, their lengths and the share of T that the right one of T, P gets."""
    random, found = np.random.default_rng(7), []
    for _ in range(STRINGS):
        string = "".join(symbol for symbol, _ in Reber().walk(random))
        at = probabilities(network, string)[len(string) - 3]
        right, wrong = (at[SYMBOLS.index(symbol)].item() for symbol in (string[1], "TP".replace(string[1], "")))
        found.append([len(string), right / (right + wrong)])
    return found


def legal(string: str) -> list[list[bool]]:
    """Return which symbols the grammar allows at each place of a Reber string after its first symbol."""
    random = np.random.default_rng(0)
    while True:
        walked = list(Reber(embedded=False).walk(random))
        if "".join(symbol for symbol, _ in walked) == string:
            return [[symbol in possible for symbol in SYMBOLS] for _, possible in walked[1:]]


def measure(short: bool) -> dict[str, Any]:
    """Return validation curves, predictions for one string, and the certainty about the second T or P."""
    data: dict[str, Any] = {"string": SHOWN, "legal": legal(SHOWN), "plain": {}, "embedded": {}}
    data |= {"prediction": {}, "memory": {}, "test": {}}
    for name in PLAIN:
        trained = train("experiment=guide/reber", f"model={name}")  # seconds, in the short form, too
        data["plain"][name] = trained.curve("validation/exact_match")[1]
        data["prediction"][name] = probabilities(trained.bundle.network, SHOWN).tolist()
        data["test"][f"plain {name}"] = trained.metrics["test/exact_match"]
    for name in EMBEDDED:
        trained = train("experiment=guide/embedded_reber", f"model={name}", *["trainer.max_epochs=4"] * short)
        data["embedded"][name] = trained.curve("validation/exact_match")[1]
        data["memory"][name] = memory(trained.bundle.network)
        data["test"][f"embedded {name}"] = trained.metrics["test/exact_match"]
    return data


def _predictions(data: dict[str, Any]) -> Picture:
    figure, axes = panels(2, sharey=True, height=3.6)
    for panel, name in zip(axes, PLAIN, strict=True):
        table = np.array(data["prediction"][name]).T
        panel.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            if value > 0.04:
                panel.text(column, row, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center",
                           fontsize=7, color="white" if value > 0.5 else "#333333")  # fmt: skip
        for column, allowed in enumerate(data["legal"]):
            for row, yes in enumerate(allowed):
                if yes:
                    panel.add_patch(_box(column, row))
        panel.set(title=name, xlabel="symbol that was read", yticks=range(len(SYMBOLS)), yticklabels=list(SYMBOLS))
        panel.set_xticks(range(len(data["string"]) - 1), list(data["string"][:-1]))
        panel.grid(False)
    axes[0].set(ylabel="next symbol")
    return Picture([figure])


def _box(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor="#d9662b", linewidth=1.6)


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield predictions beside the grammar's truth, learning curves, and the certainty about the second T or P."""
    yield "reber", _predictions(data)
    for picture, kind in (("reber_curves", "plain"), ("embedded_curves", "embedded")):
        figure, (axes,) = panels(1, width=5, height=2.6)
        for count, (name, values) in enumerate(data[kind].items()):
            validations = [(number + 1) / 4 for number in range(len(values))]  # four in an epoch
            axes.plot(validations, values, **line(count), marker="o", markersize=3, label=name)
        axes.set(xlabel="epoch", ylabel="strings right throughout", ylim=(-0.03, 1.05))
        axes.legend()
        yield picture, Picture([figure])
    figure, axes = panels(2, sharey=True, height=2.8)
    for number, (panel, (name, points)) in enumerate(zip(axes, data["memory"].items(), strict=True)):
        panel.scatter(*zip(*points, strict=True), s=9, color=line(number)["color"], alpha=0.6)
        panel.axhline(0.5, color=INK, linestyle=":", linewidth=1)
        panel.set(title=name, xlabel="length of the string", ylim=(-0.03, 1.03))
    axes[0].set(ylabel="p(right) among T and P")
    yield "memory", Picture([figure])
