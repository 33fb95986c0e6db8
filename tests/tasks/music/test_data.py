"""Pieces from files of every kind, as batches of whole pieces and windows; what is wrong with them."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from unrolled.processing.notes.files import write_music
from unrolled.training.data.base import DataError
from unrolled_tasks.music import MusicData


def pieces(count: int = 10) -> list[list[list[int]]]:
    """Pieces of different lengths, all different."""
    return [[[60 + number, 72 + (step + number) % 5] for step in range(3 + number)] for number in range(count)]


def written(folder: Path, kind: str) -> dict[str, Any]:
    found = pieces()
    if kind == "hub":
        datasets.Dataset.from_list([{"frames": piece} for piece in found]).save_to_disk(folder / "hub")
        return {"dataset": str(folder / "hub")}
    if kind == "published":
        (folder / "x.json").write_text(
            json.dumps(
                {"train": [[[-1, *frame] for frame in p] for p in found[:8]], "valid": [found[8]], "test": [found[9]]}
            )
        )
        return {"files": str(folder / "x.json")}
    if kind == "midi":
        for number, piece in enumerate(found):
            write_music(folder / f"songs/{number}.mid", piece, 2)
        return {"files": str(folder / "songs"), "steps_per_beat": 2}
    with gzip.open(folder / "x.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({"frames": piece}) for piece in found))
    return {"files": str(folder / "x.jsonl.gz")}


@pytest.mark.parametrize("kind", ["jsonl", "hub", "published", "midi"])
def test_every_source_gives_the_pieces(kind: str, folder: Path) -> None:
    data = MusicData(**written(folder, kind), batch_size=3)

    data.prepare()

    assert data.splits() == ("train", "validation", "test")
    assert data.sizes() == {"keys": 88}
    found = [
        [[int(key) + 21 for key in frame.nonzero()[:, 0]] for frame in row] for row in read(data.train_dataloader())
    ]
    assert sorted(found) == sorted([sorted(frame) for frame in piece] for piece in pieces()[:8])
    assert "train 8, validation 1, test 1 pieces with 75 frames of 88 keys, 2.0 of which sound" in data.describe()


def read(loader: Any) -> list[torch.Tensor]:
    """Each row's valid targets."""
    return [row[:n] for batch in loader for row, n in zip(batch.targets, batch.lengths, strict=True)]


def test_the_input_of_a_frame_is_the_one_before(folder: Path) -> None:
    data = MusicData(**written(folder, "jsonl"), batch_size=3)
    data.prepare()

    for batch in data.train_dataloader():
        assert batch.carry == 0
        assert not batch.inputs[:, 0].any()
        assert batch.reset.all()
        for row, n in enumerate(batch.lengths.tolist()):
            assert torch.equal(batch.inputs[row, 1:n], batch.targets[row, : n - 1])
            assert batch.loss_mask[row].sum() == n
            assert batch.examples is not None


def test_windows_predict_each_frame_of_an_epoch_once_in_the_same_keys_as_whole_pieces(folder: Path) -> None:
    """Both read the same transpositions, which depend on the epoch and the piece alone."""
    found = []
    for window in (None, 4):
        data = MusicData(**written(folder, "jsonl"), batch_size=2, window=window, semitones=5, seed=3)
        data.prepare()
        loader = data.train_dataloader()
        epochs = []
        for _ in range(2):
            pairs: list[tuple[Any, Any]] = []
            for batch in loader:
                counted = batch.loss_mask
                pairs += [
                    tuple(tuple(step.tolist()) for step in pair)
                    for pair in zip(batch.inputs[counted], batch.targets[counted], strict=True)
                ]
            epochs.append(sorted(pairs))
        found.append(epochs)

    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_transposition_moves_all_notes_of_a_piece_alike_and_keeps_them(folder: Path) -> None:
    options = {"low": 55, "high": 79, "batch_size": 1}  # the highest pieces can't go up
    plain, moved = (MusicData(**written(folder, "jsonl"), semitones=k, **options) for k in (0, 12))
    originals = {}
    for data in (plain, moved):
        data.prepare()
    for batch in plain.train_dataloader():
        originals[int(batch.examples[0])] = batch.targets[0]
    drawn = set()
    loader = moved.train_dataloader()
    for _ in range(20):
        for batch in loader:
            original, now = originals[int(batch.examples[0])], batch.targets[0]
            lowest = [int(keys.any(0).nonzero()[0]) for keys in (original, now)]
            drawn.add(lowest[1] - lowest[0])
            assert torch.equal(torch.roll(original, lowest[1] - lowest[0], dims=1), now)
            assert original.sum() == now.sum()
    assert min(drawn) < -3
    assert max(drawn) > 3
    for one, other in zip(plain.val_dataloader(), moved.val_dataloader(), strict=True):
        assert torch.equal(one.targets, other.targets)


