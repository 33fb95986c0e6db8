"""Networks in C that predict step by step: classifiers, taggers, and decoders without a source, as language models."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unrolled.deployment.export.c.cells import write_core
from unrolled.deployment.export.c.interface import Interface
from unrolled.deployment.export.c.layers import (
    Values,
    write_embedding,
    write_encoder,
    write_head,
    write_pooling,
    write_rectified,
    write_values,
    write_wide,
)
from unrolled.deployment.export.c.source import Body, Source, comment
from unrolled.heads.base import Head
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.decoders.autoregressive import AutoregressiveDecoder
from unrolled.models.embeddings import OneHotEmbedding, TokenEmbedding
from unrolled.models.encoders import RecurrentEncoder
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.audio.features import AudioFeatures
from unrolled.processing.frames import ImageSequence, SeriesScaler
from unrolled.processing.numbers import Scaler
from unrolled.processing.transform import Processor, Transform


class Inputs(NamedTuple):
    """What a step reads.

    Attributes:
        tokens: number of token ids; None for frames.
        features: number of features of a frame.
        conditions: number of features that are known of a step, besides.
    """

    tokens: int | None
    features: int
    conditions: int = 0


def write_stepped(source: Source, network: nn.Module, processor: Processor) -> Interface:
    """Write a network that predicts at each step.

    Raises:
        ValueError: a network, or a part of it, that cannot be written in C.
    """
    body = Body()
    head, about = _WRITERS[type(network)](source, network, body)
    inputs = inputs_of(network)
    sizes = {"OUTPUTS": head.output_size}
    if inputs.tokens is not None:
        sizes["VOCABULARY"] = inputs.tokens
        body.lines[:0] = ["if (token < 0 || token >= $$_VOCABULARY) return 0;"]
        body.add("return 1;")
        parameters = "int token"
        reads = "Reads a token, an id from 0 to $$_VOCABULARY - 1, and writes"
        after = "Returns 1, or 0 for another id, which changes nothing."
    else:
        sizes["INPUTS"] = inputs.features
        parameters = f"const float *{_scaled(source, body, processor.source)}"
        reads = f"Reads a frame, {_frame_of(processor.source)}, and writes"
        after = ""
    if inputs.conditions:
        sizes["CONDITIONS"] = inputs.conditions
        parameters += ", const float *conditions"
        reads = reads.replace(", and writes", " and $$_CONDITIONS numbers that are known of the step, and writes")
    signature = f"{'void' if inputs.tokens is None else 'int'} $_step($_state *state, {parameters}, float *outputs)"
    source.function(signature, body)
    of = "for all steps so far" if isinstance(network, SequenceClassifier) else "for this step"
    what = f"{reads} the $$_OUTPUTS outputs {of}. {after}"
    declarations = [f"{comment(what.strip())}\n{signature};"]
    values = write_values(source, head, _restored(processor.target))
    if values is not None:
        declarations.append(predicted(values))
        sizes["VALUES"] = values.size
    return Interface(about, sizes, declarations)


def predicted(values: Values) -> str:
    """Return the declaration of the function that computes what outputs mean."""
    what = f"Computes the $$_VALUES values of outputs: {values.about}. Both may be the same array."
    return f"{comment(what)}\nvoid $_predict(const float *outputs, float *values);"


def _classifier(source: Source, network: Any, body: Body) -> tuple[Head, str]:
    known = cast(SequenceClassifier, network)
    pooled = write_pooling(source, known.pooling, body, write_encoder(source, known.encoder, body))
    if known.hidden is not None:
        pooled = write_rectified(source, cast("nn.Sequential", known.hidden)[0], body, pooled)  # pyright: ignore[reportArgumentType]
    write_head(source, known.head, body, pooled, "outputs")
    if known.wide is not None:
        write_wide(source, known.wide, body, "outputs")
    return known.head, "a classifier of sequences"


def _tagger(source: Source, network: Any, body: Body) -> tuple[Head, str]:
    known = cast(SequenceTagger, network)
    write_head(source, known.head, body, write_encoder(source, known.encoder, body), "outputs")
    return known.head, "a network that predicts at each step"


def _decoder(source: Source, network: Any, body: Body) -> tuple[Head, str]:
    known = cast(AutoregressiveDecoder, network)
    if known.attention is not None or known.bridge is not None or known.first is not None:
        raise ValueError(
            "a decoder that starts from a source, as for translation or captioning, cannot be written in C; one "
            "without source_size, such as a language model, can"
        )
    tied = known.head.linear.weight is getattr(known.embedding, "weight", None)
    embedded = write_embedding(source, known.embedding, body, tied=tied)
    size = known.embedding.output_size
    if known.condition_size:
        joined = body.array(size + known.condition_size)
        body.each(size, f"{joined}[j] = {embedded}[j];")
        body.each(known.condition_size, f"{joined}[{size} + j] = conditions[j];")
        embedded = joined
    write_head(source, known.head, body, write_core(source, known.core, body, embedded), "outputs")
    about = "a language model" if known.input_axes == "" else "a network that predicts the next frame"
    return known.head, about


_WRITERS: dict[type[nn.Module], Callable[[Source, Any, Body], tuple[Head, str]]] = {
    SequenceClassifier: _classifier,
    SequenceTagger: _tagger,
    AutoregressiveDecoder: _decoder,
}
STEPPED = tuple(_WRITERS)


def inputs_of(network: nn.Module) -> Inputs:
    """Return what a step of a network reads."""
    if isinstance(network, AutoregressiveDecoder):
        return _embedded(network.embedding, network.condition_size)
    encoder = cast(Any, network).encoder
    return _embedded(encoder.embedding) if isinstance(encoder, RecurrentEncoder) else Inputs(None, encoder.input_size)


def _embedded(embedding: Any, conditions: int = 0) -> Inputs:
    if isinstance(embedding, TokenEmbedding):
        return Inputs(embedding.num_embeddings, 0, conditions)
    if isinstance(embedding, OneHotEmbedding):
        return Inputs(embedding.output_size, 0, conditions)
    return Inputs(None, embedding.input_size, conditions)


def _scaled(source: Source, body: Body, transform: Transform) -> str:
    """Scale a frame at the start of a step, as the processor does, and return the name of the step's argument."""
    size = cast(Any, transform).output_size if isinstance(transform, SeriesScaler | ImageSequence) else 0
    if isinstance(transform, SeriesScaler):
        centers, scales = transform.centers, transform.scales
    elif isinstance(transform, ImageSequence):
        given = (transform.center, transform.scale)
        centers, scales = (torch.full((size,), number, dtype=torch.float64) for number in given)
    else:
        return "inputs"
    if bool((centers == 0).all()) and bool((scales == 1).all()):
        return "inputs"
    # What is left of a center after rounding to float32 keeps small changes of large numbers.
    center, rest = source.vector(centers), source.vector(centers - centers.float().double())
    step, body.lines = body.lines, []
    body.array(size, "inputs")
    body.each(size, f"inputs[j] = ((values[j] - {center}[j]) - {rest}[j]) / {source.vector(scales)}[j];")
    body.add(*step)
    return "values"


def _frame_of(transform: Transform) -> str:
    if isinstance(transform, SeriesScaler):
        names = ", ".join(transform.channels)
        return f"the $$_INPUTS numbers {names} in their own units"
    if isinstance(transform, ImageSequence):
        return f"the $$_INPUTS values of a step of the image ({transform.order}), from 0 to 1"
    if isinstance(transform, AudioFeatures):
        return "$$_INPUTS features as $_frame computes them"
    return "$$_INPUTS numbers as the network reads them"


def _restored(transform: Transform | None) -> tuple[Tensor, Tensor] | None:
    """Return center and scale of predicted numbers."""
    if not isinstance(transform, Scaler) or transform.bounded:
        return None
    return torch.tensor(transform.centers, dtype=torch.float64), torch.tensor(transform.scales, dtype=torch.float64)
