"""Composing configurations in Python as the command line does."""

from datetime import datetime
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from unrolled.training.configuration.options import drop
from unrolled.training.configuration.overrides import check_overrides, config_folder, forced
from unrolled.training.run.command import CHOICES


def compose(*overrides: str, config_dir: str | Path | None = None, command: str = "train") -> DictConfig:
    """Composes the configuration of a command line, for `run` or, with `command="evaluate"`, for `score`.

    Args:
        overrides: as on the command line, such as "model=gru" or "trainer.max_epochs=3". Without run_dir=…, the run
            gets a new folder below `outputs/`.
        config_dir: an additional folder of configuration files (--config-dir).
        command: "train" or "evaluate".

    Raises:
        ConfigurationError: an override of an unknown key or choice.
    """
    dropped = check_overrides(command, overrides, None if config_dir is None else str(config_dir))
    searched = [] if config_dir is None else [f"hydra.searchpath=['{Path(config_dir).resolve()}']"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        given = [*searched, *map(forced, overrides)]
        config = hydra.compose(command, given, return_hydra_config=True)
    drop(config, dropped)
    with open_dict(config):
        found = config.pop("hydra").runtime.choices
        if command == "train":
            config.choices = {group: found[group] for group in CHOICES}
        if not any(override.lstrip("+").startswith("run_dir=") for override in overrides):
            config.run_dir = f"outputs/{found.task}/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}"
    return config
