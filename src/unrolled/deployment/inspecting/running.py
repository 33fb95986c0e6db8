"""Runs the network of any task on one source."""

from typing import Any

import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment.inspecting.predictors import classifier, stepwise, tagger
from unrolled.deployment.inspecting.subjects import Subject
from unrolled.deployment.inspecting.writers import encoder_decoder, language_model
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.decoders.base import Decoder
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.text.words import WordTransform
from unrolled.wording import article


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
        return language_model(bundle, source, generator)
    if source is None:
        raise ValueError("this network reads a source: pass a text or a file")
    if isinstance(network, SequenceClassifier):
        return classifier(bundle, source)
    if isinstance(network, SequenceTagger):
        words = isinstance(bundle.processor.source, WordTransform)
        return tagger(bundle, source) if words else stepwise(bundle, source)
    if isinstance(network, EncoderDecoder):
        return encoder_decoder(bundle, source)
    raise ValueError(
        f"{article(type(network).__name__)} can't be inspected with a report, which knows language models, "
        "classifiers, taggers and encoder-decoders; use unrolled.inspection in Python"
    )
