"""The command share: writes a network as the Hugging Face Hub stores networks."""

import argparse
from pathlib import Path
from typing import Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import load
from unrolled.deployment.progress import Progress

_HUB = "hf://"


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "share",
        _run,
        about="write a network as a folder for the Hugging Face Hub, or publish it there",
        description="Write model.safetensors, config.json, processor.json and a model card into a folder, or into a "
        "repository of the Hugging Face Hub. Commands and load_bundle read either like a checkpoint.",
        example="python -m unrolled share best.ckpt shared",
    )
    add_checkpoint(command)
    command.add_argument("destination", help=f"a folder, or {_HUB}OWNER/NAME[@BRANCH] to publish the network")
    command.add_argument("--license", help="the network's license, for the model card, such as mit")
    command.add_argument("--private", action="store_true", help="a new repository is private")
    command.add_argument("--message", default="Add a network of unrolled", help="of the commit (default: %(default)s)")
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.sharing.hub import push_to_hub, save_pretrained, with_summary
    from unrolled.pretrained import repository_of

    published = options.destination.startswith(_HUB)
    repository = repository_of(options.destination) if published else None
    if options.private and not published:
        raise ValueError(f"--private is for repositories: {_HUB}OWNER/NAME, and {options.destination} is a folder")
    folder = Path(options.destination)
    if not published and folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: this is a file; name a folder")
    with Progress("share") as progress:
        progress.at("the network is being loaded")
        bundle = with_summary(load(options, options.checkpoint), options.checkpoint)
        if repository is None:
            for path in save_pretrained(bundle, folder, license=options.license):
                print(f"{path}\t{path.stat().st_size:,} bytes")
            return
        progress.at("the network is being uploaded")
        how: dict[str, Any] = {"private": True if options.private else None, "branch": repository.revision}
        print(push_to_hub(bundle, repository.repo_id, license=options.license, commit_message=options.message, **how))
