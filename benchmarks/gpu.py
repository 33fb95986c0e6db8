"""What has to be checked on a GPU, with a verdict a line; status 1 if one of them is not "pass".

    python benchmarks/gpu.py                            everything, on one card, in less than eight minutes
    python benchmarks/gpu.py --only parity time         some groups: parity, autocast, time, memory, tasks
    python benchmarks/gpu.py --device cpu --only parity the script itself, on a machine without a GPU

A line that raises or fails does not stop the others. The table is written to --output after each line. What a CPU
cannot do is skipped there. Checks that would begin after --seconds fail.

- parity: each cell with each backend and dtype, against the loop in float64 on the CPU with the same rounded weights:
  plain, ragged, bidirectional and with a carried state; outputs, final states and gradients. The limit is four times
  what the loop on the CPU errs in that dtype, and at least a few of its units.
- autocast: the cells of torch's kernels under autocast, likewise.
- time: a training step of a layer beside torch.nn's, alternating.
- memory: the peak of a training step beside torch.nn's, and with recomputation.
- tasks: training steps of each task in full and mixed precision, with DDP, FSDP2 and torch.compile.
"""

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

import unrolled
from unrolled import Recurrent
from unrolled.backends import BACKENDS
from unrolled.state import leaves, rebuild

Verdict = tuple[str, str]  # pass, FAIL or skip, and what was found

CELLS: dict[str, Callable[[int, int], Any]] = {
    **{
        name: getattr(unrolled, f"{name}Cell")
        for name in ("LSTM", "GRU", "Elman", "ResetFirstGRU", "PeepholeLSTM", "FullGateLSTM", "LayerNormLSTM")
    },
    "ProjectedLSTM": partial(unrolled.ProjectedLSTMCell, projection_size=12),
    "IndRNN": partial(unrolled.IndRNNCell, activation="tanh"),
    "Jordan": partial(unrolled.JordanCell, output_units=8, memory=0.5),
    "Clockwork": partial(unrolled.ClockworkCell, periods=(1, 2, 4)),
    "MultiplicativeLSTM": unrolled.MultiplicativeLSTMCell,
    "MogrifierLSTM": unrolled.MogrifierLSTMCell,
    "GatedFeedback": partial(unrolled.GatedFeedbackCell, feedback_layers=2),
}
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 1e-2}  # of the largest value
SIZES = [(50, 64, 256), (128, 64, 512), (256, 128, 1024)]  # time, batch, hidden
TASKS = {
    "char_lm": ["task=char_lm", "data=text", "data.files=text.txt", "data.batch_size=8", "data.window=32"],
    "classification": ["task=classification", "data.batch_size=16"],
    "translation": ["task=translation", "data.phrases=400", "data.batch_tokens=512"],
    "captioning": ["task=captioning", "data.glyphs=1", "data.batch_tokens=256"],
    "tagging": ["task=tagging", "data.batch_size=8"],
    "counting": ["task=counting", "data.batch_size=8"],
    "transcription": ["task=transcription", "data.drawn.train_size=200", "data.batch_size=8"],
    "music": ["task=music", "data.chorales=60", "data.batch_size=8"],
    "handwriting": ["task=handwriting", "data.hershey=200", "data.batch_size=16", "callbacks.pictures=null"],
    "draw": ["task=draw", "data.batch_size=8"],
    "forecasting": ["task=forecasting", "data.batch_size=8"],
}
RUNS = {
    "float32": ["trainer.precision=32-true"],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "16-mixed": ["trainer.precision=16-mixed"],
    "DDP, 1 process": ["trainer.strategy=ddp"],
    "FSDP2, 1 process": ["trainer.strategy=fsdp2"],
    "FSDP2, bf16-mixed": ["trainer.strategy=fsdp2", "trainer.precision=bf16-mixed"],
    "torch.compile": ["compile=true"],
}


class Check(NamedTuple):
    """A line of the table."""

    group: str
    name: str
    run: Callable[[], Verdict]


def checks(device: torch.device) -> Iterator[Check]:
    """Yields all checks for a device, the slow ones last."""
    for name, cell in CELLS.items():
        for dtype in TOLERANCE:
            for backend in BACKENDS:
                label = f"{name}, {backend}, {str(dtype)[6:]}"
                yield Check("parity", label, partial(parity, cell, backend, dtype, device))
    for name in ("LSTM", "GRU", "Elman"):
        for dtype in (torch.bfloat16, torch.float16):
            yield Check("autocast", f"{name}, {str(dtype)[6:]}", partial(autocast, CELLS[name], dtype, device))
    for kind in ("LSTM", "GRU", "RNN"):
        for sizes in SIZES if device.type == "cuda" else [(8, 4, 16)]:
            label = "{}: T {}, B {}, H {}".format(kind, *sizes)
            yield Check("time", label, partial(timed, kind, sizes, device))
    yield Check("memory", "LSTM beside nn.LSTM", partial(memory, device, recompute=False))
    yield Check("memory", "LoopLSTM with recomputation", partial(memory, device, recompute=True))
    for run, options in RUNS.items():
        for task, chosen in TASKS.items():
            yield Check("tasks", f"{task}, {run}", partial(training, [*chosen, *options], device))


