"""A run that is killed at any place, and started again with resume=auto, ends as one that was never killed."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from unrolled.training.configuration.overrides import config_folder

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("killed_runs.py")
SEED = int(os.environ.get("UNROLLED_SEED", "0"))  # of the places; other seeds look for more

Attempts = Callable[[list[dict[str, Any]]], dict[str, list[tuple[int, int]]]]
Unequal = Callable[..., list[str]]

# The function that kills, and the greatest number of times that it is reached before.
PLACES = {"accumulation": 3, "step": 3, "validation": 3, "save": 2, "saved": 2, "epoch": 1}
TASKS = sorted(path.stem for path in Path(config_folder(), "task").glob("*.yaml"))
GENERATED = ["data.train_size=40", "data.validation_size=8", "data.test_size=0", "data.batch_size=4"]
FRAMES = ["data.batch_size=8", "encoder.frame.hidden_size=4"]
SMALL = {
    "captioning": ["data.glyphs=1", "data.batch_tokens=128", "callbacks.alignments=null"],
    "char_lm": [
        "data=text",
        "data.files=rhyme.txt",
        "data.batch_size=4",
        "data.window=16",
        "data.validation_streams=2",
        "data.random_windows=null",
        "network.embedding.size=4",
    ],
    "classification": FRAMES,
    "music": ["data.chorales=60", "data.batch_size=4", "network.hidden_size=4", "callbacks.pictures=null"],
    "handwriting": [
        "data.hershey=64",
        "data.batch_size=8",
        "networks.synthesis.decoder.hidden_size=4",
        "head.num_components=2",
        "callbacks.pictures=null",
    ],
    "draw": ["data.batch_size=4", "network.num_glimpses=2", "network.hidden_size=4", "network.latent_size=2"],
    "forecasting": [
        "data.batch_size=8",
        "data.context=10",
        "data.horizon=3",
        "data.stride=10",
        "data.scoring_stride=20",
    ],
    "regression": FRAMES,
    "tagging": ["data.dates=100", "data.batch_size=8", "embedding.spelled.size=4", "network.encoder.hidden_size=4"],
    "transcription": [
        "data.drawn.train_size=100",
        "data.drawn.validation_size=8",
        "data.drawn.test_size=1",
        "data.batch_size=8",
        "network.encoder.hidden_size=4",
        "callbacks.pictures=null",
    ],
    "translation": ["data.phrases=200", "data.batch_tokens=128", "network.encoder.embedding.size=4"],
}
TINY = [
    "model.hidden_size=4",
    "model.num_layers=1",
    "model.backend=loop",  # nothing to compile
    "trainer.max_epochs=3",
    "trainer.val_check_interval=2",  # in the midst of an accumulation, too
    "++trainer.limit_train_batches=5",
    "++trainer.limit_val_batches=2",
    "++trainer.num_sanity_val_steps=0",
    "callbacks.last.minutes=0",  # after each step
    "callbacks.samples=null",
    "callbacks.curves=null",
    "callbacks.throughput=null",  # counts seconds
    "callbacks.progress=null",
    "+trainer.enable_progress_bar=false",
    "logger=none",
    "test=false",
    "threads=1",
]


class Case(NamedTuple):
    task: str
    ranks: int
    accumulate: int
    precision: str

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def options(self, *others: str) -> list[str]:
        chosen = [f"task={self.task}", f"trainer.accumulate_grad_batches={self.accumulate}"]
        chosen += [f"trainer.precision={self.precision}", "callbacks/averaging=ema", "callbacks.averaging.decay=0.8"]
        return [*chosen, *SMALL.get(self.task, GENERATED), *TINY, *others]


KINDS = list(itertools.product((1, 2), (1, 3), ("32-true", "bf16-mixed", "64-true")))
CASES = [Case(task, *kind) for task in TASKS for kind in KINDS]
# Each task once, and of the others every pair: six kinds suffice for that.
PAIRS = [KINDS[k] for k in (0, 4, 11, 7, 9, 2)]
QUICK = ("char_lm", "counting", "tagging")  # the others take minutes each
CHOSEN = [Case(task, *PAIRS[number % len(PAIRS)]) for number, task in enumerate(TASKS)]


def marks(case: Case) -> list[pytest.MarkDecorator]:
    """What the plain suite leaves out."""
    return [] if case.task in QUICK else [pytest.mark.slow]


def killed_rank(place: str, case: Case, draw: random.Random) -> int:
    """The process that is killed; rank 0 alone writes files."""
    return 0 if place in ("save", "saved") else draw.randrange(case.ranks)


@pytest.fixture
def attempts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    """Runs jobs, see `killed_runs`, and returns by name, in order: the step they begin after, and their status."""
    cache = tmp_path_factory.getbasetemp() / "killed_runs"  # of the data, for all cases

    def run(jobs: list[dict[str, Any]]) -> dict[str, list[tuple[int, int]]]:
        (folder / "jobs.json").write_text(json.dumps(jobs))
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks")])
        done = subprocess.run(
            [sys.executable, str(WORKER), str(folder), str(folder / "jobs.json")],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "UNROLLED_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, list[tuple[int, int]]] = {}
        for name, step, ended in map(json.loads, done.stdout.splitlines()):
            # A process may notice the death of another one before it is ended itself.
            logs = "\n".join(path.read_text()[-3000:] for path in folder.glob(f"{name}-*.log"))
            assert -9 in ended or not any(ended), logs
            found.setdefault(name, []).append((step, min(ended)))
        return found

    return run


def test_the_chosen_cases_have_every_pair_of_options_and_each_task() -> None:
    assert {case.task for case in CHOSEN} == set(TASKS)
    for one, other in itertools.combinations(range(3), 2):
        assert {(kind[one], kind[other]) for kind in PAIRS} == {(kind[one], kind[other]) for kind in KINDS}
    assert len(TASKS) >= len(PAIRS)


@pytest.mark.distributed
@pytest.mark.parametrize("case", [pytest.param(each, id=str(each), marks=marks(each)) for each in CHOSEN])
def test_a_run_that_is_killed_again_and_again(folder: Path, attempts: Attempts, unequal: Unequal, case: Case) -> None:
    draw = random.Random(f"{SEED} {case}")
    kills = [[place, draw.randint(1, most), killed_rank(place, case, draw)] for place, most in PLACES.items()]
    print(f"UNROLLED_SEED={SEED}: {kills}")
    run = {"overrides": case.options("resume=auto"), "ranks": case.ranks}
    jobs = [{**run, "name": "whole"}, *({**run, "name": "killed", "kill": kill} for kill in kills)]
    found = attempts([*jobs, {**run, "name": "killed"}])

    assert found["whole"] == [(0, 0)]
    ended = [status for _, status in found["killed"]]
    assert ended.count(-9) >= 3  # the run may have ended before the last ones
    assert ended[-1] == 0
    last, step = folder / "killed" / "checkpoints" / "last.ckpt", found["killed"][-1][0]
    assert unequal(folder / "whole", folder / "killed", last, step) == []


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_that_is_killed_once_at_each_place(
    folder: Path, attempts: Attempts, unequal: Unequal, case: Case
) -> None:
    draw = random.Random(f"{SEED} {case}")
    run = {"overrides": case.options("resume=auto"), "ranks": case.ranks}
    jobs: list[dict[str, Any]] = [{**run, "name": "whole"}]
    for place, most in PLACES.items():
        kill = [place, draw.randint(1, 2 * most), killed_rank(place, case, draw)]
        print(f"UNROLLED_SEED={SEED}: {kill}")
        jobs += [{**run, "name": place, "kill": kill}, {**run, "name": place}]
    found = attempts(jobs)

    for place in PLACES:
        (_, killed), (step, ended) = found[place]
        assert (killed, ended) == (-9, 0)
        last = folder / place / "checkpoints" / "last.ckpt"
        assert unequal(folder / "whole", folder / place, last, step) == [], place


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("task", "accumulate", "place"), [("char_lm", 1, "step"), ("char_lm", 3, "validation"), ("grammar", 3, "save")]
)
@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)], ids=["fewer", "more"])
def test_another_number_of_processes_goes_on_with_the_same_batches(
    folder: Path, attempts: Attempts, task: str, accumulate: int, place: str, ranks: tuple[int, int]
) -> None:
    options = Case(task, 0, accumulate, "64-true").options(
        "resume=auto", "model.dropout=0", *(["network.output_dropout=0"] if task == "char_lm" else [])
    )
    one, other = ({"overrides": options, "ranks": number} for number in ranks)
    draw = random.Random(f"{SEED} {task} {ranks}")
    kills = [
        [place, draw.randint(3, 4) if place == "validation" else draw.randint(2, 3), 0],
        ["step", draw.randint(1, 2), 0],
    ]
    print(f"UNROLLED_SEED={SEED}: {kills}")
    jobs = [{**one, "name": "whole"}, {**one, "name": "other", "kill": kills[0]}]
    found = attempts([*jobs, {**other, "name": "other", "kill": kills[1]}, {**one, "name": "other"}])

    assert [status for _, status in found["other"]] == [-9, -9, 0]
    assert found["other"][1][0] > 0  # it went on
    whole, resumed = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "other")
    )
    assert resumed["global_step"] == whole["global_step"]
    assert resumed["unrolled"]["resume"]["loader"] == whole["unrolled"]["resume"]["loader"]
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], value, rtol=1e-9, atol=1e-11, msg=name)
    states = [each["unrolled"]["resume"]["processes"] for each in (whole, resumed)]
    for before, after in zip(*states, strict=True):
        for leaf, same in zip(before["carried"].get("train", []), after["carried"].get("train", []), strict=True):
            torch.testing.assert_close(same, leaf, rtol=1e-9, atol=1e-11)
