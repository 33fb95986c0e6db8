"""Saving, loading and publishing networks in the form of the Hugging Face Hub."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from unrolled import durable
from unrolled.checkpoint import KEY, Bundle, content_of, load_bundle
from unrolled.deployment.sharing.card import model_card
from unrolled.descriptions import TRUSTED, CheckpointError
from unrolled.pretrained import CARD, Repository, download, pretrained_files, reason_of, repository_of
from unrolled.wording import refused

_MEASURED = "/"  # a part of the names of metrics


def save_pretrained(
    bundle: Bundle,
    folder: str | Path,
    *,
    description: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> list[Path]:
    """Write a pretrained folder: weights, configuration, processor and model card.

    All files are written completely before the first one is replaced. The digests in `config.json` show a reader
    whether the files belong together.

    Args:
        bundle: the network. Its information may have a "summary" of its run; see `with_summary`.
        folder: the folder, created if needed.
        description: what `build` makes such a network from; by default `describe(bundle.network)`.
        license: the network's license, for the model card.

    Returns:
        The paths of the files.

    Raises:
        ValueError: a network without a description, another network than the description's, or a description that
            JSON can't hold.
        CheckpointError: a missing package, or the files can't be written; existing ones are unchanged.
    """
    files = _files(bundle, Path(folder).resolve().name, description, license)
    try:
        return durable.replace_files(Path(folder), files)
    except OSError as error:
        raise CheckpointError(refused(error)) from error


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    trusted: Sequence[str] = TRUSTED,
    device: str | torch.device = "cpu",
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Bundle:
    """Load a pretrained folder, or a repository of the Hugging Face Hub.

    Args:
        name: a folder, or a repository: `owner/name`, `hf://owner/name@revision`.
        revision: branch, tag or commit of a repository.
        trusted: see `load_bundle`.
        device: the device of the network.
        token: see `huggingface_hub.snapshot_download`, also for the other arguments. They concern repositories alone.
        cache_dir: folder of the cache.
        force_download: whether to download files that the cache has.
        local_files_only: whether to read the cache alone.

    Raises:
        CheckpointError: see `load_bundle`; a repository that can't be read; a revision of a folder.
    """
    repository = repository_of(name)
    if repository is None:
        if revision is not None:
            raise CheckpointError(f"{name}: revision={revision!r} is for repositories, and this is a path")
        return load_bundle(name, trusted=trusted, device=device)
    if revision is not None and repository.revision not in (None, revision):
        raise CheckpointError(f"{name}: it names another revision than revision={revision!r}; leave one out")
    folder = download(
        Repository(repository.repo_id, revision or repository.revision),
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    return load_bundle(folder, trusted=trusted, device=device)


def push_to_hub(
    bundle: Bundle,
    repo_id: str,
    *,
    description: Mapping[str, Any] | None = None,
    license: str | None = None,
    private: bool | None = None,
    branch: str | None = None,
    token: str | None = None,
    commit_message: str = "Add a network of unrolled",
    create_pr: bool | None = None,
) -> str:
    """Publish a network in a repository of the Hugging Face Hub, which is created if needed.

    Args:
        bundle: the network; see `save_pretrained`.
        repo_id: the repository, `owner/name`.
        description: see `save_pretrained`.
        license: the network's license, for the model card.
        private: whether a new repository is private; by default as the account's settings say.
        branch: an existing branch; the default one if None.
        token: an access token; by default that of `hf auth login` or of the environment variable HF_TOKEN.
        commit_message: the commit's message.
        create_pr: whether to open a pull request instead.

    Returns:
        The address of the commit.

    Raises:
        ValueError: see `save_pretrained`; another name than `owner/name`.
        CheckpointError: a missing package, or the Hub refuses or can't be reached.
    """
    files = _files(bundle, repo_id, description, license)
    options: dict[str, Any] = {"private": private, "branch": branch, "token": token, "create_pr": create_pr}
    try:
        return _pushed(files).push_to_hub(repo_id, commit_message=commit_message, **options)
    except Exception as error:  # those of its HTTP client differ between versions
        raise CheckpointError(f"{repo_id}: not published on the Hugging Face Hub: {reason_of(error, branch)}") from None


def with_summary(bundle: Bundle, path: str | Path) -> Bundle:
    """Add the summary of a run to a network's information: the command, the metrics with their signatures, notes.

    The metrics are those of the run's best checkpoint, so they are left out for another one.

    Args:
        bundle: a network that was loaded from `path`.
        path: the checkpoint, or the folder of the run.
    """
    path = Path(path).resolve()
    run = path if path.is_dir() else path.parent.parent if path.parent.name == "checkpoints" else path.parent
    place = run / "summary.json"
    try:
        found: Any = json.loads(place.read_bytes()) if place.is_file() else None
    except (OSError, ValueError):
        raise CheckpointError(f"{place}: not readable as the summary of a run; remove it, or write it again") from None
    if not isinstance(found, dict):
        return bundle
    summary = cast("dict[str, Any]", found)
    measured = Path(str(summary.get("checkpoint"))).name
    same = path.is_dir() or path.name == measured
    known = {"checkpoint", "data", "seed", "versions"}  # a path of this machine, and what the information has
    kept = {
        name: value
        for name, value in summary.items()
        if name not in known
        and (same or _MEASURED not in name)
        and not (isinstance(value, float) and not math.isfinite(value))  # JSON has no such numbers
    }
    return bundle._replace(info={**bundle.info, "summary": kept})


def _files(bundle: Bundle, name: str, description: Mapping[str, Any] | None, license: str | None) -> dict[str, bytes]:
    """Return the content of each file of a pretrained folder."""
    content = content_of(bundle, description)
    weights = {name.removeprefix("network."): value for name, value in content["state_dict"].items()}
    card = model_card(bundle, name=name, license=license)
    return {CARD: card.encode(), **pretrained_files(content[KEY], weights)}


def _pushed(files: Mapping[str, bytes]) -> Any:
    """Return a model of huggingface_hub's mixin which saves these files."""
    from huggingface_hub import ModelHubMixin

    class Files(ModelHubMixin):
        def _save_pretrained(self, save_directory: Path) -> None:
            durable.replace_files(save_directory, files)

    return Files()
