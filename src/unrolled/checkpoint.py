"""Checkpoints of trained networks, which are read with torch alone.

A checkpoint is a Lightning checkpoint with one additional key,

    {"unrolled": {"format": 2, "network": {"_target_": …}, "processor": {"source": …, "target": …}, "info": {…}}}

whose descriptions are plain dicts. Reading a file never unpickles objects and imports only modules in an allow-list.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled import durable
from unrolled.descriptions import TRUSTED, CheckpointError, build, describe
from unrolled.pretrained import download, is_pretrained, read_pretrained, repository_of
from unrolled.processing.transform import Processor, Transform
from unrolled.wording import article

FORMAT = 2
KEY = "unrolled"
_PREFIX = "network."  # of the weights: the network is a part of the task, whose checkpoint this is


class Bundle(NamedTuple):
    """A trained network, its processor, and information about its training."""

    network: nn.Module
    processor: Processor
    info: dict[str, Any]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the content of a checkpoint of this package, on the CPU.

    Args:
        path: a .ckpt file; the folder of a run, whose best or else last checkpoint is read; a pretrained folder; or a
            repository of the Hugging Face Hub, see `repository_of`.

    Raises:
        CheckpointError: a file that is missing, unreadable, unsafe, from another program, or of another format.
    """
    repository = repository_of(path)
    path = Path(path) if repository is None else download(repository)
    if path.is_dir() and is_pretrained(path):
        described, weights = read_pretrained(path)
        content: Any = {KEY: described, "state_dict": {f"{_PREFIX}{name}": value for name, value in weights.items()}}
    else:
        path = _in_folder(path) if path.is_dir() else path
        if not path.is_file():
            near = sorted(str(p) for p in path.parent.glob("*.ckpt"))[:5] if path.parent.is_dir() else []
            hint = f"; beside it: {', '.join(near)}" if near else ""
            raise CheckpointError(f"{path}: no such file{hint}")
        content = load_tensors(path)
    if not isinstance(content, dict) or KEY not in content or "state_dict" not in content:
        raise CheckpointError(f"{path}: a torch file, but not one written by unrolled (it has no {KEY!r} entry)")
    _check_shape(content, path)
    return cast("dict[str, Any]", content)


def _check_shape(content: Mapping[str, Any], path: Path | str) -> None:
    """Check the structure of a checkpoint."""
    ours: Any = content[KEY]
    found = ours.get("format") if isinstance(ours, Mapping) else None
    if found != FORMAT:
        older = "; format 1 was never released: train the network again" if found == 1 else ""
        raise CheckpointError(f"{path}: format {found!r:.80}; this version of unrolled reads format {FORMAT}{older}")
    for name in ("network", "processor", "info"):
        if not isinstance(ours.get(name), Mapping):
            raise CheckpointError(f"{path}: its {name!r} is {_kind(ours.get(name))}, expected a dict")
    weights: Any = content["state_dict"]
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"{path}: its 'state_dict' is {_kind(weights)}, expected a dict of tensors")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{path}: its weight {name!r:.80} is {_kind(value)}, expected a dense tensor")


def _kind(value: Any) -> str:
    return "missing" if value is None else article(type(value).__name__)


