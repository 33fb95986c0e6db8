"""What a recorder gives: the values of the papers' equations, at the right step of the right row."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    Cell,
    ClockworkCell,
    ElmanCell,
    Encoded,
    EncoderDecoder,
    FeedForward,
    FullGateLSTMCell,
    GatedFeedbackCell,
    GRUCell,
    HiddenState,
    IndRNNCell,
    JordanCell,
    LayerNormLSTMCell,
    LSTMCell,
    MogrifierLSTMCell,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    PointwiseCell,
    ProjectedLSTMCell,
    Recurrent,
    RecurrentEncoder,
    ResetFirstGRUCell,
    beam_search,
    greedy,
    sample,
    scheduled_sampling,
    unroll,
)
from unrolled.backends import BACKENDS
from unrolled.backends.compiled.tracing import layout_of, trace
from unrolled.inspection import CellRecord, record

LENGTHS = torch.tensor([6, 2, 0, 5])
GATES = {
    LSTMCell: "ifgo",
    PeepholeLSTMCell: "ifgo",
    partial(PeepholeLSTMCell, coupled=True): "ifgo",
    partial(PeepholeLSTMCell, missing_gate="output", input_activation="identity"): "ifg",
    FullGateLSTMCell: "ifgo",
    LayerNormLSTMCell: "ifgo",
    MogrifierLSTMCell: "ifgo",
    MultiplicativeLSTMCell: "ifgo",
    ProjectedLSTMCell: "ifgo",
    GRUCell: "rzn",
    ResetFirstGRUCell: "rzn",
}


class PlainCell(Cell[Tensor]):
    """A cell of the user's own, with a tensor as its state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, output_size=hidden_size)
        self.linear = nn.Linear(input_size, hidden_size)

    def initial_state(self, batch: int, *, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.hidden_size)

    def project(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs)

    def step(self, projected: Tensor, state: Tensor, noise: Any = None) -> tuple[Tensor, Tensor]:
        state = torch.tanh(projected + state)
        return 2 * state, state


class OwnGRU(PointwiseCell[HiddenState]):
    gates = 2

    def pointwise(self, projected, recurrent, state):
        z = torch.sigmoid(projected[0] + recurrent[0])
        h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
        return h, HiddenState(h)


class TappedGRU(OwnGRU):
    def pointwise(self, projected, recurrent, state):
        z = self.tap("z", torch.sigmoid(projected[0] + recurrent[0]))
        h = z * state.h + (1 - z) * torch.relu(projected[1] + recurrent[1])
        return h, HiddenState(h)


def recorded(cell: Callable[..., Cell[Any]], **options: Any) -> tuple[Recurrent, Tensor, dict[str, CellRecord]]:
    torch.manual_seed(0)
    network = Recurrent(cell, 3, 4, **options).double()
    inputs = torch.randn(4, 6, 3, dtype=torch.float64)
    with record(network) as recording:
        network(inputs, lengths=LENGTHS)
    return network, inputs, dict(recording)


@pytest.mark.parametrize(("cell", "gates"), GATES.items(), ids=str)
def test_gates_and_candidates_are_those_of_the_papers(cell: Callable[..., Cell[Any]], gates: str) -> None:
    _, _, records = recorded(cell)
    found = records["cells.0"]
    assert set(gates) <= set(found.taps)
    before = {name: torch.cat([torch.zeros_like(found[name][:, :1]), found[name][:, :-1]], 1) for name in found.states}
    one = torch.ones((), dtype=torch.float64)
    if gates == "rzn":
        law = (1 - found["z"]) * found["n"] + found["z"] * before["h"]
        name = "h"
    else:
        law, name = found["f"] * before["c"] + found["i"] * found["g"], "c"
        if cell not in (LayerNormLSTMCell, ProjectedLSTMCell):
            output = (found["o"] if "o" in gates else one) * torch.tanh(found["c"])
            torch.testing.assert_close(found["h"], output, equal_nan=True)
    torch.testing.assert_close(found[name], law, equal_nan=True, rtol=0, atol=1e-15)
    assert torch.equal(found.mask, torch.arange(6) < LENGTHS[:, None])


