"""torch.func and forward-mode differentiation: `auto` takes a backend that can, and what it gives is the loop's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from unrolled import (
    ElmanCell,
    GRUCell,
    IndRNNCell,
    LSTMCell,
    MogrifierLSTMCell,
    PeepholeLSTMCell,
    Recurrent,
    ResetFirstGRUCell,
    unroll,
)
from unrolled.backends import choose

BATCH, SAMPLES = 2, 3
# Among them are kernels with further products and with parameters of a cell's own, and a cell without a kernel.
CASES: dict[str, tuple[Any, int]] = {
    "lstm, fused": (LSTMCell, 4),
    "lstm, apply_zoneout out": (partial(LSTMCell, zoneout=0.3), 16),
    "gru, fused": (GRUCell, 4),
    "gru, compiled": (GRUCell, 16),
    "elman": (ElmanCell, 16),
    "peephole": (PeepholeLSTMCell, 7),
    "reset first": (ResetFirstGRUCell, 7),
    "indrnn": (IndRNNCell, 7),
    "mogrifier, loop": (MogrifierLSTMCell, 5),
}


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def outputs_of(network: Any, inputs: Tensor, **options: Any) -> Tensor:
    return network(inputs, **options)[0]


def total_of(network: Any, inputs: Tensor, **options: Any) -> Tensor:
    outputs, state = network(inputs, **options)
    return outputs.square().sum() + sum(leaf.sum() for leaf in torch.utils._pytree.tree_leaves(state))


def of_weights(network: Any, weights: dict[str, Tensor], inputs: Tensor, lengths: Tensor) -> Tensor:
    outputs, _ = functional_call(network, weights, (inputs[None],), {"lengths": lengths[None]})
    return outputs.square().sum()


def per_sample(network: Any, inputs: Tensor) -> Any:
    """vmap(grad): each row's own gradients, of rows of unequal lengths."""
    time = inputs.shape[1]
    lengths = torch.tensor([time, 3, 0])
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return vmap(grad(partial(of_weights, network)), (None, 0, 0))(weights, inputs, lengths)


def ensemble(network: Any, inputs: Tensor) -> Any:
    """vmap over the weights of several networks."""
    torch.manual_seed(1)
    make = type(network.cells[0])
    several = [Recurrent(make, 3, 4, backend=network.backend).double().eval() for _ in range(SAMPLES)]
    weights, buffers = stack_module_state(several)  # pyright: ignore
    return vmap(lambda one, own: functional_call(several[0], (one, own), (inputs,))[0])(weights, buffers)


def directional(network: Any, inputs: Tensor) -> Any:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs, double(*inputs.shape, seed=1))
        return torch.autograd.forward_ad.unpack_dual(outputs_of(network, dual)).tangent


def jacobian(network: Any, inputs: Tensor, **options: Any) -> Any:
    return torch.autograd.functional.jacobian(partial(total_per_row, network), inputs, vectorize=True, **options)


def total_per_row(network: Any, inputs: Tensor) -> Tensor:
    return outputs_of(network, inputs).square().sum((1, 2))


TRANSFORMS: dict[str, Callable[[Any, Tensor], Any]] = {
    "vmap": lambda n, x: vmap(partial(outputs_of, n))(torch.stack([x, x + 1, 2 * x])),
    "vmap along the last axis": lambda n, x: vmap(partial(outputs_of, n), -1, 1)(torch.stack([x, x + 1], -1)),
    "vmap of lengths": lambda n, x: vmap(lambda k: n(x, lengths=k)[0])(torch.tensor([[1, 4, 0], [3, 3, 3]])),
    "vmap of states": lambda n, x: vmap(lambda h: total_of(n, x, state=starts(n, x, h)))(double(SAMPLES, seed=3)),
    "vmap of vmap": lambda n, x: vmap(vmap(partial(outputs_of, n)))(double(2, 2, *x.shape)),
    "grad": lambda n, x: grad(partial(total_of, n))(x),
    "vjp": lambda n, x: vjp(partial(outputs_of, n), x)[1](torch.ones_like(outputs_of(n, x))),
    "grad of vmap": lambda n, x: grad(lambda x: vmap(partial(total_of, n))(torch.stack([x, 2 * x])).prod())(x),
    "vmap of grad": lambda n, x: vmap(grad(partial(total_of, n)))(torch.stack([x, x + 1])),
    "per-sample gradients": per_sample,
    "ensemble": ensemble,
    "gradient of a gradient": lambda n, x: grad(lambda x: grad(partial(total_of, n))(x).square().sum())(x),
    "jvp": lambda n, x: jvp(partial(outputs_of, n), (x,), (double(*x.shape, seed=1),)),
    "forward mode": directional,
    "jacrev": lambda n, x: jacrev(partial(total_per_row, n))(x),
    "jacfwd": lambda n, x: jacfwd(partial(total_per_row, n))(x),
    "jacobian, vectorized": jacobian,
    "jacobian, vectorized, forward": partial(jacobian, strategy="forward-mode"),
}


