"""Checkpoints of trained networks, which are read with torch alone.

A checkpoint is a Lightning checkpoint with one additional key,

    {"unrolled": {"format": 2, "network": {"_target_": …}, "processor": {"source": …, "target": …}, "info": {…}}}

whose descriptions are plain dicts. Reading a file never unpickles objects and imports only modules in an allow-list.
"""

import difflib
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled import durable
from unrolled.processing.transform import Processor, Transform
from unrolled.wording import article

FORMAT = 2
KEY = "unrolled"
TRUSTED = ("unrolled.", "torch.nn.")


class CheckpointError(ValueError):
    """A file that isn't a checkpoint of this package, or that can't be loaded."""


class Bundle(NamedTuple):
    """A trained network, its processor, and information about its training."""

    network: nn.Module
    processor: Processor
    info: dict[str, Any]


def build(description: Any, *, trusted: Sequence[str] | None = None) -> Any:
    """Build an object from a plain description, `{"_target_": "package.Class", **arguments}`, which may be nested.

    With `"_partial_": True` the result is a `functools.partial`. Lists and dicts without `_target_` are built item by
    item. Other values are returned unchanged.

    Args:
        description: plain dicts, lists, strings, numbers.
        trusted: prefixes of modules, each ending in a dot, whose nn.Module and Transform subclasses are allowed as
            targets. None allows every target, which is meant for descriptions that you wrote yourself.

    Raises:
        CheckpointError: an untrusted or unknown target.
        ValueError: invalid arguments of the target.
    """
    if isinstance(description, Mapping):
        parts = cast("Mapping[str, Any]", description)
        built = {k: build(v, trusted=trusted) for k, v in parts.items() if k not in ("_target_", "_partial_")}
        if "_target_" not in parts:
            return built
        target = locate(parts["_target_"], trusted=trusted)
        _check_arguments(parts["_target_"], target, built, partial=bool(parts.get("_partial_", False)))
        return functools.partial(target, **built) if parts.get("_partial_", False) else target(**built)
    if isinstance(description, (list, tuple)):
        return [build(item, trusted=trusted) for item in cast("Sequence[Any]", description)]
    return description


def _check_arguments(name: str, target: Any, given: Mapping[str, Any], *, partial: bool) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some callables written in C have no signature; calling them raises the error
        return
    takes = signature.parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        for argument in given:
            if argument not in takes:
                near = difflib.get_close_matches(argument, takes, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name} takes no {argument!r}{hint} It takes {', '.join(takes)}")
    try:
        signature.bind_partial(**given) if partial else signature.bind(**given)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def locate(name: str, *, trusted: Sequence[str] | None = None) -> Any:
    """Import the class or function with a dotted name; see `build` for `trusted`."""
    if trusted is not None and not name.startswith(tuple(trusted)):
        raise CheckpointError(
            f"it names {name}, which is outside the trusted modules ({', '.join(trusted)}); if you trust the file, add "
            f"the package: trusted={(*trusted, name.split('.')[0] + '.')!r}"
        )
    found = _import(name)
    if trusted is not None:
        home = f"{getattr(found, '__module__', '')}."
        allowed = inspect.isclass(found) and issubclass(found, (nn.Module, Transform))
        if not allowed or not home.startswith(tuple(trusted)):
            raise CheckpointError(f"it names {name}, which is not a network or transform class of a trusted module")
    return found


def _import(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue  # this prefix isn't a module; a shorter one may be
            raise CheckpointError(
                f"{name}: importing it needs {error.name}, which is not installed ({error})"
            ) from None
        try:
            return functools.reduce(getattr, parts[cut:], found)
        except AttributeError as error:
            raise CheckpointError(f"{name}: {error}") from None
    raise CheckpointError(f"{name}: there is no module {parts[0]!r} here; is the package installed?")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the content of a checkpoint of this package, on the CPU.

    Args:
        path: the file, or the folder of a run, whose best or else last checkpoint is read.

    Raises:
        CheckpointError: a file that is missing, unreadable, unsafe, from another program, or of another format.
    """
    path = _in_folder(Path(path)) if Path(path).is_dir() else Path(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.ckpt"))[:5] if path.parent.is_dir() else []
        hint = f"; beside it: {', '.join(near)}" if near else ""
        raise CheckpointError(f"{path}: no such file{hint}")
    content = load_tensors(path)
    if not isinstance(content, dict) or KEY not in content or "state_dict" not in content:
        raise CheckpointError(f"{path}: a torch file, but not one written by unrolled (it has no {KEY!r} entry)")
    _check_shape(content, path)
    return cast("dict[str, Any]", content)


def _check_shape(content: Mapping[str, Any], path: Path) -> None:
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
        path: a `.ckpt` file from training, or the folder of a run.
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
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
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
