"""Encoder and decoder together: what is shared, what is refused, what a file keeps, and that it learns."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    CharacterTokenizer,
    EncoderDecoder,
    GRUCell,
    LSTMCell,
    Recurrent,
    RecurrentEncoder,
    build,
    cross_entropy,
    greedy,
    load_bundle,
)
from unrolled.processing.transform import Processor
from unrolled.sequences import mask_from_lengths

EMBEDDING: dict[str, Any] = {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 9, "size": 4}
CORE: dict[str, Any] = {
    "_target_": "unrolled.Recurrent",
    "_partial_": True,
    "cell": {"_target_": "unrolled.GRUCell", "_partial_": True},
    "hidden_size": 6,
}


def description(attention: str = "AdditiveAttention", **options: Any) -> dict[str, Any]:
    shared = options.pop("shared_embedding", False)
    encoder = {"_target_": "unrolled.RecurrentEncoder", "embedding": EMBEDDING, "core": CORE}
    decoder = {
        "_target_": "unrolled.AutoregressiveDecoder",
        "_partial_": True,
        "embedding": EMBEDDING,
        "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 9},
        "core": CORE,
        "attention": {"_target_": f"unrolled.{attention}", "_partial_": True},
        **options,
    }
    network = {"_target_": "unrolled.EncoderDecoder", "encoder": encoder, "decoder": decoder}
    return {**network, "shared_embedding": shared}


def network(cell: Any = GRUCell, **options: Any) -> Any:
    torch.manual_seed(0)
    core = partial(Recurrent, cell, hidden_size=6)
    sizes = {"vocabulary_size": 9, "embedding_size": 4, **options.pop("decoder", {})}
    decoder = partial(AutoregressiveDecoder.of_tokens, core=core, attention=AdditiveAttention, **sizes)
    return EncoderDecoder(RecurrentEncoder.of_tokens(9, 4, core), decoder, **options)


@pytest.fixture
def batch(generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "source": torch.randint(9, (3, 5), generator=generator),
        "source_lengths": torch.tensor([5, 2, 0]),
        "inputs": torch.randint(9, (3, 4), generator=generator),
        "lengths": torch.tensor([4, 1, 3]),
    }


@pytest.mark.parametrize("cell", [GRUCell, LSTMCell])
def test_teacher_forcing_is_a_start_and_a_pass(cell: Any, batch: dict[str, Tensor]) -> None:
    whole = network(cell).double()

    decoded = whole(**batch)

    encoded = whole.encoder(batch["source"], batch["source_lengths"])
    state, memory = whole.decoder.start(3, encoded)
    expected = whole.decoder(batch["inputs"], state, memory, batch["lengths"])
    assert torch.equal(decoded.parameters, expected.parameters)
    assert torch.equal(decoded.weights, expected.weights)
    assert torch.equal(whole.encode(batch["source"], batch["source_lengths"]).tokens, batch["source"])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_decoder_is_made_for_what_the_encoder_gives(bidirectional: bool) -> None:
    core = partial(Recurrent, GRUCell, hidden_size=6)
    encoder = RecurrentEncoder.of_tokens(9, 4, core, bidirectional=bidirectional)

    whole = EncoderDecoder(encoder, partial(AutoregressiveDecoder.of_tokens, 9, 4, core, AdditiveAttention))

    assert whole.decoder.attention.source_size == encoder.output_size == 6 * (1 + bidirectional)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_one_embedding_may_serve_all(tied: bool, scaled: bool, batch: dict[str, Tensor]) -> None:
    whole = network(shared_embedding=True, decoder={"tied": tied, "scaled_embedding": scaled})

    whole(**batch).parameters.sum().backward()

    shared = whole.encoder.embedding.weight
    assert shared is whole.decoder.embedding.weight
    assert (shared is whole.decoder.head.linear.weight) == tied
    assert len([p for p in whole.parameters() if p.shape == (9, 4)]) == 1
    assert shared.abs().max() <= 0.5 or not tied  # the output layer's scale
    scale = shared.shape[1] ** 0.5 if tied and scaled else 1.0
    for part in (whole.encoder, whole.decoder):
        torch.testing.assert_close(part.embedding(torch.arange(3)), shared[:3] * scale)


def test_embeddings_of_unequal_shape_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match=r"got \(9, 4\) in the encoder and \(9, 5\) in the decoder"):
        network(shared_embedding=True, decoder={"embedding_size": 5})


def test_ids_that_the_decoder_lacks_cannot_be_copied() -> None:
    with pytest.raises(ValueError, match="which has 9, and the decoder has 8"):
        network(decoder={"vocabulary_size": 8, "copy": True})


ATTENTIONS = ["AdditiveAttention", "LocationAttention", "MultiplicativeAttention", "SummaryAttention"]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_network_is_built_without_memory(attention: str) -> None:
    with torch.device("meta"):
        whole = build(description(attention, tied=True, shared_embedding=True))

    assert all(parameter.is_meta for parameter in whole.parameters())


@pytest.mark.parametrize("options", [{}, {"tied": True, "shared_embedding": True}, {"copy": True}])
def test_a_file_keeps_weights_and_what_they_share(
    options: dict[str, Any], batch: dict[str, Tensor], tmp_path: Path
) -> None:
    whole = build(description(**options)).eval()
    weights = {f"network.{name}": value for name, value in whole.state_dict().items()}
    ours = {
        "format": 2,
        "network": description(**options),
        "processor": Processor(CharacterTokenizer("abcdefg")).to_dict(),
        "info": {},
    }
    torch.save({"state_dict": weights, "unrolled": ours}, tmp_path / "best.ckpt")

    loaded: Any = load_bundle(tmp_path / "best.ckpt").network

    assert torch.equal(loaded(**batch).parameters, whole(**batch).parameters)
    if "tied" in options:
        assert loaded.encoder.embedding.weight is loaded.decoder.head.linear.weight


def test_it_learns_to_write_eight_words_backwards() -> None:
    torch.manual_seed(0)
    words = ["abcde", "bdace", "eab", "cc", "d", "edcba", "acbd", "beda"]
    codec = CharacterTokenizer("abcde")
    lengths = torch.tensor([len(word) for word in words])
    source = torch.zeros(8, 5, dtype=torch.long)
    targets = torch.full((8, 6), codec.start)
    for row, word in enumerate(words):
        source[row, : len(word)] = torch.tensor(codec.encode(word))
        targets[row, : len(word)] = torch.tensor(codec.encode(word[::-1]))
    inputs = torch.cat([torch.full((8, 1), codec.start), targets[:, :-1]], dim=1)
    core = partial(Recurrent, GRUCell, hidden_size=24)
    decoder = partial(AutoregressiveDecoder.of_tokens, codec.size, 12, core, AdditiveAttention)
    whole = EncoderDecoder(RecurrentEncoder.of_tokens(codec.size, 12, core), decoder)
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.02)

    for _ in range(80):
        loss = cross_entropy(
            whole(source, lengths, inputs, lengths + 1).parameters, targets, mask_from_lengths(lengths + 1, 6)
        )
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()

    start = torch.full((8,), codec.start)
    state, memory = whole.eval().start(source, lengths)
    written = greedy(whole.decoder, state, memory, start=start, stop=codec.start, max_length=8)
    found = [codec.decode(ids[:n]) for ids, n in zip(written.values.tolist(), written.lengths.tolist(), strict=True)]
    assert found == [word[::-1] for word in words]
