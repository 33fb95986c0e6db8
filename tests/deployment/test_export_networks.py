"""The graphs of every kind of network, in onnxruntime and beside what the network itself does with whole inputs."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import nn

from unrolled import (
    DRAW,
    AdditiveAttention,
    AttentionPooling,
    AutoregressiveDecoder,
    AutoregressiveForecaster,
    Bundle,
    CategoricalHead,
    CharacterTokenizer,
    ConcatPooling,
    CTCHead,
    DirectForecaster,
    DotAttention,
    EmbeddingEncoder,
    EncoderDecoder,
    FeatureEncoder,
    FeedForward,
    FrameEmbedding,
    GRUCell,
    HardAttention,
    HardMonotonicAttention,
    ImageEncoder,
    ImageTransform,
    LabelsHead,
    LinearForecaster,
    LocationAttention,
    LSTMCell,
    MaxPooling,
    MixtureHead,
    NormalHead,
    NumbersHead,
    OneHotEmbedding,
    Processor,
    QuantileHead,
    Recurrent,
    RecurrentEncoder,
    SegmentForecaster,
    SequenceClassifier,
    SequenceTagger,
    SkipDecoder,
    SmallTrunk,
    SpelledWordEmbedding,
    StudentTHead,
    SummaryAttention,
    TopDownWiring,
    WidePath,
    WindowAttention,
)
from unrolled.deployment import export_program
from unrolled.deployment.export.graphs import Graph
from unrolled.deployment.export.metadata import PROCESSOR, describe
from unrolled.deployment.export.networks import graphs_of
from unrolled.deployment.export.onnx.model import model_of
from unrolled.models.forecasters.base import NORMALIZATIONS, Forecaster

GRU: Any = partial(Recurrent, GRUCell, hidden_size=4)
LSTM: Any = partial(Recurrent, LSTMCell, hidden_size=4)
CLASSES = partial(CategoricalHead, num_classes=5)
MIXTURE = partial(MixtureHead, num_components=2)
QUANTILES = partial(QuantileHead, quantiles=(0.1, 0.5, 0.8))


def pair(encoder: Any = None, *, core: Any = GRU, **options: Any) -> EncoderDecoder:
    decoder = partial(AutoregressiveDecoder.of_tokens, 7, 3, core, **options)
    return EncoderDecoder(encoder or RecurrentEncoder.of_tokens(7, 3, GRU), decoder)


def images() -> ImageEncoder:
    return ImageEncoder(SmallTrunk(1, [8], [4]), size=4, norm="batch")


def spelled(core: Any, **options: Any) -> SequenceTagger:
    embedding = SpelledWordEmbedding(7, 3, 5, character_size=3, spelling_size=4, core=core)
    return SequenceTagger(RecurrentEncoder(embedding, GRU, **options), CLASSES)


def wide(head: Any = CLASSES, **options: Any) -> SequenceClassifier:
    pooling = partial(ConcatPooling, poolings=[AttentionPooling, MaxPooling])
    path = partial(WidePath, vocabulary_size=7, num_buckets=16)
    return SequenceClassifier(RecurrentEncoder.of_tokens(7, 3, GRU, **options), head, pooling, wide=path)


def frames(**options: Any) -> SequenceTagger:
    return SequenceTagger(FeatureEncoder(6, GRU, **options), partial(CTCHead, num_classes=5))


CONVOLUTION: dict[str, Any] = {"conv_channels": 2, "conv_frames": 2, "conv_norm": True, "filters": 5}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "direct": lambda: DirectForecaster(1, 2, 2, 3, QUANTILES, LSTM, bidirectional=True, normalization="last"),
    "autoregressive": lambda: AutoregressiveForecaster(1, 2, 2, 2, NormalHead, GRU, normalization="standard"),
    "autoregressive quantiles": lambda: AutoregressiveForecaster(0, 0, 1, 2, QUANTILES, LSTM),
    "segments": lambda: SegmentForecaster(
        0, 1, 2, 5, StudentTHead, GRU, context=5, segment_size=2, hidden_size=4, normalization="standard"
    ),
    "linear": lambda: LinearForecaster(1, 0, 2, 3, NumbersHead, context=4, kernel_size=3, normalization="none"),
    "drawing": lambda: DRAW((5, 4), LSTM, 3, 4, read_size=2, write_size=2, channels=2),
    "drawing on the whole canvas": lambda: DRAW((5, 4), GRU, 3, 4, write_size=None),
    "captions": lambda: pair(images(), core=LSTM, attention=HardAttention, wiring=TopDownWiring),
    "captions of a vector": lambda: pair(images(), source_as="input"),
    "handwriting": lambda: EncoderDecoder(
        EmbeddingEncoder(OneHotEmbedding(7)), partial(SkipDecoder, FrameEmbedding(3), LSTM, MIXTURE, WindowAttention)
    ),
    "strokes": lambda: SkipDecoder(FrameEmbedding(3), partial(GRU, num_layers=2), MIXTURE),
    "transcription": lambda: frames(**CONVOLUTION),
    "transcription of a stream": lambda: frames(**CONVOLUTION, bidirectional=False),
    "music": lambda: AutoregressiveDecoder(FrameEmbedding(4), GRU, partial(LabelsHead, num_labels=4)),
    "conditions": lambda: AutoregressiveDecoder(
        FrameEmbedding(4, 3), GRU, partial(NormalHead, num_outputs=4), condition_size=2
    ),
    "wide": wide,
    "wide stream": lambda: wide(partial(LabelsHead, num_labels=3), bidirectional=False),
    "copying": lambda: pair(attention=partial(AdditiveAttention, coverage=True), copy=True),
    "monotonic": lambda: pair(attention=HardMonotonicAttention),
    "location": lambda: pair(attention=partial(LocationAttention, kernel_size=3)),
    "dot": lambda: pair(attention=partial(DotAttention, scaled=True), core=partial(LSTM, hidden_size=8)),
    "summary": lambda: pair(attention=SummaryAttention),
    "no attention": pair,
    "spelled": lambda: spelled(GRU, bidirectional=False),
    "spelled by a convolution": lambda: spelled(None),
    "feed-forward": lambda: AutoregressiveDecoder.of_tokens(7, 3, cast("Any", partial(FeedForward, hidden_size=4))),
}
SEQUENCE, BOTH, ATTENDING = ("sequence",), ("sequence", "step"), ("encoder", "attention", "step")
SAMPLED = ("sequence", "start", "step")
GRAPHS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("direct", "segments", "linear", "transcription", "wide"), SEQUENCE),
    **dict.fromkeys(("autoregressive", "autoregressive quantiles"), SAMPLED),
    **dict.fromkeys(("drawing", "drawing on the whole canvas"), ("step",)),
    **dict.fromkeys(("captions of a vector", "no attention"), ("encoder", "start", "step")),
    **dict.fromkeys(("captions", "handwriting", "copying", "monotonic", "location", "dot", "summary"), ATTENDING),
    "spelled by a convolution": SEQUENCE,
}
QUICK = {  # an export takes a second or two: the kinds of operations, each once
    "direct": SEQUENCE,
    "autoregressive": SEQUENCE,
    "segments": SEQUENCE,
    "linear": SEQUENCE,
    "drawing": ("step",),
    "captions": ("encoder", "step"),
    "handwriting": ("step",),
    "transcription of a stream": SEQUENCE,
    "music": ("step",),
    "wide": SEQUENCE,
    "copying": ("step",),
    "monotonic": ("step",),
    "spelled": ("step",),
}
CASES = [
    pytest.param(name, graph, marks=() if graph in QUICK.get(name, ()) else pytest.mark.slow)
    for name in NETWORKS
    for graph in GRAPHS.get(name, BOTH)
]


def bundle_of(network: nn.Module) -> Bundle:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    seen = isinstance(getattr(network, "encoder", None), ImageEncoder)
    source = ImageTransform(8, grey=True, mean=[0.5], std=[0.5]) if seen else CharacterTokenizer("abcde")
    return Bundle(network.eval(), Processor(source), {})


def graphs_by_name(bundle: Bundle) -> dict[str, Graph]:
    return {graph.name: graph for graph in graphs_of(bundle)}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_kind_has_its_graphs(name: str) -> None:
    bundle = bundle_of(NETWORKS[name]())

    graphs = graphs_of(bundle)

    assert tuple(graph.name for graph in graphs) == GRAPHS.get(name, BOTH)
    json.dumps(describe(bundle, graphs))


@pytest.mark.parametrize(("name", "graph"), CASES)
def test_each_graph_is_the_same_in_onnxruntime(name: str, graph: str, same: Callable[[Graph, bytes], None]) -> None:
    found = graphs_by_name(bundle_of(NETWORKS[name]()))[graph]

    same(found, model_of(found, {}))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("head", [QUANTILES, partial(QuantileHead, quantiles=(0.5,)), NormalHead, NumbersHead])
@pytest.mark.parametrize("own", [False, True])
def test_a_forecast_is_that_of_the_network(
    own: bool, head: Any, normalization: str, drawn: Callable[[Graph], list[list[torch.Tensor]]]
) -> None:
    kind: Any = AutoregressiveForecaster if own else DirectForecaster
    network: Forecaster = kind(1, 2, 2, 3, head, GRU, normalization=normalization)
    graph = graphs_by_name(bundle_of(network))["sequence"]
    levels = getattr(network.head, "quantiles", ()) if "quantiles" in graph.outputs else ()
    assert levels or own or not isinstance(network.head, QuantileHead)
    assert ("scale" in graph.outputs) == (not own and isinstance(network.head, NormalHead))

    for past, lengths, future in drawn(graph):
        found = dict(zip(graph.outputs, graph.module(past, lengths, future), strict=True))

        expected = network.forecast(past, future, lengths, levels=levels)
        torch.testing.assert_close(found["values"], expected.values)
        if levels:
            torch.testing.assert_close(found["quantiles"], expected.quantiles)
        if "scale" in found:
            expected = network.forecast(past, future, lengths, levels=[0.9])
            quantile = torch.distributions.Normal(found["values"], found["scale"]).icdf(torch.tensor(0.9))
            torch.testing.assert_close(quantile, expected.quantiles.squeeze(-1))


def test_steps_after_the_start_continue_a_series(drawn: Callable[[Graph], list[list[torch.Tensor]]]) -> None:
    graphs = graphs_by_name(bundle_of(NETWORKS["autoregressive"]()))

    for past, lengths, future in drawn(graphs["start"]):
        parameters, center, scale, *state = graphs["start"].module(past, lengths, future)
        found: list[torch.Tensor] = []
        for step in range(future.shape[1]):
            mean = parameters[..., 0]
            found.append(mean * scale + center)
            if step + 1 < future.shape[1]:
                row = torch.cat([mean, torch.ones_like(mean), future[:, step + 1]], 1)
                parameters, *state = graphs["step"].module(row, *state)

        (expected,) = graphs["sequence"].module(past, lengths, future)
        torch.testing.assert_close(torch.stack(found, 1), expected)


@pytest.mark.parametrize("name", ["drawing", "drawing on the whole canvas"])
def test_steps_draw_what_the_network_draws(name: str) -> None:
    network: Any = NETWORKS[name]()
    step = graphs_by_name(bundle_of(network))["step"]
    latents = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    state = [row.expand(2, *row.shape) for row in step.initial.values()]

    for latent, glimpse in zip(latents.unbind(1), network.generate(latents), strict=True):
        pixels, *state = step.module(latent, *state)
        torch.testing.assert_close(pixels, glimpse.canvas.sigmoid())


def test_what_steps_and_outputs_need_is_described() -> None:
    drawing = json.loads(export_program(bundle_of(NETWORKS["drawing on the whole canvas"]())).files[PROCESSOR])
    forecast = describe(bundle := bundle_of(NETWORKS["autoregressive quantiles"]()), graphs_of(bundle))

    assert drawing["num_glimpses"] == 4
    assert torch.tensor(drawing["graphs"]["step"]["initial_state"]["state_canvas"]).shape == (1, 5, 4)
    assert (forecast["horizon"], forecast["quantiles"]) == (2, [0.1, 0.5, 0.8])
