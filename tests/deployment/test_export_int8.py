"""ONNX models with 8-bit weights: smaller, close to the network, and refused where they would be no smaller."""

import logging
import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    ElmanCell,
    GRUCell,
    LSTMCell,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    Recurrent,
    TokenEmbedding,
    build,
)
from unrolled.checkpoint import save_tensors
from unrolled.deployment.command import main
from unrolled.deployment.export.c.quantization import quantize as rounded
from unrolled.deployment.export.graphs import Graph, Part, Port, lengths_port
from unrolled.deployment.export.onnx.model import model_of
from unrolled.deployment.export.onnx.quantization import quantize
from unrolled.state import leaves

CELLS: dict[str, Any] = {
    "LSTM": LSTMCell,
    "peephole LSTM": PeepholeLSTMCell,
    "GRU": GRUCell,
    "RNN": ElmanCell,
    "scan": MultiplicativeLSTMCell,
}


class Several(nn.Module):
    """A layer of each kind of operator, and an embedding; one export of all is cheaper than one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(50, 24)
        self.layers = nn.ModuleList(Recurrent(cell, 24, 48) for cell in CELLS.values())

    def forward(self, inputs: Tensor, lengths: Tensor, tokens: Tensor) -> list[Tensor]:
        return [*(layer(inputs, None, lengths)[0] for layer in self.layers), self.embedding(tokens)]


def operators(graph: Any) -> set[str]:
    """The kinds of nodes, "Scan/Add" within the body of a Scan."""
    found: set[str] = set()
    for node in graph.node:
        found.add(node.op_type)
        bodies = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
        found |= {f"{node.op_type}/{kind}" for body in bodies for kind in operators(body)}
    return found


def test_every_operator_has_8_bit_weights_and_stays_close() -> None:
    torch.manual_seed(0)
    network = Several().eval()
    names = (*(name.replace(" ", "_") for name in CELLS), "embedding")
    inputs, tokens = torch.randn(4, 30, 24), torch.randint(50, (4, 30))
    lengths = torch.tensor([30, 0, 1, 17])
    ports = tuple(Port(*each, ("batch", "time")) for each in (("inputs", inputs), ("tokens", tokens)))
    ports = (ports[0], lengths_port()._replace(example=lengths), ports[1])
    exact = model_of(Graph("sequence", Part(network, network.forward), ports, names, {}), {"task": "a_task"})

    model = quantize({"sequence": exact}, network)["sequence"]

    assert len(model) < 0.4 * len(exact)
    loaded = onnx.load_from_string(model)
    onnx.checker.check_model(loaded)
    assert {"DynamicQuantizeLSTM", "GRU", "RNN", "DequantizeLinear", "Scan/MatMulInteger"} <= operators(loaded.graph)
    assert "LSTM" not in operators(loaded.graph)
    assert ("task", "a_task") in [(entry.key, entry.value) for entry in loaded.metadata_props]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = {"inputs": inputs, "lengths": lengths, "tokens": tokens}
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        expected, in_c = network(**given), rounded(network)(**given)
    for name, one, other, of_c in zip(names, found, expected, in_c, strict=True):
        difference = (torch.from_numpy(one) - other).abs()
        assert 0 < difference.max() < 0.06 * other.std(), name
        assert difference.mean() < 0.01 * other.std(), name
        if name != "embedding":
            assert not difference[1].any(), name  # the empty row
        if name in ("GRU", "RNN"):  # numbers are float32 there, as in C
            torch.testing.assert_close(torch.from_numpy(one), of_c, rtol=0, atol=1e-5)


def test_a_network_whose_models_get_no_smaller_is_refused_and_nothing_is_logged(caplog: Any) -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["batch", 64]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(torch.zeros(64, 64).double().numpy(), "w")
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([product], "g", values[:1], values[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    before = list(logging.getLogger().handlers)

    with pytest.raises(ValueError, match=r"no model of this Linear smaller: .* \(its weights are float64\); leave"):
        quantize({"step": model.SerializeToString()}, nn.Linear(2, 2).double())

    assert not caplog.records
    assert logging.getLogger().handlers == before


def checkpoint(folder: Path) -> Path:
    """A small language model in the place that the page names."""
    torch.manual_seed(0)
    core: dict[str, Any] = {"_target_": "unrolled.Recurrent", "_partial_": True, "hidden_size": 24}
    core["cell"] = {"_target_": "unrolled.LSTMCell", "_partial_": True}
    embedding = {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 30, "size": 16}
    head = {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 30}
    network = {"_target_": "unrolled.AutoregressiveDecoder", "embedding": embedding, "core": core, "head": head}
    source = {"_target_": "unrolled.CharacterTokenizer", "characters": "abcdefghijklmnopqrstuvwxyz ."}
    described = {"format": 2, "network": network, "processor": {"source": source, "target": None}, "info": {}}
    weights = {f"network.{name}": value for name, value in build(network).state_dict().items()}
    path = folder / "outputs" / "book" / "checkpoints" / "best.ckpt"
    save_tensors({"unrolled": described, "state_dict": weights}, path)
    return path


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.,e-]*", "0", text).strip()


def test_the_page_runs_as_typed_with_8_bit_weights(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export.md").read_text()
    load, steps, program, _ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```console\n\$ python -m unrolled (.*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert main(shown[0].split()) == 0

    printed = capsys.readouterr()
    assert without_numbers(printed.out) == without_numbers(shown[1])
    assert "WARNING" not in printed.err
    known: dict[str, Any] = {}
    exec(load, known)
    exec(steps, known)
    with torch.no_grad():
        state = known["network"](torch.tensor([known["ids"][:-1]])).state
    assert len(known["ids"]) == 101
    for name, expected in zip(known["state"], leaves(state), strict=True):
        torch.testing.assert_close(torch.from_numpy(known["state"][name]), expected, rtol=0, atol=0.05)
    assert main(["export", "outputs/book", "--to", "program"]) == 0
    exec(program, known)
    with torch.no_grad():
        logits = known["network"](known["inputs"], lengths=known["lengths"]).parameters
    torch.testing.assert_close(known["logits"], logits)


def test_8_bit_weights_of_another_target_are_refused(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "exported"

    assert main(["export", str(checkpoint(tmp_path)), "--to", "program", "--int8", "--output", str(output)]) == 2

    assert "int8 is no option of the target 'program', but of c, onnx; leave it out" in capsys.readouterr().err
    assert not output.exists()
