"""Which graphs each kind of network is exported as."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.checkpoint import Bundle
from unrolled.deployment.export.forecasters import forecaster_graphs
from unrolled.deployment.export.graphs import (
    BATCH,
    Carried,
    Graph,
    Part,
    Port,
    Read,
    frozen,
    lengths_port,
    output_of,
    step_port,
    stepping,
    steps_port,
)
from unrolled.layers.encoded import Encoded
from unrolled.layers.recurrent import Recurrent
from unrolled.models.classifier import SequenceClassifier
from unrolled.models.decoders.base import Decoder
from unrolled.models.draw import DRAW
from unrolled.models.embeddings import FrameEmbedding
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.encoders import EmbeddingEncoder, Encoder, FeatureEncoder, RecurrentEncoder
from unrolled.models.forecasters.base import Forecaster
from unrolled.models.images.encoder import ImageEncoder
from unrolled.models.spelling import SpelledWordEmbedding
from unrolled.models.tagger import SequenceTagger
from unrolled.processing.images import ImageTransform
from unrolled.state import leaves
from unrolled.wording import article


def graphs_of(bundle: Bundle) -> list[Graph]:
    """Return the graphs of a trained network.

    Raises:
        ValueError: a network without such graphs, or with hooks.
    """
    network = frozen(bundle.network)
    for kind, graphs in _KINDS.items():
        if isinstance(network, kind):
            return graphs(network, bundle)
    raise ValueError(
        f"{article(type(network).__name__)} has no graphs to export; there are those of "
        f"{', '.join(kind.__name__ for kind in _KINDS)} and their subclasses"
    )


def _recurrent(network: Any, bundle: Bundle) -> list[Graph]:
    layers: Recurrent = network
    like = next(layers.parameters())
    state = Carried.of(layers.initial_state(1, like=like))

    def sequence(inputs: Tensor, lengths: Tensor, *given: Tensor) -> list[Tensor]:
        outputs, after = layers(inputs, state.rebuild(given), lengths)
        return [outputs, *leaves(after)]

    def step(inputs: Tensor, *given: Tensor) -> list[Tensor]:
        output, after = layers.step(inputs, state.rebuild(given))
        return [output, *leaves(after)]

    read = Read(layers.input_size, like.dtype)
    return _graphs(
        layers,
        state,
        ("outputs",),
        (steps_port("inputs", read), lengths_port()),
        sequence,
        (step_port("inputs", read),),
        None if layers.bidirectional else step,
    )


def _classifier(network: Any, bundle: Bundle) -> list[Graph]:
    classifier: SequenceClassifier = network
    read = _read_by(classifier.encoder)
    output = (output_of(classifier.head),)

    def sequence(inputs: Tensor, lengths: Tensor) -> list[Tensor]:
        return [classifier(inputs, lengths)]

    whole = Graph("sequence", Part(classifier, sequence), (steps_port("inputs", read), lengths_port()), output, {})
    if not classifier.streams:
        return [whole]
    state = Carried.of(classifier.initial_state(1))

    def step(inputs: Tensor, *given: Tensor) -> list[Tensor]:
        found, after = classifier.step(inputs, state.rebuild(given))
        return [found, *leaves(after)]

    return [whole, stepping(classifier, state, output, (step_port("inputs", read),), step)]


def _tagger(network: Any, bundle: Bundle) -> list[Graph]:
    tagger: SequenceTagger = network
    read = _read_by(tagger.encoder)
    output, inputs = (output_of(tagger.head),), (steps_port("inputs", read), lengths_port())
    if not tagger.streams:
        return [Graph("sequence", Part(tagger, lambda *given: [tagger(*given)]), inputs, output, {})]
    state = Carried.of(tagger.initial_state(1))

    def sequence(inputs: Tensor, lengths: Tensor, *given: Tensor) -> list[Tensor]:
        found, after = tagger.run(inputs, state.rebuild(given), lengths)
        return [found, *leaves(after)]

    def step(inputs: Tensor, *given: Tensor) -> list[Tensor]:
        found, after = tagger.step(inputs, state.rebuild(given))
        return [found, *leaves(after)]

    single = (step_port("inputs", read),)
    if isinstance(tagger.encoder, FeatureEncoder) and tagger.encoder.convolution is not None:
        # With a carried state, the convolution needs windows without padding.
        whole = Graph("sequence", Part(tagger, lambda *given: [tagger(*given)]), inputs, output, {})
        return [whole, stepping(tagger, state, output, single, step)]
    return _graphs(tagger, state, output, inputs, sequence, single, step)


def _decoder(network: Any, bundle: Bundle) -> list[Graph]:
    decoder: Decoder = network
    state = Carried.of(decoder.start(1)[0])
    conditions = decoder.condition_size

    def sequence(inputs: Tensor, lengths: Tensor, *given: Tensor) -> list[Tensor]:
        known, *carried = given if conditions else (None, *given)
        decoded = decoder(inputs, state.rebuild(_tensors(carried)), None, lengths, known)
        return [decoded.parameters, *leaves(decoded.state)]

    def step(inputs: Tensor, *given: Tensor) -> list[Tensor]:
        known, *carried = given if conditions else (None, *given)
        decoded = decoder.step(inputs, state.rebuild(_tensors(carried)), conditions=known)
        return [decoded.parameters, *leaves(decoded.state)]

    read = _embedded(decoder)
    several = (steps_port("inputs", read), lengths_port())
    single = (step_port("inputs", read),)
    if conditions:
        known = Read(conditions, next(decoder.parameters()).dtype)
        several += (steps_port("conditions", known),)
        single += (step_port("conditions", known),)
    return _graphs(decoder, state, (output_of(decoder.head),), several, sequence, single, step)


def _encoder_decoder(network: Any, bundle: Bundle) -> list[Graph]:
    pair: EncoderDecoder = network
    like = next(pair.parameters())
    image = isinstance(pair.encoder, ImageEncoder)
    if image:
        inputs = (_image_port(bundle, like),)
    else:
        inputs = (steps_port("inputs", _read_by(pair.encoder), "source"), lengths_port())

    def encode(*given: Tensor) -> list[Tensor]:
        encoded = pair.encode(*given)
        return [encoded.values, encoded.summary]

    with torch.no_grad():
        encoded = pair.encode(*(port.example[:1] for port in inputs))
        if not getattr(pair.decoder, "copy", False):
            encoded = encoded._replace(tokens=None)
        tokens = encoded.tokens
        longer = encoded._replace(
            values=torch.cat([encoded.values] * 2, 1), tokens=None if tokens is None else torch.cat([tokens] * 2, 1)
        )
        start, memory = pair.decoder.start(1, encoded)
        others = pair.decoder.start(1, longer)
    state = Carried.of(start, longer=others[0])
    read = Carried.of(memory, "memory", others[1])
    carried = (
        Port("values", encoded.values.expand(BATCH, -1, -1).clone(), ("batch", "source")),
        Port("summary", encoded.summary.expand(BATCH, -1).clone(), ("batch",)),
        *(() if image else (lengths_port(),)),
        *((Port("inputs", inputs[0].example, ("batch", "source")),) if tokens is not None else ()),
    )

    def begin(values: Tensor, summary: Tensor, *given: Tensor) -> list[Tensor]:
        lengths, ids = (*given, None, None)[:2]
        first, source = pair.decoder.start(values.shape[0], Encoded(values, lengths, summary, ids))
        return [*leaves(source), *leaves(first)]

    def step(inputs: Tensor, *given: Tensor) -> list[Tensor]:
        source, given = read.rebuild(given[: len(read.names)]), given[len(read.names) :]
        known, *before = given if conditions else (None, *given)
        decoded = pair.decoder.step(inputs, state.rebuild(_tensors(before)), source, conditions=known)
        weights = [] if decoded.weights is None else [decoded.weights]
        return [decoded.parameters, *weights, *leaves(decoded.state)]

    conditions = pair.decoder.condition_size
    single = (step_port("inputs", _embedded(pair.decoder)), *read.ports)
    if conditions:
        single += (step_port("conditions", Read(conditions, like.dtype)),)
    output = (output_of(pair.decoder.head), *(("weights",) if pair.decoder.attends else ()))
    return [
        Graph("encoder", Part(pair, encode), inputs, ("values", "summary"), {}),
        Graph("start" if memory is None else "attention", Part(pair, begin), carried, (*read.names, *state.names), {}),
        stepping(pair, state, output, single, step)._replace(initial={}),
    ]


def _draw(network: Any, bundle: Bundle) -> list[Graph]:
    drawer: DRAW = network
    state = Carried.of(drawer.initial_state(1))

    def step(latent: Tensor, *given: Tensor) -> list[Tensor]:
        glimpse, after = drawer.step(latent, state.rebuild(given))
        return [glimpse.canvas.sigmoid(), *leaves(after)]

    latent = step_port("latent", Read(drawer.latent_size, drawer.initial_canvas.dtype))
    return [stepping(drawer, state, ("pixels",), (latent,), step)]


_Build = Callable[[Any, Bundle], list[Graph]]
_KINDS: dict[type[nn.Module], _Build] = {
    Recurrent: _recurrent,
    SequenceClassifier: _classifier,
    SequenceTagger: _tagger,
    EncoderDecoder: _encoder_decoder,
    Decoder: _decoder,
    Forecaster: forecaster_graphs,
    DRAW: _draw,
}


def _graphs(
    network: nn.Module,
    state: Carried,
    outputs: tuple[str, ...],
    several: tuple[Port, ...],
    sequence: Callable[..., list[Tensor]],
    single: tuple[Port, ...],
    step: Callable[..., list[Tensor]] | None,
) -> list[Graph]:
    """Return the graph of sequences, and that of a step, if there is one; both carry the state."""
    whole = stepping(network, state, outputs, several, sequence)._replace(name="sequence")
    return [whole, *(() if step is None else (stepping(network, state, outputs, single, step),))]


def _tensors(given: Any) -> list[Tensor]:
    return list(given)


def _embedded(part: Any) -> Read | None:
    """Return what an embedding reads; None for token ids."""
    embedding = part.embedding
    if embedding.input_axes == "":
        return None
    if isinstance(embedding, FrameEmbedding):
        return Read(embedding.input_size, next(part.parameters()).dtype)
    if isinstance(embedding, SpelledWordEmbedding):
        return Read(9, torch.int64, "symbols")
    raise ValueError(
        f"{article(type(embedding).__name__)} doesn't tell how many features it reads; there are graphs for a "
        "TokenEmbedding, a OneHotEmbedding, a SpelledWordEmbedding and a FrameEmbedding"
    )


def _read_by(encoder: Encoder) -> Read | None:
    """Return what an encoder of steps reads; None for token ids."""
    if isinstance(encoder, FeatureEncoder):
        return Read(encoder.input_size, next(encoder.parameters()).dtype)
    if isinstance(encoder, RecurrentEncoder | EmbeddingEncoder):
        return _embedded(encoder)
    raise ValueError(
        f"{article(type(encoder).__name__)} has no graph to export; there are those of a RecurrentEncoder, a "
        "FeatureEncoder, an EmbeddingEncoder and an ImageEncoder"
    )


def _image_port(bundle: Bundle, like: Tensor) -> Port:
    source = bundle.processor.source
    if not isinstance(source, ImageTransform):
        raise ValueError(
            f"the images of this network are read by {article(type(source).__name__)}, expected an ImageTransform"
        )
    return Port("inputs", torch.zeros(BATCH, source.channels, source.size, source.size, dtype=like.dtype), ("batch",))
