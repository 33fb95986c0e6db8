"""What a caller of exported C must know."""

from typing import NamedTuple


class Interface(NamedTuple):
    """What a caller of the C functions must know.

    Attributes:
        about: what the network does.
        sizes: the constants of the header, without the network's name: name → number.
        declarations: the public functions, each with the comment before it.
    """

    about: str
    sizes: dict[str, int]
    declarations: list[str]
