"""BLEU by the length of the source: a table that each test leaves, and a picture of one run or of several.

    python -m unrolled_tasks.translation.lengths additive=outputs/… none=outputs/… lengths.png

Sentences that are too long for one vector show what attention is for (Bahdanau et al. 2015, figure 2).
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unrolled.training.console.outputs import save_figure, write_rows

Rows = Sequence[tuple[str, int, float]]  # words in the source, sentences, BLEU
_HEAD = ("words in the source", "sentences", "BLEU")
_FILE = "lengths.csv"


def write_lengths(rows: Rows, folder: Path) -> None:
    """lengths.csv, and the same as a picture, lengths.png."""
    write_rows(folder / _FILE, [_HEAD, *rows])
    save_figure(folder / "lengths.png", draw_lengths({"BLEU": rows}), dpi=120)


def read_lengths(folder: Path) -> list[tuple[str, int, float]]:
    """What a run left in its folder.

    Raises:
        ValueError: it left nothing.
    """
    path = folder / _FILE
    if not path.is_file():
        raise ValueError(f"there is no {_FILE} in {folder}; a test of task=translation leaves one in its run's folder")
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [(name, int(count), float(score)) for name, count, score in list(csv.reader(file))[1:]]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is not as a test left it: {error}") from None


def draw_lengths(runs: Mapping[str, Rows]) -> Figure:
    """Bars for each class of lengths, side by side for several runs.

    Args:
        runs: names, and the rows of their tables.

    Raises:
        ValueError: runs that were scored on other sentences.
    """
    (first, *others) = runs.values()
    classes = [(name, count) for name, count, _ in first]
    if any([(name, count) for name, count, _ in rows] != classes for rows in others):
        raise ValueError(f"{', '.join(runs)} were scored on different sentences, which nobody can compare")
    figure = Figure(figsize=(2.0 + 1.0 * len(classes), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for number, (name, rows) in enumerate(runs.items()):
        places = [place + (number - (len(runs) - 1) / 2) * width for place in range(len(rows))]
        bars = axes.bar(places, [score for _, _, score in rows], width * 0.95, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(classes)), [f"{name}\n({count:,})" for name, count in classes])
    axes.set_xlabel("words in the source (sentences)")
    axes.set_ylabel("BLEU")
    axes.margins(y=0.15)
    if len(runs) > 1:
        axes.legend(frameon=False)
    return figure


def main(arguments: Sequence[str]) -> int:
    """The command; gives back its exit status."""
    *runs, picture = arguments if len(arguments) > 1 else ("", "")
    named = [run.partition("=") for run in runs]
    if not all(name and folder for name, _, folder in named) or not picture.endswith(".png"):
        print("usage: python -m unrolled_tasks.translation.lengths NAME=FOLDER … PICTURE.png", file=sys.stderr)
        return 2
    try:
        figure = draw_lengths({name: read_lengths(Path(folder)) for name, _, folder in named})
        save_figure(Path(picture), figure, dpi=120)
    except (ValueError, OSError) as error:
        print(f"lengths: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
