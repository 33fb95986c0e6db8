"""A real sweep whose jobs count steps instead of training, for test_sweeps: python light_sweep.py -m optimizer.lr=1,2

A job writes checkpoints/last.ckpt after each of its steps, resumes from it, and ends after a step if it got a signal.
Its score is a function of its learning rate; it fails where that is above 1 and refuses to run where it is below 0.
`seed=N` has N steps of 20 milliseconds. With a pruner it reports its learning rate as a score after each step.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from unrolled import durable
from unrolled.training.run import command
from unrolled.training.run.records import FAILED, WRONG_INPUT, begin_job, job_failed, job_succeeded
from unrolled.training.run.study import StudyOfSweep, trial_of_job


def run_job(arguments: list[str]) -> None:
    begin_job()
    text = " ".join(arguments)
    folder = Path(re.findall(r"hydra\.run\.dir='?([^' ]+)", text)[-1])
    rate, steps = (float(re.findall(rf"{key}=(\S+)", text)[-1]) for key in (r"optimizer\.lr", "seed"))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    resumed = any(argument == "resume=auto" for argument in arguments)
    if resumed != checkpoint.is_file():
        sys.exit(f"{folder}: resume={resumed}, and there is {'a' if checkpoint.is_file() else 'no'} checkpoint")
    begun = json.loads(checkpoint.read_text()) if resumed else {"step": 0, "starts": 0}
    begun["starts"] += 1
    if rate < 0:
        job_failed("a learning rate below 0", WRONG_INPUT)
        sys.exit(WRONG_INPUT)
    (folder / "rubbish").parent.mkdir(parents=True, exist_ok=True)
    (folder / "rubbish").write_text("x")  # before there is a checkpoint
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: received.append(number))
    record = Path(os.environ["UNROLLED_JOB"])
    found = StudyOfSweep.read(record.parent)
    trial = trial_of_job(record) if found and found.pruner else None
    pruned = False
    while begun["step"] < steps and not pruned:
        time.sleep(0.02)
        begun["step"] += 1
        write(checkpoint, begun)
        if received:
            sys.exit(128 + received[0])
        if trial is not None:
            trial.report(rate, begun["step"])
            pruned = bool(trial.should_prune())
    if rate > 1:
        job_failed("a learning rate above 1", FAILED)
        sys.exit(FAILED)
    write(
        folder / "summary.json",
        {"best_validation": (rate - 0.3) ** 2, "next": [f"continue {folder}"], "pruned": pruned},
    )
    job_succeeded({"test/loss": rate / 3}, folder, {"metric": "validation/loss", "mode": "min"})


def write(path: Path, content: dict[str, Any]) -> None:
    durable.replace(path, lambda partial: partial.write_text(json.dumps(content)))


if __name__ == "__main__":
    if sys.argv[1] == "job":
        with open(f"{os.environ['UNROLLED_JOB']}.starts", "a") as file:  # noqa: PTH123
            file.write("x")
        run_job(sys.argv[2:])
    else:
        command._program = lambda name, arguments: [sys.executable, str(Path(__file__).resolve()), "job"]
        command.train()
