"""How Lightning's checkpoints reach the disk."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from unrolled.checkpoint import load_tensors, save_tensors


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place, synced and verified, before it takes the place of the one before.

    Lightning's own writes to $TMPDIR and copies from there, so that a process that is killed meanwhile leaves half a
    file where the only checkpoint was. Addresses of remote storage (`s3://…`) are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises CheckpointError where it can't be written."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            save_tensors(checkpoint, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Raises CheckpointError for a file that is damaged or holds more than plain data."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return load_tensors(path)
