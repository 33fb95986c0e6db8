"""One loader for all plans: known batches and scales, and the same ones with workers, after a resume, in two epochs."""

import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from unrolled.processing.text.tokenizers import ByteTokenizer
from unrolled.training.data.buckets import BatchSpec, BucketPlan
from unrolled.training.data.loader import PlannedLoader
from unrolled.training.data.plans import RandomWindowPlan, StreamPlan
from unrolled.training.data.streams import token_window
from unrolled.training.data.tokens import Tokens, write_tokens

START = ByteTokenizer().start


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    generator = np.random.default_rng(0)
    texts = [bytes(generator.integers(97, 123, n).tolist()).decode() for n in (70, 3, 41, 0, 19, 88, 7)]
    return write_tokens(tmp_path_factory.mktemp("tokens") / "text", ByteTokenizer(), texts)


def digest(batches: Iterable[Any]) -> str:
    """A hash of all tensors and numbers, to the last bit."""
    found = hashlib.sha256()
    for field in (field for batch in batches for field in batch[:7]):
        found.update(field.numpy().tobytes() if isinstance(field, torch.Tensor) else repr(field).encode())
    return found.hexdigest()[:16]


# Hashes of the batches of the loaders for streams, random windows and buckets that this loader replaced; of packed
# documents since they are packed.
WINDOWS = [
    ("c387664f1eaea97c", {"rows": 4, "window": 8, "shift": True, "seed": 3}, {}),
    (
        "390915907263502f",
        {"rows": 4, "ranks": 2, "window": 8, "stride": 3, "seed": 1},
        {"rank": 1, "accumulate": 3, "limit": 5},
    ),
    ("8efa0bf65b932aa3", {"rows": 3, "window": 6, "random_length": True, "concatenate": False}, {"accumulate": 2}),
    ("141caaa223411cbf", {"rows": 3, "ranks": 2, "window": 9, "concatenate": False}, {"rank": 1, "restart": True}),
    ("b0b215e025be9e73", {"rows": 1, "ranks": 2, "window": 9}, {"rank": 1, "limit": 0.5}),
]


@pytest.mark.parametrize(("expected", "plan", "options"), WINDOWS)
@pytest.mark.parametrize("workers", [0, 2])
def test_windows_and_scales_are_the_known_ones(
    tokens: Tokens, expected: str, plan: dict[str, Any], options: dict[str, Any], workers: int
) -> None:
    loader = PlannedLoader(
        StreamPlan(tokens.lengths, **plan), tokens, partial(token_window, start=START), workers=workers, **options
    )

    assert digest(window for _ in range(3) for window in loader) == expected


@pytest.mark.parametrize(("rank", "expected"), [(0, "246afd965796a607"), (1, "f0b638755ff9bc36")])
def test_random_windows_are_the_known_ones(tokens: Tokens, rank: int, expected: str) -> None:
    plan = RandomWindowPlan(len(tokens), length=11, count=7, batch_size=2, ranks=2, seed=5)

    loader = PlannedLoader(plan, tokens, partial(token_window, start=START), rank=rank, restart=True)

    assert digest(loader) == digest(loader) == expected


class Rows(NamedTuple):
    rows: list[int]
    scale: float


def collate(_: None, spec: BatchSpec, scale: float) -> Rows:
    return Rows(spec.rows.tolist(), scale)


def test_buckets_and_scales_are_the_known_ones() -> None:
    generator = np.random.default_rng(0)
    for size in (70, 3, 41, 0, 19, 88, 7):
        generator.integers(97, 123, size)
    sides = generator.integers(1, 20, (50, 2))
    plans = [
        BucketPlan(sides, ranks=2, batch_size=4),
        BucketPlan(sides, ranks=2, batch_tokens=60, counts=sides[:, 1], seed=2),
    ]
    ordered = BucketPlan(sides[:, 0], batch_size=6, shuffle=False)

    loaders = [PlannedLoader(plan, None, collate, rank=rank, accumulate=3, limit=7) for rank, plan in enumerate(plans)]
    found = [digest(batch for _ in range(3) for batch in loader) for loader in loaders]
    scored = PlannedLoader(ordered, None, collate, restart=True)

    assert found == ["f4504930abab3ed1", "16c5333d62126eed"]
    assert digest(batch for _ in range(2) for batch in scored) == "40b0c3abba1e34c4"


