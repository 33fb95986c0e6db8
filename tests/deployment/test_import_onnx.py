"""Recurrent nodes of ONNX: what is imported computes what onnxruntime does, and what can't be expressed is refused."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unrolled import Bundle, CharacterTokenizer, Processor, Recurrent, load_bundle, save_bundle, unroll
from unrolled.deployment import from_onnx
from unrolled.descriptions import CheckpointError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

INPUT, HIDDEN, BATCH, TIME = 3, 4, 2, 6
BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 0.7).astype(np.float32)


def model(
    path: Path, kind: str, *, bias: bool = True, peepholes: bool = False, initial: str = "", **attributes: Any
) -> Path:
    """A model with one node; `initial` is "constant", "input" or "expand"."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    layout = attributes.get("layout", 0)
    width = BLOCKS[kind] * HIDDEN
    constants = {"W": drawn(directions, width, INPUT, seed=1), "R": drawn(directions, width, HIDDEN, seed=2)}
    names = ["X", "W", "R", "", "", ""]
    if bias:
        constants["B"], names[3] = drawn(directions, 2 * width, seed=3), "B"
    inputs = [onnx.helper.make_tensor_value_info("X", 1, (BATCH, "t", INPUT) if layout else ("t", BATCH, INPUT))]
    nodes = []
    for index, name in enumerate(("h0", "c0") if kind == "LSTM" and initial else ("h0",) if initial else ()):
        value = drawn(directions, 1, HIDDEN, seed=4 + index).repeat(BATCH, 1)
        value = value.transpose(1, 0, 2) if layout else value
        names += [""] * (6 + index - len(names))
        names[5 + index : 6 + index] = [name]
        if initial == "constant":
            constants[name] = value
        elif initial == "expand":
            constants[f"{name}_row"] = value[:, :1] if not layout else value[:1]
            constants[f"{name}_shape"] = np.array(value.shape)
            nodes.append(onnx.helper.make_node("Expand", [f"{name}_row", f"{name}_shape"], [name]))
        else:
            inputs.append(onnx.helper.make_tensor_value_info(name, 1, value.shape))
    if peepholes:
        constants["P"] = drawn(directions, 3 * HIDDEN, seed=7)
        names += [""] * (7 - len(names)) + ["P"]
    nodes.append(onnx.helper.make_node(kind, names, ["Y", "Y_h"], name="layer", hidden_size=HIDDEN, **attributes))
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("Y", "Y_h")]
    held = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, held)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(made, str(path))
    return path


def expected(path: Path, inputs: torch.Tensor, layout: int = 0, **states: np.ndarray) -> torch.Tensor:
    """The outputs (batch, time, directions × hidden) of onnxruntime."""
    found = onnx.load(str(path))
    if layout:  # onnxruntime has no layout=1: the same node with the other axes
        (node,) = (n for n in found.graph.node if n.op_type in BLOCKS)
        del node.attribute[[a.name for a in node.attribute].index("layout")]
        for each in found.graph.initializer:
            if each.name in ("h0", "c0"):
                each.CopyFrom(
                    onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each).transpose(1, 0, 2), each.name)
                )
        (given,) = (i for i in found.graph.input if i.name == "X")
        given.CopyFrom(onnx.helper.make_tensor_value_info("X", 1, ("t", BATCH, INPUT)))
    session = onnxruntime.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["Y"], {"X": inputs.transpose(0, 1).numpy(), **states})
    return torch.as_tensor(outputs).permute(2, 0, 1, 3).flatten(2)


