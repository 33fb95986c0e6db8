"""Networks with random weights of every kind, a server for each, and exported graphs beside what they came from."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    DRAW,
    AdditiveAttention,
    AudioFeatures,
    AutoregressiveDecoder,
    CategoricalHead,
    CharacterTokenizer,
    CTCHead,
    EmbeddingEncoder,
    EncoderDecoder,
    FeatureEncoder,
    FrameEmbedding,
    GRUCell,
    ImageEncoder,
    ImageSequence,
    ImageTransform,
    LabelEncoder,
    LabelSequenceEncoder,
    LabelsHead,
    LineColumns,
    LSTMCell,
    MeanPooling,
    MixtureHead,
    NumbersHead,
    OneHotEmbedding,
    PianoRoll,
    PixelTransform,
    Processor,
    QuantileHead,
    Recurrent,
    RecurrentEncoder,
    Scaler,
    SegmentForecaster,
    SequenceClassifier,
    SequenceTagger,
    SeriesScaler,
    SeriesTransform,
    SkipDecoder,
    SmallTrunk,
    StrokeTransform,
    TokenizedWords,
    WindowAttention,
    WordTokenizer,
)
from unrolled.checkpoint import Bundle
from unrolled.deployment.export.graphs import Graph
from unrolled.deployment.serving.app import create_app
from unrolled.deployment.serving.limits import ServingLimits
from unrolled.deployment.serving.server import listen

LETTERS = CharacterTokenizer.fit(["one two three. four five!"])
CORE = partial(Recurrent, LSTMCell, hidden_size=6, num_layers=2, backend="loop")  # needs no compiler
GRU = partial(Recurrent, GRUCell, hidden_size=4, backend="loop")
AB = LabelEncoder(["a", "b"])


def language_model(size: int = 6) -> Bundle:
    core = partial(CORE, hidden_size=size)
    return Bundle(
        AutoregressiveDecoder.of_tokens(LETTERS.size, 5, core), Processor(LETTERS), {"choices": {"task": "x"}}
    )


def translator(**options: Any) -> Bundle:
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, **options)
    network = EncoderDecoder(RecurrentEncoder.of_tokens(LETTERS.size, 5, CORE), decoder)
    return Bundle(network, Processor(LETTERS, LETTERS), {})


def captioner() -> Bundle:
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, AdditiveAttention)
    network = EncoderDecoder(ImageEncoder(SmallTrunk(3, [8], [4]), size=6), decoder)
    return Bundle(network, Processor(ImageTransform(size=32), LETTERS), {})


def classifier(reader: Any, target: Any = AB) -> Bundle:
    encoder = (
        RecurrentEncoder.of_tokens(reader.size, 5, GRU)
        if hasattr(reader, "unit")
        else FeatureEncoder(reader.output_size, GRU)
    )
    if isinstance(target, Scaler):
        head: Any = partial(NumbersHead, num_outputs=len(target.names))
    elif target.multiple:
        head = partial(LabelsHead, num_labels=len(target.labels))
    else:
        head = partial(CategoricalHead, num_classes=len(target.labels))
    return Bundle(SequenceClassifier(encoder, head, MeanPooling), Processor(reader, target), {})


def tagger() -> Bundle:
    words = TokenizedWords(WordTokenizer.fit(["it rains here ."]))
    encoder = RecurrentEncoder.of_tokens(words.size, 5, GRU)
    network = SequenceTagger(encoder, partial(CategoricalHead, num_classes=3))
    return Bundle(network, Processor(words, LabelSequenceEncoder(["O", "B-x", "I-x"])), {})


def transcriber(reader: Any) -> Bundle:
    network = SequenceTagger(FeatureEncoder(reader.output_size, GRU), partial(CTCHead, num_classes=LETTERS.size))
    return Bundle(network, Processor(reader, LETTERS), {})


def forecaster(head: Any = QuantileHead) -> Bundle:
    known: dict[str, Any] = {"scales": {"": [[0.0], [1.0]]}, "covariates": [[], []], "categories": {}}
    transform = SeriesTransform({"target": ["y"]}, "1 step", 8, 4, 2, False, **known)
    network = SegmentForecaster(0, 0, 1, 4, head, GRU, context=8, segment_size=2, hidden_size=6)
    return Bundle(network, Processor(transform), {})


def composer() -> Bundle:
    roll = PianoRoll(60, 72)
    embedding = FrameEmbedding(roll.size)
    return Bundle(AutoregressiveDecoder(embedding, GRU, partial(LabelsHead, num_labels=roll.size)), Processor(roll), {})


def writer(*, text: bool = True) -> Bundle:
    head = partial(MixtureHead, num_components=2)
    if not text:
        return Bundle(SkipDecoder(FrameEmbedding(3), CORE, head), Processor(StrokeTransform(2.0)), {})
    attention = partial(WindowAttention, num_components=2, initial_step=0.5)
    decoder = partial(SkipDecoder, FrameEmbedding(3), CORE, head, attention)
    network = EncoderDecoder(EmbeddingEncoder(OneHotEmbedding(5)), decoder)
    return Bundle(network, Processor(CharacterTokenizer("ab "), StrokeTransform(2.0)), {})


def drawer() -> Bundle:
    return Bundle(DRAW((8, 8), GRU, 3, 4, read_size=2, write_size=2), Processor(PixelTransform([8, 8])), {})


KINDS: dict[str, Callable[[], Bundle]] = {
    "language model": language_model,
    "translation": lambda: translator(attention=AdditiveAttention),
    "translation without attention": translator,
    "captioning": captioner,
    "text": lambda: classifier(LETTERS),
    "labels": lambda: classifier(LETTERS, LabelEncoder(["a", "b", "c"], multiple=True)),
    "regression": lambda: classifier(LETTERS, Scaler(["size"], [2.0], [3.0])),
    "sound": lambda: classifier(AudioFeatures(8000, num_mels=8)),
    "pictures": lambda: classifier(ImageSequence([8, 8])),
    "series": lambda: classifier(SeriesScaler(["x", "y"], [0, 0], [1, 1])),
    "tagging": tagger,
    "lines": lambda: transcriber(LineColumns(8, 2, 2)),
    "speech": lambda: transcriber(AudioFeatures(8000, num_mels=8)),
    "forecast": forecaster,
    "forecast without intervals": lambda: forecaster(NumbersHead),
    "music": composer,
    "handwriting": writer,
    "strokes": lambda: writer(text=False),
    "drawing": drawer,
}


@pytest.fixture
def make() -> Callable[[str], Bundle]:
    """Makes a network of a kind, with random weights."""

    def made(kind: str) -> Bundle:
        torch.manual_seed(0)
        found = KINDS[kind]()
        for parameter in found.network.parameters():
            nn.init.normal_(parameter, std=0.3)
        return Bundle(found.network.eval(), found.processor, found.info)

    return made


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        return [json.loads(event.removeprefix(b"data: ")) for event in self.body.split(b"\n\n") if event]


class Client:
    """Sends requests to a server on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}/"

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        return self._ask("POST", path, body, headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = self.open()
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        found = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        connection.close()
        return found


@contextmanager
def serving(bundle: Bundle, **limits: Any) -> Generator[Client]:
    """Serve a network on a free port from a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    app = create_app(bundle, limits=ServingLimits(**limits), generator=torch.Generator().manual_seed(0))
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    """Serves a network; see `serving`."""
    pytest.importorskip("fastapi")
    return serving


def _inputs(graph: Graph, batch: int, time: int) -> list[Tensor]:
    """Inputs of a graph with other sizes, the lengths 0, 1 and the whole among them."""
    sizes = {"batch": batch, "time": time, "source": time, "symbols": time + 2}
    given: list[Tensor] = []
    for port in graph.inputs:
        named = itertools.zip_longest(port.axes, port.example.shape, fillvalue="")
        shape = [sizes[name] if name else int(size) for name, size in named]
        if port.name == "lengths":
            given.append(torch.tensor([time, 0, 1, time - 1][:batch]).clamp(min=int(port.example.min())))
        elif port.example.dtype == torch.int64:
            given.append(torch.randint(0, 3, shape))
        elif port.example.dtype == torch.bool:
            given.append(torch.ones(shape, dtype=torch.bool))
        else:
            given.append(torch.rand(shape) + 0.1)
    return given


def compare(graph: Graph, model: bytes) -> None:
    """Check that a model has symbolic axes, and gives what the network gives, for other sizes."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for value in session.get_inputs():
        port = next(port for port in graph.inputs if port.name == value.name)
        named = itertools.zip_longest(port.axes, port.example.shape, fillvalue="")
        assert value.shape == [name or size for name, size in named]
    assert [value.name for value in session.get_outputs()] == list(graph.outputs)
    assert all(value.shape[0] == "batch" for value in session.get_outputs())
    kept = {value.name for value in session.get_inputs()}
    for given in inputs_of(graph):
        with torch.no_grad():
            expected = graph.module(*given)
        pairs = zip(graph.inputs, given, strict=True)
        found = session.run(None, {port.name: value.numpy() for port, value in pairs if port.name in kept})
        for name, one, other in zip(graph.outputs, found, expected, strict=True):
            assert one.shape == tuple(other.shape), name
            assert other.isfinite().all(), name
            close = partial(
                torch.testing.assert_close, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
            close(torch.as_tensor(one), other)


def inputs_of(graph: Graph) -> list[list[Tensor]]:
    """Draw inputs of a graph with several sizes."""
    return [_inputs(graph, batch, time) for batch, time in [(2, 7), (1, 1), (4, 3)]]


@pytest.fixture
def same() -> Callable[[Graph, bytes], None]:
    """Compares an ONNX model with the graph that it was exported from; see `compare`."""
    return compare


@pytest.fixture
def drawn() -> Callable[[Graph], list[list[Tensor]]]:
    """Draws inputs of a graph with several sizes."""
    return inputs_of
