"""The compiled layer as an operator of torch: with a shape for torch.compile, and derivatives of any order.

The first derivative is native. Whoever differentiates it again (`create_graph=True`) gets it from the program of the
step, run on tensors: right, and as slow as the loop.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.backends.compiled.kernel import Kernel, Run
from unrolled.backends.compiled.program import evaluate
from unrolled.sequences import reverse_valid

KERNELS: dict[str, Kernel] = {}
_SINGLE = ("inputs", "weight_ih", "bias_ih", "weight_hh", "bias_hh", "own")


def _kernel(key: str) -> Kernel:
    if key not in KERNELS:
        raise RuntimeError(
            "this graph needs a compiled cell of the process that made it; export it with backend='loop'"
        )
    return KERNELS[key]


def packed(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    """A run as the operator takes it: what may have gradients, and the rest; what is None as a tensor without elements.

    In turn: inputs, weight_ih, bias_ih, weight_hh, bias_hh, own, further, initial; and state_mask, lengths, noise.
    """
    nothing = run.inputs.new_empty(0)

    def there(tensor: Tensor | None) -> Tensor:
        return nothing if tensor is None else tensor

    learned = [there(getattr(run, name)) for name in _SINGLE]
    return [*learned, *run.further, *run.initial], [there(run.state_mask), there(run.lengths), *run.noise]


def _unpacked(learned: Sequence[Tensor], fixed: Sequence[Tensor], reverse: bool, kernel: Kernel) -> Run:
    """The inverse of `packed`, with memory as the kernel wants it."""
    inputs, *others = (tensor.contiguous() for tensor in learned)
    singles = [tensor if tensor.numel() > 0 else None for tensor in others[: len(_SINGLE) - 1]]
    lists = others[len(_SINGLE) - 1 :]
    further = 2 * len(kernel.program.layout.further)
    state_mask, lengths, *noise = (tensor.contiguous() for tensor in fixed)
    return Run(
        inputs,
        *singles[:4],
        further=lists[:further],
        initial=lists[further:],
        own=singles[4],
        noise=noise,
        state_mask=state_mask if state_mask.numel() > 0 else None,
        lengths=lengths if lengths.numel() > 0 else None,
        reverse=reverse,
    )


@torch.library.custom_op("unrolled::recurrence", mutates_args=(), device_types="cpu")
def recurrence(learned: list[Tensor], fixed: list[Tensor], reverse: bool, kernel: str, keep: bool) -> list[Tensor]:
    """The outputs, what the way back needs, and the final state's tensors, of a run as `packed` makes it."""
    known = _kernel(kernel)
    outputs, saved, final = known.forward(_unpacked(learned, fixed, reverse, known), keep=keep)
    return [outputs, saved, *final]


@recurrence.register_fake
def _(learned: list[Tensor], fixed: list[Tensor], reverse: bool, kernel: str, keep: bool) -> list[Tensor]:
    known = _kernel(kernel)
    inputs, initial = learned[0], learned[len(learned) - known.program.layout.states :]
    batch, time = inputs.shape[:2]
    hidden = initial[0].shape[1]
    saved = len(known.plan.saved) * hidden if keep else 0
    final = [leaf.new_empty(batch, hidden) for leaf in initial]
    return [inputs.new_empty(batch, time, hidden), inputs.new_empty(batch, time, saved), *final]


@torch.library.custom_op("unrolled::recurrence_backward", mutates_args=(), device_types="cpu")
def recurrence_backward(
    gradients: list[Tensor],
    kept: list[Tensor],
    learned: list[Tensor],
    fixed: list[Tensor],
    reverse: bool,
    kernel: str,
    wanted: list[bool],
) -> list[Tensor]:
    """The gradients of `learned`, without elements where there are none or none are wanted.

    `gradients` are those of the outputs, or a tensor without elements, and of the final state's tensors; `kept` are the
    outputs and what the forward pass kept; `wanted` says which of `learned` want gradients.
    """
    known = _kernel(kernel)
    run = _unpacked(learned, fixed, reverse, known)
    of_outputs, *of_final = (gradient.contiguous() for gradient in gradients)
    outputs, saved = (tensor.contiguous() for tensor in kept)
    found = known.backward(
        run,
        outputs,
        saved,
        of_outputs if of_outputs.dim() == 3 else None,
        of_final,
        want_inputs=wanted[0],
        want_weights=any(_of_weights(wanted, run)),
    )
    nothing = run.inputs.new_empty
    singles = [found[name] if name in found else nothing(0) for name in _SINGLE]
    further = found.get("further", [nothing(0) for _ in run.further])
    return [*singles, *further, *found["initial"]]


