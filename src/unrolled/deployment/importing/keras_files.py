"""Files of Keras models as data: the layers that their configuration lists, and their arrays."""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unrolled.deployment.importing.hdf5 import array, member, open_file
from unrolled.descriptions import CheckpointError

_ROOTS = ("layers", "_layer_checkpoint_dependencies")  # of Keras 3, and of the last releases of Keras 2
_LARGEST = 1 << 26  # bytes of a configuration


class Layer(NamedTuple):
    """A layer of a model: its name, class, options, the names of the layers before it, and a reader of its arrays."""

    name: str
    kind: str
    options: dict[str, Any]
    before: list[str]
    place: str


class Model(NamedTuple):
    """The layers of a file in order, by name, its arrays, and the version of Keras that wrote it."""

    path: Path
    layers: dict[str, Layer]
    arrays: Any
    version: str
    legacy: bool  # whole models in HDF5, where arrays are listed by name

    def read(self, layer: Layer, part: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """Return the array with an index of a part, such as "cell/"; a legacy file counts the arrays of all parts."""
        if not self.legacy:
            return array(self.arrays, f"{layer.place}/{part}vars/{index}", shape, self.path)
        group = member(self.arrays, layer.place, self.path)
        names: Any = [] if group is None else list(group.attrs.get("weight_names", []))
        names = [each.decode() if isinstance(each, bytes) else str(each) for each in names]
        if index >= len(names):
            raise CheckpointError(f"{self.path}: the weights of {layer.name} are missing")
        return array(group, names[index], shape, self.path)


@contextmanager
def opened(path: Path) -> Generator[Model]:
    """Open the file of a model until the block ends.

    Raises:
        CheckpointError: a file that is missing, damaged or of another kind, also where the block finds it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        whole = not zipfile.is_zipfile(path)
        content = path if whole else io.BytesIO(_from_zip(path, "model.weights.h5", path.stat().st_size))
        with open_file(content, path) as arrays:
            yield _read(path, arrays)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file has other keys, types and sizes in any place, and h5py any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: the file is damaged, or no model of Keras ({reason:.200})") from None


def _from_zip(path: Path, name: str, largest: int) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > max(largest, _LARGEST):
                raise CheckpointError(f"{path}: its {name} is too large")
            return archive.read(name)
    except KeyError:
        raise CheckpointError(f"{path}: it has no {name}; save the model by model.save('model.keras')") from None


def _read(path: Path, arrays: Any) -> Model:
    """Read the configuration of a model."""
    legacy = not zipfile.is_zipfile(path)
    if legacy:
        content: Any = arrays.attrs.get("model_config")
        version = text(arrays.attrs.get("keras_version")) or text(
            arrays["model_weights"].attrs.get("keras_version") if "model_weights" in arrays else None
        )
        if content is None:
            raise CheckpointError(
                f"{path}: it has no description of a model, as files of weights alone; save the model by "
                "model.save('model.keras')"
            )
    else:
        content = _from_zip(path, "config.json", _LARGEST)
        version = str(_json(_from_zip(path, "metadata.json", _LARGEST), path).get("keras_version", ""))
    config = _json(content, path)
    kind, options = config.get("class_name"), config.get("config")
    if kind not in ("Sequential", "Functional", "Model") or not isinstance(options, (dict, list)):
        raise CheckpointError(
            f"{path}: it holds {kind!r:.80}, expected a Sequential or Functional model; a model of a class of your own "
            "describes no layers: save its layers in a Sequential model"
        )
    entries: Any = options if isinstance(options, list) else options.get("layers")
    layers = {layer.name: layer for layer in _layers(entries, arrays, legacy, functional=kind != "Sequential")}
    return Model(path, layers, arrays, version, legacy)


def text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _json(content: Any, path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its configuration is damaged: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: its configuration is damaged: not a dict")
    return found


def _layers(entries: Any, arrays: Any, legacy: bool, *, functional: bool) -> Iterator[Layer]:
    """Yield the layers of a configuration."""
    root = "model_weights" if legacy else next((each for each in _ROOTS if each in arrays), _ROOTS[0])
    counts: Counter[str] = Counter()
    before: list[str] = []
    for entry in entries:
        kind, options = str(entry["class_name"]), dict(entry["config"])
        name = str(options.get("name") or entry.get("name"))
        key = _snake(kind)
        place = f"{root}/{name}" if legacy else f"{root}/{key}{f'_{counts[key]}' if counts[key] else ''}"
        counts[key] += 1
        reads = list(_origins(entry.get("inbound_nodes", []))) if functional else before
        yield Layer(name, kind, options, reads, place)
        before = [name]


def _origins(nodes: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs a layer reads, of Keras 3 (keras_history) and of Keras 2."""
    if isinstance(nodes, dict):
        history = nodes.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
            return
        for value in nodes.values():
            yield from _origins(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _origins(value)


def _snake(name: str) -> str:
    """Return a class's name as Keras writes it in files: SimpleRNN → simple_rnn."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
