"""The compiled layer as an operator of torch: with a shape for torch.compile, and derivatives of any order.

The first derivative is native. Whoever differentiates it again (`create_graph=True`) gets it from the program of the
step, run on tensors: right, and as slow as the loop.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.backends.compiled.kernel import Kernel, Run
from unrolled.backends.compiled.program import evaluate
from unrolled.sequences import reverse_valid

KERNELS: dict[str, Kernel] = {}


def _kernel(key: str) -> Kernel:
    if key not in KERNELS:
        raise RuntimeError(
            "this graph needs a compiled cell of the process that made it; export it with backend='loop'"
        )
    return KERNELS[key]


def _run(
    inputs: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor | None,
    bias_hh: Tensor | None,
    initial: Sequence[Tensor],
    own: Tensor | None,
    noise: Sequence[Tensor],
    state_mask: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
) -> Run:
    def flat(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.contiguous()

    return Run(
        inputs.contiguous(),
        flat(weight_ih),
        flat(bias_ih),
        flat(weight_hh),
        flat(bias_hh),
        [leaf.contiguous() for leaf in initial],
        flat(own),
        [mask.contiguous() for mask in noise],
        flat(state_mask),
        flat(lengths),
        reverse,
    )


@torch.library.custom_op("unrolled::recurrence", mutates_args=(), device_types="cpu")
def recurrence(
    inputs: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor | None,
    bias_hh: Tensor | None,
    initial: list[Tensor],
    own: Tensor | None,
    noise: list[Tensor],
    state_mask: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    kernel: str,
    keep: bool,
) -> list[Tensor]:
    """The outputs, what the way back needs, and the final state's tensors; arguments as in `Run`."""
    run = _run(inputs, weight_ih, bias_ih, weight_hh, bias_hh, initial, own, noise, state_mask, lengths, reverse)
    outputs, saved, final = _kernel(kernel).forward(run, keep=keep)
    return [outputs, saved, *final]


@recurrence.register_fake
def _(
    inputs: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor | None,
    bias_hh: Tensor | None,
    initial: list[Tensor],
    own: Tensor | None,
    noise: list[Tensor],
    state_mask: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    kernel: str,
    keep: bool,
) -> list[Tensor]:
    batch, time = inputs.shape[:2]
    hidden = initial[0].shape[1]
    saved = len(_kernel(kernel).plan.saved) * hidden if keep else 0
    final = [leaf.new_empty(batch, hidden) for leaf in initial]
    return [inputs.new_empty(batch, time, hidden), inputs.new_empty(batch, time, saved), *final]


@torch.library.custom_op("unrolled::recurrence_backward", mutates_args=(), device_types="cpu")
def recurrence_backward(
    output_gradient: Tensor | None,
    final_gradients: list[Tensor],
    outputs: Tensor,
    saved: Tensor,
    inputs: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor | None,
    bias_hh: Tensor | None,
    initial: list[Tensor],
    own: Tensor | None,
    noise: list[Tensor],
    state_mask: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    kernel: str,
    want_inputs: bool,
    want_weights: bool,
) -> list[Tensor]:
    """The gradients of inputs, weight_ih, bias_ih, weight_hh, bias_hh, own, each initial tensor; empty if unwanted."""
    run = _run(inputs, weight_ih, bias_ih, weight_hh, bias_hh, initial, own, noise, state_mask, lengths, reverse)
    found = _kernel(kernel).backward(
        run,
        outputs.contiguous(),
        saved.contiguous(),
        None if output_gradient is None else output_gradient.contiguous(),
        [gradient.contiguous() for gradient in final_gradients],
        want_inputs=want_inputs,
        want_weights=want_weights,
    )
    gradients = [found[name] if name in found else inputs.new_empty(0) for name in _ORDER]
    return [*gradients, *found["initial"]]


_ORDER = ("inputs", "weight_ih", "bias_ih", "weight_hh", "bias_hh", "own")


@recurrence_backward.register_fake
def _(
    output_gradient: Tensor | None,
    final_gradients: list[Tensor],
    outputs: Tensor,
    saved: Tensor,
    inputs: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor | None,
    bias_hh: Tensor | None,
    initial: list[Tensor],
    own: Tensor | None,
    noise: list[Tensor],
    state_mask: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    kernel: str,
    want_inputs: bool,
    want_weights: bool,
) -> list[Tensor]:
    def gradient(tensor: Tensor | None, wanted: bool) -> Tensor:
        return inputs.new_empty(tensor.shape if tensor is not None and wanted else (0,))

    weights = [gradient(weight, want_weights) for weight in (weight_ih, bias_ih, weight_hh, bias_hh)]
    names = len(_kernel(kernel).program.layout.own)
    of_own = inputs.new_empty(names, initial[0].shape[1])
    of_initial = [leaf.new_empty(leaf.shape) for leaf in initial]
    return [gradient(inputs, want_inputs or weight_ih is None), *weights, of_own, *of_initial]


