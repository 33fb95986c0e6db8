"""The Optuna study of a sweep, which the sweep and its jobs open: `.sweep/study.json` says where it is."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omegaconf import DictConfig, OmegaConf

from unrolled import durable
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.records import JOB

if TYPE_CHECKING:
    import optuna
    from lightning.pytorch import Callback

FILE = "study.json"
DATABASE = "study.db"  # SQLite, in the folder of the sweep
_PRUNERS = "optuna.pruners."
_ATTRIBUTE = "unrolled_job"  # of a trial: its sweep and the number of its job


@dataclass(frozen=True)
class StudyOfSweep:
    """Where the study of a sweep is.

    Attributes:
        sweep: random name of the sweep, which tells its trials from those of others in the same study.
        name: of the study.
        storage: URL of the database as it was written, `${oc.env:…}` unresolved, so that a password stays where it is;
            None for SQLite in the folder of the sweep.
        pruner: description of a pruner; empty for none.
    """

    sweep: str
    name: str
    storage: str | None
    pruner: Mapping[str, Any]

    @classmethod
    def open(cls, records: Path, name: str, storage: str | None, pruner: Mapping[str, Any]) -> Self:
        """Creates the description of a sweep's study, or goes on with it."""
        before = cls.read(records)
        found = cls(before.sweep if before else uuid.uuid4().hex, name, storage, dict(pruner))
        text = json.dumps(asdict(found), indent=1) + "\n"
        durable.replace(records / FILE, lambda partial: partial.write_text(text, encoding="utf-8"))
        return found

    @classmethod
    def read(cls, records: Path) -> Self | None:
        """Reads the description; None if the sweep has no study."""
        path = records / FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def url(self, records: Path) -> str:
        """Returns the URL of the database."""
        if self.storage is None:
            return f"sqlite:///{(records.parent / DATABASE).resolve()}"
        return str(OmegaConf.create({"storage": self.storage}).storage)

    def trials(self, study: optuna.Study) -> dict[int, optuna.trial.FrozenTrial]:
        """Returns the trials of this sweep by the number of their job."""
        marks = ((trial.user_attrs.get(_ATTRIBUTE), trial) for trial in study.get_trials(deepcopy=False))
        return {mark[1]: trial for mark, trial in marks if mark and mark[0] == self.sweep}

    def mark(self, trial: optuna.Trial, number: int) -> None:
        """Marks a trial as that of a job."""
        trial.set_user_attr(_ATTRIBUTE, [self.sweep, number])


def build_pruner(description: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Builds a pruner of Optuna from its description.

    Raises:
        ConfigurationError: a class outside `optuna.pruners`, since the description may come from a file.
    """
    from optuna import pruners

    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        options = {name: build(item) for name, item in value.items() if name != "_target_"}
        target = value.get("_target_")
        if target is None:
            return options
        kind = getattr(pruners, str(target).removeprefix(_PRUNERS), None)
        if not str(target).startswith(_PRUNERS) or not isinstance(kind, type):
            raise ConfigurationError(f"{target} is not a class of optuna.pruners")
        return kind(**options)

    return build(description) if description else pruners.NopPruner()


def trial_of_job(record: Path) -> optuna.Trial:
    """Opens the trial of a job, to report scores to it.

    Args:
        record: of the job.

    Raises:
        ConfigurationError: the sweep has no study, or no such trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = StudyOfSweep.read(record.parent)
    if found is None:
        raise ConfigurationError(f"{record.parent}: there is no {FILE}")
    study = optuna.load_study(
        study_name=found.name,
        storage=found.url(record.parent),
        sampler=optuna.samplers.RandomSampler(),  # which draws nothing for a trial that has its values
        pruner=build_pruner(found.pruner),
    )
    trial = found.trials(study).get(int(record.stem))
    if trial is None:
        raise ConfigurationError(f"study {found.name}: it has no trial for job {record.stem}")
    return optuna.Trial(study, trial._trial_id)  # pyright: ignore[reportPrivateUsage] - the number is per study


def pruning_of_job(config: DictConfig) -> list[Callback]:
    """Returns the callback that prunes the run, on all ranks, if it is a job of a search with a pruner."""
    path = os.environ.get(JOB)
    found = StudyOfSweep.read(Path(path).parent) if path else None
    if path is None or found is None or not found.pruner or not config.get("monitor"):
        return []
    from unrolled.training.callbacks.pruning import Pruning  # imports torch, which the sweep itself does without

    return [Pruning(lambda: trial_of_job(Path(path)), config.monitor.metric)]