class Read(NamedTuple):
    values: torch.Tensor
    names: tuple[str, ...]
    scale: float


def read_files(paths: list[Path], spec: BatchSpec, scale: float) -> Read:
    """Opens files, and augments them with random numbers that follow from the epoch and the example."""
    found: list[torch.Tensor] = []
    for row in spec.rows.tolist():
        noise = torch.rand(8, generator=torch.Generator().manual_seed(hash((spec.epoch, row)) & 0xFFFF))
        found.append(torch.tensor(list(paths[row].read_bytes())) + noise)
    return Read(torch.stack(found), tuple(paths[row].name for row in spec.rows.tolist()), scale)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.bin" for number in range(23)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(8))
    return paths


def of_files(files: list[Path], workers: int, **options: Any) -> PlannedLoader[list[Path], BatchSpec, Read]:
    plan = BucketPlan([8] * len(files), batch_size=3, seed=4)
    return PlannedLoader(plan, files, read_files, accumulate=2, workers=workers, **options)


def test_batches_are_bit_equal_with_and_without_workers_and_after_a_resume(files: list[Path]) -> None:
    expected = [batch for loader in [of_files(files, 0)] for _ in range(2) for batch in loader]
    for workers in (1, 2, 5, 20):
        loader = of_files(files, workers)
        head = list(islice(loader, 3))  # an epoch left in its middle, with batches that workers have read ahead
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = of_files(files, workers=2)

        resumed.load_state_dict(state)
        tail = [batch for _ in range(2) for batch in resumed]

        assert digest(head + tail) == digest(expected)
        assert state == {"epoch": 0, "position": 3}


def test_signals_to_workers_leave_a_run_its_batches(files: list[Path]) -> None:
    """SLURM may send the warning of a job, and SIGTERM, to all processes of a step."""
    expected = list(of_files(files, workers=0))
    found: list[Read] = []
    for batch in of_files(files, workers=1):
        found.append(batch)
        for number in ("USR1", "TERM", "INT"):
            subprocess.run(["kill", f"-{number}", *(str(each.pid) for each in multiprocessing.active_children())])

    assert len(found) == len(expected)
    assert all(torch.equal(one.values, other.values) for one, other in zip(found, expected, strict=True))
    assert multiprocessing.active_children() == []


def test_a_process_ends_although_its_workers_have_not_finished(tmp_path: Path) -> None:
    """As after an error, whose traceback keeps the batches."""
    script = tmp_path / "script.py"
    script.write_text(
        "from unrolled.training.data.buckets import BucketPlan\n"
        "from unrolled.training.data.loader import PlannedLoader\n"
        "def collate(store, item, scale): return item\n"
        "batches = iter(PlannedLoader(BucketPlan([1] * 99, batch_size=1), None, collate, workers=2))\n"
        "next(batches)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])

    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": path}, timeout=120)

    assert done.returncode == 0


def test_workers_draw_nothing_from_the_generators_of_training(files: list[Path]) -> None:
    """A resumed epoch starts new workers, which would otherwise move the dropout masks after it."""
    torch.manual_seed(1)
    random.seed(1)
    list(of_files(files, 0))
    expected = torch.rand(1), random.random()
    torch.manual_seed(1)
    random.seed(1)

    list(of_files(files, 2))

    assert (torch.rand(1), random.random()) == expected


def test_an_error_in_a_worker_names_the_file(files: list[Path]) -> None:
    files[5].unlink()

    with pytest.raises(FileNotFoundError, match=r"5\.bin"):
        list(of_files(files, 2))


def test_workers_below_zero_are_refused(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="workers=-1 0 or more"):
        of_files(files, -1)
