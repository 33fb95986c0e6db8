"""Chapter on gradients: a training that explodes, and what each way of clipping makes of it."""

from collections.abc import Iterator
from typing import Any

from experiments._drawing import Picture, line, panels
from experiments._training import train

WAYS = {"measure": "no clipping", "norm": "by norm", "value": "by value", "percentile": "adaptive"}


def measure(short: bool) -> dict[str, Any]:
    """Return the training loss and the norm of the gradient before clipping, step by step."""
    data: dict[str, Any] = {"loss": {}, "norm": {}}
    for way in WAYS:
        given = ["experiment=guide/clipping", f"callbacks/gradient_clip={way}", "test=false"]
        columns = train(*given).columns
        data["loss"][way] = [value for _, value in columns["train/loss"]]
        norms = "gradient/norm" if "gradient/norm" in columns else "gradient/norm_before"
        data["norm"][way] = [value for _, value in columns[norms]]
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield losses beside norms of gradients."""
    figure, (left, right) = panels(2)
    for number, (way, text) in enumerate(WAYS.items()):
        left.plot(data["loss"][way], **line(number), label=text, alpha=0.9)
        right.semilogy(data["norm"][way], **line(number), alpha=0.9)
    left.set(title="training loss", xlabel="step", ylim=(0, 6))
    right.set(title="norm of the gradient before clipping", xlabel="step")
    left.legend(fontsize=8)
    yield "clipping", Picture([figure])
