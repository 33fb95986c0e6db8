"""Figures of a recorded network, as plain data: gates, saturation, time constants, gradients and Jacobians."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from unrolled.inspection.gates import saturation, time_constants
from unrolled.inspection.panels import Figure, Heatmaps, Lines, Points
from unrolled.inspection.recorder import CellRecord

MAX_UNITS = 64  # rows of a heatmap
MAX_SYMBOLS = 60  # columns with names
MAX_STEPS = 400  # columns without names
_BLOCKS = ("projected", "recurrent", "output")
_CANDIDATES = ("g", "n", "m", "hidden")


def layer_name(record: CellRecord) -> str:
    """Return a short name of a record's cell: "encoder, layer 1, backward"."""
    part = record.cell.split(".")[0] if "." in record.cell else ""
    part = "" if part in ("cells", "reverse_cells", "steps", "core") else f"{part}, "
    part += "language core, " if ".language." in record.cell else ""
    part += "spelling, " if ".embedding." in record.cell else ""
    return f"{part}layer {record.layer + 1}{', backward' if record.reverse else ''}"


def bounds(values: Tensor) -> tuple[float, float]:
    """Return the range that values are drawn in: [0, 1] if all are within it, else [−v, v] for 99 % of them."""
    known = values[values.isfinite()].float()
    if len(known) == 0 or (float(known.min()) >= 0.0 and float(known.max()) <= 1.0):
        return 0.0, 1.0
    sizes = known.abs().sort().values
    largest = max(float(sizes[int(0.99 * (len(sizes) - 1))]), 1e-6)
    return -largest, largest


def gate_names(record: CellRecord) -> list[str]:
    """Return the names of the taps whose values are between 0 and 1 everywhere."""
    named = (name for name in record.taps if name not in _BLOCKS and name.split("_l")[0] not in _CANDIDATES)
    return [name for name in named if bounds(record[name]) == (0.0, 1.0)]


def retention_name(record: CellRecord) -> str | None:
    """Return the name of the gate that says how much of the state is kept: "f" or, in a GRU, "z"; None if unknown.

    Of a stack with gated feedback it is that of the last layer.
    """
    return next((name for name in reversed(record.taps) if name.split("_l")[0] in ("f", "z")), None)


def activity_figure(record: CellRecord, *, row: int = 0, symbols: Sequence[str] = ()) -> Figure:
    """Show gates, candidates and states of one sequence: a row for each unit, a column for each step.

    Units are sorted by their mean, and of many units as many as fit are taken at equal distances. Of a long sequence
    the last steps are shown.

    Args:
        record: the record of a cell.
        row: the sequence of the batch.
        symbols: a name for each step, such as its character.
    """
    steps = record.mask[row]
    number = int(steps.sum())
    first = max(number - (MAX_SYMBOLS if symbols else MAX_STEPS), 0)
    names = [name for name in (*record.taps, *record.states) if not name.startswith(("product_", *_BLOCKS))]
    maps: dict[str, tuple[Tensor, float, float]] = {}
    for name in dict.fromkeys(names):
        values = record[name][row, steps].flatten(1).T  # (units, steps)
        ordered = values[values.mean(1).argsort(descending=True)]
        taken = torch.linspace(0, len(ordered) - 1, min(len(ordered), MAX_UNITS)).round().long()
        maps[name] = (ordered[taken, first:], *bounds(values))
    which = f"each column one of the last {number - first} steps" if first else "each column a step"
    sentence = (
        f"Each row is a unit, {which}; units are sorted by their mean. The range of values, from black to white, "
        f"stands beside each map.{_openness(record, row)}"
    )
    heatmaps = Heatmaps(maps, "step", "unit", columns=symbols[first:number], first=first + 1)
    return Figure(f"Activity of {layer_name(record)}", sentence, heatmaps)


def _openness(record: CellRecord, row: int) -> str:
    found: list[str] = []
    for name in gate_names(record):
        values = record[name][row][record.mask[row]]
        found.append(f"{name} is open in {_share(values > 0.9)} and closed in {_share(values < 0.1)}")
    return f" Of all units and steps, {'; '.join(found)} (above 0.9 and below 0.1)." if found else ""


