"""Options fit what they are given to, or are answered in a line before torch is imported."""

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from unrolled.descriptions import locate
from unrolled.training.configuration.options import (
    TRAINER,
    ConfigurationError,
    check_options,
    drop,
    trainer_arguments,
)
from unrolled.training.configuration.overrides import check_overrides, config_folder, quoted
from unrolled.training.configuration.schema import fits, signature
from unrolled.training.run.assembly import assemble, check_network

CONF = Path(config_folder())
TASKS = ("captioning", "char_lm", "classification", "regression", "translation")
EXPERIMENTS = sorted(str(path.relative_to(CONF / "experiment"))[:-5] for path in CONF.glob("experiment/*/*.yaml"))
NAMED = (re.findall(r"_target_: ([\w.]+)", path.read_text()) for path in CONF.rglob("*.yaml"))
TARGETS = sorted({target for targets in NAMED for target in targets} | {TRAINER})

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_of_a_constructor_is_what_python_says_of_it(target: str) -> None:
    try:
        real = inspect.signature(locate(target)).parameters
    except ValueError as error:
        pytest.skip(str(error))  # needs a package that is not installed
    read = signature(target)

    assert read is not None
    named = {n for n, p in real.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in real.values())
    assert named <= set(read.parameters)
    assert read.anything == open_ended
    assert open_ended or named == set(read.parameters)
    assert read.required == {name for name in named if real[name].default is inspect.Parameter.empty}
    for name in named:  # a constructor's own default is of the type that it wants
        default = real[name].default
        if isinstance(default, (bool, int, float, str, type(None))):
            assert fits(read.parameters[name], default), (name, default, read.parameters[name])


