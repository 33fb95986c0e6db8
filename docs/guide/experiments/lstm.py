"""The LSTM block: gates over a sentence, time constants, the forget bias, and what each gate is worth."""

from collections.abc import Iterator
from typing import Any

import torch

from experiments._drawing import Picture, line, panels
from experiments._training import train
from unrolled.inspection import record, saturation, time_constants

SENTENCE = "To be, or not to be: that is the question. Whether 'tis nobler in the mind to suffer"
BIASES = [0, 1, 5]
VARIANTS = {
    "with peepholes": [],
    "no peepholes": ["model.cell.peepholes=false"],
    "no input gate": ["model.cell.missing_gate=input"],
    "no forget gate": ["model.cell.missing_gate=forget"],
    "no output gate": ["model.cell.missing_gate=output"],
    "no input activation": ["model.cell.input_activation=identity"],
    "no output activation": ["model.cell.output_activation=identity"],
    "coupled gates": ["model.cell.coupled=true"],
    "full gate recurrence": ["model=full_gate_lstm"],
}


def measure(short: bool) -> dict[str, Any]:
    """Return gates along a sentence, time constants, and accuracies by forget bias and by variant."""
    trained = train("experiment=guide/lstm", *["trainer.max_steps=60", "trainer.val_check_interval=60"] * short)
    tokenizer = trained.bundle.processor.source
    decoder = trained.bundle.network
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode(SENTENCE)]])
    with torch.no_grad(), record(decoder) as recording:
        decoder.eval()(ids)
    (found,) = recording.values()
    constants = time_constants(found["f"])
    order = constants.argsort()
    shown = order[torch.linspace(0, len(order) - 1, 24).round().long()]
    data: dict[str, Any] = {
        "sentence": SENTENCE,
        "forget": found["f"][0, 1:, shown].T.tolist(),
        "time_constants": constants[order].tolist(),
        "open": {gate: saturation(found[gate]).high.mean().item() for gate in "ifo"},
        "closed": {gate: saturation(found[gate]).low.mean().item() for gate in "ifo"},
        "bias": {},
        "variants": {},
    }
    shortened = ["trainer.max_epochs=2"] * short
    for bias in BIASES:
        run = train("experiment=guide/lstm_variants", "model=lstm", f"model.cell.forget_bias={bias}", *shortened)
        data["bias"][bias] = run.curve("validation/loss")
    for name, options in VARIANTS.items():
        run = train("experiment=guide/lstm_variants", *options, *shortened)
        data["variants"][name] = run.metrics["test/accuracy"]
    return data


def draw(data: dict[str, Any]) -> Iterator[tuple[str, Picture]]:
    """Yield forget gates along the sentence, time constants, loss by forget bias, and accuracy by variant."""
    figure, (axis,) = panels(1, height=3.4)
    shown = axis.imshow(data["forget"], vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axis.set(ylabel="unit: short to long memory")
    axis.set_xticks(range(len(data["sentence"])), list(data["sentence"]), fontsize=6)
    axis.set_yticks([])
    axis.grid(visible=False)
    figure.colorbar(shown, ax=axis, label="forget gate")
    yield "lstm_gates", Picture([figure])

    figure, axes = panels(2, height=2.8)
    axes[0].semilogy(range(1, len(data["time_constants"]) + 1), data["time_constants"], **line(0))
    axes[0].set(xlabel="unit, sorted", ylabel="time constant, steps")
    for number, (bias, (steps, losses)) in enumerate(data["bias"].items()):
        axes[1].plot(steps, losses, **line(number), label=f"forget bias {bias}")
    axes[1].set(xlabel="training step", ylabel="validation loss")
    axes[1].legend()
    yield "lstm_memory", Picture([figure])

    figure, (axis,) = panels(1, height=3.2)
    names = list(data["variants"])[::-1]
    accuracies = [100 * data["variants"][name] for name in names]
    bars = axis.barh(names, accuracies, color=line(0)["color"], height=0.6)
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set(xlabel="accuracy on test digits, %", xlim=(0, 108))
    axis.grid(visible=False, axis="y")
    yield "lstm_variants", Picture([figure])