def parity(cell: Callable[[int, int], Any], backend: str, dtype: torch.dtype, device: torch.device) -> Verdict:
    """Compares a backend on a device with the loop in float64 on the CPU."""
    worst: dict[str, float] = {}
    limit = TOLERANCE[dtype]
    for case in ("plain", "ragged", "bidirectional", "carried"):
        torch.manual_seed(1)
        network = Recurrent(cell, 10, 24, num_layers=2, bidirectional=case == "bidirectional", backend=backend).to(
            dtype
        )
        inputs = torch.randn(5, 17, 10).to(dtype)
        refusal = BACKENDS[backend].refuses(cast("Any", network.cells[0].to(device)), inputs.to(device))
        if refusal is not None:
            return "skip", refusal
        lengths = torch.tensor([17, 3, 1, 0, 9]) if case == "ragged" else None
        found = passed(network.to(device), inputs.to(device), lengths, carried=case == "carried")
        loop = Recurrent(cell, 10, 24, num_layers=2, bidirectional=case == "bidirectional", backend="loop").to(dtype)
        loop.load_state_dict(network.state_dict())
        own = passed(loop, inputs, lengths, carried=case == "carried")
        expected = passed(loop.double(), inputs.double(), lengths, carried=case == "carried")
        worst[case] = error(found, expected)
        limit = max(limit, 4 * error(own, expected))  # a normalization of small values is ill-conditioned
    text = ", ".join(f"{case} {value:.1e}" for case, value in worst.items())
    return verdict(max(worst.values()) <= limit), text


def passed(network: Recurrent, inputs: Tensor, lengths: Tensor | None, *, carried: bool) -> list[Tensor]:
    """Returns outputs, final states and gradients of a pass."""
    inputs = inputs.detach().requires_grad_()
    initial = network.initial_state(len(inputs), like=inputs)
    if carried:  # the state of an earlier window
        with torch.no_grad():
            initial = network(inputs.flip(1))[1]
    given = [leaf.detach().clone() for leaf in leaves(initial)]
    outputs, final = network(inputs, rebuild(initial, given), lengths)
    loss = outputs.square().sum() + sum(leaf.sum() for leaf in leaves(final) if leaf.is_floating_point())
    wanted = [inputs, *network.parameters()]
    gradients = cast("tuple[Tensor | None, ...]", torch.autograd.grad(loss, wanted, allow_unused=True))
    return [outputs, *leaves(final), *(gradient for gradient in gradients if gradient is not None)]


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Returns the largest difference between two lists of tensors, relative to the largest entry of each tensor."""
    if len(found) != len(expected):
        raise ValueError(f"{len(found)} tensors, expected {len(expected)}")
    ratios = [0.0]
    for one, other in zip(found, expected, strict=True):
        exact = other.detach().double()
        difference = (one.detach().cpu().double() - exact).abs().max() if exact.numel() else exact.new_zeros(())
        ratios.append(float(difference / exact.abs().max().clamp(min=1e-3)) if exact.numel() else 0.0)
    return math.inf if any(math.isnan(ratio) for ratio in ratios) else max(ratios)


def autocast(cell: Callable[[int, int], Any], dtype: torch.dtype, device: torch.device) -> Verdict:
    """Compares a layer under autocast with float64 on the CPU."""
    if device.type == "cpu" and dtype == torch.float16:
        return "skip", "float16 under autocast is for GPUs"
    torch.manual_seed(1)
    network = Recurrent(cell, 10, 24).to(device)
    inputs, lengths = torch.randn(5, 17, 10, device=device), torch.tensor([17, 3, 1, 0, 9])
    with torch.autocast(device.type, dtype):
        found = passed(network, inputs, lengths, carried=False)
        (choice,) = network.backend_choices(inputs, ragged=True)
    oracle = Recurrent(cell, 10, 24, backend="loop").double()
    oracle.load_state_dict(network.state_dict())
    worst = error(found, passed(oracle, inputs.double().cpu(), lengths, carried=False))
    return verdict(worst <= TOLERANCE[dtype]), f"{choice.backend}, {worst:.1e}"


def timed(kind: str, sizes: tuple[int, int, int], device: torch.device) -> Verdict:
    """Compares the time of a layer's training step with that of torch.nn's layer."""
    steps, batch, hidden = sizes
    inputs = torch.randn(batch, steps, hidden, device=device, requires_grad=True)
    cell = CELLS["Elman" if kind == "RNN" else kind]
    ours = Recurrent(cell, hidden, hidden).to(device)
    theirs = getattr(nn, kind)(hidden, hidden, batch_first=True).to(device)
    seconds: list[list[float]] = [[], []]
    for repeat in range(13):
        for layer, taken in zip((ours, theirs), seconds, strict=True):
            synchronize(device)
            begin = time.perf_counter()
            layer(inputs)[0].square().mean().backward()
            synchronize(device)
            if repeat >= 3:
                taken.append(time.perf_counter() - begin)
    one, other = map(statistics.median, seconds)
    text = f"{1e3 * one:.2f} ms, torch.nn {1e3 * other:.2f} ms, ratio {one / other:.2f}"
    return (verdict(one / other <= 1.15) if device.type == "cuda" else "skip"), text


def memory(device: torch.device, *, recompute: bool) -> Verdict:
    """Compares peaks of memory: ours with torch.nn's, or recomputation with none."""
    if device.type != "cuda":
        return "skip", "counts memory of a GPU"
    inputs = torch.randn(32, 256, 256, device=device, requires_grad=True)
    ours = partial(Recurrent, CELLS["LSTM"], 256, 256)
    if recompute:
        layers: list[nn.Module] = [ours(backend="loop", recompute=True), ours(backend="loop")]
    else:
        layers = [ours(), nn.LSTM(256, 256, batch_first=True)]
    peaks: list[float] = []
    for layer in layers:
        layer.to(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        layer(inputs)[0].square().mean().backward()
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        layer.zero_grad()
    limit = 0.5 if recompute else 1.25
    return verdict(peaks[0] <= limit * peaks[1]), f"{peaks[0]:.0f} MiB beside {peaks[1]:.0f} MiB"


def training(options: list[str], device: torch.device) -> Verdict:
    """Trains a task for three steps, and compares its weights with what they were."""
    from unrolled.training.run import compose
    from unrolled.training.run.assembly import assemble, build_task
    from unrolled.training.run.quiet import quiet

    if device.type == "cpu" and "trainer.precision=16-mixed" in options:
        return "skip", "16-mixed is for GPUs"
    common = ["trainer.max_steps=3", "+trainer.limit_val_batches=1", "+trainer.num_sanity_val_steps=0", "test=false"]
    common += ["logger=none", "callbacks.curves=null", "callbacks.progress=null", "callbacks.samples=null"]
    common += ["+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false", "trainer.devices=1"]
    with tempfile.TemporaryDirectory() as folder, quiet():
        text = Path(folder) / "text.txt"
        text.write_text("".join(f"{number} little birds sat in row {number * 7 % 13}\n" for number in range(200)))
        chosen = [option.replace("text.txt", str(text)) for option in options]
        accelerator = f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}"
        config = compose(*chosen, *common, accelerator, f"run_dir={folder}")
        torch.manual_seed(1)
        parts = assemble(config)
        parts.data.prepare()
        config.sizes = parts.data.sizes()
        task = build_task(config, parts)
        if config.get("compile"):
            task.network.compile()
        before = [parameter.detach().clone() for parameter in task.network.parameters()]
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        parts.trainer.fit(task, datamodule=parts.data)
        seconds = time.perf_counter() - begin
        after = [whole(parameter).cpu() for parameter in task.network.parameters()]
    finite = all(bool(parameter.isfinite().all()) for parameter in after)
    learned = any(not torch.equal(one.cpu(), other) for one, other in zip(before, after, strict=True))
    loss = float(parts.trainer.callback_metrics["train/loss"])
    peak = f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB" if device.type == "cuda" else ""
    return verdict(finite and learned and math.isfinite(loss)), f"loss {loss:.3f}, {seconds:.1f} s{peak}"


