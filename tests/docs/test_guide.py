"""The guide: each picture is what the command under it draws, each claim holds, and each sentence is translated."""

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from babel.messages.pofile import read_po

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
KOREAN = ROOT / "docs" / "locale" / "ko" / "LC_MESSAGES"
sys.path.insert(0, str(GUIDE))

import run as guide  # noqa: E402

CHAPTERS = [page for page in sorted(GUIDE.glob("*.md")) if page.stem != "index"]
SHOWN = re.compile(r"^:::\{image\} images/(\w+)\.png\n(?:.*\n)*?:::\n\n```\n((?:.*\n)*?)```", re.MULTILINE)
COMMAND = re.compile(r"^python docs/guide/run\.py (\w+)$", re.MULTILINE)

Data = dict[str, Any]


def committed(name: str) -> Data:
    return json.loads((GUIDE / "data" / f"{name}.json").read_text())


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_each_picture_stands_above_the_command_that_draws_it(page: Path) -> None:
    text = page.read_text()
    shown = SHOWN.findall(text)

    assert len(shown) == text.count("{image}") == text.count(":alt:")
    for picture, commands in shown:
        (name,) = COMMAND.findall(commands)
        assert picture in {drawn for drawn, _ in guide.experiment(name).draw(committed(name))}


def test_each_experiment_has_its_numbers_and_its_pictures_and_each_picture_is_shown() -> None:
    shown = {picture for page in CHAPTERS for picture, _ in SHOWN.findall(page.read_text())}
    linked = {name for page in CHAPTERS for name in re.findall(r"\(images/(\w+\.html)\)", page.read_text())}
    drawn = {picture for name in guide.NAMES for picture, _ in guide.experiment(name).draw(committed(name))}
    there = {path.stem for path in (GUIDE / "images").glob("*.png")}

    assert {path.stem for path in (GUIDE / "data").iterdir()} == set(guide.NAMES)
    assert shown == drawn == there
    assert linked == {path.name for path in (GUIDE / "images").glob("*.html")}


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_each_chapter_is_listed_and_translated(page: Path) -> None:
    with (KOREAN / "guide" / f"{page.stem}.po").open("rb") as opened:
        sentences = [message for message in read_po(opened) if message.id]

    assert f"\n{page.stem}\n" in (GUIDE / "index.md").read_text()
    assert len(sentences) > 5
    for sentence in sentences:
        assert sentence.string, sentence.id
        assert not sentence.fuzzy, sentence.id
        code = re.compile(r"`[^`]+`|\$[^$]+\$")
        assert sorted(code.findall(str(sentence.id))) == sorted(code.findall(str(sentence.string)))


def functions(data: Data) -> None:
    steepest = {name: max(curve["slope"]) for name, curve in data["functions"].items()}
    assert steepest == pytest.approx({"sigmoid": 0.25, "tanh": 1, "softsign": 1, "relu": 1}, abs=1e-3)
    assert [states[-1] > 0.8 for states in data["recurrent_weights"].values()] == [False, False, False, True]
    saturated = [abs(state) > 0.99 for state in data["input_weights"]["20"]]
    assert sum(saturated) >= 0.8 * len(saturated)
    last = {name: values[-1] for name, values in data["accuracy"].items()}
    assert last["sigmoid"] < min(last["tanh"], last["softsign"], last["relu"]) - 0.1


def unrolling(data: Data) -> None:
    assert data["inputs"][1] == 0
    assert max(map(abs, data["states"][1])) > 0.1


def sigmoids(data: Data) -> None:
    assert data["steepest"] == pytest.approx([0.25, 0.0588, 0.0135, 0.00305], rel=0.01)


def gradients(data: Data) -> None:
    before = {name: norms[59] for name, norms in data["before"].items()}
    assert before["elman"] < 1e-10
    assert before["gru"] < 1e-10
    assert before["lstm"] > 1e-6
    linear = {float(radius): norms[-1] / norms[10] for radius, norms in data["radius_linear"].items()}
    assert linear[0.9] < 0.1
    assert 0.3 < linear[1.0] < 3
    assert linear[1.1] > 10
    assert data["radius"]["2.0"][-1] > 1e2


def levels(data: Data) -> None:
    gradients(data)
    assert min(min(norms) for norms in data["after"].values()) > 0.05
    assert max(data["accuracy"], key=lambda name: data["accuracy"][name]) == "lstm"


def clipping(data: Data) -> None:
    highest = {way: max(losses) for way, losses in data["loss"].items()}
    assert highest["measure"] > 3.5
    assert highest["percentile"] < highest["norm"] < 3 < highest["value"]
    assert max(data["norm"]["measure"]) > 50


def orders(data: Data) -> None:
    assert max(data["plain"]["feedforward"]) == 0
    assert max(data["plain"]["elman"]) > 0.5


