"""Words embedded by their spelling: a word's vector depends on that word alone, and unknown words differ."""

from functools import partial
from typing import Any

import pytest
import torch

from unrolled import (
    CategoricalHead,
    CharacterTokenizer,
    FeedForward,
    GRUCell,
    LSTMCell,
    ProjectedLSTMCell,
    Recurrent,
    RecurrentEncoder,
    SequenceTagger,
    SpacedTokenizer,
    SpelledWordEmbedding,
    SpelledWords,
)

CORES: list[Any] = [
    None,
    partial(Recurrent, LSTMCell, hidden_size=3),
    partial(Recurrent, GRUCell, hidden_size=9),
    partial(Recurrent, partial(ProjectedLSTMCell, projection_size=2), hidden_size=3),
    partial(FeedForward, hidden_size=3),
]
WORDS = SpelledWords(SpacedTokenizer(["the", "cat"], True), CharacterTokenizer("abcdefghijklmnopqrstuvwxyzTE"))


def embedding(core: Any) -> SpelledWordEmbedding:
    torch.manual_seed(0)
    options = {"character_size": 5, "spelling_size": 6, "core": core, "init_std": 0.1}
    return SpelledWordEmbedding(WORDS.size, 4, WORDS.alphabet_size, **options).double().eval()


@pytest.mark.parametrize("core", CORES)
def test_a_word_in_a_batch_is_the_word_alone(core: Any) -> None:
    network = embedding(core)
    texts = [["the", "cat", "sat"], ["thE", "the", "hippopotamus", "a"], []]

    padded, _ = WORDS.collate([WORDS.encode(words) for words in texts])
    together = network(padded)

    assert together.shape == (3, 4, network.output_size)
    for row, words in enumerate(texts):
        for place, word in enumerate(words):
            alone = network(WORDS.encode([word]))[0]
            torch.testing.assert_close(together[row, place], alone, rtol=0, atol=1e-12)
    assert torch.equal(together[1, 0, :4], together[1, 1, :4])  # one word in two cases
    assert not torch.equal(together[1, 0, 4:], together[1, 1, 4:])  # with different characters
    assert torch.equal(together[1, 2, :4], together[1, 3, :4])  # two unknown words
    assert not torch.equal(together[1, 2, 4:], together[1, 3, 4:])


def test_a_recurrent_core_reads_characters_in_both_directions() -> None:
    network = embedding(CORES[1])
    spelled = WORDS.encode(["cats"])
    inputs = network.characters(spelled[:, 1:])

    values, _ = network.core(inputs)  # pyright: ignore[reportOptionalCall]

    expected = torch.cat([values[0, -1, :3], values[0, 0, 3:]])
    torch.testing.assert_close(network(spelled)[0, 4:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("core", CORES)
def test_nothing_is_a_batch_too(core: Any) -> None:
    network = embedding(core)

    padded, lengths = WORDS.collate([WORDS.encode([]), WORDS.encode([])])
    assert network(padded).shape == (2, 0, network.output_size)
    assert lengths.tolist() == [0, 0]
    network(padded).sum().backward()


def test_tags_of_unknown_words_are_learned_from_their_spelling() -> None:
    """Words on -ly are adverbs, however they begin: a network without characters can't know."""
    generator = torch.Generator().manual_seed(0)
    letters = "bcdfgkmnpr"

    def word(ending: str) -> str:
        drawn = torch.randint(len(letters), (4,), generator=generator)
        return "".join(letters[i] for i in drawn) + ending

    def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        tags = torch.randint(2, (rows, 5), generator=generator)
        texts = [[word("ly" if tag else "ed") for tag in row] for row in tags.tolist()]
        return WORDS.collate([WORDS.encode(text) for text in texts])[0], tags

    torch.manual_seed(0)
    core = partial(Recurrent, GRUCell, hidden_size=8)
    words = SpelledWordEmbedding(WORDS.size, 4, WORDS.alphabet_size, spelling_size=8, character_size=8)
    network = SequenceTagger(RecurrentEncoder(words, core), partial(CategoricalHead, num_classes=2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        source, tags = batch(16)
        loss = network.head.loss(network(source), tags).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    source, tags = batch(50)
    assert (network(source).argmax(-1) == tags).float().mean() > 0.97


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="spelling_size=7: expected an even number"):
        SpelledWordEmbedding(9, 4, 9, spelling_size=7, core=CORES[1])
    with pytest.raises(ValueError, match=r"alphabet_size=0, .* must be 1 or more"):
        SpelledWordEmbedding(9, 4, 0)
    with pytest.raises(ValueError, match=r"embedding_dropout=0\.5 drops words of a vocabulary"):
        RecurrentEncoder(SpelledWordEmbedding(9, 4, 9), CORES[1], embedding_dropout=0.5)
