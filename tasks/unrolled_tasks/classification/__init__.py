"""Classification and regression of sequences (many-to-one)."""

from unrolled.training.data.modalities import Modality as Modality
from unrolled.training.data.recordings import Audio as Audio
from unrolled_tasks.classification.data import ClassificationData as ClassificationData
from unrolled_tasks.classification.data import LabeledBatch as LabeledBatch
from unrolled_tasks.classification.images import Images as Images
from unrolled_tasks.classification.series import Series as Series
from unrolled_tasks.classification.task import Classification as Classification
from unrolled_tasks.classification.text import Text as Text

__all__ = ["Audio", "Classification", "ClassificationData", "Images", "LabeledBatch", "Modality", "Series", "Text"]
