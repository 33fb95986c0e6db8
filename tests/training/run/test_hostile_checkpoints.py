"""Checkpoints that were made or damaged to do harm: everything that reads one refuses it by name, and runs nothing."""

import copy
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.checkpoint import load_tensors, read_checkpoint, save_tensors
from unrolled.deployment.command import main
from unrolled.descriptions import CheckpointError
from unrolled.training.run.runner import run, score

Configure = Callable[..., DictConfig]
SHORT = ["trainer.max_steps=2", "trainer.max_epochs=-1", "scheduler=none", "test=false", "callbacks.samples=null"]
SHORT += ["callbacks.curves=null", "logger=none", "threads=1", "model.hidden_size=4"]
# The commands of python -m unrolled that read a checkpoint, with arguments that each accepts.
COMMANDS = {
    "sample": [],
    "classify": ["page.txt"],
    "tag": [],
    "translate": [],
    "caption": ["page.png"],
    "inspect": ["--text", "one"],
    "share": ["shared"],
}


class Explosive:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def hostile(content: dict[str, Any], kind: str) -> dict[str, Any]:
    """The content of a good checkpoint with something that would run code, or that is not what it should be."""
    changed = copy.deepcopy(content)
    ours = changed["unrolled"]
    call = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "path": "exploded"}}
    if kind == "pickle":
        changed["callbacks"] = {"Surprise": Explosive()}
    elif kind == "network":
        ours["network"] = call
    elif kind == "cell":
        ours["network"]["core"]["cell"] = call
    elif kind == "processor":
        ours["processor"]["source"] = call
    elif kind == "class":
        ours["network"] = {"_target_": "unrolled.checkpoint.import_module", "name": "antigravity"}
    elif kind == "weights":
        name = next(iter(changed["state_dict"]))
        changed["state_dict"][name] = "os.system"
    return changed


@pytest.fixture
def good(folder: Path, configure: Configure) -> Path:
    """A checkpoint that all readers take."""
    run(configure("good", *SHORT))
    return folder / "good" / "checkpoints" / "last.ckpt"


def readers(configure: Configure) -> dict[str, Callable[[Path], Any]]:
    return {
        "load_bundle": load_bundle,
        "resume": lambda path: run(configure("resumed", *SHORT, f"resume={path}")),
        "init_from": lambda path: run(configure("more", *SHORT, f"init_from={path}")),
        "evaluate": lambda path: score(
            configure("", f"checkpoint={path}", "trainer=cpu", name="evaluate", small=False)
        ),
    }


def refuses_everywhere(
    path: Path, configure: Configure, capsys: pytest.CaptureFixture[str], *, builds_network: bool = False
) -> None:
    """Checks that all readers refuse a file by name, or those alone that build the network which it describes."""
    for name, read in readers(configure).items():
        if not builds_network or name in ("load_bundle", "evaluate"):
            with pytest.raises(CheckpointError, match=path.name):
                read(path)
    for name, arguments in COMMANDS.items():
        capsys.readouterr()
        assert main([name, str(path), *arguments]) == 2, name
        said = capsys.readouterr().err
        assert path.name in said, name
        assert "Traceback" not in said
    assert not list(Path.cwd().rglob("exploded"))


@pytest.mark.parametrize("kind", ["pickle", "network", "cell", "processor", "class", "weights"])
def test_what_would_run_code_is_refused_by_all_who_read_it(
    folder: Path, configure: Configure, good: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = folder / "hostile.ckpt"
    content = hostile(torch.load(good, weights_only=True), kind)
    torch.save(content, path) if kind == "pickle" else save_tensors(content, path)
    # A resumed or started run takes the network from the configuration, not from the file.
    refuses_everywhere(path, configure, capsys, builds_network=kind in ("network", "cell", "class"))


def test_what_is_cut_off_or_flipped_is_refused_by_all_who_read_it(
    folder: Path, configure: Configure, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, draw = good.read_bytes(), random.Random(0)
    path = folder / "damaged.ckpt"
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", _flipped(whole, len(whole) // 3, 4)):
        path.write_bytes(damaged)
        refuses_everywhere(path, configure, capsys)
    for _ in range(200):
        path.write_bytes(_flipped(whole, draw.randrange(len(whole) - 80), draw.randrange(8)))
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(path)
        path.write_bytes(whole[: draw.randrange(len(whole) - 80)])
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"processes": []},
        {"processes": [1], "data_settings": {}},
        {"processes": [{"carried": {}, "random": 1, "gradients": {}}], "data_settings": {}},
        {"processes": [{"carried": {}, "random": {}, "gradients": {}}], "data_settings": {"processes": "two"}},
    ],
)
def test_what_is_no_state_to_resume_from_is_refused(folder: Path, configure: Configure, good: Path, entry: Any) -> None:
    content = load_tensors(good)
    content["unrolled"]["resume"] = entry
    save_tensors(content, folder / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd\.ckpt: it has weights, but no state to resume from"):
        run(configure("resumed", *SHORT, f"resume={folder}/odd.ckpt"))


def test_a_command_refuses_with_a_line_and_a_status(
    folder: Path,
    good: Path,
    python: Callable[..., "subprocess.CompletedProcess[str]"],
    train_script: str,
    small: list[str],
) -> None:
    torch.save(hostile(torch.load(good, weights_only=True), "pickle"), folder / "hostile.ckpt")
    for arguments in (
        [train_script, *small, "run_dir=resumed", "resume=hostile.ckpt"],
        [str(Path(train_script).with_name("evaluate.py")), "checkpoint=hostile.ckpt", "trainer=cpu"],
    ):
        done = python(*arguments)
        assert (done.returncode, "hostile.ckpt: it contains Python objects" in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    assert not list(folder.rglob("exploded"))


def _flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
