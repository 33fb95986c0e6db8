"""Decoders and encoders: what they may know, and that stepping is the same as reading at once."""

from functools import partial
from typing import Any

import pytest
import torch

from unrolled import AutoregressiveDecoder, ElmanCell, GRUCell, LSTMCell, Recurrent, RecurrentEncoder
from unrolled.state import leaves

CELLS = [ElmanCell, GRUCell, LSTMCell]


def decoder(cell: type = LSTMCell, **options: Any) -> AutoregressiveDecoder:
    torch.manual_seed(0)
    core = partial(Recurrent, cell, hidden_size=8, num_layers=2)
    return AutoregressiveDecoder.of_tokens(11, 5, core, **options).double().eval()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"learned_initial_state": True}, {"dropout": 0.3}])
@pytest.mark.parametrize("moment", [0, 3, 6])
def test_logits_never_know_later_tokens(cell: type, options: dict, moment: int, generator: torch.Generator) -> None:
    core = partial(Recurrent, cell, hidden_size=5, num_layers=2, **options)
    network = AutoregressiveDecoder.of_tokens(11, 5, core, input_dropout=0.2, output_dropout=0.2).double().eval()
    tokens = torch.randint(11, (3, 8), generator=generator)
    changed = tokens.clone()
    changed[:, moment + 1 :] = (changed[:, moment + 1 :] + 1) % 11
    state, memory = network.start(3)

    before = network(tokens, state, memory).parameters
    after = network(changed, state, memory).parameters

    torch.testing.assert_close(before[:, : moment + 1], after[:, : moment + 1], rtol=0, atol=0)
    assert not torch.equal(before[:, moment + 1 :], after[:, moment + 1 :])


@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_one_pass(cell: type, generator: torch.Generator) -> None:
    network = decoder(cell)
    tokens = torch.randint(11, (3, 6), generator=generator)
    state, memory = network.start(3)

    whole = network(tokens, state, memory)
    stepped = []
    for token in tokens.unbind(1):
        decoded = network.step(token, state, memory)
        stepped.append(decoded.parameters)
        state = decoded.state

    torch.testing.assert_close(torch.stack(stepped, 1), whole.parameters, rtol=0, atol=1e-13)
    for one, other in zip(leaves(state), leaves(whole.state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_a_state_from_a_summary_depends_on_it(generator: torch.Generator) -> None:
    encoder = RecurrentEncoder.of_tokens(7, 4, partial(Recurrent, GRUCell, hidden_size=6)).double().eval()
    network = decoder(source_size=encoder.output_size)
    source = torch.randint(7, (2, 5), generator=generator)

    encoded = encoder(source, torch.tensor([5, 3]))
    state, _ = network.start(2, encoded)

    assert all(not torch.equal(leaf[0], leaf[1]) for leaf in leaves(state))
    with pytest.raises(ValueError, match="pass `encoded`"):
        network.start(2)


def test_a_summary_is_what_each_direction_has_read_in_full(generator: torch.Generator) -> None:
    encoder = RecurrentEncoder.of_tokens(7, 4, partial(Recurrent, GRUCell, hidden_size=6, num_layers=2)).double().eval()
    source = torch.randint(7, (3, 5), generator=generator)
    lengths = torch.tensor([5, 2, 0])

    encoded = encoder(source, lengths)

    for row, length in enumerate(lengths.tolist()):
        alone = encoder(source[row : row + 1, :length]).summary
        torch.testing.assert_close(encoded.summary[row : row + 1], alone, rtol=0, atol=1e-13)


def test_tied_weights_are_one_parameter() -> None:
    network = AutoregressiveDecoder.of_tokens(11, 8, partial(Recurrent, LSTMCell, hidden_size=8), tied=True)

    assert network.head.linear.weight is network.embedding.weight
    assert len({id(p) for p in network.parameters()}) == len(list(network.parameters()))


def test_a_scaled_embedding_is_read_times_the_root_of_its_size() -> None:
    core = partial(Recurrent, LSTMCell, hidden_size=8)
    scaled = AutoregressiveDecoder.of_tokens(11, 8, core, tied=True, scaled_embedding=True).double()
    plain = AutoregressiveDecoder.of_tokens(11, 8, core, tied=False).double()
    plain.load_state_dict(scaled.state_dict())
    with torch.no_grad():
        plain.embedding.weight.mul_(8**0.5)
    tokens = torch.randint(11, (3, 4))

    expected = plain(tokens, plain.start(3)[0]).parameters

    torch.testing.assert_close(scaled(tokens, scaled.start(3)[0]).parameters, expected, rtol=0, atol=1e-12)


def test_tied_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"embedding\.size equal to the size of the head's input, 8, got 5"):
        decoder(tied=True)
