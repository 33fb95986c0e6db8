"""Weights that somebody has trained, for a split of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from unrolled.checkpoint import CheckpointError, load_tensors
from unrolled.models.images.trunks import Trunk

_MOST_NAMED = 3  # of what does not fit


def load_trunk(trunk: nn.Module, source: str) -> None:
    """Puts trained weights into a trunk.

    Args:
        trunk: a `Trunk`, or any module of your own.
        source: "own" for the weights that a `Trunk` brings along, or a file with a state dict (read with
            weights_only=True). Weights of a classifier that the trunk doesn't have are left aside.

    Raises:
        ValueError: no such weights, a file that is none, or weights that leave a split of the trunk as it was drawn.
    """
    if source == "own":
        if not isinstance(trunk, Trunk):
            raise ValueError(f"{type(trunk).__name__} brings no weights along: name a file, task.pretrained=weights.pt")
        found = trunk.pretrained()
    else:
        found = _read(Path(source).expanduser())
    wanted = trunk.state_dict()
    if not any(name in wanted for name in found):  # the trunk wraps the network that the file is about
        found = {f"body.{name}": value for name, value in found.items()}
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, the trunk has {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - _MOST_NAMED} more)" if len(wrong) > _MOST_NAMED else ""
        said = "; ".join(wrong[:_MOST_NAMED])
        raise ValueError(f"task.pretrained={source}: the weights are another trunk's: {said}{more}")
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
        raise ValueError(f"task.pretrained={path}: it holds no state dict of tensors")
    return cast("dict[str, Tensor]", content)
