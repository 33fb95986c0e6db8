"""Every model is one word in every task: it is built from its file, trains, and comes back from its checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.training.configuration.overrides import config_folder
from unrolled.training.run.runner import run

MODELS = sorted(path.stem for path in (Path(config_folder()) / "model").glob("*.yaml"))
STEP = ["trainer.max_steps=1", "+trainer.limit_val_batches=1", "test=false", "callbacks.curves=null"]
TASKS = {
    "char_lm": [],
    "classification": [
        "task=classification",
        "data.batch_size=16",
        "encoder.frame.hidden_size=null",
        "model.hidden_size=12",
        "trainer=cpu",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
    "regression": [
        "task=regression",
        "data.batch_size=16",
        "encoder.frame.hidden_size=null",
        "model.hidden_size=12",
        "trainer=cpu",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
    "grammar": [
        "task=grammar",
        "data.train_size=20",
        "data.validation_size=4",
        "network.encoder.hidden_size=12",
        "trainer=cpu",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
    "handwriting": [
        "task=handwriting",
        "data.hershey=16",
        "data.min_length=1",
        "data.split_fractions=[0.5,0.25,0.25]",
        "networks.synthesis.decoder.hidden_size=null",
        "head.num_components=2",
        "model.hidden_size=12",
        "trainer=cpu",
        "callbacks.pictures=null",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
    "captioning": [
        "task=captioning",
        "data=captioned_images",
        "data.files=pictures.jsonl",
        "data.min_count=1",
        "data.batch_tokens=60",
        "data.split_fractions=[0.6,0.2,0.2]",
        "trunk.module={widths:[8],strides:[2],channels:1}",
        "trunk.transform.size=8",
        "model.hidden_size=12",
        "attention.attention_size=8",
        "network.encoder.size=12",
        "decoder.embedding.size=12",
        "trainer=cpu",
        "callbacks.alignments=null",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
    "translation": [
        "task=translation",
        "data=pairs",
        "data.files=pairs.jsonl",
        "data.unit=character",
        "data.split_fractions=[0.8,0.1,0.1]",
        "data.batch_tokens=120",
        "model.hidden_size=12",
        "network.encoder.embedding.size=6",
        "decoder.embedding.size=6",
        "trainer=cpu",
        "callbacks.alignments=null",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
    ],
}


def test_there_are_models_to_look_at() -> None:
    assert len(MODELS) > 9


# A decoder steps through a state, which the net without memory has none of: it is a baseline of what reads a whole.
READING = ("classification", "regression", "grammar")
PAIRS = [(task, model) for task in TASKS for model in MODELS if model != "feedforward" or task in READING]


def draw_pictures(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rows = [{"file_name": f"{number}.png", "caption": f"grey number {number}"} for number in range(20)]
    for number, row in enumerate(rows):
        image.new("L", (8, 8), 10 * number).save(folder / row["file_name"])
    (folder / "pictures.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_every_model_trains_in_every_task(
    folder: Path, configure: Callable[..., DictConfig], task: str, model: str
) -> None:
    pairs = [{"en": f"{number} birds", "de": f"{number} Vögel"} for number in range(60)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    if task == "captioning":
        draw_pictures(folder)

    run(configure("run", *TASKS[task], *STEP, f"model={model}", small=task == "char_lm"))

    # Adam knows a parameter from its first gradient on: all of them had one.
    checkpoint = folder / "run" / "checkpoints" / "last.ckpt"
    known = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    network = load_bundle(checkpoint).network
    assert len(known) == len(list(network.parameters()))
    assert all(parameter.isfinite().all() for parameter in network.parameters())