INPUTS = torch.as_tensor(drawn(BATCH, TIME, INPUT, seed=9))
HARD = {"activation_alpha": [1 / 6], "activation_beta": [0.5]}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "lstm": ("LSTM", {}, "LSTMCell"),
    "lstm without bias": ("LSTM", {"bias": False}, "LSTMCell"),
    "lstm both": ("LSTM", {"direction": "bidirectional", "initial": "constant"}, "LSTMCell"),
    "lstm peepholes": ("LSTM", {"peepholes": True}, "PeepholeLSTMCell"),
    "lstm peepholes both": (
        "LSTM",
        {"peepholes": True, "direction": "bidirectional", "initial": "expand"},
        "PeepholeLSTMCell",
    ),
    "lstm coupled": ("LSTM", {"input_forget": 1}, "PeepholeLSTMCell"),
    "lstm coupled peepholes": ("LSTM", {"input_forget": 1, "peepholes": True}, "PeepholeLSTMCell"),
    "lstm activations": (
        "LSTM",
        {"activations": ["Sigmoid", "Softsign", "Relu"], "direction": "forward"},
        "PeepholeLSTMCell",
    ),
    "lstm hard gates": ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"], **HARD}, "PeepholeLSTMCell"),
    "lstm layout": ("LSTM", {"layout": 1, "initial": "constant"}, "LSTMCell"),
    "gru": ("GRU", {"linear_before_reset": 1}, "GRUCell"),
    "gru reset first": ("GRU", {"linear_before_reset": 0, "initial": "constant"}, "ResetFirstGRUCell"),
    "gru both": ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}, "GRUCell"),
    "gru reset first both": ("GRU", {"direction": "bidirectional", "initial": "expand"}, "ResetFirstGRUCell"),
    "rnn": ("RNN", {}, "ElmanCell"),
    "rnn relu": ("RNN", {"activations": ["Relu"], "initial": "constant"}, "ElmanCell"),
    "rnn both": ("RNN", {"activations": ["Softplus", "Softplus"], "direction": "bidirectional"}, "ElmanCell"),
    "rnn linear": ("RNN", {"activations": ["Affine"], "activation_alpha": [1.0]}, "ElmanCell"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_node_computes_the_same_here_as_in_onnxruntime(tmp_path: Path, case: str) -> None:
    kind, options, cell = CASES[case]
    path = model(tmp_path / "one.onnx", kind, **options)

    network = from_onnx(path)

    assert type(network.cells[0]).__name__ == cell
    assert (len(network.initial) > 0) == ("initial" in options)
    with torch.no_grad():
        outputs, _ = network(INPUTS)
    torch.testing.assert_close(outputs, expected(path, INPUTS, options.get("layout", 0)), atol=1e-5, rtol=1e-5)


def test_a_state_that_is_an_input_is_passed_by_the_caller(tmp_path: Path) -> None:
    path = model(tmp_path / "one.onnx", "GRU", linear_before_reset=1, initial="input")
    state = drawn(1, BATCH, HIDDEN, seed=11)

    network = from_onnx(path)

    assert len(network.initial) == 0
    given = type(network.initial_state(1, like=INPUTS)[0])(torch.as_tensor(state[0]))
    with torch.no_grad():
        outputs, _ = network(INPUTS, (given,))
    torch.testing.assert_close(outputs, expected(path, INPUTS, h0=state), atol=1e-5, rtol=1e-5)


def test_a_reversed_node_is_a_cell_that_runs_in_reverse(tmp_path: Path) -> None:
    path = model(tmp_path / "one.onnx", "LSTM", direction="reverse")

    with pytest.raises(CheckpointError, match=r"layer has direction='reverse'; pass reverse=True"):
        from_onnx(path)
    network = from_onnx(path, reverse=True)

    with torch.no_grad():
        outputs, _ = unroll(network.cells[0], INPUTS, reverse=True)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(outputs, expected(path, INPUTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("make", "both"), [(nn.LSTM, False), (nn.LSTM, True), (nn.GRU, True), (nn.RNN, False)])
def test_layers_that_torch_exports_are_one_network(tmp_path: Path, make: Any, both: bool) -> None:
    torch.manual_seed(0)
    layer = make(INPUT, HIDDEN, num_layers=2, bidirectional=both, batch_first=True).eval()
    torch.onnx.export(layer, (INPUTS,), str(tmp_path / "two.onnx"), dynamo=False, input_names=["x"])

    network = from_onnx(tmp_path / "two.onnx")

    assert (network.num_layers, network.bidirectional) == (2, both)
    with torch.no_grad():
        torch.testing.assert_close(network(INPUTS)[0], layer(INPUTS)[0], atol=1e-5, rtol=1e-5)
    # and each by itself
    graph = onnx.load(str(tmp_path / "two.onnx")).graph
    second = [node.name for node in graph.node if node.op_type in BLOCKS][1]
    assert from_onnx(tmp_path / "two.onnx", [second]).input_size == HIDDEN * (1 + both)


def changed(path: Path, change: Any) -> Path:
    found = onnx.load(str(path))
    change(found.graph)
    path.write_bytes(found.SerializeToString())
    return path


def with_attribute(**attributes: Any) -> Any:
    return lambda graph: graph.node[0].attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in attributes.items()
    )


def external(graph: Any) -> None:
    graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def computed(graph: Any) -> None:
    graph.node.insert(0, onnx.helper.make_node("Relu", ["W"], ["V"]))
    graph.node[1].input[1] = "V"


def poisoned(graph: Any) -> None:
    graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((1, 16, 3), np.nan, np.float32), "W"))


