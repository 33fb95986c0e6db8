"""Reset marks: sequences side by side in a row are what they are apart, for every cell, backend and direction."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    Encoded,
    FeatureEncoder,
    FeedForward,
    GRUCell,
    LSTMCell,
    NumbersHead,
    PeepholeLSTMCell,
    Recurrent,
    SequenceTagger,
    Stretches,
)
from unrolled.shapes import ShapeError
from unrolled.state import leaves, map_state, rebuild, select, where

LENGTHS = torch.tensor([9, 9, 5, 1, 0, 8])
ROWS, TIME = len(LENGTHS), 9


def marks(generator: torch.Generator) -> Tensor:
    drawn = torch.rand(ROWS, TIME, generator=generator) < 0.3
    drawn[0], drawn[1] = False, True  # a row without a mark, and one with a mark at every step
    return drawn


def apart(network: Recurrent, inputs: Tensor, state: Any, resets: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
    """Each sequence on its own; the first has the row's forward state, the last its backward state."""
    fresh = network.initial_state(1, like=inputs)
    rows, finals = [], []
    for row, length in enumerate(lengths.tolist()):
        given = select(state, torch.tensor([row]))
        cuts = sorted({0, length, *(t for t in range(length) if resets[row, t])})
        pieces = list(pairwise(cuts))
        outputs, final = [], given
        for number, (begin, end) in enumerate(pieces):
            ahead = fresh if bool(resets[row, begin]) else given
            if network.bidirectional:
                behind = given if number == len(pieces) - 1 else fresh
                before = tuple((one[0], other[1]) for one, other in zip(ahead, behind, strict=True))
            else:
                before = ahead
            output, after = network(inputs[row : row + 1, begin:end], before)
            outputs.append(output[0])
            if network.bidirectional:
                kept = after if number == 0 else final
                final = tuple((one[0], other[1]) for one, other in zip(after, kept, strict=True))
            else:
                final = after
        whole = torch.cat([*outputs, inputs.new_zeros(TIME - length, network.output_size)])
        rows.append(whole)
        finals.append(final)
    columns = zip(*(leaves(final) for final in finals), strict=True)
    return torch.stack(rows), rebuild(state, [torch.cat(column) for column in columns])


def gradients(outputs: Tensor, state: Any, network: Recurrent, inputs: Tensor, start: Any) -> list[Tensor]:
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    total = (outputs * weights).sum() + sum(leaf.square().sum() for leaf in leaves(state) if leaf.is_floating_point())
    wanted = [inputs, *network.parameters(), *(leaf for leaf in leaves(start) if leaf.requires_grad)]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(one) if each is None else each for one, each in zip(wanted, found, strict=True)]


def check(network: Recurrent, generator: torch.Generator, lengths: Tensor = LENGTHS) -> None:
    network = network.double()
    inputs = torch.randn(ROWS, TIME, 3, generator=generator, dtype=torch.float64).requires_grad_()
    start = map_state(
        lambda leaf: (
            torch.randn(leaf.shape, generator=generator, dtype=torch.float64).requires_grad_()
            if leaf.is_floating_point()
            else leaf
        ),
        network.initial_state(ROWS, like=inputs),
    )
    resets = marks(generator)

    outputs, state = network(inputs, start, lengths, resets)
    expected, final = apart(network, inputs, start, resets, lengths)

    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    for one, other in zip(leaves(state), leaves(final), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    ours = gradients(outputs, state, network, inputs, start)
    theirs = gradients(expected, final, network, inputs, start)
    for one, other in zip(ours, theirs, strict=True):  # rtol: those of a layer norm can be in the thousands
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"learned_initial_state": True}])
def test_every_cell(make_cell: Any, options: dict[str, Any], generator: torch.Generator) -> None:
    check(Recurrent(make_cell, 3, 4, backend="loop", **options), generator)


@pytest.mark.parametrize("backend", ["loop", "fused", "compiled"])
@pytest.mark.parametrize("cell", [LSTMCell, GRUCell, PeepholeLSTMCell])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"num_layers": 2, "bidirectional": True, "learned_initial_state": True},
        {"num_layers": 3, "residual": True},
        {"recompute": True, "bidirectional": True},
    ],
)
def test_every_backend(backend: str, cell: Any, options: dict[str, Any], generator: torch.Generator) -> None:
    if backend == "fused" and cell is PeepholeLSTMCell:
        pytest.skip("torch has no kernel for this cell")
    torch.manual_seed(0)
    check(Recurrent(cell, 3, 4, backend=backend, **options), generator)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("way", ["rows", "cuts"])
