"""Sources for a trial prediction, which a server makes before it answers: invented, small, and readable by the network.

They have enough steps that layers run on the backend on which they run for longer ones.
"""

import io
import wave

from unrolled.processing.text.base import Tokenizer

STEPS = 64


def trial_text(tokenizer: Tokenizer) -> str:
    """Return a text of one symbol that a tokenizer knows, no blank."""
    for index in range(tokenizer.size - 1, -1, -1):
        text = tokenizer.decode([index])
        if text.strip() and tokenizer.encode(text) == [index] != [tokenizer.unknown]:
            return tokenizer.decode([index] * STEPS)
    return "a"


def trial_picture() -> bytes:
    """Return an image file, white with a dark spot."""
    from PIL import Image

    picture, file = Image.new("RGB", (4 * STEPS, STEPS), "white"), io.BytesIO()
    picture.paste("black", (STEPS, STEPS // 4, 2 * STEPS, STEPS // 2))
    picture.save(file, "PNG")
    return file.getvalue()


def trial_sound() -> bytes:
    """Return a file with a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(16_000)
        opened.writeframes(bytes(2 * 16_000))
    return file.getvalue()
