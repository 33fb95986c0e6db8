"""Networks whose weights, gradients and optimizer states are sharded over processes (FSDP2, `fully_shard`)."""

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from unrolled.cells.hooks import is_plain
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.attentive import AttentiveCore
from unrolled.models.embeddings import TokenEmbedding
from unrolled.models.images.encoder import ImageEncoder

M = TypeVar("M", bound=nn.Module)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_forward_pre_hooks_with_kwargs")  # those of `fully_shard`


def shard(task: LightningModule, network: nn.Module, mesh: DeviceMesh, *, whole: tuple[nn.Module, ...] = ()) -> None:
    """Shards a task over a mesh of one dimension, part by part, if it isn't yet.

    The weights of a part are gathered when it runs, and again in the backward pass, and freed afterwards. Parts are the
    layers of recurrent stacks, embeddings and image trunks. All other weights, such as heads and attention, are
    gathered during the whole training step: heads are the last in the forward pass and the first in the backward pass,
    and attention is used at each step of a decoder.

    Args:
        task: the LightningModule, whose `training_step` gathers what belongs to no part.
        network: its network.
        mesh: the processes.
        whole: modules without parts, such as those whose number of calls in a training step depends on the batch.
            Gathering is collective, so that all processes have to run a part equally often.
    """
    if isinstance(task, FSDPModule):
        return
    for part in parts(network, whole):
        fully_shard(part, mesh=mesh)
    fully_shard(task, mesh=mesh)
    register_fsdp_forward_method(task, "training_step")


def parts(network: nn.Module, whole: tuple[nn.Module, ...] = ()) -> list[nn.Module]:
    """Returns the parts of a network that `shard` shards one by one.

    A part owns all its parameters, and all processes call it equally often in a training step. The core of a decoder
    with input feeding runs once for each token, so it isn't one.
    """
    stepped = [*whole, *(each for each in network.modules() if isinstance(each, AttentiveCore))]
    fixed = {id(inner) for module in stepped for inner in module.modules()}
    users: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    return [
        part
        for part in _candidates(network)
        if id(part) not in fixed
        and any(True for _ in part.parameters())
        and all(is_plain(inner) for inner in part.modules())
        and all(users[id(parameter)] == 1 for parameter in part.parameters())  # tied weights stay with the task
    ]


def _candidates(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, Recurrent):
            yield from (*module.cells, *module.reverse_cells)
        elif isinstance(module, TokenEmbedding):
            yield module
        elif isinstance(module, ImageEncoder):
            yield module.trunk


def as_shard(shard: Tensor, *, like: Tensor) -> Tensor:
    """Returns a process's part of a tensor as a tensor that is sharded as `like`; unchanged if that isn't sharded."""
    if not isinstance(like, DTensor):
        return shard
    return DTensor.from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def gathered(network: M) -> M:
    """Returns a plain copy of a sharded network with all weights. All processes have to call it.

    Evaluations use it: they run the network a different number of times on each process, and once for each generated
    token, while running a sharded network is collective. The copy shares everything with the network but its weights.
    """
    copies: dict[int, Any] = {}

    def full(parameter: Tensor | None) -> Tensor | None:
        if not isinstance(parameter, DTensor):
            return parameter
        if id(parameter) not in copies:
            with torch.no_grad():
                copies[id(parameter)] = nn.Parameter(parameter.full_tensor(), parameter.requires_grad)
        return copies[id(parameter)]

    def copy(module: nn.Module) -> nn.Module:
        if id(module) in copies:
            return copies[id(module)]
        sharded = isinstance(module, FSDPModule)
        kind = type(module).__mro__[2] if sharded else type(module)
        twin = copies[id(module)] = object.__new__(kind)
        own: dict[str, Any] = vars(module)
        vars(twin).update(own)
        if sharded:  # a part has no hooks but those of `fully_shard`
            vars(twin).update({name: type(own[name])() for name in _HOOKS})
        vars(twin)["_parameters"] = {name: full(parameter) for name, parameter in own["_parameters"].items()}
        vars(twin)["_modules"] = {name: child and copy(child) for name, child in own["_modules"].items()}
        return twin

    return cast("M", copy(network))
