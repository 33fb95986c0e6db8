"""Tagging: a label for each word of a sentence, or for each step of a series."""

from unrolled_tasks.tagging.data import TaggingData as TaggingData
from unrolled_tasks.tagging.frames import FrameTaggingData as FrameTaggingData
from unrolled_tasks.tagging.task import Tagging as Tagging

__all__ = ["FrameTaggingData", "Tagging", "TaggingData"]
