"""The time of one step without gradients, beside the loop, torch.nn and onnxruntime, in turn, in one process.

    python benchmarks/step_latency.py

The loop is `backend="loop"`: the definition of the cell, one operation of torch after another. torch.nn runs its LSTM
or GRU on one step. onnxruntime runs the same layer as torch.onnx exports it, if it is installed. A step carries its
state to the next one. Times are medians of rounds, ratios are medians of the rounds' ratios. The last tables have a
language model: a step from token to logits, and streams, from text to the odds of the next character.
"""

import argparse
import logging
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unrolled import (
    AutoregressiveDecoder,
    CharacterTokenizer,
    GRUCell,
    LSTMCell,
    PeepholeLSTMCell,
    Processor,
    Recurrent,
    to_torch,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment import Session, SessionPool

CELLS = {"LSTM": LSTMCell, "GRU": GRUCell, "peephole LSTM": PeepholeLSTMCell}
Step = Callable[[], object]


class OneStep(nn.Module):
    """torch.nn's layer on one step, with its state in and out."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        outputs, after = self.layer(inputs.unsqueeze(1), state if len(state) > 1 else state[0])
        return (outputs.squeeze(1), *(after if isinstance(after, tuple) else (after,)))


def carried(step: Callable[..., tuple[Any, Any]], inputs: Any, state: Any) -> Step:
    """A step that starts from the state that the one before returned."""
    kept = [state]

    def run() -> None:
        _, kept[0] = step(inputs, kept[0])

    return run


def steps_of(cell: Any, layers: int, hidden: int, batch: int) -> dict[str, Step]:
    """The steps to compare, by name."""
    networks = {
        backend: Recurrent(cell, hidden, hidden, layers, backend=backend).eval() for backend in ("auto", "loop")
    }
    networks["loop"].load_state_dict(networks["auto"].state_dict())
    inputs = torch.randn(batch, hidden)
    state = networks["auto"].initial_state(batch, like=inputs)
    found = {name: carried(network.step, inputs, state) for name, network in networks.items()}
    if cell is PeepholeLSTMCell:
        return found
    module = OneStep(to_torch(networks["auto"])).eval()
    zeros = tuple(torch.zeros(layers, batch, hidden) for _ in range(2 if cell is LSTMCell else 1))

    def of_torch(inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Any, Any]:
        outputs, *after = module(inputs, *state)
        return outputs, tuple(after)

    found["torch.nn"] = carried(of_torch, inputs, zeros)
    exported = onnx_step(module, inputs, zeros)
    return found if exported is None else {**found, "onnxruntime": exported}


def onnx_step(module: nn.Module, inputs: Tensor, state: tuple[Tensor, ...]) -> Step | None:
    """The same step in onnxruntime; None if it isn't installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        program: Any = torch.onnx.export(module, (inputs, *state), dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Any, state: Any) -> tuple[Any, Any]:
        output, *after = session.run(None, dict(zip(names, (inputs, *state), strict=True)))
        return output, after

    return carried(run, inputs.numpy(), [leaf.numpy() for leaf in state])


def measure(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """The seconds per step of each, of rounds in turn."""
    numbers: dict[str, int] = {}
    for name, step in steps.items():
        for _ in range(10):
            step()
        began = time.process_time()
        for _ in range(5):
            step()
        numbers[name] = max(3, int(0.01 * 5 / (time.process_time() - began)))
    took: dict[str, list[float]] = {name: [] for name in steps}
    began = time.process_time()
    while time.process_time() - began < seconds or len(took["auto"]) < 3:
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(numbers[name]):
                step()
            took[name].append((time.process_time() - start) / numbers[name])
    return took


def line(name: str, took: dict[str, list[float]], others: list[str]) -> str:
    """A row of the table."""
    cells = [f"{statistics.median(took['auto']) * 1e6:,.0f}"]
    for other in others:
        if other not in took:
            cells.append("")
            continue
        ratio = statistics.median(one / of_other for one, of_other in zip(took["auto"], took[other], strict=True))
        cells.append(f"{statistics.median(took[other]) * 1e6:,.0f} ({ratio:.2f})")
    return f"| {name} | {' | '.join(cells)} |"


def language_model(backend: str, hidden: int) -> Bundle:
    """A language model of characters with random weights."""
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer("".join(map(chr, range(32, 112))))
    core = partial(Recurrent, LSTMCell, hidden_size=hidden, backend=backend)
    decoder = AutoregressiveDecoder.of_tokens(tokenizer.size, hidden, core).eval()
    return Bundle(decoder, Processor(tokenizer, None), {})


def tokens(number: int, backend: str, hidden: int) -> Step:
    """A step of a language model: an embedding, an LSTM and a head."""
    decoder: Any = language_model(backend, hidden).network
    return carried(
        lambda *given: decoder.step(*given)[::2], torch.zeros(number, dtype=torch.int64), decoder.start(number)[0]
    )


def streams(number: int, backend: str, hidden: int) -> Step:
    """Feeds a character to each of some sessions."""
    pool = SessionPool(language_model(backend, hidden), top=3)
    data = {pool.join(): "a" for _ in range(number)}
    return lambda: pool.feed(data)


def memory(number: int, hidden: int) -> str:
    """What a session of a language model takes, after a character."""
    pool = SessionPool(language_model("auto", hidden), top=3)

    def joined() -> list[Session]:
        sessions = [pool.join() for _ in range(number)]
        pool.feed(dict.fromkeys(sessions, "a"))
        return sessions

    joined()
    tracemalloc.start()
    sessions = joined()
    objects = tracemalloc.get_traced_memory()[0] / number
    tracemalloc.stop()
    saved = len(sessions[0].save())
    return f"bytes of a session: {sessions[0].nbytes:,} of tensors, {objects:,.0f} of Python's objects, {saved:,} saved"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    others = ["loop", "torch.nn", "onnxruntime"]
    print(f"µs per step, H {asked.hidden}; in parentheses, the time of a step divided by the other one's\n")
    print(f"| cell, layers, batch | step | {' | '.join(others)} |\n|---|{'---|' * (len(others) + 1)}")
    with torch.no_grad():
        for batch in asked.batches:
            for name, cell in CELLS.items():
                for layers in (1, 2):
                    took = measure(steps_of(cell, layers, asked.hidden, batch), asked.seconds)
                    print(line(f"{name}, {layers}, {batch:,}", took, others), flush=True)
    print("\n| rows of a language model, from token to logits | step | with the loop |\n|---|---|---|")
    with torch.no_grad():
        for number in asked.batches:
            steps = {name: tokens(number, name, asked.hidden) for name in ("auto", "loop")}
            print(line(f"{number:,}", measure(steps, asked.seconds), ["loop"]), flush=True)
    print("\n| sessions of a language model | fed in one batch | with the loop |\n|---|---|---|")
    for number in asked.batches:
        took = measure({name: streams(number, name, asked.hidden) for name in ("auto", "loop")}, asked.seconds)
        print(line(f"{number:,}", took, ["loop"]), flush=True)
    print(f"\n{memory(max(asked.batches), asked.hidden)}")


if __name__ == "__main__":
    main()
