"""Counting: formal languages that a network learns from short strings and is tested on long ones."""

from unrolled_tasks.counting.counters import Counted as Counted
from unrolled_tasks.counting.counters import Dyck as Dyck
from unrolled_tasks.counting.regular import EvenPairs as EvenPairs
from unrolled_tasks.counting.regular import ModularArithmetic as ModularArithmetic
from unrolled_tasks.counting.regular import Parity as Parity
from unrolled_tasks.counting.task import Counting as Counting

__all__ = ["Counted", "Counting", "Dyck", "EvenPairs", "ModularArithmetic", "Parity"]
