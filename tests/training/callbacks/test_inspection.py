"""Inspections during training: they show the network as it is, and leave the training as it was."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unrolled import load_bundle
from unrolled.checkpoint import read_checkpoint
from unrolled.inspection import record
from unrolled.inspection.panels import Figure, Heatmaps, Lines, Points, Symbols
from unrolled.training.callbacks.drawing import draw
from unrolled.training.callbacks.inspection import Inspection
from unrolled.training.run import run

Configure = Callable[..., DictConfig]
STEPS = ["trainer.max_epochs=1", "trainer.max_steps=5", "test=false"]
INSPECTED = ["callbacks/inspection=figures", "callbacks.inspection.every_n_steps=4"]


def test_the_training_is_as_without_it(folder: Path, configure: Configure) -> None:
    options = [*STEPS, "network.output_dropout=0.3", "model.dropout=0.2", "model.num_layers=2"]
    run(configure("with", *options, *INSPECTED))
    run(configure("without", *options))
    one, other = (read_checkpoint(folder / name / "checkpoints" / "last.ckpt") for name in ("with", "without"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    carried = [each["unrolled"]["resume"]["processes"][0]["carried"] for each in (one, other)]
    assert set(carried[0]) == set(carried[1])
    drawn = sorted(path.name for path in (folder / "with" / "inspection").iterdir())
    layers = [f"{kind}_layer_{layer}.png" for kind in ("activity", "saturation") for layer in (1, 2)]
    assert drawn == sorted([*layers, "gradient_through_time.png", "time_constants.png"])
    assert not (folder / "without" / "inspection").exists()


def test_scalars_are_those_of_the_network(folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Any] = []
    inspect = Inspection.on_train_batch_end

    def keeping(self: Inspection, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        batches.append(batch)
        inspect(self, trainer, module, outputs, batch, index)

    monkeypatch.setattr(Inspection, "on_train_batch_end", keeping)
    run(configure("run", *STEPS, *INSPECTED, "trainer.max_steps=4"))
    events = EventAccumulator(str(next((folder / "run" / "tensorboard").rglob("events*")).parent))
    events.Reload()
    tags = events.Tags()
    assert "inspection/activity_layer_1" in tags["images"]
    found = {tag: events.Scalars(tag)[0] for tag in tags["scalars"] if tag.startswith("inspection/")}
    assert {scalar.step for scalar in found.values()} == {4}
    network: Any = load_bundle(folder / "run" / "checkpoints" / "last.ckpt").network
    with record(network) as recording:
        network(batches[3].inputs, lengths=batches[3].lengths, resets=batches[3].resets)
    layer = recording["steps.cells.0"]
    forget = layer["f"][layer.mask]
    assert found["inspection/layer_1/f_open"].value == pytest.approx(float((forget > 0.9).float().mean()), abs=1e-6)
    constant = float((-1 / forget.mean(0).log()).median())
    assert found["inspection/layer_1/median_time_constant"].value == pytest.approx(constant, rel=1e-5)
    assert found["inspection/seconds"].value > 0


PAIRS = ["task=translation", "data=pairs", "data.files=pairs.jsonl", "data.unit=character", "data.batch_tokens=120"]


@pytest.mark.parametrize("task", ["translation", "digits"])
def test_other_tasks_are_inspected(folder: Path, configure: Configure, task: str) -> None:
    pairs = [{"en": f"{number} birds", "de": f"{number} Vögel"} for number in range(60)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    digits = ["task=classification", "model=gru", "model.hidden_size=12"]
    given = [*PAIRS, "model.hidden_size=12", "callbacks.alignments=null"] if task == "translation" else digits
    common = ["trainer=cpu", "callbacks.progress=null", "+trainer.enable_progress_bar=false"]
    run(configure("run", *given, *common, *STEPS, *INSPECTED, small=False))
    drawn = {path.name for path in (folder / "run" / "inspection").iterdir()}
    expected = {"activity_encoder_layer_1.png", "activity_encoder_layer_1_backward.png", "time_constants.png"}
    assert expected <= drawn
    assert ("activity_decoder_layer_1.png" in drawn) == (task == "translation")


def test_a_network_without_cells_is_left_alone(
    folder: Path, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        digits = ["task=classification", "model=feedforward", "trainer=cpu", "callbacks.progress=null"]
        run(configure("run", *digits, *STEPS, *INSPECTED, "+trainer.enable_progress_bar=false", small=False))
    assert "no network with recurrent cells" in caplog.text
    assert not (folder / "run" / "inspection").exists()
    with pytest.raises(ValueError, match="every_n_steps=0"):
        Inspection(folder, every_n_steps=0)


def test_drawings_have_the_values_of_their_panels() -> None:
    values = torch.rand(3, 5)
    drawing = draw(
        Figure("t", "s.", Heatmaps({"f": (values, 0.0, 1.0), "c": (values, -2.0, 2.0)}, "step", "unit", first=7))
    )
    image: Any = drawing.axes[0].images[0]
    torch.testing.assert_close(torch.tensor(image.get_array().data), values)
    assert (image.get_clim(), drawing.axes[1].images[0].get_clim()) == ((0.0, 1.0), (-2.0, 2.0))
    assert list(image.get_extent()[:2]) == [6.5, 11.5]
    lines = draw(Figure("t", "s.", Lines([0, 1], {"a": [1.0, 0.1], "b": [2.0, 3.0]}, "x", "y", log_y=True))).axes[0]
    assert [list(line.get_ydata()) for line in lines.get_lines()] == [[1.0, 0.1], [2.0, 3.0]]  # pyright: ignore
    assert lines.get_yscale() == "log"
    points = draw(Figure("t", "s.", Points({"f": [(0.1, 0.2), (0.3, 0.4)]}, "x", "y"))).axes[0]
    assert points.collections[0].get_offsets().tolist() == [[0.1, 0.2], [0.3, 0.4]]  # pyright: ignore
    with pytest.raises(ValueError, match="Symbols is text"):
        draw(Figure("t", "s.", Symbols(["a"], [1.0])))
