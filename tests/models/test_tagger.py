"""A tagger: each step's prediction, carried states, positions, and any head."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    CategoricalHead,
    CTCHead,
    FeatureEncoder,
    FeedForward,
    GRUCell,
    LSTMCell,
    NumbersHead,
    Recurrent,
    RecurrentEncoder,
    SequenceTagger,
)
from unrolled.sequences import mask_from_lengths
from unrolled.shapes import ShapeError

CORES: list[Any] = [
    partial(Recurrent, GRUCell, hidden_size=5, num_layers=2, dropout=0.3),
    partial(Recurrent, LSTMCell, hidden_size=5),
    partial(FeedForward, hidden_size=5),
]
OPTIONS: list[dict[str, Any]] = [{}, {"filters": 4}, {"conv_channels": 2, "conv_frames": 3, "conv_norm": True}]


def tagger(core: Any, *, bidirectional: bool = False, **options: Any) -> SequenceTagger:
    torch.manual_seed(0)
    encoder = FeatureEncoder(3, core, bidirectional=bidirectional, **options)
    head = partial(CategoricalHead, num_classes=4)
    return SequenceTagger(encoder, head, output_dropout=0.5).double().eval()


def frames(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("options", OPTIONS)
def test_windows_and_steps_with_carried_state_are_one_pass(
    core: Any, options: dict[str, Any], generator: torch.Generator
) -> None:
    network, source = tagger(core, **options), frames(generator)
    whole = network(source)

    state, windows = None, []
    for window in source.split(3, dim=1):
        found, state = network.run(window, state)
        windows.append(found)
    after, stepped = network.initial_state(4), []
    for frame in source.unbind(1):
        found, after = network.step(frame, after)
        stepped.append(found)

    torch.testing.assert_close(torch.cat(windows, 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(stepped, 1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_row_of_a_batch_is_the_row_alone(
    bidirectional: bool, options: dict[str, Any], generator: torch.Generator
) -> None:
    network = tagger(CORES[0], bidirectional=bidirectional, **options)
    lengths = torch.tensor([7, 2, 0, 4])
    source = frames(generator).masked_fill(~mask_from_lengths(lengths, 7).unsqueeze(-1), torch.nan)

    together = network(source, lengths)

    for row, length in enumerate(lengths.tolist()):
        alone = network(source[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=0, atol=1e-12)


def test_predictions_at_positions_are_those_of_the_steps(generator: torch.Generator) -> None:
    encoder = RecurrentEncoder.of_tokens(9, 4, CORES[0], output_dropout=0.3)
    network = SequenceTagger(encoder, partial(CategoricalHead, num_classes=4)).double().eval()
    tokens = torch.randint(9, (2, 6), generator=generator)
    positions = torch.tensor([[0, 2, 5], [1, 4, 0]])

    found = network(tokens, torch.tensor([6, 5]), positions)

    whole = network(tokens, torch.tensor([6, 5]))
    assert torch.equal(found, whole[torch.arange(2).unsqueeze(1), positions])
    with pytest.raises(ShapeError, match="positions has the shape"):
        network(tokens, None, positions[:1])
    with pytest.raises(ShapeError, match="the source has no step"):
        network(tokens[:, :0], None, positions)


def test_dropout_of_the_encoder_acts_in_windows_too(generator: torch.Generator) -> None:
    encoder = RecurrentEncoder.of_tokens(9, 4, CORES[1], bidirectional=False, output_dropout=0.5)
    network = SequenceTagger(encoder, partial(NumbersHead, num_outputs=1)).train()
    tokens = torch.randint(9, (2, 6), generator=generator)

    assert not torch.equal(network.run(tokens)[0], network.run(tokens)[0])


def test_what_needs_the_whole_source_is_refused(generator: torch.Generator) -> None:
    network = tagger(CORES[0], bidirectional=True)
    assert not network.streams
    with pytest.raises(ValueError, match="bidirectional"):
        network.run(frames(generator))
    with pytest.raises(ValueError, match="bidirectional"):
        network.step(frames(generator)[:, 0], network.initial_state(4))
    convolved = tagger(CORES[0], conv_channels=2)
    with pytest.raises(ValueError, match="windows without padding"):
        convolved.run(frames(generator), convolved.initial_state(4), torch.tensor([7, 2, 7, 7]))


def test_with_ctc_it_learns_to_transcribe_without_alignment() -> None:
    """Runs of noisy frames become the symbols that they show, whose borders no target tells."""
    torch.manual_seed(0)
    shapes = torch.eye(3)
    encoder = FeatureEncoder(3, partial(Recurrent, LSTMCell, hidden_size=16), bidirectional=True)
    network = SequenceTagger(encoder, partial(CTCHead, num_classes=4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)

    def example() -> tuple[Tensor, Tensor]:
        targets = torch.randint(1, 4, (3,))
        runs = [shapes[symbol - 1].expand(int(torch.randint(2, 5, ())), 3) for symbol in targets.tolist()]
        padded = torch.cat([row for run in runs for row in (run, torch.zeros(1, 3))])
        return padded + 0.1 * torch.randn(padded.shape), targets

    def batch(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        sources, targets = zip(*(example() for _ in range(rows)), strict=True)
        lengths = torch.tensor([len(source) for source in sources])
        return torch.nn.utils.rnn.pad_sequence(list(sources), batch_first=True), lengths, torch.stack(list(targets))

    for _ in range(80):
        source, lengths, targets = batch(16)
        mask = mask_from_lengths(lengths, source.shape[1])
        loss = network.head.loss(network(source, lengths), targets, mask)
        optimizer.zero_grad()
        loss.mean.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    source, lengths, targets = batch(50)
    network.eval()
    found = network(source, lengths).argmax(-1)
    texts = [torch.unique_consecutive(row[:length]) for row, length in zip(found, lengths, strict=True)]

    right = sum(text[text > 0].equal(target) for text, target in zip(texts, targets, strict=True))
    assert right >= 45
