"""MusicXML files, compressed or not: the format in which notation programs export scores."""

import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

from unrolled.processing.notes.roll import Note, frames_of_file

SCORES = (".mxl", ".musicxml", ".xml")
MAX_BYTES = 1 << 26  # of an unpacked score
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def read_score(path: Path, steps_per_beat: int) -> list[list[int]]:
    """Return the frames of a score; repeats are played once, grace notes and unpitched ones are left out.

    Args:
        path: a .mxl, .musicxml or .xml file.
        steps_per_beat: number of frames of a quarter note.

    Raises:
        ValueError: a file that can't be read as MusicXML, has no notes or is too long; the message names it.
    """
    return frames_of_file([note for part in read_parts(path) for note in part], path, steps_per_beat)


def read_parts(path: Path) -> list[list[Note]]:
    """Return the notes of each part of a score.

    Raises:
        ValueError: see `read_score`.
    """
    try:
        root = ElementTree.fromstring(_content(path))
        if root.tag != "score-partwise":
            raise ValueError(f"its root is <{root.tag:.40}>, expected <score-partwise>")
        return [list(_notes(part)) for part in root.iterfind("part")]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    # Besides its own errors, zipfile raises these for damaged archives.
    except (
        ElementTree.ParseError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        ArithmeticError,
        EOFError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a readable MusicXML score: {reason:.200}") from None


def _content(path: Path) -> bytes:
    """Return the XML of a score, which may lie in an archive."""
    if path.suffix.lower() != ".mxl":
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith((".xml", ".musicxml")) and not n.startswith("META-INF/")]
        if not names:
            raise ValueError("the archive has no score")
        with archive.open(names[0]) as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def _notes(part: ElementTree.Element) -> Iterator[Note]:
    """Yield the notes of a part, with tied notes as separate ones, which join where they are made frames."""
    now, last, divisions = Fraction(0), Fraction(0), 1  # the place, that of the last note, units of a quarter
    for measure in part.iterfind("measure"):
        begin = furthest = now
        for item in measure:
            if item.tag == "attributes":
                divisions = int(item.findtext("divisions") or divisions)
            elif item.tag in ("note", "backup", "forward") and item.find("grace") is None:
                duration = Fraction(item.findtext("duration") or "0") / divisions
                if duration < 0:
                    raise ValueError(f"a duration is {float(duration):g}, expected 0 or more")
                if item.tag == "backup":
                    now = max(begin, now - duration)
                    continue
                if item.find("chord") is None:
                    last = now
                    now += duration
                furthest = max(furthest, now)
                pitch = item.find("pitch")
                if pitch is not None and item.find("cue") is None:
                    yield Note(float(last), float(last + duration), _pitch(pitch))
        now = furthest


def _pitch(pitch: ElementTree.Element) -> int:
    step, octave, alter = (pitch.findtext(name) or "" for name in ("step", "octave", "alter"))
    found = 12 * (int(octave) + 1) + _STEPS[step.strip()] + round(float(alter or 0))
    if not 0 <= found <= 127:
        raise ValueError(f"a pitch is {step}{octave}, which MIDI does not have")
    return found
