"""How far a command is, said while it would otherwise be silent."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

_FIRST, _LONGEST = 5.0, 60.0  # seconds of silence: twice as many each time


class Progress:
    """Says on standard error what a command is at, after some seconds and from then on ever more rarely.

    A thread does, so that it is heard in the middle of a long search.

    Args:
        command: whose it is.
        first: seconds before it is said for the first time.
    """

    def __init__(self, command: str, first: float = _FIRST) -> None:
        self._command, self._pause = command, first
        self._status = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._began = time.monotonic()

    def at(self, status: str) -> None:
        """What the command is at from now on; nothing while it waits for its input."""
        self._status = status

    def counted(self, things: str, done: int, known: int) -> None:
        """So many of the things that are known are done."""
        self.at(f"{done:,} of {known:,} {things}" if done < known else "")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _speak(self) -> None:
        while not self._ended.wait(self._pause):
            if status := self._status:
                seconds = time.monotonic() - self._began
                print(f"unrolled {self._command}: {status}, {seconds:,.0f} s", file=sys.stderr, flush=True)
                self._pause = min(2 * self._pause, _LONGEST)
