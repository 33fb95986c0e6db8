"""The report of every kind of task: one whole page whose numbers are those of the network."""

import io
import math
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled import (
    AdditiveAttention,
    AudioFeatures,
    AutoregressiveDecoder,
    CategoricalHead,
    CharacterTokenizer,
    ElmanCell,
    EncoderDecoder,
    FeatureEncoder,
    FeedForward,
    FrameEmbedding,
    GRUCell,
    ImageEncoder,
    ImageSequence,
    ImageTransform,
    LabelEncoder,
    LabelSequenceEncoder,
    LabelsHead,
    LSTMCell,
    MeanPooling,
    NumbersHead,
    Processor,
    Recurrent,
    RecurrentEncoder,
    Scaler,
    SequenceClassifier,
    SequenceTagger,
    SeriesScaler,
    SmallTrunk,
    SpelledWordEmbedding,
    SpelledWords,
    TokenEmbedding,
    WordTokenizer,
    build,
)
from unrolled.checkpoint import Bundle, save_tensors
from unrolled.deployment.command import main
from unrolled.deployment.inspecting import svg
from unrolled.deployment.inspecting.report import inspection_report
from unrolled.deployment.inspecting.running import subject
from unrolled.inspection.panels import Heatmaps, Lines, Points, Symbols

TEXT = 'He said "yes" 12 times.\nShe said "no" (twice) & left <it>.\nIt was "so" then.'
LETTERS = CharacterTokenizer.fit([TEXT])
CORE = partial(Recurrent, LSTMCell, hidden_size=6, num_layers=2)
GRU = partial(Recurrent, GRUCell, hidden_size=4)
AB = LabelEncoder(["a", "b"])
SERIES = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
VOID = {"meta", "br", "rect", "path", "line", "circle", "polyline", "image"}


def language_model(core: Any = CORE) -> Bundle:
    torch.manual_seed(0)
    return Bundle(AutoregressiveDecoder.of_tokens(LETTERS.size, 5, core).eval(), Processor(LETTERS), {})


def classifier(reader: Any, target: Any, core: Any = CORE) -> Bundle:
    torch.manual_seed(0)
    if hasattr(reader, "unit"):
        encoder: Any = RecurrentEncoder.of_tokens(reader.size, 5, core)
    else:
        encoder = FeatureEncoder(reader.output_size, core)
    size = len(target.names if isinstance(target, Scaler) else target.labels)
    head = NumbersHead if isinstance(target, Scaler) else CategoricalHead
    option = {"num_outputs": size} if isinstance(target, Scaler) else {"num_classes": size}
    return Bundle(
        SequenceClassifier(encoder, partial(head, **option), MeanPooling).eval(), Processor(reader, target), {}
    )


def tagger() -> Bundle:
    """A tagger of words that are spelled by cells of their own."""
    torch.manual_seed(0)
    words = SpelledWords.fit([TEXT.split()], min_count=1)
    spelling = {"character_size": 4, "spelling_size": 6, "core": partial(Recurrent, LSTMCell)}
    embedding = SpelledWordEmbedding(words.size, 5, words.alphabet_size, **spelling)
    head = partial(CategoricalHead, num_classes=3)
    network = SequenceTagger(RecurrentEncoder(embedding, CORE), head).eval()
    return Bundle(network, Processor(words, LabelSequenceEncoder(["A", "B", "C"])), {})


def stepwise(source: Any, target: Any) -> Bundle:
    """A network that predicts at each step of symbols or frames, as on generated data."""
    torch.manual_seed(0)
    symbols = isinstance(source, LabelSequenceEncoder)
    embedding = TokenEmbedding(source.size, 5) if symbols else FrameEmbedding(source.output_size)
    if isinstance(target, Scaler):
        head: Any = partial(NumbersHead, num_outputs=len(target.names))
    else:
        head = partial(
            LabelsHead if target.multiple else CategoricalHead,
            **{"num_labels" if target.multiple else "num_classes": target.size},
        )
    encoder = RecurrentEncoder(embedding, CORE, bidirectional=False)
    return Bundle(SequenceTagger(encoder, head).eval(), Processor(source, target), {})


def seq2seq(**options: Any) -> Bundle:
    torch.manual_seed(0)
    encoder = RecurrentEncoder.of_tokens(LETTERS.size, 5, CORE)
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, **options)
    return Bundle(EncoderDecoder(encoder, decoder).eval(), Processor(LETTERS, LETTERS), {})


