"""Drawing: images on a canvas, glimpse by glimpse."""

from unrolled_tasks.draw.data import DrawingData as DrawingData
from unrolled_tasks.draw.task import Drawing as Drawing

__all__ = ["Drawing", "DrawingData"]
