"""Runs the functions of requests, one at a time: they share a network."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, NoReturn, TypeVar

import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment.serving.limits import ServingLimits
from unrolled.generation.limits import TimeLimitError, time_limit

T = TypeVar("T")
_END = object()


class Refusal(Exception):  # noqa: N818 - it is an answer, of which the server makes a response
    """An answer other than the wanted one.

    Attributes:
        status: HTTP status.
        reason: a sentence.
        retry_after: seconds after which the request may succeed; None if it won't.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class Service:
    """A network that answers one request at a time; the others wait, within limits.

    Args:
        bundle: the bundle from `load_bundle`.
        limits: the limits of requests.
        generator: random number generator on the network's device.
    """

    def __init__(self, bundle: Bundle, limits: ServingLimits, generator: torch.Generator) -> None:
        self.bundle, self.limits, self.generator = bundle, limits, generator
        self._turn = asyncio.Lock()
        self._waiting = 0

    def check_text(self, text: str, name: str = "the text") -> str:
        """Return a text that is not too long.

        Raises:
            Refusal: 413.
        """
        if len(text) > self.limits.text:
            raise Refusal(
                413,
                f"{name} has {len(text):,} characters, and this server reads {self.limits.text:,}: shorten it, or "
                "start the server with a greater --max-text",
            )
        return text

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of a function that uses the network, when it is its turn.

        A function that doesn't end in time goes on in its thread, where it can't be interrupted but by a search's own
        check of the time. The next one waits for it.

        Raises:
            Refusal: 503, with too many requests or too little time.
            ValueError: what the function raises.
        """
        await self._take_turn()
        task = asyncio.ensure_future(self._finish(function))
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # it was seen
        done, _ = await asyncio.wait({task}, timeout=self.limits.seconds + 1.0)
        if not done:
            self._too_long()
        return task.result()

    async def stream(self, results: Generator[dict[str, Any]]) -> Any:
        """Take the turn for a generator that uses the network, and return the response: its results as events.

        The first result is computed before, so that a mistake in the request has its own status. A client that leaves
        ends the generator.

        Raises:
            Refusal: see `run`.
            ValueError: see `run`.
        """
        from starlette.responses import StreamingResponse

        await self._take_turn()
        ends = time.monotonic() + self.limits.seconds
        try:
            first = await self._step(results, ends)
        except BaseException:
            self._turn.release()
            raise
        end_turn = self._turn.release

        class Events(StreamingResponse):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                try:
                    await super().__call__(scope, receive, send)
                finally:
                    results.close()
                    end_turn()

        return Events(self._events(first, results, ends), media_type="text/event-stream")

    async def _events(
        self, first: dict[str, Any] | None, results: Iterator[dict[str, Any]], ends: float
    ) -> AsyncIterator[bytes]:
        try:
            following = first
            while following is not None:
                yield event(following)
                following = await self._step(results, ends)
            yield event({"end": True})
        except (ValueError, Refusal) as error:
            yield event({"error": sentence(error)})

    async def _take_turn(self) -> None:
        if self._turn.locked() and self._waiting >= self.limits.waiting:
            raise Refusal(503, f"{self._waiting + 1} requests are before this one; try again in a moment", 1)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise Refusal(503, "other requests took too long; try again in a moment", 5) from None
        finally:
            self._waiting -= 1

    async def _finish(self, function: Callable[[], T]) -> T:
        from starlette.concurrency import run_in_threadpool

        def limited() -> T:
            with time_limit(self.limits.seconds):
                return function()

        try:
            return await run_in_threadpool(limited)
        except TimeLimitError:
            self._too_long()
        finally:
            self._turn.release()

    async def _step(self, results: Iterator[dict[str, Any]], ends: float) -> dict[str, Any] | None:
        from starlette.concurrency import run_in_threadpool

        def limited() -> Any:
            with time_limit(ends - time.monotonic()):
                return next(results, _END)

        try:
            found = await run_in_threadpool(limited)
        except TimeLimitError:
            self._too_long()
        return None if found is _END else found

    def _too_long(self) -> NoReturn:
        raise Refusal(
            503,
            f"the request took longer than {self.limits.seconds:g} seconds: ask for less, or start the server with a "
            "greater --max-seconds",
            1,
        )


def event(content: dict[str, Any]) -> bytes:
    """Return a server-sent event with JSON."""
    return f"data: {json.dumps(content, ensure_ascii=False, allow_nan=False)}\n\n".encode()


def sentence(error: Exception) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())


def number(value: float) -> float | None:
    """Return a number that JSON can have; None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None