def test_the_trainers_arguments_are_lightnings() -> None:
    from lightning.pytorch import Trainer

    given_by_the_run = {"self", "callbacks", "logger", "default_root_dir"}
    assert set(trainer_arguments()) == set(inspect.signature(Trainer.__init__).parameters) - given_by_the_run


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def numbers_of(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with a number that stands in a file itself, and those that only a constructor takes, with None."""
    made = signature(node["_target_"]) if "_target_" in node else None
    for name, kinds in made.parameters.items() if made else ():
        if name not in node and kinds and {kind.name for kind in kinds} <= {"int", "float", "bool", "none"}:
            yield f"{path}.{name}", None
    for key in (key for key in node if not key.startswith("_")):
        child = node._get_node(key)
        place = f"{path}.{key}" if path else str(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            if not place.endswith("_options"):
                yield from numbers_of(child, place)
        elif isinstance(raw := child._value(), (int, float)):
            yield place, raw


@pytest.mark.parametrize("task", TASKS)
def test_every_number_and_switch_refuses_text_and_lists_by_its_key(task: str) -> None:
    config = composed(f"task={task}", "callbacks/averaging=ema", "callbacks/early_stopping=patience")
    check_options(config)
    places = dict(numbers_of(config))

    assert len(places) > 60
    assert None in places.values()
    for place, number in places.items():
        if place.startswith(("groups.", "epochs_by_unit.")):
            continue  # options of any optimizer, checked where it is built; and what the answer calls epochs
        for wrong in ("abc", ["a", "b"], {"a": 1}):
            if place == "trainer.val_check_interval" or (place == "data.modality.size" and wrong != "abc"):
                continue  # Lightning takes a time there; a picture's size may be two numbers
            OmegaConf.update(config, place, wrong, merge=False, force_add=True)
            with pytest.raises(ConfigurationError) as error:
                check_options(config)
            assert str(error.value).startswith(f"{place}"), error.value
            assert "expected" in str(error.value) or "takes no" in str(error.value)
            assert len(str(error.value).splitlines()) <= 2
        if number is None:
            drop(config, [place])
        else:
            OmegaConf.update(config, place, number)
    check_options(config)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.hidden_size=abc", "model.hidden_size=abc: expected a whole number"),
        ("model.hidden_size=8.5", "model.hidden_size=8.5: expected a whole number"),
        ("model.hidden_size=true", "model.hidden_size=true: expected a whole number"),
        ("model.hidden_size=null", "model.hidden_size=null: expected a whole number"),
        ("optimizer.lr=ten", "optimizer.lr=ten: expected a number"),
        ("optimizer.betas=0.9", "optimizer.betas=0.9: expected a list of numbers"),
        ("trainer.max_epochs=x", "trainer.max_epochs=x: expected a whole number or null"),
        ("epochs=x", "epochs=x: expected a whole number"),
        ("seed=x", "seed=x: expected a whole number"),
        ("test=perhaps", "test=perhaps: expected true or false"),
        ("data.files=7", "as text: data.files='\"7\"'"),
        ("data.random_windows.length=abc", "data.random_windows.length=abc: expected a whole number"),
        ("+task.dynamic={rate: fast}", "task.dynamic.rate=fast: expected a number"),
        ("callbacks.gradient_clip.nonfinite=hope", "expected 'raise' or 'skip'"),
        ("optimizer.amsgrd=true", "optimizer has no 'amsgrd'; did you mean optimizer.amsgrad?"),
        ("+optimizer.amsgrd=true", "optimizer has no 'amsgrd'; did you mean optimizer.amsgrad?"),
        ("optimizer.amsgrad=3", "optimizer.amsgrad=3: expected true or false"),
        (
            "scheduler=none scheduler.warmup=0.1",
            "scheduler.warmup=0.1: what was chosen by scheduler=… takes no options",
        ),
        ("scheduler=step +scheduler.warmup=0.1", "scheduler has no 'warmup'\nKeys of scheduler: epochs, factor"),
        ("data=pairs data.files=a.jsonl", "add task=translation"),
        ("task=classification data=labelled", "data: unrolled_tasks.classification.ClassificationData needs modality"),
        ("task=translation data=sentences data.files=a.jsonl", "add task=classification"),
        ("model.hidden_size=8,16", "several values start several runs, with -m"),
    ],
)
def test_a_wrong_option_is_answered_without_torch(folder: Path, python: Process, override: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_overrides("train", re.split(r" (?=[\w+.]+=)", override))

    assert said in str(error.value)


def test_no_answer_waits_for_torch(folder: Path, python: Process, train_script: str) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['train.py', *sys.argv[1:]]\n"
        f"try: runpy.run_path({train_script!r}, run_name='__main__')\n"
        "except SystemExit as stop: print('status', stop.code)\n"
        "print('loaded', sorted(set(sys.modules) & {'torch', 'lightning', 'numpy', 'unrolled_tasks'}))"
    )
    for override in ("model.hidden_size=abc", "optimizer.lr=ten", "+optimizer.amsgrd=1", "data=pairs"):
        result = python("-c", code, override)
        assert "status 2" in result.stdout, result.stderr
        assert "loaded []" in result.stdout, result.stdout
        assert len(result.stderr.strip().splitlines()) <= 2


# HardAttentionSample


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = {
    "char_lm": (),
    "classification": ("pooling",),
    "translation": ("attention",),
    "captioning": ("attention", "trunk", "decoder"),
    "counting": (),
    "draw": (),
    "forecasting": ("forecaster", "distribution"),
    "grammar": (),
    "handwriting": (),
    "long_lag": (),
    "tagging": (),
}
OFTEN = ("callbacks/averaging=none", "scheduler=none")
COMMON = ("model", "optimizer", "scheduler", "trainer", "logger", "debug")
COMMON += ("callbacks/averaging", "callbacks/early_stopping", "callbacks/gradient_clip")


def replaced(*, every: bool) -> list[tuple[str, str]]:
    """Experiments with a choice replaced: the two whose options most of them set, and each choice with one of them."""
    pairs: list[tuple[str, str]] = []
    for number, experiment in enumerate(EXPERIMENTS):
        for group in (*COMMON, *GROUPS.get(experiment.partition("/")[0], ())):
            for place, choice in enumerate(choices(group)):
                if every or f"{group}={choice}" in OFTEN or place % len(EXPERIMENTS) == number:
                    pairs.append((experiment, f"{group}={choice}"))
    return pairs


@cache
def asked(experiment: str) -> tuple[str, ...]:
    """What an experiment leaves to be said."""
    data = composed(f"experiment={experiment}").data
    missing = [str(name) for name in data if OmegaConf.is_missing(data, name)]
    return (
        "trainer.accelerator=cpu",
        *(f"data.{name}={'[someone]' if name == 'held_out' else 'some.jsonl'}" for name in missing),
    )


def held_to_the_rule(experiment: str, choice: str, configure: Configure) -> None:
    """Either a line of an error, or a configuration whose parts can all be built."""
    if experiment.startswith("captioning/flickr8k"):
        pytest.importorskip("efficientnet_lite_pytorch")
    if choice in ("logger=wandb", "logger=mlflow"):
        pytest.importorskip(choice.removeprefix("logger="))
    given = [f"experiment={experiment}", choice, *asked(experiment)]
    dropped = check_overrides("train", given)

    said = refusal_of(configure("run", *given, *(f"~{path}" for path in dropped), small=False))
    assert len(said.splitlines()) <= 3
    assert not said or choice.startswith(("trunk=", "decoder=", "model=", "attention=", "trainer=")), said


def refusal_of(config: DictConfig) -> str:
    """What building the parts says no to; sizes that don't fit one another are left to their constructors."""
    try:
        assemble(config)
        check_network(config)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("experiment", "choice"), replaced(every=False))
