"""Run an experiment of the guide: `python docs/guide/run.py NAME` measures, and draws what it measured.

The numbers go to docs/guide/data/NAME.json and the pictures to docs/guide/images. `--draw` draws them again from the
numbers that are there, and `--short` runs a shortened form that changes neither and prints its numbers.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

GUIDE = Path(__file__).resolve().parent
sys.path.insert(0, str(GUIDE))
NAMES = sorted(path.stem for path in (GUIDE / "experiments").glob("*.py") if not path.stem.startswith("_"))


def rounded(value: Any) -> Any:
    """Round all numbers of plain data to four digits, so that a data file stays small."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def experiment(name: str) -> ModuleType:
    """Return the module of an experiment: `measure(short)` returns plain data, and `draw(data)` yields pictures."""
    return import_module(f"experiments.{name}")


def measured(name: str, *, short: bool) -> dict[str, Any]:
    """Run an experiment and return its numbers as they would be read from its file."""
    return json.loads(json.dumps(rounded(experiment(name).measure(short))))


def write(name: str, data: dict[str, Any]) -> None:
    """Write the numbers of an experiment, one line for each entry, so that a change can be read."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in data.items()]
    (GUIDE / "data" / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def pictures(name: str) -> Iterator[Path]:
    """Draw an experiment from its file, and yield the paths of its pictures and pages."""
    data = json.loads((GUIDE / "data" / f"{name}.json").read_text())
    for picture, drawn in experiment(name).draw(data):
        path = GUIDE / "images" / f"{picture}{drawn.suffix}"
        drawn.save(path)
        yield path


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--draw", action="store_true", help="draw from the numbers that are there")
    parser.add_argument("--short", action="store_true", help="run a shortened form and print its numbers")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"there is no experiment {', '.join(unknown)}; choose of {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        if arguments.short:
            print(json.dumps({name: measured(name, short=True)}, indent=1))
            continue
        if not arguments.draw:
            write(name, measured(name, short=False))
        for path in pictures(name):
            print(path)


if __name__ == "__main__":
    main()
