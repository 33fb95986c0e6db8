"""The shape check: what it lets through, and what it says."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unrolled import FeatureEncoder, FeedForward, LSTMCell, Recurrent, ShapeError, expect, unroll


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_leading_dots_stand_for_any_number_of_axes(shape: tuple[int, ...]) -> None:
    expect(torch.zeros(shape), "... input", input=3)


def test_axes_without_a_size_may_have_any() -> None:
    expect(torch.zeros(0, 7, 3), "batch time input", input=3)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 4, 3), (2, 4, 5)])
def test_the_error_names_the_tensor_its_shape_and_what_was_expected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as error:
        expect(torch.zeros(shape), "batch time input", input=3, name="frames")

    assert str(error.value) == f"frames has the shape {shape}, expected (batch, time, input=3)"


def test_the_error_shows_open_axes() -> None:
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., input=3\)"):
        expect(torch.zeros(2, 4), "... input", input=3)


def test_a_size_for_an_axis_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"\['inputs'\], but the axes are 'batch input'"):
        expect(torch.zeros(2, 4), "batch input", inputs=4)


LENGTHS = [4, 2, 0]


@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_lengths_as_a_list_are_answered_by_the_tensor_to_give(backend: str) -> None:
    network, inputs = Recurrent(LSTMCell, 2, 5, backend=backend), torch.randn(3, 4, 2)
    encoder = FeatureEncoder(2, core=partial(Recurrent, LSTMCell, hidden_size=5))
    calls: list[Any] = [
        lambda lengths: network(inputs, lengths=lengths),
        lambda lengths: unroll(network.cells[0], inputs, lengths=lengths),
        lambda lengths: FeedForward(2, 5)(inputs, lengths=lengths),
        lambda lengths: encoder(inputs, lengths),
    ]
    for call in calls:
        for given in (LENGTHS, tuple(LENGTHS), 4):
            with pytest.raises(ShapeError, match=r"lengths must be a tensor \(batch\).*torch.as_tensor\(lengths\)"):
                call(given)
        call(torch.as_tensor(LENGTHS))


def test_a_packed_sequence_is_answered_by_the_call_that_unpacks_it() -> None:
    network = Recurrent(LSTMCell, 2, 5)
    values = torch.randn(3, 4, 2)
    packed = pack_padded_sequence(values, torch.tensor([4, 2, 1]), batch_first=True)

    with pytest.raises(ShapeError) as error:
        network(packed)  # pyright: ignore[reportArgumentType]
    remedy = str(error.value).partition(": ")[2]
    names: dict[str, Any] = {"torch": torch, "inputs": packed}
    exec(remedy, names)

    outputs: Tensor = network(names["values"], lengths=names["lengths"])[0]
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    assert torch.equal(names["values"], expected)
    assert outputs.shape == (3, 4, 5)
