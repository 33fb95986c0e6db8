"""States that outlive a batch: what truncated backpropagation carries from one window to the next."""

from typing import Any

from torch import Tensor

from unrolled import state as states


class StateStore:
    """One detached state for each loader, dropped row by row where a new sequence begins.

    Saved as lists of tensors, which a checkpoint may hold, and rebuilt on the first use from the network's own initial
    state.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self._saved: dict[str, list[Tensor]] = {}

    def take(self, loader: str, initial: Any, reset: Tensor) -> Any:
        """The state that a loader's next window starts from.

        Args:
            loader: whose window it is.
            initial: the network's initial state for the whole batch.
            reset: (batch,) bool, rows that begin a new sequence.

        Raises:
            ValueError: a saved state of another batch size or network.
        """
        if loader in self._saved:
            self._states[loader] = self._rebuild(loader, initial)
        if loader not in self._states:
            return initial
        return states.where(reset, initial, self._states[loader])

    def put(self, loader: str, state: Any) -> None:
        """Keeps a state for the loader's next window, cut off from the graph that made it."""
        self._states[loader] = states.detach(state)

    def drop(self, loader: str) -> None:
        """Forgets a loader's state; its next window starts afresh."""
        self._states.pop(loader, None)
        self._saved.pop(loader, None)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Leaves by loader, on the CPU."""
        live = {loader: [leaf.cpu() for leaf in states.leaves(state)] for loader, state in self._states.items()}
        return {**self._saved, **live}

    def load_state_dict(self, saved: dict[str, list[Tensor]]) -> None:
        """Takes up where `state_dict` was read."""
        self._states.clear()
        self._saved = dict(saved)

    def _rebuild(self, loader: str, initial: Any) -> Any:
        like = states.leaves(initial)
        saved = self._saved.pop(loader)
        try:
            return states.rebuild(initial, [s.to(leaf) for s, leaf in zip(saved, like, strict=True)])
        except ValueError as error:
            raise ValueError(
                f"the checkpoint carries a {loader} state that does not fit ({error}); resume with the batch size and "
                "number of processes it was written with, or start from its weights alone: init_from=PATH"
            ) from None
