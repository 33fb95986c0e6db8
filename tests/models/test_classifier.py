"""A classifier: what it pools, and that it says step by step what it says about the whole."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AttentionPooling,
    CategoricalHead,
    ConcatPooling,
    ElmanCell,
    FeatureEncoder,
    FeedForward,
    GRUCell,
    LabelsHead,
    LastPooling,
    LSTMCell,
    MaxPooling,
    MeanPooling,
    NumbersHead,
    Pooling,
    Recurrent,
    RecurrentEncoder,
    SequenceClassifier,
    WidePath,
)
from unrolled.layers.encoded import Encoded
from unrolled.models.encoders import Core

JOINED = partial(ConcatPooling, poolings=[LastPooling, MeanPooling, MaxPooling, AttentionPooling])
POOLINGS: list[Callable[..., Pooling]] = [LastPooling, MeanPooling, MaxPooling, AttentionPooling, JOINED]
HEAD = partial(CategoricalHead, num_classes=2)


CORES: list[Any] = [
    partial(Recurrent, ElmanCell, hidden_size=5),
    partial(Recurrent, GRUCell, hidden_size=5, num_layers=2, dropout=0.3),
    partial(Recurrent, LSTMCell, hidden_size=5),
    partial(FeedForward, hidden_size=5, num_layers=2, dropout=0.3),
]
LENGTHS = torch.tensor([7, 0, 1, 4])
BANDS = {"conv_channels": 2, "conv_frames": 3, "conv_norm": True}


def classifier(core: Any, pooling: Any, *, bidirectional: bool = False, **options: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    encoder = FeatureEncoder(3, core, bidirectional=bidirectional, **options)
    return (
        SequenceClassifier(encoder, partial(CategoricalHead, num_classes=4), pooling, output_dropout=0.5, hidden_size=6)
        .double()
        .eval()
    )


def frames(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("options", [{}, {"filters": 4}, {"conv_channels": 2}, {"filters": 4, **BANDS}])
def test_step_by_step_it_says_what_it_says_about_the_whole(
    core: Any, pooling: Any, options: dict[str, int], generator: torch.Generator
) -> None:
    network, source = classifier(core, pooling, **options), frames(generator)
    state = network.initial_state(4)
    said: list[Tensor] = []
    for step in range(7):
        logits, state = network.step(source[:, step], state)
        said.append(logits)

    for step in range(7):
        expected = network(source[:, : step + 1])
        torch.testing.assert_close(said[step], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("options", [{"filters": 4}, {"conv_channels": 2}, BANDS])
def test_padding_never_matters(
    core: Any, pooling: Any, bidirectional: bool, options: dict[str, int], generator: torch.Generator
) -> None:
    network, source = classifier(core, pooling, bidirectional=bidirectional, **options), frames(generator)
    padded = source.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        padded[row, length:] = torch.nan

    logits = network(padded, LENGTHS)
    logits.sum().backward()

    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(logits[row], network(source[row : row + 1, :length])[0], rtol=0, atol=1e-12)
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_early_answers_are_those_to_the_beginnings(
    pooling: Any, bidirectional: bool, generator: torch.Generator
) -> None:
    network, source = classifier(CORES[1], pooling, bidirectional=bidirectional), frames(generator)
    shares = [0.1, 0.5, 1.0]

    early = network.predict_prefixes(source, LENGTHS, shares)

    assert early.shape == (4, 3, 4)
    for place, heard in enumerate(([1, 0, 1, 1], [4, 0, 1, 2], [7, 0, 1, 4])):
        torch.testing.assert_close(early[:, place], network(source, torch.tensor(heard)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"shares are \[0\.0\]"):
        network.predict_prefixes(source, LENGTHS, [0.0])


def test_a_share_that_is_a_whole_number_of_steps_is_not_rounded_up(generator: torch.Generator) -> None:
    network = classifier(CORES[0], LastPooling)
    source = torch.randn(1, 30, 3, generator=generator, dtype=torch.float64)

    early = network.predict_prefixes(
        source, torch.tensor([30]), [0.1, 0.7]
    )  # 0.1 × 30 and 0.7 × 30 are not whole in floats

    torch.testing.assert_close(early[0, 0], network(source[:, :3])[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(early[0, 1], network(source[:, :21])[0], rtol=0, atol=1e-12)


def test_the_poolings_are_what_their_names_say(generator: torch.Generator) -> None:
    values = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    encoded = Encoded(values, torch.tensor([5, 2]), values[:, -1])

    assert torch.equal(LastPooling(3)(encoded), values[:, -1])
    torch.testing.assert_close(MeanPooling(3)(encoded)[1], values[1, :2].mean(0))
    torch.testing.assert_close(MaxPooling(3)(encoded)[1], values[1, :2].amax(0))
    attention = AttentionPooling(3, 4).double()
    weights = attention.weights(encoded)
    scores = attention.score(torch.tanh(attention.hidden(values[1, :2]))).softmax(0)
    torch.testing.assert_close(weights[1, :2], scores[:, 0])
    assert bool((weights[1, 2:] == 0).all())
    torch.testing.assert_close(attention(encoded)[1], (scores * values[1, :2]).sum(0))


def test_words_are_classified_too(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder.of_tokens(9, 4, CORES[2], bidirectional=False, embedding_dropout=0.5)
    network = SequenceClassifier(encoder, partial(CategoricalHead, num_classes=2), MeanPooling).double().eval()
    words = torch.randint(9, (2, 5), generator=generator)
    state = network.initial_state(2)
    for step in range(5):
        logits, state = network.step(words[:, step], state)

    torch.testing.assert_close(logits, network(words), rtol=0, atol=1e-12)


def test_what_reads_backwards_cannot_step() -> None:
    network = classifier(CORES[1], MeanPooling, bidirectional=True)

    assert not network.streams
    with pytest.raises(ValueError, match="cannot step"):
        network.step(torch.zeros(1, 3, dtype=torch.float64), network.initial_state(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"output_dropout": 1.0}, "is 1.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    encoder = FeatureEncoder(3, CORES[0])
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(
            encoder, **{"head": partial(CategoricalHead, num_classes=2), "pooling": MeanPooling, **options}
        )


def test_a_dropped_word_is_dropped_wherever_it_stands() -> None:
    torch.manual_seed(1)
    encoder = RecurrentEncoder.of_tokens(30, 4, CORES[0], embedding_dropout=0.5)
    source = torch.arange(30).repeat(1, 2)

    embedded = encoder.embed(source)[0]

    dropped = (embedded == 0).all(-1)
    assert 0 < int(dropped[:30].sum()) < 30
    assert torch.equal(dropped[:30], dropped[30:])
    torch.testing.assert_close(embedded[~dropped], 2 * encoder.embedding(source[0])[~dropped])


def test_a_feed_forward_net_sees_one_step_and_has_no_state(generator: torch.Generator) -> None:
    network: Core = FeedForward(3, 5, 2, residual=True, bidirectional=True).double()
    inputs = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    other = inputs.clone()
    other[:, 1] = 9.0

    outputs, state = network(inputs)

    assert state == () == network.initial_state(2, like=inputs)
    torch.testing.assert_close(outputs[:, [0, 2, 3]], network(other)[0][:, [0, 2, 3]], rtol=0, atol=0)
    torch.testing.assert_close(network.step(inputs[:, 2], ())[0], outputs[:, 2])
    with pytest.raises(ValueError, match="activation is 'sine'"):
        FeedForward(3, 5, activation="sine")


def wide_classifier(*, bidirectional: bool = False, head: Any = HEAD, num_buckets: int = 7) -> SequenceClassifier:
    torch.manual_seed(0)
    encoder = RecurrentEncoder.of_tokens(9, 4, CORES[2], bidirectional=bidirectional)
    wide = partial(WidePath, vocabulary_size=9, num_buckets=num_buckets)
    network = SequenceClassifier(encoder, head, MeanPooling, wide=wide).double().eval()
    assert network.wide is not None
    for weight in network.wide.parameters():
        assert bool((weight == 0).all())
        torch.nn.init.normal_(weight)
    return network


@pytest.mark.parametrize("num_buckets", [0, 7])
@pytest.mark.parametrize("head", [HEAD, partial(LabelsHead, num_labels=3), partial(NumbersHead, num_outputs=2)])
def test_the_wide_path_adds_the_mean_weight_of_words_and_pairs(
    head: Any, num_buckets: int, generator: torch.Generator
) -> None:
    network = wide_classifier(head=head, num_buckets=num_buckets)
    source = torch.randint(9, (4, 7), generator=generator)
    outputs = network(source, LENGTHS)
    wide, network.wide = network.wide, None
    assert wide is not None
    found = outputs - network(source, LENGTHS)
    source[2, 1:] = 99  # padding may be anything
    assert torch.equal(wide(source, LENGTHS)[2], wide(source[2:3, :1])[0])

    for row, length in enumerate(LENGTHS.tolist()):
        ids = source[row, :length].tolist()
        weights = [wide.tokens.weight[i] for i in ids]
        if wide.pairs is not None:
            weights += [wide.pairs.weight[(a * 1_000_003 + b) % num_buckets] for a, b in pairwise(ids)]
        expected = torch.stack(weights).mean(0) if weights else torch.zeros_like(found[row])
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-12)


def test_the_wide_path_streams_and_knows_prefixes(generator: torch.Generator) -> None:
    network = wide_classifier()
    source = torch.randint(9, (4, 7), generator=generator)
    state = network.initial_state(4)
    for step in range(7):
        outputs, state = network.step(source[:, step], state)
        torch.testing.assert_close(outputs, network(source[:, : step + 1]), rtol=0, atol=1e-12)

    for each in (network, wide_classifier(bidirectional=True)):
        early = each.predict_prefixes(source, LENGTHS, [0.5, 1.0])
        for place, read in enumerate(([4, 0, 1, 2], [7, 0, 1, 4])):
            torch.testing.assert_close(early[:, place], each(source, torch.tensor(read)), rtol=0, atol=1e-12)


def test_a_wide_path_needs_tokens() -> None:
    with pytest.raises(ValueError, match="no TokenEmbedding"):
        SequenceClassifier(FeatureEncoder(3, CORES[0]), HEAD, MeanPooling, wide=partial(WidePath, vocabulary_size=9))
    with pytest.raises(ValueError, match="num_buckets=-1"):
        WidePath(2, 9, -1)


def test_joined_vectors_are_those_of_each_pooling(generator: torch.Generator) -> None:
    encoded = Encoded(torch.randn(4, 7, 3, generator=generator), LENGTHS, torch.zeros(4, 3))

    joined = ConcatPooling(3, [MeanPooling, MaxPooling])

    assert joined.output_size == 6
    assert torch.equal(joined(encoded), torch.cat([MeanPooling(3)(encoded), MaxPooling(3)(encoded)], dim=1))
    with pytest.raises(ValueError, match="poolings is empty"):
        ConcatPooling(3, [])
