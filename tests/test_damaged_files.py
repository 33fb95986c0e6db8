"""Files changed at random: whatever reads them answers with what it documents, soon, and never with a traceback."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from unrolled import (
    AudioFeatures,
    GRUCell,
    Recurrent,
    build,
    load_bundle,
)
from unrolled.deployment.command import main
from unrolled.processing.audio.recordings import read_recording
from unrolled.processing.frames import ImageSequence
from unrolled.processing.images import ImageTransform, read_image
from unrolled.processing.labels import LabelEncoder
from unrolled.processing.notes.files import write_music
from unrolled.processing.text.tokenizers import WordTokenizer
from unrolled.processing.transform import Processor
from unrolled.training.data.files import read_lines
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.rows import TableRows
from unrolled.training.tasks.vectors import load_vectors
from unrolled_tasks.captioning.sources import ImageRows, KarpathySource
from unrolled_tasks.classification import Audio, ClassificationData, Images, Series, Text
from unrolled_tasks.classification.packages import film_sentences
from unrolled_tasks.music import MusicData
from unrolled_tasks.translation.lengths import read_lengths
from unrolled_tasks.translation.sources import TextPairSource, source_of

MUTANTS = int(os.environ.get("UNROLLED_MUTANTS", "40"))  # of each file; more of them to look for more
SECONDS = 5.0  # for one of them
ODD = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b'"',
    b"\n",
    b"\t",
    b",",
    b":",
    b"nan",
    b"1e999",
]
ODD += [
    b"9" * 5000,
    b"-1",
    b"{",
    b"[" * 3000,
    b"\\ud800",
    b"\xc3",
    b"null",
    b"true",
    b"\r",
    b"../",
    b"a" * 300,
    b"{}",
    b"[]",
]

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")


class Kind(NamedTuple):
    """A file as it should be, and what reads it."""

    name: str
    content: bytes
    read: Callable[[Path], Any]


def mutant(content: bytes, drawn: random.Random) -> bytes:
    """The content with some of its bytes changed, cut out, doubled or replaced by what readers stumble over."""
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 1, 2, 4, 16])):
        place = (
            drawn.randrange(len(changed) + 1) if drawn.random() < 0.6 else drawn.randrange(min(len(changed), 64) + 1)
        )
        end = min(len(changed), place + drawn.choice([1, 1, 4, 32]))
        how = drawn.randrange(6)
        if how == 0:
            changed[place:end] = drawn.randbytes(end - place)
        elif how == 1:
            del changed[place:end]
        elif how == 2:
            changed[place:place] = changed[place:end] * drawn.choice([1, 2, 50])
        elif how == 3:
            changed[place:end] = drawn.choice(ODD)
        elif how == 4 and place < len(changed):
            changed[place] ^= 1 << drawn.randrange(8)
        else:
            del changed[place if drawn.random() < 0.3 else len(changed) :]
    return bytes(changed)


def texts() -> Iterator[Kind]:
    text = "one two\nthree é€ 4\n\nfive\r\n" * 20
    for suffix, pack in (("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        yield Kind(f"a.txt{suffix}", pack(text.encode()), lambda path: list(read_lines(path)))
    pairs = [
        {"source": f"eins {n}", "target": f"one {n}", "translation": {"source": "a", "target": "b"}} for n in range(9)
    ]
    rows = "\n".join(json.dumps(pair) for pair in pairs)
    separated = "source,target\n" + "".join(f'"eins, {n}",one {n}\n' for n in range(9))

    def read_pairs(path: Path) -> Any:
        return list(source_of(SourceOptions(files=str(path)), "source", "target").read("train"))

    yield Kind("pairs.jsonl", rows.encode(), read_pairs)
    yield Kind("pairs.csv", separated.encode(), read_pairs)
    yield Kind("pairs.tsv", separated.replace(", ", " ").replace(",", "\t").encode(), read_pairs)
    yield Kind("pairs.parquet", packed({k: [p[k] for p in pairs] for k in ("source", "target")}), read_pairs)
    yield Kind("a.de", text.encode(), lambda path: list(TextPairSource({"train": [str(path)] * 2}).read("train")))
    vectors = "3 4\n" + "".join(f"{word} 0.1 -2 3e-3 4\n" for word in ("one", "two", "é"))
    words, weight = WordTokenizer(["one", "two"]), torch.randn(4, 4)
    yield Kind("vectors.txt", vectors.encode(), lambda path: load_vectors(path, words, weight))
    yield Kind("lengths.csv", b"words,sentences,BLEU\n1-5,30,12.5\n6-9,7,1.0\n", lambda path: read_lengths(path.parent))


def labelled() -> Iterator[Kind]:
    def read(path: Path, modality: Any = None, **options: Any) -> Any:
        data = ClassificationData(
            modality=modality or Series(series="run"), files=str(path), split_fractions=[1, 0, 0], **options
        )
        data.prepare()
        return list(data.test_dataloader())

    ts = "@timeStamps false\n@classLabel true a b\n@data\n" + "".join(
        f"1,2,{n}:4,5,6:{'ab'[n % 2]}\n" for n in range(6)
    )
    rows = [(n // 2, n * 0.5, 1e8 + n // 2, "ab"[n // 2 % 2]) for n in range(16)]
    table = "run,x,y,label\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    columns = dict(zip(("run", "x", "y", "label"), map(list, zip(*rows, strict=True)), strict=True))
    yield Kind("a.ts", ts.encode(), lambda path: read(path, Series()))
    yield Kind("series.csv", table.encode(), read)
    yield Kind("series.parquet", packed(columns), read)
    yield Kind("numbers.csv", table.encode(), partial(read, target=["y", "run"], target_type="number", group="label"))
    films = "".join(
        json.dumps({"text": f"a {w} film", "label": w, "who": n}) + "\n" for n, w in enumerate(["ok", "no"] * 4)
    )
    yield Kind("films.jsonl", films.encode(), lambda path: read(path, Text(), unit="token", source="text", group="who"))
    named = "source,label\n" + "a.png,a\nb.png,b\n" * 3
    yield Kind("named.csv", named.encode(), lambda path: read(path, Images(), on_error="skip"))
    heard = "source,label\n" + "a.wav,a\nb.wav,b\n" * 3
    sound = partial(AudioFeatures, num_mels=4)
    yield Kind("heard.csv", heard.encode(), lambda path: read(path, Audio(sound), on_error="skip", storage="disk"))
    inner, outer = io.BytesIO(), io.BytesIO()
    for file, name, content in (
        (inner, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", b"1\t2.5\tfine film\n2\t-1.5\tpoor film\n"),
        (outer, "vader/additional_resources/hutto_ICWSM_2014.tar.gz", None),
    ):
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            content = inner.getvalue() if content is None else content
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    yield Kind("vader.tar.gz", outer.getvalue(), lambda path: film_sentences(str(path)))


def captioned() -> Iterator[Kind]:
    def read(path: Path) -> Any:
        source = ImageRows(TableRows({"train": str(path)}), None, "caption*")
        return [*source.read("train"), source.fingerprint(), str(source)]

    def karpathy(path: Path) -> Any:
        source = KarpathySource(str(path), str(path.parent))
        return [*source.read("train"), source.fingerprint()]

    rows = [{"file_name": f"{n}.png", "caption": f"a dog {n}", "captions": ["a", {"raw": "b"}]} for n in range(4)]
    yield Kind("metadata.jsonl", "\n".join(map(json.dumps, rows)).encode(), read)
    held = {"image": [{"bytes": b"png", "path": "a.png"}] * 4, "caption": [["a", "b"]] * 4}
    yield Kind("held.parquet", packed(held), read)
    images = [{"filename": "a.png", "filepath": "x", "split": "train", "sentences": [{"raw": "a dog"}]}] * 3
    yield Kind("dataset.json", json.dumps({"images": images}).encode(), karpathy)


def sounds_and_pictures() -> Iterator[Kind]:
    samples = 0.3 * np.sin(np.arange(4000) / 5)
    for kind in ("wav", "flac", "ogg", "mp3"):
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, format=kind)
        yield Kind(f"a.{kind}", file.getvalue(), partial(read_recording, partial=True))
        yield Kind(f"b.{kind}", file.getvalue(), lambda path: read_recording(io.BytesIO(path.read_bytes()), "b"))
    picture = Image.effect_noise((40, 30), 60)
    for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm", "ico", "tga", "pcx"):
        file = io.BytesIO()
        picture.convert("L" if kind == "gif" else "RGB").save(file, kind)
        yield Kind(f"a.{kind}", file.getvalue(), ImageTransform(size=8).encode)
        yield Kind(f"b.{kind}", file.getvalue(), lambda path: read_image(path.read_bytes()))


def music() -> Iterator[Kind]:
    frames = [[60, 64, 67 + step % 5] for step in range(12)]

    def read(path: Path) -> Any:
        data = MusicData(files=str(path), split_fractions=[1, 0, 0])
        data.prepare()
        return list(data.train_dataloader())

    with TemporaryDirectory() as folder:
        write_music(Path(folder, "a.mid"), frames, 2)
        yield Kind("a.mid", Path(folder, "a.mid").read_bytes(), read)
    note = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration></note>"
    score = (
        f"<score-partwise><part><measure><attributes><divisions>2</divisions></attributes>{note * 5}</measure></part>"
    )
    score = f"{score}</score-partwise>".encode()
    yield Kind("a.musicxml", score, read)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", score)
    yield Kind("a.mxl", file.getvalue(), read)
    yield Kind("a.jsonl", f"{json.dumps({'frames': frames})}\n".encode() * 3, read)
    splits = {"train": [frames, frames], "valid": [frames], "test": [frames]}
    yield Kind("a.json", json.dumps(splits).encode(), read)


def checkpoints() -> Iterator[Kind]:
    file = io.BytesIO()
    torch.save(bundle(ImageSequence([4, 4])), file)
    yield Kind("a.ckpt", file.getvalue(), load_bundle)
    yield Kind("b.ckpt", file.getvalue(), lambda path: main(["classify", str(path), str(path)]))


CORE = partial(Recurrent, GRUCell, hidden_size=4)


def bundle(reader: Any) -> dict[str, Any]:
    core = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 4}
    core["cell"] = {"_target_": "unrolled.GRUCell", "_partial_": True}
    encoder = {"_target_": "unrolled.FeatureEncoder", "input_size": reader.output_size, "core": core}
    pooling = {"_target_": "unrolled.MeanPooling", "_partial_": True}
    head = {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 2}
    network = {"_target_": "unrolled.SequenceClassifier", "encoder": encoder, "head": head, "pooling": pooling}
    weights = {f"network.{name}": value for name, value in build(network).state_dict().items()}
    processor = Processor(reader, LabelEncoder(["a", "b"])).to_dict()
    return {"state_dict": weights, "unrolled": {"format": 2, "network": network, "processor": processor, "info": {}}}


def packed(columns: dict[str, list[Any]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


KINDS = [kind for each in (texts, labelled, captioned, sounds_and_pictures, music, checkpoints) for kind in each()]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.filterwarnings("ignore")
def test_a_changed_file_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    for name in ("a.png", "b.png", "0.png"):
        Image.effect_noise((4, 4), 50).save(tmp_path / name)
        soundfile.write(tmp_path / f"{name[0]}.wav", np.ones(400), 8000)
    drawn = random.Random(kind.name)
    path = tmp_path / kind.name
    path.write_bytes(kind.content)
    kind.read(path)

    refused: list[ValueError] = []
    for number in range(MUTANTS):
        content = mutant(kind.content, drawn)
        path.write_bytes(content)
        began = time.process_time()
        try:
            kind.read(path)
        except ValueError as error:
            refused.append(error)
        except Exception as error:
            error.add_note(f"mutant {number}: {content[:2000]!r}")
            raise
        assert time.process_time() - began < SECONDS, f"mutant {number} takes too long: {content[:2000]!r}"
    assert refused or kind.name == "b.ckpt"  # a command, which answers by its exit status
    for error in refused:
        assert str(error).strip()
        assert type(error) is ValueError or type(error).__module__.startswith("unrolled."), repr(error)
