"""The best checkpoints of a run that is resumed in another folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from unrolled.checkpoint import load_tensors, save_tensors
from unrolled.descriptions import CheckpointError

_log = logging.getLogger(__name__)


def copy_best_checkpoints(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Copies the best checkpoints of a resumed run to this run's folder, so that their scores remain the best so far.

    Lightning resets the best score when the folder has changed (2.6), and the next validation would be the best.

    Args:
        trainer: resumes from `trainer.ckpt_path`; the best checkpoints are in the same folder.
        checkpoint: the loaded checkpoint; its entries of ModelCheckpoint are changed in place.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key)
        if not isinstance(callback, ModelCheckpoint) or not state or state["dirpath"] == callback.dirpath:
            continue
        beside, here = Path(str(trainer.ckpt_path)).parent, Path(str(callback.dirpath))
        scores = {**state["best_k_models"], state["best_model_path"]: state["best_model_score"]}
        found = [path for path, score in scores.items() if path and _holds(beside / Path(path).name, state, score)]
        if set(filter(None, scores)) != set(found):
            rank_zero_only(_log.warning)(
                "%s: the best checkpoints of the resumed run are missing; only the scores from now on count", beside
            )
            state["best_model_path"] = ""  # Lightning resets the other entries, since the folder differs
            continue
        if trainer.is_global_zero:
            for path in found:
                save_tensors(load_tensors(beside / Path(path).name), here / Path(path).name)
        state["dirpath"] = callback.dirpath
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = str(here / Path(state[key]).name) if state[key] else ""
        state["best_k_models"] = {str(here / Path(path).name): s for path, s in state["best_k_models"].items()}


def _holds(path: Path, state: Mapping[str, Any], score: Any) -> bool:
    """Whether a file is the checkpoint with this score, and not a later one that replaced it."""
    try:
        callbacks = load_tensors(path)["callbacks"]
    except (CheckpointError, KeyError):
        return False
    same = [each for each in callbacks.values() if each.get("monitor") == state["monitor"]]
    return any(each.get("current_score") == score for each in same)
