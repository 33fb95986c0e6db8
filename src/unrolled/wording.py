"""Plurals, articles, counts and operating system errors in messages."""

import errno
import re
from collections.abc import Mapping

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCKED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SPELT = "AEFHILMNORSX"  # letters whose names begin with a vowel


def counted(number: int, thing: str, things: str | None = None) -> str:
    """Return a number and its noun: "1 thread", "2 threads". `things` is an irregular plural."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def article(name: str) -> str:
    """Return a name with its indefinite article: "an EncoderDecoder", "an LSTMCell", "a UnigramTokenizer"."""
    if re.match(r"[A-Z]{2}", name):  # pronounced letter by letter
        vowel = name[0] in _SPELT
    else:
        vowel = re.match(r"(?!uni|use|usu|eu|one)[aeiou]", name.lower()) is not None
    return f"{'an' if vowel else 'a'} {name}"


def refused(error: OSError, where: str = "") -> str:
    """Return the message of an operating system error: the files, the reason, and a remedy where one is known.

    Args:
        error: the error.
        where: options that set another location, such as "run_dir=…".
    """
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = ": ".join([" → ".join(names), error.strerror or str(error)] if names else [error.strerror or str(error)])
    other = f" (by {where})" if where else ""
    if error.errno in _FULL:
        return f"{reason}; make room, or write to another disk{other}"
    return f"{reason}; change its permissions, or choose another place{other}" if error.errno in _LOCKED else reason


def tally(heading: str, counts: Mapping[str, int], first: str = "") -> str:
    """Return a part of a description with counts by reason: "; skipped: 2 empty, 1 unreadable, first a.wav"; or "".

    Args:
        heading: what happened to them.
        counts: the number for each reason; reasons with 0 are left out.
        first: an example.
    """
    parts = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return f"; {heading}: {', '.join(parts + ([f'first {first}'] if first else []))}" if parts else ""