def memories(data: Data) -> None:
    orders(data)
    assert data["plain"]["elman"][-1] == 1
    certain = {name: [share for _, share in points] for name, points in data["memory"].items()}
    mean = {name: sum(shares) / len(shares) for name, shares in certain.items()}
    assert 0.5 < mean["elman"] < 0.65
    assert mean["lstm"] > 0.9
    assert data["embedded"]["lstm"][-1] > data["embedded"]["elman"][-1] + 0.1


def rhythms(data: Data) -> None:
    errors = data["errors"]
    learned = {name: next(place for place, error in enumerate(errors[name]) if error < 0.1) for name in errors}
    assert min(learned, key=lambda name: learned[name]) == "clockwork"
    assert learned["elman"] > 2 * learned["clockwork"]
    assert max(errors["lstm"][-1], errors["gated_feedback"][-1]) < errors["clockwork"][-1] / 2
    best = [max(shares) for shares in data["followed"]["lstm"]]
    assert sum(share > 0.5 for share in best) > 0.7 * len(best)
    units = data["followed"]["clockwork"]
    modules = [units[start : start + len(units) // 4] for start in range(0, len(units), len(units) // 4)]
    means = [[sum(column) / len(module) for column in zip(*module, strict=True)] for module in modules]
    assert [mean.index(max(mean)) for mean in means[:3]] == [0, 1, 2]
    assert max(means[3]) < 0.3


def rhythm_beginnings(data: Data) -> None:
    last = {name: errors[-1] for name, errors in data["errors"].items()}
    assert min(last, key=lambda name: last[name]) == "clockwork"


def blocks(data: Data) -> None:
    sentence, lower = data["sentence"], data["forget"][12:]
    first = [place for place, letter in enumerate(sentence) if letter.isalpha() and sentence[place - 1] == " "]
    other = [place for place, letter in enumerate(sentence) if letter.isalpha() and place not in first and place]
    means = [
        sum(row[place] for row in lower for place in places) / len(lower) / len(places) for places in (first, other)
    ]
    assert means == pytest.approx([0.89, 0.96], abs=0.006)
    constants = data["time_constants"]
    assert (len(constants), sum(c < 2 for c in constants), sum(8 <= c <= 30 for c in constants)) == (128, 25, 84)
    losses = {bias: values for bias, (_, values) in data["bias"].items()}
    assert {bias: min(values) for bias, values in losses.items()} == pytest.approx(
        {"0": 0.65, "1": 0.62, "5": 1.35}, abs=0.006
    )
    assert losses["0"][4] - losses["1"][4] == pytest.approx(0.2, abs=0.05)
    accuracy = data["variants"]
    assert accuracy["no forget gate"] < 0.5 * min(a for name, a in accuracy.items() if name != "no forget gate")
    cost = {name: accuracy["with peepholes"] - value for name, value in accuracy.items()}
    assert min(cost["coupled gates"], cost["no peepholes"]) > 0.1
    assert max(cost[f"no {part}"] for part in ("input gate", "input activation", "output activation")) < 0.015


def open_gates(data: Data) -> None:
    constants = data["time_constants"]
    assert constants == sorted(constants)
    assert data["bias"]["1"][1][-1] < data["bias"]["5"][1][-1]


def windows(data: Data) -> None:
    last = {kind: [values[-1] for values in data[kind].values()] for kind in ("carried", "reset")}
    assert last["carried"] == pytest.approx([0.5, 1, 1], abs=0.03)
    assert last["reset"] == pytest.approx([0.5, 0.8, 0.96], abs=0.01)  # (window − 8 / 2) / window, where it can learn
    assert list(data["bytes"].values()) == pytest.approx([0.83e6, 2.9e6, 14.1e6], rel=0.05)
    assert [value / data["time"]["100"] for value in data["time"].values()] == pytest.approx([4.1, 1.5, 1], abs=0.06)
    assert list(data["text"].values()) == pytest.approx([1.69, 1.72, 1.81], abs=0.006)
    for short, long in (("5", "20"), ("20", "100")):
        assert all(a < b for a, b in zip(data["language"][short][1], data["language"][long][1], strict=True))


def memory_grows(data: Data) -> None:
    small, medium, large = data["bytes"].values()
    assert 3 < medium / small < 5
    assert 4 < large / medium < 6
    assert data["carried"]["5"][-1] < 0.6


def speeds(data: Data) -> None:
    assert max(data["parameters"].values()) < 1.1 * min(data["parameters"].values())
    last = {name: curve[1][-1] for name, curve in data["validation"].items()}
    assert max(last["gru"], last["elman"]) < last["lstm"] - 0.1
    assert list(data["time"].values()) == pytest.approx([1, 1.18, 1.16], abs=0.006)
    for name in ("gru", "elman"):  # at the LSTM's time, too
        steps, losses = data["validation"][name]
        within = [loss for step, loss in zip(steps, losses, strict=True) if step * data["time"][name] <= 800]
        assert within[-1] < last["lstm"] - 0.1


def lower_losses(data: Data) -> None:
    assert max(data["parameters"].values()) < 1.1 * min(data["parameters"].values())
    falling(data)


def counts(data: Data) -> None:
    assert data["largest_n"] == 286
    for count, (first, second) in data["cells"].items():
        middle = int(count)
        slopes = [after - before for before, after in pairwise(first)]
        assert slopes == pytest.approx([-1] * middle + [1] * middle, abs=0.25)
        assert max(map(abs, second[: middle + 1])) < 1
        assert second[-1] == pytest.approx(middle, abs=1)


def cell_states(data: Data) -> None:
    assert all(len(unit) == 2 * int(count) + 1 for count, units in data["cells"].items() for unit in units)


def speakers(data: Data) -> None:
    for steps, losses in data["validation"].values():
        assert steps[-1] in (1600, 2812)
        assert losses == sorted(losses, reverse=True)
    assert data["validation"]["GravesLSTM"][1][-1] < data["validation"]["200 units"][1][-1] - 0.1
    assert (data["layer"], data["unit"], data["correlation"]) == (1, 30, pytest.approx(-0.73, abs=0.001))
    shown = (GUIDE / "shakespeare.md").read_text().split("```text\n")[1:]
    for sample, name in zip(shown, ["200 units", "200 units", "GravesLSTM"], strict=True):
        assert sample.partition("\n```")[0] in data["samples"][name]


def falling_loss(data: Data) -> None:
    for _, losses in data["validation"].values():
        assert losses[-1] < losses[0]


def falling(data: Data) -> None:
    for _, losses in data["validation"].values():
        assert losses[-1] < losses[0]


def advice(data: Data) -> None:
    lowest = {override: min(losses) for override, (_, losses) in data["validation"].items()}
    assert data["train"][""][1][-1] < 0.05 < 0.5 < lowest[""]
    for same in ("task.l1=1e-4", "task.l2=1e-2", "network.output_dropout=0.5", "encoder.frame.hidden_size=256"):
        assert lowest[same] == pytest.approx(lowest[""], abs=0.06)
    assert lowest["encoder.frame.input_dropout=0.3"] < lowest[""] - 0.15
    assert lowest["encoder.frame.hidden_size=4"] > 1.5
    assert lowest[""] < lowest["encoder.frame.num_layers=2"] < lowest["encoder.frame.num_layers=4"]
    assert lowest["optimizer.lr=3e-4"] > 1
    epochs = {name: [error < 1 for error in errors].index(True) for name, (_, errors) in data["regression"].items()}
    assert epochs == {"normalized": 4, "as they are": 7}
    assert [errors[-1] for _, errors in data["regression"].values()] == pytest.approx([0.7, 0.7], abs=0.02)


def falls(data: Data) -> None:
    early = [loss for rate, loss in zip(data["rates"], data["smooth"], strict=True) if rate < 1e-3]
    assert max(early) - min(early) < 0.15
    assert data["suggestion"] == pytest.approx(0.01, rel=0.1)
    assert data["rates"][data["smooth"].index(min(data["smooth"]))] == pytest.approx(0.08, rel=0.1)
    late = [loss for rate, loss in zip(data["rates"], data["smooth"], strict=True) if rate > 0.6]
    assert max(late) > 2 * min(data["smooth"])


def rises(data: Data) -> None:
    assert data["rates"] == sorted(data["rates"])
    assert data["rates"][0] == pytest.approx(1e-6)
    assert 1e-4 < data["suggestion"] < 1


# name, claim of the guide about the committed numbers, claim that the shortened form already shows
CLAIMS: dict[str, tuple[Callable[[Data], None], Callable[[Data], None] | None]] = {
    "activations": (functions, functions),
    "unrolling": (unrolling, unrolling),
    "sigmoid_chain": (sigmoids, sigmoids),
    "gradients": (levels, gradients),
    "clipping": (clipping, None),  # where a training explodes differs between processors
    "reber": (memories, orders),
    "lstm": (blocks, open_gates),
    "lr_range": (falls, rises),
    "time_scales": (rhythms, rhythm_beginnings),
    "truncation": (windows, memory_grows),
    "gru": (speeds, lower_losses),
    "long_lags": (counts, cell_states),
    "shakespeare": (speakers, falling_loss),
    "hyperparameters": (advice, falling),
}
FAST = {"unrolling", "sigmoid_chain"}


def test_every_experiment_claims_something() -> None:
    assert set(CLAIMS) == set(guide.NAMES)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_numbers_in_the_guide_show_what_it_claims(name: str) -> None:
    CLAIMS[name][0](committed(name))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CLAIMS]
)
def test_the_shortened_experiment_shows_it_too(name: str, folder: Path) -> None:
    data = guide.measured(name, short=True)

    assert set(data) >= set(committed(name))
    if (claim := CLAIMS[name][1]) is not None:
        claim(data)
