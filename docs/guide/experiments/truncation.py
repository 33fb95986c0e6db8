"""Chapter on truncated backpropagation: windows of 5, 20 and 100 steps recall a bit, and read Shakespeare's plays."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from experiments._drawing import INK, Picture, line, panels
from experiments._training import relative_times
from experiments._training import train as train_experiment
from unrolled import LSTMCell, Recurrent, detach

DELAY, STREAMS, SIZE = 8, 64, 32
WINDOWS = [5, 20, 100]
SYMBOLS = 60_000  # of each stream


def train(window: int, *, carry: bool, symbols: int) -> tuple[list[float], int]:
    """Return the accuracy in ten parts of the training, and the bytes that a window stores for its backward pass."""
    torch.manual_seed(1)
    bits = torch.randint(2, (STREAMS, symbols + DELAY), generator=torch.Generator().manual_seed(2))
    network = Recurrent(LSTMCell, 1, SIZE)
    output = nn.Linear(SIZE, 1)
    parameters = [*network.parameters(), *output.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.005)
    stored, right, state = 0, [], None
    for start in range(DELAY, symbols, window):
        inputs = 2.0 * bits[:, start : start + window, None] - 1
        targets = bits[:, start - DELAY : start - DELAY + inputs.shape[1]]
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            values, state = network(inputs, state if carry else None)
            logits = output(values)[..., 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
        stored = max(stored, sum(sizes))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        state = detach(state)
        right.append(((logits > 0) == targets).float().mean().item())
    part = max(1, len(right) // 20)
    return [sum(right[i : i + part]) / part for i in range(0, len(right) - part + 1, part)], stored


def reading(window: int, *, symbols: int = 2_000) -> Callable[[], object]:
    """Return a function that trains on this many symbols of each stream."""
    return lambda: train(window, carry=True, symbols=symbols)


def measure(short: bool) -> dict[str, Any]:
    """Return accuracies of recall, memory and time of each window, and losses of a language model."""
    data: dict[str, Any] = {"carried": {}, "reset": {}, "bytes": {}, "language": {}, "text": {}}
    for window in WINDOWS:
        symbols = SYMBOLS // 30 if short else SYMBOLS
        data["carried"][window], data["bytes"][window] = train(window, carry=True, symbols=symbols)
        data["reset"][window], _ = train(window, carry=False, symbols=symbols)
    data["time"] = relative_times({str(window): reading(window) for window in WINDOWS}, rounds=1 if short else 11)
    for window in WINDOWS[-1:] if short else WINDOWS:
        shortened = ["trainer.max_steps=40", "trainer.val_check_interval=20"]
        trained = train_experiment("experiment=guide/truncation", f"data.window={window}", *shortened * short)
        data["language"][window] = trained.curve("validation/loss")
        data["text"][window] = trained.metrics["test/loss"]
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the accuracies by the share of the text that was read, and the losses of the language model."""
    figure, axes = panels(2, sharey=True)
    for panel, kind in zip(axes, ("carried", "reset"), strict=True):
        for number, (window, values) in enumerate(data[kind].items()):
            shares = [(index + 1) / len(values) for index in range(len(values))]
            panel.plot(shares, values, **line(number), label=f"window {window}")
        panel.axhline(0.5, color=INK, linestyle=":", linewidth=1)
        panel.set(title=f"state {kind}", xlabel="share of the stream that was read", ylim=(0.45, 1.02))
    axes[0].set(ylabel="accuracy")
    axes[0].legend()
    yield "truncation", Picture([figure])

    figure, axes = panels(2, sharey=True, height=2.8)
    for number, (window, (steps, losses)) in enumerate(data["language"].items()):
        look = {**line(number), "marker": "o", "markersize": 3, "label": f"window {window}"}
        axes[0].plot([step / steps[-1] for step in steps], losses, **look)
        axes[1].plot(steps, losses, **look)
    axes[0].set(xlabel="share of the text that was read", ylabel="validation loss (nats)")
    axes[1].set(xlabel="updates of the weights", xscale="log")
    axes[0].legend()
    yield "truncation_language", Picture([figure])