def save_tensors(content: Any, path: str | Path) -> None:
    """Replace a torch file atomically; see `durable.write`.

    Args:
        content: dicts, lists, strings, numbers and tensors.
        path: the file.

    Raises:
        CheckpointError: the file can't be written; an existing file is unchanged.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors(content)}
    try:
        durable.write(Path(path), lambda file: torch.save(content, file), size=sum(storages.values()))
    except (OSError, RuntimeError, durable.DamagedFileError) as error:
        # If writing fails, torch raises a RuntimeError about its archive.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{path} could not be written; an existing file is unchanged: {reason}") from error


def tensors(content: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested dicts, lists and tuples."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for item in cast("Mapping[Any, Any]", content).values():
            yield from tensors(item)
    elif isinstance(content, (list, tuple)):
        for item in cast("Sequence[Any]", content):
            yield from tensors(item)


def _in_folder(folder: Path) -> Path:
    names = [f"{inner}{name}.ckpt" for name in ("best", "last") for inner in ("checkpoints/", "")]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        near = [str(path) for pattern in ("*.ckpt", "*/*.ckpt") for path in sorted(folder.glob(pattern))][:5]
        hint = f"; pass one of {', '.join(near)}" if near else ""
        raise CheckpointError(f"{folder} is a folder without best.ckpt or last.ckpt{hint}")
    return found


def load_tensors(path: str | Path) -> Any:
    """Load a torch file on the CPU without executing code, and verify its digest if it has one.

    Raises:
        CheckpointError: the file isn't a torch file, is damaged, or contains Python objects.
    """
    try:
        durable.check(Path(path))
    except (OSError, durable.DamagedFileError) as error:
        raise CheckpointError(str(error)) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: it contains Python objects or is not a checkpoint; it was not executed ({_reason(error)})"
        ) from None
    except Exception as error:  # torch's unpickler raises IndexError and others for other files
        raise CheckpointError(f"{path}: not readable as a checkpoint ({_reason(error)})") from None


def load_bundle(path: str | Path, *, trusted: Sequence[str] = TRUSTED, device: str | torch.device = "cpu") -> Bundle:
    """Load a trained network in evaluation mode, with torch alone.

    Args:
        path: a `.ckpt` file from training, the folder of a run, a pretrained folder, or a repository of the Hugging
            Face Hub (`owner/name`, `hf://owner/name@revision`).
        trusted: prefixes of modules whose classes the file may contain; add your own package to load your own cells.
        device: the device of the network.

    Raises:
        CheckpointError: see `read_checkpoint`; an invalid description of the network or processor; or weights that
            don't match the described network.
    """
    content = read_checkpoint(path)
    processor, network = (described(content, name, path, trusted) for name in ("processor", "network"))
    load_weights(network, content, path)
    return Bundle(network.to(device).eval(), processor, dict(content[KEY]["info"]))


def save_bundle(bundle: Bundle, path: str | Path, *, description: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint that `load_bundle` reads, such as one of a network with imported weights.

    Training cannot be resumed from it.

    Args:
        bundle: the network, its processor and information about its training, which is plain data.
        path: the `.ckpt` file, which is replaced atomically.
        description: what `build` makes such a network from; by default `describe(bundle.network)`.

    Raises:
        ValueError: a network without a description, or another network than the description's.
        CheckpointError: the file can't be written; an existing file is unchanged.
    """
    save_tensors(content_of(bundle, description), path)


