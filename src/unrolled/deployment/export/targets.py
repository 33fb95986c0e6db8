"""What a trained network can be exported to. A target computes all of its files before the first one is written."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unrolled import durable

if TYPE_CHECKING:
    from unrolled.checkpoint import Bundle


class Export(NamedTuple):
    """What a target makes of a network.

    Attributes:
        files: name → content.
        notes: lines for the user, such as sizes and what an option costs.
    """

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write the files into a folder, and return their paths; see `durable.replace_files`."""
        return durable.replace_files(folder, self.files)


class Target(NamedTuple):
    """A kind of program that runs networks without this package.

    Attributes:
        about: what is written, for --help.
        function: "module:name" of a function that takes a `Bundle`, and the options as keyword arguments, and returns
            an `Export`. It refuses a network that the target cannot express by name, with what to change.
        options: names of the command's options that the function takes.
    """

    about: str
    function: str
    options: tuple[str, ...] = ()

    def load(self) -> Callable[..., Export]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


TARGETS: dict[str, Target] = {
    "c": Target(
        "a C99 file and a header without further code, for microcontrollers and other programs",
        "unrolled.deployment.export.c.program:export_c",
        ("int8", "name"),
    ),
    "onnx": Target("models for ONNX runtimes", "unrolled.deployment.export.onnx.model:export_onnx", ("int8",)),
    "program": Target("programs of torch.export", "unrolled.deployment.export.program:export_program"),
}


def export(bundle: "Bundle", to: str, **options: bool | str | None) -> Export:
    """Export a trained network.

    Args:
        bundle: the network.
        to: name of a target.
        options: options of the target. One that is off or None may be given to any target.

    Raises:
        ValueError: another target, an option that the target doesn't have, or a network that it cannot express.
    """
    if to not in TARGETS:
        raise ValueError(f"unknown target {to!r}; there are {', '.join(TARGETS)}")
    target = TARGETS[to]
    for name, value in options.items():
        if value and name not in target.options:
            having = [other for other, each in TARGETS.items() if name in each.options]
            raise ValueError(f"{name} is no option of the target {to!r}, but of {', '.join(having)}; leave it out")
    return target.load()(bundle, **{name: options[name] for name in target.options if options.get(name)})
