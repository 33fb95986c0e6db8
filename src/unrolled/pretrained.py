"""Pretrained folders, as the Hugging Face Hub stores networks, and repositories of the Hub.

A folder holds what `load_bundle` needs, in files that other programs read, too:

- `config.json`: the description of the network, information about its training, and digests of the other files;
- `processor.json`: the description of the processor;
- `model.safetensors`: the weights. A tensor with several names is stored once; the metadata names the others.

Beside them is `README.md`, the model card. Nothing in these files is executed.
"""

import hashlib
import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor

from unrolled.descriptions import CheckpointError
from unrolled.wording import article

CONFIG, PROCESSOR, WEIGHTS, CARD = "config.json", "processor.json", "model.safetensors", "README.md"
_LIBRARY = "unrolled"
_DIGESTS = "sha256"
_HUB = "hf://"
_NAME = re.compile(r"(?P<repo_id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
_MISSING = f"no such file; a pretrained folder has {CONFIG}, {PROCESSOR} and {WEIGHTS}"
_INSTALL = "pip install 'unrolled[hub]'"


class Repository(NamedTuple):
    """A repository of the Hub, and its branch, tag or commit; None for the default branch."""

    repo_id: str
    revision: str | None = None


def repository_of(path: str | Path) -> Repository | None:
    """Return the repository that a path names: `hf://owner/name`, or `owner/name` where there is no such path.

    Either may end in `@revision`. A path in a folder that exists, or one that ends in `.ckpt`, is never a repository.

    Raises:
        CheckpointError: `hf://` before another name.
    """
    text = str(path)
    name = re.sub("^hf:/{1,2}", "", text)  # a Path has one slash
    found = _NAME.fullmatch(name)
    if name != text and found is None:
        raise CheckpointError(f"{_HUB}{name}: expected {_HUB}OWNER/NAME, or {_HUB}OWNER/NAME@REVISION")
    if found is None or (name == text and (text.endswith(".ckpt") or Path(text.split("/")[0]).exists())):
        return None
    return Repository(found["repo_id"], found["revision"])


def download(
    repository: Repository,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Download the pretrained folder of a repository into the cache of huggingface_hub, and return its path.

    Args:
        repository: the repository.
        token: see `huggingface_hub.snapshot_download`, also for the other arguments.
        cache_dir: folder of the cache.
        force_download: whether to download files that the cache has.
        local_files_only: whether to read the cache alone.

    Raises:
        CheckpointError: no such repository, or it can't be read.
    """
    repo_id, revision = repository
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{repo_id}: no such file or folder; to load a repository of the Hugging Face Hub: {_INSTALL}"
        ) from None
    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "force_download": force_download}
    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=[CONFIG, PROCESSOR, WEIGHTS, CARD],
            local_files_only=local_files_only,
            library_name=_LIBRARY,
            **options,
        )
    except Exception as error:  # those of its HTTP client differ between versions
        reason = reason_of(error, revision)
        raise CheckpointError(
            f"{repo_id}: no such file or folder here, and not readable on the Hugging Face Hub: {reason}"
        ) from None
    if not is_pretrained(Path(folder)):
        raise CheckpointError(f"{repo_id}: this repository has no {CONFIG}; it was not written by save_pretrained")
    return Path(folder)


def reason_of(error: Exception, revision: str | None = None) -> str:
    """Return the reason of an error of huggingface_hub in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "access to this repository must be requested on its page"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or the token (HF_TOKEN, hf auth login) may not read it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision or 'of this name'}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "it is not in the cache, and the Hub can't be reached"
    text = re.sub(r"\s*\(Request ID: [^)]*\)", "", " ".join(str(error).split()))
    return text[:300] or type(error).__name__


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is a pretrained folder, of any library."""
    return (folder / CONFIG).is_file()


def read_pretrained(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint has under "unrolled", and the weights by name.

    Raises:
        CheckpointError: a file that is missing, damaged or of another library.
    """
    config = _read_json(folder / CONFIG)
    if config.get("library_name") != _LIBRARY:
        other = config.get("library_name") or config.get("model_type") or "another library"
        raise CheckpointError(f"{folder}: a pretrained folder, but not one written by unrolled: {other!r:.80}")
    digests: Any = config.get(_DIGESTS)
    for name in (PROCESSOR, WEIGHTS):
        _check_digest(folder / name, digests.get(name) if isinstance(digests, Mapping) else None)
    described = {name: config[name] for name in ("format", "network", "info") if name in config}
    return {**described, "processor": _read_json(folder / PROCESSOR)}, _read_weights(folder / WEIGHTS)


def pretrained_files(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Return the content of each file of a pretrained folder, without the model card.

    Args:
        described: what a checkpoint has under "unrolled".
        weights: the weights by name.

    Raises:
        ValueError: a description or information that JSON can't hold.
    """
    files = {WEIGHTS: _weights_bytes(weights), PROCESSOR: _json_bytes("the processor", described["processor"])}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    parts = {name: described[name] for name in ("format", "network", "info")}
    return {**files, CONFIG: _json_bytes("the network", {"library_name": _LIBRARY, **parts, _DIGESTS: digests})}


def _json_bytes(what: str, value: Any) -> bytes:
    try:
        content = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the description of {what} can't be written as JSON: {error}") from None
    if json.loads(content) != _as_json(value):
        raise ValueError(f"the description of {what} can't be written as JSON: the keys of its dicts must be texts")
    return content


def _as_json(value: Any) -> Any:
    """Return a value with lists instead of tuples."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    return [_as_json(item) for item in cast("list[Any]", value)] if isinstance(value, (list, tuple)) else value


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Explain that a file of a folder is missing or can't be read."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; a pretrained folder has {CONFIG}, {PROCESSOR}, {WEIGHTS}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: not readable ({error.strerror})") from None


def _read_json(path: Path) -> dict[str, Any]:
    with _reading(path):
        content = path.read_bytes()
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the file is damaged: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: it holds {article(type(found).__name__)}, expected a dict")
    return cast("dict[str, Any]", found)


def _check_digest(path: Path, expected: Any) -> None:
    """Verify a file's digest; a folder that another program wrote may have none."""
    with _reading(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{path}: the file is damaged, or was changed: its content has another digest than {CONFIG} names"
        )


def _weights_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file. Names of the same tensor, such as a tied weight, follow safetensors' convention."""
    from_safetensors = _safetensors()
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, value in weights.items():
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            stored[name] = value.detach().cpu().contiguous().clone()  # views of one tensor are stored apart
    return from_safetensors.save(stored, metadata={**aliases, "format": "pt"})


def _read_weights(path: Path) -> dict[str, Tensor]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            aliases: dict[str, str] = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: the file is damaged, or no safetensors file ({error})") from None
    aliases.pop("format", None)
    return weights | {name: weights[stored] for name, stored in aliases.items() if stored in weights}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise CheckpointError(f"pretrained folders need the package safetensors: {_INSTALL}") from None
    return safetensors.torch
