"""Chapter on hyper-parameters: each piece of advice is one override, and this is what it changes."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from experiments._drawing import Picture, line, panels
from experiments._training import train

PANELS = {
    "weight penalties": ["", "task.l1=1e-4", "task.l2=1e-2"],
    "dropout": ["", "network.output_dropout=0.5", "encoder.frame.input_dropout=0.3"],
    "size": ["encoder.frame.hidden_size=4", "", "encoder.frame.hidden_size=256"],
    "depth": ["", "encoder.frame.num_layers=2", "encoder.frame.num_layers=4"],
    "learning rate": ["optimizer.lr=3e-4", "", "optimizer.lr=1e-1"],
    "optimizer": ["optimizer=rmsprop", "optimizer=adagrad", "optimizer=nesterov"],
}
TARGETS = {"normalized": "data.scaled=true", "as they are": "data.scaled=false"}


def measure(short: bool) -> dict[str, Any]:
    """Return training and validation losses by epoch for each override, and the test accuracy."""
    data: dict[str, Any] = {"train": {}, "validation": {}, "accuracy": {}, "regression": {}}
    overrides = ["", "optimizer.lr=3e-4"] if short else dict.fromkeys(chain(*PANELS.values()))
    for override in overrides:
        given = ["experiment=guide/hyperparameters", *filter(None, [override])]
        trained = train(*given, "trainer.log_every_n_steps=12", *["trainer.max_epochs=6"] * short)
        data["train"][override] = trained.curve("train/loss")
        data["validation"][override] = trained.curve("validation/loss")
        data["accuracy"][override] = trained.metrics["test/accuracy"]
    for name, override in TARGETS.items():
        trained = train("experiment=guide/regression", override, *["trainer.max_epochs=3"] * short)
        data["regression"][name] = trained.curve("validation/mean_absolute_error")
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield the two losses of the plain run, the validation losses of all overrides, and the errors of regression."""
    figure, (axes,) = panels(1, width=5, height=2.8)
    axes.plot(*data["train"][""], **line(0), label="training")
    axes.plot(*data["validation"][""], **line(1), label="validation")
    axes.set(xlabel="step", ylabel="loss", ylim=(0, 2.4))
    axes.legend()
    yield "overfitting", Picture([figure])
    names = list(PANELS)
    for picture, titles in (("regularization", names[:2]), ("capacity", names[2:4]), ("optimization", names[4:])):
        figure, axes = panels(2, sharey=True, height=3.0)
        for panel, title in zip(axes, titles, strict=True):
            for number, override in enumerate(PANELS[title]):
                label = override.removeprefix("encoder.frame.") or "unchanged"
                panel.plot(*data["validation"][override], **line(number), label=label)
            panel.set(title=title, xlabel="step", ylim=(0, 3))
            panel.legend(fontsize=8)
        axes[0].set(ylabel="validation loss")
        yield picture, Picture([figure])

    figure, (axes,) = panels(1, width=5, height=2.8)
    for number, (name, curve) in enumerate(data["regression"].items()):
        axes.plot(*curve, **line(number), label=f"targets {name}")
    axes.set(xlabel="step", ylabel="mean absolute error")
    axes.legend()
    yield "regression", Picture([figure])
