"""A recurrent core that attends to a source at each step, with a readout layer."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.hooks import has_hooks
from unrolled.cells.pointwise import PointwiseCell
from unrolled.layers.attention import Attention, Memory
from unrolled.layers.encoded import Encoded
from unrolled.layers.monotonic_attention import HardMonotonicAttention
from unrolled.layers.observing import observed_steps
from unrolled.layers.recurrent import Recurrent
from unrolled.models.decoders.base import DecoderState, check_attention
from unrolled.models.decoders.wiring import AttentionWiring, LuongWiring, Sizes
from unrolled.sequences import mask_from_lengths
from unrolled.state import state_at


class DecoderNoise(NamedTuple):
    """The noise of a sequence of `time` steps; None where dropout is inactive."""

    embedded: Tensor | None  # (batch, time, embedding)
    readout: Tensor | None  # (batch, time, readout)
    core: list[Any]  # one item per step, from the wiring

    def at(self, step: int) -> "DecoderNoise":
        """Return the noise of one step."""
        embedded, readout = (None if mask is None else mask[:, step : step + 1] for mask in self[:2])
        return DecoderNoise(embedded, readout, self.core[step : step + 1])


class Steps(NamedTuple):
    """The results of all steps, (batch, time, …) each, and the state after them.

    With hard monotonic attention, contexts are the values (batch, source, …) and readouts have an axis of the source
    after the time; weights and the state of attention follow from the predictions.
    """

    queries: Tensor
    contexts: Tensor
    readouts: Tensor
    weights: Tensor | None
    state: DecoderState


class AttentiveCore(nn.Module):
    """The part of an `AutoregressiveDecoder` between embedding and head, if it attends to a source.

    Args:
        core: creates a core with the decoder's options, given an input size.
        attention: a partial `Attention`, called with source_size and query_size.
        input_size: number of features of an embedded input with its conditions.
        source_size: number of features of `Encoded.values` and `Encoded.summary`.
        wiring: see `AutoregressiveDecoder` for this and the next.
        input_feeding: whether the core reads the last readout; by default if the attention has one context per step.
        output_size: number of features of the readout; by default that of the core's output.

    Raises:
        ValueError: a wiring without input feeding, a core that isn't recurrent, input feeding or a wiring with hard
            monotonic attention.
    """

    def __init__(
        self,
        core: Callable[[int], Recurrent],
        attention: Callable[..., Attention],
        input_size: int,
        source_size: int,
        *,
        wiring: Callable[..., AttentionWiring] | None = None,
        input_feeding: bool | None = None,
        output_size: int | None = None,
    ) -> None:
        super().__init__()
        query_size = _output_size(core)
        attend = partial(attention, source_size=source_size, query_size=query_size)
        with torch.device("meta"):  # its kind decides what the core reads, and the core's weights are drawn first
            marginal = isinstance(attend(), HardMonotonicAttention)
        if marginal and (wiring is not None or input_feeding):
            raise ValueError(
                "HardMonotonicAttention sums over all alignments, so no step has one context to feed: leave out "
                f"{'wiring' if wiring is not None else 'input_feeding=True'}"
            )
        self.input_feeding = input_feeding = not marginal if input_feeding is None else input_feeding
        self.output_size = query_size if output_size is None else output_size
        sizes = Sizes(source_size, query_size, self.output_size)
        if wiring is not None and not input_feeding:
            raise ValueError("input_feeding=False supports only the wiring LuongWiring; leave wiring out")
        self.wiring = LuongWiring(sizes, core, feeding=input_feeding) if wiring is None else wiring(sizes, core)
        self.core = core(input_size + self.wiring.input_size)
        if not isinstance(self.core, Recurrent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"a decoder with attention needs a recurrent model, such as gru, but {type(self.core).__name__} "
                "has no state"
            )
        self.attention = attend()
        self.readout = nn.Linear(query_size + self.attention.value_size, self.output_size)
        self.features_size = self.attention.value_size + query_size + input_size  # of `features`

    def start(self, core: Any, encoded: Encoded) -> tuple[DecoderState, Memory]:
        """Return the state before the first step, given that of the core, and the source prepared for attention."""
        memory = self.attention.prepare(encoded)
        context = self.wiring.initial_context(encoded, self.readout.weight)
        return DecoderState(self.wiring.start(core, encoded), self.attention.start(memory), context), memory

    def check_state(self, state: DecoderState, memory: Memory, like: Tensor) -> None:
        """Check a decoder's state, once for all steps of a sequence."""
        check_attention(self.attention, state, memory, self.wiring.context_size, like)
        self.wiring.check(self.core, state.core, like)

    def noises(self, batch: int, time: int, like: Tensor) -> list[Any]:
        """Draw the noise of the cores for each step."""
        return self.wiring.noises(self.core, batch, time, like)

    def forward(
        self, inputs: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> Steps:
        """Run over embedded inputs (batch, time, input_size); attention weights after the end of a sequence are zero.

        Without input feeding, the core draws its own noise.
        """
        if self.input_feeding:
            with observed_steps(self, inputs, lengths):
                steps = self._run_steps(inputs, state, memory, lengths, noise)
        else:
            steps = self._run_parallel(inputs, state, memory, lengths, noise)
        if lengths is None or steps.weights is None:
            return steps
        valid = mask_from_lengths(lengths.to(steps.weights.device), steps.weights.shape[1])
        return steps._replace(weights=steps.weights.masked_fill(~valid.unsqueeze(-1), 0.0))

    def step(self, inputs: Tensor, state: DecoderState, memory: Memory, noise: DecoderNoise) -> Steps:
        """Run one step of embedded inputs (batch, 1, input_size)."""
        if isinstance(self.attention, HardMonotonicAttention):
            query, core = self.core.step(inputs.squeeze(1), state.core, noise.core[0])
            return self._aligned(query.unsqueeze(1), state._replace(core=core), memory, noise)
        return self._run_steps(inputs, state, memory, None, noise)

    def _run_steps(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> Steps:
        """Run step by step, since the core reads the last step's readout or context."""
        project = self._projection(embedded)
        masks = [None] * embedded.shape[1] if noise.readout is None else noise.readout.unbind(1)
        states = [state]
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        all_weights: list[Tensor] = []
        for step, (mask, of_core) in enumerate(zip(masks, noise.core, strict=True)):
            query, (context, weights, attention), core = self.wiring.advance(
                self.core, self.attention, partial(project, step), state, memory, of_core
            )
            readout = times(self._read_out(query, context), mask)
            state = DecoderState(core, attention, self.wiring.next_context(state.context, query, readout))
            states.append(state)
            results.append((query, context, readout))
            if weights is not None:
                all_weights.append(weights)
        queries, contexts, readouts = (torch.stack(column, 1) for column in zip(*results, strict=True))
        weights = torch.stack(all_weights, 1) if all_weights else None
        return Steps(queries, contexts, readouts, weights, state_at(states, lengths))

    def _projection(self, embedded: Tensor) -> Callable[[int, Tensor | None], tuple[Tensor | None, Tensor | None]]:
        """Return a function of a step and the fed features: the first cell's projection, and its inputs if needed.

        If the projection is known to be affine, the tokens' part of it is computed here for all steps at once.
        """
        cell: Any = self.core.cells[0]
        needs_inputs = self.core.residual and cell.input_size == cell.output_size
        if has_hooks(cell):  # each step is a separate call, with the weights of that call

            def called(step: int, fed: Tensor | None) -> tuple[None, Tensor]:
                return None, embedded[:, step] if fed is None else torch.cat([embedded[:, step], fed], dim=-1)

            return called
        if not self.input_feeding:
            every = cell.project(embedded).unbind(1)
            return lambda step, _: (every[step], embedded[:, step] if needs_inputs else None)
        if needs_inputs or not isinstance(cell, PointwiseCell) or type(cell).project is not PointwiseCell.project:

            def whole(step: int, fed: Tensor | None) -> tuple[Tensor, Tensor | None]:
                inputs = embedded[:, step] if fed is None else torch.cat([embedded[:, step], fed], dim=-1)
                return cell.project(inputs), inputs

            return whole
        size = embedded.shape[-1]
        of_token, of_readout = cell.weight_ih[:, :size], cell.weight_ih[:, size:].t()
        shares = linear(embedded, of_token, cell.bias_ih)
        masks = [mask.unbind(1) for mask in cell.step_masks(tuple(embedded.shape[:2]), like=shares)]
        every = shares.unbind(1)

        def split(step: int, fed: Tensor | None) -> tuple[Tensor, None]:
            projected = every[step] if fed is None else torch.addmm(every[step], fed, of_readout)
            return torch.cat([projected, *(mask[step] for mask in masks)], dim=-1) if masks else projected, None

        return split

    def _run_parallel(
        self, embedded: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None, noise: DecoderNoise
    ) -> Steps:
        """Run all steps at once, since the core doesn't read contexts."""
        queries, core = self.core(embedded, state.core, lengths)
        if isinstance(self.attention, HardMonotonicAttention):
            return self._aligned(queries, state._replace(core=core), memory, noise)
        contexts, weights, attention = self.attention.over_time(queries, memory, state.attention, lengths)
        readouts = times(self._read_out(queries, contexts), noise.readout)
        return Steps(queries, contexts, readouts, weights, DecoderState(core, attention))

    def _aligned(self, queries: Tensor, state: DecoderState, memory: Memory, noise: DecoderNoise) -> Steps:
        """Read out every position of the source at every step."""
        of_query, of_value = self.readout.weight.split([queries.shape[-1], memory.values.shape[-1]], dim=1)
        shares = linear(queries, of_query, self.readout.bias).unsqueeze(2)
        readouts = torch.tanh(shares + linear(memory.values, of_value).unsqueeze(1))
        mask = None if noise.readout is None else noise.readout.unsqueeze(2)
        return Steps(queries, memory.values, times(readouts, mask), None, state)

    def _read_out(self, query: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.readout(torch.cat([query, context], dim=-1)))


def times(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return values multiplied by a mask, if there is one."""
    return values if mask is None else values * mask


def _output_size(core: Callable[[int], Recurrent]) -> int:
    """Return the output size of a core before its input size is known, from a core without storage."""
    with torch.device("meta"):
        return core(1).output_size
