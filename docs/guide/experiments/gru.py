"""Chapter on the GRU: three cells with equally many parameters on the characters of Shakespeare's plays."""

from collections.abc import Iterator
from typing import Any

from experiments._drawing import Picture, line, panels
from experiments._training import train

SIZES = {"lstm": 118, "gru": 140, "elman": 256}


def measure(short: bool) -> dict[str, Any]:
    """Return validation losses by step, the number of parameters of the recurrent layer, and the test losses."""
    data: dict[str, Any] = {"validation": {}, "parameters": {}, "test": {}}
    for name, size in SIZES.items():
        given = ["experiment=guide/gru", f"model={name}", f"model.hidden_size={size}"]
        trained = train(*given, *["trainer.max_steps=60", "trainer.val_check_interval=20"] * short)
        data["validation"][name] = trained.curve("validation/loss")
        data["parameters"][name] = sum(p.numel() for p in trained.bundle.network.core.parameters())
        data["test"][name] = trained.metrics["test/bits_per_character"]
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the validation losses."""
    figure, (axes,) = panels(1, width=5.5, height=3.0)
    for number, (name, curve) in enumerate(data["validation"].items()):
        axes.plot(*curve, **line(number), marker="o", markersize=3, label=f"{name}, {SIZES[name]} units")
    axes.set(xlabel="step", ylabel="validation loss (nats per character)")
    axes.legend()
    yield "gru", Picture([figure])
