"""Translation of sentences (many-to-many)."""

from unrolled_tasks.translation.data import PairBatch as PairBatch
from unrolled_tasks.translation.data import TranslationData as TranslationData
from unrolled_tasks.translation.task import Translation as Translation

__all__ = ["PairBatch", "Translation", "TranslationData"]
