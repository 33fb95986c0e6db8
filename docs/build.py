"""Build the site: `python docs/build.py` writes docs/_build/html, which opens from disk in any browser.

A warning, and a sentence of the guide without a translation, ends the build with an error. After a change of a page,
`python docs/build.py --update` brings the catalogues in docs/locale up to date; what it marks is to be translated.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import read_po, write_po
    from sphinx.cmd.build import build_main
except ImportError as error:
    print(f"docs/build.py needs {error.name}: pip install -e '.[train,docs]'", file=sys.stderr)
    raise SystemExit(2) from None

DOCS = Path(__file__).resolve().parent
LANGUAGES = ["en", "ko"]
TRANSLATED = ("index", "guide/")  # the pages that each language has as a whole: what their names begin with
HEADER = b'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
OPENS = """<!doctype html><meta charset="utf-8"><title>unrolled</title>
<script>location.replace((navigator.language.startsWith("ko") ? "ko" : "en") + "/index.html")</script>
<p><a href="en/index.html">English</a> · <a lang="ko" href="ko/index.html">한국어</a></p>
"""


def sphinx(builder: str, language: str, output: Path) -> None:
    """Run Sphinx on the pages; a warning is an error."""
    cached = output.parent / f".{output.name}"
    options = ["-b", builder, "-D", f"language={language}", "-d", str(cached), "-W", "--keep-going", "-q", "-j", "auto"]
    if build_main([*options, str(DOCS), str(output)]):
        sys.exit(f"the build of {language} has warnings, see above")


def read(catalogue: Path) -> Catalog:
    """Return a catalogue of sentences and translations; empty if there is no such file."""
    if not catalogue.is_file():
        return Catalog()
    with catalogue.open("rb") as opened:
        return read_po(opened)


def catalogues(templates: Path, language: str) -> Iterator[tuple[str, Catalog, Path]]:
    """Yield each page that is to be translated as a whole: its name, its sentences, its catalogue."""
    for template in sorted(templates.rglob("*.pot")):
        page = template.relative_to(templates).with_suffix("").as_posix()
        if page.startswith(TRANSLATED):
            yield page, read(template), DOCS / "locale" / language / "LC_MESSAGES" / f"{page}.po"


def update(templates: Path, language: str) -> None:
    """Add new sentences to the catalogues; one that changed keeps its old translation, marked as fuzzy."""
    for _, template, path in catalogues(templates, language):
        catalogue = read(path)
        catalogue.update(template)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            opened.write(HEADER)
            write_po(opened, catalogue, width=120, omit_header=True, ignore_obsolete=True)


def missing(templates: Path, language: str) -> list[str]:
    """Return the sentences that have no translation, or one that is out of date, each after its page."""
    found = []
    for page, template, path in catalogues(templates, language):
        catalogue = read(path)
        for message in template:
            there = catalogue.get(message.id)
            if message.id and (there is None or there.fuzzy or not there.string):
                found.append(f"{page}: {message.id}")
    return found


def main() -> None:
    """Build all languages, or update the catalogues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCS / "_build" / "html", help="folder of the site")
    parser.add_argument("--update", action="store_true", help="update the catalogues instead of building the site")
    arguments = parser.parse_args()
    templates = arguments.output.parent / "gettext"
    shutil.rmtree(templates, ignore_errors=True)
    sphinx("gettext", "en", templates)
    for language in LANGUAGES[1:]:
        if arguments.update:
            update(templates, language)
        if lacking := missing(templates, language):
            print(*lacking, sep="\n")
            sys.exit(f"{len(lacking)} sentences have no translation to {language}: python docs/build.py --update")
    if arguments.update:
        return
    for language in LANGUAGES:
        sphinx("html", language, arguments.output / language)
    (arguments.output / "index.html").write_text(OPENS)
    print(f"open {arguments.output / 'index.html'}")


if __name__ == "__main__":
    main()
