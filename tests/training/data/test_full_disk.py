"""A disk that is full or may not be written to: one line, status 2, and nothing half-written."""

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from unrolled import CharacterTokenizer, build
from unrolled.checkpoint import load_tensors
from unrolled.processing.transform import Processor
from unrolled.training.console.outputs import write_rows, write_text
from unrolled.training.run import command
from unrolled.wording import refused

TEXT = ["data.files=birds.txt", "trainer.max_epochs=1", "callbacks.samples=null", "logger=csv", "run_dir=run"]
TEXT += ["+trainer.limit_train_batches=20"]


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may become larger, as on a disk with so little room: the system refuses what goes beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def train(folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    lines = [f"{number} little birds sat in row {number * 7 % 13}\n" for number in range(1000)]
    (folder / "birds.txt").write_text("".join(lines))

    def run(*overrides: str) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train.py", *small, *TEXT, *overrides])
        with pytest.raises(SystemExit) as stop:
            command.train()
        return int(stop.value.code or 0)

    return run


def said(capsys: Any) -> str:
    """What was said on standard error by the command itself."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("train.py: ")]
    return line


def test_no_room_for_prepared_data(folder: Path, train: Callable[..., int], capsys: Any) -> None:
    with room(20_000):
        assert train() == 2

    line = said(capsys)
    assert re.search(r"cache/text-\w+: File too large; ", line)
    assert "make room, or write to another disk (by run_dir=…, data.cache=… or $UNROLLED_CACHE)" in line
    assert not (folder / "run").exists()
    assert [path.suffix for path in (folder / "cache").iterdir() if path.name != "compiled"] == [".lock"]


@pytest.mark.parametrize(
    ("size", "options"), [(40_000, []), (80_000, ["model.hidden_size=100", "callbacks.curves=null"])]
)
def test_no_room_for_what_a_run_leaves(
    folder: Path, train: Callable[..., int], capsys: Any, size: int, options: list[str]
) -> None:
    with room(size):
        assert train(*options) == 2

    assert "File too large" in said(capsys)
    assert (folder / "run" / "config.yaml").is_file()  # it had begun
    for path in (folder / "run").rglob("*"):
        assert not path.name.endswith(".split")
        if path.suffix == ".ckpt":
            load_tensors(path)


def test_a_cache_that_cannot_be_made_is_named(folder: Path, train: Callable[..., int], capsys: Any) -> None:
    assert train("data.cache=birds.txt/cache") == 2

    assert "birds.txt/cache: Not a directory" in said(capsys)
    assert not (folder / "run").exists()


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old\n")
    write_rows(tmp_path / "a.csv", [("a", 1), ("b", "two, three")])
    assert (tmp_path / "a.csv").read_bytes() == b'a,1\r\nb,"two, three"\r\n'

    with room(1000), pytest.raises(OSError, match=r"File too large: '.*a\.txt'"):
        write_text(tmp_path / "a.txt", "new\n" * 1000)

    assert (tmp_path / "a.txt").read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.txt"]


def test_what_the_system_refused_has_a_remedy() -> None:
    full, locked, other = (OSError(number, "it said", "x.txt") for number in (errno.ENOSPC, errno.EROFS, errno.EIO))

    assert refused(full, "run_dir=…") == "x.txt: it said; make room, or write to another disk (by run_dir=…)"
    assert refused(locked) == "x.txt: it said; change its permissions, or choose another place"
    assert refused(other) == "x.txt: it said"
    assert refused(OSError("1000 requested and 10 written")) == "1000 requested and 10 written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_no_room_for_what_is_written_on_standard_output(tmp_path: Path) -> None:
    core = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 4}
    core["cell"] = {"_target_": "unrolled.GRUCell", "_partial_": True}
    network = {
        "_target_": "unrolled.AutoregressiveDecoder",
        "embedding": {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 5, "size": 3},
        "core": core,
        "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 5},
    }
    ours = {"format": 2, "network": network, "processor": Processor(CharacterTokenizer("abc")).to_dict(), "info": {}}
    weights = {f"network.{name}": value for name, value in build(network).state_dict().items()}
    torch.save({"state_dict": weights, "unrolled": ours}, tmp_path / "a.ckpt")

    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-m", "unrolled", "sample", str(tmp_path / "a.ckpt"), "--length", "20"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ})

    assert done.returncode == 2
    assert done.stderr == "unrolled sample: No space left on device; make room, or write to another disk\n"
