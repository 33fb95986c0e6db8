"""Draws panels as SVG, without a drawing library. Colors come from the page, so that they suit light and dark."""

import base64
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from html import escape

import torch
from torch import Tensor

from unrolled.inspection.panels import Heatmaps, Lines, Points, Symbols, Table

WIDTH = 400  # of a drawing, in units that are pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 34
_DASHES = ("", "7 3", "2 2", "9 3 2 3", "1 4", "12 4")  # curves differ without color, too
_MOST_NAMES = 24  # of the rows of a matrix
_MARKS = ("circle", "cross", "square", "triangle")


def lines(panel: Lines) -> str:
    """Draw curves with axes and a legend."""
    legend, height = len(panel.curves), 190
    known = [y for curve in panel.curves.values() for y in curve if math.isfinite(y) and (y > 0 or not panel.log_y)]
    if not known:
        return "<p>There is nothing to draw: all values are 0 or undefined.</p>"
    low, high = _range(known, panel.log_y)
    x_low, x_high = min(panel.x), max(max(panel.x), min(panel.x) + 1)
    across = _scale(x_low, x_high, _LEFT, WIDTH - _RIGHT)
    transform = math.log10 if panel.log_y else float
    up = _scale(transform(low), transform(high), height - _BOTTOM, _TOP)
    parts = _axes(height, panel.x_label, panel.y_label, x_low, x_high, across)
    parts += _y_ticks(_log_ticks(low, high) if panel.log_y else _ticks(low, high), lambda y: up(transform(y)))
    for number, curve in enumerate(panel.curves.values()):
        for piece in _pieces(panel.x, curve, positive=panel.log_y):
            points = " ".join(f"{across(x):.1f},{up(transform(y)):.1f}" for x, y in piece)
            style = f'class="curve c{number % 6}" stroke-dasharray="{_DASHES[number % 6]}"'
            parts.append(
                f'<polyline {style} points="{points}"/>' if len(piece) > 1 else _mark("circle", points, number)
            )
    total = height
    if legend > 1:
        for number, name in enumerate(panel.curves):
            y = height + 14 * number + 6
            style = f'class="curve c{number % 6}" stroke-dasharray="{_DASHES[number % 6]}"'
            parts.append(f'<line {style} x1="{_LEFT}" x2="{_LEFT + 34}" y1="{y}" y2="{y}"/>')
            parts.append(_text(_LEFT + 42, y + 4, name))
        total = height + 14 * legend + 4
    return _svg(total, parts, panel.y_label)


def points(panel: Points) -> str:
    """Draw points in the unit square, with a mark and a legend for each group."""
    side = WIDTH - _LEFT - _RIGHT
    height = side + _TOP + _BOTTOM
    across, up = _scale(0, 1, _LEFT, WIDTH - _RIGHT), _scale(0, 1, height - _BOTTOM, _TOP)
    parts = _axes(height, panel.x_label, panel.y_label, 0.0, 1.0, across)
    parts += _y_ticks(_ticks(0.0, 1.0), up)
    for number, group in enumerate(panel.groups.values()):
        places = dict.fromkeys(f"{across(x):.0f},{up(y):.0f}" for x, y in group)  # marks at one place look like one
        parts += [_mark(_MARKS[number % 4], place, number) for place in places]
    for number, name in enumerate(panel.groups):
        y = height + 14 * number + 6
        parts.append(_mark(_MARKS[number % 4], f"{_LEFT + 8},{y}", number))
        parts.append(_text(_LEFT + 20, y + 4, name))
    return _svg(height + 14 * len(panel.groups) + 4, parts, panel.y_label)


def heatmaps(panel: Heatmaps) -> str:
    """Draw matrices in gray, one below another."""
    parts: list[str] = []
    top = 4
    columns = 0
    for name, (values, low, high) in panel.maps.items():
        rows, columns = values.shape
        named = 0 < len(panel.rows) <= _MOST_NAMES
        height = 12 * rows if named else min(max(6 * rows, 40), 130)
        if name:
            shown = f"{low:.2g} to {high:.2g}" if low >= 0 else f"±{high:.2g}"
            parts.append(_text(_LEFT - 6, top + height / 2, name, "name", "end"))
            parts.append(_text(_LEFT - 6, top + height / 2 + 12, shown, "small", "end"))
        picture = f"data:image/png;base64,{base64.b64encode(png(values, low, high)).decode()}"
        box = f'x="{_LEFT}" y="{top}" width="{WIDTH - _LEFT - _RIGHT}" height="{height}"'
        parts.append(f'<image {box} preserveAspectRatio="none" href="{picture}"/><rect class="frame" {box}/>')
        for number, row in enumerate(panel.rows if named else ()):
            y = top + (number + 0.5) * height / rows
            parts.append(_text(_LEFT - 4, y + 3, _short(row), "small", "end"))
        top += height + 8
    across = _scale(0, max(columns, 1), _LEFT, WIDTH - _RIGHT)
    if 0 < columns <= 60 and panel.columns:
        for number, symbol in enumerate(panel.columns[:columns]):
            x, y = across(number + 0.5), top + 4
            shown = _short(symbol if symbol.isspace() else symbol.rstrip())
            turn = f'transform="rotate(60 {x:.1f} {y})"' if len(shown) > 1 else ""
            parts.append(_text(x, y, shown, "small", "start" if turn else "middle", turn))
        top += 34 if any(len(symbol.rstrip()) > 1 for symbol in panel.columns) else 10
    else:
        for tick in _ticks(panel.first, panel.first + max(columns - 1, 1)):
            if tick == int(tick):
                parts.append(_text(across(tick - panel.first + 0.5), top + 6, f"{tick:g}", "tick", "middle"))
        top += 10
    parts.append(_text((WIDTH + _LEFT) / 2, top + 10, panel.x_label, anchor="middle"))
    return _svg(top + 16, parts, f"{panel.y_label} by {panel.x_label}")


