"""Runs networks that write text, language models and encoder-decoders, while they are recorded."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.captioning import CAPTIONS
from unrolled.deployment.decoding import search, start_decoding
from unrolled.deployment.inspecting.subjects import (
    MAX_STEPS,
    READER,
    START,
    Explained,
    Subject,
    quoted,
    symbols_of,
    text_of,
)
from unrolled.deployment.sampling import sample_text
from unrolled.generation.search import Search
from unrolled.inspection.panels import Figure, Heatmaps, Symbols
from unrolled.inspection.recorder import record
from unrolled.models.decoders.base import Decoder
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.processing.text.base import Tokenizer


def language_model(bundle: Bundle, source: Any, generator: torch.Generator | None) -> Subject:
    """Run a language model on a text, by default one that it samples; the loss of the last symbol is explained."""
    decoder, (tokenizer, target) = bundle.network, bundle.processor
    if not isinstance(decoder, Decoder) or not isinstance(tokenizer, Tokenizer) or target is not None:
        raise ValueError("only a decoder of text without a source can be inspected as a language model")
    origin = "given"
    if source is None:
        origin = "sampled from the network at the temperature 0.8"
        source = sample_text(bundle, length=300, temperature=0.8, generator=generator)
    ids = tokenizer.encode(text_of(source))[:MAX_STEPS]
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} known {tokenizer.unit}s, expected 2 or more")
    device = next(decoder.parameters()).device
    inputs = torch.tensor([[tokenizer.start, *ids[:-1]]], device=device)
    targets = torch.tensor([ids], device=device)
    with record(decoder, graph=True) as recording:
        decoded = decoder(inputs)
    losses = decoder.head.losses(decoded.parameters, targets)[0]
    bits = losses.detach() / torch.log(torch.tensor(2.0))
    names = symbols_of(tokenizer, ids)
    worst = int(bits.argmax())
    surprise = Figure(
        "How unexpected each symbol is",
        "Symbols with more shade were less expected from those before them. The least expected one is "
        f"{quoted(names[worst])} after {quoted(tokenizer.decode(ids[max(worst - 12, 0) : worst]))}, with "
        f"{float(bits[worst]):.1f} bits.",
        Symbols(names, bits.tolist()),
    )
    facts = {
        "Text": f"{len(ids):,} {tokenizer.unit}s, {origin}",
        "Loss": f"{float(bits.mean()):.2f} bits per {tokenizer.unit}",
    }
    explained = [Explained(losses[-1], f"the loss of the last {tokenizer.unit}, {quoted(names[-1])}")]
    symbols = {"": [START, *names[:-1]]}
    return Subject(decoder, recording, facts, explained, symbols, "", [surprise], (inputs, targets))


def encoder_decoder(bundle: Bundle, source: Any) -> Subject:
    """Search for a text of a source, and run the network on both; the loss of the text is explained."""
    network, (transform, tokenizer) = cast(EncoderDecoder, bundle.network), bundle.processor
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError("only an encoder-decoder that writes text can be inspected with a report")
    device = next(network.parameters()).device
    symbols: dict[str, list[str]] = {}
    if isinstance(transform, Tokenizer):
        ids = transform.encode(text_of(source))[:MAX_STEPS]
        if not ids:
            raise ValueError(f"the text {source!r:.60} has no known {transform.unit}")
        read, lengths, options = torch.tensor([ids], device=device), torch.tensor([len(ids)], device=device), Search()
        symbols[READER] = symbols_of(transform, ids)
        shown = text_of(source)
    else:
        read, lengths, options = transform.encode(source)[None].to(device), None, CAPTIONS
        shown = str(source)
    with torch.no_grad():
        of_search = torch.zeros(1, dtype=torch.int64, device=device) if lengths is None else lengths
        found = search(*start_decoding([network], read, lengths), tokenizer, of_search, options)
    written = found.tokens[0, 0, : int(found.lengths[0, 0])].tolist()
    inputs = torch.tensor([[tokenizer.start, *written]], device=device)
    with record(network, graph=True) as recording:
        decoded = network(read, lengths, inputs)
    targets = torch.tensor([[*written, tokenizer.start]], device=device)
    losses = network.decoder.head.losses(decoded.parameters, targets)[0]
    names = symbols_of(tokenizer, written)
    symbols["decoder"] = [START, *names]
    last = f"the loss of the last {tokenizer.unit}, {quoted(names[-1])}" if names else "the loss of the end"
    explained = [
        Explained(losses.sum(), "the loss of the whole text", part=READER),
        Explained(losses[-2] if names else losses[-1], last, part="decoder", step=max(len(losses) - 2, 0)),
    ]
    facts = {
        "Source": shown,
        "Text": tokenizer.decode(written),
        "Loss": f"{float(losses.detach().mean()):.3f} nats per {tokenizer.unit}",
    }
    figures = (
        [] if decoded.weights is None else [_attention(decoded.weights[0].detach(), names, symbols.get(READER, []))]
    )
    return Subject(network, recording, facts, explained, symbols, READER, figures)


def _attention(weights: Tensor, written: Sequence[str], read: Sequence[str]) -> Figure:
    steps = weights[:, : len(read) or None]
    sharpest, rows = float(steps.max(1).values.mean()), [*written, "<end>"]
    columns = list(read) or [str(number + 1) for number in range(steps.shape[1])]
    sentence = (
        "Each row is a symbol that was written, each column one of the source; lighter is more attention. "
        f"The greatest weight of a row is {sharpest:.2f} on average; equal weights would be {1 / steps.shape[1]:.2f}."
    )
    maps = {"": (steps, 0.0, float(steps.max()))}
    return Figure("Attention", sentence, Heatmaps(maps, "source", "written", columns=columns, rows=rows))
