"""Whatever is asked for wrongly ends in a few lines with the value and the remedy, status 2, and no run folder."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from unrolled.training.run import command

ROOT = Path(__file__).resolve().parents[3]
TEXT = "data=text data.files=rhyme.txt data.random_windows.length=16 data.batch_size=4 data.window=16"

WRONG = [
    ("task=char_ln", "task=char_ln", "did you mean task=char_lm"),
    ("model=lsmt", "model=lsmt", "did you mean model=lstm"),
    ("data=shakspeare", "data=shakspeare", "did you mean data=shakespeare"),
    ("optimizer=adamww", "optimizer=adamww", "did you mean optimizer=adamw"),
    ("scheduler=cosin", "scheduler=cosin", "did you mean scheduler=cosine"),
    ("trainer=dpp", "trainer=dpp", "did you mean trainer=ddp"),
    ("trainer.strategy=fsdp", "trainer.strategy=fsdp", "trainer=fsdp shards with FSDP2"),
    ("trainer=cpu trainer.precision=16-mixed", "precision=16-mixed", "bf16-mixed"),
    (
        "experiment=char_lm/tiny_shakespear",
        "char_lm/tiny_shakespear",
        "did you mean experiment=char_lm/tiny_shakespeare",
    ),
    ("callbacks/gradient_clip=valu", "callbacks/gradient_clip=valu", "did you mean callbacks/gradient_clip=value"),
    ("modle=gru", "modle", "did you mean model"),
    ("model.hiden_size=8", "hiden_size", "did you mean model.hidden_size"),
    ("model.cell.forget_bais=5", "forget_bais", "did you mean model.cell.forget_bias"),
    ("data.widow=8", "widow", "did you mean data.window"),
    ("trainer.max_stepz=8", "max_stepz", "did you mean trainer.max_steps"),
    ("optimizer.learning=1", "learning", "Keys of optimizer: amsgrad, betas"),
    ("+unknown=3", "unknown", "Keys of the configuration"),
    ("++unknown=3", "unknown", "Keys of the configuration"),
    ("+optimizer.amsgrd=true", "amsgrd", "did you mean optimizer.amsgrad"),
    ("+model.cell.peephole=true", "peephole", "Keys of model.cell: candidate_dropout"),
    ("model.hidden_size", "model.hidden_size", "key=value"),
    ("seed=[1", "seed=[1", "'seed=\"[1\"'"),
    ("data=text", "data.files", "add data.files=…"),
    ("task=captioning decoder=show_tell attention=dot", "attention=dot", "parts that use an attention"),
    ("task=grammar data=parity", "counting.Parity", "add task=counting"),
    ("data=captioned_images data.files=a.jsonl", "CaptionData", "add task=captioning"),
    (f"{TEXT} model.hidden_size=0", "0", "1 or more"),
    (f"{TEXT} model.dropout=1.5", "1.5", "[0, 1)"),
    (f"{TEXT} model.backend=cuddn", "cuddn", "fused"),
    (f"{TEXT} model=elman model.cell.activation=tahn", "tahn", "tanh"),
    (f"{TEXT} network.tied=true", "tied=True", "embedding.size equal to"),
    (f"{TEXT} initialization=xavior", "xavior", "xavier_"),
    (f"{TEXT} optimizer.lr=-1", "optimizer.lr=-1", "0 or more"),
    (f"{TEXT} optimizer.betas=[0.9,1.5]", "1.5", "optimizer"),
    (f"{TEXT} scheduler.warmup=2", "warmup=2", "below 1"),
    (f"{TEXT} trainer.accelerator=tpuu", "tpuu", "trainer"),
    (f"{TEXT} trainer.precision=17", "17", "trainer"),
    (f"{TEXT} trainer.gradient_clip_val=1", "gradient_clip_val", "GradientClip"),
    (f"{TEXT} callbacks.gradient_clip.norm=-1", "-1", "norm"),
    (f"{TEXT} data.unit=letter", "letter", "character"),
    (f"{TEXT} data.window=0", "0", "window"),
    (f"{TEXT} data.stride=99", "99", "stride"),
    (f"{TEXT} data.split_fractions=[0.5,0.9,0.1]", "0.9", "sum to 1"),
    (f"{TEXT} data.window=100000", "100000", "window"),
    (f"{TEXT} data.batch_size=100000", "100000", "batch_size"),
    ("data=text data.files=missing.txt", "missing.txt", ""),
    ("data=text data.files=empty.txt", "empty.txt", "empty"),
    ("data=text data.files=latin.txt", "latin.txt", "UTF-8"),
    ("data=hub data.dataset=json +data.dataset_options.data_files=poems.jsonl", "text", "poem"),
    (f"{TEXT} resume=nothing.ckpt", "nothing.ckpt", "no such file"),
    (f"{TEXT} init_from=rhyme.txt", "rhyme.txt", "not a checkpoint"),
    (f"{TEXT} init_from=hostile.ckpt", "os.system", "trusted"),
    (f"{TEXT} resume=a.ckpt init_from=b.ckpt", "resume and init_from", "exclude"),
    ("-m model=lstm,gruu", "gruu", "did you mean model=gru"),
    ("-m model.hidden_size=8,16 modle=gru", "modle", "did you mean model"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rhyme.txt").write_text("one two buckle my shoe\n" * 200)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("one café two\n".encode("latin-1") * 100)
    (tmp_path / "poems.jsonl").write_text('{"poem": "one two"}\n' * 9)
    processor = {"source": {"_target_": "os.system", "command": "touch exploded"}, "target": None}
    hostile = {"state_dict": {}, "unrolled": {"format": 2, "network": {}, "processor": processor, "info": {}}}
    torch.save(hostile, tmp_path / "hostile.ckpt")
    return tmp_path


def stopped(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *line.split()])
    with pytest.raises(SystemExit) as stop:
        getattr(command, name)()
    return int(stop.value.code or 0)


@pytest.mark.parametrize(("line", "value", "remedy"), WRONG, ids=[row[0] for row in WRONG])
def test_a_mistake_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, line: str, value: str, remedy: str
) -> None:
    status = stopped("train", line, monkeypatch)

    said = capsys.readouterr().err
    assert status == 2, said
    assert value in said
    assert remedy in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 7
    assert not list(folder.glob("outputs/**/*.yaml"))
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize(
    ("line", "value", "remedy"),
    [
        ("data=text data.files=rhyme.txt", "checkpoint", "add checkpoint=…"),
        ("checkpoint=nothing.ckpt", "nothing.ckpt", "no such file"),
        ("checkpoint=rhyme.txt", "rhyme.txt", "not a checkpoint"),
        ("checkpoint=hostile.ckpt", "os.system", "trusted"),
        ("checkpoint=hostile.ckpt splitt=train", "splitt", "did you mean split"),
    ],
)
def test_an_evaluation_is_explained_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, line: str, value: str, remedy: str
) -> None:
    status = stopped("evaluate", line, monkeypatch)

    said = capsys.readouterr().err
    assert (status, value in said, remedy in said) == (2, True, True), said
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nothing.ckpt"], "no such file"),
        (["sample", "rhyme.txt"], "not a checkpoint"),
        (["sampel", "rhyme.txt"], "invalid choice: 'sampel'"),
        (["sample", "hostile.ckpt"], "trusted"),
        (["sample", "rhyme.txt", "--device", "cudaa"], "cudaa"),
        (["sample", "rhyme.txt", "--count", "0"], "--count 0"),
    ],
)
def test_python_m_unrolled_explains(folder: Path, arguments: list[str], message: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])}
    line = [sys.executable, "-m", "unrolled", *arguments]

    result = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)

    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_misspelt_key_and_help_answer_without_torch(folder: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = {argv!r}\n"
        "try: runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit as stop: print('status', stop.code)\n"
        "print('loaded', sorted(set(sys.modules) & {{'torch', 'lightning', 'datasets'}}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])}
    for argument, status in (("modle=gru", "status 2"), ("--help", "Choices (group=choice)")):
        argv = ["train.py", argument]
        script = code.format(argv=argv, script=str(ROOT / "train.py"))
        result = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert status in result.stdout, result.stderr
        assert re.search(r"loaded \[\]", result.stdout), result.stdout


def test_help_lists_every_choice_data_and_experiments_by_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert stopped("train", "--help", monkeypatch) == 0

    said = capsys.readouterr().out.splitlines()
    choices = [p for p in (ROOT / "conf").glob("*/*.yaml") if p.parent.name not in ("experiment", "data")]
    assert len(choices) > 20
    for choice in choices:
        (line,) = (line for line in said if line.startswith(f"{choice.parent.name}:"))
        assert choice.stem in line
    start, stop = said.index("data, by task:"), said.index("experiment, by task:")
    tasks = {task.stem for task in (ROOT / "conf" / "task").glob("*.yaml")}
    shown: dict[str, str] = {}
    for line in said[start + 1 : stop]:
        named, found, listed = line.strip().partition(": ")
        if found and set(named.split(", ")) <= tasks:
            shown.update({word.split()[0]: named for word in listed.split(", ")})
    files = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert set(shown) == files - tasks - {"labelled"}  # what others build on is no choice
    assert shown["hub_pairs"] == "translation"
    assert (shown["parity"], shown["anbncn"], shown["continual_reber"]) == ("counting", "counting", "grammar")
    assert shown["speech"] == shown["digits"] == "classification, regression"
    for experiment in (ROOT / "conf").glob("experiment/*/*.yaml"):
        (line,) = (line for line in said[stop:] if line.startswith(f"  {experiment.parent.name}:"))
        assert f"{experiment.parent.name}/{experiment.stem}" in line


def test_help_lists_data_of_ones_own(folder: Path, python: Callable[..., Any], train_script: str) -> None:
    (folder / "lab" / "data").mkdir(parents=True)
    (folder / "lab" / "data" / "mine.yaml").write_text("defaults: [text, _self_]\nfiles: rhyme.txt\n")
    (folder / "lab" / "data" / "other.yaml").write_text("_target_: elsewhere.Data\n")

    shown = python(train_script, "--config-dir", "lab", "--help").stdout
    assert re.search(r"char_lm: .*\bmine\b", shown)
    assert re.search(r"others: .*\bother\b", shown)


def test_what_would_run_is_shown(folder: Path, python: Callable[..., Any], train_script: str) -> None:
    shown = python(train_script, "--cfg", "job", "experiment=translation/multi30k_de_en")

    assert shown.returncode == 0, shown.stderr
    assert "  source: de\n  target: en" in shown.stdout
    without = python(train_script, "--cfg", "job", "experiment=translation/multi30k_de_en", "scheduler=none")
    assert "warmup" in shown.stdout
    assert "warmup" not in without.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("choice", ["trainer=gpu", "trainer.accelerator=cuda"])
def test_a_gpu_that_is_not_there_is_answered_by_what_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, choice: str
) -> None:
    assert stopped("train", f"{TEXT} {choice}", monkeypatch) == 2

    said = capsys.readouterr().err
    assert "torch finds no GPU" in said
    assert "trainer=cpu" in said
    assert len(said.strip().splitlines()) == 1