class _Context(NamedTuple):
    """What `_setup` notes beside tensors: how many stand in each list, and the rest of the arguments."""

    initial: int
    noise: int
    reverse: bool
    kernel: str


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    values, weight_ih, bias_ih, weight_hh, bias_hh, initial, own, noise, state_mask, lengths, reverse, key, _ = inputs
    ctx.save_for_backward(
        output[0], output[1], values, weight_ih, bias_ih, weight_hh, bias_hh, own, state_mask, lengths, *initial, *noise
    )
    ctx.noted = _Context(len(initial), len(noise), reverse, key)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    outputs, saved, values, weight_ih, bias_ih, weight_hh, bias_hh, own, state_mask, lengths, *lists = ctx.saved_tensors
    noted: _Context = ctx.noted
    initial, noise = lists[: noted.initial], lists[noted.initial :]
    arguments = (values, weight_ih, bias_ih, weight_hh, bias_hh, initial, own, noise, state_mask, lengths)
    of_outputs, _, *of_final = gradients
    if of_outputs is None and all(gradient is None for gradient in of_final):
        return (None,) * 5 + ([None] * len(initial), None, [None] * len(noise)) + (None,) * 5
    if torch.is_grad_enabled():
        found = _differentiable(Run(*arguments, noted.reverse), noted.kernel, of_outputs, of_final)
    else:
        finals = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(initial, of_final, strict=True)]
        needs = ctx.needs_input_grad
        found = recurrence_backward(
            of_outputs, finals, outputs, saved, *arguments, noted.reverse, noted.kernel, needs[0], any(needs[1:5])
        )
    present = (values, weight_ih, bias_ih, weight_hh, bias_hh)
    of_present = [
        g if tensor is not None and g is not None and g.shape == tensor.shape else None
        for tensor, g in zip(present, found[:5], strict=True)
    ]
    return (*of_present, list(found[6:]), None if own is None else found[5], [None] * len(noise)) + (None,) * 5


recurrence.register_autograd(_backward, setup_context=_setup)


def _differentiable(
    run: Run, key: str, of_outputs: Tensor | None, of_final: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """What `recurrence_backward` gives, from torch's own operations.

    Each tensor is looked at through a view of its own, since one may have been computed from another.
    """
    with torch.enable_grad():
        tensors = [run.inputs, run.weight_ih, run.bias_ih, run.weight_hh, run.bias_hh, run.own, *run.initial]
        views = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        inputs, weight_ih, bias_ih, weight_hh, bias_hh, own, *initial = views
        assumed = run._replace(
            inputs=inputs, weight_ih=weight_ih, bias_ih=bias_ih, weight_hh=weight_hh, bias_hh=bias_hh, own=own
        )
        outputs, final = reference(assumed._replace(initial=initial), _kernel(key))
        ends = [(end, g) for end, g in zip((outputs, *final), (of_outputs, *of_final), strict=True) if g is not None]
        ends = [(end, gradient) for end, gradient in ends if end.requires_grad]
        wanted = [view for view in views if view is not None and view.requires_grad]
        found = torch.autograd.grad(
            [end for end, _ in ends], wanted, [g for _, g in ends], create_graph=True, allow_unused=True
        )
    remaining = iter(found)
    return [next(remaining) if view is not None and view.requires_grad else None for view in views]


def reference(run: Run, kernel: Kernel) -> tuple[Tensor, list[Tensor]]:
    """The layer step by step from the kernel's program, in torch's own operations: outputs and final state."""
    layout, hidden = kernel.program.layout, run.initial[0].shape[1]
    time = run.inputs.shape[1]
    projected = run.inputs
    if run.weight_ih is not None:
        projected = torch.nn.functional.linear(projected, run.weight_ih, run.bias_ih)
    if run.reverse:
        projected = reverse_valid(projected, run.lengths)
    state, outputs = list(run.initial), list[Tensor]()
    for step in range(time):
        groups: dict[str, Sequence[Tensor]] = {"projected": projected[:, step].split(hidden, dim=-1), "states": state}
        groups |= {"noise": run.noise, "own": () if run.own is None else run.own.unbind(0)}
        if run.weight_hh is not None:
            fed = torch.cat([state[field] for field in layout.fed], dim=-1)
            fed = fed if run.state_mask is None else fed * run.state_mask
            product = torch.nn.functional.linear(fed, run.weight_hh, run.bias_hh)
            groups["recurrent"] = product.split(hidden, dim=-1)
        output, following = evaluate(kernel.program, lambda group, index, of=groups: of[group][index], state[0])
        if run.lengths is not None:
            valid = (step < run.lengths).unsqueeze(1)
            following = [torch.where(valid, new, old) for new, old in zip(following, state, strict=True)]
            output = torch.where(valid, output, torch.zeros_like(output))
        state = following
        outputs.append(output)
    stacked = torch.stack(outputs, dim=1)
    return reverse_valid(stacked, run.lengths) if run.reverse else stacked, state
