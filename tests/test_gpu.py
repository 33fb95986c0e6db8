"""`benchmarks/gpu.py`: all its checks on a GPU (`pytest -m gpu`), and its own logic without one."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.py"


def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


GPU: Any = script()
CHECKS = list(GPU.checks(torch.device("cuda")))


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS, ids=[f"{check.group}-{check.name}" for check in CHECKS])
def test_on_a_gpu(check: Any) -> None:
    word, found = check.run()

    if word == "skip":
        pytest.skip(found)
    assert word == "pass", found


def test_every_cell_of_the_package_is_checked() -> None:
    import unrolled

    named = {name for name in unrolled.__all__ if name.endswith("Cell")} - {"Cell"}
    cells = {name for name in named if not getattr(getattr(unrolled, name), "__abstractmethods__", None)}

    assert {f"{name}Cell" for name in GPU.CELLS} == cells


def test_every_task_is_checked() -> None:
    import unrolled_tasks

    folders = {path.parent.name for path in Path(unrolled_tasks.__path__[0]).glob("*/task.py")}

    assert folders - set(GPU.TASKS) <= {"grammar", "long_lag", "regression"}, "other tasks of GeneratedTask"


def test_a_wrong_backend_fails_its_own_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.backends.fused import FusedBackend

    checks = {check.name: check for check in GPU.checks(torch.device("cpu"))}
    run = FusedBackend.run

    def wrong(self: Any, *given: Any) -> Any:
        outputs, state = run(self, *given)
        return outputs * 1.001, state

    monkeypatch.setattr(FusedBackend, "run", wrong)

    assert checks["GRU, fused, float32"].run()[0] == "FAIL"
    assert checks["GRU, loop, float32"].run()[0] == "pass"


def test_an_error_is_a_failed_line() -> None:
    def broken() -> Any:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    word, found = GPU.outcome(GPU.Check("parity", "broken", broken), time.monotonic() + 1000)

    assert (word, found) == ("FAIL", "RuntimeError: CUDA error: an illegal memory access")
    assert GPU.outcome(GPU.Check("parity", "late", broken), time.monotonic() - 1) == (
        "FAIL",
        "not run: the time is over (--seconds)",
    )


def test_the_command_writes_a_table_and_tells_failures_by_its_status(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    output = tmp_path / "gpu.md"
    passed = run("--device", "cpu", "--only", "parity", "--match", "Elman, ", "--output", str(output))
    late = run("--device", "cpu", "--only", "parity", "--match", "Elman, loop, float32", "--seconds", "-1")

    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "8 passed, 0 failed, 1 skipped" in passed.stdout
    assert output.read_text().count("| pass |") == 8
    assert late.returncode == 1
    if not torch.cuda.is_available():
        assert run().returncode == 2
