"""Compilers and caches that fail, many processes at once, and what compiled code must not do to its process."""

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import random
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import GRUCell, HiddenState, PointwiseCell, unroll
from unrolled.backends import choose, compiled
from unrolled.backends.compiled import build as building
from unrolled.backends.compiled import kernel

INPUTS = torch.zeros(2, 16, 3)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing remembered of another."""

    def forget() -> None:
        kernel._engine.cache_clear()
        building.find_compiler.cache_clear()

    monkeypatch.setattr(compiled, "_known", {})
    monkeypatch.setattr(compiled, "_logged", set())
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path
    forget()


def assert_auto_goes_on_and_says_so_once(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    for cell in (GRUCell(3, 5), GRUCell(3, 6)):
        choice = choose("auto", cell, INPUTS)
        assert choice.backend == "fused"
        with pytest.raises(ValueError, match=reason):
            unroll(cell, INPUTS, backend="compiled")
    said = [record for record in caplog.records if record.name == "unrolled"]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING


def test_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)

    assert_auto_goes_on_and_says_so_once(r"no C\+\+ compiler: c\+\+, g\+\+, clang\+\+ not found on PATH", caplog)


def test_with_a_compiler_that_fails(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = fresh / "broken"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "error: no such processor" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))

    assert_auto_goes_on_and_says_so_once("broken failed: error: no such processor", caplog)


def test_with_a_cache_that_is_no_folder(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (fresh / "file").touch()
    monkeypatch.setenv("UNROLLED_CACHE", str(fresh / "file"))

    assert_auto_goes_on_and_says_so_once("file/compiled cannot be used .* set UNROLLED_CACHE", caplog)


def test_with_a_cache_that_others_may_write_to(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fresh / "cache" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(0o777)

    assert_auto_goes_on_and_says_so_once("may be written by others", caplog)


def test_with_a_full_disk(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f".compiling-{random()}")

    monkeypatch.setattr(building.tempfile, "TemporaryDirectory", full)

    assert_auto_goes_on_and_says_so_once("No space left on device", caplog)


def test_without_a_home(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", "~nobody-has-this-name/cache")

    assert_auto_goes_on_and_says_so_once("the cache ~nobody-has-this-name/cache cannot be used .* set UNROLLED", caplog)


@pytest.mark.distributed
def test_many_processes_compile_once_between_them(fresh: Path) -> None:
    real = building.find_compiler(None, os.environ["PATH"]).path
    script = fresh / "counting"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo x >> {fresh}/calls\nexec {real} "$@"\n')
    script.chmod(0o755)
    code = "import torch; from unrolled import GRUCell, unroll\n"
    code += "print(unroll(GRUCell(3, 5), torch.zeros(2, 4, 3), backend='compiled')[0].shape)"
    source = str(Path(building.__file__).parents[3])
    environment = {**os.environ, "CXX": str(script), "OMP_NUM_THREADS": "1", "PYTHONPATH": source}

    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert answers == ["torch.Size([2, 4, 5])\n"] * 3
    assert (fresh / "calls").read_text() == "x\nx\n"  # the loop over time and the cell
    left = sorted(path.suffix for path in (fresh / "cache" / "compiled").iterdir())
    assert left == [".lock", ".lock", ".so", ".so"]  # nothing half-made


class FunctionCell(PointwiseCell[HiddenState]):
    """One function of the inputs as they are."""

    gates = 1

    def __init__(self, name: str) -> None:
        super().__init__(1, 1)
        self.name = name

    def recurrent_inputs(self, state: HiddenState) -> tuple[Tensor, ...]:
        return ()

    def project(self, inputs: Tensor) -> Tensor:
        return inputs

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        return getattr(torch, self.name)(projected[0]), state


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_functions_are_exact_to_the_last_bits(name: str) -> None:
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0)).int()
    anywhere = bits.view(torch.float32)  # subnormal numbers, infinities and NaN among them
    special = torch.tensor(
        [0.0, -0.0, 1e-45, 0.625, 88.7, 89.0, -87.4, -103.9, -104.1, torch.inf, -torch.inf, torch.nan]
    )
    x = torch.cat([anywhere, torch.linspace(-110, 110, 400_001), torch.linspace(-1, 1, 100_001), special])

    found = unroll(FunctionCell(name), x.view(-1, 1, 1), backend="compiled")[0].flatten()

    exact = getattr(torch, name)(x.double())
    assert torch.equal(found.isnan(), exact.float().isnan())
    finite = exact.float().isfinite()
    assert torch.equal(found[~finite & ~exact.isnan()], exact.float()[~finite & ~exact.isnan()])
    last = torch.nextafter(exact.float().abs(), torch.tensor(torch.inf)).double() - exact.float().abs().double()
    error = ((found.double() - exact).abs() / last)[finite & exact.float().abs().lt(3e38)]
    assert error.max() < 2.5  # units in the last place
    assert error.mean() < 0.5


def test_subnormal_numbers_stay() -> None:
    unroll(GRUCell(3, 5), INPUTS, backend="compiled")[0].sum().backward()

    assert 5e-324 * 1.0 > 0
    assert (torch.full((64,), 1e-40) * 1.0 > 0).all()


def test_importing_torch_alone_is_waited_for() -> None:
    code = "import sys; from unrolled import Recurrent, load_bundle; print('torch._dynamo' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_constant_is_marked_as_torch_marks_it() -> None:
    def function() -> None: ...

    marked = torch.compiler.assume_constant_result(function)

    assert marked is function
    assert vars(function).items() <= vars(compiled._resolve).items()


def test_a_library_is_kept_under_all_that_decides_what_is_in_it(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str = "int f() { return 1; }") -> int:
        building.load("one", f'extern "C" {source}', torch.float32)
        return len(list(fresh.rglob("one-*.so")))

    monkeypatch.setenv("UNROLLED_CACHE", str(fresh / "cache"))
    assert [load(), load(), load("int f() { return 2; }")] == [1, 1, 2]
    monkeypatch.setattr(building, "processor", lambda: "another processor")
    assert load() == 3
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert load() == 4

    def read_only(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(building, "locked", read_only)
    assert load() == 4  # what is there is loaded
    with pytest.raises(building.CompilerError, match="Read-only file system"):
        load("int f() { return 3; }")


def test_an_engine_without_memory_says_so_and_what_for() -> None:
    code = """
