"""The compiled layer as a custom operator of torch, with a fake implementation for torch.compile and a derivative."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.backends.compiled.kernel import Kernel, LayerInputs

KERNELS: dict[str, Kernel] = {}
SINGLE = ("inputs", "weight_ih", "bias_ih", "weight_hh", "bias_hh", "own")


def kernel_of(key: str) -> Kernel:
    """Return the kernel with the given key."""
    if key not in KERNELS:
        raise RuntimeError(
            "this graph needs a compiled cell of the process that created it; export it with backend='loop'"
        )
    return KERNELS[key]


def packed(run: LayerInputs) -> tuple[list[Tensor], list[Tensor]]:
    """Return the operator's arguments: tensors that may have gradients, and the rest. None becomes an empty tensor.

    The order is inputs, weight_ih, bias_ih, weight_hh, bias_hh, own, further, initial; and state_mask, lengths, noise.
    """
    nothing = run.inputs.new_empty(0)

    def there(tensor: Tensor | None) -> Tensor:
        return nothing if tensor is None else tensor

    learned = [there(getattr(run, name)) for name in SINGLE]
    return [*learned, *run.further, *run.initial], [there(run.state_mask), there(run.lengths), *run.noise]


def unpacked(learned: Sequence[Tensor], fixed: Sequence[Tensor], reverse: bool, kernel: Kernel) -> LayerInputs:
    """The inverse of `packed`, with the memory layout that the kernel needs."""
    inputs, *others = (tensor.contiguous() for tensor in learned)
    singles = [tensor if tensor.numel() > 0 else None for tensor in others[: len(SINGLE) - 1]]
    lists = others[len(SINGLE) - 1 :]
    further = 2 * len(kernel.program.layout.further)
    state_mask, lengths, *noise = (tensor.contiguous() for tensor in fixed)
    return LayerInputs(
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
    """Return the outputs, the values saved for the backward pass, and the final state, for arguments from `packed`."""
    known = kernel_of(kernel)
    outputs, saved, final = known.forward(unpacked(learned, fixed, reverse, known), keep=keep)
    return [outputs, saved, *final]


@recurrence.register_fake
def _(learned: list[Tensor], fixed: list[Tensor], reverse: bool, kernel: str, keep: bool) -> list[Tensor]:
    known = kernel_of(kernel)
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
    """Return the gradients of `learned`, as empty tensors where there are none or none are needed.

    `gradients` are those of the outputs, or an empty tensor, and of the final state's tensors. `kept` are the outputs
    and the values saved by the forward pass. `wanted` are flags for the tensors of `learned` that need gradients.
    """
    known = kernel_of(kernel)
    run = unpacked(learned, fixed, reverse, known)
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
    singles = [found[name] if name in found else nothing(0) for name in SINGLE]
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
    run = unpacked(learned, fixed, reverse, kernel_of(kernel))
    weights = any(_of_weights(wanted, run))
    given = [wanted[0] or run.weight_ih is None, *[weights] * 4, True, *[weights] * len(run.further)]
    given += [True] * len(run.initial)
    return [run.inputs.new_empty(t.shape if g else (0,)) for t, g in zip(learned, given, strict=True)]


def _of_weights(wanted: Sequence[bool], run: LayerInputs) -> list[bool]:
    """Return flags for weights that need gradients, which the products after the loop over time compute."""
    first = len(SINGLE)
    return [*wanted[1:5], *wanted[first : first + len(run.further)]]
