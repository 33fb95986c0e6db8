"""Pages that lie elsewhere in the repository: the tasks' READMEs and the benchmarks.

Each of them gets a page that includes it. Their links lead to the pages of the site where there is one, and to a copy
of the file where there is none. Nothing is written in two places.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
TASKS = sorted((ROOT / "tasks" / "unrolled_tasks").glob("*/README.md"))

# A file outside docs/ and the page that shows it.
PAGES = {
    **{readme: DOCS / "tasks" / f"{readme.parent.name}.md" for readme in TASKS},
    ROOT / "benchmarks" / "README.md": DOCS / "benchmarks.md",
}
# What a link to another place means on the site.
SECTIONS = {
    ROOT / "README.md": DOCS / "index.md",
    **{folder: DOCS / "reference" / f"{folder.name}.md" for folder in (ROOT / "src" / "unrolled").iterdir()},
}
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")


def rewritten(text: str, file: Path, page: Path) -> str:
    """Return the text of a file with links relative to the page that shows it."""

    def target(match: re.Match[str]) -> str:
        path, hash_, anchor = match[2].partition("#")
        if "://" in path or not path:
            return match[0]
        place = (file.parent / path).resolve()
        shown = PAGES.get(place)
        if shown is None and place in SECTIONS and SECTIONS[place].is_file():
            shown, hash_, anchor = SECTIONS[place], "", ""
        return match[1] + os.path.relpath(shown or place, page.parent) + hash_ + anchor + match[3]

    return _LINK.sub(target, text)


def _write_pages(app: Sphinx, config: Config) -> None:
    for file, page in PAGES.items():
        page.parent.mkdir(exist_ok=True)
        text = f":::{{include}} {os.path.relpath(file, page.parent)}\n:::\n"
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)


def _read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    page = DOCS / f"{docname}.md"
    source[0] = rewritten(source[0], page, page)


def _read_included(app: Sphinx, path: Path, docname: str, source: list[str]) -> None:
    file = (DOCS / path).resolve()
    source[0] = rewritten(source[0], file, PAGES[file])  # docname lacks the folder of the page


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them, and rewrite links as files are read."""
    app.connect("config-inited", _write_pages)
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