import resource, torch
from unrolled import GRUCell, unroll
from unrolled.backends import BACKENDS
cell = GRUCell(3, 2048)
inputs = torch.zeros(1, 16, 3)
torch.set_num_threads(1)
with torch.no_grad():
    BACKENDS["compiled"].refuses(cell, inputs)  # builds the kernel
    taken = 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")))
    resource.setrlimit(resource.RLIMIT_AS, (taken + (20 << 20), resource.RLIM_INFINITY))  # its weights take 48 MiB
    try:
        unroll(cell, inputs, backend="compiled")
    except MemoryError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    expected = "not enough memory for the compiled layer's buffers (batch 1, time 16, input 3, hidden 2048)"
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(("returned", "error"), [(1, MemoryError), (2, RuntimeError), (-11, RuntimeError)])
def test_other_failures_of_the_engine_are_not_called_memory(returned: int, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        kernel._call(lambda _: returned, kernel.Layer())

    assert ("memory" in str(raised.value)) == (returned == 1)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_library_is_compiled_again(fresh: Path, damage: str) -> None:
    """One that was cut short would end the process by SIGBUS when it is loaded."""
    source = 'extern "C" int answer() { return 42; }\n' + "\n".join(
        f'extern "C" double pad{n}(double x) {{ return x * {n}.25 + x / {n + 1}; }}' for n in range(300)
    )
    program = (
        "import sys, torch\nfrom unrolled.backends.compiled import build\n"
        "print(build.load('one', sys.argv[1], torch.float32).answer())"
    )

    def answer() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", program, source], capture_output=True, text=True, timeout=120)

    assert answer().stdout == "42\n"
    (library,) = fresh.rglob("one-*.so")
    content = bytearray(library.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    library.write_bytes({"cut": content[: len(content) // 3], "flip": content, "empty": b""}[damage])

    again = answer()
    assert (again.returncode, again.stdout) == (0, "42\n"), again.stderr
    building.durable.check(library, required=True)