def test_a_choice_takes_an_experiments_options_or_they_go(configure: Configure, experiment: str, choice: str) -> None:
    held_to_the_rule(experiment, choice, configure)


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "choice"), replaced(every=True))
def test_every_choice_with_every_experiment(configure: Configure, experiment: str, choice: str) -> None:
    held_to_the_rule(experiment, choice, configure)


def test_what_goes_is_what_the_choice_does_not_take() -> None:
    def going(*overrides: str) -> list[str]:
        return check_overrides("train", ["experiment=char_lm/tiny_shakespeare", "data.files=a.txt", *overrides])

    assert going() == []
    assert going("callbacks/averaging=none") == ["callbacks.averaging.decay"]
    assert going("callbacks/averaging=ema") == []
    assert going("scheduler=none", "model=indrnn") == ["scheduler.warmup", "model.cell.forget_bias"]
    assert going("scheduler=plateau") == ["scheduler.warmup"]
    assert going("optimizer=adam") == []
    assert going("model=gru", "optimizer=adam") == ["model.cell.forget_bias"]
    with pytest.raises(ConfigurationError, match="takes no options"):
        going("callbacks/averaging=none", "callbacks.averaging.decay=0.9")


def test_a_configuration_of_ones_own_is_held_to_the_same(configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match=r"^scheduler: warmup given, and no class to take it"):
        assemble(configure("run", "scheduler=none", "+scheduler.warmup=0.1"))
    with pytest.raises(ConfigurationError, match=r"^callbacks.averaging: decay given"):
        assemble(configure("run", "+callbacks.averaging.decay=0.1"))


def test_such_a_run_trains_and_says_what_it_left_out(
    folder: Path, python: Process, small: list[str], train_script: str
) -> None:
    chosen = ["experiment=char_lm/tiny_shakespeare", "callbacks/averaging=none", "scheduler=none", "model=indrnn"]
    rest = [
        *small,
        "trainer.max_steps=1",
        "test=false",
        "data.split_fractions=[0.8,0.1,0.1]",
        "trainer.val_check_interval=1.0",
    ]
    done = python(train_script, *chosen, *rest)

    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "dropped together with the choices that took them" in said
    for key in ("callbacks.averaging.decay", "scheduler.warmup", "model.cell.forget_bias"):
        assert key in said


# Quoting


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12))
@example("a (1).txt")
@example("What's this?\\")
@example('\\"${HOME}\\\\" \\${x}')
@example("null")
@example("été, 1,2 [a] {b:c}\n")
def test_a_quoted_override_is_the_value_itself(value: str) -> None:
    (word,) = shlex.split(quoted("data.files", value))
    (override,) = OverridesParser.create().parse_overrides([word])

    assert OmegaConf.create({"x": override.value()}).x == value


@pytest.mark.parametrize("value", ["ein schöner (1) Text.txt", "it's.txt", "a=b.txt", 'x"${HOME}" & y.txt', "1,2.txt"])
def test_the_printed_form_runs_as_it_stands(folder: Path, train_script: str, value: str) -> None:
    (folder / value).write_text("one two buckle my shoe\n" * 200)
    script = shlex.join([sys.executable, train_script])
    rest = "data=text data.random_windows.length=16 data.batch_size=4 data.window=16 model.hidden_size=4 --cfg job"

    def shell(override: str) -> subprocess.CompletedProcess[str]:
        line = f"{script} {override} {rest}"
        return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)

    refused = shell(shlex.quote(f"data.files={value}"))
    assert refused.returncode == 2, refused.stderr
    printed = refused.stderr.strip().splitlines()[-1]
    shown = shell(printed)
    assert shown.returncode == 0, shown.stderr
    assert OmegaConf.to_container(OmegaConf.create(shown.stdout).data, resolve=False)["files"]  # type: ignore[index]
    assert OmegaConf.create(shown.stdout).data.files == value
