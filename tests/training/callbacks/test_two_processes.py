"""What only shows with two processes. One run serves all tests, since starting it takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("two_processes.py")

    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_both_processes_skip_what_one_of_them_cannot_use(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        first, skipped, third, skipped_too, fifth = report["weights"]

        assert skipped == first
        assert third != first
        assert skipped_too == third
        assert fifth != third
        assert report["clip"]["skipped"] == 2
        assert report["drops"] == [1, 3]


def test_the_weights_stay_equal(reports: list[dict[str, Any]]) -> None:
    assert reports[0]["weights"] == reports[1]["weights"]


def test_a_sharded_gradient_has_the_norm_of_the_whole(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["sharded_norm"] == pytest.approx(5.0)  # 5 before, 1 after


def test_the_largest_entry_is_that_of_all_shards_and_some_may_be_empty(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["largest"][:3] == [7.0, 7.0, 1.0]
        assert report["largest"][5] == 0.0  # not finite


def test_the_throughput_counts_both_processes(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["characters"] == 2 * 5 * (2 + 3)


def test_both_processes_roll_back_when_the_loss_of_one_spikes(folder: Path) -> None:
    one, other = (json.loads((folder / f"rollback-{rank}.json").read_text()) for rank in range(2))

    assert one == other
    assert one["rollbacks"] == 1
    assert one["weights"][14] == one["weights"][7]  # copies after 8 and 12 steps; the one before the latest
    assert one["weights"][15] != one["weights"][14]
