"""Piano rolls, MIDI, scores, sound and pictures: against mido, music21 and the arithmetic of the files."""

import importlib.util
import wave
import zipfile
from pathlib import Path

import mido
import numpy as np
import pytest
import torch
from PIL import Image

from unrolled import PianoRoll, build
from unrolled.processing.notes.files import read_music, write_music
from unrolled.processing.notes.roll import MAX_FRAMES, Note, frames_of, notes_of
from unrolled.processing.notes.sound import RATE

FRAMES = [[60, 64, 67], [60, 64, 67], [], [60], [62, 65], [62, 69]]
SCORE = """<?xml version="1.0"?><score-partwise><part id="P1"><measure>
<attributes><divisions>2</divisions></attributes>
<note><grace/><pitch><step>B</step><octave>7</octave></pitch></note>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>2</duration></note>
<note><chord/><pitch><step>F</step><alter>1</alter><octave>4</octave></pitch><duration>2</duration></note>
<note><rest/><duration>2</duration></note>
<backup><duration>2</duration></backup>
<note><pitch><step>B</step><alter>-1</alter><octave>2</octave></pitch><duration>1</duration></note>
<forward><duration>1</duration></forward>
</measure></part><part id="P2"><measure>
<attributes><divisions>1</divisions></attributes>
<note><rest/><duration>2</duration></note>
</measure><measure>
<note><pitch><step>A</step><octave>4</octave></pitch><duration>1</duration><tie type="start"/></note>
</measure></part></score-partwise>"""


