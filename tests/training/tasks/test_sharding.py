"""Which parts of a network are sharded one by one, and what one process gathers."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from unrolled import (
    AutoregressiveDecoder,
    EncoderDecoder,
    GRUCell,
    LSTMCell,
    Recurrent,
    RecurrentEncoder,
)
from unrolled.backends import BACKENDS
from unrolled.layers.attention import AdditiveAttention
from unrolled.training.tasks.sharding import gathered, parts


def decoder(**options: object) -> AutoregressiveDecoder:
    core = partial(Recurrent, LSTMCell, hidden_size=5, num_layers=2)
    return AutoregressiveDecoder.of_tokens(7, 5, core, **options)  # type: ignore[arg-type]


def names(network: nn.Module, *whole: nn.Module) -> list[str]:
    by_module = {module: name for name, module in network.named_modules()}
    return [by_module[part] for part in parts(network, whole)]


def test_layers_and_embeddings_are_parts() -> None:
    assert names(decoder()) == ["embedding", "steps.cells.0", "steps.cells.1"]


def test_tied_weights_belong_to_no_part() -> None:
    assert names(decoder(tied=True)) == ["steps.cells.0", "steps.cells.1"]


def test_what_runs_once_a_token_is_no_part() -> None:
    encoder = RecurrentEncoder.of_tokens(7, 5, partial(Recurrent, GRUCell, hidden_size=4, bidirectional=True))
    attention = partial(AdditiveAttention, attention_size=3)
    network = EncoderDecoder(encoder, partial(decoder, attention=attention))
    encoders = ["encoder.embedding", "encoder.core.cells.0", "encoder.core.reverse_cells.0"]

    assert names(network) == [*encoders, "decoder.embedding"]
    assert names(network, network.decoder) == encoders


def test_a_cell_with_hooks_of_its_own_is_no_part() -> None:
    network = decoder()
    nn.utils.parametrizations.weight_norm(network.core.cells[0], "weight_hh")

    assert names(network) == ["embedding", "steps.cells.1"]


@pytest.fixture
def mesh(tmp_path: Path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sharded_layer_runs_with_every_backend(mesh: object, cell: type[LSTMCell], backend: str) -> None:
    torch.manual_seed(0)
    network = Recurrent(cell, 3, 4, num_layers=2, backend=backend).double()
    inputs = torch.randn(2, 20, 3, dtype=torch.float64)
    lengths = torch.tensor([20, 6])
    expected = network(inputs, lengths=lengths)[0]
    expected.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    for layer in network.cells:
        fully_shard(layer, mesh=mesh)  # type: ignore[call-overload]
    fully_shard(network, mesh=mesh)  # type: ignore[call-overload]

    found = network(inputs, lengths=lengths)[0]
    found.square().sum().backward()
    copy = gathered(network)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), gradient, rtol=0, atol=1e-12)
    assert not any(isinstance(module, FSDPModule) for module in copy.modules())
    assert type(copy.cells[0]) is cell
    torch.testing.assert_close(copy(inputs, lengths=lengths)[0], expected, rtol=0, atol=1e-12)
