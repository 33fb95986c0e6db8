"""Long lags: what a network read long ago decides what it must predict now."""

from unrolled_tasks.long_lag.arithmetic import Adding as Adding
from unrolled_tasks.long_lag.arithmetic import Multiplication as Multiplication
from unrolled_tasks.long_lag.lags import NoiseFreeLag as NoiseFreeLag
from unrolled_tasks.long_lag.lags import NoisyLag as NoisyLag
from unrolled_tasks.long_lag.order import TemporalOrder as TemporalOrder
from unrolled_tasks.long_lag.recall import Copy as Copy
from unrolled_tasks.long_lag.recall import DelayedRecall as DelayedRecall
from unrolled_tasks.long_lag.task import LongLag as LongLag

__all__ = [
    "Adding",
    "Copy",
    "DelayedRecall",
    "LongLag",
    "Multiplication",
    "NoiseFreeLag",
    "NoisyLag",
    "TemporalOrder",
]
