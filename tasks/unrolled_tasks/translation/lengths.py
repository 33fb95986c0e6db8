"""Scores by the length of the source: a table written by each test, and a plot of one or several runs.

    python -m unrolled_tasks.translation.lengths additive=outputs/… none=outputs/… lengths.png

The plot shows the effect of attention on long sentences (Bahdanau et al. 2015, figure 2).
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unrolled.training.console.outputs import save_figure, write_rows

Rows = Sequence[tuple[str, int, float]]  # class of lengths, number of texts, score
Head = tuple[str, str, str]
TEXT_HEAD: Head = ("words in the source", "sentences", "BLEU")
WORD_HEAD: Head = ("letters of the word", "words", "exact %")
_FILE = "lengths.csv"


def write_lengths(rows: Rows, folder: Path, head: Head = TEXT_HEAD) -> None:
    """Writes lengths.csv and its plot, lengths.png. The head names the columns: lengths, texts and score."""
    write_rows(folder / _FILE, [head, *rows])
    save_figure(folder / "lengths.png", draw_lengths({head[2]: rows}, head), dpi=120)


def read_lengths(folder: Path) -> list[tuple[str, int, float]]:
    """Reads the rows of lengths.csv of a run.

    Raises:
        ValueError: the file does not exist or is invalid.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[Head, list[tuple[str, int, float]]]:
    path = folder / _FILE
    if not path.is_file():
        raise ValueError(f"there is no {_FILE} in {folder}; a test of task=translation writes one to its run's folder")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            (lengths, texts, score), *rows = csv.reader(file)
            return (lengths, texts, score), [(name, int(count), float(number)) for name, count, number in rows]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is not a table of a test: {error}") from None


def draw_lengths(runs: Mapping[str, Rows], head: Head = TEXT_HEAD) -> Figure:
    """Draws a bar for each class of lengths and each run.

    Args:
        runs: the rows of each run's table, by name.
        head: names of lengths, texts and score.

    Raises:
        ValueError: the runs were scored on different sentences.
    """
    (first, *others) = runs.values()
    classes = [(name, count) for name, count, _ in first]
    if any([(name, count) for name, count, _ in rows] != classes for rows in others):
        raise ValueError(f"{', '.join(runs)} were scored on different {head[1]} and cannot be compared")
    figure = Figure(figsize=(2.0 + 1.0 * len(classes), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for number, (name, rows) in enumerate(runs.items()):
        places = [place + (number - (len(runs) - 1) / 2) * width for place in range(len(rows))]
        bars = axes.bar(places, [score for _, _, score in rows], width * 0.95, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(classes)), [f"{name}\n({count:,})" for name, count in classes])
    axes.set_xlabel(f"{head[0]} ({head[1]})")
    axes.set_ylabel(head[2])
    axes.margins(y=0.15)
    if len(runs) > 1:
        axes.legend(frameon=False)
    return figure


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    *runs, figure_path = arguments if len(arguments) > 1 else ("", "")
    named = [run.partition("=") for run in runs]
    if not all(name and folder for name, _, folder in named) or not figure_path.endswith(".png"):
        print("usage: python -m unrolled_tasks.translation.lengths NAME=FOLDER … FIGURE.png", file=sys.stderr)
        return 2
    try:
        tables = {name: _read(Path(folder)) for name, _, folder in named}
        heads = {head for head, _ in tables.values()}
        if len(heads) > 1:
            raise ValueError(f"{', '.join(tables)} have different scores and cannot be compared")
        figure = draw_lengths({name: rows for name, (_, rows) in tables.items()}, heads.pop())
        save_figure(Path(figure_path), figure, dpi=120)
    except (ValueError, OSError) as error:
        print(f"lengths: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
