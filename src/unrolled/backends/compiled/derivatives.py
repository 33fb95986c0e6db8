"""Derivatives of the compiled layer, of any order, and its support of torch.func.

The first derivative is native. Higher derivatives are computed by running the program of the step on tensors, which is
correct but as slow as the loop. Under vmap, samples become rows of one batch. If each sample has its own weights, or
needs its own gradients of them, the layer runs once per sample.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.backends.compiled.kernel import Kernel, LayerInputs
from unrolled.backends.compiled.operator import kernel_of, recurrence, recurrence_backward, unpacked
from unrolled.backends.compiled.program import evaluate
from unrolled.modes import batched_gradients, transforms
from unrolled.sequences import reverse_valid


def run_layer(learned: list[Tensor], fixed: list[Tensor], reverse: bool, key: str) -> list[Tensor]:
    """Run `recurrence` under the active transforms; return outputs, values saved for backward, and final state."""
    transformed = transforms()
    keep = torch.is_grad_enabled() and ("grad" in transformed or any(tensor.requires_grad for tensor in learned))
    if transformed:
        return list(_Recurrence.apply(reverse, key, keep, len(learned), *learned, *fixed))
    return recurrence(learned, fixed, reverse, key, keep)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    learned, fixed, reverse, key, _ = inputs
    ctx.noted, ctx.others = (reverse, key, len(learned)), len(fixed)
    ctx.wanted = [tensor.requires_grad for tensor in learned]
    ctx.save_for_backward(output[0], output[1], *learned, *fixed)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[Any, ...]:
    return _gradients(ctx, ctx.wanted, gradients), [None] * ctx.others, None, None, None


recurrence.register_autograd(_backward, setup_context=_setup)


def _gradients(ctx: Any, wanted: Sequence[bool], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Compute the requested gradients of the learned tensors from those of the outputs and the final state."""
    reverse, key, count = ctx.noted
    outputs, saved, *tensors = ctx.saved_tensors
    learned, fixed = tensors[:count], tensors[count:]
    of_outputs, _, *of_final = gradients
    if of_outputs is None and all(gradient is None for gradient in of_final):
        return [None] * count
    initial = learned[count - len(of_final) :]
    finals = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(initial, of_final, strict=True)]
    given = [outputs.new_empty(0) if of_outputs is None else of_outputs, *finals]
    if batched_gradients(gradients):
        found = _reference_gradients(of_outputs, of_final, learned, fixed, reverse, key)
    elif torch.is_grad_enabled() or "vmap" in transforms():
        counts = len(given), count
        found = _RecurrenceBackward.apply(reverse, key, tuple(wanted), counts, *given, outputs, saved, *learned, *fixed)
    else:
        found = recurrence_backward(given, [outputs, saved], learned, fixed, reverse, key, list(wanted))
    trios = zip(learned, cast("Sequence[Tensor]", found), wanted, strict=True)
    return [slope if want and slope.shape == tensor.shape else None for tensor, slope, want in trios]


def _reference_gradients(
    of_outputs: Tensor | None,
    of_final: Sequence[Tensor | None],
    learned: Sequence[Tensor],
    fixed: Sequence[Tensor],
    reverse: bool,
    key: str,
) -> list[Tensor]:
    """Compute the gradients with torch's own operations, for transforms that support nothing else."""
    kernel = kernel_of(key)
    with torch.enable_grad():
        views = [tensor.detach().requires_grad_() for tensor in learned]
        outputs, final = reference(unpacked(views, fixed, reverse, kernel), kernel)
    ends = [(end, g) for end, g in zip((outputs, *final), (of_outputs, *of_final), strict=True) if g is not None]
    found = torch.autograd.grad(
        [end for end, _ in ends], views, [g for _, g in ends], allow_unused=True, materialize_grads=False
    )
    given = cast("tuple[Tensor | None, ...]", found)  # None for tensors on which nothing depends
    return [view.new_empty(0) if slope is None else slope for view, slope in zip(views, given, strict=True)]


