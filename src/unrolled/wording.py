"""Numbers, names and what the system refused, in the sentences that people read."""

import errno
import re

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCKED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SPELT = "AEFHILMNORSX"  # letters whose names begin with a vowel


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number and its thing: "1 thread", "2 threads"; `things` is the plural where an s doesn't make it."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def article(name: str) -> str:
    """A name after its indefinite article, by its sound: "an EncoderDecoder", "an LSTMCell", "a UnigramTokenizer"."""
    if re.match(r"[A-Z]{2}", name):  # said letter by letter
        vowel = name[0] in _SPELT
    else:
        vowel = re.match(r"(?!uni|use|usu|eu|one)[aeiou]", name.lower()) is not None
    return f"{'an' if vowel else 'a'} {name}"


def refused(error: OSError, where: str = "") -> str:
    """What the system refused, of which file, and what helps.

    Args:
        error: what it said.
        where: options that name other places, such as "run_dir=…".
    """
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    said = ": ".join([" → ".join(names), error.strerror or str(error)] if names else [error.strerror or str(error)])
    other = f" (by {where})" if where else ""
    if error.errno in _FULL:
        return f"{said}; make room, or write to another disk{other}"
    return f"{said}; change its permissions, or choose another place{other}" if error.errno in _LOCKED else said