def symbols(panel: Symbols) -> str:
    """Draw a text whose symbols are shaded by their strength; a line below marks negative ones."""
    largest = max((abs(strength) for strength in panel.strengths), default=0.0) or 1.0
    spans: list[str] = []
    for symbol, strength in zip(panel.symbols, panel.strengths, strict=True):
        share = round(abs(strength) / largest, 2)
        kind = "minus" if strength < 0 else "plus"
        shown = escape(symbol).replace("\n", "↵<br>")
        spans.append(f'<span class="{kind}" style="--s:{share:g}" title="{strength:.3g}">{shown}</span>')
    return f'<p class="symbols">{"".join(spans)}</p>'


def table(panel: Table) -> str:
    """Draw a table."""
    heading = "".join(f"<th>{escape(cell)}</th>" for cell in panel.heading)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in panel.rows)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>'


def png(values: Tensor, low: float, high: float) -> bytes:
    """Return a grayscale PNG of a matrix (rows, columns), black at `low` and white at `high`; NaN is mid-gray."""
    shares = ((values.double().cpu() - low) / (high - low)).clamp(0.0, 1.0).nan_to_num(0.5)
    pixels = (shares * 255).round().to(torch.uint8)
    height, width = pixels.shape
    data = b"".join(b"\0" + bytes(row) for row in pixels.tolist())
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of gray
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    written = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def _svg(height: float, parts: Iterable[str], label: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start", more: str = "") -> str:
    named = f'class="{kind}" ' if kind else ""
    return f'<text {named}x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(content)}</text>'


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        low = max(low, high * 1e-12)  # smaller values are rounding
        return (low, high) if high > low * 1.01 else (low / 3, high * 3)
    low = min(low, 0.0)
    return (low, high) if high > low else (low, low + 1.0)


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 6 round numbers between two."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-300) / 2))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between two numbers, at most six; both numbers if there are less than two powers."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last <= first:
        return [float(f"{low:.1g}") if float(f"{low:.1g}") >= low else low, high]
    step = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + 1, step)]


def _axes(
    height: float, x_label: str, y_label: str, low: float, high: float, across: Callable[[float], float]
) -> list[str]:
    bottom = height - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>']
    for tick in _ticks(low, high):
        parts.append(_text(across(tick), bottom + 13, f"{tick:g}", "tick", "middle"))
    parts.append(_text((WIDTH + _LEFT) / 2, bottom + 27, x_label, anchor="middle"))
    middle = (bottom + _TOP) / 2
    turned = f'transform="rotate(-90 10 {middle})"'
    return [*parts, _text(10, middle, y_label, anchor="middle", more=turned)]


def _y_ticks(ticks: Iterable[float], up: Callable[[float], float]) -> list[str]:
    parts: list[str] = []
    for tick in ticks:
        y = up(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 4, y + 3, _number(tick), "tick", "end"))
    return parts


def _number(value: float) -> str:
    """Return a number for an axis; small and large powers of ten as such."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    mantissa, _, power = f"{value:.0e}".partition("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


def _pieces(x: Sequence[float], y: Sequence[float], *, positive: bool) -> list[list[tuple[float, float]]]:
    """Return the parts of a curve between undefined values."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(x, y, strict=True):
        if math.isfinite(value) and (value > 0 or not positive):
            pieces[-1].append((place, value))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _mark(kind: str, place: str, number: int) -> str:
    x, y = (float(part) for part in place.split(","))
    style = f'class="mark c{number % 6}"'
    if kind == "cross":
        return f'<path {style} d="M{x - 3} {y - 3}l6 6m0 -6l-6 6"/>'
    if kind == "square":
        return f'<rect {style} x="{x - 3}" y="{y - 3}" width="6" height="6"/>'
    if kind == "triangle":
        return f'<path {style} d="M{x} {y - 4}l4 7h-8z"/>'
    return f'<circle {style} cx="{x}" cy="{y}" r="3"/>'


def _short(text: str) -> str:
    text = text.replace("\n", "↵").replace("\t", "→") if text.strip() else {" ": "␣", "\n": "↵"}.get(text, text)
    return text if len(text) <= 9 else f"{text[:8]}…"
