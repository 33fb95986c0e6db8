"""A sweeper that searches with Optuna: TPE, random search and other samplers, with pruning."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.records import BROKEN, COMPLETE, PRUNED, REFUSED, JobRecord, record_of
from unrolled.training.run.search_space import key_of, override_of, search_space, swept
from unrolled.training.run.study import StudyOfSweep, build_pruner
from unrolled.training.run.sweep_command import RECORDS

if TYPE_CHECKING:
    import optuna

_DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}


class OptunaSweeper(Sweeper):
    """Asks Optuna for the values of each job, and tells it the best validation score of the run.

    The seed of a job's sampler depends on `sampler["seed"]` and the number of the job, so that a sweep that was killed
    draws the values that it would have drawn. The direction is that of `monitor.mode`.

    Args:
        n_trials: jobs of the sweep.
        n_jobs: jobs that the launcher gets together; a launcher that runs them at the same time makes a sweep faster,
            but the values of a batch do not depend on one another.
        sampler: description of a sampler of Optuna, with `_target_`.
        pruner: description of a pruner of `optuna.pruners`; empty for none.
        storage: URL of a database, such as `postgresql://…`; None for SQLite in the folder of the sweep.
        study_name: name of the study in the database; sweeps with the same name share what they learn.
        params: search space besides the command line.
    """

    def __init__(
        self,
        sampler: Mapping[str, Any],
        n_trials: int = 20,
        n_jobs: int = 1,
        pruner: Mapping[str, Any] | None = None,
        storage: str | None = None,
        study_name: str = "unrolled",
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.n_trials, self.n_jobs = n_trials, n_jobs
        self.sampler, self.pruner = dict(sampler), dict(pruner or {})
        self.storage, self.study_name = storage, study_name
        self.params = dict(params or {})
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def check(self, mode: str) -> None:
        """Checks the options before the first job, and that a database can be reached.

        Args:
            mode: `monitor.mode`, min or max.

        Raises:
            ConfigurationError: names the option.
        """
        for name in ("n_trials", "n_jobs"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"hydra.sweeper.{name}={value}: must be a whole number of 1 or more")
        parts = {"sampler": lambda: build_sampler(self.sampler, 0), "pruner": lambda: build_pruner(self.pruner)}
        for name, make in parts.items():
            try:
                make()
            except (TypeError, ValueError, HydraException) as error:
                raise ConfigurationError(f"hydra.sweeper.{name}: {error}") from error
        if self.storage is not None:
            self._check_storage(self.storage, mode)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the jobs. Called by Hydra after `setup`."""
        if self.config is None or self.launcher is None or self.hydra_context is None:
            raise RuntimeError("Hydra calls setup before sweep")
        records = Path(str(self.config.hydra.sweep.dir)) / RECORDS
        written: dict[str, Any] = OmegaConf.to_container(self.config.hydra.sweeper)  # pyright: ignore[reportAssignmentType]
        storage = _unresolved(written["storage"], self.storage)
        place = StudyOfSweep.open(records, self.study_name, storage, self.pruner)
        study = self._open_study(place.url(records))
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        if self.storage is None:
            _fail_unmarked(study)
        for first in range(0, self.n_trials, self.n_jobs):
            numbers = range(first, min(first + self.n_jobs, self.n_trials))
            trials = [self._trial(study, place, overrides, number) for number in numbers]
            if all(trial.state.is_finished() for trial in trials):
                continue
            self.launcher.launch([_overrides_of(trial, overrides) for trial in trials], initial_job_idx=first)
            for trial, number in zip(trials, numbers, strict=True):
                if not trial.state.is_finished():
                    self._tell(study, trial, JobRecord.read(record_of(records, number)))

    def _check_storage(self, url: str, mode: str) -> None:
        from optuna import get_all_study_summaries
        from sqlalchemy.exc import SQLAlchemyError

        try:
            found = {summary.study_name: summary for summary in get_all_study_summaries(url)}
        except (SQLAlchemyError, ImportError, OSError, ValueError) as error:  # ImportError: of a database's driver
            raise ConfigurationError(f"hydra.sweeper.storage: {str(error).splitlines()[0]}") from error
        study = found.get(self.study_name)
        if study is not None and study.direction.name != _DIRECTIONS[mode].upper():
            raise ConfigurationError(
                f"hydra.sweeper.study_name={self.study_name}: this study has another direction than monitor.mode={mode}"
            )

    def _open_study(self, url: str) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(
            study_name=self.study_name,
            storage=url,
            direction=_DIRECTIONS[self._mode()],
            pruner=build_pruner(self.pruner),
            load_if_exists=True,
        )

    def _mode(self) -> str:
        return str(self.config.monitor.mode) if self.config is not None else "min"

    def _trial(
        self, study: optuna.Study, place: StudyOfSweep, overrides: Sequence[Override], number: int
    ) -> optuna.trial.FrozenTrial:
        """Returns the trial of a job: the one that it has from before the sweep was killed, or a new one."""
        found = place.trials(study)
        if number not in found:
            study.sampler = build_sampler(self.sampler, number)
            place.mark(study.ask(search_space(overrides)), number)
            found = place.trials(study)
        return found[number]

    def _tell(self, study: optuna.Study, trial: optuna.trial.FrozenTrial, job: JobRecord) -> None:
        from optuna.trial import TrialState

        if job.state == COMPLETE and math.isfinite(job.score) and job.monitor.get("mode") == self._mode():
            study.tell(trial.number, job.score)
        elif job.state == PRUNED:
            study.tell(trial.number, state=TrialState.PRUNED)
        elif job.state in (COMPLETE, BROKEN, REFUSED):
            study.tell(trial.number, state=TrialState.FAIL)
            if job.state == COMPLETE:
                print(
                    f"job {job.number}: the search learns nothing from it: it has no validation score, or its "
                    f"monitor.mode is not {self._mode()}",
                    file=sys.stderr,
                )