def content_of(bundle: Bundle, description: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of the checkpoint that `load_bundle` reads as this bundle; see `save_bundle`."""
    network, processor, info = bundle
    described = dict(describe(network) if description is None else description)
    weights = {f"{_PREFIX}{name}": value.detach().cpu() for name, value in network.state_dict().items()}
    ours = {"format": FORMAT, "network": described, "processor": processor.to_dict(), "info": dict(info)}
    content = {KEY: ours, "state_dict": weights}
    _check_shape(content, "this bundle")
    with torch.random.fork_rng(devices=[]):
        load_weights(build(described), content, "this bundle")  # proves that the file can be loaded
    return content


def described(content: Mapping[str, Any], name: str, path: str | Path, trusted: Sequence[str]) -> Any:
    """Build the "network", without its weights, or the "processor" that a checkpoint describes.

    Raises:
        CheckpointError: a description with untrusted code, or an invalid one.
    """
    try:
        if name == "processor":
            return build_processor(content[KEY][name], trusted=trusted)
        found = build(content[KEY][name], trusted=trusted)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # the file may pass any value to a constructor
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: its {name} cannot be built: {reason:.300}") from None
    if not isinstance(found, nn.Module):
        raise CheckpointError(f"{path}: its {name!r} describes {_kind(found)}, expected a Module")
    return found


def build_processor(description: Mapping[str, Any], *, trusted: Sequence[str] | None = None) -> Processor:
    """Build a processor from the result of `Processor.to_dict`.

    Sides with equal descriptions, such as a vocabulary that two languages share, are one object.

    Args:
        description: {"source": …, "target": …}; the target may be None.
        trusted: see `build`.

    Raises:
        CheckpointError: other keys, a side that describes no transform, untrusted code.
        ValueError: see `build`.
    """
    if set(description) != {"source", "target"}:
        raise CheckpointError(
            f"a processor has a source and a target, got {sorted(map(str, description)) or 'nothing'}"
        )
    source, target = description["source"], description["target"]
    built = _transform("source", source, trusted)
    return Processor(
        built, None if target is None else built if target == source else _transform("target", target, trusted)
    )


def _transform(side: str, description: Any, trusted: Sequence[str] | None) -> Transform:
    if not isinstance(description, Mapping) or "_target_" not in description or _has_partial(description):
        raise CheckpointError(f"the processor's {side} describes {_kind(description)}, expected a transform")
    found = build(description, trusted=trusted)
    if not isinstance(found, Transform):
        raise CheckpointError(f"the processor's {side} describes {_kind(found)}, expected a transform")
    return found


def _has_partial(description: Any) -> bool:
    """Whether a description has a partial call, which only networks complete."""
    if isinstance(description, Mapping):
        parts = cast("Mapping[str, Any]", description)
        return bool(parts.get("_partial_")) or any(map(_has_partial, parts.values()))
    return isinstance(description, (list, tuple)) and any(map(_has_partial, cast("Sequence[Any]", description)))


def load_weights(network: nn.Module, content: Mapping[str, Any], path: str | Path) -> None:
    """Load a checkpoint's weights into a network.

    Raises:
        CheckpointError: the names or shapes of weights differ.
    """
    weights = {k.removeprefix(_PREFIX): v for k, v in content["state_dict"].items() if k.startswith(_PREFIX)}
    expected = network.state_dict()
    wrong = [f"{k} is missing" for k in expected if k not in weights]
    wrong += [f"{k} is not in this network" for k in weights if k not in expected]
    wrong += [
        f"{k} is {tuple(weights[k].shape)}, the network has {tuple(v.shape)}"
        for k, v in expected.items()
        if k in weights and weights[k].shape != v.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path}: the weights are another network's: {'; '.join(wrong[:3])}{more}")
    bad = first_nonfinite(network, weights)
    if bad is not None:
        raise CheckpointError(f"{path}: the weights are not finite: {bad}; use an earlier checkpoint")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:  # dtypes that can't be converted
        raise CheckpointError(f"{path}: {str(error).strip().splitlines()[-1].strip():.300}") from None


def first_nonfinite(network: nn.Module, weights: Mapping[str, Tensor] | None = None) -> str | None:
    """Return a message about the first weight that is NaN or infinite; None if all are finite.

    Buffers may be infinite, as masks are, but not NaN.

    Args:
        network: the network whose weights are checked.
        weights: the weights to check instead of the network's own.
    """
    buffers = dict(network.named_buffers())
    sums: dict[str, Tensor] = {}
    for name, value in (network.state_dict() if weights is None else weights).items():
        if value.is_floating_point():
            zeros = value.detach() * 0  # NaN where the value is not finite
            sums[name] = zeros.masked_fill(value.isinf(), 0).sum() if name in buffers else zeros.sum()
    if not sums:
        return None
    device = next(iter(sums.values())).device
    found = torch.stack([total.to(device, torch.float32) for total in sums.values()]).isnan().tolist()  # one transfer
    return next((f"{name} holds nan or inf" for name, bad in zip(sums, found, strict=True) if bad), None)


def _reason(error: Exception) -> str:
    """Return torch's message without its advice to execute the file anyway."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return message.splitlines()[0][:200] if message else type(error).__name__
