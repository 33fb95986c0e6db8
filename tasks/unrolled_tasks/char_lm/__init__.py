"""Character, byte and word language models."""

from unrolled_tasks.char_lm.data import TextData as TextData
