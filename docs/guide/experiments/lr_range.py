"""The learning-rate range test: the training loss while the rate rises from tiny to huge."""

from collections.abc import Iterator
from typing import Any

from experiments._drawing import INK, Picture, line, panels
from experiments._training import train
from unrolled.training.callbacks.lr_range import smoothed, suggestion


def measure(short: bool) -> dict[str, Any]:
    """Return the learning rate and the loss of each step, and the suggested rate."""
    trained = train("experiment=guide/hyperparameters", "debug=lr_range", *["trainer.max_steps=60"] * short)
    rates = dict(trained.columns["learning_rate"])
    pairs = [(rates[step], loss) for step, loss in trained.columns["train/loss"] if step in rates]
    found, losses = [rate for rate, _ in pairs], [loss for _, loss in pairs]
    smooth = smoothed(losses, 0.9)
    return {"rates": found, "losses": losses, "smooth": smooth, "suggestion": suggestion(found, smooth)}


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the loss by learning rate."""
    figure, (axis,) = panels(1, height=2.8)
    axis.plot(data["rates"], data["losses"], color=INK, linewidth=0.8, alpha=0.6)
    axis.semilogx(data["rates"], data["smooth"], **line(0), label="training loss, smoothed")
    axis.axvline(data["suggestion"], **line(1), label=f"suggestion: {data['suggestion']:.1g}")
    axis.set(xlabel="learning rate", ylabel="loss", ylim=(0, 4))
    axis.legend()
    yield "lr_range", Picture([figure])
