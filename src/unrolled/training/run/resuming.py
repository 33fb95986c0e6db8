"""Resuming a run: finding its checkpoint, and checking that the data are the same."""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Trainer

from unrolled.backends import BACKENDS
from unrolled.checkpoint import KEY, read_checkpoint
from unrolled.descriptions import CheckpointError, locate
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.configuration.run_dir import RUN, SWEEP
from unrolled.training.data.base import SequenceData
from unrolled.wording import counted

_log = logging.getLogger(__name__)

# Data options without effect on training. Paths of files have none either: their content is compared.
_UNRELATED = ("validation", "random_windows", "test", "score", "scoring", "cache", "storage", "workers")

_LAST = Path("checkpoints/last.ckpt")


def find_checkpoint(resume: str, run_dir: Path) -> Path | None:
    """Returns the path of the checkpoint to resume from; None if "auto" finds none, and the run starts anew.

    Args:
        resume: a checkpoint, the folder of a run, "auto": the newest checkpoint in this run's folder that is whole, or
            "last": the last checkpoint in this run's folder if there is one, otherwise that of the latest run below the
            same `outputs/TASK`.
        run_dir: this run's folder.

    Raises:
        CheckpointError: there is no checkpoint, or "auto" finds damaged ones only.
        ConfigurationError: "auto" in a folder that is new for each run.
    """
    if resume == "auto":
        return _newest_whole(run_dir)
    if resume == "last":
        here = run_dir / _LAST
        found = [here] if here.is_file() else list(run_dir.parent.parent.glob(f"*/*/{_LAST}"))
        if not found:
            raise CheckpointError(
                f"resume=last: neither {here} nor a checkpoint in a folder beside it exists; name a checkpoint or a "
                "run's folder"
            )
        return max(found, key=lambda path: path.stat().st_mtime)
    path = Path(resume)
    if not path.is_dir():
        return path
    places = [path / _LAST, path / _LAST.name]
    found = [place for place in places if place.is_file()]
    if not found:
        raise CheckpointError(f"resume={resume}: there is no {places[0]}; name a checkpoint or the folder of a run")
    return found[0]


def _newest_whole(run_dir: Path) -> Path | None:
    """Returns the checkpoint in a run's folder that was written last, of those that can be read and resumed."""
    if HydraConfig.initialized() and not any(
        override.startswith((f"{RUN}=", f"{SWEEP}=")) for override in HydraConfig.get().overrides.hydra
    ):
        raise ConfigurationError("resume=auto: this run's folder is new, and has no checkpoint; give run_dir=…")
    found = list((run_dir / _LAST.parent).glob("*.ckpt"))
    found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name == _LAST.name), reverse=True)
    passed: list[str] = []
    for path in found:
        reason = _reason_against(path)
        if reason is None:
            _log.info("resume=auto: going on from %s", path)
            return path
        passed.append(reason)
        _log.warning("resume=auto: passed over %s", reason)
    if passed:
        raise CheckpointError(
            f"resume=auto: no checkpoint in {run_dir / _LAST.parent} can be resumed: {'; '.join(passed)}\n"
            "Remove them to start anew, or give another run_dir"
        )
    _log.info("resume=auto: there is no checkpoint in %s; starting anew", run_dir / _LAST.parent)
    return None


def _reason_against(path: Path) -> str | None:
    """Returns why a checkpoint cannot be resumed; None if it can."""
    try:
        resume_entry(read_checkpoint(path), path)
    except CheckpointError as error:
        return str(error)
    return None


def resume_entry(content: Mapping[str, Any], path: str | Path) -> Mapping[str, Any]:
    """Returns what a checkpoint holds for resuming, beyond what Lightning saves; see `SequenceTask`.

    Raises:
        CheckpointError: it holds less.
    """
    found: Any = content[KEY].get("resume")
    entry = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
    settings, processes = entry.get("data_settings"), entry.get("processes")
    backends: Any = entry.get("backends")
    complete = isinstance(settings, Mapping) and isinstance(settings.get("processes", 1), int)
    complete &= isinstance(processes, list) and all(
        isinstance(each, Mapping) and isinstance(each.get(key), Mapping)
        for each in processes
        for key in ("carried", "random", "gradients")
    )
    complete &= isinstance(backends, Mapping) and all(name in BACKENDS for name in backends.values())
    if not complete or not processes or not all(key in content for key in ("loops", "optimizer_states")):
        raise CheckpointError(f"{path}: it has weights, but no state to resume from; start from them: init_from={path}")
    return entry


def plan_as_before(entry: Mapping[str, Any], data: SequenceData, trainer: Trainer) -> int:
    """Lets the data make the batches of the resumed run, and returns the number of processes that these are made for.

    Args:
        entry: `resume_entry` of the checkpoint.
        data: the data, before they make loaders.
        trainer: the run's Trainer.

    Raises:
        DataError: the number of processes has changed, and the data cannot divide those batches among these.
    """
    planned = int(entry["data_settings"].get("processes", trainer.world_size))
    wrote = len(entry["processes"])
    if planned != trainer.world_size:
        data.plan_for(planned)
    if wrote != trainer.world_size and trainer.is_global_zero:
        _log.warning(
            "resume: %s wrote the checkpoint, this run has %d: the batches stay those of %s, each process reads its "
            "share of the rows, and random numbers differ from those of a run without a break",
            counted(wrote, "process", "processes"),
            trainer.world_size,
            counted(planned, "process", "processes"),
        )
    return planned


def data_settings(options: Mapping[str, Any], data: SequenceData, trainer: Trainer, planned: int) -> dict[str, Any]:
    """Returns all settings that determine the order of the training examples, as plain data for a checkpoint.

    Args:
        options: the configuration of the data, with `_target_`.
        data: the prepared data.
        trainer: the run's Trainer.
        planned: number of processes that the batches are made for.
    """
    given = _numbers(with_defaults(options))
    numbers = {f"data.{key}": value for key, value in given if not key.startswith(_UNRELATED)}
    return {
        **numbers,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.limit_train_batches": trainer.limit_train_batches,
        "processes": planned,
        "content": data.fingerprint(),
    }


def with_defaults(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a description with the defaults of its constructors, whether or not a file repeats them."""
    filled = {key: _with_defaults(value) for key, value in description.items()}
    target = description.get("_target_")
    parameters = inspect.signature(locate(target)).parameters.values() if isinstance(target, str) else ()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {**defaults, **filled}


def _with_defaults(value: Any) -> Any:
    if isinstance(value, Mapping):
        return with_defaults(cast("Mapping[str, Any]", value))
    return [_with_defaults(each) for each in cast("Sequence[Any]", value)] if isinstance(value, list) else value


def check_same_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Checks that a resumed run reads the same training data.

    Raises:
        ConfigurationError: lists the differences from the resumed run.
    """
    differing = [
        "the training examples differ" if key == "content" else f"{key} was {before.get(key)}, now {now.get(key)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise ConfigurationError(
            f"resume: the data differ from those of the resumed run: {'; '.join(differing[:5])}\n"
            "Resume with the same data, or start a new run from the weights alone: init_from=PATH"
        )


def _numbers(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields numbers and booleans in nested options, by dotted name."""
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(cast("Mapping[str, Any]", value), f"{name}.")
        elif isinstance(value, (bool, int, float)):
            yield name, value
        elif isinstance(value, (list, tuple)) and all(isinstance(each, (int, float)) for each in value):
            yield name, list(cast("Sequence[Any]", value))
