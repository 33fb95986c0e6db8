"""Computes the figures of a report from a network that has run on a source."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.cells.base import Cell
from unrolled.checkpoint import Bundle
from unrolled.deployment.inspecting.page import page
from unrolled.deployment.inspecting.running import subject
from unrolled.deployment.inspecting.subjects import START, Explained, Subject, quoted
from unrolled.inspection.figures import (
    activity_figure,
    gradient_figure,
    jacobian_figures,
    layer_name,
    memory_figure,
    saturation_figure,
    time_constant_figure,
)
from unrolled.inspection.gradients import by_lag, saliency, state_gradients
from unrolled.inspection.jacobians import spectral_norms, spectral_radii, state_jacobians
from unrolled.inspection.memory import effective_context, loss_by_history, memory_capacity
from unrolled.inspection.panels import Figure, Lines, Symbols, Table
from unrolled.inspection.recorder import CellRecord, record
from unrolled.inspection.units import find_units
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import Decoder
from unrolled.state import leaves, rebuild
from unrolled.wording import counted

PROPERTIES = {
    "inside quotation marks": r'"[^"\n]*"',
    "upper-case letter": r"[A-Z]",
    "digit": r"[0-9]",
    "white space": r"\s",
    "vowel": r"[aeiou]",
    "inside parentheses": r"\([^()\n]*\)",
}
"""Properties of text that units are searched for by default, as regular expressions."""

_FEWEST_SYMBOLS = 50  # of a text in which units are searched for
_LARGEST_STATE = 2048  # features of a state whose Jacobians are computed


def inspection_report(
    bundle: Bundle,
    source: Any = None,
    *,
    find: Sequence[str] = (),
    name: str = "network",
    generator: torch.Generator | None = None,
) -> str:
    """Return an HTML page that shows what a trained network does with a source.

    Args:
        bundle: a bundle from `load_bundle`.
        source: what the network reads: a text, or what `classify` and `caption` accept; None for a language model,
            which then reads a text that it samples.
        find: regular expressions; units are searched that are active where they match. By default `PROPERTIES`.
        name: the network's name, for the title.
        generator: random number generator on the CPU, for the sample and for the memory capacity.

    Raises:
        ValueError: a network without recurrent cells, or of another kind, a source that can't be read, an invalid
            regular expression.
    """
    properties = {pattern: pattern for pattern in find} or PROPERTIES
    for pattern in properties.values():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"find={pattern!r}: {error}, expected a regular expression") from None
    bundle.network.eval()
    shown = subject(bundle, source, generator)
    facts = {"Network": type(shown.network).__name__, "Layers": _layers(shown), **shown.facts}
    if "data" in bundle.info:
        facts["Trained on"] = str(bundle.info["data"])
    figures = [*shown.figures, *_figures(shown, properties, generator)]
    return page(f"Inside {name}", facts, figures)


def _layers(shown: Subject) -> str:
    cells = (shown.network.get_submodule(each) for each in shown.recording)
    described = [(type(cell).__name__, cast("Cell[Any]", cell).hidden_size) for cell in cells]
    kinds = dict.fromkeys(described)
    return ", ".join(f"{described.count(kind)} × {kind[0]} of {counted(kind[1], 'unit')}" for kind in kinds)


def _figures(shown: Subject, properties: dict[str, str], generator: torch.Generator | None) -> Iterator[Figure]:
    records = list(shown.recording.values())
    yield from _saliency(shown)
    yield from _found_units(shown, properties)
    for each in records:
        longest = int(each.mask.sum(1).argmax())  # of the words that an embedding spells
        yield activity_figure(each, row=longest, symbols=_symbols(shown, each))
    found = [*map(saturation_figure, records), time_constant_figure(records)]
    yield from (figure for figure in found if figure is not None)
    yield from (found for found in (_gradients(shown, each) for each in shown.explained) if found is not None)
    yield from _jacobians(shown, records)
    yield from _memory(shown, records, generator)
    yield from _context(shown)


def _symbols(shown: Subject, one: CellRecord) -> Sequence[str]:
    return next((names for part, names in shown.symbols.items() if one.cell.startswith(part)), ())


def _first(shown: Subject) -> CellRecord | None:
    """Return the record of the cell that reads the source."""
    known = (one for one in shown.recording.values() if one.cell.startswith(shown.saliency_of))
    return next((one for one in known if one.layer == 0 and one.inputs is not None), None)


def _saliency(shown: Subject) -> Iterator[Figure]:
    first, explained = _first(shown), shown.explained[0]
    if first is None or first.inputs is None:
        return
    inputs = first.inputs
    weights = saliency(explained.number, inputs)[0][first.mask[0]].tolist()
    if explained.is_loss:
        weights = [-weight for weight in weights]  # what lowers the loss speaks for the text
    names = _symbols(shown, first)
    most = max(range(len(weights)), key=lambda place: abs(weights[place]))
    where = f"{quoted(names[most])} at step {most + 1}" if names else f"step {most + 1}"
    does = "lower" if explained.is_loss else "raise"
    sentence = (
        f"Gradient times input of {explained.what}: what each step contributes to {does} it, to first order. The most "
        f"comes from {where}."
    )
    if names:
        more = " More shade is more; underlined symbols do the opposite."
        yield Figure("What each symbol contributes", sentence + more, Symbols(names, weights))
    else:
        lines = Lines(list(range(1, len(weights) + 1)), {"contribution": weights}, "step", "contribution")
        yield Figure("What each step contributes", sentence, lines)


def _found_units(shown: Subject, properties: dict[str, str]) -> Iterator[Figure]:
    """Search for units that follow a property of the text, and color the text by the best of them."""
    rows: list[tuple[float, str, str, CellRecord, int]] = []
    for one in shown.recording.values():
        names = _symbols(shown, one)
        if len(names) < _FEWEST_SYMBOLS:
            continue
        name = "c" if "c" in one.states else one.states[-1]
        for label, pattern in properties.items():
            holds = _matches(names, pattern)
            if 0.0 < float(holds.double().mean()) < 1.0:
                units, correlations = find_units(one[name][:1].flatten(2), holds[None])
                rows.append((float(correlations[0]), label, name, one, int(units[0])))
    if not rows:
        return
    best = {label: max((r for r in rows if r[1] == label), key=lambda r: abs(r[0])) for label in {r[1] for r in rows}}
    ordered = sorted(best.values(), key=lambda row: -abs(row[0]))
    correlation, label, name, one, unit = ordered[0]
    number = sum(record[of].flatten(2).shape[-1] for of, record in {(row[2], row[3]) for row in rows})
    chance = min((2 * math.log(2 * number) / len(_symbols(shown, one))) ** 0.5, 1.0)
    table = [(what, f"{n}, unit {u}", layer_name(each), f"{r:+.2f}") for r, what, n, each, u in ordered]
    sentence = (
        "For each property the unit of all layers that follows it best: the correlation is 1 or −1 for one that is "
        f"that property. Of {number:,} units that have nothing to do with it, the best would reach about {chance:.2f}."
    )
    yield Figure("Units that follow a property", sentence, Table(("property", "unit", "layer", "correlation"), table))
    values = one[name][0].flatten(1)[one.mask[0], unit]
    centred = (values - values.mean()) * (1.0 if correlation > 0 else -1.0)
    sentence = (
        f"Unit {unit} of {name} in {layer_name(one)} has the correlation {correlation:+.2f} with “{label}”. Shade is "
        f"{'above' if correlation > 0 else 'below'} its mean, underlined is the other side."
    )
    yield Figure("The text, shaded by one unit", sentence, Symbols(_symbols(shown, one), centred.tolist()))


def _matches(names: Sequence[str], pattern: str) -> Tensor:
    """Return for each symbol whether a match of a pattern covers any of its characters."""
    parts = ["" if name == START else name for name in names]
    text, ends = "".join(parts), torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    holds = torch.zeros(len(names), dtype=torch.bool)
    for match in re.finditer(pattern, text):
        for place, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            holds[place] |= begin < match.end() and end > match.start()
    return holds


def _gradients(shown: Subject, explained: Explained) -> Figure | None:
    curves: dict[str, Tensor] = {}
    for one in shown.recording.values():
        if not one.cell.startswith(explained.part):
            continue
        name = "h" if "h" in one.states else one.states[-1]
        norms = state_gradients(one, explained.number, name).flatten(2).norm(dim=-1)[:1]
        valid = int(one.mask[0].sum())
        last = explained.step if explained.step is not None else 0 if one.reverse else valid - 1
        lags = by_lag(norms[:, :valid], torch.tensor([last], device=norms.device), reverse=one.reverse)
        curves[layer_name(one)] = lags[lags.isfinite()].cpu()
    return gradient_figure(curves, loss=explained.what) if curves else None


def _jacobians(shown: Subject, records: Sequence[CellRecord]) -> Iterator[Figure]:
    radii: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}
    steps: list[int] = []
    for one in records:
        if not one.cell.startswith(shown.saliency_of):
            continue
        cell = cast("Cell[Any]", shown.network.get_submodule(one.cell))
        initial = cell.initial_state(1, like=next(cell.parameters()))
        size = sum(leaf.shape[1] for n, leaf in enumerate(leaves(initial)) if n not in cell.counters)
        time = int(one.mask[0].sum())
        if one.inputs is None or size > _LARGEST_STATE or time < 3:
            continue
        number = 40 if size <= 256 else 12 if size <= 512 else 6  # eigenvalues take a second at 1,000
        # All layers at the same steps, from the second to the last but one, so that both directions have a step before.
        steps = torch.linspace(1, time - 2, min(number, time - 2)).round().long().tolist()
        states = [one[name][:1] for name in one.states]
        found: list[Tensor] = []
        for step in steps:
            before = step + 1 if one.reverse else step - 1
            state = rebuild(initial, [leaf[:, before] for leaf in states])
            found.append(state_jacobians(cell, one.inputs[:1, step : step + 1].detach(), state)[0, 0])
        jacobians = torch.stack(found)
        radii[layer_name(one)] = spectral_radii(jacobians).cpu()
        norms[layer_name(one)] = spectral_norms(jacobians).cpu()
    if radii:
        yield from jacobian_figures(radii, norms, steps)


def _memory(
    shown: Subject, records: Sequence[CellRecord], generator: torch.Generator | None, *, max_lag: int = 30
) -> Iterator[Figure]:
    """Drive the layers that read the source with its own inputs in random order, and read past inputs out."""
    first = _first(shown)
    if first is None or first.inputs is None:
        return
    stack_name = first.cell.rpartition(".")[0].rpartition(".")[0]
    stack = shown.network.get_submodule(stack_name)
    known = first.inputs[0][first.mask[0]].detach()
    spread = (known - known.mean(0)).cpu()
    if not isinstance(stack, Recurrent) or float(spread.abs().max()) == 0.0:
        return
    direction = torch.linalg.svd(spread, full_matrices=False).Vh[0].to(known.device)  # along which inputs differ most
    units = max(one["h"].shape[-1] if "h" in one else 0 for one in records)
    rows = 32
    time = max_lag + max(2 * -(-2 * (units + 1) // rows), 40)
    drawn = torch.randint(len(known), (rows, time), generator=generator).to(known.device)
    with torch.no_grad(), record(shown.network) as recording:
        stack(known[drawn])
    curves = {
        layer_name(one): memory_capacity(one["h"], known[drawn] @ direction, max_lag=max_lag)
        for one in recording.values()
        if not one.reverse and "h" in one
    }
    if curves:
        yield memory_figure({name: values.cpu() for name, values in curves.items()})


def _context(shown: Subject) -> Iterator[Figure]:
    if shown.history is None:
        return
    decoder, (inputs, targets) = cast(Decoder, shown.network), shown.history
    longest = min(inputs.shape[1] // 2, 128)
    histories = [2**power for power in range(8) if 2**power <= longest]
    if len(histories) < 2:
        return

    def loss(windows: Tensor, wanted: Tensor) -> Tensor:
        parameters = torch.cat([decoder(part).parameters[:, -1] for part in windows.split(64)])
        return decoder.head.losses(parameters, wanted)

    with torch.no_grad():
        losses = loss_by_history(loss, inputs, targets, histories).cpu()
    enough = effective_context(losses, histories)
    sentence = (
        f"The mean loss of the same {inputs.shape[1] - histories[-1] + 1} predictions when only the last symbols are "
        f"known. With {counted(enough, 'symbol')} it is within 1 % of that with {histories[-1]}: "
        f"{float(losses[histories.index(enough)]):.3f} and {float(losses[-1]):.3f} nats."
    )
    x = [float(history) for history in histories]
    yield Figure("Effective context", sentence, Lines(x, {"loss": losses.tolist()}, "symbols known", "loss (nats)"))
