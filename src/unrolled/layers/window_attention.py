"""The soft window of handwriting synthesis: attention that moves forward over the source."""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.layers.attention import Attended, Attention, Memory, masked_source
from unrolled.layers.encoded import Encoded
from unrolled.shapes import expect

_LARGEST = 10.0  # of the logarithms: e¹⁰ is far beyond any use, and squares of it are finite


class WindowState(NamedTuple):
    """Where the window is.

    Attributes:
        position: (batch, components) the center κ of each component; 0 is the first position of the source.
        beyond: (batch,) the weight of the position after the source's end, minus the greatest weight within. Above 0
            the window has passed the end (Graves 2013, section 5.4).
    """

    position: Tensor
    beyond: Tensor


class WindowAttention(Attention):
    """A mixture of Gaussian windows that moves forward only (Graves 2013, eq. 46-51).

        (α̂, β̂, κ̂) = W q + b
        κ_t = κ_{t−1} + exp(κ̂)
        φ(t, u) = Σ_k exp(α̂_k) exp(−exp(β̂_k) (κ_k − u)²)
        context_t = Σ_u φ(t, u) value_u

    The weights φ don't sum to 1. Positions u count from 0.

    Args:
        source_size: number of features of the source.
        query_size: number of features of a query.
        num_components: number of Gaussians.
        initial_step: by how much an untrained window moves at a step: the share of a symbol that a step takes.

    Raises:
        ValueError: a size below one, an initial_step that isn't above 0.
    """

    def __init__(
        self, source_size: int, query_size: int, *, num_components: int = 10, initial_step: float = 0.05
    ) -> None:
        super().__init__(source_size, query_size)
        if num_components < 1 or not 0.0 < initial_step < float("inf"):
            raise ValueError(
                f"num_components={num_components}, initial_step={initial_step}: expected 1 or more, and a number above "
                "0"
            )
        self.num_components = num_components
        self.window = nn.Linear(query_size, 3 * num_components)
        with torch.no_grad():
            heights, _, steps = self.window.bias.split(num_components)
            heights.sub_(log(num_components))
            steps.add_(log(initial_step))

    def prepare(self, encoded: Encoded) -> Memory:
        """Return the values of a source (batch, source, source_size) and their mask."""
        values, mask = masked_source(encoded, self.source_size)
        return Memory(values, values, mask, encoded.tokens)

    def start(self, memory: Memory) -> WindowState:
        """Return the window before the first step, at the first position."""
        precision = torch.promote_types(memory.values.dtype, torch.float32)
        batch = memory.values.shape[0]
        position = memory.values.new_zeros(batch, self.num_components, dtype=precision)
        return WindowState(position, position.new_full((batch,), -1.0))

    def forward(self, query: Tensor, memory: Memory, state: WindowState) -> Attended:
        """Move the window; return the context (batch, value), the weights (batch, source) and the next state."""
        expect(query, "batch query", query=self.query_size, name="query")
        logarithms = self.window(query).to(state.position.dtype).clamp(max=_LARGEST)
        heights, sharpness, steps = logarithms.exp().chunk(3, dim=-1)
        position = state.position + steps
        source = memory.values.shape[1]
        places = torch.arange(source + 1, device=query.device, dtype=position.dtype)
        exponents = (position.unsqueeze(-1) - places).square() * -sharpness.unsqueeze(-1)
        every = (heights.unsqueeze(1) @ exponents.exp()).squeeze(1)
        weights = every[:, :source].masked_fill(~memory.mask, 0.0)
        context = (weights.to(memory.values.dtype).unsqueeze(1) @ memory.values).squeeze(1)
        with torch.no_grad():
            after = every.gather(1, memory.mask.sum(1, keepdim=True)).squeeze(1)
            beyond = after - weights.amax(1) if source else after
        return Attended(context, weights, WindowState(position, beyond))