def test_a_roll_is_the_frames_and_they_come_back() -> None:
    roll = PianoRoll(60, 72)

    keys = roll.encode([[72, 60, 60], [], [61]])

    expected = torch.zeros(3, 13)
    expected[0, 0] = expected[0, 12] = expected[2, 1] = 1.0
    assert torch.equal(keys, expected)
    assert roll.decode(keys) == roll.normalize([[72, 60, 60], [], [61]]) == [[60, 72], [], [61]]
    batch, lengths = roll.collate([keys, keys[:1]])
    assert batch.shape == (2, 3, 13)
    assert lengths.tolist() == [3, 1]
    again = build(roll.to_dict(), trusted=("unrolled.",))
    assert (again.low, again.high, again.steps_per_beat, again.size) == (60, 72, 1, 13)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[60], [73]], "frame 2 has the pitch 73, outside of 60 to 72"),
        ([[60], [128]], "frame 2 has 128, expected MIDI pitches"),
        ([[60.5]], "frame 1 has 60.5, expected MIDI pitches"),
        ([[True]], "frame 1 has True"),
        ([60], "frame 1 is 60, expected a list"),
        ("abc", "the frames are a str, expected a list of lists"),
        ([], "the piece has 0 frames, expected 1 to 100,000"),
        ([[]] * (MAX_FRAMES + 1), "the piece has 100,001 frames"),
    ],
)
def test_frames_that_are_none_are_refused(frames: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PianoRoll(60, 72).encode(frames)  # type: ignore[arg-type]


def test_sizes_out_of_range_are_refused() -> None:
    for low, high, steps in ((72, 60, 1), (-1, 60, 1), (0, 128, 1), (60, 72, 0)):
        with pytest.raises(ValueError, match="expected 0 ≤ low ≤ high ≤ 127, and 1 step or more"):
            PianoRoll(low, high, steps)


def test_notes_and_frames_are_two_forms_of_one_piece() -> None:
    notes = notes_of(FRAMES, 2)

    assert Note(0.0, 1.0, 60) in notes
    assert Note(1.5, 2.0, 60) in notes
    assert Note(2.0, 3.0, 62) in notes
    assert frames_of(notes, 2) == [*FRAMES]
    assert frames_of([Note(0.1, 0.11, 60)], 1) == [[60]]  # however short
    voice = [Note(0.0, 0.25, 60), Note(0.25, 0.5, 62), Note(0.5, 1.0, 64)]  # a passing note
    assert frames_of(voice, 2) == [[60], [64]]
    with pytest.raises(ValueError, match="it has no notes"):
        frames_of([], 1)
    with pytest.raises(ValueError, match=r"its last note ends in frame 200,000, expected 100,000 or fewer"):
        frames_of([Note(0.0, 2e5, 60)], 1)


def test_midi_that_is_written_has_the_notes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    write_music(path, FRAMES, 2, tempo=100.0)

    assert read_music(path, 2) == FRAMES
    read = mido.MidiFile(path)  # another reader: the end of the last note, and all starts, in seconds
    assert read.length == pytest.approx(3 * 60 / 100, abs=2e-3)  # ticks
    now, starts = 0.0, []
    for message in read:
        now += message.time
        if message.type == "note_on" and message.velocity:
            starts.append((round(now / 0.3), message.note))
    assert sorted(starts) == sorted((round(2 * note.start), note.pitch) for note in notes_of(FRAMES, 2))


def test_midi_is_read_in_beats_without_its_drums(tmp_path: Path) -> None:
    file = mido.MidiFile(ticks_per_beat=100)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track += [
        mido.MetaMessage("set_tempo", tempo=500_000, time=0),
        mido.Message("note_on", note=60, velocity=9, time=3),  # early or late by less than half a frame
        mido.Message("note_on", note=36, velocity=9, channel=9, time=0),
        mido.MetaMessage("set_tempo", tempo=2_000_000, time=50),
        mido.Message("note_off", note=60, time=50),
        mido.Message("note_on", note=67, velocity=9, time=100),
        mido.Message("note_off", note=36, channel=9, time=90),
        mido.Message("note_on", note=67, velocity=0, time=0),
    ]
    file.save(tmp_path / "a.mid")

    assert read_music(tmp_path / "a.mid", 2) == [[60], [60], [], [], [67], [67]]


@pytest.mark.parametrize("kind", ["mxl", "musicxml"])
def test_a_score_has_voices_chords_and_rests(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "mxl":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("META-INF/container.xml", "<container/>")
            archive.writestr("score.xml", SCORE)
    else:
        path.write_text(SCORE)

    assert read_music(path, 2) == [[60, 66], [60, 66], [46], [], [69], [69]]


def test_a_chorale_is_what_music21_reads() -> None:
    converter = pytest.importorskip("music21.converter")
    folder = Path(str(importlib.util.find_spec("music21").origin)).parent / "corpus/bach"  # type: ignore[union-attr]
    for name in ("bwv66.6.mxl", "bwv269.mxl"):
        notes = [
            Note(float(note.offset), float(note.offset + note.quarterLength), pitch.midi)
            for note in converter.parse(folder / name).flatten().notes
            for pitch in note.pitches
        ]

        assert read_music(folder / name, 4) == frames_of(notes, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mid", b"MThd\0\0", "a.mid is not a readable MIDI file"),
        ("a.mid", b"", "a.mid is not a readable MIDI file"),
        ("a.mxl", b"PK", "a.mxl is not a readable MusicXML score"),
        ("a.xml", b"<score-partwise>", "a.xml is not a readable MusicXML score"),
        ("a.xml", b"<a/>", "its root is <a>, expected <score-partwise>"),
        ("a.xml", b"<score-partwise/>", "a.xml: it has no notes"),
        ("a.jsonl", b'{"frame": []}', "a.jsonl, line 1: expected an object with frames"),
        ("a.jsonl", b'{"frames": [[60], [400]]}', "a.jsonl, line 1: frame 2 has 400"),
        ("a.jsonl", b"{", "a.jsonl, line 1: "),
        ("a.ogg", b"", "expected a file that ends in .mid, .midi, .mxl, .musicxml, .xml, .jsonl"),
    ],
)
def test_broken_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_music(tmp_path / name, 1)


def test_a_midi_file_without_notes_and_one_that_is_too_long_are_told_from_a_broken_one(tmp_path: Path) -> None:
    for beats, message in ((0, "a.mid: it has no notes"), (MAX_FRAMES + 1, "a.mid: its last note ends in frame")):
        file = mido.MidiFile(ticks_per_beat=1)
        notes = [mido.Message("note_on", note=60, velocity=9, time=0), mido.Message("note_off", note=60, time=beats)]
        file.tracks.append(mido.MidiTrack(notes if beats else []))
        file.save(tmp_path / "a.mid")
        with pytest.raises(ValueError, match=message):
            read_music(tmp_path / "a.mid", 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("a.mid", "a.mxl", "a.jsonl"):
        with pytest.raises(ValueError, match=f"{name} cannot be read: No such file"):
            read_music(tmp_path / name, 1)


def test_sound_has_the_pitch_and_the_length(tmp_path: Path) -> None:
    write_music(tmp_path / "a.wav", [[69], [69], [], [81]], 1, tempo=60.0)

    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(float)
    assert len(samples) / RATE == pytest.approx(5.0, abs=0.01)  # and a second after the end
    assert abs(samples).max() == pytest.approx(0.9 * 32767, rel=0.01)
    for begin, hertz in ((0.1, 440.0), (3.1, 880.0)):
        part = samples[int(begin * RATE) : int((begin + 0.8) * RATE)]
        assert np.abs(np.fft.rfft(part)).argmax() / 0.8 == pytest.approx(hertz, abs=2.0)
    assert abs(samples[int(2.2 * RATE) : int(2.9 * RATE)]).max() == 0


def test_too_much_sound_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the sound would last 4,000 seconds, expected 3,600 or less"):
        write_music(tmp_path / "a.wav", [[60]] * 4000, 1, tempo=60.0)
    with pytest.raises(ValueError, match=r"expected a file that ends in .mid, .midi, .wav, .png, .jsonl"):
        write_music(tmp_path / "a.ogg", [[60]], 1)
    with pytest.raises(ValueError, match=r"tempo=0.0, program=0: expected 1 to 1000 beats per minute"):
        write_music(tmp_path / "a.mid", [[60]], 1, tempo=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_shows_each_note_where_it_is(tmp_path: Path) -> None:
    write_music(tmp_path / "a.png", [[60], [60], [64], []], 1, given=1)

    picture = Image.open(tmp_path / "a.png").convert("RGB")
    grey, blue = "#777777", "#0072B2"
    colours = {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in picture.getcolors(10_000)}  # type: ignore[misc]
    assert {grey, blue} <= colours
    step, key, left = 14, 8, 34
    rows = {pitch: key * (66 - pitch) + key // 2 for pitch in (60, 64)}  # two keys above the highest note
    at = [picture.getpixel((left + step * n + step // 2, rows[p])) for n, p in ((0, 60), (1, 60), (2, 64), (3, 64))]
    assert ["#{:02X}{:02X}{:02X}".format(*rgb) for rgb in at[:3]] == [grey, blue, blue]  # type: ignore[misc]
    assert at[3] == (250, 250, 250)
    write_music(tmp_path / "silent.png", [[], []], 1)
    assert Image.open(tmp_path / "silent.png").size[0] > 0
