"""CMUdict with an attentive LSTM of Yoyodyne, which lives in an environment of its own.

    python -m venv yoyodyne && yoyodyne/bin/pip install yoyodyne
    python benchmarks/pronunciation_peers.py --python yoyodyne/bin/python --minutes 8

Words, split, sizes, batch, dropout and clipping are those of experiment=translation/cmudict. Training ends after so
many minutes of processor time, on one thread; the weights of the epoch with the greatest validation accuracy are scored
with greedy search, beside the nearest of each word's pronunciations.
"""

import argparse
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from unrolled.training.run import compose
from unrolled.training.run.assembly import assemble
from unrolled.training.tasks.seq2seq import GeneratedText
from unrolled_tasks.translation.scores import word_scores
from unrolled_tasks.translation.sources import Pair

MODELS = {"soft": {"class_path": "yoyodyne.models.SoftAttentionLSTMModel", "init_args": {}}}
MODELS["hard"] = {"class_path": "yoyodyne.models.HardAttentionLSTMModel", "init_args": {"enforce_monotonic": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--attention", choices=MODELS, default="soft")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--words", type=int, help="read so many words of each split alone")
    options = parser.parse_args()
    program = options.python.absolute().parent / "yoyodyne"
    with TemporaryDirectory() as name:
        folder = Path(name)
        test = write_words(folder, options.words)
        config = configuration(options.attention)
        (folder / "config.yaml").write_text(json.dumps(config))
        minutes = run([str(program), "fit", "--config", "config.yaml"], folder, options.minutes)
        checkpoint = str(next(folder.glob("checkpoints/*.ckpt")))
        run([str(program), "predict", "--config", "config.yaml", "--ckpt_path", checkpoint], folder, 60.0)
        texts = [line.split("\t")[-1] for line in (folder / "predicted.tsv").read_text().splitlines()]
    rows = [GeneratedText(place, *each, kind="") for place, each in enumerate(scored(test, texts))]
    scores = word_scores(rows, "phonemes")
    print("| model | phoneme error rate | word error rate | words | minutes of training |\n|---|---|---|---|---|")
    numbers = f"{scores['phoneme_error_rate']:.2f} | {scores['word_error_rate']:.2f}"
    print(f"| Yoyodyne, {options.attention} attention | {numbers} | {len(rows):,} | {minutes:.1f} |")


def write_words(folder: Path, limit: int | None) -> list[Pair]:
    """Writes each split as Yoyodyne reads it, and returns the pairs of the test."""
    given = ["threads=1", "trainer=cpu", f"run_dir={folder}"]
    data = assemble(compose("experiment=translation/cmudict", *given)).data
    stored = data._store_pairs(folder)  # type: ignore[attr-defined]  # the texts; batches have them as tokens alone
    splits = {split: list(pairs)[:limit] for split, pairs in stored.items()}
    for split, pairs in splits.items():
        (folder / f"{split}.tsv").write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs))
    return splits["test"]


def configuration(attention: str) -> dict[str, object]:
    encoder = {"embedding_size": 64, "hidden_size": 128, "layers": 1, "bidirectional": True, "dropout": 0.1}
    model: dict[str, object] = {
        "embedding_size": 64,
        "optimizer": {"class_path": "yoyodyne.optimizers.Adam", "init_args": {"lr": 0.003}},
        "decoder_hidden_size": 128,
        "decoder_dropout": 0.1,
        "label_smoothing": 0.1,
        "source_encoder": {"class_path": "yoyodyne.models.modules.LSTMEncoder", "init_args": encoder},
        **MODELS[attention]["init_args"],
    }
    files = {"train": "train.tsv", "val": "validation.tsv", "test": "test.tsv", "predict": "test.tsv"}
    columns = {"source_col": 1, "target_col": 2, "target_sep": " "}
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "gradient_clip_val": 1.0, "logger": False}
    return {
        "seed_everything": 1,
        "trainer": {**trainer, "max_epochs": 1000},
        "model": {"class_path": MODELS[attention]["class_path"], "init_args": model},
        "data": {"model_dir": ".", **files, **columns, "batch_size": 256},
        "checkpoint": {"filename": "best", "monitor": "val_accuracy", "mode": "max"},
        "prediction": {"path": "predicted.tsv"},
    }


def run(command: list[str], folder: Path, minutes: float) -> float:
    """Runs a command for so many minutes of processor time, on one thread, and returns how many it took."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        used, stopped = 0.0, False
        while process.poll() is None:
            used = processor_seconds(process.pid) / 60
            if used > minutes and not stopped:
                process.send_signal(signal.SIGTERM)
                stopped = True
            time.sleep(0.5)
    if process.returncode and not stopped:
        raise SystemExit((folder / "log").read_text()[-2000:])
    return used


def processor_seconds(process: int) -> float:
    """Returns the user time of a process, as Linux counts it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def scored(pairs: list[Pair], texts: list[str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns each word, its text and its pronunciations."""
    return [(pair.source, text, (pair.target, *pair.others)) for pair, text in zip(pairs, texts, strict=True)]


if __name__ == "__main__":
    main()
