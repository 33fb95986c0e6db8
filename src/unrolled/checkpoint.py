"""A trained network in one file, and back again with torch alone.

A checkpoint is an ordinary Lightning one with one more key,

    {"unrolled": {"format": 1, "network": {"_target_": …}, "codec": {"_target_": …}, "info": {…}}}

whose descriptions are plain dicts. Reading never unpickles an object and imports nothing outside an allow-list.
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
from unrolled.processing.text.base import Codec
from unrolled.wording import article

FORMAT = 1
KEY = "unrolled"
TRUSTED = ("unrolled.", "torch.nn.")


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, or one that may not be loaded as it is."""


class Bundle(NamedTuple):
    """A trained network, its codec, and what is known of its training."""

    network: nn.Module
    codec: Codec
    info: dict[str, Any]


def build(description: Any, *, trusted: Sequence[str] | None = None) -> Any:
    """Builds what a plain description names: `{"_target_": "package.Class", **arguments}`, nested as needed.

    `"_partial_": True` gives a partial call, to be completed by whoever receives it. Lists and dicts without `_target_`
    are built item by item, all else stays as it is.

    Args:
        description: plain dicts, lists, strings, numbers.
        trusted: prefixes of the modules whose nn.Module and Codec subclasses may be named, each ending in a dot; None
            trusts every name, which is for descriptions that you wrote yourself.

    Raises:
        CheckpointError: an untrusted or unknown target.
        ValueError: arguments that the target does not take; what the target itself refuses.
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
    except ValueError:  # some callables written in C don't tell; calling them will
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
    """The class or function with a dotted name; see `build` for `trusted`."""
    if trusted is not None and not name.startswith(tuple(trusted)):
        raise CheckpointError(
            f"it names {name}, code outside what is trusted ({', '.join(trusted)}); if you know where the file comes "
            f"from, add the package: trusted={(*trusted, name.split('.')[0] + '.')!r}"
        )
    found = _import(name)
    if trusted is not None:
        home = f"{getattr(found, '__module__', '')}."
        allowed = inspect.isclass(found) and issubclass(found, (nn.Module, Codec))
        if not allowed or not home.startswith(tuple(trusted)):
            raise CheckpointError(f"it names {name}, which is no network or codec class of a trusted module")
    return found


def _import(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue  # this much of the name is no module; a shorter piece may be
            raise CheckpointError(
                f"{name}: importing it needs {error.name}, which is not installed ({error})"
            ) from None
        try:
            return functools.reduce(getattr, parts[cut:], found)
        except AttributeError as error:
            raise CheckpointError(f"{name}: {error}") from None
    raise CheckpointError(f"{name}: there is no module {parts[0]!r} here; is the package installed?")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The raw content of a checkpoint with our key in it, on the CPU.

    Args:
        path: the file, or the folder of a run, whose best checkpoint is taken, or else its last.

    Raises:
        CheckpointError: missing, unreadable, unsafe, foreign, or of a later format.
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
    """Refuses a file whose entries are not what training writes, whatever they are."""
    ours: Any = content[KEY]
    found = ours.get("format") if isinstance(ours, Mapping) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: format {found!r:.80}; this version of unrolled reads format {FORMAT}")
    for name in ("network", "codec", "info"):
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
    """Writes a torch file in the place of the one before, which stays until the new one is whole; see `durable.write`.

    Args:
        content: dicts, lists, strings, numbers and tensors.
        path: the file.

    Raises:
        CheckpointError: it can't be written; the file before is untouched.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors(content)}
    try:
        durable.write(Path(path), lambda file: torch.save(content, file), size=sum(storages.values()))
    except (OSError, RuntimeError, durable.DamagedFileError) as error:
        # Where the system refuses to write, torch raises a RuntimeError about its archive.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{path} could not be written; what was there before is untouched: {reason}") from error


def tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
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
        hint = f"; name one of {', '.join(near)}" if near else ""
        raise CheckpointError(f"{folder} is a folder without best.ckpt or last.ckpt{hint}")
    return found


def load_tensors(path: str | Path) -> Any:
    """What is in a torch file, on the CPU, without executing anything; its digest is checked where it has one.

    Raises:
        CheckpointError: it is none, is damaged, or holds Python objects.
    """
    try:
        durable.check(Path(path))
    except (OSError, durable.DamagedFileError) as error:
        raise CheckpointError(str(error)) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: it holds Python objects or is no checkpoint, and was not executed ({_reason(error)})"
        ) from None
    except Exception as error:  # torch's unpickler stumbles over a text as over any program, by IndexError and others
        raise CheckpointError(f"{path}: not readable as a checkpoint ({_reason(error)})") from None


def load_bundle(path: str | Path, *, trusted: Sequence[str] = TRUSTED, device: str | torch.device = "cpu") -> Bundle:
    """Loads a trained network, ready to be used (eval mode), with nothing but torch.

    Args:
        path: a `.ckpt` written by training.
        trusted: prefixes of modules whose classes the file may name; add your own package to load your own cells.
        device: where the network goes.

    Raises:
        CheckpointError: see `read_checkpoint`; a description of no network or codec; or weights that don't fit the
            network that the file describes.
    """
    content = read_checkpoint(path)
    codec, network = (described(content, name, path, trusted) for name in ("codec", "network"))
    load_weights(network, content, path)
    return Bundle(network.to(device).eval(), codec, dict(content[KEY]["info"]))


def described(content: Mapping[str, Any], name: str, path: str | Path, trusted: Sequence[str]) -> Any:
    """The "network", without its weights, or the "codec" that a checkpoint describes.

    Raises:
        CheckpointError: a description that names untrusted code, or that no network or codec can be built from.
    """
    try:
        found = build(content[KEY][name], trusted=trusted)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # the file may give a constructor anything at all
        said = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: its {name} cannot be built: {said:.300}") from None
    kind = {"network": nn.Module, "codec": Codec}[name]
    if not isinstance(found, kind):
        raise CheckpointError(f"{path}: its {name!r} describes {_kind(found)}, expected {article(kind.__name__)}")
    return found


def load_weights(network: nn.Module, content: Mapping[str, Any], path: str | Path) -> None:
    """Puts a checkpoint's weights into a network of the same make.

    Raises:
        CheckpointError: names or shapes differ; the first few are named.
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
        raise CheckpointError(f"{path}: these weights are of no use: {bad}; take an earlier checkpoint")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:  # of numbers that cannot be turned into the network's own
        raise CheckpointError(f"{path}: {str(error).strip().splitlines()[-1].strip():.300}") from None


def first_nonfinite(network: nn.Module, weights: Mapping[str, Tensor] | None = None) -> str | None:
    """Names the first weight that is NaN or infinite, such as "core.bias holds nan"; None if all are finite.

    Buffers may be infinite, as masks are, but not NaN.

    Args:
        network: whose weights are looked at.
        weights: those that it is about to load, if not its own.
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
    """What torch found, without its advice to execute it all the same."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return said.splitlines()[0][:200] if said else type(error).__name__
