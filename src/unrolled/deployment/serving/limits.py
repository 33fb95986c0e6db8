"""What a request may ask for."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ServingLimits:
    """Limits of the requests to a server.

    Attributes:
        upload: bytes of a request.
        text: characters of a text.
        steps: generated symbols or frames, and steps of a text that is classified.
        seconds: seconds that a request may compute, and that it may wait before.
        recording: seconds of a recording.
        pixels: pixels of an image.
        waiting: requests that wait while another one computes.

    Raises:
        ValueError: a limit that is not above 0; `waiting` may be 0.
    """

    upload: int = 10_000_000
    text: int = 2_000
    steps: int = 1_000
    seconds: float = 30.0
    recording: float = 60.0
    pixels: int = 20_000_000
    waiting: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 or (value == 0 and field.name == "waiting")):  # NaN is not above 0, either
                raise ValueError(f"{field.name}={value}: expected a number above 0")
