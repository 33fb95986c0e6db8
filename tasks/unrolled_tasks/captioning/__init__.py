"""Captioning of images (one-to-many)."""

from unrolled_tasks.captioning.data import CaptionBatch as CaptionBatch
from unrolled_tasks.captioning.data import CaptionData as CaptionData
from unrolled_tasks.captioning.task import Captioning as Captioning

__all__ = ["CaptionBatch", "CaptionData", "Captioning"]
