# The public names, each with the module that defines it: __init__.py reads this file, and so do type checkers.

from unrolled.training.configuration.options import ConfigurationError as ConfigurationError
from unrolled.training.data.base import DataError as DataError
from unrolled.training.data.base import SequenceData as SequenceData
from unrolled.training.run.composition import compose as compose
from unrolled.training.tasks.base import SequenceTask as SequenceTask
from unrolled.training.tasks.evaluation import Scored as Scored

__all__: list[str]
