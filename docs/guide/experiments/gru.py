"""Chapter on the GRU: three cells with equally many parameters on the characters of Shakespeare's plays."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from experiments._drawing import Picture, line, panels
from experiments._training import relative_times, train

SIZES = {"lstm": 118, "gru": 140, "elman": 256}
STREAMS, WINDOW = 16, 64  # of a batch of experiment=guide/gru


def training_step(network: Any) -> Callable[[], None]:
    """Return a function that reads a batch of characters and computes the gradients of the loss."""
    ids = torch.randint(20, (STREAMS, WINDOW + 1), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(STREAMS, WINDOW, dtype=torch.bool)

    def step() -> None:
        decoded = network(ids[:, :-1])
        network.zero_grad()
        network.head.loss(decoded.parameters, ids[:, 1:], mask).total.backward()

    return step


def measure(short: bool) -> dict[str, Any]:
    """Return validation losses by step, parameters of the recurrent layer, test losses, and the time of a step."""
    data: dict[str, Any] = {"validation": {}, "parameters": {}, "test": {}}
    steps = {}
    for name, size in SIZES.items():
        given = ["experiment=guide/gru", f"model={name}", f"model.hidden_size={size}"]
        trained = train(*given, *["trainer.max_steps=60", "trainer.val_check_interval=20"] * short)
        data["validation"][name] = trained.curve("validation/loss")
        data["parameters"][name] = sum(p.numel() for p in trained.bundle.network.core.parameters())
        data["test"][name] = trained.metrics["test/bits_per_character"]
        steps[name] = training_step(trained.bundle.network.train())
    data["time"] = relative_times(steps, rounds=3 if short else 31)
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the validation losses by step, and by time."""
    figure, axes = panels(2, sharey=True)
    for number, (name, (steps, losses)) in enumerate(data["validation"].items()):
        look = {**line(number), "marker": "o", "markersize": 3, "label": f"{name}, {SIZES[name]} units"}
        axes[0].plot(steps, losses, **look)
        axes[1].plot([step * data["time"][name] for step in steps], losses, **look)
    axes[0].set(xlabel="step", ylabel="validation loss (nats per character)")
    axes[1].set(xlabel="time, in steps of the LSTM")
    axes[0].legend()
    yield "gru", Picture([figure])
