"""Gated feedback against its equations, and against a plain stack where all its gates but one are shut."""

import pytest
import torch
from torch import Tensor

from unrolled import GatedFeedbackCell, HiddenState, LSTMCell, LSTMState, Recurrent, unroll

SIZE, LAYERS = 5, 3


@pytest.mark.parametrize("unit", ["tanh", "gru", "lstm"])
def test_one_step_is_its_equations(generator: torch.Generator, unit: str) -> None:
    cell = GatedFeedbackCell(3, SIZE, feedback_layers=LAYERS, unit=unit).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    kind = LSTMState if unit == "lstm" else HiddenState
    draw = torch.randn(LAYERS, len(kind._fields), 4, SIZE, dtype=torch.float64, generator=generator)
    old = tuple(kind(*of_layer) for of_layer in draw)

    output, new = cell(x, old)

    def own(name: str, layer: int) -> Tensor:
        return cell.get_parameter(f"{name}_l{layer}")

    below = x
    everything = torch.cat([state.h for state in old], dim=1)
    for j in range(LAYERS):
        blocks = list((below @ own("weight_ih", j).T + own("bias", j)).split(SIZE, dim=1))
        feedback = torch.zeros(4, SIZE, dtype=torch.float64)
        for i in range(LAYERS):
            g = torch.sigmoid(below @ own("weight_reset_ih", j)[i] + everything @ own("weight_reset_hh", j)[i])
            u = own("weight_hh_feedback", j)[:, i * SIZE : (i + 1) * SIZE]
            feedback = feedback + g.unsqueeze(1) * (old[i].h @ u.T)
        if unit == "tanh":
            h = torch.tanh(blocks[0] + feedback)
        else:
            seen = (old[j].h @ own("weight_hh", j).T).split(SIZE, dim=1)
            gates = [torch.sigmoid(block + one) for block, one in zip(blocks, seen, strict=False)]
            if unit == "gru":
                h = (1 - gates[1]) * torch.tanh(blocks[2] + gates[0] * feedback) + gates[1] * old[j].h
            else:
                c = gates[1] * old[j].c + gates[0] * torch.tanh(blocks[3] + feedback)
                torch.testing.assert_close(new[j].c, c, rtol=0, atol=1e-13)
                h = gates[2] * torch.tanh(c)
        torch.testing.assert_close(new[j].h, h, rtol=0, atol=1e-13)
        below = h
    assert output is new[-1].h


def test_where_a_layer_sees_itself_alone_it_is_a_stack_of_lstms(generator: torch.Generator) -> None:
    # given resets that always give 1/2, and twice the weights from each layer to itself, none between layers
    cell, stack = GatedFeedbackCell(3, SIZE, feedback_layers=2).double(), Recurrent(LSTMCell, 3, SIZE, 2).double()
    with torch.no_grad():
        for layer, lstm in enumerate(stack.cells):
            order = torch.cat(
                [torch.arange(2 * SIZE), torch.arange(3 * SIZE, 4 * SIZE), torch.arange(2 * SIZE, 3 * SIZE)]
            )
            lstm.bias_hh.zero_()
            cell.get_parameter(f"weight_ih_l{layer}").copy_(lstm.weight_ih[order])
            cell.get_parameter(f"bias_l{layer}").copy_(lstm.bias_ih[order])
            cell.get_parameter(f"weight_hh_l{layer}").copy_(lstm.weight_hh[order[: 3 * SIZE]])
            feedback = cell.get_parameter(f"weight_hh_feedback_l{layer}").zero_()
            feedback[:, layer * SIZE : (layer + 1) * SIZE] = 2 * lstm.weight_hh[2 * SIZE : 3 * SIZE]
            cell.get_parameter(f"weight_reset_ih_l{layer}").zero_()
            cell.get_parameter(f"weight_reset_hh_l{layer}").zero_()
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator)

    outputs, state = unroll(cell, inputs)

    torch.testing.assert_close((outputs, state), stack(inputs), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback_layers": 0}, "feedback_layers is 0, expected 1 or more"),
        ({"unit": "rnn"}, "unit is 'rnn', expected one of tanh, gru, lstm"),
    ],
)
def test_options_that_make_no_cell_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedFeedbackCell(3, 5, **options)


def test_the_forget_bias_is_the_forget_gates() -> None:
    cell = GatedFeedbackCell(3, 5, forget_bias=-2.5)

    for layer in range(2):
        assert (cell.get_parameter(f"bias_l{layer}") == -2.5).tolist() == [False] * 5 + [True] * 5 + [False] * 10
