"""Recurrent layers of Keras: what is imported computes what Keras does, and what can't be expressed is refused."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unrolled import Bundle, CharacterTokenizer, Processor, Recurrent, describe, load_bundle, save_bundle, unroll
from unrolled.deployment import from_keras, keras_layers
from unrolled.descriptions import CheckpointError

os.environ.setdefault("KERAS_BACKEND", "torch")
h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")
L = keras.layers

# absl's handler is closed when Hydra replaces all handlers, and closes the stream that it was made with: pytest's own.
absl_logging = pytest.importorskip("absl.logging")
absl_logging.get_absl_handler().python_handler.stream = io.StringIO()

INPUT, BATCH, TIME = 3, 2, 5
INPUTS = torch.randn(BATCH, TIME, INPUT, generator=torch.Generator().manual_seed(0))
ALL = {"return_sequences": True}

# Each stack of layers, and the cell that it becomes.
STACKS: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "lstm": (lambda: [L.LSTM(4, **ALL)], "LSTMCell"),
    "lstm without bias": (lambda: [L.LSTM(4, use_bias=False, **ALL)], "LSTMCell"),
    "lstm activations": (lambda: [L.LSTM(4, activation="softsign", **ALL)], "PeepholeLSTMCell"),
    "lstm hard": (lambda: [L.LSTM(4, recurrent_activation="hard_sigmoid", **ALL)], "PeepholeLSTMCell"),
    "gru": (lambda: [L.GRU(4, **ALL)], "GRUCell"),
    "gru without bias": (lambda: [L.GRU(4, use_bias=False, **ALL)], "GRUCell"),
    "gru reset first": (lambda: [L.GRU(4, reset_after=False, **ALL)], "ResetFirstGRUCell"),
    "rnn": (lambda: [L.SimpleRNN(4, **ALL)], "ElmanCell"),
    "rnn relu": (lambda: [L.SimpleRNN(4, activation="relu", **ALL)], "ElmanCell"),
    "rnn linear": (lambda: [L.SimpleRNN(4, activation=None, **ALL)], "ElmanCell"),
    "both lstm": (lambda: [L.Bidirectional(L.LSTM(4, **ALL))], "LSTMCell"),
    "both gru": (lambda: [L.Bidirectional(L.GRU(4, reset_after=False, use_bias=False, **ALL))], "ResetFirstGRUCell"),
    "two": (lambda: [L.LSTM(4, **ALL), L.Dropout(0.5), L.LSTM(4, **ALL)], "LSTMCell"),
    "two both": (lambda: [L.Bidirectional(L.GRU(4, **ALL)), L.Bidirectional(L.GRU(4, **ALL)), L.Dense(2)], "GRUCell"),
}


def sequential(*layers: Any) -> Any:
    """A model with weights of which none is zero."""
    model = keras.Sequential([keras.Input((None, INPUT)), *layers])
    return redrawn(model)


def redrawn(model: Any) -> Any:
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=each.shape).astype(np.float32) * 0.7 for each in model.get_weights()])
    return model


def functional(*layers: Any) -> Any:
    x = inputs = keras.Input((None, INPUT))
    for layer in layers:
        x = layer(x)
    return redrawn(keras.Model(inputs, x))


def outputs(model: Any, inputs: torch.Tensor = INPUTS) -> torch.Tensor:
    """The outputs of a model's last recurrent layer."""
    recurrent = [each for each in model.layers if isinstance(each, (L.RNN, L.Bidirectional))]
    part = keras.Model(model.inputs, recurrent[-1].output)
    return torch.as_tensor(keras.ops.convert_to_numpy(part(inputs.numpy(), training=False)))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("stack", STACKS)
def test_layers_compute_the_same_here_as_in_keras(tmp_path: Path, stack: str, suffix: str) -> None:
    layers, cell = STACKS[stack]
    model = sequential(*layers())
    model.save(tmp_path / f"model{suffix}")

    network = from_keras(tmp_path / f"model{suffix}")

    assert type(network.cells[0]).__name__ == cell
    assert network.num_layers == (2 if "two" in stack else 1)
    assert network.bidirectional == ("both" in stack)
    with torch.no_grad():
        close(network(INPUTS)[0], outputs(model))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_functional_model_and_layers_of_one_class_are_told_apart(tmp_path: Path, suffix: str) -> None:
    model = functional(
        L.LSTM(4, name="low", **ALL), L.Dropout(0.2), L.LSTM(4, name="high", **ALL), L.LSTM(3, name="top")
    )
    model.save(tmp_path / f"model{suffix}")
    path = tmp_path / f"model{suffix}"

    with pytest.raises(CheckpointError, match=r"low and top differ in their numbers of units; .* layers=\['low'\]"):
        from_keras(path)
    network, top = from_keras(path, ["low", "high"]), from_keras(path, ["top"])

    with torch.no_grad():
        states, _ = network(INPUTS)
        close(top(states)[0][:, -1], outputs(model))
    with pytest.raises(
        CheckpointError, match="'mine' is no recurrent layer that can be imported; there are low, high, top"
    ):
        from_keras(path, ["mine"])
    with pytest.raises(CheckpointError, match="high does not read the outputs of top"):
        from_keras(path, ["top", "high"])


