"""The command of a sweep (-m): what it was asked for, kept in the sweep's folder so that the sweep can go on."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unrolled import durable
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.overrides import config_folder, forced
from unrolled.training.configuration.quoting import quote_value
from unrolled.training.configuration.run_dir import SWEEP, is_sweep, starts_run

RECORDS = ".sweep"  # folder within that of a sweep
_COMMAND = "sweep.json"
WITH_VALUE = (  # options that are followed by a value
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--package", "-p", "--info", "-i", "--cfg", "-c"),
)
_SWITCHES = ("-m", "--multirun")
# Keys of Hydra that belong to the sweep; all others are passed on to its jobs.
_OF_SWEEP = ("hydra.mode", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher", "hydra.run.dir")


@dataclass(frozen=True)
class SweepCommand:
    """What a sweep was asked for.

    Attributes:
        program: starts a run, such as `python train.py`.
        options: options with dashes, without -m.
        overrides: of the configuration and of Hydra.
        keys: what differs between the jobs.
    """

    program: tuple[str, ...]
    options: tuple[str, ...]
    overrides: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the command of the sweep in a folder."""
        content = json.loads((folder / RECORDS / _COMMAND).read_text(encoding="utf-8"))
        return cls(**{name: tuple(value) for name, value in content.items()})

    def write(self, folder: Path) -> None:
        """Writes the command into the folder of its sweep, as a whole or not at all."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        durable.replace(folder / RECORDS / _COMMAND, lambda partial: partial.write_text(text, encoding="utf-8"))

    def of_job(self, overrides: Sequence[str], folder: Path, number: int) -> list[str]:
        """Returns the command that runs one job.

        Args:
            overrides: of this job.
            folder: of its run.
            number: of the job.
        """
        kept = [override for override in self.overrides if _of_hydra(override) and not _of_sweep(override)]
        places = [f"hydra.run.dir={quote_value(str(folder))}", f"hydra.job.num={number}"]
        return [*self.program, *self.options, *kept, *overrides, *places]

    def check_same(self, before: "SweepCommand", folder: Path) -> None:
        """Checks that a sweep in an existing folder asks for the same jobs; options of Hydra may differ.

        Raises:
            ConfigurationError: another sweep.
        """
        ours, theirs = ([o for o in each.overrides if not _of_hydra(o)] for each in (self, before))
        differing = [o for o in ours if o not in theirs] or [o for o in theirs if o not in ours]
        if differing:
            raise ConfigurationError(
                f"run_dir={folder}: this folder contains another sweep, which differs in {differing[0]}; give another "
                f"folder, or go on with that sweep: -m resume={quote_value(str(folder))}"
            )


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides the arguments of a command into options with dashes, with their values, and overrides."""
    options: list[str] = []
    overrides: list[str] = []
    for before, argument in pairwise(["", *arguments]):
        if argument.startswith("-") or before in WITH_VALUE:
            options.append(argument)
        else:
            overrides.append(argument)
    return options, overrides


def without_multirun(options: Sequence[str]) -> list[str]:
    """Returns options with dashes without -m."""
    return [option for option in options if option not in _SWITCHES]


def with_launcher(arguments: Sequence[str]) -> list[str]:
    """Adds -m to the arguments of a run that names a launcher: Hydra uses it for sweeps alone, here of one job."""
    named = any(argument.startswith("hydra/launcher=") for argument in arguments)
    return ["-m", *arguments] if named and starts_run(arguments) and not is_sweep(arguments) else list(arguments)


def is_sweep_folder(folder: Path) -> bool:
    """Whether a folder contains a sweep."""
    return (folder / RECORDS / _COMMAND).is_file()


def with_recorded(arguments: Sequence[str]) -> list[str]:
    """Replaces `-m resume=FOLDER`, where the folder is that of a sweep, by the arguments of that sweep.

    Raises:
        ConfigurationError: other arguments than options of Hydra are added, or -m is missing.
    """
    resumes = [argument for argument in arguments if argument.lstrip("+").startswith("resume=")]
    folder = _folder(resumes[-1]) if resumes else None
    if folder is None:
        return list(arguments)
    if not is_sweep(arguments):
        raise ConfigurationError(f"{resumes[-1]}: this is the folder of a sweep; go on with it: -m {resumes[-1]}")
    added = [argument for argument in arguments if argument not in (*_SWITCHES, *resumes)]
    foreign = [argument for argument in added if not _of_hydra(argument)]
    if foreign:
        raise ConfigurationError(
            f"{foreign[0]}: {resumes[-1]} goes on with a sweep as it was asked; only options of Hydra may be added"
        )
    command = SweepCommand.read(folder)
    replaced = {SWEEP, *(_key(argument) for argument in added)}
    kept = [override for override in command.overrides if _key(override) not in replaced]
    return ["-m", *command.options, *kept, *added, f"{SWEEP}={quote_value(str(folder))}"]


def compose_sweep(name: str, options: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Composes the configuration of a sweep's first job, with that of Hydra.

    Args:
        name: the primary configuration.
        options: options with dashes.
        overrides: with several values for what differs between jobs; the first is taken.

    Raises:
        ConfigurationError: an unknown key or choice of Hydra.
    """
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(list(overrides))
    listed = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)
    discrete = [o for o in parsed if o.value_type in listed]
    first = [f"{o.get_key_element()}={next(o.sweep_string_iterator())}" for o in discrete]
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override() and _key(str(o.input_line)) != "hydra.mode"]
    GlobalHydra.instance().clear()
    try:
        folder = next(iter(_values(options, "--config-path", "-cp")), str(config_folder()))
        with initialize_config_dir(str(Path(folder).resolve()), version_base="1.3"):
            name = next(iter(_values(options, "--config-name", "-cn")), name)
            searched = [
                f"hydra.searchpath=['{Path(path).resolve()}']" for path in _values(options, "--config-dir", "-cd")
            ]
            config = compose(name, [*searched, *map(forced, [*fixed, *first])], return_hydra_config=True)
        with hydra_config_of(config):
            config.hydra.sweep.dir = str(config.hydra.sweep.dir)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        raise ConfigurationError("\n".join(lines[:4])) from None
    return config


@contextmanager
def hydra_config_of(config: DictConfig) -> Generator[None]:
    """Lets `${hydra:…}` within a configuration mean its own values, inside the context."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config  # pyright: ignore[reportAttributeAccessIssue] - declared as a DictConfig's content
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _values(options: Sequence[str], *names: str) -> list[str]:
    """Returns the values of an option, in the forms `--name=value` and `--name value`."""
    pairs = pairwise([*options, ""])
    return [option.partition("=")[2] or following for option, following in pairs if option.partition("=")[0] in names]


def _folder(resume: str) -> Path | None:
    try:
        value = OverridesParser.create().parse_override(resume).value()
    except HydraException:
        return None  # reported with the other overrides
    return Path(os.path.normpath(value)) if isinstance(value, str) and is_sweep_folder(Path(value)) else None


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _of_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _of_sweep(override: str) -> bool:
    return override.lstrip("+~").startswith(_OF_SWEEP)
