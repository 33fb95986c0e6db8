"""Tagging: a label for each word of a sentence."""

from unrolled_tasks.tagging.data import TaggingData as TaggingData
from unrolled_tasks.tagging.task import Tagging as Tagging

__all__ = ["Tagging", "TaggingData"]
