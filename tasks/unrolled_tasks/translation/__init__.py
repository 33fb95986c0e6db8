"""Many-to-many: a sentence in one language, written in another."""

from unrolled_tasks.translation.data import PairBatch as PairBatch
from unrolled_tasks.translation.data import TranslationData as TranslationData
from unrolled_tasks.translation.task import Translation as Translation

__all__ = ["PairBatch", "Translation", "TranslationData"]
