"""The states of many streams as the rows of one state, and steps of some of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unrolled.deployment.streaming.networks import StreamedNetwork
from unrolled.state import leaves, map_state, select


class Batch:
    """The states of streams, one in each row; without streams, nothing.

    Args:
        network: the network that steps.
    """

    def __init__(self, network: StreamedNetwork) -> None:
        self._network, self._state = network, None
        self._owned = True  # whether nothing else has the memory of the state, which then may be changed in place
        self.rows = 0

    def append(self, states: Sequence[Any]) -> None:
        """Add rows, states of batch 1, after the last one."""
        self._state = _concatenated([*([] if self._state is None else [self._state]), *states])
        self._owned = True
        self.rows += len(states)

    def row(self, number: int) -> Any:
        """Return a copy of a row, as a state of batch 1."""
        return select(self._state, torch.tensor([number], device=self._network.like.device))

    def remove(self, number: int) -> None:
        """Remove a row. The last one takes its place."""
        self.rows -= 1
        for leaf in self._writable():
            leaf[number] = leaf[self.rows].clone()
        self._state = _between(self._state, 0, self.rows) if self.rows else None

    def step(self, rows: Sequence[int], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Step the network through the inputs of some rows.

        Args:
            rows: numbers of the rows.
            inputs: (steps, …) of each row, one step or more, the longest first.

        Returns:
            The parameters of each row, (steps, outputs); or (1, outputs), of the last step, for a network of which
            not `each` step is a prediction.
        """
        with torch.no_grad():
            return self._step(rows, inputs)

    def _step(self, rows: Sequence[int], inputs: Sequence[Tensor]) -> list[Tensor]:
        like, lengths = self._network.like, [one.shape[0] for one in inputs]
        alone = len(rows) == 1
        padded = inputs[0].unsqueeze(0) if alone else pad_sequence(list(inputs), batch_first=True)
        padded = padded.to(like.device, like.dtype) if padded.is_floating_point() else padded.to(like.device)
        every = list(rows) == list(range(self.rows))
        places = None if every else torch.tensor(rows, device=like.device)
        state = self._state if places is None else select(self._state, places)
        ended, active = list[Any](), len(rows)
        found: list[list[Tensor]] = [[] for _ in rows]
        for step, column in enumerate(padded.unbind(1)):
            left = active
            while lengths[left - 1] <= step:
                left -= 1
            if left < active:
                ended.append(_between(state, left, active))
                state, active = _between(state, 0, left), left
            parameters, state = self._network.step(column if active == len(rows) else column[:active], state)
            for place, row in enumerate((parameters,) if alone else parameters.split(1)):
                if self._network.each or lengths[place] == step + 1:
                    found[place].append(row)
        after = _concatenated([state, *reversed(ended)]) if ended else state
        if places is None:
            self._state, self._owned = after, False
        else:
            for leaf, new in zip(self._writable(), leaves(after), strict=True):
                leaf.index_copy_(0, places, new)
        # Of many rows a copy each, which keeps no other row's numbers alive.
        return [of_row[0] if alone and len(of_row) == 1 else torch.cat(of_row) for of_row in found]

    def _writable(self) -> list[Tensor]:
        """Return the tensors of the state, which may be changed in place."""
        if not self._owned:
            self._state, self._owned = map_state(torch.clone, self._state), True
        return leaves(self._state)


def _concatenated(states: list[Any]) -> Any:
    """Return the rows of several states as one state, in new memory."""

    def joined(*parts: Tensor) -> Tensor:
        return torch.cat(parts)

    return map_state(joined, *states)


def _between(state: Any, begin: int, end: int) -> Any:
    """Return some rows of a state."""

    def some(leaf: Tensor) -> Tensor:
        return leaf[begin:end]

    return map_state(some, state)
