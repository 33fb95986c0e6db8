"""Networks as ONNX models and as programs of torch.export, compared with the networks themselves."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    Bundle,
    CategoricalHead,
    CharacterTokenizer,
    EncoderDecoder,
    FeatureEncoder,
    GRUCell,
    HiddenState,
    LSTMCell,
    MeanPooling,
    PointwiseCell,
    Processor,
    Recurrent,
    RecurrentEncoder,
    SequenceClassifier,
    SequenceTagger,
)
from unrolled.deployment import export_onnx, export_program
from unrolled.deployment.export.graphs import Carried, Graph, Part, Read, lengths_port, step_port, steps_port
from unrolled.deployment.export.metadata import PROCESSOR
from unrolled.deployment.export.networks import graphs_of
from unrolled.deployment.export.onnx.model import model_of
from unrolled.deployment.export.onnx.operators import operator_of
from unrolled.state import leaves

Same = Callable[[Graph, bytes], None]
Drawn = Callable[[Graph], list[list[Tensor]]]


class LightGRUCell(PointwiseCell[HiddenState]):
    """A cell of a user's own."""

    gates = 2

    def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
        z = torch.sigmoid(projected[0] + recurrent[0])
        h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
        return h, HiddenState(h)


def bundle_of(network: nn.Module) -> Bundle:
    return Bundle(network.eval(), Processor(CharacterTokenizer("abcde")), {"choices": {"task": "a_task"}})


def several(networks: dict[str, Recurrent], *, single: bool) -> Graph:
    """One graph of many layers, since each export has a cost of its own."""
    states = {name: Carried.of(net.initial_state(1, like=torch.zeros(1)), name) for name, net in networks.items()}
    read = Read(3, torch.float32)
    first = (step_port("inputs", read),) if single else (steps_port("inputs", read), lengths_port())

    def run(*given: Tensor) -> list[Tensor]:
        rest, found = iter(given[len(first) :]), list[Tensor]()
        for name, network in networks.items():
            state = states[name].rebuild([next(rest) for _ in states[name].names])
            output, after = network.step(given[0], state) if single else network(given[0], state, given[1])
            found += [output, *leaves(after)]
        return found

    ports = tuple(port for state in states.values() for port in state.ports)
    outputs = tuple(name for key, state in states.items() for name in (f"{key}_outputs", *state.outputs))
    return Graph("all", Part(nn.ModuleList(networks.values()), run), (*first, *ports), outputs, {})


OPERATORS = ("lstm", "coupled_lstm", "gru", "reset_first_gru", "elman", "of_a_user")  # each is another one in ONNX


@pytest.mark.parametrize(
    ("way", "names"),
    [
        pytest.param("step", None, id="step"),
        pytest.param("bidirectional", OPERATORS, id="bidirectional"),
        pytest.param("sequence", None, marks=pytest.mark.slow, id="sequence"),  # each half a minute
        pytest.param("bidirectional", None, marks=pytest.mark.slow, id="bidirectional-every"),
    ],
)
def test_every_cell_is_the_same_in_onnxruntime(
    way: str, names: tuple[str, ...] | None, every_cell: dict[str, Any], same: Same
) -> None:
    torch.manual_seed(0)
    cells = {**every_cell, "of_a_user": LightGRUCell}
    cells = {name: cell for name, cell in cells.items() if names is None or name in names}
    networks = {
        name: Recurrent(cell, 3, 6, 1, bidirectional=way == "bidirectional").eval() for name, cell in cells.items()
    }

    same(graph := several(networks, single=way == "step"), model := model_of(graph, {}))

    text = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert way == "step" or {"LSTM", "GRU", "RNN", "Scan"} <= text


def test_cells_are_operators_where_these_define_the_same(every_cell: dict[str, Any]) -> None:
    cells = {**every_cell, "of_a_user": LightGRUCell}
    native = {name for name, cell in cells.items() if operator_of(cell(3, 6)) is not None}

    assert {"lstm", "gru", "reset_first_gru", "elman", "elman_relu", "peephole_lstm", "coupled_lstm"} <= native
    assert not native & {"of_a_user", "lstm_without_input_gate", "layer_norm_lstm", "lstm_without_activations"}
    assert operator_of(LSTMCell(3, 6, zoneout=0.5)) is None
    assert operator_of(type("Own", (LSTMCell,), {})(3, 6)) is None


