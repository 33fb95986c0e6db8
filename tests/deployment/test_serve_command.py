"""The command serve: its address, its end, and what is told before it begins."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled import CharacterTokenizer, PeepholeLSTMCell, Processor, Recurrent, build
from unrolled.backends import BACKENDS
from unrolled.backends.compiled.build import cache_folder
from unrolled.checkpoint import Bundle, save_tensors
from unrolled.deployment.command import main
from unrolled.deployment.serving.app import create_app
from unrolled.deployment.serving.server import is_loopback, listen

Make = Callable[[str], Bundle]


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9", "0.0.0.0", "x.org")] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    for host, port, told in (("127.0.0.1", 70_000, "expected 0 to 65535"), ("203.0.113.1", 0, "can't be used")):
        with pytest.raises(ValueError, match=told):
            listen(host, port)


NETWORK: dict[str, Any] = {
    "_target_": "unrolled.AutoregressiveDecoder",
    "embedding": {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 5, "size": 5},
    "core": {
        "_target_": "unrolled.Recurrent",
        "_partial_": True,
        "cell": {"_target_": "unrolled.GRUCell", "_partial_": True},
        "hidden_size": 6,
    },
    "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 5},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(tmp_path / "best.ckpt")


def saved(path: Path, cell: str = "GRUCell", scale: float = 1.0) -> Path:
    """Save a language model with some cell, whose initial weights are scaled."""
    network = {**NETWORK, "core": {**NETWORK["core"], "cell": {"_target_": f"unrolled.{cell}", "_partial_": True}}}
    processor = Processor(CharacterTokenizer("abc")).to_dict()
    described = {"format": 2, "network": network, "processor": processor, "info": {}}
    weights = {f"network.{name}": scale * value for name, value in build(network).state_dict().items()}
    save_tensors({"unrolled": described, "state_dict": weights}, path)
    return path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_the_command_prints_its_address_and_ends_quietly(checkpoint: Path, number: int, status: int) -> None:
    command = [sys.executable, "-m", "unrolled", "serve", str(checkpoint), "--port", "0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    address = started.stdout.readline().split()[0]
    port = int(address.rpartition(":")[2].rstrip("/"))
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(b"GET /api/network HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b'"kind":"sample"' in one.makefile("rb").read()
    with pytest.raises(ConnectionRefusedError):  # loopback alone
        socket.create_connection((_other_address(), port))
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out, without_progress(err)) == (status, "", "")


def without_progress(told: str) -> str:
    """Return what was told, without the progress of a trial prediction, which takes long on a busy machine."""
    return "".join(line for line in told.splitlines(keepends=True) if "serve: a trial prediction compiles" not in line)


def _other_address() -> str:
    """An address of this machine that is not the one that the server listens on."""
    return "127.0.0.2"


def test_mistakes_of_the_command_are_told_before_it_serves(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"no checkpoint")
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for arguments, told in (
            ([str(broken)], "is not a checkpoint"),
            ([str(tmp_path / "none.ckpt")], "no such file"),
            ([str(checkpoint), "--port", port], f"port {port} of 127.0.0.1 can't be used: Address already in use"),
            ([str(checkpoint), "--port", "-1"], "port -1: expected 0 to 65535"),
            ([str(checkpoint), "--host", "no.such.host.invalid"], "expected an address of this machine"),
            ([str(checkpoint), "--max-seconds", "0"], "seconds=0.0: expected a number above 0"),
        ):
            assert main(["serve", *arguments]) == 2
            shown = capsys.readouterr()
            assert told in shown.err
            assert shown.err.count("\n") == 1
            assert shown.out == ""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "fastapi" else name)
    assert main(["serve", str(checkpoint)]) == 2
    assert "serving needs fastapi: pip install 'unrolled[serve]'" in capsys.readouterr().err


def served(checkpoint: Path, **environment: str) -> tuple[str, str]:
    """Start the command, end it as soon as it has printed its address, and return that and standard error."""
    command = [sys.executable, "-m", "unrolled", "serve", str(checkpoint), "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command, **pipes, env={**os.environ, **environment})
    assert started.stdout is not None
    address = started.stdout.readline()
    os.kill(started.pid, signal.SIGINT)
    return address, started.communicate(timeout=60)[1]


def test_kernels_are_compiled_before_the_address_is_printed(tmp_path: Path) -> None:
    cell = PeepholeLSTMCell(5, 6)
    if BACKENDS["compiled"].refuses(cell, torch.zeros(1, 1, 5)) is not None:
        pytest.skip("nothing compiles here")
    network = Recurrent(PeepholeLSTMCell, 5, 6, backend="compiled").eval()
    network(torch.zeros(1, 8, 5))  # the engine, which takes longest to compile and is the same for all cells
    (tmp_path / "compiled").mkdir(mode=0o700)
    for engine in cache_folder().glob("engine-*.so*"):
        shutil.copy2(engine, tmp_path / "compiled")
    assert not list(tmp_path.rglob("cell-*.so"))
    address, _ = served(saved(tmp_path / "best.ckpt", "PeepholeLSTMCell"), UNROLLED_CACHE=str(tmp_path))
    assert address.startswith("http://127.0.0.1:")
    assert len(list(tmp_path.rglob("cell-*.so"))) == 1


def test_a_failed_trial_is_told_and_the_server_begins(tmp_path: Path) -> None:
    address, told = served(saved(tmp_path / "best.ckpt", scale=1e30))
    assert address.startswith("http://127.0.0.1:")
    assert "warning: a trial prediction failed: " in told


def test_another_host_is_warned_of(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "unrolled", "serve", str(checkpoint), "--port", "0", "--host", "0.0.0.0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline().startswith("http://0.0.0.0:")
    os.kill(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert "warning: other machines may reach 0.0.0.0" in err
    assert without_progress(err).count("\n") == 1


def test_ctrl_c_ends_every_command_quietly(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unrolled.deployment.sampling.sample_text", interrupted)
    assert main(["sample", str(checkpoint)]) == 130


def test_the_application_needs_fastapi(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'unrolled\\[serve\\]'"):
        create_app(make("language model"))
