"""Streams that a network reads as they arrive: one of them, or thousands in one batch.

session = Session(load_bundle("best.ckpt"), rate=16_000)
for samples in microphone:
prediction = session.feed(samples)
saved = session.save()
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle
from unrolled.deployment.streaming.batch import Batch
from unrolled.deployment.streaming.networks import StreamedNetwork, StreamOptions, streamed
from unrolled.deployment.streaming.readers import Chunk, Memory, TextReader
from unrolled.deployment.streaming.saving import fingerprint, pack, tensors_of, unpack
from unrolled.generation.limits import forbid, whole
from unrolled.state import leaves, rebuild
from unrolled.wording import counted


class Session:
    """One stream that a network reads as it arrives.

    | network | `feed` takes | `feed` returns |
    |---|---|---|
    | classifier | text, samples, or rows of numbers | `Prediction` for all so far; None before the first step |
    | tagger | text or words; samples or rows | list of `TaggedWord`; list of `Prediction`, one for each step |
    | transcriber | samples | the text that they add to the transcript |
    | language model | text | `Prediction` of the next token; before any text, that of the first |
    | model of music | lists of pitches, one for each frame | `Prediction` of the next frame, by pitch |
    | autoregressive forecaster | rows of a series | `Prediction` of the next row |

    Args:
        bundle: from `load_bundle`.
        options: see `StreamOptions`: `rate` of samples, `series` and `start` of rows of a series, `top` of tokens.

    Attributes:
        pool: the pool of the session; by default, one of its own.

    Raises:
        ValueError: a network that needs whole inputs, or an option that is missing; the message says what to change.
    """

    pool: "SessionPool"

    def __init__(self, bundle: Bundle, **options: Any) -> None:
        SessionPool(bundle, **options).begin(self)

    @classmethod
    def restore(cls, bundle: Bundle, saved: bytes, **options: Any) -> "Session":
        """Return the session that `save` saved, given the same bundle and options.

        Raises:
            ValueError: damaged bytes, or those of another network.
        """
        return SessionPool(bundle, **options).restore(saved)

    def feed(self, data: Any) -> Any:
        """Read what arrived, any amount of it, and return what it predicts; see the class.

        Raises:
            ValueError: data that the network can't read; the session is unchanged.
        """
        return self.pool.feed({self: data})[self]

    def finish(self) -> Any:
        """Return the last prediction of the stream, for which no more has to arrive, and begin a new one.

        All predictions together are those for the whole.

        Raises:
            ValueError: nothing was fed to a network that predicts for the whole.
        """
        return self.pool.finish([self])[self]

    def write(self, length: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> str:
        """Continue a text with a language model, and return what was written, which the session has then read.

        Args:
            length: number of tokens.
            temperature: 1 for the model's distribution, less for more probable tokens, 0 for the most probable one.
            generator: random number generator on the network's device; None for torch's global generator.

        Raises:
            ValueError: another network, a negative length or temperature.
        """
        return self.pool.write(self, length, temperature, generator)

    def save(self) -> bytes:
        """Return the session as bytes for `restore`: plain data, a fingerprint of the network and a digest."""
        return self.pool.save(self)

    @property
    def idle(self) -> float:
        """Seconds since something was fed, or since the session began."""
        return self.pool.idle(self)

    @property
    def nbytes(self) -> int:
        """The size of the session's tensors in bytes: the network's state, and what has arrived and isn't read yet."""
        return self.pool.nbytes(self)


@dataclass
class _Stream:
    """What a pool keeps of a session."""

    arrived: Memory  # of the reader
    reported: Memory  # of the predictions
    last: Tensor | None  # (outputs,) parameters of the last step
    state: Any  # of the network, of batch 1; None while it is a row of the pool's batch
    fed: float
    row: int = -1