@pytest.mark.parametrize("unit", ["lstm", "gru", "tanh"])
def test_gated_feedback_records_each_of_its_layers(unit: str) -> None:
    _, _, records = recorded(partial(GatedFeedbackCell, feedback_layers=2, unit=unit))
    found = records["cells.0"]
    names = {"lstm": "ifgo", "gru": "rzn", "tanh": ""}[unit]
    assert set(found.taps) == {f"{name}_l{layer}" for layer in (0, 1) for name in (*names, "reset")}
    assert found["reset_l1"].shape == (4, 6, 2)
    assert torch.equal(found["output"].nan_to_num(), found["h_l1"].nan_to_num())


@pytest.mark.parametrize("reverse", [False, True])
def test_gates_are_those_of_their_own_step_in_either_direction(reverse: bool) -> None:
    network, inputs, records = recorded(LSTMCell, bidirectional=True)
    found = records["reverse_cells.0" if reverse else "cells.0"]
    assert (found.reverse, found.layer) == (reverse, 0)
    cell: Any = (network.reverse_cells if reverse else network.cells)[0]
    for row, length in enumerate(LENGTHS.tolist()):
        for step in range(length):
            other = step + 1 if reverse else step - 1
            h = found["h"][row, other] if 0 <= other < length else torch.zeros(4, dtype=torch.float64)
            rows = cell.weight_ih @ inputs[row, step] + cell.bias_ih + cell.weight_hh @ h + cell.bias_hh
            i, f, g, o = rows.chunk(4)
            for name, expected in (("i", i.sigmoid()), ("f", f.sigmoid()), ("g", g.tanh()), ("o", o.sigmoid())):
                torch.testing.assert_close(found[name][row, step], expected)
            torch.testing.assert_close(found["projected"][row, step], cell.weight_ih @ inputs[row, step] + cell.bias_ih)
            torch.testing.assert_close(found["recurrent"][row, step], cell.weight_hh @ h + cell.bias_hh)
        assert found["i"][row, length:].isnan().all()


def test_values_are_bit_equal_to_the_loops_and_nothing_remains_of_the_recorder() -> None:
    network, inputs, records = recorded(GRUCell, num_layers=2, backend="compiled")
    with record(network) as recording:
        outputs, _ = network(inputs, lengths=LENGTHS)
        assert {choice.backend for choice in network.backend_choices(inputs)} == {"loop"}
    assert not any("observer" in vars(module) for module in network.modules())
    loop = Recurrent(GRUCell, 3, 4, num_layers=2, backend="loop").double()
    loop.load_state_dict(network.state_dict())
    assert torch.equal(outputs, loop(inputs, lengths=LENGTHS)[0])
    assert torch.equal(outputs.detach(), recording["cells.1"]["h"].nan_to_num())
    assert torch.equal(records["cells.1"]["h"].nan_to_num(), recording["cells.1"]["h"].nan_to_num())


def test_marked_sequences_record_what_separate_ones_do() -> None:
    network = Recurrent(LSTMCell, 3, 4, bidirectional=True).double()
    inputs = torch.randn(1, 7, 3, dtype=torch.float64)
    marks = torch.tensor([[False, False, False, True, False, True, False]])
    with record(network) as whole:
        network(inputs, resets=marks)
    parts = []
    for begin, end in ((0, 3), (3, 5), (5, 7)):
        with record(network) as recording:
            network(inputs[:, begin:end])
        parts.append(recording)
    for name in ("cells.0", "reverse_cells.0"):
        joined = torch.cat([part[name]["f"] for part in parts], dim=1)
        torch.testing.assert_close(whole[name]["f"], joined)


@pytest.mark.parametrize("own", [False, True])
def test_a_cell_without_taps_records_states_outputs_and_blocks(own: bool) -> None:
    network, inputs, records = recorded(OwnGRU if own else PlainCell)
    found = records["cells.0"]
    assert found.taps == (("recurrent",) if own else ())
    assert set(found.names) == ({"projected", "recurrent", "output", "h"} if own else {"projected", "output", "state"})
    outputs = network(inputs, lengths=LENGTHS)[0].detach()
    torch.testing.assert_close(found["output"].nan_to_num(), outputs)
    torch.testing.assert_close(found["h" if own else "state"].nan_to_num(), outputs if own else outputs / 2)
    with pytest.raises(ValueError, match=r"cells\.0 recorded no 'i'; it recorded "):
        _ = found["i"]


