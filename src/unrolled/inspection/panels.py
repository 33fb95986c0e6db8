"""Figures as plain data, without a drawing library: what is drawn, its axes, and a sentence that says what to see."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Lines(NamedTuple):
    """Curves over a common axis, by name. NaN interrupts a curve."""

    x: Sequence[float]
    curves: Mapping[str, Sequence[float]]
    x_label: str
    y_label: str
    log_y: bool = False


class Points(NamedTuple):
    """Groups of points (x, y), by name, within the unit square."""

    groups: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str
    y_label: str


class Heatmaps(NamedTuple):
    """Matrices (rows, columns) of values with names, one below another, on a common axis of columns."""

    maps: Mapping[str, tuple[Tensor, float, float]]  # with the values of black and of white
    x_label: str
    y_label: str
    columns: Sequence[str] = ()  # names of the columns, such as characters
    rows: Sequence[str] = ()
    first: int = 1  # number of the first column


class Symbols(NamedTuple):
    """A text in symbols, each with a strength from −1 to 1."""

    symbols: Sequence[str]
    strengths: Sequence[float]


class Table(NamedTuple):
    """Rows of text below a heading."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


Panel = Lines | Points | Heatmaps | Symbols | Table


class Figure(NamedTuple):
    """A panel with its title and a sentence that says what to see."""

    title: str
    sentence: str
    panel: Panel
