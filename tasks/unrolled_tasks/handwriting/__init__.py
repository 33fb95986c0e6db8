"""Handwriting: the next point of a pen, with the text to write or without one (Graves 2013)."""

from unrolled_tasks.handwriting.data import HandwritingData as HandwritingData
from unrolled_tasks.handwriting.task import Handwriting as Handwriting

__all__ = ["Handwriting", "HandwritingData"]