def check_search(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Checks the sweeper and the search space before the first job.

    Args:
        config: of the sweep, with that of Hydra.
        overrides: of the command line and of `hydra.sweeper.params`.

    Raises:
        ConfigurationError: a wrong option, an interval without Optuna, or Optuna is not installed.
    """
    target = str(config.hydra.sweeper.get("_target_"))
    if target == "hydra_plugins.unrolled.OptunaSweeper":
        if find_spec("optuna") is None:
            raise ConfigurationError("hydra/sweeper=optuna needs Optuna: pip install 'unrolled[sweeps]'")
        mode = str(OmegaConf.select(config, "monitor.mode"))
        if mode not in _DIRECTIONS:
            raise ConfigurationError(f"monitor.mode={mode}: a search needs a run with a validation, min or max")
        options: dict[str, Any] = OmegaConf.to_container(config.hydra.sweeper, resolve=True)  # pyright: ignore[reportAssignmentType]
        OptunaSweeper(**{name: value for name, value in options.items() if not name.startswith("_")}).check(mode)
        search_space([o for o in overrides if o.value_type is not ValueType.GLOB_CHOICE_SWEEP])  # which needs a loader
    elif target.endswith("BasicSweeper"):
        for override in swept(overrides):
            if override.is_interval_sweep():
                raise ConfigurationError(
                    f"{override.input_line}: an interval is searched, not enumerated: hydra/sweeper=optuna or "
                    "hydra/sweeper=random; or list values, or write range(…)"
                )


def build_sampler(description: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """Builds the sampler for one job, whose seed depends on the described seed and on the number of the job.

    A quasi-random sequence keeps its seed: its points depend on one another.
    """
    from hydra.utils import instantiate
    from numpy.random import SeedSequence

    options = dict(description)
    seed = options.get("seed")
    if isinstance(seed, int) and not str(options.get("_target_")).endswith("QMCSampler"):
        options["seed"] = int(SeedSequence([seed, number]).generate_state(1)[0])
    return instantiate(OmegaConf.create(options))


def _overrides_of(trial: optuna.trial.FrozenTrial, overrides: Sequence[Override]) -> list[str]:
    return [
        override_of(each, trial.params[key_of(each)]) if each.is_sweep_override() else str(each.input_line)
        for each in overrides
    ]


def _fail_unmarked(study: optuna.Study) -> None:
    """Ends trials that a killed sweep had not yet given to a job; their values will be drawn again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)


def _unresolved(written: Any, resolved: str | None) -> str | None:
    """Returns a URL as it was written if it names environment variables, so that no file contains their values."""
    return str(written) if "${oc.env:" in str(written) else resolved
