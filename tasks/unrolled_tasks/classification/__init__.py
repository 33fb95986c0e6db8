"""Many-to-one: a sequence in, a label or a number out."""

from unrolled_tasks.classification.data import ClassificationData as ClassificationData
from unrolled_tasks.classification.data import LabelledBatch as LabelledBatch
from unrolled_tasks.classification.media import Medium as Medium
from unrolled_tasks.classification.media import Text as Text
from unrolled_tasks.classification.pictures import Pictures as Pictures
from unrolled_tasks.classification.series import Series as Series
from unrolled_tasks.classification.sound import Sound as Sound
from unrolled_tasks.classification.task import Classification as Classification

__all__ = ["Classification", "ClassificationData", "LabelledBatch", "Medium", "Pictures", "Series", "Sound", "Text"]
