"""The command line interface for trained networks, python -m unrolled, with torch alone."""

import argparse
import os
import sys
from collections.abc import Sequence

from unrolled.deployment.commands import (
    caption,
    classify,
    compose,
    draw,
    export,
    forecast,
    inspect,
    sample,
    serve,
    share,
    tag,
    transcribe,
    translate,
    write,
)
from unrolled.wording import refused

RENAMED = {  # former names of options, which are answered with the new ones
    "--diversity": "--diversity-penalty",
    "--groups": "--num-beam-groups",
    "--no-repeat": "--no-repeat-ngram-size",
    "--skip-broken": "--on-error skip",
    "--width": "--num-beams",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 after an error, or 130 after Ctrl-C."""
    options = _parsed(sys.argv[1:] if arguments is None else list(arguments))
    try:
        options.run(options)
        sys.stdout.flush()
    except ValueError as error:
        return _stopped(options, str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has ended
        sys.stderr.close()
        return 0
    except OSError as error:
        _forget_output()
        return _stopped(options, refused(error))
    return 0


def _stopped(options: argparse.Namespace, reason: str) -> int:
    print(f"unrolled {options.command}: {reason}", file=sys.stderr)
    return 2


def _forget_output() -> None:
    """Discard output that couldn't be written, so that Python doesn't try to write it again at exit."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse options between file arguments, too, and print the command's own usage for an unknown option."""
    parser, commands = _parsers()
    command = commands.get(arguments[0]) if arguments else None
    if command is None:
        return parser.parse_args(arguments)  # help, or an error with the list of commands
    for option in (argument.partition("=")[0] for argument in arguments):
        if option in RENAMED:
            command.error(f"{option} is called {RENAMED[option]}")
    return command.parse_intermixed_args(arguments[1:], argparse.Namespace(command=arguments[0]))


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="python -m unrolled",
        description="Use a trained recurrent network.",
        epilog="To train and evaluate a network: python -m unrolled train --help, python -m unrolled evaluate --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for each in (
        sample,
        translate,
        caption,
        classify,
        tag,
        transcribe,
        compose,
        forecast,
        write,
        draw,
        inspect,
        export,
        share,
        serve,
    ):
        each.add(commands)
    return parser, commands.choices