def starts(network: Any, inputs: Tensor, size: Tensor) -> Any:
    zeros = network.initial_state(len(inputs), like=inputs)
    return torch.utils._pytree.tree_map(lambda leaf: leaf + size, zeros)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", CASES)
def test_auto_does_what_the_loop_does(name: str, transform: str) -> None:
    make, time = CASES[name]
    torch.manual_seed(0)
    network = Recurrent(make, 3, 4).double().eval()
    loop = Recurrent(make, 3, 4, backend="loop").double().eval()
    loop.load_state_dict(network.state_dict())
    inputs = double(3, time, 3)

    found, expected = TRANSFORMS[transform](network, inputs), TRANSFORMS[transform](loop, inputs)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["gru, compiled", "lstm, fused", "reset first"])
def test_second_derivatives_in_both_directions(name: str) -> None:
    make, time = CASES[name]
    networks = [Recurrent(make, 2, 2, bidirectional=True, backend=backend).double() for backend in ("auto", "loop")]
    networks[1].load_state_dict(networks[0].state_dict())
    inputs = double(2, time, 2)
    lengths = torch.tensor([time, 2])

    found, expected = (hessian(partial(total_of, network, lengths=lengths))(inputs) for network in networks)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    found, expected = (jacrev(jacrev(partial(total_of, network, lengths=lengths)))(inputs) for network in networks)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_gradients_of_each_row_are_those_of_the_row_alone() -> None:
    network = Recurrent(GRUCell, 3, 4, 2, bidirectional=True).double()
    inputs, lengths = double(3, 17, 3), [17, 5, 0]
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    found = vmap(grad(partial(of_weights, network)), (None, 0, 0))(weights, inputs, torch.tensor(lengths))

    for row, length in enumerate(lengths):
        total = network(inputs[row : row + 1, :length])[0].square().sum() + 0 * network.cells[0].weight_ih.sum()
        alone = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
        for (name, weight), slope in zip(network.named_parameters(), alone, strict=True):
            expected = torch.zeros_like(weight) if slope is None else slope
            torch.testing.assert_close(found[name][row], expected, rtol=0, atol=1e-10)


def test_finite_differences_agree_with_forward_mode() -> None:
    network = Recurrent(LSTMCell, 3, 4).double()
    inputs, direction, step = double(2, 7, 3), double(2, 7, 3, seed=1), 1e-5

    _, found = jvp(partial(outputs_of, network), (inputs,), (direction,))

    with torch.no_grad():
        ahead, back = (outputs_of(network, inputs + sign * step * direction) for sign in (1, -1))
    torch.testing.assert_close(found, (ahead - back) / (2 * step), rtol=0, atol=1e-8)


def test_what_is_chosen_and_what_is_refused_by_name() -> None:
    inputs = double(2, 16, 3)
    chosen: list[str] = []

    cell, lstm = GRUCell(3, 4).double(), LSTMCell(3, 4).double()

    def note(cell: Any, inputs: Tensor) -> Tensor:
        chosen.append(choose("auto", cell, inputs).backend)
        return inputs.sum()

    vmap(partial(note, cell))(inputs[None])
    vmap(partial(note, lstm))(inputs[None])
    grad(partial(note, lstm))(inputs)
    jvp(partial(note, cell), (inputs,), (inputs,))
    jvp(partial(note, lstm), (inputs,), (inputs,))
    assert chosen == ["compiled", "compiled", "fused", "loop", "loop"]

    with pytest.raises(ValueError, match="torch's fused kernels have no vmap"):
        vmap(lambda x: unroll(cell, x, backend="fused")[0])(inputs[None])
    with pytest.raises(ValueError, match="compiled cells have no forward-mode derivative"):
        jvp(lambda x: unroll(cell, x, backend="compiled")[0], (inputs,), (inputs,))


def test_recomputation_is_refused_where_torch_cannot_do_it() -> None:
    network = Recurrent(GRUCell, 3, 4, recompute=True).double()

    with pytest.raises(ValueError, match=r"recompute=True needs hooks, which torch\.func"):
        grad(partial(total_of, network))(double(2, 16, 3))


def test_dropped_states_and_weights_are_per_sample() -> None:
    network = Recurrent(partial(LSTMCell, recurrent_dropout=0.5, weight_drop=0.5), 3, 4).double()
    same = double(1, 9, 3).expand(SAMPLES, 2, 9, 3)

    found = vmap(partial(outputs_of, network), randomness="different")(same)

    assert not torch.equal(found[0], found[1])
    equal = vmap(partial(outputs_of, network), randomness="same")(same)
    assert torch.equal(equal[0], equal[1])


def test_torch_compile_takes_transforms() -> None:
    torch._dynamo.reset()
    network = Recurrent(GRUCell, 3, 4).double()
    inputs = double(3, 16, 3)

    compiled = torch.compile(partial(per_sample, network), backend="aot_eager")

    torch.testing.assert_close(compiled(inputs), per_sample(network, inputs), rtol=0, atol=1e-10)
