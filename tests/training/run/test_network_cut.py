"""Two network namespaces as two nodes: torchrun connects them, one is cut off and comes back, and the run goes on."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.2)
"""
LAST = "outputs/char_lm/torchrun/cut-*/checkpoints/last.ckpt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.distributed,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="network namespaces need Debian's package iproute2"),
]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Two namespaces with the addresses 10.77.0.1 and 10.77.0.2, connected by a cable."""
    names = [f"unrolled-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def steps(folder: Path) -> int:
    found = list(folder.glob(LAST))
    return torch.load(found[0], weights_only=True)["global_step"] if found else 0


def wait_for(condition: Callable[[], bool], processes: "list[subprocess.Popen[str]]") -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.5)


def test_a_node_that_is_cut_off_comes_back_and_the_run_goes_on(
    folder: Path, nodes: list[str], small: list[str], train_script: str
) -> None:
    (folder / "slow.py").write_text(SLOW)
    (folder / "conf" / "experiment").mkdir(parents=True)
    slow = "# @package _global_\ncallbacks: {slow: {_target_: slow.Slow}}\n"
    (folder / "conf" / "experiment" / "slow.yaml").write_text(slow)
    command = [train_script, "--config-dir", "conf", *small, "experiment=slow", "trainer=ddp", "trainer.devices=1"]
    command += ["trainer.num_nodes=2", "trainer.accelerator=cpu", "data.batch_size=2", "trainer.max_epochs=1000"]
    command += ["test=false", "logger=none", "callbacks.curves=null", "callbacks.samples=null", "timeout=15"]
    command += ["callbacks.last.minutes=0", "trainer.max_steps=100", "+trainer.limit_val_batches=1"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tasks"), str(folder)])
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment["GLOO_SOCKET_IFNAME"] = "cable"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-id=cut", "--rdzv-endpoint=10.77.0.1:29400"]
    own = [
        [*torchrun, f"--local-addr=10.77.0.{number}", f"--rdzv-conf=is_host={2 - number},join_timeout=300"]
        for number in (1, 2)
    ]

    processes: list[subprocess.Popen[str]] = []
    try:
        for name, start in zip(nodes, own, strict=True):
            processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *start, *command],
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
            )
        wait_for(lambda: steps(folder) >= 5, processes)
        ip("-n", nodes[1], "link", "set", "cable", "down")
        time.sleep(25)  # longer than the timeout
        cut_at = steps(folder)
        ip("-n", nodes[1], "link", "set", "cable", "up")
        said = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)

    assert [process.returncode for process in processes] == [0, 0], said
    assert "did not answer" in said[0]
    assert "resumed" in said[0] or cut_at > 0
    assert steps(folder) == 100
    assert len(list(folder.glob("outputs/*/*/*"))) == 1
