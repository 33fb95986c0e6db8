"""Arrays of HDF5 files, read with care: a file may name other files, or claim more data than it has.

What stays is libhdf5 itself: on some damaged files it does not return.
"""

from typing import Any

import torch
from torch import Tensor

from unrolled.descriptions import CheckpointError

_INSTALL = "pip install 'unrolled[import]'"
_EXPANSION = 1000  # times that stored data may be compressed
_SMALL = 1 << 20  # bytes that any array may have


def open_file(file: Any, path: object) -> Any:
    """Open an HDF5 file, a path or a stream, for reading.

    Raises:
        CheckpointError: h5py is not installed, or the file is damaged or of another kind.
    """
    try:
        import h5py
    except ImportError:
        raise CheckpointError(f"{path}: reading files of Keras needs the package h5py: {_INSTALL}") from None
    try:
        return h5py.File(file, "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the file is damaged, or no HDF5 file ({error})") from None


def member(group: Any, name: str, path: object) -> Any:
    """Return a group or array by its path in a file; None if there is none.

    Raises:
        CheckpointError: a link to another file or place.
    """
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            return None
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise CheckpointError(f"{path}: {part!r} is a link to another place, which is not followed")
        group = group[part]
    return group


def array(group: Any, name: str, shape: tuple[int, ...], path: object) -> Tensor:
    """Return an array of floating point numbers as a tensor.

    Raises:
        CheckpointError: it is missing, or of another shape or kind.
    """
    import h5py

    found = member(group, name, path)
    if not isinstance(found, h5py.Dataset):
        raise CheckpointError(f"{path}: {name} is missing; expected numbers of the shape {shape}")
    if found.shape != shape or found.dtype.kind != "f":
        raise CheckpointError(
            f"{path}: {name} has the shape {found.shape} of {found.dtype}, expected {shape} of float32; quantized "
            "models can't be imported"
        )
    outside = found.is_virtual or found.external is not None
    if outside or found.nbytes > max(_SMALL, _EXPANSION * found.id.get_storage_size()):
        raise CheckpointError(f"{path}: {name} has its numbers in another file, or none")
    tensor = torch.as_tensor(found.astype("f8" if found.dtype.itemsize == 8 else "f4")[()])
    if not tensor.isfinite().all():
        raise CheckpointError(f"{path}: {name} holds nan or inf")
    return tensor