def _share(mask: Tensor) -> str:
    return _percent(float(mask.double().mean()))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def saturation_figure(record: CellRecord) -> Figure | None:
    """Show for each unit of each gate the shares of steps at which it is closed and open; None without gates."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for name in gate_names(record):
        low, high = saturation(record[name].flatten(2))
        groups[name] = list(zip(low.tolist(), high.tolist(), strict=True))
    if not groups:
        return None
    points = [(name, point) for name, group in groups.items() for point in group]
    always = sum(high > 0.9 for _, (_, high) in points)
    never = sum(low > 0.9 for _, (low, _) in points)
    sentence = (
        f"Each mark is a gate of a unit. Of {len(points):,} gates, the number of those that are open (above 0.9) at "
        f"more than 90 % of the steps is {always:,}, and that of closed ones (below 0.1) {never:,}. Those near the "
        "lower left corner are neither."
    )
    return Figure(
        f"Saturation of {layer_name(record)}", sentence, Points(groups, "share of steps closed", "share of steps open")
    )


def time_constant_figure(records: Iterable[CellRecord]) -> Figure | None:
    """Show the time constants of all units, sorted; None for cells without a gate that keeps the state."""
    curves: dict[str, list[float]] = {}
    said: list[str] = []
    longest = 0
    for record in records:
        name = retention_name(record)
        if name is None or bounds(record[name]) != (0.0, 1.0):
            continue
        values = time_constants(record[name].flatten(2)).clamp(max=1e6).sort().values
        curves[layer_name(record)] = values.tolist()
        longest = max(longest, len(values))
        middle, last = float(values.median()), float(values[-1])
        said.append(f"{middle:.3g} steps in {layer_name(record)}, where the longest has {last:.3g}")
    if not curves:
        return None
    x = [100.0 * place / max(longest - 1, 1) for place in range(longest)]
    stretched = {name: _resampled(values, longest) for name, values in curves.items()}
    sentence = f"A unit keeps 1/e of its value for −1/ln f̄ steps. The median unit has {'; '.join(said)}."
    return Figure("Time constants", sentence, Lines(x, stretched, "units, sorted (%)", "steps", log_y=True))


def _resampled(values: Sequence[float], number: int) -> list[float]:
    return [values[round(place * (len(values) - 1) / max(number - 1, 1))] for place in range(number)]


def gradient_figure(curves: Mapping[str, Tensor], *, loss: str) -> Figure:
    """Show norms of gradients by lag.

    Args:
        curves: by the name of a layer, the norm for each lag, as `by_lag` returns it.
        loss: what the gradient is of, for the sentence: "the loss of the last character".
    """
    longest = max(len(values) for values in curves.values())
    padded = {name: [*values.tolist(), *[math.nan] * (longest - len(values))] for name, values in curves.items()}
    said = [f"in {name} {reach(values)}" for name, values in curves.items()]
    sentence = f"The gradient of {loss} with respect to h_t, by the number of steps between them: {'; '.join(said)}."
    positive = {name: [value if value > 0 else math.nan for value in values] for name, values in padded.items()}
    lines = Lines(list(range(longest)), positive, "steps between", "norm of the gradient", log_y=True)
    return Figure("Gradient through time", sentence, lines)


def reach(norms: Tensor, *, share: float = 0.01) -> str:
    """Say after how many steps norms by lag stay below a share of the largest."""
    known = norms.nan_to_num()
    large = (known >= share * known.max()).nonzero()
    if len(large) == 0 or float(known.max()) == 0.0:
        return "it is 0"
    last = int(large[-1])
    if last >= len(known) - 1:
        return f"it is still {_percent(float(known[-1] / known.max()))} of its maximum after all {last} steps"
    return f"it stays below {_percent(share)} of its maximum from {last + 1} steps on"


def jacobian_figures(radii: Mapping[str, Tensor], norms: Mapping[str, Tensor], steps: Sequence[float]) -> list[Figure]:
    """Show the spectral radius and the norm of ∂s_t/∂s_{t-1} at each step.

    Args:
        radii: by the name of a layer, (steps,) the spectral radii.
        norms: likewise, (steps,) the spectral norms.
        steps: the steps at which they were computed.
    """
    of_radii = "A radius below 1 at every step lets what a state holds fade; above 1 it can grow. "
    of_norms = "The norm is how much a step can stretch a change of the state at most. "
    return [
        Figure(
            f"Spectral {kind} of a step",
            f"{meaning}It is {'; '.join(_average(name, one) for name, one in values.items())}.",
            Lines(steps, {name: one.tolist() for name, one in values.items()}, "step", f"{kind} of the Jacobian"),
        )
        for kind, values, meaning in (("radius", radii, of_radii), ("norm", norms, of_norms))
    ]


def _average(name: str, values: Tensor) -> str:
    return f"{float(values.mean()):.3g} on average in {name}, above 1 at {_share(values > 1.0)} of the steps shown"


def memory_figure(curves: Mapping[str, Tensor]) -> Figure:
    """Show memory capacities by lag, by the name of a layer."""
    longest = max(len(values) for values in curves.values())
    said = [f"{float(values[1:].sum()):.1f} steps in {name}" for name, values in curves.items()]
    sentence = (
        "How well a linear readout of the state restores the input of k steps ago, if inputs are drawn independently: "
        f"1 is exactly, 0 not at all. Their sum without the present input, the memory capacity, is {'; '.join(said)}."
    )
    lines = Lines(list(range(longest)), {n: v.tolist() for n, v in curves.items()}, "steps ago", "squared correlation")
    return Figure("Memory capacity", sentence, lines)
