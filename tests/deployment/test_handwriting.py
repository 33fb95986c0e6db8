"""Writing with an untrained network: its laws; and pages."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from unrolled import (
    Bundle,
    CharacterTokenizer,
    EmbeddingEncoder,
    EncoderDecoder,
    FrameEmbedding,
    LSTMCell,
    MixtureHead,
    OneHotEmbedding,
    Processor,
    Recurrent,
    SkipDecoder,
    StrokeTransform,
    WindowAttention,
)
from unrolled.deployment import Primer, continue_strokes, to_svg, write
from unrolled.deployment.page import break_lines, read_primer

STROKES = [[(0.0, 0.0), (3.0, 5.0)], [(4.0, 1.0), (6.0, 1.0), (7.0, 2.0)]]
CORE = partial(Recurrent, LSTMCell, hidden_size=8, num_layers=2)
HEAD = partial(MixtureHead, num_components=2)


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    attention = partial(WindowAttention, num_components=2, initial_step=0.2)
    decoder = partial(SkipDecoder, FrameEmbedding(3), CORE, HEAD, attention)
    network = EncoderDecoder(EmbeddingEncoder(OneHotEmbedding(5)), decoder)
    return Bundle(network.eval(), Processor(CharacterTokenizer("ab "), StrokeTransform(2.0)), {})


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lines_end_when_the_window_has_passed_the_text(bundle: Bundle) -> None:
    short, long = write(bundle, ["ab", "abba ab"], generator=generator())

    assert short.finished
    assert long.finished
    for one in (short, long):
        points = sum(map(len, one.strokes))
        assert one.weights.shape == (points - 1, len(one.text))
        assert one.strokes[0][0] == (0.0, 0.0)
    assert len(long.weights) > len(short.weights)
    (cut,) = write(bundle, ["abba ab"], max_points=1, generator=generator())
    assert not cut.finished
    assert sum(map(len, cut.strokes)) == 1 + 7


def test_a_primer_is_read_with_its_text_and_no_part_of_the_line(bundle: Bundle) -> None:
    primer = Primer("ba", STROKES)
    (primed,) = write(bundle, ["ab"], primer=primer, generator=generator())

    tokenizer: Any = bundle.processor.source
    transform: Any = bundle.processor.target
    network: Any = bundle.network
    read = transform.encode(STROKES)
    source = torch.tensor([tokenizer.encode("ba ab")])
    frames = [read[1:]]
    shifted = torch.tensor(primed.strokes[0][0])
    assert shifted.tolist() == [0.0, 0.0]
    with torch.no_grad():  # the window over the primer is that of a pass over its strokes
        state, memory = network.start(source)
        expected = network.decoder(read[None, :-1], state, memory).weights[0]
    torch.testing.assert_close(primed.weights[: len(frames[0])], expected)
    assert primed.weights.shape[1] == 5
    assert len(primed.weights) == len(read) - 1 + sum(map(len, primed.strokes))


def test_a_great_bias_leaves_one_line(bundle: Bundle) -> None:
    one, other = (write(bundle, ["ab"], bias=1e6, generator=generator(seed))[0] for seed in (1, 2))
    free, another = (write(bundle, ["ab"], generator=generator(seed))[0] for seed in (1, 2))

    assert [len(s) for s in one.strokes] == [len(s) for s in other.strokes]
    torch.testing.assert_close(torch.tensor(one.strokes[0]), torch.tensor(other.strokes[0]), atol=1e-3, rtol=1e-3)
    assert free.strokes != another.strokes


def test_writing_leaves_the_mode_and_depends_on_the_generator_alone(bundle: Bundle) -> None:
    bundle.network.train()
    one = write(bundle, ["ab"], generator=generator())
    torch.rand(3)
    again = write(bundle, ["ab"], generator=generator())

    assert bundle.network.training
    assert one[0].strokes == again[0].strokes


def test_what_cannot_be_written_is_refused(bundle: Bundle) -> None:
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        ([], {}, "nothing to write"),
        (["a", ""], {}, "nothing to write"),
        (["c"], {}, "symbols that training data did not contain: 'c'"),
        (["a"], {"bias": float("nan")}, "bias=nan"),
        (["a"], {"max_points": 0}, "max_points=0: expected an integer of 1 or more"),
        (["a"], {"primer": Primer("", STROKES)}, "the primer has no text"),
    ]
    for texts, options, message in cases:
        with pytest.raises(ValueError, match=message):
            write(bundle, texts, **options)
    with pytest.raises(ValueError, match="drawing needs a Decoder of strokes"):
        continue_strokes(bundle, 1)


def test_a_picture_has_a_path_for_each_stroke_within_its_frame() -> None:
    lines: Any = [STROKES, [[(100.0, -50.0)]], [[(-3.0, 2.0), (-9.0, 8.0)]]]

    root = ElementTree.fromstring(to_svg(lines))

    width, height = map(float, root.attrib["viewBox"].split()[2:])
    paths = [node.attrib["d"] for node in root.iter() if node.tag.endswith("path")]
    assert len(paths) == 4
    drawn = [[tuple(map(float, point.split())) for point in path[1:].split(" L")] for path in paths]
    assert all(0 < x < width and 0 < y < height for path in drawn for x, y in path)
    assert drawn[1][2][0] - drawn[0][0][0] == pytest.approx(7.0, abs=0.11)  # a line keeps its form
    tops = [min(y for _, y in drawn[n]) for n in (0, 2, 3)]
    assert tops == sorted(tops)
    assert len(drawn[2]) == 2  # a single point is drawn, too
    with pytest.raises(ValueError, match="no lines"):
        to_svg([])
    with pytest.raises(ValueError, match="no strokes"):
        to_svg([[]])


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_a_picture_keeps_the_form_of_strokes_in_any_unit(unit: float) -> None:
    strokes: Any = [[(0.0, 0.0), (0.25, 1.0), (0.625, 0.125)], [(0.75, 0.5), (1.0, 0.375)]]

    root = ElementTree.fromstring(to_svg([[[(unit * x, unit * y) for x, y in stroke] for stroke in strokes]]))

    (group,) = (node for node in root if node.tag.endswith("g"))
    assert float(group.attrib["stroke-width"]) == pytest.approx(0.05 * unit)
    for path, stroke in zip(group, strokes, strict=True):
        drawn = [point.split() for point in path.attrib["d"][1:].split("L")]
        points = [tuple(float(each) / unit - 0.5 for each in point) for point in drawn]  # without the margin
        assert points == [pytest.approx(point, abs=0.01) for point in stroke]


def test_lines_break_between_words() -> None:
    assert break_lines("to be, or not\n\n  to be", 8) == ["to be,", "or not", "to be"]
    assert break_lines("incomprehensible", 4) == ["incomprehensible"]
    with pytest.raises(ValueError, match="no words"):
        break_lines(" \n ", 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "line 1: Expecting value"), ("[1]", "expected an object"), ('{"strokes": []}', "there are no strokes")],
)
def test_a_broken_primer_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"p\.jsonl, line 1: .*{message.removeprefix('line 1: ')}"):
        read_primer(path)
    path.write_text(json.dumps({"text": "ab", "strokes": STROKES}) + "\nmore")
    assert read_primer(path) == Primer("ab", STROKES)
