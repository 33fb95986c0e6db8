"""Every experiment and every choice of data composes into a run whose parts can all be built."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from unrolled.training.configuration.overrides import config_folder
from unrolled.training.run.assembly import assemble, check_network

CONF = Path(config_folder())
EXPERIMENTS = sorted(str(path.relative_to(CONF / "experiment"))[:-5] for path in CONF.glob("experiment/*/*.yaml"))

Configure = Callable[..., DictConfig]


def test_there_are_experiments_to_look_at() -> None:
    assert len(EXPERIMENTS) > 9
    tasks = {name.partition("/")[0] for name in EXPERIMENTS}
    assert tasks >= {
        "captioning",
        "char_lm",
        "classification",
        "counting",
        "forecasting",
        "grammar",
        "long_lag",
        "music",
        "tagging",
        "translation",
    }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_its_parts(configure: Configure, experiment: str) -> None:
    if experiment.startswith("captioning/flickr8k"):
        pytest.importorskip("efficientnet_lite_pytorch")
    chosen = [f"experiment={experiment}", "trainer.accelerator=cpu"]
    data = configure("run", *chosen, small=False).data
    asked = {name for name in data if OmegaConf.is_missing(data, name)}
    given = {name: "[someone]" if name == "held_out" else "some.jsonl" for name in asked}
    config = configure("run", *chosen, *(f"data.{name}={value}" for name, value in given.items()), small=False)

    parts = assemble(config)
    check_network(config)

    assert asked <= {"files", "validation_files", "test_files", "held_out"}, "nothing else has to be said"
    assert parts.optimizer is not None
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()[1]
    assert head.replace(" -m ", " ").startswith(f"# python train.py experiment={experiment}"), "shows how it is run"
