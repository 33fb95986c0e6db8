"""Going on with a run: which checkpoint, on the same data, with the best one that it had."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer

from unrolled.checkpoint import CheckpointError
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.data.base import SequenceData

# Of the data's options these don't change what training reads. Where files lie doesn't either: their content counts.
_UNRELATED = ("validation", "random_windows", "test", "cache", "kept")

_LAST = Path("checkpoints/last.ckpt")


def find_checkpoint(resume: str, run_dir: Path) -> Path:
    """The checkpoint that `resume` names.

    Args:
        resume: a checkpoint, the folder of a run, or "last": this run's folder if it has one, or else the latest of
            the runs that were given a folder in the same place, `outputs/TASK`.
        run_dir: this run's folder.

    Raises:
        CheckpointError: there is none.
    """
    if resume == "last":
        here = run_dir / _LAST
        found = [here] if here.is_file() else list(run_dir.parent.parent.glob(f"*/*/{_LAST}"))
        if not found:
            raise CheckpointError(
                f"resume=last: there is no {here}, nor one in folders beside it; name a checkpoint or a run's folder"
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


def reading(options: Mapping[str, Any], data: SequenceData, trainer: Trainer) -> dict[str, Any]:
    """What decides which examples training reads when, as plain data for a checkpoint.

    Args:
        options: of the data, as configured.
        data: prepared.
        trainer: of the run.
    """
    numbers = {f"data.{key}": value for key, value in _numbers(options) if not key.startswith(_UNRELATED)}
    return {
        **numbers,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.limit_train_batches": trainer.limit_train_batches,
        "processes": trainer.world_size,
        "content": data.fingerprint(),
    }


def check_same_reading(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with other data.

    Raises:
        ConfigurationError: names what differs from the run that is resumed.
    """
    differing = [
        "the training examples are others" if key == "content" else f"{key} was {before.get(key)}, now {now.get(key)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise ConfigurationError(
            f"resume: this is not what the run was reading: {'; '.join(differing[:5])}\n"
            "Go on with the same, or start a new run from the weights alone: init_from=PATH"
        )


def _numbers(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and switches in nested options, by dotted name."""
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(cast("Mapping[str, Any]", value), f"{name}.")
        elif isinstance(value, (bool, int, float)):
            yield name, value
        elif isinstance(value, (list, tuple)) and all(isinstance(each, (int, float)) for each in value):
            yield name, list(cast("Sequence[Any]", value))