def captioner() -> Bundle:
    torch.manual_seed(0)
    encoder = ImageEncoder(SmallTrunk(3, [8], [4]), size=6)
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, AdditiveAttention)
    transform = ImageTransform(size=32)
    return Bundle(EncoderDecoder(encoder, decoder).eval(), Processor(transform, LETTERS), {})


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps the text of each kind of element."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]][-1] += data


def checked(content: str) -> Page:
    """A page that is whole, needs nothing else, and has drawn numbers alone."""
    page = Page(content)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", content.lower().replace("danan", ""))
    assert not re.findall(r"(?:src|href)=\"(?!data:)", content)
    assert "<script" not in content
    for drawing in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert len(page.text["h2"]) == len(page.text["figcaption"]) == content.count("<figure")
    assert all(sentence.endswith(".") for sentence in page.text["figcaption"])
    return page


SOURCES: dict[str, Any] = {
    "language model": (language_model, None),
    "language model of Elman's cells": (lambda: language_model(partial(Recurrent, ElmanCell, hidden_size=6)), TEXT),
    "classification of text": (lambda: classifier(WordTokenizer.fit([TEXT]), LabelEncoder(["a", "b"])), TEXT),
    "regression of text": (lambda: classifier(LETTERS, Scaler(["size"], [2.0], [3.0])), TEXT),
    "images": (lambda: classifier(ImageSequence([8, 8]), LabelEncoder(["a", "b", "c"])), torch.rand(1, 8, 8)),
    "sound": (
        lambda: classifier(AudioFeatures(8000, num_mels=8), LabelEncoder(["a", "b"])),
        (torch.randn(4000), 8000),
    ),
    "series": (lambda: classifier(SeriesScaler(["x", "y"], [0, 0], [1, 1]), AB, GRU), SERIES),
    "tagging": (tagger, "She said no ."),
    "legal symbols": (
        lambda: stepwise(LabelSequenceEncoder("BTSXPVE"), LabelEncoder("BTSXPVE", multiple=True)),
        "BTBTSXSETE",
    ),
    "states": (lambda: stepwise(LabelSequenceEncoder(["up", "down"]), LabelSequenceEncoder("01")), "up up down up"),
    "numbers of frames": (
        lambda: stepwise(SeriesScaler(["x", "y"], [0, 0], [1, 1]), Scaler(["sum"], [1.0], [2.0])),
        SERIES,
    ),
    "translation": (lambda: seq2seq(attention=AdditiveAttention), TEXT[:20]),
    "translation without input feeding": (
        lambda: seq2seq(attention=AdditiveAttention, input_feeding=False),
        TEXT[:20],
    ),
    "translation without attention": (seq2seq, TEXT[:20]),
    "captioning": (captioner, torch.rand(3, 40, 30)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_task_has_a_whole_page(kind: str) -> None:
    make, source = SOURCES[kind]
    made = make()
    page = checked(inspection_report(made, source, generator=torch.Generator().manual_seed(0), name="best.ckpt"))
    titles = page.text["h2"]
    assert page.text["title"] == ["Inside best.ckpt"]
    assert any(title.startswith("Activity of") for title in titles)
    assert any(title == "Gradient through time" for title in titles)
    if kind != "captioning":
        assert {"Spectral radius of a step", "Memory capacity"} <= set(titles)
        assert any(title.startswith("What each ") for title in titles)
    assert not any("observer" in vars(module) for module in made.network.modules())


def test_the_sentences_have_the_numbers_of_the_network() -> None:
    made = language_model()
    page = checked(inspection_report(made, TEXT, generator=torch.Generator().manual_seed(0)))
    ids = LETTERS.encode(TEXT)
    with torch.no_grad():
        parameters = made.network(torch.tensor([[LETTERS.start, *ids[:-1]]])).parameters[0]
    bits = torch.nn.functional.cross_entropy(parameters, torch.tensor(ids), reduction="none") / math.log(2)
    said = dict(zip(page.text["h2"], page.text["figcaption"], strict=True))
    assert f"{float(bits.max()):.1f} bits" in said["How unexpected each symbol is"]
    assert f"{float(bits.mean()):.2f} bits per character" in page.text["dd"]
    cell: Any = made.network.core.cells[0]  # pyright: ignore[reportAttributeAccessIssue]
    embedded = made.network.embedding(torch.tensor([[LETTERS.start, *ids[:-1]]]))  # pyright: ignore[reportCallIssue]
    state, gates = cell.initial_state(1, like=embedded), []
    for now in cell.project(embedded).unbind(1):
        rows = now + state.h @ cell.weight_hh.T + cell.bias_hh
        gates.append(rows.chunk(4, -1)[1].sigmoid())
        _, state = cell.step(now, state)
    constants = -1 / torch.stack(gates).mean((0, 1)).log()
    assert f"{float(constants.detach().median()):.3g} steps in layer 1" in said["Time constants"]
    assert f"the longest has {float(constants.detach().max()):.3g}" in said["Time constants"]


def test_predictions_at_each_step_are_the_networks() -> None:
    made = stepwise(LabelSequenceEncoder("BTSXPVE"), LabelEncoder("BTSXPVE", multiple=True))
    page = checked(inspection_report(made, "BTBTSXSETE"))
    said = dict(zip(page.text["h2"], page.text["figcaption"], strict=True))["Predictions"]
    with torch.no_grad():
        last = made.network(torch.tensor([["BTSXPVE".index(symbol) for symbol in "BTBTSXSETE"]]))[0, -1].sigmoid()
    assert f"“{'BTSXPVE'[int(last.argmax())]}” with {float(last.max()):.3f}." in said
    with pytest.raises(ValueError, match="'Q'"):
        inspection_report(made, "BQ")


def test_the_gradient_of_a_report_is_autograds() -> None:
    made = language_model()
    shown = subject(made, TEXT)
    (explained,) = shown.explained
    record = shown.recording["steps.cells.0"]
    (expected,) = torch.autograd.grad(explained.number, [record.inputs], retain_graph=True)  # pyright: ignore
    assert record.inputs is not None
    content = inspection_report(made, TEXT)
    most = int((expected * record.inputs).sum(-1).abs().argmax())
    assert f"at step {most + 1}." in content


def test_units_are_searched_for_a_given_property() -> None:
    made = language_model()
    page = checked(inspection_report(made, TEXT, find=["said"]))
    assert page.text["td"][0] == "said"
    holds = torch.zeros(len(TEXT))
    for match in re.finditer("said", TEXT[:-1]):
        holds[match.start() + 1 : match.end() + 1] = 1  # the start symbol comes first
    shown = subject(made, TEXT)
    values = torch.cat([record["c"][0] for record in shown.recording.values()], dim=-1)
    best = max(abs(np.corrcoef(values[:, unit].numpy(), holds.numpy())[0, 1]) for unit in range(12))
    assert abs(float(page.text["td"][3])) == pytest.approx(best, abs=0.006)
    with pytest.raises(ValueError, match=r"find='\(': .*expected a regular expression"):
        inspection_report(made, TEXT, find=["("])


def test_what_can_not_be_inspected_is_refused() -> None:
    words = classifier(WordTokenizer.fit([TEXT]), LabelEncoder(["a", "b"]))
    with pytest.raises(ValueError, match="pass a text or a file"):
        inspection_report(words)
    with pytest.raises(ValueError, match="reads text, not"):
        inspection_report(words, torch.zeros(2))
    with pytest.raises(ValueError, match="has no recurrent cell"):
        inspection_report(classifier(LETTERS, LabelEncoder(["a", "b"]), partial(FeedForward, hidden_size=4)), TEXT)
    with pytest.raises(ValueError, match="Linear can't be inspected"):
        inspection_report(Bundle(torch.nn.Linear(2, 2), Processor(LETTERS), {}), TEXT)


def test_a_picture_has_the_values_of_its_matrix() -> None:
    image = pytest.importorskip("PIL.Image")
    values = torch.tensor([[0.0, 0.5, 1.0], [-1.0, 2.0, math.nan]])
    with image.open(io.BytesIO(svg.png(values, 0.0, 1.0))) as opened:
        assert opened.mode == "L"
        assert np.asarray(opened).tolist() == [[0, 128, 255], [0, 255, 128]]


def coordinates(drawing: str) -> Tensor:
    (points,) = re.findall(r'points="([^"]*)"', drawing)
    return torch.tensor([[float(number) for number in point.split(",")] for point in points.split()])


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_lies_where_its_axis_says(log: bool) -> None:
    values = [1.0, 10.0, 100.0, 1000.0] if log else [0.0, 1.0, 2.0, 3.0]
    drawing = svg.lines(Lines([0, 1, 2, 3], {"one": values}, "x", "y", log_y=log))
    places = coordinates(drawing)
    torch.testing.assert_close(places.diff(dim=0), places.diff(dim=0)[:1].expand(3, 2), rtol=0, atol=0.11)
    assert places[0, 1] > places[-1, 1]  # greater values lie higher
    assert drawing.count("<polyline") == 1
    assert svg.lines(Lines([0, 1, 2], {"one": [1.0, math.nan, 1.0]}, "x", "y")).count("<circle") == 2
    assert "nothing to draw" in svg.lines(Lines([0], {"one": [0.0]}, "x", "y", log_y=True))


def test_drawings_escape_what_they_show() -> None:
    drawn = [
        svg.lines(Lines([0, 1], {"<a>": [0.0, 1.0], "b": [1.0, 0.0]}, "x & y", "<y>")),
        svg.points(Points({"<a>": [(0.0, 1.0)]}, "x", "y")),
        svg.heatmaps(Heatmaps({"<a>": (torch.zeros(2, 2), 0.0, 1.0)}, "x", "y", columns=["<", "&"], rows=["<b>", "c"])),
        svg.symbols(Symbols(["<", "&", "\n", " "], [1.0, -1.0, 0.0, 0.5])),
    ]
    for each in drawn:
        ElementTree.fromstring(each.replace("<br>", ""))
        assert "<a>" not in each
        assert "<b>" not in each


NETWORK = {
    "_target_": "unrolled.AutoregressiveDecoder",
    "embedding": {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": LETTERS.size, "size": 5},
    "core": {
        "_target_": "unrolled.Recurrent",
        "_partial_": True,
        "cell": {"_target_": "unrolled.GRUCell", "_partial_": True},
        "hidden_size": 6,
    },
    "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": LETTERS.size},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    described = {"format": 2, "network": NETWORK, "processor": Processor(LETTERS).to_dict(), "info": {}}
    weights = {f"network.{name}": value for name, value in build(NETWORK).state_dict().items()}
    save_tensors({"unrolled": described, "state_dict": weights}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_the_command_writes_a_page(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "pages" / "page.html"
    text.write_text(TEXT, encoding="utf-8")
    assert main(["inspect", str(checkpoint), str(text), "--out", str(out), "--find", '"[^"]*"', "--seed", "1"]) == 0
    assert re.fullmatch(rf"{re.escape(str(out))}: \d+ figures\n", capsys.readouterr().out)
    content = out.read_text(encoding="utf-8")
    checked(content)
    assert "&quot;[^&quot;]*&quot;" in content
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    assert (
        main(["inspect", str(checkpoint), "--text", TEXT, "--out", str(out), "--find", '"[^"]*"', "--seed", "1"]) == 0
    )
    assert out.read_text(encoding="utf-8") == content


def test_mistakes_of_the_command_are_told_in_a_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"a\xff")
    out = tmp_path / "page.html"
    for arguments, said in (
        (["--text", "a", str(broken)], "pass one of both"),
        ([str(broken)], "not UTF-8"),
        ([str(tmp_path / "no.txt")], "No such file"),
        (["--text", "H"], "expected 2 or more"),
        (["--find", "("], "regular expression"),
    ):
        assert main(["inspect", str(checkpoint), *arguments, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not out.exists()


def test_a_series_is_read_from_a_table(tmp_path: Path) -> None:
    from unrolled.deployment.inspecting.sources import open_source

    made = classifier(SeriesScaler(["x", "y"], [0, 0], [1, 1]), LabelEncoder(["a", "b"]))
    table = tmp_path / "one.csv"
    table.write_text("time,y,x\n0,2,1\n1,4,3\n")
    assert open_source(made, str(table)).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    table.write_text("time,y\n0,2\n")
    with pytest.raises(ValueError, match="no column 'x'; expected x, y, found time, y"):
        open_source(made, str(table))
    table.write_text("x,y\n0,b\n")
    with pytest.raises(ValueError, match="must be numbers"):
        open_source(made, str(table))