def test_a_tap_changes_neither_results_nor_state_dicts_nor_compiled_programs() -> None:
    torch.manual_seed(0)
    plain, tapped = Recurrent(OwnGRU, 3, 4), Recurrent(TappedGRU, 3, 4)
    tapped.load_state_dict(plain.state_dict())
    inputs = torch.randn(4, 6, 3)
    for backend in ("loop", "compiled", "auto"):
        plain.backend = tapped.backend = backend
        assert torch.equal(plain(inputs)[0], tapped(inputs)[0])
    programs = [trace(cell, layout_of(cell), torch.float32) for cell in (OwnGRU(3, 4), TappedGRU(3, 4))]
    assert repr(programs[0]) == repr(programs[1])
    assert BACKENDS["compiled"].refuses(tapped.cells[0], inputs) is None  # pyright: ignore[reportArgumentType]


def test_recomputed_steps_are_recorded_once() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, 3, requires_grad=True)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(1)
        network = Recurrent(GRUCell, 3, 4, recompute=recompute)
        with record(network) as recording, set_checkpoint_early_stop(False):  # so that all of it runs twice
            outputs, _ = checkpoint(network, inputs, use_reentrant=False)  # pyright: ignore
            outputs.square().sum().backward()
        assert len(recording.passes("cells.0")) == 1
        assert recording["cells.0"]["r"].shape == (2, 9, 4)
        gradients.append(network.cells[0].weight_hh.grad)
    torch.testing.assert_close(*gradients)


def test_single_steps_are_one_sequence() -> None:
    network = Recurrent(GRUCell, 3, 4, num_layers=2)
    inputs = torch.randn(2, 5, 3)
    with record(network) as whole:
        network(inputs)
    with record(network) as stepped:
        state = network.initial_state(2, like=inputs)
        for step in range(5):
            _, state = network.step(inputs[:, step], state)
    torch.testing.assert_close(stepped["cells.1"]["z"], whole["cells.1"]["z"])
    assert stepped["cells.1"].mask.all()


def test_every_pass_of_a_cell_has_a_record() -> None:
    cell = LSTMCell(3, 4)
    with record(cell) as recording:
        assert len(recording) == 0
        with pytest.raises(KeyError, match="run the network"):
            recording.passes("cell")
        for time in (2, 0, 5):
            unroll(cell, torch.randn(2, time, 3))
        cell(torch.randn(3, 3))
    assert [tuple(each["h"].shape) for each in recording.passes("cell")] == [(2, 2, 4), (2, 5, 4), (3, 1, 4)]
    assert [each.inputs is None for each in recording.passes("cell")] == [False, False, True]


