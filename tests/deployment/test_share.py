"""Sharing: every kind of network comes back from a folder to the last bit, and nothing else passes for one."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled import (
    AudioFeatures,
    BPETokenizer,
    Bundle,
    CharacterTokenizer,
    Frequency,
    ImageTransform,
    LabelEncoder,
    LabelSequenceEncoder,
    LineColumns,
    PianoRoll,
    PixelTransform,
    Processor,
    Scaler,
    SeriesColumns,
    SeriesTransform,
    SpelledWords,
    StrokeTransform,
    TimeSeries,
    build,
    describe,
    load_bundle,
    save_bundle,
)
from unrolled.deployment import (
    caption,
    classify,
    compose,
    draw_images,
    forecast,
    from_pretrained,
    sample_text,
    save_pretrained,
    tag,
    transcribe,
    translate,
    with_summary,
    write,
)
from unrolled.deployment.command import main
from unrolled.descriptions import CheckpointError
from unrolled.pretrained import Repository, repository_of

pytest.importorskip("safetensors")
pytest.importorskip("huggingface_hub")


def part(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"unrolled.{name}", **options}


def later(name: str, **options: Any) -> dict[str, Any]:
    return part(name, _partial_=True, **options)


CORE = later("Recurrent", cell=later("LSTMCell"), hidden_size=6)
GRU = later("Recurrent", cell=later("GRUCell"), hidden_size=6)
LETTERS = CharacterTokenizer("ab c")
AB = LabelEncoder(["a", "b"])
WORDS = SpelledWords.fit([["it", "rains"], ["it", "snows"]], min_count=1)
PIECES = BPETokenizer(["▁", "a", "b", "▁a", "ab"], [("▁", "a"), ("a", "b")])
SERIES = TimeSeries("", 0, torch.arange(40.0).double().sin()[:, None], *([torch.zeros(40, 0).double()] * 2), (), "x")
COLUMNS = SeriesTransform.fit([SERIES], SeriesColumns(), Frequency(1, "step"), context=6, horizon=3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def tokens(size: int, width: int = 6) -> dict[str, Any]:
    return part("TokenEmbedding", vocabulary_size=size, size=width)


def decoder(size: int, *, make: Any = later, **options: Any) -> dict[str, Any]:
    head = later("CategoricalHead", num_classes=size)
    return make("AutoregressiveDecoder", embedding=tokens(size), core=CORE, head=head, **options)


def classifier(encoder: Any, head: Any) -> dict[str, Any]:
    return part("SequenceClassifier", encoder=encoder, head=head, pooling=later("MeanPooling"))


def features(size: int, **options: Any) -> dict[str, Any]:
    return part("FeatureEncoder", input_size=size, core=GRU, **options)


MEL = AudioFeatures(8000, num_mels=8)
COLUMN_FEATURES = LineColumns(8, 2, 2)
SOUND = (torch.randn(2000, generator=generator()), 8000)
LINE = torch.rand(1, 8, 30, generator=generator())
PICTURE = (torch.rand(32, 32, 3, generator=generator()) * 255).byte().numpy()
ATTENTION = later("AdditiveAttention", attention_size=5)

# Each kind of network with its processor, and a prediction of it.
KINDS: dict[str, tuple[dict[str, Any], Processor, Callable[[Bundle], Any]]] = {
    "char_lm": (
        decoder(LETTERS.size, make=part, tied=True),
        Processor(LETTERS),
        lambda made: sample_text(made, "ab", length=20, generator=generator()),
    ),
    "translation": (
        part(
            "EncoderDecoder",
            encoder=part("RecurrentEncoder", embedding=tokens(PIECES.size), core=GRU),
            decoder=decoder(PIECES.size, attention=ATTENTION, tied=True),
        ),
        Processor(PIECES, PIECES),
        lambda made: list(translate(made, ["ab a", "b"], max_length=9)),
    ),
    "captioning": (
        part(
            "EncoderDecoder",
            encoder=part("ImageEncoder", trunk=part("SmallTrunk", channels=3, widths=[8], strides=[4]), size=6),
            decoder=decoder(LETTERS.size, attention=ATTENTION),
        ),
        Processor(ImageTransform(size=32), LETTERS),
        lambda made: list(caption(made, [PICTURE])),
    ),
    "text": (
        classifier(
            part("RecurrentEncoder", embedding=tokens(LETTERS.size), core=CORE), later("CategoricalHead", num_classes=2)
        ),
        Processor(LETTERS, AB),
        lambda made: list(classify(made, ["ab", "c a"])),
    ),
    "recordings": (
        classifier(features(MEL.output_size), later("LabelsHead", num_labels=2)),
        Processor(MEL, LabelEncoder(["a", "b"], multiple=True)),
        lambda made: list(classify(made, [SOUND])),
    ),
    "regression": (
        classifier(features(MEL.output_size), later("NumbersHead", num_outputs=1)),
        Processor(MEL, Scaler(["x"], [3.0], [0.1])),
        lambda made: list(classify(made, [SOUND])),
    ),
    "tagging": (
        part(
            "SequenceTagger",
            encoder=part(
                "RecurrentEncoder",
                embedding=part(
                    "SpelledWordEmbedding",
                    vocabulary_size=WORDS.size,
                    size=5,
                    alphabet_size=WORDS.alphabet_size,
                    character_size=4,
                    spelling_size=6,
                    core=later("Recurrent", cell=later("LSTMCell")),
                ),
                core=CORE,
            ),
            head=later("CategoricalHead", num_classes=2),
        ),
        Processor(WORDS, LabelSequenceEncoder(["A", "B"])),
        lambda made: list(tag(made, ["it rains now"])),
    ),
    "transcription": (
        part(
            "SequenceTagger",
            encoder=features(COLUMN_FEATURES.output_size),
            head=later("CTCHead", num_classes=LETTERS.size),
        ),
        Processor(COLUMN_FEATURES, LETTERS),
        lambda made: list(transcribe(made, [LINE])),
    ),
    "forecasting": (
        part(
            "DirectForecaster",
            core=later("Recurrent", cell=later("PeepholeLSTMCell")),
            hidden_size=6,
            past_covariates=0,
            future_size=COLUMNS.future_size,
            num_targets=1,
            horizon=3,
            head=later("QuantileHead", quantiles=[0.1, 0.5, 0.9]),
        ),
        Processor(COLUMNS),
        lambda made: list(forecast(made, [SERIES], quantiles=(0.2,))),
    ),
    "music": (
        part(
            "AutoregressiveDecoder",
            embedding=part("FrameEmbedding", input_size=9),
            core=CORE,
            head=later("LabelsHead", num_labels=9),
        ),
        Processor(PianoRoll(60, 68)),
        lambda made: compose(made, [[61, 65]], frames=6, generator=generator()),
    ),
    "handwriting": (
        part(
            "EncoderDecoder",
            encoder=part("EmbeddingEncoder", embedding=part("OneHotEmbedding", vocabulary_size=LETTERS.size)),
            decoder=later(
                "SkipDecoder",
                embedding=part("FrameEmbedding", input_size=3),
                core=CORE,
                head=later("MixtureHead", num_components=2),
                attention=later("WindowAttention", num_components=2, initial_step=0.2),
            ),
        ),
        Processor(LETTERS, StrokeTransform(2.0)),
        lambda made: write(made, ["ab"], generator=generator(), max_points=20),
    ),
    "draw": (
        part("DRAW", image_size=[6, 6], core=later("Recurrent", cell=later("LSTMCell")), hidden_size=6, num_glimpses=3),
        Processor(PixelTransform((6, 6))),
        lambda made: draw_images(made, 2, generator=generator()),
    ),
}


def bundle(kind: str) -> Bundle:
    """A network with random weights, and running means of its batch normalization that are not those of a new one."""
    described, processor, _ = KINDS[kind]
    torch.manual_seed(0)
    network = build(described).eval()
    stored = network.state_dict()
    for name, buffer in network.named_buffers():
        if name in stored and buffer.is_floating_point() and buffer.isfinite().all():
            buffer.add_(torch.rand_like(buffer))
    return Bundle(network, processor, {"seed": 3, "choices": {"task": kind}, "data": "ten | twenty"})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return same(vars(one), vars(other)) if hasattr(one, "__dict__") else one == other


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_comes_back_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    made = bundle(kind)
    expected = KINDS[kind][2](made)

    save_pretrained(made, tmp_path / "shared")
    loaded = load_bundle(tmp_path / "shared")

    assert same(dict(made.network.state_dict()), dict(loaded.network.state_dict()))
    assert (describe(loaded.network), loaded.info) == (describe(made.network), made.info)
    assert loaded.processor.to_dict() == made.processor.to_dict()
    assert same(KINDS[kind][2](loaded), expected)
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "processor.json",
    ]
    # and once more, from what was loaded
    save_pretrained(loaded, tmp_path / "again")
    again = load_bundle(tmp_path / "again")
    assert same(dict(again.network.state_dict()), dict(made.network.state_dict()))


def test_a_tied_weight_is_stored_once_and_stays_tied(tmp_path: Path) -> None:
    made = bundle("char_lm")
    save_pretrained(made, tmp_path)

    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    names = set(made.network.state_dict())
    (absent,) = names - stored
    loaded: Any = load_bundle(tmp_path).network
    assert same(loaded.state_dict()[absent], made.network.state_dict()[absent])
    weights = dict(loaded.named_parameters(remove_duplicate=False))
    assert sum(weights[absent] is weights[name] for name in stored & set(weights)) == 1
    import safetensors.torch  # whose own loader reads the file, too

    other = build(describe(made.network))
    safetensors.torch.load_model(other, str(tmp_path / "model.safetensors"))
    assert same(dict(other.state_dict()), dict(made.network.state_dict()))


def test_views_of_one_tensor_are_stored_apart(tmp_path: Path) -> None:
    network = build({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 3})
    whole = torch.randn(4, 3)
    network.weight, network.bias = nn.Parameter(whole[:3].T), nn.Parameter(whole[0])
    save_pretrained(Bundle(network, Processor(LETTERS), {}), tmp_path)

    loaded: Any = load_bundle(tmp_path).network
    assert same([loaded.weight, loaded.bias], [network.weight, network.bias])


def test_the_model_card_has_what_the_hub_and_a_reader_look_for(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    summary = {
        "test/loss": 1.5,
        "test/bleu": 31.25,
        "test/broken": float("nan"),
        "signature bleu": "nrefs:1|tok:13a",
        "command": "train.py task=translation seed=3",
        "checkpoint": "/home/me/best.ckpt",
        "steps": 40,
    }
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps(summary))
    made = bundle("translation")
    info = {**made.info, "versions": {"torch": "9.9"}}
    save_bundle(made._replace(info=info), run / "checkpoints" / "best.ckpt")
    save_bundle(made._replace(info=info), run / "checkpoints" / "last.ckpt")

    assert main(["share", str(run / "checkpoints" / "best.ckpt"), str(tmp_path / "shared"), "--license", "mit"]) == 0

    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == ("unrolled", "mit", "translation")
    assert {"recurrent", "translation", "LSTMCell", "GRUCell"} <= set(card.data.tags)
    results = {each.metric_type: each for each in card.data.eval_results}
    assert {name: each.metric_value for name, each in results.items()} == {"loss": 1.5, "bleu": 31.25}
    assert results["bleu"].metric_args == {"signature": "nrefs:1|tok:13a"}
    for shown in (
        "train.py task=translation seed=3",
        "ten \\| twenty",
        "| seed | 3 |",
        "torch 9.9",
        "nrefs:1\\|tok:13a",
    ):
        assert shown in card.text
    assert "/home/me" not in card.content
    shared = load_bundle(tmp_path / "shared")
    assert shared.info["summary"]["test/bleu"] == 31.25
    assert "/home/me" not in (tmp_path / "shared" / "config.json").read_text()
    # The metrics are those of the best checkpoint alone.
    last = run / "checkpoints" / "last.ckpt"
    assert with_summary(load_bundle(last), last).info["summary"] == {
        name: summary[name] for name in ("signature bleu", "command", "steps")
    }


def damaged(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


def config(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda content: content[:-40], "config.json: the file is damaged: not JSON"),
        ("config.json", lambda content: b"\xff\xfe\x00", "config.json: the file is damaged: not JSON"),
        ("config.json", lambda content: b"[" * 100_000, "config.json: the file is damaged: not JSON"),
        ("config.json", lambda content: b"[1]", "config.json: it holds a list, expected a dict"),
        ("config.json", lambda content: b'{"model_type": "bert"}', "not one written by unrolled: 'bert'"),
        ("config.json", config(library_name=None), "not one written by unrolled: 'another library'"),
        ("config.json", config(format=3), "format 3; this version of unrolled reads format 2"),
        ("config.json", config(info=None), "its 'info' is missing"),
        ("config.json", config(network={"_target_": "os.system", "command": "true"}), "outside the trusted modules"),
        (
            "config.json",
            config(network={"_target_": "unrolled.descriptions.import_module"}),
            "not a network or transform",
        ),
        ("config.json", config(network={"_target_": "torch.nn.ReLU"}), "the weights are another network's"),
        ("processor.json", lambda content: content.replace(b"ab c", b"ba c"), "was changed"),
        ("model.safetensors", lambda content: content[:-4], "was changed"),
        ("model.safetensors", lambda content: content[:200] + b"x" + content[201:], "was changed"),
    ],
)
def test_what_is_damaged_or_foreign_is_refused(tmp_path: Path, name: str, change: Any, message: str) -> None:
    save_pretrained(bundle("char_lm"), tmp_path)
    damaged(tmp_path, name, change)

    with pytest.raises(CheckpointError, match=message):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["processor.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_pretrained(bundle("char_lm"), tmp_path)
    (tmp_path / name).unlink()

    with pytest.raises(CheckpointError, match=f"{name}: no such file; a pretrained folder has"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 8, 100, 300])
def test_weights_without_a_digest_are_read_with_care(tmp_path: Path, size: int) -> None:
    save_pretrained(bundle("char_lm"), tmp_path)
    damaged(tmp_path, "config.json", config(sha256=None))
    load_bundle(tmp_path)  # another program may have written it
    for junk in (lambda content: content[:size], lambda content: b"\xff" * size + content[size:]):
        save_pretrained(bundle("char_lm"), tmp_path)
        damaged(tmp_path, "config.json", config(sha256=None))
        damaged(tmp_path, "model.safetensors", junk)
        if size or junk(b"x") == b"":
            with pytest.raises(CheckpointError):
                load_bundle(tmp_path)


def test_what_cannot_be_shared_is_refused_and_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    made = bundle("char_lm")
    save_pretrained(made, tmp_path / "shared")
    before = {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()}
    cases: list[tuple[Bundle, str]] = [
        (made._replace(network=nn.Linear(2, 2)), "this Linear has no description"),
        (made._replace(info={1: "a"}), "the keys of its dicts must be texts"),
        (made._replace(info={"a": float("inf")}), "can't be written as JSON"),
        (made._replace(info={"a": torch.ones(2)}), "can't be written as JSON"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            save_pretrained(wrong, tmp_path / "shared")
    assert {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        save_pretrained(made, tmp_path / "file")


def test_classes_of_a_package_of_ones_own_need_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab2.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    network = build({"_target_": "mylab2.Net", "in_features": 2, "out_features": 1})
    save_pretrained(Bundle(network, Processor(LETTERS), {}), tmp_path / "shared")

    with pytest.raises(CheckpointError, match="outside the trusted modules"):
        load_bundle(tmp_path / "shared")
    trusted = ("unrolled.", "torch.nn.", "mylab2.")
    assert type(from_pretrained(tmp_path / "shared", trusted=trusted).network).__name__ == "Net"


def test_a_name_is_a_repository_where_it_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    assert repository_of("alice/plays") == Repository("alice/plays")
    assert repository_of(Path("alice/plays@v1.0")) == Repository("alice/plays", "v1.0")
    assert repository_of("hf://runs/plays@refs/pr/1") == Repository("runs/plays", "refs/pr/1")
    assert repository_of(Path("hf://runs/plays")) == Repository("runs/plays")
    for path in ("runs/plays", "alice/plays.ckpt", "best.ckpt", "/alice/plays", "a/b/c", "../alice/plays", "alice"):
        assert repository_of(path) is None, path
    for wrong in ("hf://alice", "hf://alice/plays/more", "hf://../plays", "hf://alice/plays@"):
        with pytest.raises(CheckpointError, match="expected hf://OWNER/NAME"):
            repository_of(wrong)
    with pytest.raises(CheckpointError, match="revision='v1' is for repositories"):
        from_pretrained("runs", revision="v1")
    with pytest.raises(CheckpointError, match="names another revision"):
        from_pretrained("alice/plays@v2", revision="v1")


def test_a_folder_is_read_wherever_a_checkpoint_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bundle("char_lm")
    save_bundle(made, tmp_path / "one.ckpt")
    for destination in (
        ["share", str(tmp_path / "one.ckpt"), str(tmp_path / "a")],
        ["share", str(tmp_path / "a"), str(tmp_path / "b")],
    ):
        assert main(destination) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [Path(line.split("\t")[0]).name for line in printed[:4]] == [
        "README.md",
        "model.safetensors",
        "processor.json",
        "config.json",
    ]

    texts = []
    for source in ("one.ckpt", "a", "b"):
        assert main(["sample", str(tmp_path / source), "--length", "30", "--seed", "1"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]

    for wrong, message in (
        ([str(tmp_path / "one.ckpt"), str(tmp_path / "one.ckpt")], "this is a file; name a folder"),
        ([str(tmp_path / "one.ckpt"), str(tmp_path / "c"), "--private"], "--private is for repositories"),
        ([str(tmp_path / "one.ckpt"), "hf://alice"], "expected hf://OWNER/NAME"),
        ([str(tmp_path / "two.ckpt"), str(tmp_path / "c")], "no such file; beside it: "),
    ):
        assert main(["share", *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


HUB = """
import os, sys
sys.path.insert(0, sys.argv[1])
from hub_server import TOKEN, running_hub

