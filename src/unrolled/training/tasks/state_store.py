"""States that truncated backpropagation carries from one window to the next."""

from typing import Any

from torch import Tensor

from unrolled import state as states


class StateStore:
    """Stores a detached state for each loader. Rows that begin a new sequence are reset.

    Checkpoints contain the states as lists of tensors, which are rebuilt on first use from the structure of the
    network's initial state.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self._saved: dict[str, list[Tensor]] = {}

    def take(self, loader: str, initial: Any, reset: Tensor) -> Any:
        """Returns the state before a loader's next window.

        Args:
            loader: name of the loader.
            initial: the network's initial state for the whole batch.
            reset: (batch,) bool, True for rows that begin a new sequence.

        Raises:
            ValueError: the saved state belongs to another batch size or network.
        """
        if loader in self._saved:
            self._states[loader] = self._rebuild(loader, initial)
        if loader not in self._states:
            return initial
        return states.where(reset, initial, self._states[loader])

    def put(self, loader: str, state: Any) -> None:
        """Stores a state for the loader's next window, detached from the graph."""
        self._states[loader] = states.detach(state)

    def drop(self, loader: str) -> None:
        """Drops a loader's state, so that its next window starts from the initial state."""
        self._states.pop(loader, None)
        self._saved.pop(loader, None)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Returns the states' leaves by loader, on the CPU."""
        live = {loader: [leaf.cpu() for leaf in states.leaves(state)] for loader, state in self._states.items()}
        return {**self._saved, **live}

    def load_state_dict(self, saved: dict[str, list[Tensor]]) -> None:
        """Restores the result of `state_dict`."""
        self._states.clear()
        self._saved = dict(saved)

    def _rebuild(self, loader: str, initial: Any) -> Any:
        like = states.leaves(initial)
        saved = self._saved.pop(loader)
        try:
            return states.rebuild(initial, [s.to(leaf) for s, leaf in zip(saved, like, strict=True)])
        except ValueError as error:
            raise ValueError(
                f"the checkpoint's {loader} state does not match the network or the batch ({error}); resume with the "
                "same batch size and number of processes, or start from its weights alone: init_from=PATH"
            ) from None