def resized(graph: Any) -> None:
    graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(drawn(1, 15, 4), "R"))


def integers(graph: Any) -> None:
    graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 16, 4), np.int8), "R"))


def uneven(graph: Any) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(drawn(1, BATCH, HIDDEN), "h0"))
    graph.node[0].input[5] = "h0"


REFUSED: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    "clip": ("LSTM", {"clip": 3.0}, None, "layer has clip=3; cells of this package don't clip"),
    "activation": ("RNN", {"activations": ["Elu"]}, None, "the activation 'Elu', which the cells"),
    "scale": (
        "LSTM",
        {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
        None,
        "HardSigmoid with alpha=0.2 and beta=0.5",
    ),
    "gru": ("GRU", {"activations": ["Sigmoid", "Relu"]}, None, "a GRU is imported with sigmoid and tanh"),
    "number": ("RNN", {"activations": ["Tanh", "Tanh"]}, None, "2 activations for 1 directions"),
    "directions": (
        "RNN",
        {"activations": ["Tanh", "Relu"], "direction": "bidirectional"},
        None,
        "other activations in each",
    ),
    "direction": ("RNN", {}, with_attribute(direction="sideways"), "direction='sideways'"),
    "external": ("LSTM", {}, external, "W is stored in another file; store it within the model"),
    "computed": ("LSTM", {}, computed, "layer computes its weights V; fold constants"),
    "nan": ("LSTM", {}, poisoned, "W holds nan or inf"),
    "size": ("LSTM", {}, resized, r"R of layer has the shape \(1, 15, 4\), expected \(1, 16, 4\)"),
    "integers": ("LSTM", {}, integers, "R holds no floating point numbers"),
    "rows": ("GRU", {}, uneven, "the initial states of layer differ between the rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path, case: str) -> None:
    kind, options, change, message = REFUSED[case]
    path = model(tmp_path / "one.onnx", kind, **options)
    if change is not None:
        changed(path, change)

    with pytest.raises(CheckpointError, match=message):
        from_onnx(path)


def test_nodes_that_do_not_follow_one_another_are_refused(tmp_path: Path) -> None:
    one = nn.LSTM(INPUT, HIDDEN, batch_first=True)

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = one, nn.LSTM(INPUT, HIDDEN, batch_first=True)

        def forward(self, x: torch.Tensor) -> Any:
            return self.one(x)[0] + self.other(x)[0]

    torch.onnx.export(Parallel(), (INPUTS,), str(tmp_path / "two.onnx"), dynamo=False)
    names = [node.name for node in onnx.load(str(tmp_path / "two.onnx")).graph.node if node.op_type == "LSTM"]

    with pytest.raises(CheckpointError, match="does not read the outputs of"):
        from_onnx(tmp_path / "two.onnx")
    network = from_onnx(tmp_path / "two.onnx", names[:1])
    with torch.no_grad():
        torch.testing.assert_close(network(INPUTS)[0], one(INPUTS)[0], atol=1e-5, rtol=1e-5)
    with pytest.raises(CheckpointError, match="'mine' is no LSTM, GRU or RNN node of the graph; there are "):
        from_onnx(tmp_path / "two.onnx", ["mine"])


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    whole = model(tmp_path / "one.onnx", "LSTM").read_bytes()
    draw = np.random.default_rng(0)
    with pytest.raises(CheckpointError, match="no such file"):
        from_onnx(tmp_path / "two.onnx")
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / "one.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"one\.onnx"):
            from_onnx(tmp_path / "one.onnx")
    for _ in range(200):  # any answer but another kind of error
        content = bytearray(whole)
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        (tmp_path / "one.onnx").write_bytes(bytes(content))
        with suppress(CheckpointError):
            from_onnx(tmp_path / "one.onnx")


def test_an_imported_network_is_saved_as_a_bundle(tmp_path: Path) -> None:
    network = from_onnx(model(tmp_path / "one.onnx", "LSTM", peepholes=True, direction="bidirectional"))

    save_bundle(Bundle(network, Processor(CharacterTokenizer("abc")), {"from": "one.onnx"}), tmp_path / "one.ckpt")
    loaded = load_bundle(tmp_path / "one.ckpt").network

    assert isinstance(loaded, Recurrent)
    with torch.no_grad():
        assert torch.equal(loaded(INPUTS)[0], network(INPUTS)[0])