CORE = partial(Recurrent, GRUCell, hidden_size=6)
HEAD = partial(CategoricalHead, num_classes=5)
NETWORKS: dict[str, Any] = {
    "layers": lambda: Recurrent(LSTMCell, 3, 6, 2, learned_initial_state=True),
    "classifier": lambda: SequenceClassifier(FeatureEncoder(3, CORE, bidirectional=False), HEAD, MeanPooling),
    "tagger": lambda: SequenceTagger(RecurrentEncoder.of_tokens(7, 4, CORE), HEAD),
    "language model": lambda: AutoregressiveDecoder.of_tokens(7, 4, CORE),
    "translation": lambda: EncoderDecoder(
        RecurrentEncoder.of_tokens(7, 4, CORE),
        partial(AutoregressiveDecoder.of_tokens, 7, 4, CORE, AdditiveAttention),
    ),
}
GRAPHS = {"tagger": {"sequence"}, "translation": {"encoder", "attention", "step"}}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_in_onnxruntime(name: str, same: Same) -> None:
    torch.manual_seed(1)
    bundle = bundle_of(NETWORKS[name]())
    graphs = {graph.name: graph for graph in graphs_of(bundle)}

    exported = export_onnx(bundle)

    assert set(graphs) == GRAPHS.get(name, {"sequence", "step"})
    assert set(exported.files) == {PROCESSOR, *(f"{part}.onnx" for part in graphs)}
    for part, graph in graphs.items():
        same(graph, exported.files[f"{part}.onnx"])
    described = json.loads(exported.files[PROCESSOR])
    assert described["task"] == "a_task"
    assert described["vocabulary"]["source"]["symbols"] == CharacterTokenizer("abcde").symbols(range(7))
    model = onnx.load_from_string(exported.files["sequence.onnx" if "sequence" in graphs else "step.onnx"])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["graphs"]) == described["graphs"]
    assert json.loads(metadata["processor"]) == bundle.processor.to_dict()
    text = b"".join(exported.files.values())
    assert str(Path(torch.__file__).parent).encode() not in text
    assert str(Path(__file__).parents[2]).encode() not in text


def test_states_before_the_first_step_are_described() -> None:
    network = Recurrent(LSTMCell, 3, 2, learned_initial_state=True).eval()
    with torch.no_grad():
        network.initial[0].copy_(torch.tensor([0.5, -0.25]))

    described = json.loads(export_program(bundle_of(network)).files[PROCESSOR])["graphs"]["step"]

    assert described["initial_state"] == {"state_0_h": [0.5, -0.25], "state_0_c": 0.0}
    assert described["inputs"][0] == {"name": "inputs", "dtype": "float32", "axes": ["batch", 3]}


@pytest.mark.parametrize("name", ["layers", "classifier"])
def test_programs_run_with_any_sizes(name: str, drawn: Drawn) -> None:
    torch.manual_seed(2)
    bundle = bundle_of(NETWORKS[name]())
    exported = export_program(bundle)

    for graph in graphs_of(bundle):
        program = torch.export.load(io.BytesIO(exported.files[f"{graph.name}.pt2"])).module()
        for given in drawn(graph):
            with torch.no_grad():
                torch.testing.assert_close(program(*given), graph.module(*given), rtol=0, atol=1e-5)


def test_programs_contain_no_paths_of_this_machine() -> None:
    files = export_program(bundle_of(Recurrent(LightGRUCell, 3, 4))).files

    for name in ("sequence.pt2", "step.pt2"):
        with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        found = [part for part, content in parts.items() if b".py" in content or str(Path.cwd()).encode() in content]
        assert not found, (name, found)


def test_a_network_that_cannot_be_exported_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Linear has no graphs to export; there are those of Recurrent, "):
        export_program(bundle_of(nn.Linear(2, 2)))

    hooked = Recurrent(GRUCell, 3, 4)
    hooked.cells[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=re.escape("cells.0 has hooks, and an exported network has none")):
        export_program(bundle_of(hooked))


def test_a_cell_that_branches_on_values_is_refused_with_what_to_change() -> None:
    class Branching(LightGRUCell):
        def pointwise(self, projected: Any, recurrent: Any, state: HiddenState) -> tuple[Tensor, HiddenState]:
            if state.h.sum() > 0:
                state = HiddenState(-state.h)
            return super().pointwise(projected, recurrent, state)

    with pytest.raises(ValueError, match=r"cannot record the graph 'sequence' .* must not branch on values"):
        export_program(bundle_of(Recurrent(Branching, 3, 4)))
