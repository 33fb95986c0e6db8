"""The runs of a sweep (-m): a failed run doesn't end the sweep, and a table lists all results."""

import csv
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

TABLE = "results.csv"
FAILED, WRONG_INPUT = 1, 2  # exit statuses


class RunResult(NamedTuple):
    """Result of one run."""

    swept: Mapping[str, str]  # what differs between the runs
    folder: Path
    numbers: Mapping[str, float]
    error: str = ""  # its first line; empty for a run that ended well
    wrong_input: bool = False  # the error was found before the run started


class Sweep:
    """Collects the results of the runs and writes a table after each.

    Args:
        overrides: overrides of the command line; those with several values define the sweep.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        self.keys = [override.get_key_element().lstrip("+") for override in parsed if override.is_sweep_override()]
        self.results: list[RunResult] = []
        self.folder = Path()

    @staticmethod
    def is_running() -> bool:
        """Whether the current run is part of a sweep."""
        return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN

    def succeeded(self, numbers: Mapping[str, float] | None) -> None:
        """Records a successful run and its metrics. Call it within the run."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        self._add(RunResult(self._swept(), folder, {**_validation(folder), **(numbers or {})}))

    def failed(self, error: Exception, answer: tuple[str, int] | None) -> None:
        """Records a failed run and prints its error. Call it within the run.

        Args:
            error: the exception that ended the run.
            answer: message and exit status of the run alone; None to print the traceback.
        """
        if answer is None:
            traceback.print_exception(error)
            message, status = f"{type(error).__name__}: {error}", FAILED
        else:
            message, status = answer
            print("\n".join(message.strip().splitlines()[:6]), file=sys.stderr)
        first = message.strip().splitlines()[0]
        folder = Path(HydraConfig.get().runtime.output_dir)
        self._add(RunResult(self._swept(), folder, {}, first, wrong_input=status == WRONG_INPUT))

    def status(self) -> int:
        """Returns the exit status: 0; 1 if a run failed; 2 if all failures are wrong input."""
        failed = [result for result in self.results if result.error]
        return 0 if not failed else WRONG_INPUT if all(result.wrong_input for result in failed) else FAILED

    def show(self) -> None:
        """Prints the table to stdout and failures to stderr. Removes the folder of unstarted sweeps."""
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        print()
        for row in rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
        failed = [result for result in self.results if result.error]
        if self._table().is_file():
            print(f"\n{self._table()}")
        else:
            _remove_unbegun(self.folder)
        for result in failed:
            asked = " ".join(f"{key}={value}" for key, value in result.swept.items())
            print(f"failed: {asked}: {result.error}", file=sys.stderr)

    def _add(self, result: RunResult) -> None:
        self.results.append(result)
        self.folder = Path(HydraConfig.get().sweep.dir)
        if any(not result.wrong_input for result in self.results):
            partial = self._table().with_name(f"{TABLE}.part")
            with partial.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(self._rows(whole=True))
            partial.replace(self._table())

    def _table(self) -> Path:
        return self.folder / TABLE

    def _swept(self) -> dict[str, str]:
        given = (override.partition("=") for override in HydraConfig.get().overrides.task)
        values = {key.lstrip("+"): value for key, _, value in given}
        return {key: values.get(key, "") for key in self.keys}

    def _rows(self, *, whole: bool = False) -> list[list[str]]:
        """Returns the header and a row for each run; with `whole`, all digits and the errors."""
        names = list(dict.fromkeys(name for result in self.results for name in result.numbers))
        rows = [[*self.keys, *names, "folder", *(["error"] if whole else [])]]
        for result in self.results:
            numbers = (result.numbers.get(name) for name in names)
            shown = ["" if number is None else repr(number) if whole else f"{number:.4f}" for number in numbers]
            inner = os.path.relpath(result.folder, self.folder)
            folder = inner if whole or not result.error else "failed"
            rows.append([*result.swept.values(), *shown, folder, *([result.error] if whole else [])])
        return rows


def _remove_unbegun(folder: Path) -> None:
    """Removes a sweep's folder that contains only Hydra's multirun.yaml, and its parents if they are empty."""
    for note in folder.glob("multirun.yaml"):
        note.unlink()
    for place in (folder, *list(folder.parents)[:3]):
        if not place.is_dir() or place.resolve() == Path.cwd() or any(place.iterdir()):
            break
        place.rmdir()


def _validation(folder: Path) -> dict[str, float]:
    """Returns the best validation score in a run's summary."""
    path = folder / "summary.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("best_validation") if path.is_file() else None
    return {} if found is None else {"best_validation": float(found)}
