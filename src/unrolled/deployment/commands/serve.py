"""The command serve: a page in the browser for a network."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from unrolled.deployment.commands.arguments import add_checkpoint, add_command, add_common
from unrolled.deployment.commands.running import generator_of, load, one_line, report
from unrolled.deployment.progress import Progress
from unrolled.deployment.serving.limits import ServingLimits

if TYPE_CHECKING:
    import torch

    from unrolled.checkpoint import Bundle


def add(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "serve",
        _run,
        about="open a page for a network in the browser",
        description="Serve a page that shows what a network does: it writes, translates, describes, classifies, tags, "
        "transcribes or forecasts what is typed, uploaded or spoken. Ctrl-C ends it.",
        example="python -m unrolled serve best.ckpt --port 8000",
    )
    add_checkpoint(command)
    command.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)"
    )
    of_request = ServingLimits()
    for name, kind, default, unit, about in (
        ("upload", float, of_request.upload / 1_000_000, "MB", "size of a request"),
        ("text", int, of_request.text, "N", "characters of a text"),
        ("steps", int, of_request.steps, "N", "symbols to generate"),
        ("seconds", float, of_request.seconds, "S", "time of a request"),
        ("waiting", int, of_request.waiting, "N", "requests that wait for another"),
    ):
        described = f"{about} (default: %(default)g)"
        command.add_argument(f"--max-{name}", type=kind, default=default, metavar=unit, help=described)
    add_common(command)


def _run(options: argparse.Namespace) -> None:
    from unrolled.deployment.serving.app import create_app, require
    from unrolled.deployment.serving.server import address_of, is_loopback, listen, serve_forever

    require("fastapi", "uvicorn")
    limits = ServingLimits(
        upload=int(options.max_upload * 1_000_000),
        text=options.max_text,
        steps=options.max_steps,
        seconds=options.max_seconds,
        waiting=options.max_waiting,
    )
    generator = generator_of(options)
    bundle = load(options, options.checkpoint)
    app = create_app(bundle, limits=limits, name=str(options.checkpoint), host=options.host, generator=generator)
    with listen(options.host, options.port) as listening:
        if not is_loopback(options.host):
            report(
                options.command,
                f"warning: other machines may reach {options.host}; there is no password and no encryption",
            )

        with Progress(options.command) as progress:
            progress.at("a trial prediction compiles kernels and loads modules")
            _try_out(options, bundle, limits, generator)

        def ready() -> None:
            print(f"{address_of(listening, options.host)}  (Ctrl-C ends it)", flush=True)

        serve_forever(app, listening, ready)
    sys.stdout.flush()


def _try_out(
    options: argparse.Namespace, bundle: "Bundle", limits: ServingLimits, generator: "torch.Generator"
) -> None:
    import torch

    from unrolled.deployment.serving.app import try_out

    try:
        try_out(bundle, limits, torch.Generator(generator.device).manual_seed(0))
    except Exception as error:  # requests may succeed all the same: they have another source
        report(options.command, f"warning: a trial prediction failed: {type(error).__name__}: {one_line(str(error))}")
