"""Numbers and names in the sentences that people read."""

import re

_SPELT = "AEFHILMNORSX"  # letters whose names begin with a vowel


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number and its thing: "1 thread", "2 threads"; `things` is the plural where an s doesn't make it."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def article(name: str) -> str:
    """A name after its indefinite article, by its sound: "an EncoderDecoder", "an LSTMCell", "a UnigramCodec"."""
    if re.match(r"[A-Z]{2}", name):  # said letter by letter
        vowel = name[0] in _SPELT
    else:
        vowel = re.match(r"(?!uni|use|usu|eu|one)[aeiou]", name.lower()) is not None
    return f"{'an' if vowel else 'a'} {name}"
