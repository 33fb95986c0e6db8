"""Pretrained weights for the trunk of an image encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from unrolled.checkpoint import load_tensors
from unrolled.descriptions import CheckpointError
from unrolled.models.images.trunks import Trunk

_MOST_NAMED = 3  # maximum number of mismatches in a message


def load_trunk(trunk: nn.Module, source: str) -> None:
    """Loads pretrained weights into a trunk.

    Args:
        trunk: a `Trunk`, or any other module.
        source: "own" for the pretrained weights of a `Trunk`, or a file with a state dict (read with
            weights_only=True). Weights that the trunk does not have, such as a classifier's, are ignored.

    Raises:
        ValueError: no such weights, an invalid file, or missing or mismatched weights.
    """
    if source == "own":
        if not isinstance(trunk, Trunk):
            raise ValueError(
                f"{type(trunk).__name__} has no pretrained weights of its own: name a file, task.pretrained=weights.pt"
            )
        found = trunk.pretrained()
    else:
        found = _read(Path(source).expanduser())
    wanted = trunk.state_dict()
    if not any(name in wanted for name in found):  # the trunk wraps the network of the file
        found = {f"body.{name}": value for name, value in found.items()}
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, the trunk has {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - _MOST_NAMED} more)" if len(wrong) > _MOST_NAMED else ""
        mismatches = "; ".join(wrong[:_MOST_NAMED])
        raise ValueError(f"task.pretrained={source}: the weights do not match the trunk: {mismatches}{more}")
    trunk.load_state_dict({name: found[name] for name in wanted})


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"task.pretrained={path}: no such file")
    try:
        content = load_tensors(path)
    except CheckpointError as error:
        raise ValueError(f"task.pretrained: {error}") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"task.pretrained={path}: the file contains no state dict of tensors")
    return cast("dict[str, Tensor]", content)
