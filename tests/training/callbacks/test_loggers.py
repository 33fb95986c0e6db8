"""Where numbers go: a file with the time of each row, and services that work before anything is computed."""

import csv
import json
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import DictConfig

from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]


def test_each_row_of_metrics_has_its_time(folder: Path, configure: Configure) -> None:
    run(configure("run", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"))

    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    assert len(seconds) > 20
    assert seconds == sorted(seconds)
    trained = json.loads((folder / "run" / "summary.json").read_text())["seconds"]
    spent = seconds[-1] - seconds[0]
    assert 0.5 * trained <= spent <= trained + 5.0


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_service_names_the_package_that_it_needs(
    folder: Path, python: Process, small: list[str], train_script: str, package: str
) -> None:
    if find_spec(package) is not None:
        pytest.skip("it is installed")
    done = python(train_script, *small, f"logger={package}")

    assert done.returncode == 2
    assert f"pip install {package}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_service_writes_into_the_runs_folder(
    folder: Path, configure: Configure, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = set(folder.rglob("*"))
    run(configure("run", f"logger={package}", "trainer.max_steps=2", "trainer.log_every_n_steps=1", "test=false"))

    assert (folder / "run" / "metrics.csv").is_file()
    assert {path.relative_to(folder).parts[0] for path in set(folder.rglob("*")) - before} == {"run", "cache"}


def test_what_a_service_refuses_is_one_line_before_anything_is_computed(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cloudlab.py").write_text(
        "from lightning.pytorch.loggers.logger import DummyLogger\n\n"
        "class CloudLogger(DummyLogger):\n"
        "    @property\n"
        "    def experiment(self):\n"
        "        raise RuntimeError('no key for the cloud')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    config = configure("run", "logger=none", "+logger.cloud={_target_: cloudlab.CloudLogger}", "data.files=missing.txt")

    with pytest.raises(ConfigurationError, match="logger=cloud: no key for the cloud"):
        run(config)
