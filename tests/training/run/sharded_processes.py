"""Runs of two processes for test_sharded: torchrun --nproc-per-node 2 sharded_processes.py FOLDER CASE …"""

import os
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from unrolled.checkpoint import KEY
from unrolled.training.configuration.overrides import config_folder, forced
from unrolled.training.run import runner
from unrolled.training.run.resuming import find_checkpoint

COMMON = [
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.precision=64-true",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.num_sanity_val_steps=0",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.samples=null",
    "callbacks.curves=null",
    "logger=none",
    "test=false",
    "optimizer.lr=0.01",
    "scheduler=none",
]
CASES = {
    # layers of one stack, accumulation, a limit that every step reaches
    "char_lm": [
        *("task=char_lm", "data=text", "data.files=rhyme.txt", "data.batch_size=4", "data.window=16"),
        *("data.random_windows.length=16", "data.random_windows.count=8", "data.random_windows.batch_size=4"),
        *("model.hidden_size=11", "model.num_layers=2", "network.embedding.size=6", "network.output_dropout=0.2"),
        *("trainer.accumulate_grad_batches=2", "callbacks.gradient_clip.norm=0.01", "callbacks.last.minutes=0"),
    ],
    # tied weights, attention with input feeding, a limit from the norms so far
    "translation": [
        *("task=translation", "data.phrases=400", "data.batch_tokens=200", "model=gru", "model.hidden_size=10"),
        *("model.num_layers=2", "decoder.tied=true", "callbacks/gradient_clip=percentile"),
        "+callbacks.gradient_clip.min_history=1",
    ],
    # a limit on each entry, with more processes than entries in some shards
    "classification": [
        *("task=classification", "data.batch_size=8", "model.hidden_size=9", "model.num_layers=1"),
        *("+model.learned_initial_state=true", "callbacks/gradient_clip=value", "callbacks.gradient_clip.value=1e-3"),
    ],
    "captioning": [
        *("task=captioning", "data.glyphs=1", "data.batch_tokens=200", "model.hidden_size=10"),
        *("callbacks/gradient_clip=groups", "callbacks.gradient_clip.norm=0.1"),
    ],
    "tagging": ["task=tagging", "data.batch_size=8", "model.hidden_size=10", "callbacks/gradient_clip=measure"],
    "scheduled_sampling": [
        *("task=translation", "data.phrases=400", "data.batch_tokens=200", "model.hidden_size=10"),
        "+task.scheduled_sampling=0.9",
    ],
    "carried": [
        *("task=char_lm", "data=text", "data.files=rhyme.txt", "data.batch_size=4", "data.window=16"),
        *("data.random_windows.length=16", "data.random_windows.count=8", "data.random_windows.batch_size=4"),
        *("model=mogrifier_lstm", "model.hidden_size=6", "data.stride=8", "optimizer=rmsprop"),
    ],
}
RESUMED = [
    ("fsdp", "resumed", "half"),
    ("fsdp", "resumed-within", "half/checkpoints/best.ckpt"),
    ("ddp", "unsharded", "half"),
]


def configuration(options: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", list(map(forced, [*COMMON, *options])))


def run(config: DictConfig) -> None:
    """A run without the exchange of its configuration, which processes do once."""
    folder = Path(config.run_dir)
    folder.mkdir(exist_ok=True)
    if config.resume:
        config.resume = str(find_checkpoint(config.resume, folder))
    start = runner._load_checkpoint(config)
    parts = runner.assemble(config, processor=start[KEY]["processor"] if start else None)
    runner._train(config, parts, start)


def main(folder: Path, cases: list[str]) -> None:
    os.chdir(folder)
    for case in cases:
        for strategy in ("fsdp", "ddp"):
            run(configuration([f"trainer={strategy}", *CASES[case], f"run_dir={case}-{strategy}"]))
        if case == "char_lm":
            half = ["trainer.max_steps=2", "trainer.val_check_interval=3", "trainer.limit_val_batches=1"]
            run(configuration(["trainer=fsdp", *CASES[case], *half, "run_dir=half"]))
            for strategy, name, path in RESUMED:
                run(configuration([f"trainer={strategy}", *CASES[case], f"run_dir={name}", f"resume={path}"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
