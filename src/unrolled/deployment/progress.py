"""Progress messages of commands on standard error."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

_FIRST, _LONGEST = 5.0, 60.0  # seconds between messages, doubled after each


class Progress:
    """Prints the status of a command to standard error after some seconds, and then at increasing intervals.

    A thread prints it, so that it also appears during a long search.

    Args:
        command: name of the command.
        first: seconds before the first message.
    """

    def __init__(self, command: str, first: float = _FIRST) -> None:
        self._command, self._pause = command, first
        self._status = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._began = time.monotonic()

    def at(self, status: str) -> None:
        """Set the status; with an empty status, nothing is printed."""
        self._status = status

    def counted(self, things: str, done: int, known: int) -> None:
        """Set the status to the numbers of finished and known things."""
        self.at(f"{done:,} of {known:,} {things}" if done < known else "")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        while not self._ended.wait(self._pause):
            if status := self._status:
                seconds = time.monotonic() - self._began
                print(f"unrolled {self._command}: {status}, {seconds:,.0f} s", file=sys.stderr, flush=True)
                self._pause = min(2 * self._pause, _LONGEST)
