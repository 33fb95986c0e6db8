"""Sessions as bytes: plain data with a digest, bound to the network that they belong to."""

import hashlib
import io
import json
from typing import Any, cast

import torch
from torch import Tensor

from unrolled.checkpoint import Bundle

_MARK = b"unrolled session 1\n"
_PARTS = {"arrived", "reported", "last", "state", "fingerprint"}
_DIGEST = hashlib.sha256().digest_size


def fingerprint(bundle: Bundle, options: dict[str, Any]) -> str:
    """Return a digest of everything that a session's numbers depend on: weights, processor and options."""
    found = hashlib.sha256(f"{type(bundle.network).__qualname__}\n".encode())
    for name, tensor in bundle.network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    plain = {"processor": bundle.processor.to_dict(), "options": options}
    found.update(json.dumps(plain, sort_keys=True, default=str).encode())
    return found.hexdigest()


def pack(content: dict[str, Any]) -> bytes:
    """Return plain data, dicts, lists, strings, numbers and tensors, as bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    return _MARK + hashlib.sha256(payload).digest() + payload


def unpack(saved: bytes, expected: str) -> dict[str, Any]:
    """Return the content of `pack`.

    Args:
        saved: the bytes.
        expected: the fingerprint that the content has to have.

    Raises:
        ValueError: something else, damaged bytes, or those of another network.
    """
    if not isinstance(saved, bytes | bytearray | memoryview) or not bytes(saved[: len(_MARK)]) == _MARK:  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise ValueError("these are not the bytes of a session; pass what save() returned")
    digest, payload = bytes(saved[len(_MARK) : len(_MARK) + _DIGEST]), bytes(saved[len(_MARK) + _DIGEST :])
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("the bytes of the session are damaged: their digest differs; restore another copy")
    try:
        content: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises IndexError and others for other content
        raise ValueError(f"the bytes of the session are not readable ({type(error).__name__})") from None
    if not isinstance(content, dict) or set(cast("dict[str, Any]", content)) != _PARTS:
        raise ValueError("the bytes are not those of a session; pass what save() returned")
    if content["fingerprint"] != expected:
        raise ValueError(
            "the session belongs to another network, or to other options: restore it with the bundle, the rate, the "
            "series and the start that it was saved with"
        )
    return cast("dict[str, Any]", content)


def tensors_of(content: Any) -> list[Tensor]:
    """Return the tensors in nested dicts and lists."""
    if isinstance(content, Tensor):
        return [content]
    if isinstance(content, dict):
        return [tensor for value in cast("dict[str, Any]", content).values() for tensor in tensors_of(value)]
    return (
        [tensor for value in cast("list[Any]", content) for tensor in tensors_of(value)]
        if isinstance(content, list)
        else []
    )
