"""Bundles: what is read, what is refused, and that nothing in a file is executed."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unrolled import (
    AutoregressiveDecoder,
    Bundle,
    CharacterTokenizer,
    Recurrent,
    build,
    describe,
    load_bundle,
    save_bundle,
)
from unrolled.descriptions import CheckpointError
from unrolled.processing.transform import Processor

NETWORK: dict[str, Any] = {
    "_target_": "unrolled.AutoregressiveDecoder",
    "embedding": {"_target_": "unrolled.TokenEmbedding", "vocabulary_size": 5, "size": 3},
    "head": {"_target_": "unrolled.CategoricalHead", "_partial_": True, "num_classes": 5},
    "core": {
        "_target_": "unrolled.Recurrent",
        "_partial_": True,
        "cell": {"_target_": "unrolled.LSTMCell", "_partial_": True, "forget_bias": 2.0},
        "hidden_size": 4,
    },
}


def source(described: Any) -> dict[str, Any]:
    return {"source": described, "target": None}


def content(**changes: Any) -> dict[str, Any]:
    network = build(NETWORK)
    ours = {
        "format": 2,
        "network": NETWORK,
        "processor": Processor(CharacterTokenizer("abc")).to_dict(),
        "info": {"seed": 1},
    }
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    return {"state_dict": weights, "unrolled": {**ours, **changes}}


def saved(folder: Path, thing: Any) -> Path:
    torch.save(thing, folder / "best.ckpt")
    return folder / "best.ckpt"


def test_a_description_builds_what_the_constructor_would() -> None:
    network = build(NETWORK)

    assert isinstance(network, AutoregressiveDecoder)
    assert isinstance(network.core, Recurrent)
    assert network.core.cells[0].bias_ih[4:8].tolist() == [2.0] * 4


def test_a_bundle_comes_back_whole(tmp_path: Path) -> None:
    whole = content()

    bundle = load_bundle(saved(tmp_path, whole))

    assert bundle.processor.source.decode(bundle.processor.source.encode("cab")) == "cab"
    assert bundle.info == {"seed": 1}
    assert not bundle.network.training
    for name, value in bundle.network.state_dict().items():
        assert torch.equal(value, whole["state_dict"][f"network.{name}"])


def test_what_save_bundle_writes_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    bundle = Bundle(build(NETWORK), Processor(CharacterTokenizer("abc")), {"seed": 7})
    state = torch.get_rng_state()

    save_bundle(bundle, tmp_path / "mine.ckpt")
    assert torch.equal(torch.get_rng_state(), state)  # saving draws no random numbers

    loaded = load_bundle(tmp_path / "mine.ckpt")
    assert describe(loaded.network) == describe(bundle.network) == NETWORK
    assert (loaded.info, loaded.processor.to_dict()) == (bundle.info, bundle.processor.to_dict())
    assert loaded.network.state_dict().keys() == bundle.network.state_dict().keys()
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, bundle.network.state_dict()[name])


def test_a_bundle_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"
    bundle = Bundle(nn.Linear(2, 3), Processor(CharacterTokenizer("abc")), {})
    with pytest.raises(ValueError, match="this Linear has no description"):
        save_bundle(bundle, path)
    description = {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 3}
    with pytest.raises(ValueError, match=r"weight is \(3, 2\), the network has \(3, 4\)"):
        save_bundle(bundle, path, description=description)
    assert not path.exists()

    save_bundle(bundle, path, description={**description, "in_features": 2})
    assert torch.equal(load_bundle(path).network.weight, bundle.network.weight)  # pyright: ignore


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "mylab.cells.Mine",
        "torch.load",
        "torch.hub.load",
        "unrolled_tasks.char_lm.CharLM",
        "unrolled.checkpoint.load_bundle",  # ours, but no network
        "unrolled.descriptions.import_module",
        "unrolled.descriptions.functools.partial",
        "torch.nn.modules.module.torch.load",
        "torch.nn.init.normal_",
    ],
)
def test_code_outside_the_allow_list_is_refused(tmp_path: Path, target: str) -> None:
    path = saved(tmp_path, content(network={"_target_": target}))

    with pytest.raises(CheckpointError, match=r"outside the trusted modules|not a network or transform class"):
        load_bundle(path)


def test_nested_targets_are_checked_too(tmp_path: Path) -> None:
    hostile = {**NETWORK, "core": {**NETWORK["core"], "cell": {"_target_": "os.system", "command": "true"}}}

    with pytest.raises(CheckpointError, match=r"os\.system"):
        load_bundle(saved(tmp_path, content(network=hostile)))


class Explosive:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def test_a_pickled_object_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {**content(), "surprise": Explosive()})

    with pytest.raises(CheckpointError, match="not executed"):
        load_bundle(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"state_dict": {}}, "not one written by unrolled"),
        ([1, 2], "not one written by unrolled"),
        (content(format=3), "format 3"),
        (content(format=1), "format 1; .* train the network again"),
        ({**content(), "state_dict": {}}, "is missing"),
        (content(network={**NETWORK, "embedding": {**NETWORK["embedding"], "size": 9}}), "the network has"),
        ({"state_dict": {}, "unrolled": [1]}, "format None"),
        (content(network=[NETWORK]), "its 'network' is a list, expected a dict"),
        (content(processor=None), "its 'processor' is missing, expected a dict"),
        (content(info="none"), "its 'info' is a str"),
        (content(network={"of": 1}), "its 'network' describes a dict, expected a Module"),
        (
            content(processor={"source": {"_target_": "torch.nn.ReLU"}, "target": None}),
            "source describes a ReLU, expected a transform",
        ),
        (content(network={**NETWORK, "_partial_": True}), "its 'network' describes a partial"),
        (content(network={**NETWORK, "_target_": 5}), "its network cannot be built"),
        (content(network={**NETWORK, "vocabulary_size": "5"}), "its network cannot be built"),
        (content(network={**NETWORK, "vocabulary_size": 10**12}), "its network cannot be built"),
        (content(network={**NETWORK, "core": 3}), "its network cannot be built"),
        (
            content(processor={"source": {"_target_": "unrolled.CharacterTokenizer", "characters": 7}, "target": None}),
            "its processor cannot be built",
        ),
        ({**content(), "state_dict": [1]}, "its 'state_dict' is a list"),
        ({**content(), "state_dict": {"network.a": 1}}, "its weight 'network.a' is an int"),
        ({**content(), "state_dict": {7: torch.ones(2)}}, "its weight 7 is a Tensor"),
        ({**content(), "state_dict": {"network.a": torch.eye(2).to_sparse()}}, "its weight 'network.a' is a Tensor"),
    ],
)
def test_a_foreign_file_says_what_it_is(tmp_path: Path, thing: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_bundle(saved(tmp_path, thing))


def test_text_and_truncated_files_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "poem.ckpt").write_text("Shall I compare thee")
    whole = saved(tmp_path, content()).read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "stack.ckpt").write_text("seed: 1\n")  # "s" takes from a stack on which nothing is
    (tmp_path / "folder.ckpt").mkdir()

    for name in ("poem.ckpt", "half.ckpt", "stack.ckpt", "folder.ckpt"):
        with pytest.raises(CheckpointError, match=name) as raised:
            load_bundle(tmp_path / name)
        assert "Re-running" not in str(raised.value)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    saved(tmp_path, content())

    with pytest.raises(CheckpointError, match=r"bets\.ckpt: no such file; beside it: .*best\.ckpt"):
        load_bundle(tmp_path / "bets.ckpt")


def test_a_trusted_package_of_ones_own_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    network = {"_target_": "mylab.Net", "in_features": 2, "out_features": 1}
    weights = {f"network.{k}": v for k, v in nn.Linear(2, 1).state_dict().items()}
    path = saved(tmp_path, {**content(network=network), "state_dict": weights})

    with pytest.raises(CheckpointError, match="outside the trusted modules"):
        load_bundle(path)
    bundle = load_bundle(path, trusted=("unrolled.", "torch.nn.", "mylab."))

    assert type(bundle.network).__name__ == "Net"


def test_arguments_that_a_class_does_not_take_are_named() -> None:
    with pytest.raises(ValueError, match="takes no 'forget_biass'; did you mean forget_bias"):
        build({"_target_": "unrolled.LSTMCell", "input_size": 1, "hidden_size": 1, "forget_biass": 1.0})


def test_partials_are_completed_later() -> None:
    made = build({"_target_": "torch.nn.Linear", "_partial_": True, "out_features": 3})

    assert isinstance(made, partial)
    assert made(2).weight.shape == (3, 2)
