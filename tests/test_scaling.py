"""The paper part of `benchmarks/scaling.py`, and that docs/scaling.md shows what it computes."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def script() -> Any:
    specification = importlib.util.spec_from_file_location("benchmark_scaling", ROOT / "benchmarks" / "scaling.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


SCALING = script()


@pytest.mark.parametrize("processes", [2, 8, 16, 128])
def test_a_ring_takes_what_its_messages_take(processes: int) -> None:
    size = 12e6
    bandwidth, latency = SCALING.WITHIN if processes <= 8 else SCALING.BETWEEN
    chunks = [[{rank} for _ in range(processes)] for rank in range(processes)]  # whose numbers a chunk sums
    clock = 0.0
    for step in range(2 * (processes - 1)):
        sent = [((rank - step) % processes, rank) for rank in range(processes)]
        values = [chunks[rank][chunk] for chunk, rank in sent]
        for (chunk, rank), value in zip(sent, values, strict=True):
            chunks[(rank + 1) % processes][chunk] = chunks[(rank + 1) % processes][chunk] | value
        clock += latency + size / processes / bandwidth

    assert all(chunk == set(range(processes)) for of_rank in chunks for chunk in of_rank), "everyone has every sum"
    assert SCALING.ring(size, processes) == pytest.approx(clock)


def test_efficiency_is_between_none_and_all_hidden() -> None:
    assert SCALING.efficiency(1.0, 0.0, overlapped=False) == 1.0
    assert SCALING.efficiency(1.0, 1.0, overlapped=False) == pytest.approx(0.5)
    assert SCALING.efficiency(1.0, 2 / 3, overlapped=True) == pytest.approx(1.0)
    assert SCALING.efficiency(3.0, 3.0, overlapped=True) == pytest.approx(0.75)


@pytest.mark.parametrize("task", ["char_lm", "translation"])
def test_parameters_are_those_of_the_experiment(task: str) -> None:
    experiment, sizes, _ = SCALING.REFERENCES[task]
    text = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    (told,) = re.findall(r"([\d,]+) parameters", text)

    assert SCALING.count(experiment, sizes) == int(told.replace(",", ""))


def test_the_page_shows_what_the_script_computes() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()

    assert SCALING.paper(100.0).strip() in page, "python benchmarks/scaling.py paper"
