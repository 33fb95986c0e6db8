"""`auto` takes the faster kernel of an LSTM: measured once, kept in a file, the same in a resumed run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.utils.checkpoint import checkpoint

from unrolled import LSTMCell, Recurrent
from unrolled.backends import BACKENDS, speeds
from unrolled.backends.speeds import CallClass, Speeds
from unrolled.training.run.runner import run

Configure = Callable[..., DictConfig]
BOTH = (BACKENDS["fused"], BACKENDS["compiled"])


@pytest.fixture(autouse=True)
def measuring(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests measure, in a cache of their own."""
    (folder / "cache" / "compiled").unlink()  # that of all tests
    monkeypatch.setenv("UNROLLED_AUTO", "measure")
    monkeypatch.setattr(speeds, "SPEEDS", Speeds())
    for place in ("unrolled.backends", "unrolled.training.run.runner", "unrolled.training.run.report"):
        monkeypatch.setattr(f"{place}.SPEEDS", speeds.SPEEDS)
    monkeypatch.setattr("unrolled.training.tasks.base.SPEEDS", speeds.SPEEDS)


def took(monkeypatch: pytest.MonkeyPatch, fused: float, compiled: float) -> list[CallClass]:
    """Lets measurements find these seconds. Returns a list of the measured classes, which grows."""
    measured: list[CallClass] = []

    def measure(call: CallClass, *_: Any) -> list[float]:
        measured.append(call)
        return [fused, compiled]

    monkeypatch.setattr(speeds, "measure", measure)
    return measured


def chosen(steps: int = 20, batch: int = 3) -> str:
    layer = Recurrent(LSTMCell, 4, 8)
    return layer.backend_choices(torch.zeros(batch, steps, 4))[0].backend


@pytest.mark.parametrize(("fused", "compiled", "faster"), [(2.0, 1.0, "compiled"), (1.0, 2.0, "fused")])
def test_the_faster_kernel_is_taken(
    monkeypatch: pytest.MonkeyPatch, fused: float, compiled: float, faster: str
) -> None:
    measured = took(monkeypatch, fused, compiled)

    assert chosen() == faster
    assert measured == [CallClass(4, 8, 4, 16, torch.float32, True, torch.get_num_threads())]
    assert chosen(steps=600) == faster
    assert chosen(steps=15) == "fused"  # a rule, whose reason is the cost of a call
    assert len(measured) == 2


def test_a_class_is_measured_once_on_a_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = took(monkeypatch, 2.0, 1.0)
    cell, inputs = LSTMCell(4, 8), torch.zeros(3, 20, 4)
    assert Speeds().choose(cell, inputs, BOTH, "fused")[0] == "compiled"
    took(monkeypatch, 1.0, 2.0)

    assert Speeds().choose(cell, inputs, BOTH, "fused")[0] == "compiled"
    with torch.no_grad():  # another class
        assert Speeds().choose(cell, inputs, BOTH, "fused")[0] == "fused"
    assert len(measured) == 1
    (file,) = (folder / "cache" / "compiled").glob("speeds-*.json")
    assert list(json.loads(file.read_text()).values()) == [[2.0, 1.0], [1.0, 2.0]]


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"LSTM": [1.0]}', "\0"])
def test_a_damaged_table_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    took(monkeypatch, 2.0, 1.0)
    assert chosen() == "compiled"
    (file,) = (folder / "cache" / "compiled").glob("speeds-*.json")
    file.write_text(content)

    measured = took(monkeypatch, 1.0, 2.0)
    assert Speeds().choose(LSTMCell(4, 8), torch.zeros(3, 20, 4), BOTH, "fused")[0] == "fused"
    assert len(measured) == 1
    assert list(json.loads(file.read_text()).values()) == [[1.0, 2.0]]