def test_both_ways_are_equal(
    bidirectional: bool, way: str, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """Whichever is estimated to be cheaper; here the other one would raise an error."""
    monkeypatch.setattr("unrolled.backends.stretches._CUT", 1e9 if way == "rows" else -1e9)
    monkeypatch.setattr(f"unrolled.backends.stretches._{'cuts' if way == 'rows' else 'rows'}", None)
    check(Recurrent(GRUCell, 3, 4, 2, backend="fused", bidirectional=bidirectional), generator)


settled = settings(max_examples=40, derandomize=True, deadline=None)


@settled
@given(
    resets=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    ends=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_any_marks_and_lengths(resets: list[list[bool]], ends: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(ends[: len(resets)])
    given_marks = torch.tensor(resets)
    network = Recurrent(LSTMCell, 2, 3, backend="compiled", bidirectional=bool(seed % 2)).double().eval()
    inputs = torch.randn(len(resets), 5, 2, generator=generator, dtype=torch.float64)
    inputs = inputs.masked_fill(torch.arange(5)[None, :, None] >= lengths[:, None, None], torch.nan)
    state = map_state(lambda leaf: leaf + 0.3, network.initial_state(len(resets), like=inputs))

    stretches = Stretches.of(given_marks, lengths)
    outputs, final = network(inputs, state, lengths, given_marks)
    again, _ = network(inputs, state, lengths, stretches)

    assert torch.equal(outputs, again)
    loop = Recurrent(LSTMCell, 2, 3, backend="loop", bidirectional=bool(seed % 2)).double().eval()
    loop.load_state_dict(network.state_dict())
    expected, other = loop(inputs, state, lengths, given_marks)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    for one, two in zip(leaves(final), leaves(other), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    assert int(stretches.lengths.sum()) == int(lengths.sum())


def test_without_marks_it_is_the_plain_pass(generator: torch.Generator) -> None:
    network = Recurrent(LSTMCell, 3, 4, 2, bidirectional=True)
    inputs = torch.randn(ROWS, TIME, 3, generator=generator)
    nowhere = torch.zeros(ROWS, TIME, dtype=torch.bool)
    padding = nowhere.clone()
    padding[2, 5:] = padding[4] = True  # in the padding of LENGTHS

    for lengths, given_marks in ((None, nowhere), (LENGTHS, nowhere), (LENGTHS, padding)):
        plain, marked = network(inputs, None, lengths), network(inputs, None, lengths, given_marks)
        assert torch.equal(plain[0], marked[0])
        assert all(map(torch.equal, leaves(plain[1]), leaves(marked[1])))


def test_a_mark_at_the_first_step_drops_the_carried_state(generator: torch.Generator) -> None:
    network = Recurrent(GRUCell, 3, 4, learned_initial_state=True)
    inputs = torch.randn(2, 5, 3, generator=generator)
    state = map_state(lambda leaf: leaf + 1.0, network.initial_state(2, like=inputs))
    resets = torch.zeros(2, 5, dtype=torch.bool)
    resets[1, 0] = True

    outputs, _ = network(inputs, state, None, resets)

    mixed = where(resets[:, 0], network.initial_state(2, like=inputs), state)
    assert torch.equal(outputs, network(inputs, mixed)[0])


@pytest.mark.parametrize("backend", ["loop", "compiled"])
@pytest.mark.parametrize(
    "options",
    [
        {"cell": partial(LSTMCell, recurrent_dropout=0.5)},
        {"cell": partial(GRUCell, recurrent_dropout=0.5, weight_drop=0.3)},
        {"cell": GRUCell, "num_layers": 2, "dropout": 0.5, "variational_dropout": True},
        {
            "cell": GRUCell,
            "num_layers": 2,
            "dropout": 0.5,
            "residual": True,
            "residual_dropout": 0.5,
            "variational_dropout": True,
        },
    ],
)
def test_noise_is_drawn_for_each_sequence(backend: str, options: dict[str, Any], generator: torch.Generator) -> None:
    """Two equal sequences in a row differ, and a seed gives the same noise with each backend."""
    network = Recurrent(input_size=3, hidden_size=32, backend=backend, **options).double().train()
    other = Recurrent(input_size=3, hidden_size=32, backend="fused" if backend == "loop" else "loop", **options)
    other.backend = "loop"
    other.double().train().load_state_dict(network.state_dict())
    piece = torch.randn(1, 8, 3, generator=generator, dtype=torch.float64)
    inputs = torch.cat([piece, piece], dim=1)
    resets = torch.zeros(1, 16, dtype=torch.bool)
    resets[0, 8] = True

    torch.manual_seed(5)
    outputs, _ = network(inputs, None, None, resets)
    torch.manual_seed(5)
    same, _ = other(inputs, None, None, resets)

    assert not torch.allclose(outputs[:, :8], outputs[:, 8:])
    torch.testing.assert_close(outputs, same, rtol=0, atol=1e-12)
    dropped = not options.get("dropout")
    if dropped and "weight_drop" not in options["cell"].keywords:
        torch.manual_seed(5)
        rows, _ = network(torch.cat([piece, piece]))  # the same noise for two rows
        torch.testing.assert_close(torch.cat([rows[:1], rows[1:]], dim=1), outputs, rtol=0, atol=1e-12)


def test_residual_dropout_has_a_mask_for_each_sequence(generator: torch.Generator) -> None:
    network = Recurrent(GRUCell, 3, 64, residual=True, residual_dropout=0.5, variational_dropout=True)
    resets = torch.zeros(1, 16, dtype=torch.bool)
    resets[0, 8] = True

    outputs, _ = network(torch.randn(1, 16, 3, generator=generator), None, None, resets)

    dropped = outputs[0] == 0
    assert torch.equal(dropped[:8], dropped[:1].expand(8, -1))
    assert torch.equal(dropped[8:], dropped[8:9].expand(8, -1))
    assert not torch.equal(dropped[0], dropped[8])


def test_networks_of_steps_and_decoders_take_marks(generator: torch.Generator) -> None:
    frames = torch.randn(2, 6, 3, generator=generator)
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[0, 2] = resets[1, 4] = True
    core = partial(Recurrent, GRUCell, hidden_size=4)
    tagger = SequenceTagger(FeatureEncoder(3, core, bidirectional=False), partial(NumbersHead, num_outputs=1)).eval()
    decoder = AutoregressiveDecoder.of_tokens(5, 4, core).eval()
    tokens = torch.randint(5, (2, 6), generator=generator)
    calls: list[tuple[Callable[..., Tensor], Tensor]] = [
        (lambda x, marks=None: tagger.run(x, None, None, marks)[0], frames),
        (lambda x, marks=None: decoder(x, resets=marks).parameters, tokens),
    ]

    for call, source in calls:
        found = call(source, resets)
        torch.testing.assert_close(found[:1, :2], call(source[:1, :2]))
        torch.testing.assert_close(found[:1, 2:], call(source[:1, 2:]))
        torch.testing.assert_close(found[1:, 4:], call(source[1:, 4:]))
    plain = FeedForward(3, 4)
    assert torch.equal(plain(frames, None, None, resets)[0], plain(frames)[0])


def test_torch_compile_reads_marks_and_export_refuses_them(generator: torch.Generator) -> None:
    network = Recurrent(GRUCell, 3, 4, backend="loop").eval()
    inputs = torch.randn(2, 6, 3, generator=generator)
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[0, 2] = True

    compiled = torch.compile(network, backend="eager")

    assert torch.equal(compiled(inputs, None, None, resets)[0], network(inputs, None, None, resets)[0])
    exported = torch.export.export(network, (inputs,))
    assert torch.equal(exported.module()(inputs)[0], network(inputs)[0])
    with pytest.raises(Exception, match="a program with them can't be exported"):
        torch.export.export(network, (inputs, None, None, resets))


def test_what_cannot_be_is_named() -> None:
    network = Recurrent(GRUCell, 3, 4)
    inputs = torch.zeros(2, 5, 3)
    with pytest.raises(ShapeError, match="resets has the shape"):
        network(inputs, None, None, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"resets are torch\.float32, expected bool"):
        network(inputs, None, None, torch.zeros(2, 5))
    with pytest.raises(ShapeError, match="resets has the shape"):
        network(inputs, None, None, Stretches.of(torch.zeros(3, 5, dtype=torch.bool)))
    core = partial(Recurrent, GRUCell, hidden_size=4)
    decoder = AutoregressiveDecoder.of_tokens(5, 4, core, AdditiveAttention, 4)
    state, memory = decoder.start(2, Encoded(torch.zeros(2, 3, 4), None, torch.zeros(2, 4), None))
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="a decoder with a source has one source per row"):
        decoder(tokens, state, memory, resets=torch.zeros(2, 5, dtype=torch.bool))
    convolved = FeatureEncoder(3, core, bidirectional=False, conv_channels=2, conv_frames=3)
    with pytest.raises(ValueError, match="conv_frames=3 reads past frames"):
        convolved.run(inputs, None, None, torch.zeros(2, 5, dtype=torch.bool))
