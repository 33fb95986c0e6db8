"""An option is typed the same way whether a file mentions it or only a constructor; old names are answered with new."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from unrolled.training import compose
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.overrides import check_overrides
from unrolled.training.configuration.renamed import RENAMED
from unrolled.training.run.runner import run

Process = Callable[..., CompletedProcess[str]]


def answer(*given: str, sweep: bool = False) -> str:
    """What is said of these; nothing where they are all right."""
    try:
        check_overrides("train", given, sweep=sweep)
    except ConfigurationError as error:
        return str(error)
    return ""


UNMENTIONED = [  # where, the key, a value, the key misspelt
    ("", "optimizer", "amsgrad", True, "amsgrd"),
    ("", "callbacks.checkpoint", "save_top_k", 2, "save_top"),
    ("", "callbacks.gradient_clip", "norm_type", 1.0, "norm_typ"),
    ("", "trainer", "gradient_clip_algorithm", "norm", "gradient_clip_algoritm"),
    ("", "logger.tensorboard", "log_graph", False, "log_graf"),
    ("", "data", "min_count", 3, "min_cnt"),
    ("", "task.dynamic", "rate", 0.1, "raet"),
    ("task=translation attention=location", "attention", "kernel_size", 5, "kernel_sise"),
]


@pytest.mark.parametrize(("chosen", "where", "key", "value", "misspelt"), UNMENTIONED)
def test_an_option_that_no_file_mentions_needs_no_plus(
    folder: Path, chosen: str, where: str, key: str, value: Any, misspelt: str
) -> None:
    given = [*chosen.split(), f"{where}.{key}={json.dumps(value)}"]
    node: Any = compose(*given)
    for name in where.split("."):
        node = node[name]
    assert node[key] == value

    said = answer(*chosen.split(), f"{where}.{misspelt}={json.dumps(value)}")
    assert f"did you mean {where}.{key}?" in said
    assert f"Keys of {where}: " in said
    assert "expected" in answer(*chosen.split(), f"{where}.{key}={{a: {{b: 1}}}}")


def test_such_an_option_is_shown_and_written_and_swept(folder: Path, python: Process, train_script: str) -> None:
    shown = python(train_script, "--cfg", "job", "optimizer.amsgrad=true", "callbacks.checkpoint.save_top_k=2")
    assert yaml.safe_load(shown.stdout)["optimizer"]["amsgrad"] is True
    assert yaml.safe_load(shown.stdout)["callbacks"]["checkpoint"]["save_top_k"] == 2

    check_overrides("train", ["model=lstm,gru", "optimizer.maximize=true,false"], sweep=True)
    assert "did you mean optimizer.maximize?" in answer("model=lstm,gru", "optimizer.maximise=true,false", sweep=True)
    assert "maximize=2: expected true or false" in answer("model=lstm,gru", "optimizer.maximize=true,2", sweep=True)


def test_a_run_writes_it_down(folder: Path, configure: Callable[..., DictConfig]) -> None:
    run(configure("run", "optimizer.amsgrad=true", "trainer.max_steps=1", "test=false", "callbacks.curves=null"))

    assert yaml.safe_load((folder / "run" / "config.yaml").read_text())["optimizer"]["amsgrad"] is True


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.bidirectional=true", "model.bidirectional is given by what uses model"),
        ("+model.bidirectional=true", "model.bidirectional is given by what uses model"),
        ("model.input_size=3", "model.input_size is given by what uses model"),
        ("model.cell.hidden_size=3", "model.cell.hidden_size is given by what uses model.cell"),
        ("optimizer.params=[]", "optimizer.params is given by what uses optimizer"),
        ("task.network={}", "task.network is given by what uses task"),
        ("data.processor_from={}", "data.processor_from is given by what uses data"),
        ("network.core.hidden_size=8", "network.core is ${model}; write model.hidden_size=…"),
        ("task.l1.x=8", "task.l1 is a single value, it has no 'x'"),
        ("task.dynamic.rat=8", "task.dynamic has no 'rat'; did you mean task.dynamic.rate?"),
        ("~optimizer.amsgrad", "optimizer has no 'amsgrad'\nKeys of optimizer: betas, lr"),
        ("logger.tensorboard.commment=x", "An argument of another name takes a plus: +logger.tensorboard.commment=…"),
    ],
)
def test_what_cannot_be_given_is_answered(override: str, said: str) -> None:
    assert said in answer(override)


def test_others_than_the_named_arguments_take_a_plus(folder: Path) -> None:
    assert compose("+logger.tensorboard.comment=x").logger.tensorboard.comment == "x"


# What chooses the files in which a renamed key stands.
CHOSEN = {
    "network.encoder": "task=translation",
    "data.answer": "task=classification",
    "data.batch_steps": "task=classification",
    "data.broken": "task=captioning",
    "data.cleaned": "task=captioning",
    "data.kept": "task=classification",
    "data.least_examples": "task=classification",
    "data.mirrored": "task=captioning",
    "data.modality.augmentation": "task=classification data=speech data.files=x",
    "data.modality.colour": "task=classification",
    "data.modality.features": "task=classification data=speech data.files=x",
    "data.modality.normalise": "task=classification data=series data.files=x",
    "data.reader": "task=classification",
    "decoder": "task=captioning",
    "encoder": "task=classification",
    "task": "task=captioning",
    "task.mistakes": "task=classification",
    "task.shares": "task=classification",
}


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_is_answered_with_the_new_one_which_exists(old: str) -> None:
    chosen = next((CHOSEN[start] for start in sorted(CHOSEN, reverse=True) if old.startswith(start)), "").split()

    assert answer(*chosen, f"{old}=1") == f"{old}=1: {old} is called {RENAMED[old]}"
    said = answer(*chosen, f"{RENAMED[old]}=1")
    assert not said or f"{RENAMED[old]}=1: expected" in said  # another type than a number's, of a key that is known


def test_what_stands_below_an_old_key_is_answered_too(folder: Path, python: Process, train_script: str) -> None:
    done = python(train_script, "task=classification", "data.reader.size=[8,8]")

    assert done.returncode == 2
    assert done.stderr == "train.py: data.reader.size=[8,8]: data.reader is called data.modality\n"
    evaluated = python("-m", "unrolled", "evaluate", "checkpoint=x.ckpt", "task=char_lm", "data.cut=[0,0,1]")
    assert evaluated.returncode == 2
    assert "data.cut is called data.split_fractions" in evaluated.stderr
