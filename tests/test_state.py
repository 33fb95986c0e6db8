"""The laws of states as values."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import HiddenState, LSTMState, ShapeError
from unrolled.state import detach, leaves, map_state, rebuild, select, state_at, where


@pytest.fixture
def state(generator: torch.Generator) -> Any:
    """A state with all that a state may hold: named tuples, pairs, tensors of any rank, nothing."""

    def rows(*shape: int) -> Tensor:
        return torch.randn(4, *shape, generator=generator)

    return (LSTMState(rows(3), rows(3)), (HiddenState(rows(2)), HiddenState(rows(2))), rows(), None, rows(5, 2))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def test_mapping_keeps_the_structure_and_its_types(state: Any) -> None:
    mapped = map_state(lambda leaf: leaf + 1, state)

    assert [type(node) for node in mapped] == [LSTMState, tuple, Tensor, type(None), Tensor]
    assert same(map_state(lambda leaf: leaf - 1, mapped), map_state(lambda leaf: (leaf + 1) - 1, state))


def test_mapping_pairs_what_stands_at_the_same_place(state: Any) -> None:
    assert same(map_state(torch.sub, state, state), map_state(torch.zeros_like, state))


@pytest.mark.parametrize(
    "other",
    [(torch.zeros(1),), (torch.zeros(1), None), (None, torch.zeros(1)), ((torch.zeros(1),), torch.zeros(1))],
)
def test_states_of_different_structure_are_refused(other: Any) -> None:
    with pytest.raises(ValueError, match="differ in structure"):
        map_state(torch.add, (torch.zeros(1), torch.zeros(1)), other)


def test_an_lstm_state_is_not_a_plain_pair() -> None:
    pair = (torch.zeros(1), torch.zeros(1))

    with pytest.raises(ValueError, match="LSTMState of 2 and tuple of 2"):
        map_state(torch.add, LSTMState(*pair), pair)  # pyright: ignore[reportArgumentType]


def test_a_list_is_not_a_state() -> None:
    with pytest.raises(TypeError, match="not list"):
        leaves([torch.zeros(1)])


def test_rebuild_is_the_inverse_of_leaves(state: Any) -> None:
    rebuilt = rebuild(map_state(torch.zeros_like, state), leaves(state))

    assert same(rebuilt, state)
    assert len(leaves(state)) == 6
    assert isinstance(rebuilt[0], LSTMState)
    assert rebuilt[3] is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rebuild_wants_as_many_tensors_as_the_state_has(count: int) -> None:
    like = LSTMState(torch.zeros(2, 3), torch.zeros(2, 3))

    with pytest.raises(ValueError, match=f"the state has 2 tensors, {count} are given"):
        rebuild(like, [torch.zeros(2, 3)] * count)


def test_rebuild_wants_the_same_shapes() -> None:
    with pytest.raises(ValueError, match=r"tensor 0 of the state has the shape \(2, 3\), not \(2, 4\)"):
        rebuild(HiddenState(torch.zeros(2, 3)), [torch.zeros(2, 4)])


def test_selecting_twice_is_selecting_once(state: Any) -> None:
    first, second = torch.tensor([3, 1, 1, 0, 2]), torch.tensor([4, 4, 0])

    assert same(select(select(state, first), second), select(state, first[second]))
    assert same(select(state, torch.arange(4)), state)


def test_where_takes_whole_rows(state: Any) -> None:
    mask = torch.tensor([True, False, False, True])
    other = map_state(torch.zeros_like, state)

    mixed = where(mask, state, other)

    assert same(select(mixed, mask.nonzero()[:, 0]), select(state, mask.nonzero()[:, 0]))
    assert same(select(mixed, (~mask).nonzero()[:, 0]), select(other, (~mask).nonzero()[:, 0]))
    assert same(where(mask, state, state), state)
    assert same(where(~mask, other, state), mixed)


def test_where_lets_no_gradient_into_rows_that_were_not_taken() -> None:
    poisoned = torch.full((2, 3), torch.nan, requires_grad=True)
    kept = torch.ones(2, 3, requires_grad=True)

    where(torch.tensor([False, False]), poisoned, kept).sum().backward()

    assert poisoned.grad is not None
    assert not poisoned.grad.any()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 1, dtype=torch.bool), r"mask has the shape \(4, 1\), expected \(batch\)"),
        (torch.ones(3, dtype=torch.bool), "the mask has 3 rows, the state 4"),
        (torch.ones(4), r"the mask is torch\.float32, expected torch\.bool"),
    ],
)
def test_where_refuses_masks_that_are_none(state: Any, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        where(mask, state, state)

    assert isinstance(error.value, ShapeError) == (mask.dtype == torch.bool)


def test_detached_values_stay_and_their_history_goes() -> None:
    h = torch.ones(2, 3, requires_grad=True) * 2

    cut = detach((HiddenState(h), None))

    assert torch.equal(cut[0].h, h)
    assert not cut[0].h.requires_grad


def test_each_row_gets_the_state_behind_its_own_last_step(state: Any) -> None:
    states = [map_state(lambda leaf, step=step: leaf + step, state) for step in range(4)]
    lengths = [3, 0, 1, 1]

    picked = state_at(states, torch.tensor(lengths))

    for row, length in enumerate(lengths):
        alone = torch.tensor([row])
        assert same(select(picked, alone), select(states[length], alone))
    assert state_at(states, None) is states[-1]
