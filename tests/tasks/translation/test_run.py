"""Translation from the command line to a text: learned, searched, resumed, shared between processes."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import load_bundle
from unrolled.checkpoint import FORMAT
from unrolled.deployment import Search, alternatives, translate
from unrolled.deployment.chunks import pieces
from unrolled.training.run.runner import run, score
from unrolled_tasks.translation.lengths import read_lengths

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]

TINY = [
    "task=translation",
    "data=pairs",
    "data.files=pairs.jsonl",
    "data.unit=character",
    "data.split_fractions=[0.8,0.1,0.1]",
    "data.batch_tokens=120",
    "model=gru",
    "model.hidden_size=24",
    "model.num_layers=1",
    "model.dropout=0",
    "network.encoder.embedding.size=12",
    "decoder.embedding.size=12",
    "attention=multiplicative",
    "optimizer.lr=1e-2",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
]
MONOTONIC = ["attention=hard_monotonic"]
STILL = ["network.encoder.input_dropout=0", "decoder.input_dropout=0", "decoder.output_dropout=0"]


@pytest.fixture
def pairs(folder: Path) -> Path:
    """Words and the same words backwards: the order has to be learned, and attention can."""
    words = ["".join(chr(97 + (n * k) % 5) for k in range(1, 2 + n % 4)) for n in range(1, 40)]
    rows = [{"en": word, "de": word[::-1]} for word in dict.fromkeys(words)]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows * 4))
    return folder


@pytest.fixture
def trained(pairs: Path, configure: Configure) -> Path:
    run(configure("run", *TINY, "callbacks.alignments.count=2", small=False))
    return pairs / "run" / "checkpoints" / "best.ckpt"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("model", ["elman", "gru", "lstm"])
@pytest.mark.parametrize(
    "attention", ["none", "additive", "multiplicative", "dot", "location", "hard", "hard_monotonic"]
)
def test_every_cell_and_attention_trains(pairs: Path, configure: Configure, model: str, attention: str) -> None:
    sizes = ["model.hidden_size=12", "network.encoder.hidden_size=6"] if attention == "dot" else []
    options = [f"model={model}", f"attention={attention}", "trainer.max_steps=3", "+trainer.limit_val_batches=1"]

    numbers = run(configure("run", *TINY, *options, *sizes, small=False))

    assert numbers["test/loss"] < 4
    assert (pairs / "run" / "alignments").exists() == (attention != "none")


@pytest.mark.parametrize("decoder", ["show_attend_tell", "up_down", "show_tell"])
def test_every_decoder_translates(pairs: Path, configure: Configure, decoder: str) -> None:
    options = [f"decoder={decoder}", "model.hidden_size=12", "trainer.max_steps=3", "trainer.limit_val_batches=1"]

    numbers = run(configure("run", *TINY, *options, small=False))

    assert numbers["test/loss"] < 4
    assert (pairs / "run" / "alignments").exists() == (decoder != "show_tell")
    bundle = load_bundle(pairs / "run" / "checkpoints" / "last.ckpt")
    assert len(list(translate(bundle, ["abc", "cab"]))) == 2


def test_the_announcement_says_what_runs_each_core(pairs: Path, configure: Configure, capsys: Any) -> None:
    run(configure("run", *TINY, "trainer.max_steps=1", "test=false", small=False))

    said = capsys.readouterr().out
    assert "encoder: 1 × " in said
    assert "decoder: 1 × step by step: input feeding" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["attention=none", "task.coverage=0.5"], "has none"),
        (["attention=none", "task.search.coverage_penalty=0.5"], "has none"),
        (["decoder=show_tell", "model.hidden_size=12", "task.coverage=0.5"], "choose decoder=attentive"),
        (["decoder=show_tell", "decoder.tied=true"], "embedding.size equal to"),
        (["decoder=up_down", "decoder.input_feeding=false"], "input_feeding=False"),
        (["task.search.n_best=9"], "n_best=9"),
        (["task.search.temperature=-1"], "temperature=-1"),
        (["task.label_smoothing=1"], "label_smoothing is 1"),
        (["attention=dot"], "MultiplicativeAttention supports any sizes"),
        ([*MONOTONIC, "decoder.input_feeding=true"], "leave out input_feeding=True"),
        ([*MONOTONIC, "decoder=up_down"], "leave out wiring"),
        ([*MONOTONIC, "data.joint=true", "decoder.copy=true"], "copy=True needs soft attention"),
        (["data.files=none.jsonl"], "no file or folder none.jsonl"),
    ],
)
def test_what_cannot_end_well_does_not_begin(
    pairs: Path, configure: Configure, options: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(configure("run", *TINY, *options, small=False))
    assert not (pairs / "run").exists()


def test_it_learns_to_write_backwards(pairs: Path, configure: Configure) -> None:
    more = [
        "data.test_files=pairs.jsonl",
        "trainer.max_epochs=60",
        "callbacks.samples=null",
        "callbacks.alignments=null",
    ]
    numbers = run(configure("run", *TINY, *STILL, *more, small=False))

    assert numbers["test/exact"] > 90
    assert numbers["test/perplexity"] < 1.5


def test_copying_coverage_word_dropout_and_own_inputs_go_together(pairs: Path, configure: Configure) -> None:
    options = [
        "data.joint=true",
        "network.shared_embedding=true",
        "decoder.copy=true",
        "attention=additive",
        "attention.coverage=true",
        "task.coverage=0.5",
        "task.scheduled_sampling=0.4",
        "network.encoder.token_dropout=0.1",
        "decoder.token_dropout=0.1",
    ]

    numbers = run(configure("run", *TINY, *options, small=False))

    assert numbers["test/loss"] < 4


def test_a_run_leaves_scores_texts_and_pictures(trained: Path, capsys: Any) -> None:
    folder = trained.parents[1]
    summary = json.loads((folder / "summary.json").read_text())

    assert "tok:13a" in summary["signature bleu"]
    assert "case:lc" in summary["signature bleu_lowercase"]
    assert sorted(path.name for path in (folder / "alignments").iterdir()) == ["1.png", "2.png"]
    assert len((folder / "written.txt").read_text().splitlines()) > 3
    assert "| chrF | source | reference | generated |" in (folder / "translations.md").read_text()
    assert "reference" in (folder / "samples.md").read_text()
    assert [name for name, *_ in read_lengths(folder)] == ["1–5"]
    assert (folder / "lengths.png").is_file()
    assert torch.load(trained, weights_only=True)["unrolled"]["format"] == FORMAT


@pytest.mark.parametrize(
    "monitor",
    [["monitor.metric=validation/bleu"], ["monitor.metric=validation/perplexity", "monitor.mode=min"]],
    ids=["bleu", "perplexity"],
)
def test_a_run_ends_early_by_the_score_that_is_asked_for(pairs: Path, configure: Configure, monitor: list[str]) -> None:
    still = ["optimizer.lr=1e-30", "optimizer.weight_decay=0", "callbacks.alignments=null", "callbacks.samples=null"]
    patient = ["callbacks/early_stopping=patience", "callbacks.early_stopping.patience=2", "trainer.max_epochs=9"]

    run(configure("run", *TINY, *STILL, *still, *patient, *monitor, "test=false", small=False))

    last = torch.load(pairs / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2  # the first, and two that brought nothing


def test_another_data_set_is_scored_without_training(trained: Path, pairs: Path, configure: Configure) -> None:
    asked = ["task=translation", "data=pairs", "data.files=pairs.jsonl", "split=train", "trainer=cpu"]
    numbers = score(configure("score", f"checkpoint={trained}", *asked, name="evaluate", small=False))

    assert 0 <= numbers["test/bleu"] <= 100
    whole = configure(
        "whole", f"checkpoint={trained}", *asked[:3], "data.split_fractions=[0,0,1]", name="evaluate", small=False
    )
    score(whole)
    assert len((pairs / "whole" / "written.txt").read_text().splitlines()) == 80  # all of them


@pytest.mark.parametrize(
    ("steps", "attention"),  # 3 steps an epoch; the 5th is validated, the 4th is not
    [(4, []), (5, MONOTONIC)],
)
def test_resuming_within_an_epoch_loses_no_batch(
    pairs: Path, configure: Configure, steps: int, attention: list[str]
) -> None:
    common = [*TINY, *attention, "trainer.max_epochs=3", "trainer.val_check_interval=2", "test=false"]
    run(configure("whole", *common, "scheduler=none", small=False))
    run(configure("begun", *common, "scheduler=none", f"trainer.max_steps={steps}", small=False))
    checkpoint = pairs / "begun" / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    place = content["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert (content["global_step"], place) == (steps, {"epoch": 1, "position": steps - 3})

    run(configure("resumed", *common, "scheduler=none", f"resume={checkpoint}", small=False))

    expected = weights(pairs / "whole" / "checkpoints" / "last.ckpt")
    for name, value in weights(pairs / "resumed" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("attention", [[], pytest.param(MONOTONIC, marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_their_joint_batch(
    pairs: Path, python: Process, train_script: str, attention: list[str]
) -> None:
    common = [
        *TINY,
        *STILL,
        *attention,
        "trainer.max_steps=4",
        "trainer.accelerator=cpu",
        "callbacks/gradient_clip=norm",
    ]
    one = python(train_script, *common, "data.batch_tokens=240", "hydra.run.dir=one")
    two = python(train_script, *common, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two")

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    expected = weights(pairs / "one" / "checkpoints" / "last.ckpt")
    for name, value in weights(pairs / "two" / "checkpoints" / "last.ckpt").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    scores = [json.loads((pairs / run / "summary.json").read_text())["test/bleu"] for run in ("one", "two")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert (pairs / "one" / "written.txt").read_text() == (pairs / "two" / "written.txt").read_text()


def test_lines_are_translated_in_order_and_none_is_lost(trained: Path, pairs: Path, python: Process) -> None:
    lines = ["ab", "", "abc " * 200, "  ", "b", *["abcd"] * 30]
    (pairs / "in.txt").write_text("".join(f"{line}\n" for line in lines))
    bundle = load_bundle(trained)

    written = list(translate(bundle, lines, ahead=7, batch_tokens=50))

    assert len(written) == len(lines)
    assert written[1] == written[3] == ""
    assert written == [next(translate(bundle, [line])) for line in lines]
    assert list(translate([bundle, bundle], lines[:3])) == written[:3]
    done = python("-m", "unrolled", "translate", str(trained), stdin=(pairs / "in.txt").read_text())
    assert done.stdout.split("\n")[:-1] == written
    best = python("-m", "unrolled", "translate", str(trained), "--n-best", "2", stdin="ab\n\n").stdout
    assert [line.split("\t")[0] for line in best.splitlines()] == ["1", "1", "2"]


def test_a_long_line_is_translated_in_pieces_and_short_ones_do_not_wait(trained: Path, python: Process) -> None:
    bundle = load_bundle(trained)
    sentences = ["ab cd.", "abcd abcd!", "d c b a?"] * 100
    long = " ".join(sentences)
    most = max(len(bundle.processor.source.encode(sentence)) for sentence in sentences)
    said: list[str] = []
    told: list[tuple[int, int]] = []

    found = list(
        translate(bundle, ["ab", long, "cd"], max_length=most, notice=said.append, progress=lambda *n: told.append(n))
    )

    cut = pieces(long, bundle.processor.source.encode, most)
    assert found == [
        *translate(bundle, ["ab"]),
        " ".join(translate(bundle, [bundle.processor.source.decode(piece.ids) for piece in cut])),
        *translate(bundle, ["cd"]),
    ]
    assert len(cut) > 100
    tokens = sum(len(piece.ids) for piece in cut)
    why = f"line 2 has {tokens:,} {bundle.processor.source.unit}s, more than max_length={most}"
    assert said == [f"{why}: it is translated in {len(cut)} pieces"]
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    rows = next(alternatives(bundle, [long], options=Search(n_best=2), max_length=most))
    assert rows[0].text == found[1]
    assert rows[0].log_probability >= rows[1].log_probability
    done = python("-m", "unrolled", "translate", str(trained), "--max-length", str(most), stdin=f"ab\n{long}\ncd\n")
    assert done.stdout.split("\n")[:-1] == found
    assert done.stderr == f"unrolled translate: {said[0]}\n"


def test_a_wrong_command_says_what_is_wrong(trained: Path, pairs: Path, python: Process) -> None:
    for arguments, message in (
        (["translate", "nothing.ckpt"], "no such file"),
        (["translate", str(trained), "--num-beams", "0"], "num_beams=0"),
        (["translate", str(trained), "--max-length", "0"], "max_length=0"),
        (["translate", str(trained), "--device", "abacus"], "--device abacus"),
        (["sample", str(trained)], "sampling needs a decoder"),
    ):
        done = python("-m", "unrolled", *arguments, stdin="ab\n")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_alternatives_are_ordered_and_bad_options_refused(trained: Path) -> None:
    bundle = load_bundle(trained)

    (rows,) = alternatives(bundle, ["abcd"], options=Search(n_best=3))

    assert len({row.text for row in rows}) == len(rows) == 3
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    with pytest.raises(ValueError, match=r"line 3: no token is allowed; lower .* no_repeat_ngram_size"):
        list(translate(bundle, ["a", "", "abcd" * 9], options=Search(no_repeat_ngram_size=1, min_ratio=1.0)))
    with pytest.raises(ValueError, match="min_ratio=9"):
        list(translate(bundle, ["a"], options=Search(min_ratio=9)))
    with pytest.raises(ValueError, match="no checkpoint"):
        list(translate([], ["a"]))
