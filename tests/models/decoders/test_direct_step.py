"""A step of a language model without gradients on the shortest path, against the loop, which is the definition."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unrolled import AutoregressiveDecoder, GRUCell, LSTMCell, PeepholeLSTMCell, Recurrent
from unrolled.models.decoders.base import DecoderState
from unrolled.state import leaves

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]])


def language_model(cell: Any, backend: str, **options: Any) -> AutoregressiveDecoder:
    torch.manual_seed(1)
    core = partial(Recurrent, cell, hidden_size=6, num_layers=2, backend=backend)
    return AutoregressiveDecoder.of_tokens(7, 6, core, **options).eval()


@torch.no_grad()
def walk(decoder: AutoregressiveDecoder, tokens: Tensor = TOKENS) -> list[Tensor]:
    state, _ = decoder.start(len(tokens))
    found: list[Tensor] = []
    for column in tokens.unbind(1):
        parameters, _, state = decoder.step(column, state)
        found.append(parameters)
    return [*found, *leaves(state)]


@pytest.mark.parametrize("options", [{}, {"tied": True, "scaled_embedding": True}], ids=["plain", "tied"])
@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
def test_a_step_is_that_of_the_loop_to_the_last_bit(cell: Any, options: dict[str, Any]) -> None:
    quick, slow = (language_model(cell, backend, **options) for backend in ("auto", "loop"))
    assert all(map(torch.equal, walk(quick), walk(slow)))
    assert all(map(torch.equal, walk(quick.double()), walk(slow.double())))


def test_a_compiled_step_is_that_of_the_loop() -> None:
    quick, slow = (language_model(PeepholeLSTMCell, backend) for backend in ("auto", "loop"))
    torch.testing.assert_close(walk(quick), walk(slow))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2.0 * weight


def double(module: Any) -> None:
    def doubled(module: Any, given: Any, result: Tensor) -> Tensor:
        return 2.0 * result

    module.register_forward_hook(doubled)


def replace_forward(module: Any) -> None:
    own = module.forward

    def doubled(features: Tensor) -> Tensor:
        return 2.0 * own(features)

    module.forward = doubled


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight": lambda decoder: decoder.head.linear.weight.data.mul_(2.0),
    "another weight": lambda decoder: setattr(decoder.head.linear, "weight", nn.Parameter(torch.ones(7, 6))),
    "a hook of the embedding": lambda decoder: double(decoder.embedding),
    "a hook of the head": lambda decoder: double(decoder.head),
    "a hook of its layer": lambda decoder: double(decoder.head.linear),
    "a replaced forward": lambda decoder: replace_forward(decoder.head),
    "a parametrization": lambda decoder: parametrize.register_parametrization(decoder.embedding, "weight", Doubled()),
    "a scale": lambda decoder: setattr(decoder.embedding, "scale", 3.0),
    "a limit of norms": lambda decoder: setattr(decoder.embedding, "max_norm", 0.5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_changes_are_noticed(change: Callable[[Any], Any]) -> None:
    quick, slow = (language_model(LSTMCell, backend) for backend in ("auto", "loop"))
    before = walk(quick)
    for decoder in (quick, slow):
        change(decoder)
    after = walk(quick)
    assert not torch.equal(after[0], before[0])
    assert all(map(torch.equal, after, walk(slow)))


def test_a_hook_of_all_modules_runs() -> None:
    seen: list[str] = []

    def see(module: nn.Module, given: Any, result: Any) -> None:
        seen.append(type(module).__name__)

    handle = nn.modules.module.register_module_forward_hook(see)
    try:
        walk(language_model(LSTMCell, "auto"), TOKENS[:, :1])
    finally:
        handle.remove()
    assert {"TokenEmbedding", "CategoricalHead", "Linear"} <= set(seen)


def test_what_a_step_refuses_is_the_same_without_gradients() -> None:
    decoder = language_model(LSTMCell, "auto")
    state, _ = decoder.start(2)
    for tokens, given in (
        (TOKENS, state),
        (TOKENS[:, 0].float(), state),
        (TOKENS[:, 0] + 5, state),
        (TOKENS[:1, 0], state),
        (TOKENS[:, 0], state.core),
        (TOKENS[:, 0], DecoderState(state.core, context=torch.zeros(2, 6))),
    ):
        messages: list[str] = []
        for mode in (torch.no_grad(), torch.enable_grad()):
            with mode, pytest.raises((ValueError, RuntimeError, IndexError)) as raised:
                decoder.step(tokens, given)  # pyright: ignore[reportArgumentType]
            messages.append(f"{raised.type} {raised.value}")
        assert messages[0] == messages[1]