def test_chorales_need_no_file_and_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"chorales": 5, "steps_per_beat": 2, "split_fractions": [0.6, 0.2, 0.2]}
    data = MusicData(**options)
    data.prepare()
    voices = [len(frame) for split in data.splits() for piece in data.pieces(split) for frame in piece.frames]
    assert max(voices) == 4
    assert sum(voices) / len(voices) > 3.3
    assert data.pieces("train")[0].place.startswith("chorale bwv")

    monkeypatch.setattr("unrolled_tasks.music.chorales.read_parts", None)
    again = MusicData(**options)
    again.prepare()
    assert again.fingerprint() == data.fingerprint()

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"from the package music21, which is not installed; pip install 'unrolled\[music\]'"
    ):
        MusicData(chorales=5).prepare()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            '{"frames": [[60]]}\n{"frames": [[60], [12]]}',
            r"x.jsonl, line 2: frame 2 has the pitch 12, outside of 21 to 108",
        ),
        ('{"frames": [[60]]}\n{"frames": []}', r"x.jsonl, line 2: the piece has 0 frames"),
        ('{"frames": 3}', r"x.jsonl, line 1: the frames are an int"),
        ('{"frame": []}', r"x.jsonl, line 1: no column 'frames'; did you mean frame\?"),
        ("", "there are no rows"),
    ],
)
def test_what_is_wrong_names_file_and_line(rows: str, message: str, folder: Path) -> None:
    (folder / "x.jsonl").write_text(rows)
    with pytest.raises(DataError, match=message):
        MusicData(files="x.jsonl", split_fractions=[1, 0, 0]).prepare()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": 3}', "x.json, train: expected a list of pieces"),
        ('{"train": [[60]]}', "x.json, train piece 1: expected a list of frames"),
        ('{"train": [[[60]], [[5]]]}', "x.json, train piece 2: frame 1 has the pitch 5"),
        ('{"train": [], "other": []}', "x.json: expected an object with pieces for train, valid and test"),
        ('{"train": []}', "the train split has no pieces"),
    ],
)
def test_published_json_that_is_wrong_is_named(content: str, message: str, folder: Path) -> None:
    (folder / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        MusicData(files="x.json").prepare()


def test_broken_midi_is_named(folder: Path) -> None:
    (folder / "x.mid").write_bytes(b"MThd")
    with pytest.raises(DataError, match=r"x.mid is not a readable MIDI file"):
        MusicData(files="x.mid").prepare()


def test_options_that_make_no_sense_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="give exactly one of files, dataset, chorales for music; got none"):
        MusicData()
    with pytest.raises(DataError, match="chorales=0, semitones=0, window=None: expected 1 or more"):
        MusicData(chorales=0)
    with pytest.raises(DataError, match="window=8 needs batch_size"):
        MusicData(chorales=9, window=8, batch_size=None, batch_tokens=100)
    data = MusicData(**written(folder, "jsonl"), window=8, batch_size=20)
    data.prepare()
    with pytest.raises(DataError, match="8 training pieces are too few for 20 streams"):
        data.train_dataloader()
