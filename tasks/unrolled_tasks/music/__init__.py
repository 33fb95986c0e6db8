"""Polyphonic music: which notes sound next."""

from unrolled_tasks.music.data import MusicData as MusicData
from unrolled_tasks.music.task import Music as Music

__all__ = ["Music", "MusicData"]