def seq2seq(**options: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    core = partial(Recurrent, cell=LSTMCell, hidden_size=6)
    encoder = RecurrentEncoder.of_tokens(11, 5, core)
    decoder = partial(AutoregressiveDecoder.of_tokens, 11, 5, core, AdditiveAttention, **options)
    return EncoderDecoder(encoder, decoder).eval()


@pytest.mark.parametrize("input_feeding", [False, True])
def test_a_decoder_with_attention_is_recorded_with_its_padding(input_feeding: bool) -> None:
    network = seq2seq(input_feeding=input_feeding)
    source, inputs = torch.randint(11, (4, 7)), torch.randint(11, (4, 6))
    with record(network) as recording:
        network(source, torch.tensor([7, 1, 3, 5]), inputs, LENGTHS)
    decoder = recording["decoder.steps.core.cells.0"]
    assert torch.equal(decoder.mask, torch.arange(6) < LENGTHS[:, None])
    assert recording["encoder.core.reverse_cells.0"].mask.sum(1).tolist() == [7, 1, 3, 5]
    state, memory = network.start(source, torch.tensor([7, 1, 3, 5]))
    for step in range(6):
        state = network.decoder.step(inputs[:, step], state, memory).state
        for row in (step < LENGTHS).nonzero().flatten().tolist():
            torch.testing.assert_close(decoder["c"][row, step], state.core[0].c[row].detach())


def test_searches_and_sampling_are_refused() -> None:
    network = seq2seq()
    decoder = network.decoder
    state, memory = network.start(torch.randint(11, (2, 4)))
    start = torch.zeros(2, dtype=torch.int64)
    calls: list[Callable[[], Any]] = [
        lambda: sample(decoder, state, memory, start=start, max_length=3),
        lambda: greedy(decoder, state, memory, start=start, max_length=3),
        lambda: beam_search(decoder, state, memory, start=start, stop=0, max_length=3),
        lambda: scheduled_sampling(decoder, torch.randint(11, (2, 4)), state, memory, probability=0.5),
    ]
    for call in calls:
        with (
            record(network),
            pytest.raises(ValueError, match="can't run sample, greedy, beam_search or"),
        ):
            call()
        call()


def test_weights_that_a_parametrization_computes_are_recorded() -> None:
    cell = nn.utils.parametrizations.weight_norm(GRUCell(3, 4), "weight_hh")
    inputs = torch.randn(2, 5, 3)
    with record(cell) as recording:
        outputs, _ = unroll(cell, inputs)
    torch.testing.assert_close(recording["cell"]["h"], outputs.detach())


class Twice(OwnGRU):
    def step(self, projected, state, noise=None):
        self.tap("a", projected)
        self.tap(*self.second(projected))
        return super().step(projected, state, noise)

    def second(self, value):
        return "a", value


class OfOtherRows(Twice):
    def second(self, value):
        return "b", value[:1]


class OfAState(Twice):
    def second(self, value):
        return "h", value


@pytest.mark.parametrize(
    ("cell", "message"),
    [(Twice, "taps 'a' twice"), (OfOtherRows, r"the shape \(1, 8\), expected 2 rows"), (OfAState, "of another value")],
)
def test_a_tap_that_can_not_be_recorded_is_refused(cell: type[OwnGRU], message: str) -> None:
    known = cell(3, 4)
    with record(known) as recording, pytest.raises(ValueError, match=message):
        unroll(known, torch.randn(2, 5, 3))
    assert len(recording) == 0
    unroll(known, torch.randn(2, 5, 3))  # without a recorder a tap does nothing


def test_networks_that_can_not_be_recorded_are_refused() -> None:
    network = Recurrent(GRUCell, 3, 4)
    inputs = torch.randn(2, 5, 3)
    with pytest.raises(ValueError, match="FeedForward has no recurrent cell"), record(FeedForward(3, 4)):
        pass
    with record(network), pytest.raises(ValueError, match="cell is recorded already"), record(network.cells[0]):
        pass
    with pytest.raises(ValueError, match=r"compiled with torch\.compile"), record(torch.compile(network)):  # pyright: ignore
        pass
    with record(network), pytest.raises(ValueError, match=r"within a transform of torch\.func"):
        torch.func.vmap(lambda x: network(x.unsqueeze(0))[0])(inputs)
    with record(network, graph=True), torch.no_grad(), pytest.raises(ValueError, match="graph=False"):
        network(inputs)
    with record(network) as recording:
        network(inputs)
    assert recording["cells.0"]["r"].shape == (2, 5, 4)


@pytest.mark.parametrize("cell", [ElmanCell, IndRNNCell, JordanCell, ClockworkCell])
def test_other_cells_record_their_states(cell: type[Cell[Any]]) -> None:
    network, inputs, records = recorded(cell)
    found = records["cells.0"]
    assert {"h", "output", "projected"} <= set(found.names)
    torch.testing.assert_close(found["output"].nan_to_num(), network(inputs, lengths=LENGTHS)[0].detach())


def test_a_source_read_as_input_is_a_pass_of_its_own() -> None:
    core = partial(Recurrent, cell=GRUCell, hidden_size=6)
    decoder = AutoregressiveDecoder.of_tokens(11, 5, core, source_size=3, source_as="input")
    encoded = Encoded(torch.randn(2, 4, 3), None, torch.randn(2, 3))
    with record(decoder) as recording:
        decoder(torch.randint(11, (2, 6)), *decoder.start(2, encoded))
    assert [each.mask.shape[1] for each in recording.passes("steps.cells.0")] == [1, 6]
