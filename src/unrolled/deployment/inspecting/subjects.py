"""Runs a network of any task on one source while it is recorded, and says what is to be explained."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.checkpoint import Bundle
from unrolled.deployment.captioning import CAPTIONS
from unrolled.deployment.classification import Limits, Notices, classifier_of, predicted_values, prediction, read_source
from unrolled.deployment.decoding import search, start_decoding
from unrolled.deployment.sampling import sample_text
from unrolled.deployment.tagging import encode_sentences
from unrolled.generation.search import Search
from unrolled.inspection.panels import Figure, Heatmaps, Lines, Symbols, Table
from unrolled.inspection.recorder import Recording, record
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.decoders.base import Decoder
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.labels import LabelEncoder, LabelSequenceEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.words import TokenizedWords, WordTransform
from unrolled.wording import article

MAX_STEPS = 400
"""Maximum number of steps of a text; more than that no figure can show."""


START = "<start>"
_READER = "encoder.core"  # the cells that read a source; the embedding of spelled words has others


class Explained(NamedTuple):
    """A number whose gradients are shown.

    Attributes:
        number: with its graph.
        what: what it is, such as "the loss of the last character".
        is_loss: whether less is better.
        part: beginning of the names of the cells whose gradients are shown.
        step: the step that it belongs to; None for the last one, which backwards is the first.
    """

    number: Tensor
    what: str
    is_loss: bool = True
    part: str = ""
    step: int | None = None


class Subject(NamedTuple):
    """A network that has run on one source.

    Attributes:
        network: the network.
        recording: its record, with graph.
        facts: names and values for the beginning of the report.
        explained: what is explained, the main thing first.
        symbols: a name for each step of the cells whose names begin with a part; empty for frames.
        saliency_of: the part whose inputs are weighed by what they contribute to the first number explained.
        figures: figures of this task.
        history: for a language model the inputs and targets, (1, time) each.
    """

    network: nn.Module
    recording: Recording
    facts: dict[str, str]
    explained: list[Explained]
    symbols: Mapping[str, Sequence[str]]
    saliency_of: str
    figures: list[Figure]
    history: tuple[Tensor, Tensor] | None = None


def subject(bundle: Bundle, source: Any, generator: torch.Generator | None = None) -> Subject:
    """Run a network on a source.

    Args:
        bundle: a bundle from `load_bundle`.
        source: what the network reads: a text, or what `classify` and `caption` accept. None for a language model,
            which then samples a text.
        generator: random number generator for this sample.

    Raises:
        ValueError: a network that this report doesn't know or that has no recurrent cell, a source that can't be read.
    """
    network = bundle.network
    if isinstance(network, Decoder):
        return _language_model(bundle, source, generator)
    if source is None:
        raise ValueError("this network reads a source: pass a text or a file")
    if isinstance(network, SequenceClassifier):
        return _classifier(bundle, source)
    if isinstance(network, SequenceTagger):
        return _tagger(bundle, source)
    if isinstance(network, EncoderDecoder):
        return _encoder_decoder(bundle, source)
    raise ValueError(
        f"{article(type(network).__name__)} can't be inspected with a report, which knows language models, "
        "classifiers, taggers and encoder-decoders; use unrolled.inspection in Python"
    )


def _language_model(bundle: Bundle, source: Any, generator: torch.Generator | None) -> Subject:
    decoder, (tokenizer, target) = bundle.network, bundle.processor
    if not isinstance(decoder, Decoder) or not isinstance(tokenizer, Tokenizer) or target is not None:
        raise ValueError("only a decoder of text without a source can be inspected as a language model")
    origin = "given"
    if source is None:
        origin = "sampled from the network at the temperature 0.8"
        source = sample_text(bundle, length=300, temperature=0.8, generator=generator)
    ids = tokenizer.encode(_text(source))[:MAX_STEPS]
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


def _classifier(bundle: Bundle, source: Any) -> Subject:
    network, transform, target = classifier_of(bundle)
    given = _text(source) if isinstance(transform, Tokenizer) else source
    read = read_source(transform, given, 1, Limits(steps=MAX_STEPS), Notices(None))
    device = next(network.parameters()).device
    inputs, lengths = read[None].to(device), torch.tensor([len(read)])
    with record(network, graph=True) as recording:
        parameters = network(inputs, lengths)
    values = predicted_values(network, parameters, target)[0]
    if isinstance(target, Scaler):
        number, what = parameters[0, 0], f"the predicted {target.names[0]}"
        shown = dict(zip(target.names, target.format(values.tolist()), strict=True))
        facts = {"Prediction": ", ".join(f"{name} = {value}" for name, value in shown.items())}
    else:
        found = prediction(values.detach(), target)
        number, what = parameters[0].max(), f"the logit of {quoted(next(iter(found.values)))}"
        best = list(found.values.items())[:3]
        facts = {"Prediction": ", ".join(f"{label} ({share:.3f})" for label, share in best)}
    explained = Explained(number, what, is_loss=False, part=_READER)
    symbols: dict[str, list[str]] = {}
    figures = [_prefixes(network, inputs, lengths, target)]
    if isinstance(transform, Tokenizer):
        symbols[_READER] = symbols_of(transform, read.tolist())
        facts["Source"] = f"{len(read):,} {transform.unit}s"
    else:
        facts["Source"] = (
            f"{source if isinstance(source, str) else 'given'}: {len(read):,} steps of {read.shape[1]} features"
        )
        figures.append(_frames(read))
    return Subject(network, recording, facts, [explained], symbols, _READER, figures)


def _prefixes(network: SequenceClassifier, inputs: Tensor, lengths: Tensor, target: LabelEncoder | Scaler) -> Figure:
    """Show the prediction after each share of the source."""
    shares = [number / 20 for number in range(1, 21)]
    with torch.no_grad():
        values = predicted_values(network, network.predict_prefixes(inputs, lengths, shares)[0], target)
    x = [100.0 * share for share in shares]
    if isinstance(target, Scaler):
        curves = {name: values[:, number].tolist() for number, name in enumerate(target.names)}
        settled = _settled((values - values[-1]).abs().amax(1) <= 0.05 * values[-1].abs().amax().clamp(min=1e-9))
        sentence = f"The prediction when only the beginning is known. It is within 5 % of the last from {settled} on."
        return Figure("Prediction from the beginning alone", sentence, Lines(x, curves, "share read (%)", "value"))
    best = values[-1].argsort(descending=True)[:3].tolist()
    curves = {target.labels[index]: values[:, index].tolist() for index in best}
    settled = _settled(values.argmax(1) == best[0])
    sentence = (
        "The probabilities when only the beginning is known. "
        f"{quoted(target.labels[best[0]])} is the most probable label from {settled} on."
    )
    return Figure("Prediction from the beginning alone", sentence, Lines(x, curves, "share read (%)", "probability"))


def _settled(right: Tensor) -> str:
    """Say from which of equally spaced shares on a condition holds."""
    wrong = (~right).nonzero()
    return f"{100 * ((int(wrong[-1]) + 1 if len(wrong) else 0) + 1) // len(right)} %"


def _frames(read: Tensor) -> Figure:
    low, high = (float(extreme) for extreme in read.aminmax())
    sentence = f"What the network reads: a row for each feature, a column for each step; from {low:.3g} to {high:.3g}."
    return Figure("Source", sentence, Heatmaps({"input": (read.T, low, max(high, low + 1e-6))}, "step", "feature"))


def _tagger(bundle: Bundle, source: Any) -> Subject:
    network, (transform, target) = cast(SequenceTagger, bundle.network), bundle.processor
    if not isinstance(transform, WordTransform) or not isinstance(target, LabelSequenceEncoder):
        raise ValueError("only a tagger of words can be inspected with a report")
    words = _text(source).split()
    batch = encode_sentences(transform, [words])
    words = words[: int(batch.words[0])]
    if not words:
        raise ValueError("the text has no words")
    device = next(network.parameters()).device
    with record(network, graph=True) as recording:
        parameters = network(batch.source.to(device), batch.lengths.to(device), batch.positions.to(device))
    chances = parameters[0].detach().softmax(-1).max(-1)
    tags = [target.labels[index] for index in chances.indices.tolist()]
    rows = [(w, tag, f"{c:.3f}") for w, tag, c in zip(words, tags, chances.values.tolist(), strict=True)]
    least = int(chances.values.argmin())
    sentence = (
        f"The network is least sure of {quoted(words[least])}, {tags[least]} with {float(chances.values[least]):.3f}."
    )
    middle = len(words) // 2
    what = f"the logit of {tags[middle]} for {quoted(words[middle])}, word {middle + 1} of {len(words)}"
    step = int(batch.positions[0, middle])
    explained = Explained(parameters[0, middle].max(), what, is_loss=False, part=_READER, step=step)
    names = [f"{word} " for word in words]
    if isinstance(transform, TokenizedWords):
        names = symbols_of(transform.tokenizer, batch.source[0].tolist())
    figures = [Figure("Tags", sentence, Table(("word", "tag", "probability"), rows))]
    return Subject(network, recording, {"Source": " ".join(words)}, [explained], {_READER: names}, _READER, figures)


def _encoder_decoder(bundle: Bundle, source: Any) -> Subject:
    network, (transform, tokenizer) = cast(EncoderDecoder, bundle.network), bundle.processor
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError("only an encoder-decoder that writes text can be inspected with a report")
    device = next(network.parameters()).device
    symbols: dict[str, list[str]] = {}
    if isinstance(transform, Tokenizer):
        ids = transform.encode(_text(source))[:MAX_STEPS]
        if not ids:
            raise ValueError(f"the text {source!r:.60} has no known {transform.unit}")
        read, lengths, options = torch.tensor([ids], device=device), torch.tensor([len(ids)], device=device), Search()
        symbols[_READER] = symbols_of(transform, ids)
        shown = _text(source)
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
        Explained(losses.sum(), "the loss of the whole text", part=_READER),
        Explained(losses[-2] if names else losses[-1], last, part="decoder", step=max(len(losses) - 2, 0)),
    ]
    facts = {
        "Source": shown,
        "Text": tokenizer.decode(written),
        "Loss": f"{float(losses.detach().mean()):.3f} nats per {tokenizer.unit}",
    }
    figures = (
        [] if decoded.weights is None else [_attention(decoded.weights[0].detach(), names, symbols.get(_READER, []))]
    )
    return Subject(network, recording, facts, explained, symbols, _READER, figures)


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


def symbols_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of each id; words are followed by a space, so that they can be joined."""
    return [f"{name} " if tokenizer.unit == "word" else name for name in tokenizer.symbols(ids)]


def quoted(symbol: str) -> str:
    """Return a symbol in quotation marks, with white space made visible."""
    return f"“{visible(symbol).rstrip()}”"


def visible(symbol: str) -> str:
    """Return a symbol, with a sign for white space that stands alone."""
    return symbol if symbol.strip() else symbol.replace("\n", "↵").replace("\t", "→").replace(" ", "␣")


def _text(source: Any) -> str:
    if not isinstance(source, str):
        raise ValueError(f"this network reads text, not {article(type(source).__name__)}")
    return source
