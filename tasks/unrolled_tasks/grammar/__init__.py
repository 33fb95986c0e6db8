"""Grammar: predict the next symbol of strings of a formal grammar."""

from unrolled_tasks.grammar.reber import Reber as Reber
from unrolled_tasks.grammar.task import Grammar as Grammar

__all__ = ["Grammar", "Reber"]