class _Recurrence(torch.autograd.Function):
    """`recurrence` for torch.func, which doesn't support the derivative of a custom operator."""

    @staticmethod
    def forward(reverse: bool, key: str, keep: bool, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(recurrence(list(tensors[:count]), list(tensors[count:]), reverse, key, keep))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        reverse, key, _, count, *tensors = inputs
        ctx.noted, ctx.others = (reverse, key, count), len(tensors) - count
        ctx.save_for_backward(output[0], output[1], *tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = ctx.noted[2]
        found = _gradients(ctx, ctx.needs_input_grad[4 : 4 + count], gradients)
        return (None,) * 4 + (*found, *[None] * ctx.others)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        _, key, _, count = arguments[:4]
        weights = range(1, count - kernel_of(key).program.layout.states)
        rows = [place not in weights for place in range(len(arguments) - 4)]
        return _over_samples(_Recurrence, info.batch_size, arguments, in_dims, rows)


class _RecurrenceBackward(torch.autograd.Function):
    """`recurrence_backward`, with a derivative that is computed from the program."""

    @staticmethod
    def forward(
        reverse: bool, key: str, wanted: tuple[bool, ...], counts: tuple[int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        given, kept, learned, fixed = _parts(tensors, counts)
        return tuple(recurrence_backward(given, kept, learned, fixed, reverse, key, list(wanted)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *ctx.noted, ctx.counts = inputs[:4]
        ctx.save_for_backward(*inputs[4:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        reverse, key, wanted = ctx.noted
        given, kept, learned, fixed = _parts(ctx.saved_tensors, ctx.counts)
        kernel, size = kernel_of(key), len(given)
        seen = given[0].dim() == 3  # whether the outputs have a gradient

        def layer(*learned: Tensor) -> tuple[Tensor, ...]:
            outputs, final = reference(unpacked(learned, fixed, reverse, kernel), kernel)
            return (outputs, *final) if seen else tuple(final)

        def slopes(*tensors: Tensor) -> tuple[Tensor, ...]:
            _, pull = cast(Any, torch.func.vjp)(layer, *tensors[size:])
            found = pull(tensors[:size] if seen else tensors[1:size])
            return tuple(slope for slope, want in zip(found, wanted, strict=True) if want)

        _, pull = cast(Any, torch.func.vjp)(slopes, *given, *learned)
        found = pull(tuple(slope for slope, want in zip(gradients, wanted, strict=True) if want))
        nothing: list[None] = [None] * (len(kept) + len(fixed))
        return (*(None,) * 4, *found[:size], *nothing[: len(kept)], *found[size:], *nothing[len(kept) :])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        _, _, wanted, (size, count) = arguments[:4]
        weights = range(1, count - size + 1)
        rows = [place - size - 2 not in weights for place in range(len(arguments) - 4)]
        apart = any(wanted[place] for place in weights)  # each sample has its own gradients of them
        return _over_samples(
            _RecurrenceBackward, info.batch_size, arguments, in_dims, rows, shared=weights, apart=apart
        )


def _parts(tensors: Sequence[Tensor], counts: tuple[int, int]) -> tuple[list[Tensor], ...]:
    """Split tensors into output gradients, saved values, learned tensors, and the rest."""
    size, count = counts
    ends = [0, size, size + 2, size + 2 + count, len(tensors)]
    return tuple(list(tensors[first:last]) for first, last in pairwise(ends))


def _over_samples(
    function: Any,
    samples: int,
    arguments: Sequence[Any],
    dims: Sequence[Any],
    rows: Sequence[bool],
    *,
    shared: Sequence[int] = (),
    apart: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Run a function of this module under vmap: with the samples as rows of one batch, or one after another.

    Args:
        function: `_Recurrence` or `_RecurrenceBackward`.
        samples: the number of samples.
        arguments: four options, then tensors.
        dims: the axis of the samples in each argument; None if the samples share it.
        rows: for each tensor, whether it has a row for each sequence.
        shared: indices of the results without such rows.
        apart: whether to run the samples one after another in any case.
    """
    options, tensors = arguments[:4], arguments[4:]
    # A tensor that stands for None has no elements, with any number of samples.
    pairs = [
        (tensor.select(dim, 0), None) if dim is not None and tensor.select(dim, 0).shape == (0,) else (tensor, dim)
        for tensor, dim in zip(tensors, dims[4:], strict=True)
    ]
    if apart or any(dim is not None and not row for (_, dim), row in zip(pairs, rows, strict=True)):
        each = [
            function.apply(*options, *(tensor if dim is None else tensor.select(dim, at) for tensor, dim in pairs))
            for at in range(samples)
        ]
        return tuple(torch.stack(column) for column in zip(*each, strict=True)), (0,) * len(each[0])

    def joined(tensor: Tensor, dim: int | None) -> Tensor:
        if tensor.shape == (0,):
            return tensor
        return (tensor.expand(samples, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)

    rowwise = zip(pairs, rows, strict=True)
    found = function.apply(*options, *(joined(*pair) if row else pair[0] for pair, row in rowwise))
    split = [place not in shared and result.dim() > 1 for place, result in enumerate(found)]
    results = (
        result.unflatten(0, (samples, len(result) // samples)) if own else result
        for result, own in zip(found, split, strict=True)
    )
    return tuple(results), tuple(0 if own else None for own in split)


def reference(run: LayerInputs, kernel: Kernel) -> tuple[Tensor, list[Tensor]]:
    """Run the kernel's program step by step with torch's own operations; return outputs and final state."""
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
