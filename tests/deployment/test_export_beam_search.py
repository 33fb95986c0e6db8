"""The beam search beside exported models, in numpy and onnxruntime, finds what the package's own search finds."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from unrolled import (
    AdditiveAttention,
    AutoregressiveDecoder,
    BPETokenizer,
    Bundle,
    CharacterTokenizer,
    EncoderDecoder,
    GRUCell,
    ImageEncoder,
    ImageTransform,
    Processor,
    Recurrent,
    RecurrentEncoder,
    SentenceTokenizer,
    SmallTrunk,
    SpacedTokenizer,
    WordTokenizer,
)
from unrolled.deployment import export_onnx
from unrolled.deployment.decoding import start_decoding
from unrolled.deployment.export.metadata import describe
from unrolled.deployment.export.networks import graphs_of
from unrolled.deployment.export.onnx.quantization import quantization_costs, quantize
from unrolled.deployment.translation import alternatives
from unrolled.generation import beam_search
from unrolled.generation.search import Search

CORE = partial(Recurrent, GRUCell, hidden_size=6)
WORDS = SpacedTokenizer(["the", "cat", "sat", "on", "a", "mat"], lowercase=True)
LETTERS = CharacterTokenizer("abcdefg ")


def drawn(network: EncoderDecoder) -> EncoderDecoder:
    torch.manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.8)
    network.decoder.head.linear.bias.data[0] = 1.0  # the end, so that results have several lengths
    return network.eval()


def translator() -> Bundle:
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE, AdditiveAttention)
    network = EncoderDecoder(RecurrentEncoder.of_tokens(WORDS.size, 4, CORE), decoder)
    return Bundle(drawn(network), Processor(WORDS, LETTERS), {})


def captioner() -> Bundle:
    decoder = partial(AutoregressiveDecoder.of_tokens, LETTERS.size, 5, CORE)
    network = EncoderDecoder(ImageEncoder(SmallTrunk(3, [8], [4]), size=6), decoder)
    return Bundle(drawn(network), Processor(ImageTransform(size=16), LETTERS), {})


def written(bundle: Bundle, folder: Path) -> Any:
    """Export a network, and import the search from its folder."""
    export_onnx(bundle).write(folder)
    spec = importlib.util.spec_from_file_location("written_search", folder / "beam_search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Any, Path]:
    bundle, folder = translator(), tmp_path_factory.mktemp("attentive") / "exported"
    return bundle, written(bundle, folder), folder


def same(bundle: Bundle, module: Any, folder: Path, *source: Any, **options: Any) -> list[list[Any]]:
    """Both searches find the same ids and scores; return what the written one finds."""
    given = {("beam" if name == "num_beams" else name): value for name, value in options.items()}
    tensors = [torch.from_numpy(each) for each in source]
    with torch.no_grad():
        decoder, state, memory = start_decoding([cast("EncoderDecoder", bundle.network)], *tensors)
        start = torch.zeros(len(source[0]), dtype=torch.long)
        expected = beam_search(decoder, state, memory, start=start, stop=0, forbidden=[1], **options)

    found = module.beam_search(module.Network(folder), *source, **given)

    for row, hypotheses in enumerate(found):
        finite = int(expected.scores[row].isfinite().sum())
        assert len(hypotheses) == finite
        for place, hypothesis in enumerate(hypotheses):
            assert hypothesis.tokens == expected.tokens[row, place, : int(expected.lengths[row, place])].tolist()
            assert hypothesis.score == pytest.approx(float(expected.scores[row, place]), abs=1e-5)
            assert hypothesis.log_probability == pytest.approx(float(expected.log_probability[row, place]), abs=1e-5)
    return found


SOURCES = [[2, 3, 4, 5, 6, 7, 2], [5], [7, 7, 3], [4, 2, 2, 6]]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1, "length_penalty": 0.0, "max_length": 12},
        {"num_beams": 4, "n_best": 3, "length_penalty": 1.0, "max_length": 12},
        {"num_beams": 6, "n_best": 6, "length_penalty": 0.6, "max_length": 5, "min_length": 3},
        {"num_beams": 5, "n_best": 2, "length_penalty": 0.6, "coverage_penalty": 0.4, "max_length": 9},
        {"num_beams": 3, "n_best": 2, "length_penalty": 1.0, "max_length": 0},
    ],
)
def test_it_finds_the_ids_and_scores_of_the_package(options: Any, attentive: tuple[Bundle, Any, Path]) -> None:
    bundle, module, folder = attentive

    found = same(bundle, module, folder, *module.padded(SOURCES), **options)

    lengths = {len(hypothesis.tokens) for row in found for hypothesis in row}
    assert len(lengths) > 1 or options["num_beams"] == 1 or options["max_length"] == 0  # some end by themselves


def test_a_captioner_without_attention_is_searched_too(tmp_path: Path) -> None:
    bundle = captioner()
    module = written(bundle, tmp_path)
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)

    same(bundle, module, tmp_path, images, num_beams=3, n_best=2, length_penalty=1.0, max_length=8)

    network = module.Network(tmp_path)
    assert {len(hypothesis.tokens) <= 30 for row in module.beam_search(network, images) for hypothesis in row} == {True}
    with pytest.raises(ValueError, match=r"coverage_penalty=0.1 needs attention"):
        module.beam_search(network, images, coverage_penalty=0.1)
    with pytest.raises(ValueError, match="reads arrays of numbers, not lines"):
        network.ids("a cat")


def run(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The program as a user without this package runs it."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path('beam_search.py', run_name='__main__')\n"
        "finally: assert not {'torch', 'unrolled'} & set(sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True)


def test_the_program_prints_what_the_command_translate_prints(attentive: tuple[Bundle, Any, Path]) -> None:
    bundle, _, folder = attentive
    lines = ["The cat sat", "", "a mat on the dog"]

    printed = run(folder, "--beam", "4", "--n-best", "2", stdin="".join(f"{line}\n" for line in lines))

    assert printed.returncode == 0, printed.stderr
    found = [line.split("\t") for line in printed.stdout.splitlines()]
    rows = enumerate(alternatives(bundle, lines, options=Search(num_beams=4, n_best=2)), start=1)
    expected = [(number, each) for number, row in rows for each in (row if lines[number - 1] else row[:1])]
    assert [(int(number), text) for number, _, text in found] == [(number, each.text) for number, each in expected]
    scores = [float(score) for _, score, _ in found]
    assert scores == pytest.approx([each.score for _, each in expected], abs=2e-4)  # printed with four digits
    wrong = run(folder, "--beam", "2", "--n-best", "3", "the cat")
    assert wrong.returncode == 2
    assert "beam=2 and n_best=3: expected 1 or more, and n_best at most beam" in wrong.stderr


def test_the_example_of_the_page_runs(attentive: tuple[Bundle, Any, Path], monkeypatch: Any, capsys: Any) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "export.md").read_text()
    (code,) = re.findall(r"^```python\n(from beam_search .*?)^```", page, re.MULTILINE | re.DOTALL)
    bundle, module, folder = attentive
    monkeypatch.setitem(sys.modules, "beam_search", module)
    monkeypatch.chdir(folder.parent)

    exec(code, {})

    rows = alternatives(bundle, ["the cat sat", "a mat"], options=Search(num_beams=4, n_best=2))
    assert capsys.readouterr().out.splitlines() == [f"{each.score:.3f} {each.text}" for row in rows for each in row]


def test_8_bit_weights_are_compared_from_the_encoder_to_the_last_step(attentive: tuple[Bundle, Any, Path]) -> None:
    bundle, _, folder = attentive
    graphs = graphs_of(bundle)
    exact = {graph.name: (folder / f"{graph.name}.onnx").read_bytes() for graph in graphs}
    rounded = quantize(exact, bundle.network)

    *sizes, unchanged = quantization_costs(bundle.network, graphs, exact, exact)
    *_, changed = quantization_costs(bundle.network, graphs, exact, rounded)

    assert [line.partition(".onnx: ")[0] for line in sizes] == ["encoder", "attention", "step"]
    assert unchanged.startswith("step.onnx: 8-bit weights change outputs by 0 on average and 0 at most")
    average, most, deviation = map(float, re.findall(r"(?:by|and|is) ([\d.e-]+)", changed)[:3])
    assert 0 < average < most < 0.5 * deviation


TEXT = "It rains: the cat's umbrella\n isn't\thome, été 12.5."


@pytest.mark.parametrize(
    "tokenizer",
    [
        CharacterTokenizer.fit([TEXT[:30]], lowercase=True),
        WordTokenizer.fit([TEXT], max_length=9),
        SentenceTokenizer.fit([TEXT[:30]]),
        SpacedTokenizer.fit([TEXT[9:]]),
    ],
    ids=lambda tokenizer: type(tokenizer).__name__,
)
def test_texts_are_split_and_joined_as_processor_json_tells(
    tokenizer: Any, attentive: tuple[Bundle, Any, Path]
) -> None:
    network = attentive[1].Network(attentive[2])
    network.sides = describe(Bundle(nn.Identity(), Processor(tokenizer, tokenizer), {}), [])["vocabulary"]

    assert network.ids(TEXT) == tokenizer.encode(TEXT)
    assert network.text(range(2, 8)) == tokenizer.decode(range(2, 8))


def test_a_tokenizer_without_a_pattern_reads_and_writes_ids(attentive: tuple[Bundle, Any, Path]) -> None:
    network = attentive[1].Network(attentive[2])
    subwords = BPETokenizer(["a", "b", "ab"], [("a", "b")])
    described = describe(Bundle(nn.Identity(), Processor(subwords, subwords), {}), [])
    network.sides, network.processor = described["vocabulary"], described["processor"]

    assert network.ids(" 3 4\n") == [3, 4]
    assert network.text([3, 4]) == "3 4"
    with pytest.raises(ValueError, match=r"'abab': expected ids such as '5 6 7'; .* how BPETokenizer splits text"):
        network.ids("abab")


def test_options_that_allow_nothing_are_refused(attentive: tuple[Bundle, Any, Path]) -> None:
    _, module, folder = attentive
    network = module.Network(folder)

    with pytest.raises(ValueError, match="min_length=4: expected 0 to max_length, which is 3"):
        module.beam_search(network, *module.padded([[2]]), max_length=3, min_length=4)
    with pytest.raises(ValueError, match=r"length_penalty=-1.0, coverage_penalty=0.0: expected 0 or more"):
        module.beam_search(network, *module.padded([[2]]), length_penalty=-1.0)
    assert list(module._searched(network, iter(["", "  "]), {})) == [(1, 0.0, ""), (2, 0.0, "")]
    hypothesis = module._Source(module._Options(2, 1, 1.0, 0.0), 0, 5)
    with pytest.raises(ValueError, match="logits are NaN or infinite"):
        hypothesis.advance(np.full((1, 4), math.nan), np.zeros((1, 0)), 1)
    with pytest.raises(ValueError, match="no token is allowed"):
        hypothesis.advance(np.full((1, 4), -math.inf), np.zeros((1, 0)), 1)
