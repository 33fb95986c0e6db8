"""Language modeling over characters, bytes or words."""

from unrolled_tasks.char_lm.data import TextData as TextData
from unrolled_tasks.char_lm.task import CharLM as CharLM

__all__ = ["CharLM", "TextData"]