def whole(parameter: Tensor) -> Tensor:
    gathered = getattr(parameter, "full_tensor", None)
    return parameter.detach() if gathered is None else gathered().detach()


def verdict(right: bool) -> str:
    return "pass" if right else "FAIL"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def outcome(check: Check, deadline: float) -> Verdict:
    """Runs a check; an error is a failure."""
    if time.monotonic() > deadline:
        return "FAIL", "not run: the time is over (--seconds)"
    try:
        return check.run()
    except Exception as error:  # of any library, on a card that nobody has tried; the other lines are still of use
        return "FAIL", f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error) else ''}"


def table(rows: list[tuple[Check, Verdict]], device: torch.device) -> str:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    lines = [
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, unrolled {unrolled.__version__}",
        "",
        "| group | check | verdict | found |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one.group} | {one.name} | {word} | {text.replace('|', '/')} |" for one, (word, text) in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="+", choices=("parity", "autocast", "time", "memory", "tasks"))
    parser.add_argument("--match", default="", help="only checks whose name contains this")
    parser.add_argument("--seconds", type=float, default=460.0, help="no check begins later")
    parser.add_argument("--output", type=Path, help="a file for the table")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU on this machine; --device cpu checks this script itself")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    deadline = time.monotonic() + asked.seconds
    rows: list[tuple[Check, Verdict]] = []
    for check in checks(device):
        if (asked.only is None or check.group in asked.only) and asked.match in check.name:
            rows.append((check, outcome(check, deadline)))
            print(f"{rows[-1][1][0]}  {check.group}: {check.name}: {rows[-1][1][1]}", flush=True)
            if asked.output is not None:
                asked.output.write_text(table(rows, device))
    failed = sum(word == "FAIL" for _, (word, _) in rows)
    skipped = sum(word == "skip" for _, (word, _) in rows)
    print(f"{len(rows) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0 or len(rows) == skipped)


if __name__ == "__main__":
    raise SystemExit(main())