def test_a_table_that_cannot_be_written_is_kept_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = took(monkeypatch, 2.0, 1.0)
    (folder / "file").touch()
    monkeypatch.setattr(speeds, "cache_folder", lambda: folder / "file" / "compiled")
    known = Speeds()

    names = {known.choose(LSTMCell(4, 8), torch.zeros(3, 20, 4), BOTH, "fused")[0] for _ in range(2)}

    assert names == {"compiled"}
    assert len(measured) == 1


def test_a_rule_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = took(monkeypatch, 2.0, 1.0)
    monkeypatch.setenv("UNROLLED_AUTO", "fixed")
    assert (chosen(), chosen(steps=500), measured) == ("fused", "compiled", [])

    monkeypatch.setenv("UNROLLED_AUTO", "fast")
    with pytest.raises(ValueError, match="UNROLLED_AUTO=fast: must be measure or fixed"):
        chosen()


def test_a_measurement_changes_nothing_else() -> None:
    layer = Recurrent(LSTMCell, 4, 8)
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        seconds = speeds.measure(CallClass(4, 8, 2, 16, torch.float64, True, 1), *BOTH)

    assert torch.equal(torch.get_rng_state(), before)
    assert len(seconds) == 2
    assert 0 < min(seconds) <= max(seconds) < 1
    assert all(weight.grad is None for weight in layer.parameters())


def test_times_of_long_calls_lie_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now, cost = [0.0], {"fused": 0.5, "compiled": 0.25}

    class Timed(type(BACKENDS["fused"])):
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, cell: Any, inputs: Any, *given: Any) -> Any:
            now[0] += 3 + cost[self.name] * inputs.shape[1]
            return super().run(cell, inputs, *given)

    monkeypatch.setattr(speeds.time, "perf_counter", lambda: now[0])
    call = CallClass(4, 8, 2, 4096, torch.float32, False, 1)
    assert speeds.measure(call, Timed("fused"), Timed("compiled")) == pytest.approx([3 + 2048, 3 + 1024])


def test_a_recomputation_takes_the_same_kernel() -> None:
    layer = Recurrent(LSTMCell, 4, 8)
    inputs = torch.randn(3, 20, 4, requires_grad=True)
    grads: list[torch.Tensor] = []
    for again in (True, False, True):  # the first, within which nothing is known yet, then where a measurement is made
        outputs = checkpoint(lambda x: layer(x)[0], inputs, use_reentrant=False) if again else layer(inputs)[0]
        grads += torch.autograd.grad(outputs.square().sum(), inputs)  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(grads[2], grads[0])


def test_a_resumed_run_takes_the_backends_of_before(
    folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ["model.hidden_size=4", "callbacks.samples=null", "callbacks.curves=null", "logger=none", "test=false"]
    tiny += ["++trainer.num_sanity_val_steps=0", "threads=1", "scheduler=none"]

    def weights(name: str) -> dict[str, torch.Tensor]:
        return torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    took(monkeypatch, 2.0, 1.0)
    run(configure("whole", *tiny, "trainer.max_epochs=2"))
    run(configure("half", *tiny, "trainer.max_epochs=1"))
    summary = json.loads((folder / "half" / "summary.json").read_text())
    assert set(summary["backends"].values()) == {"compiled"}

    for file in (folder / "cache" / "compiled").glob("speeds-*.json"):
        file.unlink()
    speeds.SPEEDS._seconds.clear()
    took(monkeypatch, 1.0, 2.0)
    last = folder / "half" / "checkpoints" / "last.ckpt"
    run(configure("resumed", *tiny, "trainer.max_epochs=2", f"resume={last}"))

    for name, weight in weights("whole").items():
        assert torch.equal(weight, weights("resumed")[name]), name
    run(configure("other", *tiny, "trainer.max_epochs=2"))
    assert set(json.loads((folder / "other" / "summary.json").read_text())["backends"].values()) == {"fused"}
    assert any(not torch.equal(weight, weights("other")[name]) for name, weight in weights("whole").items())
