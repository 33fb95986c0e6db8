"""Runs networks that predict something of a source, or at each of its steps, while they are recorded."""

from typing import Any, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.classification import classifier_of, predicted_values, prediction
from unrolled.deployment.inspecting.subjects import (
    MAX_STEPS,
    READER,
    Explained,
    Subject,
    quoted,
    symbols_of,
    text_of,
)
from unrolled.deployment.reading import Limits, Notices, read_source
from unrolled.deployment.tagging import encode_sentences
from unrolled.heads.categorical import CategoricalHead
from unrolled.heads.labels import LabelsHead
from unrolled.inspection.panels import Figure, Heatmaps, Lines, Table
from unrolled.inspection.recorder import record
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.frames import FeatureExtractor
from unrolled.processing.labels import LabelEncoder, LabelSequenceEncoder
from unrolled.processing.numbers import Scaler
from unrolled.processing.text.base import Tokenizer
from unrolled.processing.text.words import TokenizedWords, WordTransform


def classifier(bundle: Bundle, source: Any) -> Subject:
    """Run a classifier or a regression; the logit of the prediction, or the first number, is explained."""
    network, transform, target = classifier_of(bundle)
    given = text_of(source) if isinstance(transform, Tokenizer) else source
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
    explained = Explained(number, what, is_loss=False, part=READER)
    symbols: dict[str, list[str]] = {}
    figures = [_prefixes(network, inputs, lengths, target)]
    if isinstance(transform, Tokenizer):
        symbols[READER] = symbols_of(transform, read.tolist())
        facts["Source"] = f"{len(read):,} {transform.unit}s"
    else:
        facts["Source"] = (
            f"{source if isinstance(source, str) else 'given'}: {len(read):,} steps of {read.shape[1]} features"
        )
        figures.append(_frames(read))
    return Subject(network, recording, facts, [explained], symbols, READER, figures)


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


def tagger(bundle: Bundle, source: Any) -> Subject:
    """Run a tagger of words; the tag of the word in the middle is explained."""
    network, (transform, target) = cast(SequenceTagger, bundle.network), bundle.processor
    if not isinstance(transform, WordTransform) or not isinstance(target, LabelSequenceEncoder):
        raise ValueError("only a tagger of words can be inspected with a report")
    words = text_of(source).split()
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
    explained = Explained(parameters[0, middle].max(), what, is_loss=False, part=READER, step=step)
    names = [f"{word} " for word in words]
    if isinstance(transform, TokenizedWords):
        names = symbols_of(transform.tokenizer, batch.source[0].tolist())
    figures = [Figure("Tags", sentence, Table(("word", "tag", "probability"), rows))]
    return Subject(network, recording, {"Source": " ".join(words)}, [explained], {READER: names}, READER, figures)


def stepwise(bundle: Bundle, source: Any) -> Subject:
    """Run a network that predicts at each step of symbols or frames; the prediction at the last step is explained."""
    network, (transform, target) = cast(SequenceTagger, bundle.network), bundle.processor
    if not isinstance(transform, LabelSequenceEncoder | FeatureExtractor) or not isinstance(
        target, LabelEncoder | Scaler
    ):
        raise ValueError("only predictions from words, symbols or frames, at each step, can be inspected with a report")
    names: list[str] = []
    facts: dict[str, str] = {}
    if isinstance(transform, LabelSequenceEncoder):
        names = _labels_in(text_of(source), transform)[:MAX_STEPS]
        read = torch.tensor(transform.encode(names))
        names = [name if all(len(label) == 1 for label in transform.labels) else f"{name} " for name in names]
        facts["Source"] = "".join(names)
    else:
        read = transform.encode(source)[:MAX_STEPS]
        facts["Source"] = f"{len(read):,} steps of {read.shape[1]} features"
    if len(read) == 0:
        raise ValueError("the source has no steps")
    device = next(network.parameters()).device
    with record(network, graph=True) as recording:
        parameters = network(read[None].to(device), torch.tensor([len(read)]))
    outputs = target.names if isinstance(target, Scaler) else target.labels
    if isinstance(network.head, CategoricalHead | LabelsHead):
        values, low, high = network.head.probabilities(parameters)[0].detach(), 0.0, 1.0
    else:
        values = network.head.predict(parameters)[0].detach()
        values = target.restore(values) if isinstance(target, Scaler) and not target.bounded else values
        low, high = (float(extreme) for extreme in values.aminmax())
    best = int(values[-1].argmax())
    bounds = low, max(high, low + 1e-6)
    panel = Heatmaps({"": (values.T, *bounds)}, "step", "output", columns=names, rows=outputs)
    sentence = (
        f"Each row is an output, each column a step; lighter is more. The greatest at the last step is "
        f"{quoted(outputs[best])} with {float(values[-1, best]):.3f}."
    )
    explained = Explained(
        parameters[0, -1].max(),
        f"the greatest output at the last step, {quoted(outputs[best])}",
        is_loss=False,
        part=READER,
    )
    symbols = {READER: names} if names else {}
    return Subject(network, recording, facts, [explained], symbols, READER, [Figure("Predictions", sentence, panel)])


def _labels_in(text: str, transform: LabelSequenceEncoder) -> list[str]:
    """Return the labels of a text: its characters, or its words if labels have several characters."""
    return list("".join(text.split())) if all(len(label) == 1 for label in transform.labels) else text.split()