with running_hub() as hub:
    os.environ |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": "cache", "HF_HUB_DISABLE_XET": "1"}
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    from unrolled import load_bundle, save_bundle
    from unrolled.deployment import from_pretrained, push_to_hub, sample_text
    from unrolled.deployment.command import main
    from unrolled.descriptions import CheckpointError
    import torch

    def said(made):
        return sample_text(made, length=30, generator=torch.Generator().manual_seed(1))

    def refused(read):
        try:
            read()
        except CheckpointError as error:
            return str(error)
        raise SystemExit("not refused")

    made = load_bundle("one.ckpt")
    assert main(["share", "one.ckpt", "hf://alice/plays", "--private", "--license", "mit"]) == 0
    first = hub.branches["alice/plays"]["main"]
    assert hub.private == {"alice/plays": True}
    files = hub.commits["alice/plays"][first]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "processor.json"]
    assert b"license: mit" in files["README.md"]
    hub.branches["alice/plays"]["v1"] = first

    with torch.no_grad():
        made.network.head.linear.bias[-1].add_(3.0)
    address = push_to_hub(made, "alice/plays", commit_message="More")
    assert address == f"{hub.address}/alice/plays/commit/{hub.branches['alice/plays']['main']}", address
    assert said(load_bundle("alice/plays")) == said(made)
    for old in (load_bundle("hf://alice/plays@v1"), from_pretrained("alice/plays", revision=first)):
        assert said(old) == said(load_bundle("one.ckpt")) != said(made)

    for name, message in (
        ("alice/none", "there is no such repository"),
        ("alice/plays@v9", "it has no revision v9"),
    ):
        assert message in refused(lambda: load_bundle(name)), refused(lambda: load_bundle(name))
    found = refused(lambda: from_pretrained("alice/plays", token="hf_wrong", cache_dir="empty"))
    assert "there is no such repository" in found, found
    found = refused(lambda: push_to_hub(made, "alice/plays", token="hf_wrong"))
    assert "not published" in found and "401" in found, found
    found = refused(lambda: push_to_hub(made, "alice/plays", branch="nowhere"))
    assert "not published" in found, found
    hub.commit("alice/plays", "main", {"config.json": b'{"model_type": "bert"}'})
    assert "not one written by unrolled" in refused(lambda: load_bundle("alice/plays"))
    hub.create("alice/empty", False)
    assert "has no config.json" in refused(lambda: load_bundle("alice/empty"))

# Without a connection, the cache answers.
assert said(from_pretrained("alice/plays", revision=first)) == said(load_bundle("one.ckpt"))
assert said(from_pretrained("alice/plays", revision="v1", local_files_only=True)) == said(load_bundle("one.ckpt"))
assert "not in the cache" in refused(lambda: load_bundle("alice/other"))
"""


def test_a_repository_is_written_and_read_like_a_folder(tmp_path: Path) -> None:
    save_bundle(bundle("char_lm"), tmp_path / "one.ckpt")
    (tmp_path / "hub.py").write_text(HUB)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}

    done = subprocess.run(
        [sys.executable, "hub.py", str(Path(__file__).parent)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    save_pretrained(bundle("draw"), tmp_path)

    written = json.loads((tmp_path / "config.json").read_text())
    assert written["library_name"] == "unrolled"
    assert written["sha256"] == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "processor.json")
    }
