"""Speeds of the two kernels that a CPU has for an LSTM, measured once on each machine for each class of calls.

Which one is faster depends on the processor, the sizes, the number of steps and threads, and on whether gradients are
computed: from a third of the other's time to three times it. No fixed rule is right everywhere.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from unrolled import durable
from unrolled.backends.base import Backend
from unrolled.backends.compiled.build import CacheError, cache_folder, check_private, locked, processor
from unrolled.cells.lstm import LSTMCell
from unrolled.modes import observed, transforms
from unrolled.wording import counted

VARIABLE = "UNROLLED_AUTO"  # "measure" or "fixed"
_SECONDS = 0.08  # of one measurement, unless three rounds take longer
MARGIN = 0.98  # the compiled kernel is taken if it needs less than this share of the fused one's time
# A measured call has at most so many steps, and multiplications for each thread, about a quarter of a second: the times
# of longer ones are extrapolated, which misses what caches do. Larger steps are not measured at all.
_MOST_STEPS = 512
_FEWEST_STEPS = 16
_MOST_WORK = 1e10
_MOST_WORK_OF_A_STEP = 1e9


class CallClass(NamedTuple):
    """Calls of a layer that take about the same time: sizes exactly, batch and steps to the nearest power of two."""

    input_size: int
    hidden_size: int
    batch: int
    steps: int
    dtype: torch.dtype
    training: bool
    threads: int

    @classmethod
    def of(cls, cell: LSTMCell, inputs: Tensor) -> "CallClass":
        """Return the class of a call with inputs (batch, time, input)."""
        batch, steps = (2 ** round(math.log2(max(1, size))) for size in inputs.shape[:2])
        training = torch.is_grad_enabled() and (
            inputs.requires_grad or any(weight.requires_grad for weight in cell.parameters())
        )
        threads, dtype = torch.get_num_threads(), cell.weight_ih.dtype
        return cls(cell.input_size, cell.hidden_size, batch, steps, dtype, training, threads)

    def __str__(self) -> str:
        mode = "training" if self.training else "inference"
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = f"LSTM {self.input_size}→{self.hidden_size}, batch {self.batch}, {self.steps} steps"
        return f"{sizes}, {dtype}, {mode}, {counted(self.threads, 'thread')}"

    @property
    def work(self) -> int:
        """Multiplications of one step, forwards and backwards."""
        product = self.batch * 4 * self.hidden_size * (self.input_size + self.hidden_size)
        return product * (3 if self.training else 1)


class Speeds:
    """Chooses the faster kernel by measurement, and notes what was chosen.

    Attributes:
        taken: the chosen backend, by class, in the present run and in the one that it resumes.
    """

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}
        self._measures = True
        self._recorded: Mapping[str, str] = {}
        self._seconds: dict[str, list[float]] = {}  # of fused and compiled

    @contextmanager
    def run(self, recorded: Mapping[str, str] | None = None, *, measures: bool = True) -> Generator[None]:
        """Choose for a run, inside the context.

        Args:
            recorded: `taken` of the run that this one resumes. Its choices hold, so that results stay the same to the
                last bit.
            measures: whether classes that are not known are measured. Processes of one run have to make the same
                choices, and their machines may differ, so they don't measure.
        """
        self.taken, self._recorded, self._measures = dict(recorded or {}), dict(recorded or {}), measures
        try:
            yield
        finally:
            self.taken, self._recorded, self._measures = {}, {}, True

    @contextmanager
    def unnoted(self) -> Generator[None]:
        """Note nothing: choices are shown, not used."""
        before = dict(self.taken)
        try:
            yield
        finally:
            self.taken = before

    def choose(self, cell: LSTMCell, inputs: Tensor, backends: tuple[Backend, Backend], rule: str) -> tuple[str, str]:
        """Return the name of the faster backend, and the reason.

        Args:
            cell: a cell that both backends run.
            inputs: (batch, time, input), on a CPU.
            backends: the fused and the compiled one.
            rule: the name of one of them, which is taken if nothing is measured.

        Raises:
            ValueError: the environment variable UNROLLED_AUTO is neither "measure" nor "fixed".
        """
        call = CallClass.of(cell, inputs)
        chosen = self._choose(call, backends) or (rule, f"by a fixed rule for {call}")
        self.taken[str(call)] = chosen[0]
        return chosen

    def _choose(self, call: CallClass, backends: tuple[Backend, Backend]) -> tuple[str, str] | None:
        name, distributed = str(call), torch.distributed
        if name in self._recorded:
            return self._recorded[name], f"as in the run that is resumed, for {name}"
        if not self._measures or _wanted() == "fixed" or call.work > _MOST_WORK_OF_A_STEP:
            return None
        if distributed.is_available() and distributed.is_initialized():
            return None
        if transforms() or observed():  # they would see the measurement, or another kernel in a recomputation
            return None
        if name not in self._seconds:
            self._seconds = {**_read(), **self._seconds}
        if name not in self._seconds:
            self._seconds[name] = measure(call, *backends)
            _add(name, self._seconds[name])
        fused, compiled = self._seconds[name]
        times = f"fused {fused * 1e3:.3g} ms, compiled {compiled * 1e3:.3g} ms"
        return "compiled" if compiled < MARGIN * fused else "fused", f"measured for {name}: {times}"


SPEEDS = Speeds()


def _wanted() -> str:
    found = os.environ.get(VARIABLE, "measure")
    if found not in ("measure", "fixed"):
        raise ValueError(f"{VARIABLE}={found}: must be measure or fixed")
    return found


def measure(call: CallClass, fused: Backend, compiled: Backend) -> list[float]:
    """Return the seconds of a call with both backends, each time the least of several, in turn.

    Long calls are extrapolated along a line through the times of shorter ones.
    """
    most = int(_MOST_WORK * call.threads / call.work)
    longest = min(call.steps, _MOST_STEPS, max(_FEWEST_STEPS, most))
    lengths = [longest] if longest == call.steps else [max(4, longest // 4), longest]
    generator = torch.Generator().manual_seed(0)  # not torch's own, whose numbers belong to the user
    passes: dict[tuple[int, int], Callable[[], None]] = {}
    with torch.inference_mode(False):
        cell = _cell(call, generator)
        for steps in lengths:
            inputs = torch.empty(call.batch, steps, call.input_size, dtype=call.dtype, device="cpu")
            inputs.normal_(generator=generator).requires_grad_(call.training)
            for number, backend in enumerate((fused, compiled)):
                passes[steps, number] = _pass(backend, cell, inputs, training=call.training)
    least = dict.fromkeys(passes, math.inf)
    for run in passes.values():
        run()
    began, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - began < _SECONDS:
        for key, run in passes.items():
            start = time.perf_counter()
            run()
            least[key] = min(least[key], time.perf_counter() - start)
        rounds += 1
    return [_at(call.steps, {steps: least[steps, number] for steps in lengths}) for number in range(2)]


def _at(steps: int, seconds: Mapping[int, float]) -> float:
    """Return the time of a number of steps, on the line through the measured times."""
    (first, least), (last, most) = min(seconds.items()), max(seconds.items())
    return most if first == last else most + max(0.0, most - least) / (last - first) * (steps - last)


def _cell(call: CallClass, generator: torch.Generator) -> LSTMCell:
    with torch.device("meta"):
        cell = LSTMCell(call.input_size, call.hidden_size)
    cell = cell.to(call.dtype).to_empty(device="cpu").requires_grad_(call.training)
    for weight in cell.parameters():
        weight.data.uniform_(-0.1, 0.1, generator=generator)
    return cell


def _pass(backend: Backend, cell: LSTMCell, inputs: Tensor, *, training: bool) -> Callable[[], None]:
    state = cell.initial_state(inputs.shape[0], like=inputs)

    def run() -> None:
        with torch.inference_mode(False), torch.set_grad_enabled(training), torch.autocast("cpu", enabled=False):
            outputs, _ = backend.run(cell, inputs, state, None, False, None)
        if training:
            torch.autograd.grad(outputs, [inputs, *cell.parameters()], torch.ones_like(outputs))

    return run


@cache
def _key() -> str:
    native = resources.files("unrolled.backends.compiled") / "native"
    sources = [file.read_text() for file in sorted(native.iterdir(), key=str) if file.name.endswith((".h", ".cpp"))]
    return hashlib.sha256("\0".join([*sources, torch.__version__, processor()]).encode()).hexdigest()[:32]


def _file() -> Path:
    return cache_folder() / f"speeds-{_key()}.json"


def _read() -> dict[str, list[float]]:
    """Return the measured times of this machine; none if the file is missing or damaged, so that they are measured."""
    try:
        found: Any = json.loads(_file().read_text())
    except (CacheError, OSError, ValueError):
        return {}
    rows = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {name: list(map(float, row)) for name, row in rows.items() if _is_valid(row)}


def _is_valid(row: Any) -> bool:
    return isinstance(row, list) and len(cast("list[Any]", row)) == 2 and all(isinstance(x, float) for x in row)


def _add(name: str, seconds: list[float]) -> None:
    """Add times to the file. Where it can't be written, as where cells can't be compiled, each process measures."""
    try:
        path = _file()
        check_private(path.parent)
        with locked(path.with_suffix(".lock")):
            text = json.dumps({**_read(), name: seconds}, indent=1)
            durable.replace(path, lambda partial: partial.write_text(text))
    except (CacheError, OSError):
        return