class SessionPool:
    """Sessions whose steps are computed in one batch.

    Each session predicts what it would predict alone, whoever joins or leaves, up to rounding: a matrix product may sum
    in another order if there are more rows. A pool is used by one thread at a time.

    Args:
        bundle: from `load_bundle`.
        limit: maximum number of sessions; None for no limit.
        options: of all its sessions; see `StreamOptions`.

    Raises:
        ValueError: see `Session`; a limit below 1.
    """

    def __init__(self, bundle: Bundle, *, limit: int | None = None, **options: Any) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: expected 1 or more, or None")
        self.bundle, self.limit, self.options = bundle, limit, options
        self._network: StreamedNetwork = streamed(bundle, StreamOptions(**options))
        self._batch = Batch(self._network)
        self._streams: dict[Session, _Stream] = {}
        self._rows: list[_Stream] = []  # of the batch

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._streams))

    def __contains__(self, session: object) -> bool:
        return session in self._streams

    def begin(self, session: Session) -> Session:
        """Begin a stream in a session of this pool, or in a new one."""
        if session in self:
            self._remove(session)
        session.pool = self
        arrived, reported = self._network.reader.begin(), self._network.begin()
        self._streams[session] = _Stream(arrived, reported, None, self._network.start(1), time.monotonic())
        return session

    def join(self, session: Session | None = None) -> Session:
        """Add a session of another pool, or a new one, and return it.

        Raises:
            ValueError: the pool is full; a session of another network or with other options.
        """
        if session is not None and session in self:
            return session
        if self.limit is not None and len(self) >= self.limit:
            raise ValueError(
                f"the pool has {counted(len(self), 'session')}, which is its limit; evict some, or raise the limit"
            )
        if session is None:
            return self.begin(Session.__new__(Session))
        other = session.pool
        if other.bundle.network is not self.bundle.network or other.options != self.options:
            raise ValueError("the session reads another network, or has other options than this pool")
        self._streams[session] = other._remove(session)
        session.pool = self
        return session

    def leave(self, session: Session) -> Session:
        """Remove a session, which goes on alone, and return it.

        Raises:
            ValueError: a session of another pool.
        """
        self._stream(session)
        return SessionPool(self.bundle, **self.options).join(session)

    def evict(self, *, idle: float | None = None, limit: int | None = None) -> list[Session]:
        """Remove the sessions that were not fed for the longest time, and return them, these first.

        Args:
            idle: remove those that are idle for more than this number of seconds.
            limit: then remove more, until this number is left.
        """
        oldest = sorted(self, key=lambda session: -session.idle)
        late = 0 if idle is None else sum(session.idle > idle for session in oldest)
        surplus = 0 if limit is None else len(oldest) - limit
        return [self.leave(session) for session in oldest[: max(late, surplus, 0)]]

    def feed(self, data: Mapping[Session, Any]) -> dict[Session, Any]:
        """Read what arrived of some sessions, in one batch, and return what it predicts; see `Session.feed`.

        Raises:
            ValueError: data of any session that the network can't read: all sessions are unchanged. A session of
                another pool.
        """
        reader, streams = self._network.reader, {session: self._stream(session) for session in data}
        read = {session: reader.feed(new, streams[session].arrived) for session, new in data.items()}
        found = self._advance({session: chunk for session, (chunk, _) in read.items()})
        now = time.monotonic()
        for session, (_, memory) in read.items():
            streams[session].arrived, streams[session].fed = memory, now
        return found

    def finish(self, sessions: Iterable[Session]) -> dict[Session, Any]:
        """Return the last predictions of some streams, and begin new ones; see `Session.finish`.

        Raises:
            ValueError: nothing was fed to a session that predicts for the whole; a session of another pool.
        """
        streams = {session: self._stream(session) for session in sessions}
        chunks = {session: self._network.reader.finish(stream.arrived) for session, stream in streams.items()}
        for session, chunk in chunks.items():
            if not self._network.each and streams[session].last is None and len(chunk.inputs) == 0:
                raise ValueError("nothing was fed, or nothing that the network knows: there is nothing to predict")
        found = self._advance(chunks)
        for session in streams:
            self.begin(session)
        return found

    def write(self, session: Session, length: int, temperature: float, generator: torch.Generator | None) -> str:
        """See `Session.write`."""
        reader, stream = self._network.reader, self._stream(session)
        if not isinstance(reader, TextReader) or not reader.continued:
            raise ValueError("only a session of a language model writes; others predict what feed returns")
        whole(0, length=length)
        head, ids, unwanted = cast(Any, self.bundle.network).head, list[int](), [reader.tokenizer.start]
        unwanted += [] if reader.tokenizer.unknown is None else [reader.tokenizer.unknown]
        chunk, stream.arrived = reader.flush(stream.arrived)
        self._advance({session: chunk})
        for _ in range(length):
            logits = forbid(cast(Tensor, stream.last).unsqueeze(0), unwanted)
            token: Tensor = head.sample(head.sharpen(logits, temperature), generator)
            ids.append(int(token))
            self._advance({session: Chunk(token.cpu())})
        return reader.tokenizer.decode(ids)

    def save(self, session: Session) -> bytes:
        """See `Session.save`."""
        stream = self._stream(session)
        state = [leaf.cpu().clone() for leaf in leaves(self._state_of(stream))]
        last = None if stream.last is None else stream.last.cpu().clone()
        plain = {"arrived": stream.arrived, "reported": stream.reported, "last": last, "state": state}
        return pack({**plain, "fingerprint": self._fingerprint()})

    def restore(self, saved: bytes) -> Session:
        """Add the session that `Session.save` saved, and return it.

        Raises:
            ValueError: damaged bytes, or those of another network; the pool is full.
        """
        content = unpack(saved, self._fingerprint())
        session, device = self.join(), self._network.like.device
        stream = self._streams[session]
        stream.arrived, stream.reported = content["arrived"], content["reported"]
        stream.last = None if content["last"] is None else content["last"].to(device)
        stream.state = rebuild(stream.state, [leaf.to(device) for leaf in content["state"]])
        return session

    def idle(self, session: Session) -> float:
        """See `Session.idle`."""
        return time.monotonic() - self._stream(session).fed

    def nbytes(self, session: Session) -> int:
        """See `Session.nbytes`."""
        stream = self._stream(session)
        kept = [*leaves(self._state_of(stream)), *tensors_of([stream.arrived, stream.reported, stream.last])]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def _fingerprint(self) -> str:
        return fingerprint(self.bundle, {name: value for name, value in self.options.items() if name != "top"})

    def _stream(self, session: Session) -> _Stream:
        if session not in self._streams:
            raise ValueError("the session is not in this pool; join(session) adds it")
        return self._streams[session]

    def _state_of(self, stream: _Stream) -> Any:
        return self._batch.row(stream.row) if stream.state is None else stream.state

    def _remove(self, session: Session) -> _Stream:
        """Remove and return a stream, with a state of its own."""
        stream = self._streams.pop(session)
        if stream.state is None:
            stream.state = self._batch.row(stream.row)
            self._batch.remove(stream.row)
            last = self._rows.pop()
            if last is not stream:
                self._rows[stream.row], last.row = last, stream.row
        return stream

    def _advance(self, chunks: Mapping[Session, Chunk]) -> dict[Session, Any]:
        """Run the network over new steps, all sessions at once, and return what they predict."""
        # The longest first: those that have a step left come first in the batch.
        busy = sorted((s for s in chunks if len(chunks[s].inputs)), key=lambda s: -len(chunks[s].inputs))
        new = [self._streams[session] for session in busy if self._streams[session].state is not None]
        # A state is changed in place, also outside of inference mode.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            if new:
                self._batch.append([stream.state for stream in new])
            for stream in new:
                stream.state, stream.row = None, len(self._rows)
                self._rows.append(stream)
            rows, inputs = [self._streams[session].row for session in busy], [chunks[s].inputs for s in busy]
            found = dict(zip(busy, self._batch.step(rows, inputs), strict=True)) if busy else {}
        return self._reports(chunks, found)

    def _reports(self, chunks: Mapping[Session, Chunk], found: Mapping[Session, Tensor]) -> dict[Session, Any]:
        """Return what parameters (steps, outputs) predict."""
        results: dict[Session, Any] = dict.fromkeys(chunks)
        if self._network.each:
            nothing = self._network.like.new_zeros(0, self._network.outputs)
            for session, chunk in chunks.items():
                stream = self._streams[session]
                parameters = found.get(session, nothing)
                results[session], stream.reported = self._network.report(chunk, parameters, stream.reported)
            return results
        for session, parameters in found.items():
            self._streams[session].last = parameters.select(0, -1)
        last = {session: self._streams[session].last for session in chunks}
        known = {session: parameters for session, parameters in last.items() if parameters is not None}
        if known:
            predicted = self._network.predictions(torch.stack(list(known.values())))
            results |= zip(known, predicted, strict=True)
        return results
