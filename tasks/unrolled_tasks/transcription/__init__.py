"""Transcription: the text of an image of a line, or of a recording, learned without an alignment."""

from unrolled_tasks.transcription.data import TranscriptionData as TranscriptionData
from unrolled_tasks.transcription.drawn import DrawnLines as DrawnLines
from unrolled_tasks.transcription.joining import Joining as Joining
from unrolled_tasks.transcription.lines import LineImages as LineImages
from unrolled_tasks.transcription.task import Transcription as Transcription

__all__ = ["DrawnLines", "Joining", "LineImages", "Transcription", "TranscriptionData"]