def test_a_masked_sequence_is_one_with_lengths(tmp_path: Path) -> None:
    model = sequential(L.Bidirectional(L.GRU(4, **ALL)))
    model.save(tmp_path / "model.keras")
    lengths = torch.tensor([5, 2])
    mask = torch.arange(TIME) < lengths[:, None]
    expected = model.layers[-1](INPUTS, mask=mask, training=False).detach()

    with torch.no_grad():
        found, _ = from_keras(tmp_path / "model.keras")(INPUTS, lengths=lengths)

    close(found[mask], expected[mask])


def test_a_layer_that_goes_backwards_is_a_cell_that_runs_in_reverse(tmp_path: Path) -> None:
    model = sequential(L.LSTM(4, go_backwards=True, **ALL))
    model.save(tmp_path / "model.keras")

    with pytest.raises(CheckpointError, match=r"lstm.* has go_backwards=True; pass reverse=True"):
        from_keras(tmp_path / "model.keras")
    network = from_keras(tmp_path / "model.keras", reverse=True)

    with torch.no_grad():
        found, _ = unroll(network.cells[0], INPUTS, reverse=True)  # pyright: ignore[reportArgumentType]
    close(found.flip(1), outputs(model))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_whole_classifier_is_put_together_from_its_layers(tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential([keras.Input((None,)), L.Embedding(9, 3), L.LSTM(4), L.Dense(2, activation="softmax")])
    redrawn(model).save(tmp_path / f"model{suffix}")
    tokens = torch.randint(0, 9, (BATCH, TIME), generator=torch.Generator().manual_seed(0))

    found = keras_layers(tmp_path / f"model{suffix}")

    embedding, recurrent, dense = found.values()
    with torch.no_grad():
        _, (state,) = recurrent(embedding(tokens))
        probabilities = dense(state.h).softmax(-1)
    close(probabilities, torch.as_tensor(keras.ops.convert_to_numpy(model(tokens.numpy()))))
    assert isinstance(embedding, nn.Embedding)
    assert isinstance(dense, nn.Linear)


def test_an_imported_network_is_saved_as_a_bundle(tmp_path: Path) -> None:
    sequential(L.Bidirectional(L.GRU(4, **ALL))).save(tmp_path / "model.keras")
    network = from_keras(tmp_path / "model.keras")

    save_bundle(Bundle(network, Processor(CharacterTokenizer("abc")), {"from": "model.keras"}), tmp_path / "one.ckpt")
    loaded = load_bundle(tmp_path / "one.ckpt").network

    assert isinstance(loaded, Recurrent)
    assert describe(loaded) == describe(network)
    with torch.no_grad():
        assert torch.equal(loaded(INPUTS)[0], network(INPUTS)[0])


REFUSED: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "merge": (lambda: [L.Bidirectional(L.LSTM(4, **ALL), merge_mode="sum")], "has merge_mode='sum', expected 'concat'"),
    "activation": (lambda: [L.LSTM(4, activation="gelu")], "has activation='gelu', which the cells of this package"),
    "gru": (lambda: [L.GRU(4, activation="relu")], "a GRU is imported with sigmoid and tanh alone"),
    "cell": (lambda: [L.RNN(L.LSTMCell(4))], "rnn.* is RNN, which can't be imported"),
    "none": (lambda: [L.Dense(4)], "there is no recurrent layer that can be imported; there are none among"),
    "between": (lambda: [L.LSTM(4, **ALL), L.Dense(4), L.LSTM(4)], "does not read the outputs of lstm"),
    "backward": (
        lambda: [L.Bidirectional(L.LSTM(4, **ALL), backward_layer=L.GRU(4, go_backwards=True, **ALL))],
        "a backward layer that differs from the forward one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path, case: str) -> None:
    layers, message = REFUSED[case]
    sequential(*layers()).save(tmp_path / "model.keras")

    with pytest.raises(CheckpointError, match=message):
        from_keras(tmp_path / "model.keras")


def test_a_lambda_layer_is_data_and_is_not_executed(tmp_path: Path) -> None:
    def poison(x: Any) -> Any:
        (tmp_path / "exploded").touch()
        return x

    model = sequential(L.LSTM(4, **ALL), L.Lambda(poison, output_shape=(None, 4)))
    model.save(tmp_path / "model.keras")
    (tmp_path / "exploded").unlink(missing_ok=True)

    network = from_keras(tmp_path / "model.keras")

    assert not (tmp_path / "exploded").exists()
    with torch.no_grad():
        close(network(INPUTS)[0], outputs(model))


def rewritten(path: Path, **changes: Callable[[bytes], bytes]) -> Path:
    """A .keras file with other members."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            key = name.split(".")[0]
            archive.writestr(name, changes[key](value) if key in changes else value)
    return path


def hdf5(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        held = io.BytesIO(content)
        with h5py.File(held, "r+") as file:
            change(file)
        return held.getvalue()

    return changed


def replaced(name: str, **options: Any) -> Callable[[bytes], bytes]:
    def change(file: Any) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return hdf5(change)


def linked(file: Any) -> None:
    del file["layers/lstm/cell/vars/0"]
    file["layers/lstm/cell/vars/0"] = h5py.ExternalLink("/etc/other.h5", "secret")


KERNEL = "layers/lstm/cell/vars/0"
HOSTILE: dict[str, tuple[dict[str, Callable[[bytes], bytes]], str]] = {
    "no json": ({"config": lambda content: content[:-9]}, "its configuration is damaged: not JSON"),
    "list": ({"config": lambda content: b"[1]"}, "its configuration is damaged: not a dict"),
    "class": (
        {"config": lambda content: b'{"class_name": "Mine", "config": {}}'},
        "it holds 'Mine', expected a Sequential",
    ),
    "layers": (
        {"config": lambda content: content.replace(b'"layers"', b'"players"')},
        "the file is damaged, or no model",
    ),
    "weights": ({"model": lambda content: content[:200]}, "the file is damaged, or no HDF5 file"),
    "link": ({"model": hdf5(linked)}, "is a link to another place, which is not followed"),
    "shape": (
        {"model": replaced(KERNEL, data=np.zeros((3, 15), "f4"))},
        r"has the shape \(3, 15\) of float32, expected",
    ),
    "integers": ({"model": replaced(KERNEL, data=np.zeros((3, 16), "i1"))}, "int8, expected .* of float32"),
    "claim": ({"model": replaced(KERNEL, shape=(10**9, 16), dtype="f4", chunks=(1, 16))}, "in another file, or none"),
    "outside": (
        {"model": replaced(KERNEL, shape=(3, 16), dtype="f4", external=[("/etc/hostname", 0, 192)])},
        "in another file, or none",
    ),
    "nan": ({"model": replaced(KERNEL, data=np.full((3, 16), np.nan, "f4"))}, "holds nan or inf"),
    "missing": ({"model": hdf5(lambda file: file.pop("layers/lstm"))}, "the weights of lstm.* are missing"),
}


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    sequential(L.LSTM(4, **ALL)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_damaged_or_hostile_is_refused(tmp_path: Path, lstm: bytes, case: str) -> None:
    changes, message = HOSTILE[case]
    (tmp_path / "model.keras").write_bytes(lstm)

    with pytest.raises(CheckpointError, match=message):
        from_keras(rewritten(tmp_path / "model.keras", **changes))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    model = sequential(L.LSTM(4, **ALL))
    model.save_weights(tmp_path / "one.weights.h5")
    (tmp_path / "poem.keras").write_text("Shall I compare thee")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    for name, message in (
        ("one.weights.h5", "as files of weights alone; save the model by"),
        ("poem.keras", "no HDF5 file"),
        ("other.keras", "it has no model.weights.h5"),
        ("none.keras", "no such file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            from_keras(tmp_path / name)


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5", "model_config"])
def test_flipped_bits_are_answered_by_name_or_not_noticed(tmp_path: Path, lstm: bytes, part: str) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "model.keras"
    path.write_bytes(lstm)
    if part == "model_config":
        sequential(L.Bidirectional(L.GRU(4)), L.Dense(2)).save(tmp_path / "model.h5")
        path = tmp_path / "model.h5"
    whole = path.read_bytes()
    text = whole.find(b'{"module"')

    def flipped(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(draw.integers(1, 9)):
            changed[draw.integers(len(changed))] ^= 1 << draw.integers(8)
        return bytes(changed)

    for _ in range(200):
        path.write_bytes(whole)
        if part == "model_config":  # the text alone: libhdf5 may loop for ever in other damaged parts
            path.write_bytes(whole[:text] + flipped(whole[text : text + 2000]) + whole[text + 2000 :])
        else:
            rewritten(path, **{part.split(".")[0]: flipped})
        with suppress(CheckpointError):
            keras_layers(path)


def test_hard_sigmoid_is_another_function_in_keras_2(tmp_path: Path) -> None:
    sequential(L.LSTM(4, recurrent_activation="hard_sigmoid", **ALL)).save(tmp_path / "model.keras")
    old = rewritten(tmp_path / "model.keras", metadata=lambda content: json.dumps({"keras_version": "2.15.0"}).encode())

    with pytest.raises(CheckpointError, match=r"'hard_sigmoid' of Keras 2\.15\.0, which is 0\.2·x \+ 0\.5"):
        from_keras(old)
