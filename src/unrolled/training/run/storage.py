"""Storage of Lightning's checkpoints."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from unrolled.checkpoint import load_tensors, save_tensors


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file beside its path, syncs and verifies it, and then replaces the old one.

    Lightning's own class writes to $TMPDIR and copies from there. A process killed during the copy would leave an
    incomplete file in place of the only checkpoint. URLs of remote storage (`s3://…`) are passed to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Saves a checkpoint.

        Raises:
            CheckpointError: it cannot be written.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            save_tensors(checkpoint, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Loads a checkpoint.

        Raises:
            CheckpointError: the file is damaged or contains more than plain data.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return load_tensors(path)