@recurrence_backward.register_fake
def _(
    gradients: list[Tensor],
    kept: list[Tensor],
    learned: list[Tensor],
    fixed: list[Tensor],
    reverse: bool,
    kernel: str,
    wanted: list[bool],
) -> list[Tensor]:
    run = _unpacked(learned, fixed, reverse, _kernel(kernel))
    weights = any(_of_weights(wanted, run))
    given = [wanted[0] or run.weight_ih is None, *[weights] * 4, True, *[weights] * len(run.further)]
    given += [True] * len(run.initial)
    return [run.inputs.new_empty(t.shape if g else (0,)) for t, g in zip(learned, given, strict=True)]


def _of_weights(wanted: Sequence[bool], run: Run) -> list[bool]:
    """Of those that want gradients, the ones that are had from the large products behind the loop."""
    first = len(_SINGLE)
    return [*wanted[1:5], *wanted[first : first + len(run.further)]]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    learned, fixed, *ctx.noted = inputs
    ctx.learned = len(learned)
    ctx.wanted = [tensor.requires_grad for tensor in learned]
    ctx.save_for_backward(output[0], output[1], *learned, *fixed)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    outputs, saved, *tensors = ctx.saved_tensors
    learned, fixed = tensors[: ctx.learned], tensors[ctx.learned :]
    reverse, key, _ = ctx.noted
    of_outputs, _, *of_final = gradients
    if of_outputs is None and all(gradient is None for gradient in of_final):
        return [None] * len(learned), [None] * len(fixed), None, None, None
    if torch.is_grad_enabled():
        found = _differentiable(learned, fixed, reverse, key, (of_outputs, *of_final))
    else:
        initial = learned[len(learned) - len(of_final) :]
        finals = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(initial, of_final, strict=True)]
        given = [outputs.new_empty(0) if of_outputs is None else of_outputs, *finals]
        found = recurrence_backward(given, [outputs, saved], learned, fixed, reverse, key, ctx.wanted)
    pairs = zip(learned, found, ctx.wanted, strict=True)
    fitting = [g if wanted and g is not None and g.shape == tensor.shape else None for tensor, g, wanted in pairs]
    return fitting, [None] * len(fixed), None, None, None


recurrence.register_autograd(_backward, setup_context=_setup)


def _differentiable(
    learned: Sequence[Tensor], fixed: Sequence[Tensor], reverse: bool, key: str, gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """What `recurrence_backward` gives, from torch's own operations.

    Each tensor is looked at through a view of its own, since one may have been computed from another.
    """
    kernel = _kernel(key)
    with torch.enable_grad():
        views = [tensor.view_as(tensor) for tensor in learned]
        outputs, final = reference(_unpacked(views, fixed, reverse, kernel), kernel)
        ends = [(end, g) for end, g in zip((outputs, *final), gradients, strict=True) if g is not None]
        ends = [(end, gradient) for end, gradient in ends if end.requires_grad]
        wanted = [view for view in views if view.requires_grad]
        found = torch.autograd.grad(
            [end for end, _ in ends], wanted, [g for _, g in ends], create_graph=True, allow_unused=True
        )
    remaining = iter(found)
    return [next(remaining) if view.requires_grad else None for view in views]


def reference(run: Run, kernel: Kernel) -> tuple[Tensor, list[Tensor]]:
    """The layer step by step from the kernel's program, in torch's own operations: outputs and final state."""
    layout, hidden = kernel.program.layout, run.initial[0].shape[1]
    linear = torch.nn.functional.linear
    projected = run.inputs if run.weight_ih is None else linear(run.inputs, run.weight_ih, run.bias_ih)
    if run.reverse:
        projected = reverse_valid(projected, run.lengths)

    def further(number: int, blocks: list[Tensor]) -> Sequence[Tensor]:
        weight, bias = run.further[2 * number : 2 * number + 2]
        return linear(torch.cat(blocks, dim=-1), weight, bias if bias.numel() > 0 else None).split(hidden, dim=-1)

    state, outputs = list(run.initial), list[Tensor]()
    for step in range(run.inputs.shape[1]):
        groups: dict[str, Sequence[Tensor]] = {"projected": projected[:, step].split(hidden, dim=-1), "states": state}
        groups |= {"noise": run.noise, "own": () if run.own is None else run.own.unbind(0)}
        if run.weight_hh is not None:
            fed = torch.cat([state[field] for field in layout.fed], dim=-1)
            fed = fed if run.state_mask is None else fed * run.state_mask
            groups["recurrent"] = linear(fed, run.weight_hh, run.bias_hh).split(hidden, dim=-1)
        output, following = evaluate(kernel.program, lambda group, at, of=groups: of[group][at], further, state[0])
        if run.lengths is not None:
            valid = (step < run.lengths).unsqueeze(1)
            following = [torch.where(valid, new, old) for new, old in zip(following, state, strict=True)]
            output = torch.where(valid, output, torch.zeros_like(output))
        state = following
        outputs.append(output)
    stacked = torch.stack(outputs, dim=1)
    return reverse_valid(stacked, run.lengths) if run.reverse else stacked, state
